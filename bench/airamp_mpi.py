"""Sums over MPI with and without libairamp.so on links of a known rate. Needs root: it makes network namespaces.

    bench/airamp_mpi.py [--ranks 2,4] [--rate 1gbit] [--rounds 3] [--write]

Each rank is a host of its own: a network namespace with its own host name, joined to the others by a bridge, with a token
bucket on its sending side. Open MPI's float32 algorithms and the compressed sum are run one after the other, in several
rounds; the table has each one's best time, and its worst over best in brackets. The baseline of every ratio is the fastest
float32 algorithm for that size. `--write` puts the table into bench/results/airamp_mpi.md, or, for another rate, airamp_mpi_RATE.md. The rate `none` is for ranks of one host.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
AIRAMP = ROOT / "build/bin/airamp"
NETWORK = "10.77.0"
SIZES = {1 << 16: 20, 1 << 20: 20, 1 << 24: 4, 1 << 26: 3}  # bytes: repetitions
ALGORITHMS = {"default": None, "recursive doubling": 3, "ring": 4, "segmented ring": 5, "Rabenseifner": 6}


def sh(command, **options):
    return subprocess.run(command, shell=True, check=True, **options)


class Hosts:
    """Namespaces airK with addresses 10.77.0.K on one bridge."""

    def __init__(self, count, rate, folder, nice):
        self.nice = nice
        self.count, self.tag = count, f"air{os.getpid() % 1000}"
        sh(f"ip link add {self.tag}b type bridge && ip link set {self.tag}b up")
        for k in range(1, count + 1):
            n = f"{self.tag}n{k}"
            sh(f"ip netns add {n}; ip link add {self.tag}v{k} type veth peer name eth0 netns {n};"
               f"ip link set {self.tag}v{k} master {self.tag}b up; ip -n {n} addr add {NETWORK}.{k}/24 dev eth0;"
               f"ip -n {n} link set eth0 up; ip -n {n} link set lo up;"
               f"ip netns exec {n} tc qdisc add dev eth0 root tbf rate {rate} burst 32kb latency 50ms")
        # In place of ssh: the first argument is the host's address.
        self.shell = folder / "nsrsh"
        self.shell.write_text(f'#!/bin/bash\nh=$1; shift; k=${{h##*.}}\n'
                              f'exec ip netns exec {self.tag}n$k unshare -u bash -c "hostname {self.tag}h$k; $*"\n')
        self.shell.chmod(0o755)

    def mpirun(self, options, command, prefix=()):
        hosts = ",".join(f"{NETWORK}.{k}" for k in range(1, self.count + 1))
        words = [*prefix, "mpirun", "--allow-run-as-root", "--leave-session-attached", "--mca", "plm_rsh_agent", self.shell, "--mca", "pml", "ob1",
                 "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", f"{NETWORK}.0/24", "--mca",
                 "oob_tcp_if_include", f"{NETWORK}.0/24", "--mca", "mpi_yield_when_idle", "1", "--host", hosts, "-n",
                 self.count, "--bind-to", "none", *options, *command]
        line = " ".join(str(w) for w in words)
        # Linux shares the processor by sessions first: the priority is the session's.
        priority = f"echo {self.nice} >/proc/self/autogroup; " if self.nice else ""
        result = subprocess.run(["ip", "netns", "exec", f"{self.tag}n1", "unshare", "-u", "bash", "-c",
                                 f"{priority}hostname {self.tag}h1; exec {line}"],
                                capture_output=True, text=True, timeout=600, start_new_session=True)
        if result.returncode != 0:
            raise SystemExit(f"{line}\n{result.stdout}{result.stderr}")
        return result.stdout

    def close(self):
        for k in range(1, self.count + 1):
            subprocess.run(f"ip link del {self.tag}v{k}; ip netns del {self.tag}n{k}", shell=True)
        subprocess.run(f"ip link del {self.tag}b", shell=True)


class OneHost:
    """All ranks as processes of this machine, which talk through shared memory: where compressing loses."""

    def __init__(self, count):
        self.count = count

    def mpirun(self, options, command, prefix=()):
        words = [*prefix, "mpirun", "--allow-run-as-root", "--oversubscribe", "--mca", "mpi_yield_when_idle", "1", "--mca", "btl",
                 "vader,self", "-n", self.count, "--bind-to", "none", *options, *command]
        return subprocess.run([str(w) for w in words], capture_output=True, text=True, check=True, timeout=600).stdout

    def close(self):
        pass


def measure(hosts, program, name, sizes):
    """{bytes: (times, interface bytes)} of one run, and the report of a compressed one."""
    command = [program, *(f"{size}:{count}" for size, count in sizes.items())]
    report = None
    if name in ("airamp", "airamp, always"):
        file = pathlib.Path(program).parent / "report.json"
        switch = "--bf16-wire" if name == "airamp" else "--bf16-wire=always"
        out = hosts.mpirun([], command, prefix=[AIRAMP, "run", switch, "--report", file, "--"])
        report = json.loads(file.read_text())
    else:
        number = ALGORITHMS[name]
        options = [] if number is None else ["--mca", "coll_tuned_use_dynamic_rules", "1", "--mca",
                                             "coll_tuned_allreduce_algorithm", number]
        out = hosts.mpirun(options, command)
    rows = {}
    for line in out.splitlines():
        times, wire = line.split("|")
        size, *seconds = times.split()
        rows[int(size)] = ([float(s) for s in seconds], float(wire))
    return rows, report


def compare(options, ranks, folder, program):
    rounds = options.rounds
    hosts = OneHost(ranks) if options.rate == "none" else Hosts(ranks, options.rate, folder, options.nice)
    try:
        names = [*ALGORITHMS, "airamp", "airamp, always"]
        best = {name: {} for name in names}
        for round_number in range(rounds):
            for name in names:
                rows, _ = measure(hosts, program, name, SIZES)
                for size, (times, wire) in rows.items():
                    entry = best[name].setdefault(size, {"times": [], "wire": wire})
                    entry["times"] += times
                print(f"{ranks} ranks, round {round_number + 1}, {name}: " +
                      ", ".join(f"{size >> 10} KiB {min(t) * 1e3:.2f} ms" for size, (t, _) in rows.items()), flush=True)
        # The payload, counted by the library, of one size alone.
        _, report = measure(hosts, program, "airamp, always", {1 << 26: 1})
        wire = next(r for r in report["mechanisms"] if r["name"] == "bf16-wire")
        plain = wire["calls"] * 2 * (ranks - 1) * (1 << 26) // ranks
        payload = 1 - wire["bytes_saved"] / plain
        return best, payload
    finally:
        hosts.close()


def table(ranks, rate_bits, best, payload):
    lines = [f"### {ranks} ranks", "",
             "| payload | fastest float32 | ms | airamp ms | ratio | compressed anyway ms | ratio | interface bytes | line ms |",
             "|---|---|---|---|---|---|---|---|---|"]

    def cell(entry):
        times = entry["times"]
        return f"{min(times) * 1e3:.2f} [{max(times) / min(times):.2f}]"

    for size in SIZES:
        fastest = min(ALGORITHMS, key=lambda name: min(best[name][size]["times"]))
        f, a, always = best[fastest][size], best["airamp"][size], best["airamp, always"][size]
        base = min(f["times"])
        bytes_ratio = f"{always['wire'] / f['wire']:.3f}" if f["wire"] else "none"
        line = 2 * (ranks - 1) / ranks * size * 8 / rate_bits * 1e3
        lines.append(f"| {size >> 10} KiB | {fastest} | {cell(f)} | {cell(a)} | {min(a['times']) / base:.3f} | {cell(always)} "
                     f"| {min(always['times']) / base:.3f} | {bytes_ratio} | {line:.2f} / {line / 2:.2f} |")
    lines += ["", f"Payload of the compressed sum, as a part of the float32 algorithm's of least volume: {payload:.6f}.", ""]
    lines += ["All float32 algorithms, best ms: " + "; ".join(
        f"{name} " + ", ".join(f"{min(best[name][size]['times']) * 1e3:.1f}" for size in SIZES) for name in ALGORITHMS) + ".", ""]
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", default="2,4")
    parser.add_argument("--rate", default="1gbit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--nice", type=int, default=0, help="priority of the ranks, for machines that others use too")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    for reason, missing in (("it is not run as root, which network namespaces need", os.geteuid() != 0),
                            ("ip or tc is missing (package iproute2)", not (shutil.which("ip") and shutil.which("tc"))),
                            ("mpicc is missing (package libopenmpi-dev)", not shutil.which("mpicc")),
                            ("build/bin/airamp is missing (make build)", not AIRAMP.exists())):
        if missing:
            print(f"Skipped: {reason}.")
            return
    rate_bits = float("inf") if options.rate == "none" else int(options.rate.removesuffix("gbit")) * 10**9 if options.rate.endswith("gbit") else int(
        options.rate.removesuffix("mbit")) * 10**6
    lines = ["# Sums over MPI on shaped links", "",
             "Made by [`bench/airamp_mpi.py`](../airamp_mpi.py), which says how. Times are the best of all repetitions, with worst "
             "over best in brackets; ratios are to the fastest of Open MPI's float32 algorithms for that size. `airamp` decides by "
             "the break-even rule; *anyway* is `--bf16-wire=always`. Line: what the wire itself takes for float32 and for half of "
             "it.", "",
             f"{datetime.date.today()}, {'ranks of one host' if options.rate == 'none' else options.rate + ' a rank'}, {os.cpu_count()} cores for all ranks together "
             f"({platform.machine()}), {options.rounds} rounds. Other work on the machine: a load of {os.getloadavg()[1]:.0f} when this "
             f"began, with a priority of {options.nice} for the ranks' session.", ""]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        program = folder / "airamp_allreduce"
        sh(f"mpicc -O2 -o {program} {ROOT}/bench/airamp_allreduce.c")
        for ranks in (int(r) for r in options.ranks.split(",")):
            best, payload = compare(options, ranks, folder, program)
            lines += table(ranks, rate_bits, best, payload)
            time.sleep(2)  # the kernel deletes namespaces when it has time
    text = "\n".join(lines)
    print(text)
    if options.write:
        suffix = {"1gbit": "", "none": "_one_host"}.get(options.rate, f"_{options.rate}")
        (ROOT / f"bench/results/airamp_mpi{suffix}.md").write_text(text)


if __name__ == "__main__":
    sys.exit(main())
