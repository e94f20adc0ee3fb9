"""Runs a program that uses Gloo as PyTorch does, on a fake of Gloo, with libairamp.so in it:
gloo_test.py BUILD_FOLDER [unittest arguments]."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

BUILD = pathlib.Path(sys.argv.pop(1)).resolve()
AIRAMP = str(BUILD / "bin/airamp")
PROGRAM = str(BUILD / "bin/gloo_program")
COMPRESSED = ["1e-4", "2.5e-3"]
EXACT = ["0", "1e-6"]
ALWAYS = "--bf16-wire=always"


class Gloo(unittest.TestCase):
    def run_airamp(self, options, case):
        """Returns the row of gloo::allreduce, that of the mechanism, and what was said."""
        values = {k: v for k, v in os.environ.items() if not k.startswith(("AIRAMP", "LD_"))}
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "report.json"
            command = [AIRAMP, "run", *options, "--report", file, "--", PROGRAM, *case]
            result = subprocess.run([str(c) for c in command], env=values, capture_output=True, text=True, timeout=120)
            self.assertEqual(result.returncode, 0, f"{command}\n{result.stdout}\n{result.stderr}")
            report = json.loads(file.read_text())
        self.stdout = result.stdout
        hooks = {row["api"]: row for row in report["hooks"]}
        wire, = (row for row in report["mechanisms"] if row["name"] == "bf16-wire")
        return hooks["gloo::allreduce"], wire, result.stderr

    def test_sums_are_compressed_within_the_bound_and_nothing_else(self):
        for ranks in (2, 3, 4):
            with self.subTest(ranks=ranks):
                hook, wire, _ = self.run_airamp([ALWAYS], ["sums", ranks, *COMPRESSED])
                self.assertEqual(wire["calls"], 7 * ranks)
                self.assertEqual((hook["calls"], hook["passed"], hook["door"]), (12 * ranks, 4 * ranks, "preload"))

    def test_half_the_bytes_are_sent(self):
        def sent(options, sums):
            self.run_airamp(options, ["bytes", 2, sums, 0])
            return int(self.stdout.split()[-1])
        plain = sent([], 1)
        self.assertEqual(plain, 2 * 4 << 20)
        # The first also carries what the ranks measure once.
        self.assertEqual(sent([ALWAYS], 3) - sent([ALWAYS], 2), plain // 2)

    def test_several_at_once(self):
        _, wire, _ = self.run_airamp([ALWAYS], ["threads", 3, *COMPRESSED])
        self.assertEqual(wire["calls"], 9)

    def test_a_rank_without_the_library_makes_all_pass_through(self):
        hook, wire, said = self.run_airamp([ALWAYS], ["missing", 3, *EXACT])
        self.assertEqual(said.count("not all ranks run this version of libairamp"), 1)
        self.assertEqual(wire["calls"], 0)
        self.assertEqual(hook["passed"], hook["calls"])

    def test_a_store_over_which_ranks_cannot_agree(self):
        _, wire, said = self.run_airamp([ALWAYS], ["old", 3, *EXACT])
        self.assertIn("too old for ranks to agree over", said)
        self.assertEqual(wire["calls"], 0)

    def test_between_ranks_of_one_host_nothing_is_compressed(self):
        _, wire, _ = self.run_airamp(["--bf16-wire"], ["sums", 2, *EXACT])
        self.assertIn("one host", wire["reason"])

    def test_a_plain_run_only_observes(self):
        hook, wire, _ = self.run_airamp([], ["sums", 2, *EXACT])
        self.assertEqual((hook["calls"], wire["state"]), (24, "off"))


if __name__ == "__main__":
    unittest.main()
