#!/usr/bin/env python3
"""Measures the zoo against ONNX Runtime: float32, the same inputs, each run in a process of its own, interleaved.

    run.py [--rounds 3] [--seconds 2] [--threads 2] [--resume] [MODEL…]

A round runs ours, ONNX Runtime and ONNX Runtime again (the A/A control: two runs of the same program, whose ratio shows
what the machine's noise is worth), in an order that turns from round to round. The result of a case is the median of the
rounds' medians; the spread is (largest − smallest) / median of them. Results are written after every case to
bench/results/zoo.json and zoo.md, so that --resume goes on after the last one.
"""

import argparse
import json
import math
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT / "tests" / "models"), str(ROOT / "tests")]
import zoo  # noqa: E402

ENGINES = ("ours", "ort", "ort_again")
EMPTY = "empty graph"  # one Identity of one float: what a call costs


def empty_entry(folder: pathlib.Path) -> dict:
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "empty",
                              [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "empty.onnx")
    return {"name": EMPTY, "file": "empty.onnx", "kind": None, "cases": [zoo.case("one call", x=zoo.normal(1))]}


def measure(engine: str, args, model: pathlib.Path, inputs: pathlib.Path, warmup: int, repeat: int) -> dict:
    if engine == "ours":
        command = [args.aivmm, "run", model, "--input", inputs, "--backend", args.backend, "--threads", args.threads,
                   "--warmup", warmup, "--repeat", repeat, "--json"]
    else:
        command = [sys.executable, HERE / "onnx_runtime.py", model, inputs, args.threads, warmup, repeat]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{engine} left with {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}")
    return json.loads(done.stdout)


def summary(runs: list[dict]) -> dict:
    medians = [r["median_us"] for r in runs]
    middle = statistics.median(medians)
    load = lambda r: r["load_us"] + r.get("compile_us", 0)
    return {"median_us": middle, "spread": (max(medians) - min(medians)) / middle, "min_us": min(r["min_us"] for r in runs),
            "load_us": statistics.median(load(r) for r in runs), "peak_rss_bytes": max(r["peak_rss_bytes"] for r in runs),
            "interpreter_rss_bytes": max(r.get("interpreter_rss_bytes", 0) for r in runs),
            "fallback_nodes": max(r.get("fallback_nodes", 0) for r in runs), "repeat": runs[0]["repeat"],
            "rounds": len(runs)}


