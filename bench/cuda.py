#!/usr/bin/env python3
"""Measures the backend cuda (or hip) on a machine with such a GPU, against torch.compile and ONNX Runtime's CUDA provider.

    cuda.py [--backend cuda:0] [--rounds 5] [--batches 1 32] [--products f32 tf32 bf16] [MODEL…]

Models: resnet50, bert_base, vit_b_16, gpt2 by default. A time is that of a whole call: inputs from the host's memory, outputs back
into it, for every engine alike. Rounds interleave the engines; a figure is the median over the rounds of the median of a
round, the spread (largest − smallest) / median. Ours is a process of its own for each round, with ways already chosen.
torch.compile takes part where torch and onnx2torch are installed, ONNX Runtime where its CUDA provider is; an engine that
cannot do a row is named with the reason. Products of a model in float32 are rounded to tf32 or bf16 only in the rows that say
so: ours by the setting gpu_products, torch by its own switches (bf16: autocast), ONNX Runtime by use_tf32.

The roofline share is the least time that the device's published peaks allow for the operations and bytes that `aivmm inspect`
counts, divided by the time of ours. Results go into bench/results/cuda.json and cuda.md.
"""

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT / "tests" / "models"), str(ROOT / "tests")]
import zoo  # noqa: E402

MODELS = ["resnet50", "bert_base", "vit_b_16", "gpt2"]
# Operations a second without sparsity and bytes a second, from NVIDIA's data sheets: the first name that the device's contains.
PEAKS = {"H200": {"f32": 67e12, "tf32": 494.5e12, "bf16": 989e12, "bytes": 4.8e12},
         "H100": {"f32": 67e12, "tf32": 494.5e12, "bf16": 989e12, "bytes": 3.35e12},
         "A100": {"f32": 19.5e12, "tf32": 156e12, "bf16": 312e12, "bytes": 2.039e12}}


def aivmm(args, *words, products="f32"):
    done = subprocess.run([str(args.aivmm), *map(str, words), "--json"], capture_output=True, text=True,
                          env=os.environ | {"AI_VMM_GPU_PRODUCTS": products})
    if done.returncode != 0:
        raise RuntimeError((done.stderr or done.stdout).strip()[-300:])
    return json.loads(done.stdout)


class Ours:
    name = "ours"

    def __init__(self, args, model, feeds, products, folder):
        self.args, self.model, self.products, self.inputs = args, model, products, folder / "inputs.npz"
        np.savez(self.inputs, **feeds)
        self.facts = self.run(5)

    def run(self, repeat):
        return aivmm(self.args, "run", self.model, "--input", self.inputs, "--backend", self.args.backend, "--warmup", 5,
                     "--repeat", repeat, products=self.products)

    def seconds(self, repeat):
        return self.run(repeat)["median_us"] / 1e6


def median_seconds(call, repeat):
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


class OnnxRuntime:
    name = "onnxruntime"

    def __init__(self, args, model, feeds, products, folder):
        import onnxruntime
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise RuntimeError("this onnxruntime has no CUDA provider")
        if products == "bf16":
            raise RuntimeError("it does not compute a float32 model in bf16")
        self.session = onnxruntime.InferenceSession(str(model), providers=[
            ("CUDAExecutionProvider", {"use_tf32": int(products == "tf32"), "cudnn_conv_algo_search": "EXHAUSTIVE"})])
        self.feeds = feeds
        self.seconds(5)

    def seconds(self, repeat):
        return median_seconds(lambda: self.session.run(None, self.feeds), repeat)


class TorchCompile:
    name = "torch.compile"

    def __init__(self, args, model, feeds, products, folder):
        import onnx2torch
        import torch
        if not torch.cuda.is_available():
            raise RuntimeError("this torch finds no GPU")
        self.torch, self.products = torch, products
        self.net = torch.compile(onnx2torch.convert(str(model)).eval().cuda(), mode="max-autotune")
        self.feeds = [torch.from_numpy(x) for x in feeds.values()]
        self.seconds(5)

    def seconds(self, repeat):
        torch = self.torch
        tf32 = self.products != "f32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32

        def call():
            with torch.inference_mode(), (torch.autocast("cuda", torch.bfloat16) if self.products == "bf16"
                                          else contextlib.nullcontext()):
                results = self.net(*[x.cuda() for x in self.feeds])
            for r in results if isinstance(results, (tuple, list)) else [results]:
                r.float().cpu()

        return median_seconds(call, repeat)


def batched(case, batch):
    """The inputs of a zoo case, of size `batch` along their first axis."""
    return {name: np.concatenate([x] * batch) for name, x in zoo.feeds(case, 1).items()}


