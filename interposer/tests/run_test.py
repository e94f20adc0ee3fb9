"""`airamp` and libairamp.so in programs of all kinds: run_test.py BUILD_FOLDER [unittest arguments]."""

import json
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import unittest

BUILD = pathlib.Path(sys.argv.pop(1)).resolve()
AIRAMP = str(BUILD / "bin/airamp")
LIBRARY = str(BUILD / "lib/libairamp.so")
PITFALLS = str(BUILD / "bin/pitfall_program")
TOY = str(BUILD / "lib/libtoy_mpi.so")


class Run(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def leave_out(self, reason):
        print(f"{self.id()} is skipped: {reason}.", file=sys.stderr)
        self.skipTest(reason)

    def start(self, command, code=0, **changes):
        values = {k: v for k, v in os.environ.items() if not k.startswith(("AIRAMP", "LD_PRELOAD"))} | changes
        result = subprocess.run([str(c) for c in command], env=values, capture_output=True, text=True, timeout=60)
        self.assertEqual(result.returncode, code, f"{command}\n{result.stdout}\n{result.stderr}")
        return result

    def airamp(self, *command, options=(), **changes):
        """Runs a command, returns (report, result)."""
        file = self.folder / "report.json"
        result = self.start([AIRAMP, "run", *options, "--report", file, "--", *command], **changes)
        report = json.loads(file.read_text())
        report["hooks"] = {row["api"]: row for row in report["hooks"]}
        return report, result

    def compile(self, *arguments):
        program = self.folder / "program"
        (self.folder / "program.c").write_text('#include <stdio.h>\nint main(void) { puts("alive"); return 0; }\n')
        self.start([*arguments, self.folder / "program.c", "-o", program])
        return program

    def test_the_report_has_its_form(self):
        report, result = self.airamp("/bin/echo", "a b")
        self.assertEqual(result.stdout, "a b\n")
        self.assertEqual(result.stderr, "")
        self.assertEqual(report["processes"], 1)
        for row in report["hooks"].values():
            self.assertLessEqual({"api", "door", "calls", "state", "reason"}, row.keys())
        for row in report["mechanisms"]:
            self.assertLessEqual({"name", "calls", "bytes_saved", "seconds_saved", "state", "reason"}, row.keys())
            self.assertEqual(row["state"], "off")
        self.assertEqual(report["hooks"]["mpi"]["state"], "inactive")

    def test_the_programs_exit_code_is_ours(self):
        self.start([AIRAMP, "run", "--", "sh", "-c", "exit 7"], code=7)
        self.start([AIRAMP, "run", "--", "no_such_program"], code=127)
        self.start([AIRAMP, "run", "--no-such-option", "--", "true"], code=2)
        self.start([AIRAMP, "run"], code=2)

    def test_programs_that_cannot_be_hooked_run_with_one_line(self):
        cases = {"statically": ["gcc", "-static"], "musl": ["musl-gcc"]}
        for word, compiler in cases.items():
            with self.subTest(word):
                report, result = self.airamp(self.compile(*compiler))
                self.assertEqual(result.stdout, "alive\n")
                self.assertEqual(len(result.stderr.splitlines()), 1)
                self.assertIn(word, result.stderr)
                self.assertIn(word, report["hooks"]["mpi"]["reason"])

    def test_a_musl_program_started_by_a_hooked_one(self):
        _, result = self.airamp("sh", "-c", str(self.compile("musl-gcc")))
        self.assertEqual((result.stdout, result.stderr), ("alive\n", ""))

    def test_static_pie(self):
        _, result = self.airamp(self.compile("gcc", "-static-pie"))
        self.assertEqual(result.stdout, "alive\n")
        self.assertIn("statically", result.stderr)

    def test_setuid_programs_are_left_alone(self):
        if os.geteuid() != 0:
            self.leave_out("only root can make a program that runs as another user")
        program = self.compile("gcc")
        self.folder.chmod(0o755)
        os.chown(program, 65534, 65534)
        program.chmod(0o4755)
        self.assertTrue(program.stat().st_mode & stat.S_ISUID)
        _, result = self.airamp(program)
        self.assertEqual(result.stdout, "alive\n")
        self.assertIn("setuid", result.stderr)
        # The dynamic linker takes preloads without a slash even then; the library finds out by itself.
        self.assertEqual(self.start([program], LD_PRELOAD=LIBRARY, AIRAMP_REPORT=str(self.folder / "x")).stderr.count("airamp:"), 0)
        self.assertFalse((self.folder / "x").exists())

    def test_switched_off(self):
        report, result = self.airamp("echo", "x", AIRAMP="off")
        self.assertEqual(result.stdout, "x\n")
        self.assertIn("AIRAMP=off", result.stderr)
        self.assertEqual(report["processes"], 0)

    def test_pitfalls(self):
        """Calls that the program made, as counted; None: not at all."""
        cases = {"absent": None, "local": 10, "deepbind": 10, "threads": 40000, "exit": 1, "reload": 50}
        for case, calls in cases.items():
            with self.subTest(case):
                self.start([PITFALLS, case, TOY])
                report, result = self.airamp(PITFALLS, case, TOY)
                self.assertEqual(result.stderr, "")
                if calls is None:
                    self.assertNotIn("MPI_Allreduce", report["hooks"])
                    continue
                row = report["hooks"]["MPI_Allreduce"]
                self.assertEqual((row["calls"], row["door"]), (calls, "dlsym"))
                # What the library calls by itself is not the program's, although it comes through our hook.
                self.assertEqual(report["hooks"].get("MPI_Iallreduce", {"calls": 0})["calls"], 0)

    def test_children_made_by_fork_pass_through(self):
        self.start([PITFALLS, "fork", TOY])
        report, _ = self.airamp(PITFALLS, "fork", TOY)
        self.assertEqual(report["processes"], 1)
        # Two by the parent, one by the child that clone made in the same memory.
        self.assertEqual(report["hooks"]["MPI_Allreduce"]["calls"], 3)

    def test_all_processes_of_a_run_share_a_report(self):
        report, _ = self.airamp("sh", "-c", f"{PITFALLS} local {TOY} & {PITFALLS} local {TOY}; wait; true")
        self.assertGreaterEqual(report["processes"], 2)
        self.assertEqual(report["hooks"]["MPI_Allreduce"]["calls"], 20)

    def test_status_and_explain(self):
        process = subprocess.Popen([AIRAMP, "run", "--bf16-wire", "--", PITFALLS, "wait", TOY], stdout=subprocess.PIPE)
        try:
            self.assertEqual(process.stdout.readline(), b"ready\n")
            status = self.start([AIRAMP, "status", process.pid]).stdout
            self.assertIn(f"{process.pid} {PITFALLS}: 2 functions hooked, 1 calls seen", status)
            self.assertIn("bf16-wire  idle", status)
            self.assertIn(PITFALLS, self.start([AIRAMP, "status"]).stdout)
            text = self.start([AIRAMP, "explain", process.pid]).stdout
            self.assertIn("MPI_Allreduce is hooked through dlsym: 1 calls", text)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
        # Nothing is left of a process that was killed.
        self.start([AIRAMP, "status", process.pid], code=2)
        self.assertFalse(pathlib.Path(f"/dev/shm/airamp-{os.geteuid()}/{process.pid}").exists())

    def test_what_goes_wrong_around_it_never_stops_the_program(self):
        report = "/no/such/folder/report.json"
        result = self.start([PITFALLS, "local", TOY], LD_PRELOAD=LIBRARY, AIRAMP_REPORT=report)
        self.assertIn(f"airamp: The report {report} cannot be written: No such file or directory.", result.stderr)
        garbage = self.folder / "garbage.json"
        garbage.write_bytes(b'{"run": "' + bytes(range(256)) * 200)
        self.start([PITFALLS, "local", TOY], LD_PRELOAD=LIBRARY, AIRAMP_REPORT=str(garbage))
        self.assertEqual(json.loads(garbage.read_text())["processes"], 1)
        self.start(["sh", "-c", f"exec 2>&-; exec {PITFALLS} local {TOY}"], LD_PRELOAD=LIBRARY, AIRAMP_REPORT=report)
        # Numbers that are none, names that are too long.
        self.start([PITFALLS, "local", TOY], LD_PRELOAD=LIBRARY, AIRAMP_BF16_MIN="x" * 5000, AIRAMP_OCL_CHUNK="-1",
                   AIRAMP_DISABLE=",,," + "m" * 9000, AIRAMP_RUN="r" * 9000, AIRAMP_DEBUG="hooks")
        if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0:
            self.leave_out("only root can try other /dev/shm and /proc")
        folder = f"/dev/shm/airamp-{os.geteuid()}"
        for trap in ("true", f"ln -s /tmp {folder}", f"touch {folder}", f"mkdir -m 777 {folder}",
                     f"mkdir -m 700 {folder}; chown 65534 {folder}", "mount -t tmpfs none /proc",
                     f"mkdir -m 700 {folder}; mount -t tmpfs -o size=8k,mode=700 none {folder}", "mount -o remount,ro /dev/shm"):
            with self.subTest(trap):
                script = f"mount -t tmpfs none /dev/shm; {trap}; exec env LD_PRELOAD={LIBRARY} {PITFALLS} local {TOY}"
                self.start(["unshare", "-m", "bash", "-c", script])

    def test_put_into_every_program(self):
        """In a mount namespace whose /etc is a copy, with the library where only root can write."""
        if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0:
            self.leave_out("only root can try another /etc/ld.so.preload")
        script = f"""
            set -e
            mount -t tmpfs none /mnt; mkdir -p /mnt/etc /mnt/bin /mnt/lib; chmod 755 /mnt /mnt/*
            cp -a /etc/. /mnt/etc; cp {AIRAMP} /mnt/bin; cp {LIBRARY} /mnt/lib; mount --bind /mnt/etc /etc
            chmod 777 /mnt/lib; /mnt/bin/airamp install --system && exit 9; chmod 755 /mnt/lib
            echo /no/such/other.so >/etc/ld.so.preload
            /mnt/bin/airamp install --system --deny=env,ls 2>/dev/null
            grep -c . /etc/ld.so.preload
            {{ cat /proc/self/maps | grep -c libairamp.so; /mnt/bin/airamp status; }} 2>/dev/null
            for program in cat env; do cp /usr/bin/tail /mnt/bin/$program; (/mnt/bin/$program -f /dev/null & echo $! >/mnt/pid; wait) &
              sleep 0.3; /mnt/bin/airamp status $(cat /mnt/pid) 2>&1 | grep -v ld.so: | head -1; kill $(cat /mnt/pid); wait; done 2>/dev/null
            /mnt/bin/airamp uninstall --system 2>/dev/null; cat /etc/ld.so.preload; test ! -e /etc/airamp.conf
        """
        out = self.start(["unshare", "-m", "bash", "-c", script])
        self.assertIn("can be changed by others than root", out.stderr)
        lines = out.stdout.splitlines()
        self.assertEqual(lines[0], "libairamp.so is put into every program that starts from now on.")
        self.assertEqual(lines[1], "2")
        self.assertNotEqual(lines[2], "0")
        self.assertIn("/mnt/bin/cat: 0 functions hooked", out.stdout)
        self.assertRegex(out.stdout, r"Process \d+ is not running with libairamp.so")
        self.assertEqual(lines[-1], "/no/such/other.so")

    def test_other_programs_work_as_before(self):
        for command in (["bash", "-c", "for i in 1 2 3; do (echo $i | cat); done; exec -a other sh -c 'echo done'"],
                        ["/usr/bin/python3", "-c", "import ctypes, subprocess; print(subprocess.run(['ls', '/'], "
                         "capture_output=True).stdout, ctypes.CDLL(None).getpid() > 0)"],
                        ["git", "--version"], ["perl", "-e", "print join(',', map { $_ * 2 } 1 .. 5)"]):
            if command[0] in ("git", "perl") and not shutil.which(command[0]):
                continue  # not every machine has these; each has the others
            with self.subTest(command[0]):
                plain = self.start(command)
                _, hooked = self.airamp(*command)
                self.assertEqual((plain.stdout, plain.stderr), (hooked.stdout, hooked.stderr))


if __name__ == "__main__":
    unittest.main()
