#!/usr/bin/env python3
"""Measures the opencl backend on the first OpenCL device.

    opencl.py matmul [--sizes 512 1024 2048] [--rounds 3] [--fraction 1000]
    opencl.py zoo [--rounds 3] [MODEL…]

matmul: float32 products of square matrices against CLBlast (Debian's libclblast-dev, built here), which first tunes its kernel for each size (1/fraction of its
search space at random). Ours counts a whole call of a model of one MatMul of two inputs: copies, packing and the
interface are in it; CLBlast's is the product alone, on memory that the device has. Rounds interleave the two.
zoo: every model, a process of its own for each backend, against our cpu backend.

A figure is the median over the rounds of a process's median; the spread is (largest − smallest) / median. Results go into
bench/results/opencl.json and opencl.md.
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

import numpy as np
import onnx
from onnx import TensorProto, helper

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT / "tests" / "models"), str(ROOT / "tests")]
import zoo  # noqa: E402


def ours(args, model, inputs, backend, warmup, repeat):
    command = [args.aivmm, "run", model, "--input", inputs, "--backend", backend, "--threads", args.threads, "--warmup", warmup,
               "--repeat", repeat, "--json"]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{backend} left with {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}")
    return json.loads(done.stdout)


def clblast_program() -> pathlib.Path:
    program = ROOT / "build" / "bench" / "clblast"
    source = HERE / "clblast.cpp"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        program.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["g++", "-O2", "-std=c++17", str(source), "-o", str(program), "-lclblast", "-lOpenCL"], check=True)
    return program


def spread(values):
    return (max(values) - min(values)) / statistics.median(values)


def matmul(args) -> list[dict]:
    program, rows = clblast_program(), []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for n in args.sizes:
            graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product",
                                      [helper.make_tensor_value_info(x, TensorProto.FLOAT, [n, n]) for x in "ab"],
                                      [helper.make_tensor_value_info("c", TensorProto.FLOAT, [n, n])])
            model, inputs = folder / f"{n}.onnx", folder / f"{n}.npz"
            onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
            rng = np.random.default_rng(1)
            np.savez(inputs, a=rng.standard_normal((n, n), np.float32), b=rng.standard_normal((n, n), np.float32))
            mine, theirs = [], []
            for _ in range(args.rounds):
                mine.append(ours(args, model, inputs, "opencl", 3, args.repeat)["median_us"] / 1e6)
                done = subprocess.run([str(program), str(args.fraction), str(args.repeat), str(n)], capture_output=True, text=True)
                result = [line.split() for line in done.stdout.splitlines() if line.startswith("result ")]
                if not result:
                    raise RuntimeError(f"clblast left with {done.returncode}: {done.stderr[-300:]}")
                theirs.append((float(result[0][3]), result[0][5]))
            them = [t for t, _ in theirs]
            rows.append({"n": n, "ours_s": statistics.median(mine), "ours_spread": spread(mine),
                         "clblast_s": statistics.median(them), "clblast_spread": spread(them),
                         "clblast_best_s": min(them), "tuned": all(how == "tuned" for _, how in theirs),
                         "ratio": statistics.median(them) / statistics.median(mine), "rounds": args.rounds})
            print(f"{n}: ours {2e-9 * n ** 3 / rows[-1]['ours_s']:.0f} GFLOP/s, CLBlast {2e-9 * n ** 3 / rows[-1]['clblast_s']:.0f} "
                  f"GFLOP/s, ratio {rows[-1]['ratio']:.2f}", flush=True)
    return rows


def whole_zoo(args, save) -> list[dict]:
    folder = ROOT / "build" / "zoo"
    zoo.make(folder, args.models or list(zoo.ZOO))
    rows = []
    entries = [m for m in json.loads((folder / "zoo.json").read_text()) if not args.models or m["name"] in args.models]
    with tempfile.TemporaryDirectory() as place:
        inputs = pathlib.Path(place) / "inputs.npz"
        for entry in entries:
            for case in (c for c in entry["cases"] if c["bench"]):
                np.savez(inputs, **zoo.feeds(case, 1))
                model, times, facts = folder / entry["file"], {"opencl": [], "cpu": []}, {}
                try:
                    repeat = {}
                    for backend in times:
                        probe = ours(args, model, inputs, backend, 1, 3)
                        repeat[backend] = max(3, min(500, int(args.seconds * 1e6 / probe["median_us"])))
                    for _ in range(args.rounds):
                        for backend in times:
                            facts[backend] = ours(args, model, inputs, backend, 2, repeat[backend])
                            times[backend].append(facts[backend]["median_us"] / 1e3)
                except RuntimeError as error:
                    print(f"{entry['name']}, {case['name']}: FAILED: {error}", flush=True)
                    continue
                row = {"model": entry["name"], "case": case["name"], "rounds": args.rounds,
                       "not_native": len([f for f in facts["opencl"]["fallbacks"] if f["runs_on"] != "host"])}
                for backend, t in times.items():
                    row[backend] = {"ms": statistics.median(t), "spread": spread(t)}
                row["ratio"] = row["opencl"]["ms"] / row["cpu"]["ms"]
                rows.append(row)
                print(f"{entry['name']}, {case['name']}: opencl {row['opencl']['ms']:.3g} ms, cpu {row['cpu']['ms']:.3g} ms, ratio "
                      f"{row['ratio']:.2f}", flush=True)
                save(rows)
    return rows


def markdown(results: dict) -> str:
    m = results["machine"]
    lines = ["# The opencl backend", "", f"{m['cpu']}, {m['threads']} threads, float32, {m['date']}, commit {m['commit']}. Load "
             f"average at the start {m['load_average']:g}: above 0.5, other programs ran beside, and figures are worth little beyond "
             "their ratio. How it is measured: bench/opencl.py.", ""]
    if "matmul" in results:
        lines += ["## Products of square matrices against tuned CLBlast", "",
                  "Ours counts the whole call of a model with two inputs, packing included; CLBlast's the product alone. Ratio: time of "
                  "CLBlast / ours, larger is better.", "",
                  "| n | ours GFLOP/s | CLBlast GFLOP/s | ratio | CLBlast tuned |", "|---:|---:|---:|---:|---|"]
        for r in results["matmul"]:
            g = lambda s: 2e-9 * r["n"] ** 3 / s
            lines.append(f"| {r['n']} | {g(r['ours_s']):.0f} ({100 * r['ours_spread']:.0f} %) | {g(r['clblast_s']):.0f} "
                         f"({100 * r['clblast_spread']:.0f} %) | {r['ratio']:.2f} | {'yes' if r['tuned'] else 'no'} |")
        lines.append("")
    if results.get("zoo"):
        lines += ["## The zoo against our cpu backend", "", "Ratio: time on opencl (PoCL) / time on cpu, smaller is better; in brackets "
                  "the spread over the rounds.", "", "| model | case | opencl ms | cpu ms | ratio | nodes not native |",
                  "|---|---|---:|---:|---:|---:|"]
        for r in results["zoo"]:
            cell = lambda b: f"{r[b]['ms']:.3g} ({100 * r[b]['spread']:.0f} %)"
            lines.append(f"| {r['model']} | {r['case']} | {cell('opencl')} | {cell('cpu')} | {r['ratio']:.2f} | {r['not_native']} |")
        lines += ["", f"Geometric mean of the ratio over {len(results['zoo'])} cases: "
                  f"**{statistics.geometric_mean(r['ratio'] for r in results['zoo']):.2f}**."]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["matmul", "zoo"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=10, help="timed products of a process (default 10)")
    parser.add_argument("--fraction", type=float, default=1000)
    parser.add_argument("--seconds", type=float, default=1.0, help="of measurement per process (default 1)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--aivmm", type=pathlib.Path, default=ROOT / "build" / "bin" / "aivmm")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results")
    parser.add_argument("models", nargs="*", metavar="MODEL")
    args = parser.parse_args()
    saved = args.out / "opencl.json"
    results = json.loads(saved.read_text()) if saved.exists() else {}
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.machine())
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    results["machine"] = {"cpu": cpu, "threads": args.threads, "date": time.strftime("%Y-%m-%d"), "commit": commit,
                          "load_average": round(os.getloadavg()[0], 1)}

    def save(kind, rows):
        results[kind] = rows
        saved.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        (args.out / "opencl.md").write_text(markdown(results))

    if args.what == "matmul":
        save("matmul", matmul(args))
    else:
        save("zoo", whole_zoo(args, lambda rows: save("zoo", rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
