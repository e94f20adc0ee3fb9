#!/usr/bin/env python3
"""How well the pattern of life foresees allocations, against counts and densities: bench/results/pattern_of_life.md.

    pattern_of_life.py [--build build] [--runs 120] [--keep FOLDER]

Records traces of real programs with `airamp-trace record` (host allocations of at least 64 KiB; there is no device in
these runs), and lets `airamp-trace compare` replay them beside the ones made by rule. Figures are counts and bytes of the
replay, not times; only the recorded traces differ from run to run.
"""

import argparse
import os
import pathlib
import platform
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "tests"))
import wheels  # noqa: E402

MODELS = {"text recognition": "ch_PP-OCRv4_rec_infer.onnx", "text detection": "ch_PP-OCRv4_det_infer.onnx"}


def run_model(model: str, shape_of, runs: int):
    """ONNX Runtime without its own arena and its memory plan: each tensor is an allocation, as in an eager framework."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    random = np.random.default_rng(1)
    for i in range(runs):
        session.run(None, {name: random.random(shape_of(i, random), dtype=np.float32)})


def train(runs: int):
    """A network of three layers in NumPy, with momentum, evaluated on a larger batch every tenth step."""
    import numpy as np

    random = np.random.default_rng(1)
    sizes = [784, 512, 256, 10]
    weights = [random.standard_normal((a, b), dtype=np.float32) * 0.05 for a, b in zip(sizes, sizes[1:])]
    momenta = [np.zeros_like(w) for w in weights]
    for i in range(runs):
        x = random.random((256, 784), dtype=np.float32)
        layers = [x]
        for w in weights:
            layers.append(np.maximum(layers[-1] @ w, 0))
        gradient = layers[-1] - 1
        for k in reversed(range(len(weights))):
            gradient = gradient * (layers[k + 1] > 0)
            momenta[k] = 0.9 * momenta[k] + layers[k].T @ gradient / 256
            gradient = gradient @ weights[k].T
            weights[k] = weights[k] - 0.01 * momenta[k]
        if i % 10 == 9:
            y = random.random((1024, 784), dtype=np.float32)
            for w in weights:
                y = np.maximum(y @ w, 0)


PROGRAMS = {
    "text recognition, one width": lambda folder, runs: run_model(folder["text recognition"], lambda i, r: (1, 3, 48, 320), runs),
    "text recognition, any width": lambda folder, runs: run_model(
        folder["text recognition"], lambda i, r: (1, 3, 48, int(r.integers(100, 600))), runs),
    "text detection": lambda folder, runs: run_model(folder["text detection"], lambda i, r: (1, 3, 320, 320), runs),
    "NumPy training": lambda folder, runs: train(runs),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--runs", type=int, default=120)
    parser.add_argument("--keep", type=pathlib.Path, help="leave the recorded traces here")
    parser.add_argument("--program", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.program:
        PROGRAMS[args.program]({name: str(args.folder / file) for name, file in MODELS.items()}, args.runs)
        return
    tool = args.build / "bin" / "airamp-trace"
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        archive = wheels.wheel("rapidocr-onnxruntime")
        for file in MODELS.values():
            (folder / file).write_bytes(archive.read(f"rapidocr_onnxruntime/models/{file}"))
        traces = []
        for name in PROGRAMS:
            trace = (args.keep or folder) / (name + ".trace")
            subprocess.run([tool, "record", trace, "--", sys.executable, __file__, "--program", name, "--folder", folder,
                            "--runs", str(args.runs)], check=True)
            traces.append(trace)
        tables = subprocess.run([tool, "compare", *traces], check=True, capture_output=True, text=True).stdout
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    (HERE / "results" / "pattern_of_life.md").write_text(
        f"""# Foreseeing allocations

Made by `bench/pattern_of_life.py` at {commit or 'an unknown commit'} on {platform.machine()}. Counts and bytes of a replay,
no times. **No device was used**: the traces in italics are host allocations of at least 64 KiB of real programs
({args.runs} steps each: two models of PP-OCR in ONNX Runtime without its arena, and a training loop in NumPy), the others are
made by rule (`airamp-trace synthesise` says how; mean of 5 seeds, and the range where seeds differ).

A step's needs are the allocations that no block freed in the same step serves. They are foreseen by a predicted block that
is at most an eighth too large. Each predictor is scored on the second half of the steps. The first four are baselines:
decayed counts (0.2) of exact sizes; of bins of an eighth of a doubling; a Gaussian kernel with Silverman's bandwidth over
them; the same with a quarter of a bin. The last is what `libairamp.so` has: exact sizes and a density, each of which is used
only while it foresees more than it wastes, and otherwise neither. In the recorded traces nothing tells where a step ends:
the engine finds out at the first allocation of the next one, which it can therefore not foresee, and is one need in about
fifteen there; the baselines are told.

{tables.replace("## In a model of the pool", '''## What it is worth inside a pool

A cache alone serves nearly all requests; pre-warming can only help the first step after the cache was emptied, and longer
times to live only programs that pause. Both are shown as they are: per 1000 requests, one seed, time to live 10 s, and the
pool emptied after every 20 steps as memory pressure does. ''')}""")
    print(f"{HERE / 'results' / 'pattern_of_life.md'} is written.")


if __name__ == "__main__":
    main()
