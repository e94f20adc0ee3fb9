"""The pool of device memory, on fakes of CUDA's driver and of HIP's runtime: device_test.py BUILD_FOLDER."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

BUILD = pathlib.Path(sys.argv.pop(1)).resolve()
AIRAMP = str(BUILD / "bin/airamp")
PROGRAM = str(BUILD / "bin/device_program")
DOORS = {"hip": ("hipMalloc", "preload"), "cuda": ("cuMemAlloc_v2", "procaddress"), "cuda_dlsym": ("cuMemAlloc_v2", "dlsym")}


class Device(unittest.TestCase):
    def start(self, command, **changes):
        values = {k: v for k, v in os.environ.items() if not k.startswith(("AIRAMP", "LD_PRELOAD"))} | changes
        result = subprocess.run([str(c) for c in command], env=values, capture_output=True, text=True, timeout=60)
        self.assertEqual(result.returncode, 0, f"{command}\n{result.stdout}\n{result.stderr}")

    def airamp(self, options, door, case, **changes):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "report.json"
            self.start([AIRAMP, "run", *options, "--report", file, "--", PROGRAM, door, case, BUILD / "lib/libfake_cuda.so"],
                       **changes)
            report = json.loads(file.read_text())
        hooks = {row["api"]: row for row in report["hooks"]}
        return hooks, next(row for row in report["mechanisms"] if row["name"] == "pool")

    def test_programs_see_the_drivers_rules(self):
        for door, (name, through) in DOORS.items():
            with self.subTest(door):
                self.start([PROGRAM, door, "always", BUILD / "lib/libfake_cuda.so"])
                for options, changes in (([], {}), (["--pool=always"], {}), (["--pool=always"], {"AIRAMP_FREE_SYNC": "late"})):
                    hooks, pool = self.airamp(options, door, "always", **changes)
                    self.assertGreater(hooks[name]["calls"], 400)
                    self.assertEqual(hooks[name]["door"], through)
                    self.assertEqual(pool["state"], "active" if options else "off")

    def test_freed_blocks_come_back(self):
        for door in DOORS:
            for sync in ("driver", "late"):
                with self.subTest(door=door, sync=sync):
                    _, pool = self.airamp(["--pool=always"], door, "reused", AIRAMP_FREE_SYNC=sync)
                    self.assertEqual(pool["calls"], 20)
                    self.assertEqual(pool["bytes_saved"], 20 << 20)

    def test_blocks_are_made_while_the_program_waits(self):
        for door in DOORS:
            with self.subTest(door):
                self.airamp(["--pool=always"], door, "prewarmed")

    def test_a_library_that_calls_itself(self):
        hooks, _ = self.airamp(["--pool=always"], "hip", "pitch")
        self.assertEqual(hooks["hipFree"]["calls"], 1)

    def test_a_block_freed_twice_is_counted(self):
        hooks, _ = self.airamp(["--pool=always"], "hip", "always")
        self.assertEqual(hooks["hipFree"]["passed"], 1)
        self.assertIn("twice", hooks["hipFree"]["reason"])


if __name__ == "__main__":
    unittest.main()
