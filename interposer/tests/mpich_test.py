"""MPICH's binary interface and its launcher, from the wheel `mpich` of this Python: mpich_test.py BUILD_FOLDER."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

BUILD = pathlib.Path(sys.argv.pop(1)).resolve()
AIRAMP = str(BUILD / "bin/airamp")
SOURCE = pathlib.Path(__file__).parent / "mpi_program.cpp"
BIN = pathlib.Path(sys.executable).parent


class Mpich(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if not (BIN / "mpiexec").exists():
            raise RuntimeError(f"The package mpich of scripts/requirements.txt is not installed for {sys.executable}.")
        cls.folder = tempfile.TemporaryDirectory()
        cls.program = pathlib.Path(cls.folder.name) / "program"
        subprocess.run([BIN / "mpicxx", "-O1", "-std=c++20", SOURCE, "-o", cls.program], check=True)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    # MPICH's ranks wait without giving their core away: there are not more of them than cores.
    def start(self, command):
        values = {k: v for k, v in os.environ.items() if not k.startswith(("AIRAMP", "PMI", "LD_PRELOAD"))}
        result = subprocess.run([str(c) for c in command], env=values, capture_output=True, text=True, timeout=200)
        self.assertEqual(result.returncode, 0, f"{command}\n{result.stdout}\n{result.stderr}")
        return result

    def mpiexec(self, *words):
        return [BIN / "mpiexec", "-n", "2", *words]

    def wire(self, file):
        report = json.loads(file.read_text())
        return report, next(row for row in report["mechanisms"] if row["name"] == "bf16-wire")

    def test_both_forms_compress(self):
        report_file = pathlib.Path(self.folder.name) / "report.json"
        run = [AIRAMP, "run", "--bf16-wire=always", "--report", report_file, "--"]
        for form in ([*run, *self.mpiexec(self.program, "specials")], self.mpiexec(*run, self.program, "specials")):
            report_file.unlink(missing_ok=True)
            self.start(form)
            report, wire = self.wire(report_file)
            self.assertEqual(wire["calls"], 2)
            self.assertEqual(wire["bytes_saved"], 2 * (1 << 21) // 2)
            self.assertIn("MPI_Allreduce", [row["api"] for row in report["hooks"]])

    def test_what_is_not_compressed_is_left_alone(self):
        self.start(self.mpiexec(self.program, "untouched"))
        self.start([AIRAMP, "run", "--bf16-wire=always", "--", *self.mpiexec(self.program, "untouched")])

    def test_calls_that_return_early(self):
        self.start([AIRAMP, "run", "--bf16-wire=always", "--", *self.mpiexec(self.program, "deferred")])

    def test_gathering(self):
        self.start([AIRAMP, "run", "--bf16-wire=always", "--bf16-allgather", "--",
                    *self.mpiexec(self.program, "gather", "1e-3", "3.9e-3")])

    def test_large_counts(self):
        self.start([AIRAMP, "run", "--bf16-wire=always", "--", *self.mpiexec(self.program, "large_counts")])

    def test_a_rank_without_the_library(self):
        result = self.start([*self.mpiexec()[:1], "-n", "1", AIRAMP, "run", "--bf16-wire=always", "--", self.program,
                             "alone", ":", "-n", "1", self.program, "alone"])
        self.assertIn("rank 1 runs without libairamp", result.stderr)


if __name__ == "__main__":
    unittest.main()
