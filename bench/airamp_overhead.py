"""What libairamp.so costs where it does nothing: a call, the start of a process; and what a pair of buffer calls costs.

    bench/airamp_overhead.py [--rounds 9] [--write]

Calls are counted in processor time. hipMalloc and hipFree with the pool synchronise the fake device, cuMemAlloc and cuMemFree record
an event and ask for it; what the fake does for that is a part of the figure. Each figure is measured without and with the library in turn, in as many processes as there are rounds; the table has medians
with the least and the most in brackets. `--write` puts it into bench/results/airamp_overhead.md.
"""

import argparse
import datetime
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "build/lib/libairamp.so"


def environment(**changes):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIRAMP", "LD_PRELOAD", "OPENCL_LAYERS"))}
    return kept | changes


def call(program, *what, **changes):
    return float(subprocess.run([program, *what], env=environment(**changes), capture_output=True, text=True, check=True).stdout)


def start(**changes):
    """Milliseconds from before fork to after exit of /bin/true, the best of 20."""
    best = float("inf")
    for _ in range(20):
        begin = time.perf_counter()
        subprocess.run(["/bin/true"], env=environment(**changes), check=True)
        best = min(best, (time.perf_counter() - begin) * 1e3)
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    preload = {"LD_PRELOAD": str(LIBRARY)}
    layer = {"OPENCL_LAYERS": str(LIBRARY)}
    rows = []
    with tempfile.TemporaryDirectory() as name:
        program = f"{name}/airamp_call"
        subprocess.run(f"gcc -O2 -shared -fPIC -o {name}/libtoy.so {ROOT}/bench/toy_mpi.c && gcc -O2 -o {program} "
                       f"{ROOT}/bench/airamp_call.c -L{name} -ltoy -lOpenCL -Wl,-rpath,{name}", shell=True, check=True)
        cases = [
            ("a hooked call of a function that does nothing, ns", lambda **e: call(program, "toy", **e), preload),
            ("start and end of /bin/true, ms", start, preload),
            ("clCreateBuffer and clReleaseMemObject on PoCL, as a layer, ns", lambda **e: call(program, "buffer", **e), layer),
            ("the same, with the pool, always", lambda **e: call(program, "buffer", **e), layer | {"AIRAMP_POOL": "always"}),
            ("hipMalloc and hipFree on the tests' fake device, with the pool, ns",
             lambda **e: call(program, "device", str(ROOT / "build/lib/libfake_hip.so"), **e), preload | {"AIRAMP_POOL": "always"}),
            ("cuMemAlloc and cuMemFree on the tests' fake device, with the pool, ns",
             lambda **e: call(program, "device", str(ROOT / "build/lib/libfake_cuda.so"), **e), preload | {"AIRAMP_POOL": "always"}),
        ]
        for label, measure, with_library in cases:
            plain, hooked = [], []
            for _ in range(options.rounds):
                plain.append(measure())
                hooked.append(measure(**with_library))
            cell = lambda v: f"{statistics.median(v):.3g} [{min(v):.3g}, {max(v):.3g}]"
            difference = statistics.median(hooked) - statistics.median(plain)
            rows.append(f"| {label} | {cell(plain)} | {cell(hooked)} | {difference:+.3g} |")
            print(rows[-1], flush=True)
    text = "\n".join(["# What libairamp.so costs", "",
                      "Made by [`bench/airamp_overhead.py`](../airamp_overhead.py), which says how. "
                      f"{datetime.date.today()}, {os.cpu_count()} cores, {platform.machine()}, {options.rounds} rounds.", "",
                      "| | without | with | difference of medians |", "|---|---|---|---|", *rows, ""])
    if options.write:
        (ROOT / "bench/results/airamp_overhead.md").write_text(text)


if __name__ == "__main__":
    sys.exit(main())
