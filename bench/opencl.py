#!/usr/bin/env python3
"""Measures the opencl backend on the first OpenCL device.

    opencl.py [matmul] [start] [zoo] [--minutes 7] [--again]

Without a name, all three; what this commit has measured already is kept, so that a second call goes on where the first
one stopped (--again: measures all of it anew; --minutes: no new figure is begun after so long).

matmul: float32 products of square matrices against CLBlast (Debian's libclblast-dev, built here) with parameters tuned for
this device: bench/results/opencl_clblast.txt, which `clblast tune` writes when it is not there. Ours counts a whole call of
a model of one MatMul of two inputs: packing and the interface are in it; CLBlast's is the product alone, on memory that the
device has. Rounds interleave the two.
start: seconds from starting a process to the first result and the second start, which finds everything compiled.
zoo: every model, a process of its own for each round and backend, against our cpu backend.

A figure is the median over the rounds of a process's median; the spread is (largest − smallest) / median. Results go into
bench/results/opencl.json and opencl.md.
"""

import argparse
import json
import os
import pathlib
import platform
import resource
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


def ours(args, model, inputs, backend, warmup, repeat, environment=None):
    command = [args.aivmm, "run", model, "--input", inputs, "--backend", backend, "--threads", args.threads, "--warmup", warmup,
               "--repeat", repeat, "--json"]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise RuntimeError(f"{backend} left with {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}")
    return json.loads(done.stdout)


def clblast_program() -> pathlib.Path:
    program = ROOT / "build" / "bench" / "clblast"
    source = HERE / "clblast.cpp"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        program.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["g++", "-O2", "-std=c++17", "-Wno-deprecated-declarations", str(source), "-o", str(program), "-lclblast", "-lOpenCL"], check=True)
    return program


def spread(values):
    return (max(values) - min(values)) / statistics.median(values)


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def matmul(args, have: list, save) -> None:
    program, parameters = clblast_program(), args.out / "opencl_clblast.txt"
    if not parameters.exists():
        print("tuning CLBlast …", flush=True)
        done = subprocess.run([str(program), "tune", "120", "1024"], capture_output=True, text=True)
        if done.returncode != 0 or not done.stdout:
            raise RuntimeError(f"clblast tune left with {done.returncode}: {done.stderr[-300:]}")
        parameters.write_text(done.stdout)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for n in args.sizes:
            if any(r["n"] == n for r in have) or args.late():
                continue
            graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product",
                                      [helper.make_tensor_value_info(x, TensorProto.FLOAT, [n, n]) for x in "ab"],
                                      [helper.make_tensor_value_info("c", TensorProto.FLOAT, [n, n])])
            model, inputs = folder / f"{n}.onnx", folder / f"{n}.npz"
            onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
            rng = np.random.default_rng(1)
            np.savez(inputs, a=rng.standard_normal((n, n), np.float32), b=rng.standard_normal((n, n), np.float32))
            mine, theirs, repeat = [], [], int(min(2000, max(10, 1e10 / n ** 3)))
            for _ in range(args.rounds):
                mine.append(ours(args, model, inputs, "opencl", 3, repeat)["median_us"] / 1e6)
                done = subprocess.run([str(program), "run", str(parameters), str(min(repeat, 200)), str(n)], capture_output=True,
                                      text=True)
                result = [line.split() for line in done.stdout.splitlines() if line.startswith("result ")]
                if not result:
                    raise RuntimeError(f"clblast left with {done.returncode}: {done.stderr[-300:]}")
                theirs.append(float(result[0][3]))
            save({"n": n, "ours_s": statistics.median(mine), "ours_spread": spread(mine), "clblast_s": statistics.median(theirs),
                  "clblast_spread": spread(theirs), "ratio": statistics.median(theirs) / statistics.median(mine),
                  "rounds": args.rounds})
            print(f"{n}: ours {2e-9 * n ** 3 / statistics.median(mine):.0f} GFLOP/s, CLBlast "
                  f"{2e-9 * n ** 3 / statistics.median(theirs):.0f} GFLOP/s", flush=True)


def start(args, have: list, save) -> None:
    folder = ROOT / "build" / "zoo"
    zoo.make(folder, list(args.start_models))
    for entry in json.loads((folder / "zoo.json").read_text()):
        if entry["name"] not in args.start_models or any(r["model"] == entry["name"] for r in have) or args.late():
            continue
        with tempfile.TemporaryDirectory() as place:
            place = pathlib.Path(place)
            np.savez(place / "inputs.npz", **zoo.feeds(entry["cases"][0], 1))
            (place / "pocl").mkdir()
            row = {"model": entry["name"]}
            environment = dict(os.environ, XDG_CACHE_HOME=str(place), POCL_CACHE_DIR=str(place / "pocl"))
            for kind in ("cold", "second"):
                wall, used = time.monotonic(), cpu_seconds()
                facts = ours(args, folder / entry["file"], place / "inputs.npz", "opencl", 0, 1, environment)
                row[kind] = {"s": time.monotonic() - wall, "cpu_s": cpu_seconds() - used, "compilations": facts["compilations"]}
            save(row)
            print(f"{entry['name']}: first start {row['cold']['s']:.2f} s ({row['cold']['cpu_s']:.1f} s of processor time), second "
                  f"{row['second']['s']:.2f} s", flush=True)


