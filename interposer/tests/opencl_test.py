"""Runs OpenCL programs that know nothing of AIRamp with libairamp.so, on PoCL: opencl_test.py BUILD_FOLDER."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

BUILD = pathlib.Path(sys.argv.pop(1)).resolve()
AIRAMP = str(BUILD / "bin/airamp")
LIBRARY = str(BUILD / "lib/libairamp.so")
PROGRAM = str(BUILD / "bin/opencl_program")
ALL = ["--pool=always", "--ocl-chunk=65536"]


class OpenCl(unittest.TestCase):
    def start(self, command, **changes):
        values = {k: v for k, v in os.environ.items() if not k.startswith(("AIRAMP", "OPENCL_LAYERS", "LD_PRELOAD"))}
        values |= {"OCL_ICD_VENDORS": "/etc/OpenCL/vendors"} | changes
        result = subprocess.run([str(c) for c in command], env=values, capture_output=True, text=True, timeout=120)
        self.assertEqual(result.returncode, 0, f"{command}\n{result.stdout}\n{result.stderr}")
        return result

    def airamp(self, options, command, **changes):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "report.json"
            result = self.start([AIRAMP, "run", *options, "--report", file, "--", *command], **changes)
            return self.report(file), result

    def report(self, file):
        report = json.loads(file.read_text())
        report["hooks"] = {row["api"]: row for row in report["hooks"]}
        report["mechanisms"] = {row["name"]: row for row in report["mechanisms"]}
        return report

    def preload(self, command, **changes):
        """Without being a layer."""
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "report.json"
            self.start(command, LD_PRELOAD=LIBRARY, AIRAMP_REPORT=str(file), **changes)
            return self.report(file)

    def test_programs_compute_the_same_through_both_doors(self):
        for case in ("compute", "transfers", "buffers"):
            with self.subTest(case):
                self.start([PROGRAM, case])
                for options in ([], ALL):
                    report, _ = self.airamp(options, [PROGRAM, case])
                    self.assertEqual(report["hooks"]["clCreateBuffer"]["door"], "layer")
                    self.assertGreater(report["hooks"]["clCreateBuffer"]["calls"], 0)
                report = self.preload([PROGRAM, case], AIRAMP_POOL="always", AIRAMP_OCL_CHUNK="65536")
                self.assertEqual(report["hooks"]["clCreateBuffer"]["door"], "preload")
                self.assertGreater(report["hooks"]["clCreateBuffer"]["calls"], 0)

    def test_only_one_door_is_active(self):
        by_layer, _ = self.airamp([], [PROGRAM, "compute"])
        by_preload = self.preload([PROGRAM, "compute"])
        for name in ("clGetPlatformIDs", "clCreateBuffer", "clEnqueueNDRangeKernel", "clReleaseMemObject"):
            self.assertEqual(by_layer["hooks"][name]["calls"], by_preload["hooks"][name]["calls"], name)
        self.assertEqual(by_layer["hooks"]["clCreateBuffer"]["calls"], 5)

    def test_released_buffers_are_handed_out_again(self):
        report, _ = self.airamp(["--pool=always"], [PROGRAM, "buffers_again"])
        pool = report["mechanisms"]["pool"]
        self.assertEqual(pool["state"], "active")
        self.assertGreaterEqual(pool["bytes_saved"], 15 * 123457)
        self.airamp(["--pool=always"], [PROGRAM, "released_twice"])

    def test_buffers_are_made_while_the_program_waits(self):
        """Six buffers a step; after the fifteenth step all are given back, and are there again when the next begins."""
        layers = f"{BUILD / 'lib/libcounting_layer.so'}:{LIBRARY}"
        with tempfile.TemporaryDirectory() as folder:
            for permille, made_again in (("50", True), ("0", False)):
                buffers, tuning = pathlib.Path(folder) / f"buffers{permille}", pathlib.Path(folder) / f"tuning{permille}"
                daemon = subprocess.Popen([BUILD / "bin/airampd", "--folder", tuning, "--mode", "off"], stderr=subprocess.DEVNULL)
                try:
                    conf, end = tuning / "tuning.conf", time.monotonic() + 30
                    while not conf.exists() and time.monotonic() < end:
                        time.sleep(0.01)
                    fresh = tuning / "edited"
                    fresh.write_text(conf.read_text().replace("PREWARM_PERMILLE = 50", f"PREWARM_PERMILLE = {permille} held"))
                    fresh.rename(conf)
                    while f"PREWARM_PERMILLE = {permille} held" not in conf.read_text() and time.monotonic() < end:
                        time.sleep(0.01)
                    report, _ = self.airamp(["--pool=always"], [PROGRAM, "steps"], OPENCL_LAYERS=layers,
                                            COUNTING_LAYER_BUFFERS=str(buffers), AIRAMP_TUNING_DIR=str(tuning))
                finally:
                    daemon.terminate()
                    daemon.wait()
                made, taken = len(buffers.read_text().split()), report["mechanisms"]["pool"]["calls"]
                # 108 are asked for. Those of a step that was prepared are all taken from the pool.
                self.assertEqual(made + taken, 108 + (6 if made_again else 0), (made, taken))

    def test_a_pool_is_judged_by_what_it_saves(self):
        # On PoCL it mostly loses: a buffer is made in less time than it takes to ask whether it may be kept.
        report, _ = self.airamp(["--pool"], [PROGRAM, "buffers"])
        pool = report["mechanisms"]["pool"]
        self.assertGreaterEqual(pool["calls"], 64)
        self.assertEqual(pool["state"], "disarmed" if "took more time" in pool["reason"] else "active", pool)

    def test_large_transfers_go_in_chunks(self):
        report, _ = self.airamp(["--ocl-chunk=65536"], [PROGRAM, "transfers"])
        chunks = report["mechanisms"]["ocl-chunk"]
        # A write and a read of a million bytes, five blocking reads; what cannot be split passed.
        self.assertEqual((chunks["state"], chunks["calls"]), ("active", 7))
        self.assertGreaterEqual(report["hooks"]["clEnqueueReadBuffer"]["passed"], 2)

    def test_clinfo(self):
        plain = self.start(["clinfo"])
        report, result = self.airamp(ALL, ["clinfo"])
        self.assertEqual(plain.stdout, result.stdout)
        self.assertGreater(report["hooks"]["clGetDeviceIDs"]["calls"], 0)

    def test_disabled(self):
        report, _ = self.airamp(ALL, [PROGRAM, "compute"], AIRAMP_DISABLE="opencl")
        self.assertEqual({r["calls"] for r in report["hooks"].values()}, {0})

    def test_other_layers_stay(self):
        _, result = self.airamp([], ["sh", "-c", "echo $OPENCL_LAYERS"], OPENCL_LAYERS="/usr/lib/other.so")
        self.assertEqual(result.stdout.strip(), f"{LIBRARY}:/usr/lib/other.so")

    def test_pyopencl_with_its_own_loader(self):
        """PyPI's pyopencl carries an OpenCL loader of another name, which only its own extension is linked to."""
        code = ("import numpy as np, pyopencl as cl, sys\n"
                "c = cl.create_some_context(interactive=False); q = cl.CommandQueue(c)\n"
                "x = np.arange(400000, dtype=np.float32); y = np.empty_like(x)\n"
                "p = cl.Program(c, 'kernel void f(global float* x) { x[get_global_id(0)] += 1; }').build()\n"
                "for i in range(4):\n"
                "    b = cl.Buffer(c, cl.mem_flags.READ_WRITE, x.nbytes); cl.enqueue_copy(q, b, x)\n"
                "    p.f(q, x.shape, None, b); cl.enqueue_copy(q, y, b); q.finish(); b.release()\n"
                "    assert (y == x + 1).all()\n"
                "maps = open('/proc/self/maps').read(); assert 'libOpenCL-' in maps, maps\n")
        self.start([sys.executable, "-c", code])
        report, _ = self.airamp(ALL, [sys.executable, "-c", code])
        self.assertEqual(report["hooks"]["clCreateBuffer"]["door"], "layer")
        self.assertGreaterEqual(report["hooks"]["clCreateBuffer"]["calls"], 4)
        report = self.preload([sys.executable, "-c", code], AIRAMP_POOL="always", AIRAMP_OCL_CHUNK="65536")
        self.assertEqual(report["hooks"]["clCreateBuffer"]["door"], "preload")
        self.assertGreaterEqual(report["hooks"]["clCreateBuffer"]["calls"], 4)
        self.assertEqual(report["mechanisms"]["ocl-chunk"]["state"], "active")


if __name__ == "__main__":
    unittest.main()