def bench(args, entry, batch, products, peak):
    model = ROOT / "build" / "zoo" / entry["file"]
    feeds = batched(next(c for c in entry["cases"] if c["bench"]), batch)
    shapes = [f"--shape={n}={'x'.join(map(str, x.shape))}" for n, x in feeds.items()]
    row = {"model": entry["name"], "batch": batch, "products": products, "absent": {}}
    with tempfile.TemporaryDirectory() as folder:
        engines = []
        for make in (Ours, TorchCompile, OnnxRuntime):
            try:
                engines.append(make(args, model, feeds, products, pathlib.Path(folder)))
            except (ImportError, RuntimeError) as error:
                row["absent"][make.name] = str(error)
        times = {e.name: [] for e in engines}
        for _ in range(args.rounds):
            for e in engines:
                times[e.name].append(e.seconds(args.repeat))
    for name, t in times.items():
        row[name] = {"ms": 1e3 * statistics.median(t), "spread": (max(t) - min(t)) / statistics.median(t)}
    if "ours" in row:
        row["not_native"] = len([f for f in engines[0].facts["fallbacks"] if f["runs_on"] != "host"])
        facts = aivmm(args, "inspect", model, *shapes)
        if peak and facts.get("flops"):
            least = max(facts["flops"] / peak[products], facts.get("bytes", 0) / peak["bytes"])
            row["roofline_share"] = least / (row["ours"]["ms"] / 1e3)
        peers = [row[e.name]["ms"] for e in engines[1:]]
        if peers:
            row["ratio"] = row["ours"]["ms"] / min(peers)
    return row


def markdown(results):
    names = ["ours", "torch.compile", "onnxruntime"]
    lines = ["# The backend cuda", "", f"{results['device']}, {results['date']}, commit {results['commit']}. Whole calls, copies to and "
             "from the host included; how it is measured: bench/cuda.py. Ratio: ours / the best other, smaller is better; in "
             "brackets the spread over the rounds.", "",
             "| model | batch | products | " + " | ".join(n + " ms" for n in names) + " | ratio | roofline share | nodes not native |",
             "|---|---:|---|---:|---:|---:|---:|---:|---:|"]
    for r in results["rows"]:
        cells = [f"{r[n]['ms']:.3g} ({100 * r[n]['spread']:.0f} %)" if n in r else "–" for n in names]
        share = f"{100 * r['roofline_share']:.0f} %" if "roofline_share" in r else "–"
        ratio = f"{r['ratio']:.2f}" if "ratio" in r else "–"
        lines.append(f"| {r['model']} | {r['batch']} | {r['products']} | {' | '.join(cells)} | {ratio} | {share} | {r.get('not_native', '–')} |")
    reasons = sorted({f"{n}: {why}" for r in results["rows"] for n, why in r["absent"].items()})
    if reasons:
        lines += ["", "Engines that are missing from rows, and why:", ""] + [f"- {r}" for r in reasons]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="cuda:0")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=50, help="timed calls of a round (default 50)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--products", nargs="+", default=["f32", "tf32", "bf16"], choices=["f32", "tf32", "bf16"])
    parser.add_argument("--aivmm", type=pathlib.Path, default=ROOT / "build" / "bin" / "aivmm")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results")
    parser.add_argument("models", nargs="*", metavar="MODEL")
    args = parser.parse_args()
    kind, _, index = args.backend.partition(":")
    device = next((d["name"] for d in aivmm(args, "devices")["devices"]
                   if d["backend"] == kind and d["index"] == int(index or 0)), None)
    if device is None:
        print(f"There is no device {args.backend}; `aivmm devices --verbose` says why.", file=sys.stderr)
        return 1
    if "Emulated" in device:
        print("An emulated GPU has no speed to measure.", file=sys.stderr)
        return 1
    wanted = args.models or MODELS
    zoo.make(ROOT / "build" / "zoo", wanted)
    entries = [m for m in json.loads((ROOT / "build" / "zoo" / "zoo.json").read_text()) if m["name"] in wanted]
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    results = {"device": device, "date": time.strftime("%Y-%m-%d"), "commit": commit, "rows": []}
    peak = next((p for name, p in PEAKS.items() if name in device), None)
    for entry in entries:
        for batch in args.batches:
            for products in args.products:
                row = bench(args, entry, batch, products, peak)
                results["rows"].append(row)
                print(json.dumps(row), flush=True)
                (args.out / "cuda.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
                (args.out / "cuda.md").write_text(markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
