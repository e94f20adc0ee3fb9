"""The pool of device memory and pinned copies, on fakes of CUDA's driver and of HIP's runtime: device_test.py BUILD_FOLDER."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

BUILD = pathlib.Path(sys.argv.pop(1)).resolve()
AIRAMP = str(BUILD / "bin/airamp")
PROGRAM = str(BUILD / "bin/device_program")
FAKE_CUDA = BUILD / "lib/libfake_cuda.so"
DOORS = {"hip": ("hipMalloc", "preload"), "cuda": ("cuMemAlloc_v2", "procaddress"), "cuda_dlsym": ("cuMemAlloc_v2", "dlsym")}


class Device(unittest.TestCase):
    def start(self, command, **changes):
        values = {k: v for k, v in os.environ.items() if not k.startswith(("AIRAMP", "LD_PRELOAD"))} | changes
        result = subprocess.run([str(c) for c in command], env=values, capture_output=True, text=True, timeout=60)
        self.assertEqual(result.returncode, 0, f"{command}\n{result.stdout}\n{result.stderr}")

    def airamp(self, options, door, case, mechanism="pool", **changes):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "report.json"
            self.start([AIRAMP, "run", *options, "--report", file, "--", PROGRAM, door, case, FAKE_CUDA],
                       **changes)
            report = json.loads(file.read_text())
        hooks = {row["api"]: row for row in report["hooks"]}
        return hooks, next(row for row in report["mechanisms"] if row["name"] == mechanism)

    def test_programs_see_the_drivers_rules(self):
        for door, (name, through) in DOORS.items():
            with self.subTest(door):
                self.start([PROGRAM, door, "always", FAKE_CUDA])
                for options, changes in (([], {}), (["--pool=always"], {}), (["--pool=always"], {"AIRAMP_FREE_SYNC": "event"})):
                    hooks, pool = self.airamp(options, door, "always", **changes)
                    self.assertGreater(hooks[name]["calls"], 400)
                    self.assertEqual(hooks[name]["door"], through)
                    self.assertEqual(pool["state"], "active" if options else "off")

    def test_freed_blocks_come_back(self):
        for door in DOORS:
            for sync in ("driver", "event"):
                with self.subTest(door=door, sync=sync):
                    _, pool = self.airamp(["--pool=always"], door, "reused", AIRAMP_FREE_SYNC=sync)
                    self.assertEqual(pool["calls"], 20)
                    self.assertEqual(pool["bytes_saved"], 20 << 20)

    def test_no_stream_reaches_the_next_owner_of_a_block(self):
        for door in DOORS:
            with self.subTest(door):
                self.start([PROGRAM, door, "streams", FAKE_CUDA])
                for sync in ("", "driver", "event"):
                    self.airamp(["--pool=always"], door, "streams", AIRAMP_FREE_SYNC=sync)

    def test_blocks_come_back_when_events_have_passed(self):
        for door in DOORS:
            with self.subTest(door):
                hooks, _ = self.airamp(["--pool=always"], door, "quarantined", AIRAMP_FREE_SYNC="event")
                self.assertIn("may still be in use", hooks[DOORS[door][0]]["reason"])
        # What their documentation says of frees.
        self.airamp(["--pool=always"], "cuda", "quarantined")

    def test_pressure_empties_the_pool(self):
        self.airamp(["--pool=always"], "cuda", "pressed")

    def test_programs_with_an_allocator_of_their_own(self):
        with tempfile.TemporaryDirectory() as folder:
            other = pathlib.Path(folder) / "libc10_cuda.so"
            shutil.copy(BUILD / "lib/libtoy_mpi.so", other)
            hooks, pool = self.airamp(["--pool=always"], "cuda", "streams", LD_PRELOAD=str(other))
        self.assertEqual(pool["state"], "disarmed")
        self.assertIn("keeps device memory itself", pool["reason"])

    def test_what_fails_is_not_the_programs(self):
        for door in ("hip", "cuda"):
            with self.subTest(door):
                self.start([PROGRAM, door, "copies", FAKE_CUDA])
                self.airamp(["--pool=always"], door, "pool_faults", AIRAMP_FREE_SYNC="event")
                self.airamp(["--pin=always"], door, "copy_faults")
                self.airamp(["--pool=always", "--pin=always"], door, "pool_faults", AIRAMP_FREE_SYNC="event")

    def test_pinned_copies_are_what_the_drivers_are(self):
        for door, name in (*((door, None) for door in DOORS), ("cuda_thread", "cuMemcpyHtoD_v2_ptds")):
            with self.subTest(door):
                self.start([PROGRAM, door, "copies", FAKE_CUDA])
                for options in (["--pin=always"], ["--pin=always", "--pool=always"], ["--pin"]):
                    hooks, pin = self.airamp(options, door, "copies", mechanism="pin", AIRAMP_FREE_SYNC="event")
                    if options != ["--pin"]:
                        self.assertEqual(pin["state"], "active")
                        self.assertGreater(pin["calls"], 20)
                    if name:
                        self.assertGreater(hooks[name]["calls"], 0)

    def test_pinned_buffers_stay_for_a_while(self):
        for door in ("hip", "cuda"):
            self.airamp(["--pin=always"], door, "kept_for_a_while")

    def test_pinned_copies_are_judged_by_what_they_save(self):
        for door in ("hip", "cuda"):
            with self.subTest(door):
                _, pin = self.airamp(["--pin"], door, "driver_is_slow", mechanism="pin")
                self.assertEqual(pin["state"], "active")
                self.assertGreater(pin["calls"], 80)
                self.assertGreater(pin["seconds_saved"], 0)
                _, pin = self.airamp(["--pin"], door, "driver_is_fast", mechanism="pin")
                self.assertEqual((pin["state"], pin["reason"]), ("disarmed", "the driver's own copies were not slower"))
                self.assertLess(pin["calls"], 20)

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