def bench_case(args, model: pathlib.Path, case: dict, folder: pathlib.Path) -> dict:
    inputs = folder / "inputs.npz"
    np.savez(inputs, **zoo.feeds(case, 1))
    repeat = {}
    for engine in ("ours", "ort"):
        probe = measure(engine, args, model, inputs, 1, 3)
        repeat[engine] = max(3, min(20000, int(args.seconds * 1e6 / probe["median_us"])))
    repeat["ort_again"] = repeat["ort"]
    runs: dict[str, list] = {engine: [] for engine in ENGINES}
    for turn in range(args.rounds):
        for k in range(len(ENGINES)):
            engine = ENGINES[(turn + k) % len(ENGINES)]
            runs[engine].append(measure(engine, args, model, inputs, max(1, repeat[engine] // 10), repeat[engine]))
    result = {engine: summary(r) for engine, r in runs.items()}
    result["ratio"] = result["ours"]["median_us"] / result["ort"]["median_us"]
    result["control"] = result["ort_again"]["median_us"] / result["ort"]["median_us"]
    return result


def machine(args) -> dict:
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.machine())
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "threads": args.threads, "commit": commit,
            "onnxruntime": onnxruntime.__version__, "date": time.strftime("%Y-%m-%d"), "seconds": args.seconds,
            "load_average": round(os.getloadavg()[0], 1)}


def geometric_mean(values) -> float:
    values = list(values)
    return math.exp(sum(map(math.log, values)) / len(values))


def markdown(results: dict) -> str:
    m, rows = results["machine"], results["cases"]
    lines = [f"# The zoo against ONNX Runtime {m['onnxruntime']}", "",
             f"{m['cpu']}, {m['threads']} threads of {m['cores']} cores, float32, commit {m['commit']}, {m['date']}. Each figure is the "
             f"median of {rows[0]['ours']['rounds']} processes' medians of about {m['seconds']:g} s each, interleaved; in brackets the "
             "spread over the processes. "
             f"The machine's load average at the start was {m['load_average']:g}: above 0.5, other programs ran beside. Ratio: ours / ONNX Runtime, smaller is better. A/A: ONNX Runtime / ONNX Runtime, the noise. "
             "Memory is the peak of the whole process; ONNX Runtime's holds a Python interpreter of about "
             f"{max(r['ort']['interpreter_rss_bytes'] for r in rows) / 1e6:.0f} MB. Load is everything before the first run.", "",
             "| model | case | ours ms | ORT ms | ratio | A/A | ours MB | ORT MB | ours load s | ORT load s | nodes on host or generic |",
             "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"]
    for r in rows:
        cell = lambda e: f"{r[e]['median_us'] / 1e3:.3g} ({100 * r[e]['spread']:.0f} %)"
        lines.append(f"| {r['model']} | {r['case']} | {cell('ours')} | {cell('ort')} | {r['ratio']:.2f} | {r['control']:.2f} | "
                     f"{r['ours']['peak_rss_bytes'] / 1e6:.0f} | {r['ort']['peak_rss_bytes'] / 1e6:.0f} | "
                     f"{r['ours']['load_us'] / 1e6:.2f} | {r['ort']['load_us'] / 1e6:.2f} | {r['ours']['fallback_nodes']} |")
    models = [r for r in rows if r["model"] != EMPTY]
    if models:
        slow = [f"{r['model']} {r['case']} ({r['ratio']:.2f})" for r in models if r["ratio"] > 1.3]
        lines += ["", f"Geometric mean of the ratio over {len(models)} cases: **{geometric_mean(r['ratio'] for r in models):.3f}**; of "
                  f"the A/A control: {geometric_mean(r['control'] for r in models):.3f}. Slower than 1.3 × ONNX Runtime: "
                  f"{', '.join(slow) or 'none'}."]
    calls = [r for r in rows if r["model"] == EMPTY]
    if calls:
        lines += ["", f"A call of an empty graph takes {calls[0]['ours']['median_us']:.1f} µs (ONNX Runtime from Python: "
                  f"{calls[0]['ort']['median_us']:.1f} µs)."]
    return "\n".join(lines) + "\n"


def chart(results: dict, path: pathlib.Path) -> None:
    """Horizontal bars of the ratio, one a case; needs matplotlib."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    rows = sorted((r for r in results["cases"] if r["model"] != EMPTY), key=lambda r: r["ratio"])
    figure, axes = pyplot.subplots(figsize=(9, 0.28 * len(rows) + 1.2), layout="constrained")
    axes.barh([f"{r['model']}, {r['case']}" for r in rows], [r["ratio"] for r in rows],
              color=["#3b7dd8" if r["ratio"] <= 1 else "#d8843b" for r in rows])
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel(f"time / time of ONNX Runtime {results['machine']['onnxruntime']} (smaller is better)")
    figure.savefig(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of measurement per process (default 2)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--backend", default="cpu")
    parser.add_argument("--zoo", type=pathlib.Path, default=ROOT / "build" / "zoo")
    parser.add_argument("--aivmm", type=pathlib.Path, default=ROOT / "build" / "bin" / "aivmm")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results")
    parser.add_argument("--resume", action="store_true", help="keep the cases that the results have already")
    parser.add_argument("--chart", action="store_true", help="also draw zoo.svg (needs matplotlib)")
    parser.add_argument("models", nargs="*", metavar="MODEL")
    args = parser.parse_args()
    zoo.make(args.zoo, args.models or list(zoo.ZOO))
    args.out.mkdir(parents=True, exist_ok=True)
    saved = args.out / "zoo.json"
    results = json.loads(saved.read_text()) if args.resume and saved.exists() else {"machine": machine(args), "cases": []}
    done = {(r["model"], r["case"]) for r in results["cases"]}
    entries = [m for m in json.loads((args.zoo / "zoo.json").read_text()) if not args.models or m["name"] in args.models]
    if not args.models:
        entries.append(empty_entry(args.zoo))
    work = [(m, c) for m in entries for c in m["cases"] if c["bench"] and (m["name"], c["name"]) not in done]
    failed, start = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for k, (entry, case) in enumerate(work, 1):
            head = f"[{k}/{len(work)}, {time.monotonic() - start:.0f} s] {entry['name']}, {case['name']}:"
            try:
                result = bench_case(args, args.zoo / entry["file"], case, pathlib.Path(folder))
            except RuntimeError as error:
                failed += 1
                print(head, "FAILED:", error, flush=True)
                continue
            results["cases"].append({"model": entry["name"], "case": case["name"], "kind": entry["kind"], **result})
            print(head, f"ours {result['ours']['median_us'] / 1e3:.3g} ms, ORT {result['ort']['median_us'] / 1e3:.3g} ms, "
                  f"ratio {result['ratio']:.2f}, A/A {result['control']:.2f}", flush=True)
            saved.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
            (args.out / "zoo.md").write_text(markdown(results))
    if results["cases"]:
        if args.chart:
            chart(results, args.out / "zoo.svg")
        print("\n" + markdown(results).split("\n\n", 2)[2])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
