#!/usr/bin/env python3
"""Writes the ONNX conformance cases as folders that the `conformance` program reads.

    cases.py [--out build/conformance]

The node, pytorch-converted, pytorch-operator and simple suites come out of the onnx 1.22.0 wheel; the suite
node-new holds the node cases that the installed onnx makes beyond those. A case is a folder

    <suite>/<case>/model.onnx
                   case.txt                       see `describe`
                   test_data_set_<n>/input_<k>.pb, output_<k>.pb
"""

import argparse
import json
import pathlib
import shutil
import sys
import warnings

import onnx
from onnx import numpy_helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from wheels import PINNED, ROOT, wheel  # noqa: E402

SUITES = ("node", "pytorch-converted", "pytorch-operator", "simple")
DATA = "onnx/backend/test/data/"
RTOL, ATOL = 1e-3, 1e-7  # what onnx's own runner uses where a case says nothing


def kind(type_proto: onnx.TypeProto) -> str:
    """tensor, seq(…), optional(…) or map: which protobuf message a data file holds."""
    which = type_proto.WhichOneof("value")
    if which == "sequence_type":
        return f"seq({kind(type_proto.sequence_type.elem_type)})"
    if which == "optional_type":
        return f"optional({kind(type_proto.optional_type.elem_type)})"
    return "map" if which == "map_type" else "tensor"


def describe(model: onnx.ModelProto, inputs: int, outputs: int, rtol: float = RTOL, atol: float = ATOL) -> str:
    """case.txt: tolerances, then one line per data file in its order: kind and the name of the model's value."""
    lines = [f"rtol {rtol:g}", f"atol {atol:g}"]
    lines += [f"input {kind(v.type)} {v.name}" for v in list(model.graph.input)[:inputs]]
    lines += [f"output {kind(v.type)} {v.name}" for v in list(model.graph.output)[:outputs]]
    return "\n".join(lines) + "\n"


def write_case(folder: pathlib.Path, model: onnx.ModelProto, data_sets, rtol: float = RTOL, atol: float = ATOL) -> None:
    """data_sets: pairs (inputs, outputs) of arrays, TensorProtos, lists or None in the order of the graph's values."""
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    for n, (inputs, outputs) in enumerate(data_sets):
        target = folder / f"test_data_set_{n}"
        target.mkdir()
        for stem, values, formals in (("input", inputs, model.graph.input), ("output", outputs, model.graph.output)):
            for k, (value, formal) in enumerate(zip(values, formals)):
                (target / f"{stem}_{k}.pb").write_bytes(message(value, formal))
    (folder / "case.txt").write_text(describe(model, len(data_sets[0][0]), len(data_sets[0][1]), rtol, atol))


def message(value, formal: onnx.ValueInfoProto) -> bytes:
    if hasattr(value, "SerializeToString"):
        return value.SerializeToString()
    make = {"seq": numpy_helper.from_list, "optional": numpy_helper.from_optional, "map": numpy_helper.from_dict,
            "tensor": numpy_helper.from_array}[kind(formal.type).split("(")[0]]
    return make(value, formal.name).SerializeToString()


def extract(out: pathlib.Path) -> dict[str, int]:
    """The suites of the wheel, as they lie in it."""
    archive = wheel("onnx")
    cases: dict[tuple[str, str], list[str]] = {}
    for name in archive.namelist():
        parts = name[len(DATA):].split("/") if name.startswith(DATA) else []
        if len(parts) >= 3 and parts[0] in SUITES and parts[-1]:
            cases.setdefault((parts[0], parts[1]), []).append(name)
    counts = dict.fromkeys(SUITES, 0)
    for done, ((suite, case), names) in enumerate(sorted(cases.items())):
        if done % 200 == 0:
            print(f"  {done} of {len(cases)} cases", flush=True)
        tolerances = {}
        sizes = {"input": 0, "output": 0}
        for name in names:
            target = out / name[len(DATA):]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(name))
            if target.name == "data.json":
                tolerances = {k: v for k, v in json.loads(target.read_text()).items() if k in ("rtol", "atol")}
            elif target.suffix == ".pb" and target.parent.name == "test_data_set_0":
                sizes[target.name.split("_")[0]] += 1
        model = onnx.load(out / suite / case / "model.onnx", load_external_data=False)
        (out / suite / case / "case.txt").write_text(describe(model, sizes["input"], sizes["output"], **tolerances))
        counts[suite] += 1
    return counts


def generate(out: pathlib.Path) -> int:
    """Node cases of the installed onnx that the wheel's node suite has not."""
    from onnx.backend.test.case.node import collect_testcases
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = collect_testcases(None)
    count = 0
    for case in made:
        if not (out / "node" / case.name).exists():
            write_case(out / "node-new" / case.name, case.model, case.data_sets, case.rtol, case.atol)
            count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build" / "conformance")
    out = parser.parse_args().out
    stamp = f"cases 1, onnx {PINNED['onnx']} and {onnx.__version__}\n"
    if (out / "stamp").exists() and (out / "stamp").read_text() == stamp:
        print(f"conformance cases are in {out}")
        return
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    counts = extract(out)
    counts["node-new"] = generate(out)
    (out / "stamp").write_text(stamp)
    print(f"wrote to {out}: " + ", ".join(f"{n} {suite}" for suite, n in counts.items()))


if __name__ == "__main__":
    main()
