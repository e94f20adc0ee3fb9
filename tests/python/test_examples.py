"""The notebook-style examples run and say what they promise."""

import pathlib
import re
import subprocess
import sys
import unittest

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "examples" / "python"
EXPECTED = {
    "classify": r"(?s)upright: [01]\.\d+\nupside down: [01]\.\d+\nupright: .*Because",
    "read_text": r"The model reads this line\.?",
    "embed_sentences": r"(?s)cat sleeps.*~  The kitten.*kitten.*~  A cat sleeps.*Interest.*~  The central.*~  Interest",
    "generate_text": r"(?s)100 tokens with a cache.*the same tokens without a cache",
    "compare_devices": r"(?s)cpu .* ms, spread.*reference .* ms, spread.*Candidates",
    "as_onnxruntime": r"(?s)tensor\(float\).*INVALID_ARGUMENT.*Candidates",
}


class Examples(unittest.TestCase):
    def test_all_are_listed(self):
        self.assertEqual({p.stem for p in FOLDER.glob("*.py")} - {"models"}, set(EXPECTED))

    def test_they_run(self):
        for name, expected in EXPECTED.items():
            with self.subTest(name):
                done = subprocess.run([sys.executable, str(FOLDER / f"{name}.py")], text=True, capture_output=True)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertRegex(done.stdout, re.compile(expected))


if __name__ == "__main__":
    unittest.main()
