#!/usr/bin/env python3
"""What tuning costs a program, and how soon a running program follows: bench/results/airampd.md.

    airampd.py [--build build] [--rounds 15] [--edits 300] [--nice 0]

--nice -20 (as root) runs the daemon and the program ahead of whatever else the machine does.
"""

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent


def spawn_in_a_session():
    return os.posix_spawn(sys.executable, [sys.executable, *sys.argv], os.environ, setsid=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--edits", type=int, default=300)
    parser.add_argument("--nice", type=int, default=0)
    args = parser.parse_args()
    if args.nice:
        # Linux shares the processor by sessions first: the priority is the session's.
        if os.getsid(0) != os.getpid():
            return os.waitstatus_to_exitcode(os.waitpid(spawn_in_a_session(), 0)[1])
        pathlib.Path("/proc/self/autogroup").write_text(str(args.nice))
        os.setpriority(os.PRIO_PROCESS, 0, args.nice)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        daemon = subprocess.Popen([args.build / "bin" / "airampd", "--folder", folder, "--mode", "advise"],
                                  stderr=subprocess.DEVNULL)
        try:
            for _ in range(500):
                if (pathlib.Path(folder) / "tuning.conf").exists():
                    break
                time.sleep(0.02)
            done = subprocess.run([args.build / "bin" / "bench_reload", folder, str(args.rounds), str(args.edits)], check=True,
                                  capture_output=True, text=True)
        finally:
            daemon.terminate()
            daemon.wait()
    r = json.loads(done.stdout)
    model = next((line.split(":")[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())
    load = pathlib.Path("/proc/loadavg").read_text().split()[0]
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()

    def row(name, key, unit, scale):
        v = r[key]
        return (f"| {name} | {v['median'] / scale:.3g} {unit} | {v['p10'] / scale:.3g} to {v['p90'] / scale:.3g} {unit} | "
                f"{v['p99'] / scale:.3g} {unit} | {v['most'] / scale:.3g} {unit} | {v['n']} |")

    (HERE / "results" / "airampd.md").write_text(f"""# Tuning a running program

Made by `bench/airampd.py` at {commit} on {model}, {os.cpu_count()} processors, load average {load} at the end, nice {args.nice}. Where
the load is above the number of processors, the last columns show waits for a processor too.

| what | median | 10 % to 90 % | 99 % | most | of |
|---|---|---|---|---|---|
{row("check whether anything is new", "check_ns", "ns", 1)}
{row("get a value", "get_ns", "ns", 1)}
{row("`stat` of the file, which the check stands for", "stat_ns", "ns", 1)}
{row("from the start of a publication to the first call with the new value", "publish_ns", "ms", 1e6)}
{row("from the rename of an edit, through the check by airampd, to the first call with the new value", "edit_ns", "ms", 1e6)}

The first three: 20 million calls a round (100 000 for `stat`), all kinds in turn in every round, less the empty loop of the
same round. The last two: a program that calls without a pause, in a thread of its own or, for edits, between the rename and
the arrival; each edit goes through the running daemon's inotify watch, its check and its own rename.

{r['snapshots']:,} snapshots of all values were taken by a thread while {r['publications']:,} publications went on beside it:
{r['torn']} mixed two publications.
""")
    print(f"{HERE / 'results' / 'airampd.md'} is written.")


if __name__ == "__main__":
    sys.exit(main())
