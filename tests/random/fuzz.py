#!/usr/bin/env python3
"""Random models against two oracles.

    fuzz.py [--seed 1] [--count 3000] [--backend cpu] [--only INDEX] [--conformance build/bin/conformance]

Model number i of a seed is always the same. Its expected outputs are those of ONNX Runtime, kept only where
onnx.reference agrees. All models of a run go through the `conformance` program at once. A model that fails is shrunk
(nodes are cut off or replaced by the values they make as long as it still fails), printed, and left in
build/random/failures.
"""

import argparse
import collections
import pathlib
import shutil
import subprocess
import sys
import threading
import warnings

import numpy as np
import onnx
import onnx.printer
import onnx.reference
import onnxruntime as ort
from onnx import helper, numpy_helper

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "conformance"), str(HERE.parent)]
import importlib.util  # noqa: E402

from wheels import ROOT  # noqa: E402

sys.path.insert(0, str(HERE))
import cases as makers  # noqa: E402


def _load(name: str, path: pathlib.Path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


write_case = _load("conformance_cases", HERE.parent / "conformance" / "cases.py").write_case


def draw(seed: int, index: int) -> tuple[str, onnx.ModelProto, dict]:
    d = makers.Draw(seed, index)
    maker = d.pick(makers.SINGLE) if d.chance(0.65) else d.pick(makers.GRAPHS)
    maker(d)
    return maker.__name__.strip("_"), d.model(), d.feeds


def close(a: np.ndarray, b: np.ndarray, rtol: float) -> bool:
    if a.dtype.kind in "OU":  # strings, of which each oracle has its own kind of array
        return a.tolist() == b.tolist()
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return np.array_equal(a, b)
    return np.allclose(a.astype(np.float64), b.astype(np.float64), rtol=rtol, atol=absolute(b) / 3, equal_nan=True)


def absolute(expected: np.ndarray) -> float:
    """The absolute tolerance of an output: rounding is as large as the largest terms that cancel."""
    if expected.dtype.kind != "f":
        return 0.0
    finite = np.abs(expected[np.isfinite(expected)].astype(np.float64))
    return float({2: 1e-2, 4: 1e-4, 8: 1e-8}[expected.dtype.itemsize] * max(1.0, finite.max(initial=0.0)))


def oracle(model: onnx.ModelProto, feeds: dict) -> list[np.ndarray] | str:
    """What ONNX Runtime makes of it, or why that cannot be held against us."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        expected = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"]).run(None, feeds)
    except Exception:  # noqa: BLE001: whatever it is, ONNX Runtime does not judge this model
        return "refused by ONNX Runtime"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            second = onnx.reference.ReferenceEvaluator(model).run(None, feeds)
    except Exception:  # noqa: BLE001
        return "refused by onnx.reference"
    if not all(close(np.asarray(a), b, 1e-3) for a, b in zip(second, expected)):
        return "the oracles disagree"
    return expected


def store(folder: pathlib.Path, model: onnx.ModelProto, feeds: dict, expected: list[np.ndarray]) -> None:
    wide = any(e.dtype == np.float16 for e in expected) or any(f.dtype == np.float16 for f in feeds.values())
    inputs = [feeds[i.name] for i in model.graph.input]
    write_case(folder, model, [(inputs, expected)], 1e-2 if wide else 1e-3, max(map(absolute, expected), default=0.0))


def make(seed: int, indices, out: pathlib.Path) -> None:
    """Writes cases; prints "<index> <why it is left out>" for each model."""
    for index in indices:
        kind, model, feeds = draw(seed, index)
        expected = oracle(model, feeds)
        if isinstance(expected, str):
            print(index, f"{kind}: {expected}", flush=True)
        else:
            store(out / "random" / f"{index:06d}_{kind}", model, feeds, expected)
            print(index, flush=True)


def make_all(seed: int, indices: range, out: pathlib.Path, dropped: collections.Counter) -> None:
    """`make` in a process of its own, begun again behind a model that brings ONNX Runtime down."""
    while len(indices):
        command = [sys.executable, __file__, "--seed", str(seed), "--make", str(indices.start), str(indices.stop), "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True)
        lines = done.stdout.splitlines()
        dropped.update(line.split(" ", 1)[1] for line in lines if " " in line)
        if len(lines) < len(indices):
            if done.returncode >= 0:
                raise SystemExit(f"the maker left with {done.returncode}: {done.stderr[-500:]}")
            dropped["brings ONNX Runtime down"] += 1
        indices = indices[len(lines) + 1:]


def run(args, data: pathlib.Path) -> tuple[int, list[tuple[str, str]]]:
    """How many cases pass, and (case, why) of those that fail."""
    command = [args.conformance, "--data", data, "--backend", args.backend, "--threads", args.threads]
    if args.backend == "opencl":  # what it refuses runs on the reference and is counted
        command += ["--refusals", "--batch", 25]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    if not lines or not lines[-1].endswith("listed"):
        raise SystemExit(f"conformance left with {done.returncode}: {done.stderr[-500:]}")
    failures = [line[len("FAIL random/"):].split(": ", 1) for line in lines if line.startswith("FAIL ")]
    passed, refused = (int(part.split()[0]) for part in lines[-1].split(", ")[:2])
    if refused:
        print(f"{refused} of {passed + refused} models had help from the reference")
    return passed + refused, [(name, why) for name, why in failures]


# ---------------------------------------------------------------- shrinking


def cut(model: onnx.ModelProto, feeds: dict, values: dict, kept: set[int], ends: list[str]):
    """The model of the nodes `kept`; what they read of the others becomes an input that holds the value seen."""
    graph = model.graph
    nodes = [n for k, n in enumerate(graph.node) if k in kept]
    made = {o for n in nodes for o in n.output}
    read = list(dict.fromkeys(i for n in nodes for i in n.input if i and i not in made))
    constants = {t.name: t for t in graph.initializer}
    inputs = {name: values[name] for name in read if name not in constants}
    symbolic = any(d.dim_param for i in graph.input for d in i.type.tensor_type.shape.dim)
    info = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype),
                                          [f"{n}_{k}" if symbolic else d for k, d in enumerate(a.shape)])
            for n, a in inputs.items()]
    small = helper.make_model(helper.make_graph(nodes, "shrunk", info, [helper.make_empty_tensor_value_info(e) for e in ends],
                                                [constants[n] for n in read if n in constants]),
                              opset_imports=model.opset_import, ir_version=model.ir_version)
    return small, inputs


def shrink(args, model: onnx.ModelProto, feeds: dict, folder: pathlib.Path):
    """Fewest nodes, found greedily, that still fail alone."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    names = [o for n in model.graph.node for o in n.output if o]
    probe.graph.output.extend(helper.make_empty_tensor_value_info(n) for n in names)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(probe.SerializeToString(), options, ["CPUExecutionProvider"])
    values = dict(feeds) | dict(zip(names, session.run(None, feeds)))

    def fails(kept: set[int]):
        nodes = [model.graph.node[k] for k in sorted(kept)]
        used = {i for n in nodes for i in n.input}
        outer = {o.name for o in model.graph.output}
        ends = [o for n in nodes for o in n.output if o and (o not in used or o in outer)]
        small, inputs = cut(model, feeds, values, kept, ends)
        expected = oracle(small, inputs)
        if isinstance(expected, str):
            return None
        shutil.rmtree(folder, ignore_errors=True)
        store(folder / "random" / "shrunk", small, inputs, expected)
        _, found = run(args, folder)
        return (small, inputs, expected, found[0][1]) if found else None

    kept = set(range(len(model.graph.node)))
    best = fails(kept)
    progress = best is not None
    while progress and len(kept) > 1:
        progress = False
        for k in sorted(kept, reverse=True):
            smaller = fails(kept - {k})
            if smaller:
                kept, best, progress = kept - {k}, smaller, True
                break
    return best


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--only", type=int, help="only this model of the seed")
    parser.add_argument("--backend", default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="threads of each deployment (default 2)")
    parser.add_argument("--shrink", type=int, default=5, help="at most so many failures are shrunk (default 5)")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build" / "random")
    parser.add_argument("--conformance", type=pathlib.Path, default=ROOT / "build" / "bin" / "conformance")
    parser.add_argument("--make", nargs=2, type=int, metavar=("BEGIN", "END"), help="only write these cases to OUT")
    args = parser.parse_args()
    if args.make:
        make(args.seed, range(*args.make), args.out)
        return 0
    data = args.out / f"seed{args.seed}_{args.backend}"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    indices = range(args.count) if args.only is None else range(args.only, args.only + 1)
    dropped = collections.Counter()
    middle = (len(indices) + 1) // 2
    halves = [threading.Thread(target=make_all, args=(args.seed, part, data, dropped))
              for part in (indices[:middle], indices[middle:])]
    for half in halves:
        half.start()
    for half in halves:
        half.join()
    left_out = sum(dropped.values())
    passed, failures = run(args, data) if len(indices) > left_out else (0, [])
    for name, why in failures:
        print(f"FAIL {name} (fuzz.py --seed {args.seed} --only {int(name[:6])}): {why}")
    for name, _ in failures[:args.shrink]:
        _, model, feeds = draw(args.seed, int(name[:6]))
        best = shrink(args, model, feeds, args.out / "shrinking")
        if best:
            small, inputs, expected, why = best
            target = args.out / "failures" / f"seed{args.seed}_{name}"
            shutil.rmtree(target, ignore_errors=True)
            store(target, small, inputs, expected)
            print(f"\n{name} shrunk to {target}: {why}\n{onnx.printer.to_text(small)}")
    shutil.rmtree(data)
    print("left out: " + (", ".join(f"{n} {why}" for why, n in dropped.most_common(8) if why) or "none"))
    print(f"seed {args.seed}: {passed} passed, {len(failures)} failed, {left_out} left out")
    return 1 if failures or passed + left_out != len(indices) or left_out > len(indices) * 0.4 else 0


if __name__ == "__main__":
    sys.exit(main())
