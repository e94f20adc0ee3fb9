"""airampd as a process, with programs that follow it: airampd_test.py BUILD."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

BUILD = pathlib.Path(sys.argv.pop(1)).resolve()
AIRAMPD, PROBE = BUILD / "bin" / "airampd", BUILD / "bin" / "tuning_probe"
NOBODY = 65534
DEFAULT = 4194304


def run(*options, **more):
    return subprocess.run([AIRAMPD, *options], capture_output=True, text=True, timeout=60, **more)


def until(true_now, what, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := true_now():
            return result
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s: {what}")


class Airampd(unittest.TestCase):
    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp(dir="/tmp"))
        self.root.chmod(0o755)
        self.folder = self.root / "airamp-accel"
        self.conf = self.folder / "tuning.conf"
        self.processes = []

    def tearDown(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()
        shutil.rmtree(self.root)

    def start(self, *options, folder=None, **more):
        arguments = ["--folder", folder or self.folder] if folder != "" else []
        daemon = subprocess.Popen([AIRAMPD, *arguments, "--period", "0.2", *options], stderr=subprocess.PIPE, text=True, **more)
        self.processes.append(daemon)
        return daemon

    def probe(self, program=PROBE, **environment):
        p = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             env={"AIRAMP_TUNING_DIR": str(self.folder), **environment})
        self.processes.append(p)
        return p, p.stdout.readline().strip()

    def edit(self, old, new):
        fresh = self.folder / "edited"
        fresh.write_text(self.conf.read_text().replace(old, new))
        fresh.rename(self.conf)

    def test_words(self):
        self.assertIn("--veto-window", run("--help").stdout)
        self.assertRegex(run("--version").stdout, r"^airampd \d+\.\d+\.\d+\n$")
        for options, part in ((["--moed", "auto"], "did you mean --mode?"), (["--mode", "fast"], "off, advise, supervised and auto"),
                              (["--period", "x"], "must be a number of seconds"), (["--mode"], "needs a value"),
                              (["--once=1"], "takes no value"), (["--explain"], "goes with --once")):
            with self.subTest(options):
                done = run(*options)
                self.assertEqual(done.returncode, 2)
                self.assertIn(part, done.stderr)
        done = run("--folder", self.folder, "--status")
        self.assertEqual(done.returncode, 1)
        self.assertIn("No airampd answers", done.stderr)

    def test_the_systemd_unit_is_good(self):
        if not shutil.which("systemd-analyze"):
            print("The test of the unit is skipped: systemd-analyze is missing.", file=sys.stderr)
            self.skipTest("systemd-analyze is missing")
        text = (BUILD / "apps/airampd/airampd.service").read_text()
        unit = self.root / "airampd.service"
        unit.write_text("\n".join(f"ExecStart={AIRAMPD} --mode supervised" if line.startswith("ExecStart=") else line
                                  for line in text.splitlines() if not line.startswith("Documentation=")))
        done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_once_explains_and_touches_nothing(self):
        done = run("--folder", self.folder, "--once", "--explain")
        self.assertEqual(done.returncode, 0, done.stderr)
        for part in ("What is read", "host memory available: ", "rounding to bf16 and back: ", "Keys", "OCL_CHUNK_BYTES",
                     "because"):
            self.assertIn(part, done.stdout)
        self.assertFalse(self.folder.exists())

    def test_once_in_auto_publishes(self):
        done = run("--folder", self.folder, "--once", "--mode", "auto")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("WIRE_PACK_BYTES_PER_S: unknown to", done.stderr)
        self.assertNotIn("WIRE_PACK_BYTES_PER_S = 0\n", self.conf.read_text())

    def test_a_running_program_follows_edits(self):
        daemon = self.start()
        until(self.conf.exists, "a published file")
        program, state = self.probe()
        self.assertEqual(state, "published by airampd")
        self.assertEqual(int(program.stdout.readline()), DEFAULT)
        self.edit(f"= {DEFAULT}", "= 8MiB")
        self.assertEqual(int(program.stdout.readline()), 8 << 20)
        self.edit("= 8388608 held", "= 12")
        until((self.folder / "tuning.conf.rejected").exists, "the refused text")
        self.assertIn("OCL_CHUNK_BYTES is 12, but must be from 65536", (self.folder / "tuning.conf.rejected").read_text())
        until(lambda: "= 8388608 held" in self.conf.read_text(), "the last good text")
        self.edit("= 8388608 held", "= 2MiB")
        self.assertEqual(int(program.stdout.readline()), 2 << 20)
        # The program outlives its daemon, and follows the next one.
        daemon.send_signal(signal.SIGTERM)
        self.assertEqual(daemon.wait(20), 0)
        self.start()
        until(lambda: self.conf.read_text().count("2097152 held"), "what was held")
        until(lambda: run("--folder", self.folder, "--status").returncode == 0, "the next daemon")
        self.edit("= 2097152 held", "= 1MiB")
        self.assertEqual(int(program.stdout.readline()), 1 << 20)

    def test_a_person_decides(self):
        self.start()
        ask = lambda *words: run("--folder", self.folder, *words)
        waiting = "WIRE_PACK_BYTES_PER_S: unknown to"
        until(lambda: waiting in ask("--status").stdout, "a proposal")
        self.assertIn("Mode advise", ask("--status").stdout)
        self.assertIn("WIRE_PACK_BYTES_PER_S = 0\n", self.conf.read_text())
        done = ask("--approve", "WIRE_PACK_BYTES_PER_S")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("WIRE_PACK_BYTES_PER_S = 0\n", self.conf.read_text())
        again = ask("--approve", "WIRE_PACK_BYTES_PER_S")
        self.assertEqual(again.returncode, 1)
        self.assertIn("waits for approval", again.stderr)
        self.assertEqual(ask("--set-mode", "off").returncode, 0)
        self.assertIn("WIRE_PACK_BYTES_PER_S = 0\n", self.conf.read_text())

    def test_prometheus_is_served(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        self.start("--metrics", f"127.0.0.1:{port}")

        def metrics():
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                    return answer.read().decode()
            except OSError:
                return ""

        text = until(lambda: (m := metrics()) and "airampd_host_memory_available_bytes " in m and m, "readings")
        sample = re.compile(r'^[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? -?[0-9.e+-]+$')
        types = set()
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                self.assertNotIn(line, types, "each family stands once")
                types.add(line)
            elif not line.startswith("# HELP "):
                self.assertRegex(line, sample)

    def test_check_says_what_is_wrong(self):
        self.start()
        until(self.conf.exists, "a published file")
        self.assertEqual(run("--check", self.conf).returncode, 0)
        bad = self.root / "bad"
        bad.write_text("PIN_TTL_MS = never\n")
        done = run("--check", bad)
        self.assertEqual(done.returncode, 1)
        self.assertIn('line 1: PIN_TTL_MS is "never"', done.stderr)

    def test_the_second_daemon_gives_way(self):
        self.start()
        until(self.conf.exists, "a published file")
        done = run("--folder", self.folder, "--mode", "auto")
        self.assertEqual(done.returncode, 1)
        self.assertIn("Another airampd", done.stderr)

    @unittest.skipUnless(os.geteuid() == 0, "only root can start programs as other users")
    def test_users_have_daemons_of_their_own(self):
        home = self.root / "user"
        home.mkdir()
        os.chown(home, NOBODY, NOBODY)
        folder = home / "airamp-accel"
        self.start(folder=folder, user=NOBODY, group=NOBODY, extra_groups=[])
        until((folder / "tuning.conf").exists, "the user's file")
        self.assertEqual(folder.stat().st_uid, NOBODY)
        # Root's programs do not believe it, root's daemon does not use it.
        program, state = self.probe(AIRAMP_TUNING_DIR=str(folder))
        self.assertEqual(state, "fallbacks: no folder of airampd")
        done = run("--folder", folder, "--mode", "auto")
        self.assertEqual(done.returncode, 1)
        self.assertIn("belongs to another user", done.stderr)

    @unittest.skipUnless(os.geteuid() == 0, "only root can have a /dev/shm of its own")
    def test_the_usual_places(self):
        """In a mount namespace with an empty /dev/shm and /run, where somebody else took the name, or nobody did."""
        script = f"""
            mount -t tmpfs -o mode=1777 shm /dev/shm && mount -t tmpfs -o mode=755 run /run || exit 77
            eval "$BEFORE"
            {AIRAMPD} --period 0.2 2> {self.root}/log & daemon=$!
            for i in $(seq 1000); do [ -e $PLACE/tuning.conf ] && break; sleep 0.01; done
            stat -c '%a %u' $PLACE; {PROBE} < /dev/null | head -1; kill $daemon; wait $daemon"""
        for place, before in (("/dev/shm/airamp-accel", ":"),
                              ("/run/airamp-accel", f"mkdir /dev/shm/airamp-accel; chown {NOBODY} /dev/shm/airamp-accel"),
                              ("/run/airamp-accel", "mkdir -m 1777 /dev/shm/airamp-accel"),
                              ("/run/airamp-accel", "ln -s /run /dev/shm/airamp-accel")):
            with self.subTest(before):
                done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=60,
                                      env={"PATH": os.environ["PATH"], "PLACE": place, "BEFORE": before})
                if done.returncode == 77:
                    self.skipTest("no file system can be mounted here")
                self.assertEqual(done.stdout, "755 0\npublished by airampd\n", done.stderr + (self.root / "log").read_text())

    @unittest.skipUnless(os.geteuid() == 0, "only root can give a program another owner")
    def test_programs_with_raised_rights_read_nothing(self):
        self.start()
        until(self.conf.exists, "a published file")
        self.edit(f"= {DEFAULT}", "= 8MiB")
        until(lambda: "8388608 held" in self.conf.read_text(), "the edit")
        raised = self.root / "raised"
        shutil.copy(PROBE, raised)
        os.chown(raised, NOBODY, NOBODY)
        raised.chmod(stat.S_ISUID | 0o755)
        program, state = self.probe(raised)
        if state == "published by airampd":
            self.skipTest(f"{self.root} is mounted so that programs cannot raise their rights")
        self.assertEqual(state, "fallbacks: this program runs with raised rights")
        self.assertEqual(int(program.stdout.readline()), DEFAULT)

    def follower(self, **environment):
        """An unmodified OpenCL program under libairamp.so, with a layer below it that counts, and what asks for one thing."""
        values = {k: v for k, v in os.environ.items() if not k.startswith(("AIRAMP", "OPENCL_LAYERS", "LD_PRELOAD"))}
        library = BUILD / "lib" / "libairamp.so"
        values |= {"AIRAMP_TUNING_DIR": str(self.folder), "LD_PRELOAD": str(library),
                   "OPENCL_LAYERS": f"{BUILD / 'lib' / 'libcounting_layer.so'}:{library}",
                   "COUNTING_LAYER_FILE": str(self.root / "sizes"), **environment}
        p = subprocess.Popen([BUILD / "bin" / "opencl_follower"], env=values, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
        self.processes.append(p)

        def ask(line):
            print(line, file=p.stdin, flush=True)
            self.assertEqual(p.stdout.readline(), "done\n", p.poll())

        return p, ask

    def test_an_unmodified_program_cuts_its_next_transfer_as_an_edit_says(self):
        self.start()
        until(self.conf.exists, "a published file")
        sizes = self.root / "sizes"
        program, ask = self.follower(AIRAMP_OCL_CHUNK="1")

        def pieces():
            sizes.write_text("")
            ask(f"write {8 << 20}")
            return [int(n) for n in sizes.read_text().split()]

        self.assertEqual(pieces(), [DEFAULT] * 2)
        self.edit(f"= {DEFAULT}", "= 1MiB")
        until(lambda: "1048576 held" in self.conf.read_text(), "the edit")
        # What airampd wrote may stand there before the word that tells of it.
        until(lambda: pieces() == [1 << 20] * 8, "pieces of 1 MiB")
        program.stdin.close()
        self.assertEqual(program.wait(60), 0)

    def test_a_pool_keeps_what_the_program_comes_back_to(self):
        self.start()
        until(self.conf.exists, "a published file")
        self.edit("POOL_TTL_MS = 10000", "POOL_TTL_MS = 100")
        until(lambda: "POOL_TTL_MS = 100 held" in self.conf.read_text(), "the edit")
        until(lambda: run("--folder", self.folder, "--status").returncode == 0, "the daemon")
        report = self.root / "report.json"
        program, ask = self.follower(AIRAMP_POOL="always", AIRAMP_REPORT=str(report))
        ask("pause 250 12")
        program.stdin.close()
        self.assertEqual(program.wait(60), 0)
        pool = next(m for m in json.loads(report.read_text())["mechanisms"] if m["name"] == "pool")
        # The pauses are longer than the time to live: only after three of them are they known, and the buffer stays.
        self.assertGreaterEqual(pool["bytes_saved"], 5 * 1000000, pool)
        self.assertLessEqual(pool["bytes_saved"], 9 * 1000000, pool)


if __name__ == "__main__":
    unittest.main()
