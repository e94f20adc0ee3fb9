#!/usr/bin/env python3
"""Measures what a Python call costs, and the programs of tests/python against onnxruntime.

    python.py [--rounds 7] [--program-rounds 3] [--aivmm build/bin/aivmm]

Calls: one Add of f32[2,3], one thread. A round times, one after the other in an order that turns from round to round, 200
blocks of 100 calls each of: ai_vmm's deployment, the stand-in's InferenceSession.run, onnxruntime's, onnxruntime's again (the
A/A control), and the same model from C++ through `aivmm run --repeat 20000`, which writes into memory that it keeps. What a
round says of each is the time of a call in the median block (C++: the median call); the result is the median of the rounds,
the spread (largest − smallest) / median.

Programs: each whole, from the start of Python to its end, on AI VMM, on onnxruntime and on onnxruntime again, in an order that
turns from round to round.

Results go to bench/results/python.json and python.md.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT / "tests" / "python"), str(ROOT / "build" / "python")]
os.environ["PYTHONPATH"] = str(ROOT / "build" / "python")

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402

import ai_vmm  # noqa: E402
import ai_vmm.onnxruntime  # noqa: E402
import models  # noqa: E402
import programs  # noqa: E402

BLOCKS, CALLS = 200, 100


def turned(items: list, by: int) -> list:
    return items[by % len(items):] + items[:by % len(items)]


def summary(values: list[float]) -> dict:
    middle = statistics.median(values)
    return {"median": middle, "spread": (max(values) - min(values)) / middle, "rounds": values}


def session(ort, model: bytes):
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def calls(rounds: int, aivmm: pathlib.Path, folder: pathlib.Path) -> dict:
    """Microseconds a call."""
    path = folder / "add.onnx"
    path.write_bytes(models.add())
    x = np.ones((2, 3), np.float32)
    np.save(folder / "x.npy", x)
    deployment = ai_vmm.deploy(path, device="cpu", threads=1)
    ours, theirs = session(ai_vmm.onnxruntime, models.add()), session(onnxruntime, models.add())

    def timed(call) -> float:
        blocks = []
        for _ in range(BLOCKS):
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            blocks.append(time.perf_counter() - start)
        return 1e6 * statistics.median(blocks) / CALLS

    def in_cpp() -> float:
        done = subprocess.run([aivmm, "run", path, "--input", f"x={folder / 'x.npy'}", "--backend", "cpu", "--threads", "1",
                               "--repeat", str(BLOCKS * CALLS), "--json"], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)["median_us"]

    engines = [("deployment", lambda: timed(lambda: deployment(x))),
               ("stand-in", lambda: timed(lambda: ours.run(None, {"x": x}))),
               ("onnxruntime", lambda: timed(lambda: theirs.run(None, {"x": x}))),
               ("onnxruntime again", lambda: timed(lambda: theirs.run(None, {"x": x}))), ("C++", in_cpp)]
    for _, measure in engines:
        measure()
    found = {name: [] for name, _ in engines}
    for r in range(rounds):
        for name, measure in turned(engines, r):
            found[name].append(measure())
    return {name: summary(values) for name, values in found.items()}


def whole_programs(rounds: int, folder: pathlib.Path) -> dict:
    """Seconds a run."""
    engines = [("ai_vmm", True), ("onnxruntime", False), ("onnxruntime again", False)]
    results = {}
    for program, arguments in programs.prepare(folder).items():
        found = {name: [] for name, _ in engines}
        for r in range(-1, rounds):  # the first one warms the file cache
            for name, on_ai_vmm in turned(engines, r + 1):
                start = time.perf_counter()
                programs.run(program, arguments, on_ai_vmm)
                if r >= 0:
                    found[name].append(time.perf_counter() - start)
        results[program] = {name: summary(values) for name, values in found.items()}
        print(f"{program}: {results[program]['ai_vmm']['median']:.2f} s against "
              f"{results[program]['onnxruntime']['median']:.2f} s", flush=True)
    return results


def table(result: dict) -> str:
    c = {name: s["median"] for name, s in result["calls"].items()}
    lines = ["# Python", "", f"{result['machine']}; load average {result['load']} when it began. Written by bench/python.py, "
             "whose head says how.", "", "## One call of a small model", "",
             "| | µs a call | spread | × onnxruntime | µs beyond C++ |", "|---|---|---|---|---|"]
    for name, s in result["calls"].items():
        lines.append(f"| {name} | {s['median']:.2f} | {100 * s['spread']:.0f} % | {s['median'] / c['onnxruntime']:.2f} | "
                     f"{'' if name in ('C++', 'onnxruntime', 'onnxruntime again') else format(s['median'] - c['C++'], '.2f')} |")
    lines += ["", "## Whole programs", "", "| program | AI VMM, s | onnxruntime, s | ratio | spread | A/A |",
              "|---|---|---|---|---|---|"]
    for name, engines in result["programs"].items():
        ours, theirs, again = (engines[e]["median"] for e in ("ai_vmm", "onnxruntime", "onnxruntime again"))
        spread = max(e["spread"] for e in engines.values())
        lines.append(f"| {name} | {ours:.2f} | {theirs:.2f} | {ours / theirs:.2f} | {100 * spread:.0f} % | {again / theirs:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--program-rounds", type=int, default=3)
    parser.add_argument("--aivmm", type=pathlib.Path, default=ROOT / "build" / "bin" / "aivmm")
    args = parser.parse_args()
    processor = next((line.split(":")[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                      if line.startswith("model name")), platform.machine())
    result = {"machine": f"{processor}, {len(os.sched_getaffinity(0))} processors, Python {platform.python_version()}, "
                         f"onnxruntime {onnxruntime.__version__}, AI VMM {ai_vmm.__version__}",
              "load": f"{os.getloadavg()[0]:.1f}"}
    with tempfile.TemporaryDirectory() as folder:
        result["calls"] = calls(args.rounds, args.aivmm, pathlib.Path(folder))
        print({name: round(s["median"], 2) for name, s in result["calls"].items()}, flush=True)
        result["programs"] = whole_programs(args.program_rounds, pathlib.Path(folder))
    target = HERE / "results"
    (target / "python.json").write_text(json.dumps(result, indent=1) + "\n")
    (target / "python.md").write_text(table(result))


if __name__ == "__main__":
    main()
