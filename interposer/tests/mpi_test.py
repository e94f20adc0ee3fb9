"""Runs MPI programs that know nothing of AIRamp with libairamp.so: mpi_test.py BUILD_FOLDER [unittest arguments]."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

BUILD = pathlib.Path(sys.argv.pop(1)).resolve()
AIRAMP = str(BUILD / "bin/airamp")
PROGRAM = str(BUILD / "bin/mpi_program")
# Ranks that wait give their core to those that work: there may be more ranks than cores.
MPIRUN = ["mpirun", "--oversubscribe", "--mca", "mpi_yield_when_idle", "1"]
COMPRESSED = ["sums", "1e-4", "2.5e-3"]
EXACT = ["sums", "0", "1e-6"]


def environment(**changes):
    values = {k: v for k, v in os.environ.items() if not k.startswith(("AIRAMP", "OMPI_", "PMIX_", "LD_PRELOAD"))}
    values |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return values | changes


class Mpi(unittest.TestCase):
    def start(self, command, **changes):
        result = subprocess.run([str(c) for c in command], env=environment(**changes), capture_output=True, text=True,
                                timeout=120)
        self.assertEqual(result.returncode, 0, f"{command}\n{result.stdout}\n{result.stderr}")
        return result

    def run_airamp(self, options, command, **changes):
        """Runs a command under airamp; returns (report with rows by name, standard error)."""
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "report.json"
            result = self.start([AIRAMP, "run", *options, "--report", file, "--", *command], **changes)
            report = json.loads(file.read_text())
        self.stdout = result.stdout
        report["hooks"] = {row["api"]: row for row in report["hooks"]}
        report["mechanisms"] = {row["name"]: row for row in report["mechanisms"]}
        return report, result.stderr

    def wire(self, report):
        return report["mechanisms"]["bf16-wire"]

    def test_sums_are_compressed_within_the_bound(self):
        for ranks in (2, 3, 4):
            with self.subTest(ranks=ranks):
                report, _ = self.run_airamp(["--bf16-wire=always"], [*MPIRUN, "-n", ranks, PROGRAM, *COMPRESSED])
                self.assertEqual(self.wire(report)["state"], "active")
                self.assertGreater(self.wire(report)["calls"], 0)
                self.assertEqual(report["hooks"]["MPI_Allreduce"]["door"], "pmpi")

    def test_half_the_bytes_are_saved(self):
        report, _ = self.run_airamp(["--bf16-wire=always"], [*MPIRUN, "-n", 2, PROGRAM, "specials"])
        # One call of 2^19 floats on each of two ranks: 2 MiB, of which a ring of two sends every byte once a rank.
        self.assertEqual(self.wire(report)["calls"], 2)
        self.assertEqual(self.wire(report)["bytes_saved"], 2 * (1 << 21) // 2)

    def test_other_modes(self):
        for mode in "AD":
            with self.subTest(mode=mode):
                report, _ = self.run_airamp(["--bf16-wire=always", f"--bf16-mode={mode}"],
                                            [*MPIRUN, "-n", 2, PROGRAM, *COMPRESSED])
                self.assertEqual(self.wire(report)["state"], "active")

    def test_everything_else_is_left_alone(self):
        for ranks in (2, 4):
            with self.subTest(ranks=ranks):
                self.start([*MPIRUN, "-n", ranks, PROGRAM, "untouched"])
                report, _ = self.run_airamp(["--bf16-wire=always"], [*MPIRUN, "-n", ranks, PROGRAM, "untouched"])
                self.assertEqual(self.wire(report)["calls"], 0)
                self.assertEqual(report["hooks"]["MPI_Iallreduce"]["passed"], 3 * ranks)
                self.assertEqual(report["hooks"]["MPIX_Allreduce_init"]["passed"], 2 * ranks)

    def test_calls_that_return_early_are_exact_beside_compressed_ones(self):
        for ranks in (2, 3):
            with self.subTest(ranks=ranks):
                self.start([*MPIRUN, "-n", ranks, PROGRAM, "deferred"])
                report, _ = self.run_airamp(["--bf16-wire=always", "--bf16-allgather"], [*MPIRUN, "-n", ranks, PROGRAM, "deferred"])
                self.assertEqual(self.wire(report)["calls"], (5 * 2 + 3) * ranks)
                for name, calls in (("MPI_Iallreduce", 5 * 6), ("MPI_Iallgather", 5), ("MPIX_Allreduce_init", 2)):
                    row = report["hooks"][name]
                    self.assertEqual((row["calls"], row["passed"]), (calls * ranks, calls * ranks), name)
                    self.assertEqual(row["reason"], "non-blocking and persistent calls are not compressed")

    def test_a_plain_run_only_observes(self):
        report, _ = self.run_airamp([], [*MPIRUN, "-n", 2, PROGRAM, *EXACT])
        self.assertEqual(self.wire(report)["state"], "off")
        self.assertGreater(report["hooks"]["MPI_Allreduce"]["calls"], 0)

    def test_nan_and_infinity_survive(self):
        self.run_airamp(["--bf16-wire=always"], [*MPIRUN, "-n", 3, PROGRAM, "specials"])

    def test_a_rank_without_the_library_makes_all_pass_through(self):
        report, said = self.run_airamp([], [*MPIRUN, "-n", 1, AIRAMP, "run", "--bf16-wire=always", "--", PROGRAM, *EXACT,
                                            ":", "-n", 1, "env", "-u", "LD_PRELOAD", PROGRAM, *EXACT])
        self.assertEqual(self.wire(report)["state"], "off")
        self.assertIn("rank 1 runs without libairamp", said)
        self.assertIn("rank 1 runs without libairamp", self.wire(report)["reason"])

    def test_ranks_with_other_settings_pass_through(self):
        _, said = self.run_airamp([], [*MPIRUN, "-n", 1, AIRAMP, "run", "--bf16-wire=always", "--", PROGRAM, *EXACT, ":",
                                       "-n", 1, AIRAMP, "run", "--bf16-wire=always", "--bf16-mode=A", "--", PROGRAM, *EXACT])
        self.assertIn("rank 1 runs another version of libairamp or other settings", said)

    def test_each_rank_started_by_airamp(self):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "report.json"
            self.start([*MPIRUN, "-n", 2, AIRAMP, "run", "--bf16-wire=always", "--report", file, "--", PROGRAM, *COMPRESSED])
            report = json.loads(file.read_text())
        self.assertEqual(report["processes"], 2)

    def test_users_environment_lists_are_extended(self):
        show = ["env"]
        for options in (["--mca", "mca_base_env_list", "MARK=1"], ["-x", "MARK=1"]):
            with self.subTest(options=options):
                self.run_airamp(["--bf16-wire"], ["mpirun", *options, "-n", 1, *show])
                self.assertIn("MARK=1", self.stdout)
                self.assertIn("LD_PRELOAD=" + str(BUILD / "lib/libairamp.so"), self.stdout)
        self.run_airamp(["--bf16-wire"], ["mpirun", "-n", 1, *show], OMPI_MCA_mca_base_env_list="MARK=1")
        self.assertIn("MARK=1", self.stdout)
        self.assertIn("AIRAMP_BF16_WIRE=1", self.stdout)

    def test_ranks_on_other_hosts_start_with_an_empty_environment(self):
        """Two network namespaces, whose remote shell hands nothing on."""
        sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))
        import airamp_mpi
        if os.geteuid() != 0 or not shutil.which("ip") or subprocess.run(["unshare", "-n", "true"]).returncode != 0:
            print("The test of ranks on other hosts is skipped: only root can make network namespaces.", file=sys.stderr)
            self.skipTest("only root can make network namespaces")
        with tempfile.TemporaryDirectory() as name:
            hosts = airamp_mpi.Hosts(2, "1gbit", pathlib.Path(name), 0)
            try:
                shell = hosts.shell.read_text()
                hosts.shell.write_text(shell.replace("exec ip", f"exec env -i PATH={os.environ['PATH']} HOME=/root ip"))
                for options in ([], ["--mca", "mca_base_env_list", "MARK=1"]):
                    with self.subTest(options=options):
                        report = pathlib.Path(name) / "report.json"
                        hosts.mpirun(options, [PROGRAM, "specials"],
                                     prefix=[AIRAMP, "run", "--bf16-wire=always", "--report", report, "--"])
                        rows = json.loads(report.read_text())["mechanisms"]
                        self.assertEqual(next(row["calls"] for row in rows if row["name"] == "bf16-wire"), 2)
            finally:
                hosts.close()

    def test_between_processes_of_one_host_nothing_is_compressed(self):
        report, said = self.run_airamp(["--bf16-wire"], [*MPIRUN, "-n", 2, PROGRAM, *EXACT])
        self.assertEqual(said.count("bf16-wire was on, but never active: all ranks are on one host"), 1)
        self.assertEqual(self.wire(report)["calls"], 0)
        self.assertIn("all ranks are on one host", self.wire(report)["reason"])

    def test_switched_off(self):
        report, _ = self.run_airamp(["--bf16-wire=always"], [*MPIRUN, "-n", 2, PROGRAM, *EXACT], AIRAMP_DISABLE="opencl,mpi")
        self.assertEqual(report["hooks"]["MPI_Allreduce"]["state"], "off")
        self.assertEqual(report["hooks"]["MPI_Allreduce"]["calls"], 0)
        _, said = self.run_airamp(["--bf16-wire=always"], [*MPIRUN, "-n", 2, PROGRAM, *EXACT], AIRAMP="off")
        self.assertIn("AIRAMP=off is set", said)

    def test_shadow_changes_nothing_and_tells_the_error(self):
        report, _ = self.run_airamp(["--shadow", "--bf16-wire=always"], [*MPIRUN, "-n", 2, PROGRAM, *EXACT])
        shadow = report["mechanisms"]["shadow"]
        self.assertGreater(shadow["calls"], 0)
        error = float(re.search(r"error (\S+) of", shadow["reason"]).group(1))
        self.assertTrue(1e-4 < error < 1e-2, shadow["reason"])

    def test_gathering_is_opted_in_separately(self):
        self.run_airamp(["--bf16-wire=always"], [*MPIRUN, "-n", 3, PROGRAM, "gather", "0", "0"])
        report, _ = self.run_airamp(["--bf16-wire=always", "--bf16-allgather"],
                                    [*MPIRUN, "-n", 3, PROGRAM, "gather", "1e-3", "3.9e-3"])
        self.assertEqual(self.wire(report)["calls"], 2 * 3)

    def test_memory_of_devices_is_staged(self):
        """With a fake CUDA driver, whose memory faults when it is touched; this Open MPI would touch it."""
        for mode in "BAD":
            with self.subTest(mode=mode):
                report, _ = self.run_airamp(["--bf16-wire=always", "--bf16-allgather", f"--bf16-mode={mode}"],
                                            [*MPIRUN, "-n", 2, PROGRAM, "device", BUILD / "lib/libfake_cuda.so"])
                self.assertEqual(self.wire(report)["calls"], 4)

    def test_threads_sum_at_the_same_time(self):
        report, _ = self.run_airamp(["--bf16-wire=always"], [*MPIRUN, "-n", 2, PROGRAM, "threads"])
        self.assertEqual(self.wire(report)["calls"], 2 * 2 * 10)

    def test_communicators_with_spawned_ranks_pass_through(self):
        report, _ = self.run_airamp(["--bf16-wire=always"], [*MPIRUN, "-n", 2, PROGRAM, "spawn"])
        self.assertEqual(self.wire(report)["calls"], 0)
        self.assertGreater(report["hooks"]["MPI_Allreduce"]["passed"], 0)

    def test_profilers_see_ranges(self):
        """A library as NVIDIA's profilers name one, and a fake of AMD's, write down what is pushed and popped."""
        profilers = BUILD / "lib/profilers"
        for changes in ({"NVTX_INJECTION64_PATH": str(profilers / "libnvtx_tool.so")},
                        {"HSA_TOOLS_LIB": "any", "LD_LIBRARY_PATH": str(profilers)}):
            with self.subTest(changes), tempfile.TemporaryDirectory() as folder:
                log = pathlib.Path(folder) / "ranges"
                self.run_airamp(["--bf16-wire=always"], [*MPIRUN, "-n", 2, PROGRAM, "specials"], RANGES=str(log), **changes)
                ranges = log.read_text().split("\n")
                # Two ranks, one chunk: each packs, sums and unpacks once, and ends what it begins.
                for name in ("Pack", "Sum", "Unpack"):
                    self.assertEqual(ranges.count(f"push AIRamp:BF16-{name}"), 2)
                self.assertEqual(ranges.count("pop"), 6)

    def test_what_airampd_advises_is_read_before_agreement(self):
        if os.geteuid() != 0:
            print("The test of advice is skipped: only root can give ranks host names of their own.", file=sys.stderr)
            self.skipTest("only root can give ranks host names of their own")
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name) / "tuning"
            daemon = subprocess.Popen([BUILD / "bin/airampd", "--folder", folder, "--mode", "off"], stderr=subprocess.DEVNULL)
            try:
                conf = folder / "tuning.conf"

                def advise(key, value):
                    until = time.monotonic() + 30
                    while not conf.exists() and time.monotonic() < until:
                        time.sleep(0.01)
                    fresh = pathlib.Path(name) / "fresh"
                    fresh.write_text(re.sub(f"{key} = .*", f"{key} = {value}", conf.read_text()))
                    fresh.rename(conf)
                    while f"{key} = {value} held" not in conf.read_text() and time.monotonic() < until:
                        time.sleep(0.01)

                # Two host names: the break-even rule decides.
                ranks = [*MPIRUN, "-n", 1, "unshare", "-u", "sh", "-c", f"hostname one; exec {PROGRAM} specials", ":",
                         "-n", 1, "unshare", "-u", "sh", "-c", f"hostname two; exec {PROGRAM} specials"]
                advise("WIRE_LINK_BYTES_PER_S", 1000000)
                report, _ = self.run_airamp(["--bf16-wire"], ranks, AIRAMP_TUNING_DIR=str(folder))
                self.assertEqual(self.wire(report)["calls"], 2, self.wire(report))
                advise("WIRE_PACK_BYTES_PER_S", 1000000)
                report, _ = self.run_airamp(["--bf16-wire"], ranks, AIRAMP_TUNING_DIR=str(folder))
                self.assertEqual(self.wire(report)["calls"], 0)
                self.assertIn("rounding would cost more time", self.wire(report)["reason"])
                advise("WIRE_PACK_BYTES_PER_S", 0)
                advise("WIRE_LATENCY_NS", 1000000000)
                advise("WIRE_LINK_BYTES_PER_S", 10000000)
                report, _ = self.run_airamp(["--bf16-wire"], ranks, AIRAMP_TUNING_DIR=str(folder))
                self.assertEqual(self.wire(report)["calls"], 0)
                advise("WIRE_COMPRESS", 0)
                _, said = self.run_airamp(["--bf16-wire"], ranks, AIRAMP_TUNING_DIR=str(folder))
                self.assertIn("bf16-wire is off: airampd advises against it on this machine.", said)
            finally:
                daemon.terminate()
                daemon.wait()

    def test_fortran(self):
        fortran = str(BUILD / "bin/fortran_program")
        self.start([*MPIRUN, "-n", 2, fortran])
        report, _ = self.run_airamp(["--bf16-wire=always"], [*MPIRUN, "-n", 2, fortran])
        worst = float(self.stdout.split()[-1])
        self.assertTrue(1e-4 < worst <= 7.84e-3, worst)
        self.assertEqual(self.wire(report)["calls"], 4)

    def test_mpi4py(self):
        code = ("from mpi4py import MPI; from array import array; c = MPI.COMM_WORLD; n = 300000\n"
                "x = array('f', ((7 * i + c.rank) % 1009 / 1009 for i in range(n))); y = array('f', bytes(4 * n))\n"
                "exact = array('d', bytes(8 * n)); c.Allreduce(x, y); c.Allreduce(array('d', x), exact)\n"
                "worst = max(abs(a - b) / b for a, b in zip(y, exact) if b); assert 1e-4 < worst <= 7.84e-3, worst\n")
        report, _ = self.run_airamp(["--bf16-wire=always"], [*MPIRUN, "-n", 2, "/usr/bin/python3", "-c", code])
        self.assertEqual(self.wire(report)["calls"], 2)

    def test_training_ends_as_with_float32(self):
        for seed, ranks in ((1, 2), (2, 4), (3, 2)):
            with self.subTest(seed=seed):
                plain = float(self.start([*MPIRUN, "-n", ranks, PROGRAM, "train", seed]).stdout.split()[-1])
                report, _ = self.run_airamp(["--bf16-wire=always"], [*MPIRUN, "-n", ranks, PROGRAM, "train", seed])
                compressed = float(self.stdout.split()[-1])
                self.assertGreater(self.wire(report)["calls"], 0)
                self.assertNotEqual(plain, compressed)
                self.assertLess(abs(compressed - plain), 0.02 * plain)


if __name__ == "__main__":
    unittest.main()
