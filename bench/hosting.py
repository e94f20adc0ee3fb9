#!/usr/bin/env python3
"""What hosting costs: OpenVINO and ONNX Runtime run by us against the same library run through its own C interface.

    hosting.py [--rounds 3] [--seconds 1] [--threads 2] [--engine openvino|onnxruntime]… [--resume] [MODEL…]

Same model file, inputs, threads and float32, each run in a process of its own, interleaved: a round runs hosted, own and
own again (the A/A control) in an order that turns from round to round. A case's time is the median of the rounds'
medians. Results are written after every case to bench/results/hosting.json and hosting.md.
"""

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

import run as bench
import zoo

WAYS = ("hosted", "own", "own_again")
TARGET = 0.95  # of the engine's own speed


def measure(way: str, engine: str, args, model, inputs, warmup: int, repeat: int) -> dict:
    if way == "hosted":
        command = [args.aivmm, "run", model, "--input", inputs, "--backend", engine, "--threads", args.threads,
                   "--warmup", warmup, "--repeat", repeat, "--json"]
    else:
        command = [args.direct, engine, model, inputs, args.threads, warmup, repeat]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{engine} {way} left with {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}")
    return json.loads(done.stdout)


def bench_case(engine: str, args, model, case: dict, folder) -> dict:
    inputs = folder / "inputs.npz"
    np.savez(inputs, **zoo.feeds(case, 1))
    probe = {way: measure(way, engine, args, model, inputs, 2, 5) for way in WAYS[:2]}
    repeat = {way: max(5, min(50000, int(args.seconds * 1e6 / probe[way]["median_us"]))) for way in WAYS[:2]}
    repeat["own_again"] = repeat["own"]
    runs = {way: [] for way in WAYS}
    for turn in range(args.rounds):
        for k in range(len(WAYS)):
            way = WAYS[(turn + k) % len(WAYS)]
            runs[way].append(measure(way, engine, args, model, inputs, max(2, repeat[way] // 10), repeat[way]))
    result = {way: bench.summary([{"peak_rss_bytes": 0, **r} for r in list_]) for way, list_ in runs.items()}
    result["speed"] = result["own"]["median_us"] / result["hosted"]["median_us"]
    result["best_speed"] = result["own"]["min_us"] / result["hosted"]["min_us"]
    result["control"] = result["own"]["median_us"] / result["own_again"]["median_us"]
    return result


def markdown(results: dict) -> str:
    m = results["machine"]
    lines = ["# Hosted engines against themselves", "",
             f"{m['cpu']}, {m['threads']} threads of {m['cores']} cores, float32, commit {m['commit']}, {m['date']}; load average "
             f"{m['load_average']:g} at the start, {m['load_end']:g} at the end: above 0.5, other programs ran beside. "
             f"Medians of {m['rounds']} processes' medians of about {m['seconds']:g} s, interleaved; in brackets their spread. "
             f"Speed: own time / hosted time, larger is better, the target is {TARGET}; by least times the same of the least time "
             "of any run, which other programs disturb less. A/A: own / own, the noise. Own: the engine's C interface alone "
             "(bench/direct.cpp). To repeat: `ninja -C build direct && python bench/hosting.py`.", ""]
    for engine in ("openvino", "onnxruntime"):
        rows = [r for r in results["cases"] if r["engine"] == engine]
        if not rows:
            continue
        lines += [f"## {engine}", "",
                  "| model | case | hosted ms | own ms | speed | by least times | A/A | hosted load s | own load s | nodes elsewhere |",
                  "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|"]
        for r in rows:
            cell = lambda w: f"{r[w]['median_us'] / 1e3:.3g} ({100 * r[w]['spread']:.0f} %)"
            lines.append(f"| {r['model']} | {r['case']} | {cell('hosted')} | {cell('own')} | {r['speed']:.2f} | {r['best_speed']:.2f} | "
                         f"{r['control']:.2f} | {r['hosted']['load_us'] / 1e6:.2f} | {r['own']['load_us'] / 1e6:.2f} | "
                         f"{r['hosted']['fallback_nodes']} |")
        models = [r for r in rows if r["model"] != bench.EMPTY]
        if models:
            mean = lambda key: math.exp(statistics.mean(math.log(r[key]) for r in models))
            slow = [f"{r['model']} {r['case']} ({r['speed']:.2f})" for r in models if r["speed"] < TARGET]
            lines += ["", f"Geometric mean of the speed over {len(models)} cases: **{mean('speed'):.3f}**, by least times "
                      f"{mean('best_speed'):.3f}; of the control {mean('control'):.3f}. Below {TARGET}: {', '.join(slow) or 'none'}."]
        for r in rows:
            if r["model"] == bench.EMPTY:
                extra = r["hosted"]["min_us"] - r["own"]["min_us"]
                lines += ["", f"A call of an empty graph takes {r['hosted']['min_us']:.2f} µs hosted and {r['own']['min_us']:.2f} µs by the "
                          f"engine's own interface (least times): hosting adds {extra:.2f} µs a call."]
        lines.append("")
    for case, why in results.get("not_measured", {}).items():
        lines += [f"Not measured: {case}: {why}", ""]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of measurement per process (default 1)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engine", action="append", choices=("openvino", "onnxruntime"))
    parser.add_argument("--zoo", type=pathlib.Path, default=bench.ROOT / "build" / "zoo")
    parser.add_argument("--aivmm", type=pathlib.Path, default=bench.ROOT / "build" / "bin" / "aivmm")
    parser.add_argument("--direct", type=pathlib.Path, default=bench.ROOT / "build" / "bin" / "direct")
    parser.add_argument("--out", type=pathlib.Path, default=bench.HERE / "results")
    parser.add_argument("--resume", action="store_true", help="keep the cases that the results have already")
    parser.add_argument("models", nargs="*", metavar="MODEL")
    args = parser.parse_args()
    # Both sides find the libraries of the Python that runs this script.
    os.environ.setdefault("VIRTUAL_ENV", sys.prefix)
    zoo.make(args.zoo, args.models or list(zoo.ZOO))
    args.out.mkdir(parents=True, exist_ok=True)
    saved = args.out / "hosting.json"
    machine = {**bench.machine(args), "rounds": args.rounds, "load_end": 0}
    results = json.loads(saved.read_text()) if args.resume and saved.exists() else {"machine": machine, "cases": []}
    done = {(r["engine"], r["model"], r["case"]) for r in results["cases"]}
    entries = [m for m in json.loads((args.zoo / "zoo.json").read_text()) if not args.models or m["name"] in args.models]
    if not args.models:
        entries.insert(0, bench.empty_entry(args.zoo))
    work = [(e, m, c) for m in entries for c in m["cases"] if c["bench"]
            for e in args.engine or ("openvino", "onnxruntime") if (e, m["name"], c["name"]) not in done]
    failed, start = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for k, (engine, entry, case) in enumerate(work, 1):
            head = f"[{k}/{len(work)}, {time.monotonic() - start:.0f} s] {engine}: {entry['name']}, {case['name']}:"
            try:
                result = bench_case(engine, args, args.zoo / entry["file"], case, pathlib.Path(folder))
            except RuntimeError as error:
                failed += 1
                print(head, "FAILED:", error, flush=True)
                missed = results.setdefault("not_measured", {})
                missed[f"{engine}, {entry['name']}, {case['name']}"] = " ".join(str(error).split())[:300]
                continue
            results["cases"].append({"engine": engine, "model": entry["name"], "case": case["name"], **result})
            results["machine"]["load_end"] = round(os.getloadavg()[0], 1)
            print(head, f"hosted {result['hosted']['median_us'] / 1e3:.3g} ms, own {result['own']['median_us'] / 1e3:.3g} ms, "
                  f"speed {result['speed']:.2f}, by least times {result['best_speed']:.2f}, A/A {result['control']:.2f}", flush=True)
            saved.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
            (args.out / "hosting.md").write_text(markdown(results))
    return 1 if failed else 0  # an engine that cannot load a model by itself counts, too


if __name__ == "__main__":
    sys.exit(main())
