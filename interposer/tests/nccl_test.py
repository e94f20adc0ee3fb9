"""Runs a program that uses NCCL or RCCL, on fakes of these and of the drivers below, with libairamp.so in it:
nccl_test.py BUILD_FOLDER [unittest arguments]. Nothing of this is a GPU."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

BUILD = pathlib.Path(sys.argv.pop(1)).resolve()
AIRAMP = str(BUILD / "bin/airamp")
COMPRESSED = ["1e-4", "2.5e-3"]
EXACT = ["0", "1e-6"]
ALWAYS = "--bf16-wire=always"
VENDORS = ("nvidia", "amd")


class Nccl(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def environment(self, vendor, changes):
        values = {k: v for k, v in os.environ.items() if not k.startswith(("AIRAMP", "LD_", "NCCL_", "PMI"))}
        values |= {"LD_LIBRARY_PATH": str(BUILD / "lib/fakes" / vendor), "XDG_CACHE_HOME": str(self.folder),
                   "FAKE_RTC_LOG": str(self.folder / "compiled")}
        return values | changes

    def program(self, vendor):
        return str(BUILD / f"bin/nccl_program_{vendor}")

    def read_report(self, file):
        report = json.loads(file.read_text())
        return ({row["api"]: row for row in report["hooks"]}, {row["name"]: row for row in report["mechanisms"]})

    def run_airamp(self, options, case, vendor="nvidia", **changes):
        """Runs a case whose ranks are threads; returns hooks and mechanisms by name."""
        file = self.folder / "report.json"
        command = [AIRAMP, "run", *options, "--report", file, "--", self.program(vendor), *case]
        result = subprocess.run([str(c) for c in command], env=self.environment(vendor, changes), capture_output=True,
                                text=True, timeout=120)
        self.assertEqual(result.returncode, 0, f"{command}\n{result.stdout}\n{result.stderr}")
        self.stdout, self.stderr = result.stdout, result.stderr
        return self.read_report(file)

    def run_processes(self, case, prefixes, vendor="nvidia", **changes):
        """A process for each rank, started as its prefix says, all of one run; returns what they say."""
        changes = {"AIRAMP_RUN": self.id()} | changes
        (self.folder / "report.json").unlink(missing_ok=True)
        for old in self.folder.glob("id*"):
            old.unlink()
        processes = []
        for rank, prefix in enumerate(prefixes):
            command = [*prefix, self.program(vendor), *case, "process", rank, len(prefixes), self.folder / "id"]
            processes.append(subprocess.Popen([str(c) for c in command], env=self.environment(vendor, changes),
                                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        said = ""
        for process in processes:
            text, _ = process.communicate(timeout=120)
            said += text
            self.assertEqual(process.returncode, 0, text)
        return said

    def airamp(self, *options):
        return [AIRAMP, "run", *options, "--report", self.folder / "report.json", "--"]

    def test_sums_are_compressed_within_the_bound(self):
        for vendor, mode, ranks, calls in (("nvidia", "threads", 2, 28), ("nvidia", "group", 3, 42), ("nvidia", "initgroup", 2, 28),
                                           ("amd", "threads", 4, 56), ("amd", "group", 2, 28)):
            with self.subTest(vendor=vendor, mode=mode):
                hooks, mechanisms = self.run_airamp([ALWAYS], ["sums", *COMPRESSED, mode, ranks], vendor)
                self.assertEqual(mechanisms["bf16-wire"]["state"], "active")
                self.assertEqual(mechanisms["bf16-wire"]["calls"], calls)
                self.assertEqual(hooks["ncclAllReduce"]["door"], "preload")

    def test_ranks_that_are_processes(self):
        for vendor in VENDORS:
            with self.subTest(vendor):
                self.run_processes(["sums", *COMPRESSED], [self.airamp(ALWAYS)] * 2, vendor)
                _, mechanisms = self.read_report(self.folder / "report.json")
                self.assertEqual(mechanisms["bf16-wire"]["calls"], 28)

    def test_other_modes(self):
        for mode, most in (("A", "2.5e-3"), ("D", "2.5e-3")):
            with self.subTest(mode):
                _, mechanisms = self.run_airamp([ALWAYS, f"--bf16-mode={mode}"], ["sums", "1e-4", most, "threads", 2])
                self.assertEqual(mechanisms["bf16-wire"]["calls"], 28)

    def test_half_the_bytes_are_sent(self):
        sent = {}
        for options in ((), (ALWAYS,), (ALWAYS, "--bf16-mode=D")):
            self.run_airamp(options, ["bytes", 0, 0, "threads", 2])
            sent[options] = int(self.stdout.split()[-1])
        plain = sent[()]
        self.assertEqual(plain, 2 * 4 << 20)
        self.assertEqual(sent[(ALWAYS,)], plain // 2)
        self.assertEqual(sent[(ALWAYS, "--bf16-mode=D")], plain * 3 // 4)

    def test_communicators_that_were_split_off(self):
        _, mechanisms = self.run_airamp([ALWAYS], ["splits", *COMPRESSED, "threads", 4])
        self.assertEqual(mechanisms["bf16-wire"]["calls"], 8)

    def test_everything_else_is_left_alone(self):
        for vendor in VENDORS:
            for mode in ("threads", "group"):
                with self.subTest(vendor=vendor, mode=mode):
                    _, mechanisms = self.run_airamp([ALWAYS], ["untouched", *EXACT, mode, 3], vendor)
                    self.assertEqual(mechanisms["bf16-wire"]["calls"], 0)

    def test_nan_and_infinity_survive(self):
        self.run_airamp([ALWAYS], ["specials", 0, 0, "threads", 3])

    def test_gathering_is_opted_in_separately(self):
        _, mechanisms = self.run_airamp([ALWAYS], ["gather", 0, 0, "threads", 3])
        self.assertEqual(mechanisms["bf16-wire"]["calls"], 0)
        for mode, ranks in (("threads", 3), ("group", 2)):
            _, mechanisms = self.run_airamp([ALWAYS, "--bf16-allgather"], ["gather", "1e-3", "3.9e-3", mode, ranks])
            self.assertEqual(mechanisms["bf16-wire"]["calls"], 4 * ranks)

    def test_what_is_captured_passes_through(self):
        for vendor in VENDORS:
            with self.subTest(vendor):
                hooks, mechanisms = self.run_airamp([ALWAYS], ["capture", 0, 0, "threads", 2], vendor)
                self.assertEqual(mechanisms["bf16-wire"]["calls"], 2)

    def test_a_plain_run_only_observes(self):
        hooks, mechanisms = self.run_airamp([], ["once", *EXACT, "threads", 2])
        self.assertEqual(mechanisms["bf16-wire"]["state"], "off")
        self.assertEqual(hooks["ncclAllReduce"]["calls"], 4)
        self.assertFalse((self.folder / "compiled").exists())
        hooks, _ = self.run_airamp([ALWAYS], ["once", *EXACT, "threads", 2], AIRAMP_DISABLE="nccl")
        self.assertEqual(hooks["ncclAllReduce"]["state"], "off")

    def test_where_it_does_not_pay_nothing_is_compressed(self):
        _, mechanisms = self.run_airamp(["--bf16-wire"], ["once", *EXACT, "threads", 2])
        self.assertIn("rounding would cost more time", mechanisms["bf16-wire"]["reason"])

    def test_on_a_slow_link_it_pays(self):
        """2 MB a second, of which one rank's bytes count: rounding would have to be slower than that not to pay."""
        said = self.run_processes(["once", *COMPRESSED], [self.airamp("--bf16-wire")] * 2, FAKE_NCCL_RATE="2e6")
        _, mechanisms = self.read_report(self.folder / "report.json")
        self.assertEqual(mechanisms["bf16-wire"]["calls"], 2, said)
        self.assertGreater(mechanisms["bf16-wire"]["seconds_saved"], 0)

    def test_profilers_see_ranges(self):
        log = self.folder / "ranges"
        self.run_airamp([ALWAYS], ["once", *COMPRESSED, "threads", 2], RANGES=str(log),
                        NVTX_INJECTION64_PATH=str(BUILD / "lib/profilers/libnvtx_tool.so"))
        ranges = log.read_text().split("\n")
        # Each of two ranks measures three times, and sums once.
        for name in ("Pack", "Sum", "Unpack"):
            self.assertEqual(ranges.count(f"push AIRamp:BF16-{name}"), 2 * 4)
        self.assertEqual(ranges.count("pop"), 3 * 2 * 4)

    def test_a_rank_without_the_library_makes_all_pass_through(self):
        bare = ["env", "-u", "LD_PRELOAD"]
        said = self.run_processes(["once", *EXACT], [self.airamp(ALWAYS), bare])
        self.assertEqual(said.count("not all ranks run this version"), 1)
        # Who makes the unique id has no library: nobody can be asked.
        self.run_processes(["once", *EXACT], [bare, self.airamp(ALWAYS)])
        _, mechanisms = self.read_report(self.folder / "report.json")
        self.assertIn("offers no channel", mechanisms["bf16-wire"]["reason"])

    def test_ranks_with_other_settings_pass_through(self):
        said = self.run_processes(["once", *EXACT], [self.airamp(ALWAYS), self.airamp(ALWAYS, "--bf16-mode=A")])
        self.assertIn("not all ranks run this version of libairamp with these settings", said)

    def test_a_rank_without_memory_makes_all_pass_through(self):
        _, mechanisms = self.run_airamp([ALWAYS], ["full", *EXACT, "threads", 3])
        self.assertEqual(mechanisms["bf16-wire"]["calls"], 0)

    def test_non_blocking_communicators_pass_through(self):
        self.run_processes(["once", *EXACT], [self.airamp(ALWAYS)] * 2, TEST_BLOCKING="0")
        self.run_processes(["once", *COMPRESSED], [self.airamp(ALWAYS)] * 2, TEST_BLOCKING="1")

    def test_a_context_of_the_programs_own_passes_through(self):
        said = self.run_processes(["once", *EXACT], [self.airamp(ALWAYS)] * 2, TEST_OWN_CONTEXT="1")
        self.assertIn("works in a context of its own", said)

    def test_codes_of_the_library_arrive(self):
        self.run_airamp([], ["error", 0, 0, "threads", 2])
        self.run_airamp([ALWAYS], ["error", 0, 0, "threads", 2])

    def test_shadow_changes_nothing_and_tells_the_error(self):
        for mode in ("threads", "group"):
            _, mechanisms = self.run_airamp(["--shadow"], ["sums", *EXACT, mode, 2])
            shadow = mechanisms["shadow"]
            self.assertEqual(shadow["calls"], 26)
            error = float(shadow["reason"].split("error ")[1].split()[0])
            self.assertTrue(1e-4 < error < 1e-2, shadow["reason"])

    def compilations(self):
        log = self.folder / "compiled"
        lines = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def test_kernels_are_compiled_once_for_an_architecture(self):
        for vendor, target in (("nvidia", "--gpu-architecture=sm_90"), ("amd", "--offload-arch=gfx90a")):
            with self.subTest(vendor):
                run = lambda: self.run_airamp([ALWAYS], ["once", *COMPRESSED, "threads", 2], vendor)
                run()
                self.assertEqual(self.compilations(), [target])
                run()
                self.assertEqual(self.compilations(), [])
                file, = (self.folder / "airamp").glob("kernels-*")
                self.assertEqual(file.stat().st_mode & 0o777, 0o600)
                whole = file.read_bytes()
                for damaged in (whole[:-1], whole[:-5] + b"xxxxx", b"", b"AIRKERN1"):
                    file.write_bytes(damaged)
                    run()
                    self.assertEqual(self.compilations(), [target])
                    self.assertEqual(file.read_bytes(), whole)
                # What others could have written is not believed, and a folder like that not used.
                file.chmod(0o622)
                run()
                self.assertEqual(self.compilations(), [target])
                (self.folder / "airamp").chmod(0o777)
                run()
                self.assertEqual(self.compilations(), [target])
                (self.folder / "airamp").chmod(0o700)
                file.unlink()

    def test_kernels_that_do_not_compile(self):
        _, mechanisms = self.run_airamp([ALWAYS], ["once", *EXACT, "threads", 2], FAKE_RTC_FAILS="1")
        self.assertIn("does not compile the kernels for sm_90", self.stderr)


if __name__ == "__main__":
    unittest.main()
