#!/usr/bin/env python3
"""Compares every model of the zoo with ONNX Runtime on the same inputs.

    compare.py [--backend cpu[,openvino,onnxruntime]] [--zoo build/zoo] [--aivmm build/bin/aivmm] [MODEL…]

A float output y passes against r where |y−r| ≤ 1e-4·max|r| + 1e-4·|r|; other outputs must be equal. The model's kind, as
`aivmm inspect` recognises it, must be the listed one, no node may run on a slower kernel of cpu or opencl than a native one, and
the outputs must depend on the inputs: a second seed must change them.
"""

import argparse
import collections
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnxruntime as ort

import zoo
from wheels import ROOT

TOLERANCE = 1e-4
LEAST_CHANGE = 1e-2  # of the largest output, between two seeds


def worst(actual: np.ndarray, expected: np.ndarray) -> float:
    """The largest error in units of the tolerance; not a number counts as endless unless it is expected."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        raise ValueError(f"got {actual.dtype}{list(actual.shape)}, expected {expected.dtype}{list(expected.shape)}")
    if expected.dtype.kind != "f":
        return 0.0 if np.array_equal(actual, expected) else np.inf
    if expected.size == 0:
        return 0.0
    y, r = actual.astype(np.float64), expected.astype(np.float64)
    same = (np.isnan(y) & np.isnan(r)) | (y == r)
    finite = np.abs(r[np.isfinite(r)])
    allowed = TOLERANCE * (finite.max(initial=0.0) + np.abs(r))
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.where(same, 0.0, np.abs(y - r) / allowed)
    return float(np.where(np.isnan(error), np.inf, error).max())


def onnx_runtime(path: pathlib.Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    return ort.InferenceSession(str(path), options, ["CPUExecutionProvider"])


def run_ours(args, backend, path, feeds, folder) -> tuple[dict[str, np.ndarray], dict]:
    np.savez(folder / "in.npz", **feeds)
    command = [args.aivmm, "run", path, "--input", folder / "in.npz", "--output", folder / "out.npz", "--backend",
               backend, "--json"]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=args.timeout)
    if done.returncode != 0:
        raise ValueError(f"aivmm run left with {done.returncode}: {(done.stderr or done.stdout).strip()[-400:]}")
    with np.load(folder / "out.npz") as outputs:
        return dict(outputs), json.loads(done.stdout)


def check_run(args, backend: str, path: pathlib.Path, feeds: dict, names: list[str], expected: list, folder) -> list[str]:
    """Everything that is wrong with one run on one backend."""
    try:
        actual, report = run_ours(args, backend, path, feeds, folder)
    except (ValueError, subprocess.TimeoutExpired) as error:
        return [str(error)]
    wrong = []
    for name, want in zip(names, expected):
        try:
            error = worst(actual[name], want)
        except (KeyError, ValueError) as problem:
            wrong.append(f"output {name}: {problem}")
            continue
        if error > 1:
            wrong.append(f"output {name} is {error:.3g} times the tolerance away")
    slow = [f for f in report["fallbacks"] if f["runs_on"] != "host"]  # control flow is the host's by design
    if backend in ("cpu", "opencl") and slow:
        wrong.append(f"{len(slow)} nodes do not run on a native kernel: {', '.join(sorted({f['op'] for f in slow}))}")
    return wrong


def check(args, entry: dict, folder: pathlib.Path) -> list[str]:
    """Everything that is wrong with one model."""
    path, wrong = args.zoo / entry["file"], []
    inspected = subprocess.run([str(args.aivmm), "inspect", str(path), "--json"], capture_output=True, text=True)
    if inspected.returncode != 0:
        wrong.append(f"aivmm inspect left with {inspected.returncode}: {inspected.stderr.strip()[-300:]}")
    elif json.loads(inspected.stdout).get("kind") != (entry["kind"] or "UNKNOWN"):
        wrong.append(f"recognised as {json.loads(inspected.stdout).get('kind')}, but it is {entry['kind'] or 'UNKNOWN'}")
    session = onnx_runtime(path)
    names = [o.name for o in session.get_outputs()]
    for case in entry["cases"]:
        first, second = zoo.feeds(case, 1), zoo.feeds(case, 2)
        expected, other = session.run(None, first), session.run(None, second)
        change = max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)) for a, b in zip(expected, other))
        if change < LEAST_CHANGE:
            wrong.append(f"{case['name']}: another input changes the outputs by only {change:.2g} of their size")
        for backend in args.backend.split(","):
            wrong += [f"{case['name']} on {backend}: {w}" for w in check_run(args, backend, path, first, names, expected, folder)]
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=pathlib.Path, default=ROOT / "build" / "zoo")
    parser.add_argument("--aivmm", type=pathlib.Path, default=ROOT / "build" / "bin" / "aivmm")
    parser.add_argument("--backend", default="cpu", help="names, separated by commas (default cpu)")
    parser.add_argument("--timeout", type=int, default=600, help="seconds for one run of ours (default 600)")
    parser.add_argument("models", nargs="*", metavar="MODEL")
    args = parser.parse_args()
    zoo.make(args.zoo, args.models or list(zoo.ZOO))
    failed = 0
    models_of = collections.Counter(kind for kind, _, _ in zoo.ZOO.values())
    for kind in (zoo.CNN, zoo.VIT, zoo.LLM, zoo.SPEECH, zoo.RECOMMENDATION, zoo.SCIENCE):
        if models_of[kind] < 2:
            print(f"FAIL the zoo has {models_of[kind]} models of kind {kind}; the recogniser is tested with at least two")
            failed += 1
    entries = [m for m in json.loads((args.zoo / "zoo.json").read_text()) if not args.models or m["name"] in args.models]
    with tempfile.TemporaryDirectory() as folder:
        for done, entry in enumerate(entries, 1):
            start = time.monotonic()
            wrong = check(args, entry, pathlib.Path(folder))
            failed += bool(wrong)
            print(f"[{done}/{len(entries)}] {'FAIL' if wrong else 'ok  '} {entry['name']} ({time.monotonic() - start:.1f} s)",
                  *wrong, sep="\n      ", flush=True)
    print(f"{len(entries)} models, {failed} failures")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