def whole_zoo(args, have: list, save) -> None:
    folder = ROOT / "build" / "zoo"
    zoo.make(folder, list(zoo.ZOO))
    with tempfile.TemporaryDirectory() as place:
        inputs = pathlib.Path(place) / "inputs.npz"
        for entry in json.loads((folder / "zoo.json").read_text()):
            for case in (c for c in entry["cases"] if c["bench"]):
                if any((r["model"], r["case"]) == (entry["name"], case["name"]) for r in have) or args.late():
                    continue
                np.savez(inputs, **zoo.feeds(case, 1))
                model, times, facts, repeat = folder / entry["file"], {"opencl": [], "cpu": []}, {}, {}
                for backend in times:  # kernels are compiled and chosen here
                    probe = ours(args, model, inputs, backend, 1, 2)
                    repeat[backend] = max(3, min(500, int(args.seconds * 1e6 / probe["median_us"])))
                for _ in range(args.rounds):
                    for backend in times:
                        facts[backend] = ours(args, model, inputs, backend, 2, repeat[backend])
                        times[backend].append(facts[backend]["median_us"] / 1e3)
                row = {"model": entry["name"], "case": case["name"], "rounds": args.rounds,
                       "not_native": len([f for f in facts["opencl"]["fallbacks"] if f["runs_on"] != "host"])}
                for backend, t in times.items():
                    row[backend] = {"ms": statistics.median(t), "spread": spread(t)}
                row["ratio"] = row["opencl"]["ms"] / row["cpu"]["ms"]
                save(row)
                print(f"{entry['name']}, {case['name']}: opencl {row['opencl']['ms']:.3g} ms, cpu {row['cpu']['ms']:.3g} ms, ratio "
                      f"{row['ratio']:.2f}", flush=True)


def markdown(results: dict) -> str:
    m = results["machine"]
    lines = ["# The opencl backend", "", f"{m['cpu']}, {m['threads']} threads, float32, {m['date']}, commit {results['commit']}. Load "
             f"average at the start {m['load_average']:g}: above 0.5, other programs ran beside, and figures are worth little beyond "
             "their ratio. How it is measured: bench/opencl.py.", ""]
    if results["matmul"]:
        lines += ["## Products of square matrices against tuned CLBlast", "",
                  "Ours counts the whole call of a model with two inputs, packing included; CLBlast's the product alone, with the "
                  "parameters in opencl_clblast.txt. Ratio: time of CLBlast / ours, larger is better; in brackets the spread over "
                  f"{results['matmul'][0]['rounds']} rounds.", "",
                  "| n | ours GFLOP/s | CLBlast GFLOP/s | ratio |", "|---:|---:|---:|---:|"]
        for r in sorted(results["matmul"], key=lambda r: r["n"]):
            g = lambda s: 2e-9 * r["n"] ** 3 / s
            lines.append(f"| {r['n']} | {g(r['ours_s']):.0f} ({100 * r['ours_spread']:.0f} %) | {g(r['clblast_s']):.0f} "
                         f"({100 * r['clblast_spread']:.0f} %) | {r['ratio']:.2f} |")
        lines.append("")
    if results["start"]:
        lines += ["## From starting a process to the first result", "", "The first start compiles every kernel; the second finds "
                  "them. Reading the model is in both. In brackets seconds of processor time.", "",
                  "| model | first start s | second start s |", "|---|---:|---:|"]
        for r in results["start"]:
            cell = lambda kind: f"{r[kind]['s']:.2f} ({r[kind]['cpu_s']:.1f})"
            lines.append(f"| {r['model']} | {cell('cold')} | {cell('second')} |")
        lines.append("")
    if results["zoo"]:
        lines += ["## The zoo against our cpu backend", "", "Ratio: time on opencl (PoCL) / time on cpu, smaller is better; in brackets "
                  f"the spread over {results['zoo'][0]['rounds']} rounds.", "", "| model | case | opencl ms | cpu ms | ratio | nodes not native |",
                  "|---|---|---:|---:|---:|---:|"]
        for r in results["zoo"]:
            cell = lambda b: f"{r[b]['ms']:.3g} ({100 * r[b]['spread']:.0f} %)"
            lines.append(f"| {r['model']} | {r['case']} | {cell('opencl')} | {cell('cpu')} | {r['ratio']:.2f} | {r['not_native']} |")
        lines += ["", f"Geometric mean of the ratio over {len(results['zoo'])} cases: "
                  f"**{statistics.geometric_mean(r['ratio'] for r in results['zoo']):.2f}**."]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="matmul|start|zoo")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256, 512, 1024, 2048])
    parser.add_argument("--start-models", nargs="+", default=["resnet50", "bert_base", "yolov8n"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.3, help="of measurement per process (default 0.3)")
    parser.add_argument("--minutes", type=float, default=7)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--aivmm", type=pathlib.Path, default=ROOT / "build" / "bin" / "aivmm")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results")
    args = parser.parse_args()
    kinds = {"matmul": matmul, "start": start, "zoo": whole_zoo}
    if unknown := set(args.what) - set(kinds):
        parser.error(f"there is no {', '.join(sorted(unknown))} to measure")
    begun = time.monotonic()
    args.late = lambda: time.monotonic() - begun > 60 * args.minutes
    saved = args.out / "opencl.json"
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    results = json.loads(saved.read_text()) if saved.exists() else {}
    if args.again or results.get("commit") != commit:
        results = {"commit": commit, "matmul": [], "start": [], "zoo": []}
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.machine())
    results.setdefault("machine", {"cpu": cpu, "threads": args.threads, "date": time.strftime("%Y-%m-%d"),
                                   "load_average": round(os.getloadavg()[0], 1)})
    for what in args.what or kinds:
        def save(row, rows=results[what]):
            rows.append(row)
            saved.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
            (args.out / "opencl.md").write_text(markdown(results))

        kinds[what](args, results[what], save)
    if args.late():
        print("Time is up; the same command goes on from here.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
