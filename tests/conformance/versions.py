#!/usr/bin/env python3
"""Writes conformance cases of single operators at older opsets, with ONNX Runtime's outputs as what is expected.

    versions.py [--out build/conformance]      # the suite `versions`; needs onnx and onnxruntime

Every case comes twice: with the shapes of its inputs in the model, and (suffix _hidden) with inputs whose rank nothing
in the model tells, so that conversion has to work at run time.
"""

import argparse
import pathlib
import shutil
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from cases import ROOT, write_case  # noqa: E402

RNG = np.random.default_rng(7)


def f32(*shape):
    return RNG.standard_normal(shape, dtype=np.float32)


def positive(*shape):
    return np.abs(f32(*shape)) + np.float32(0.5)


def ints(*values):
    return np.array(values, dtype=np.int64)


def running_sum():
    """A Scan body: state + element, and that doubled."""
    value = lambda n: helper.make_tensor_value_info(n, TensorProto.FLOAT, [3])  # noqa: E731
    nodes = [helper.make_node("Add", ["s", "e"], ["t"]), helper.make_node("Add", ["t", "t"], ["u"])]
    return helper.make_graph(nodes, "body", [value("s"), value("e")], [value("t"), value("u")])


X = f32(2, 3, 6, 8)
# name, opset, operator, inputs (arrays are fed, ("const", array) are initialisers, None is absent), attributes, outputs
CASES = [
    *[(f"softmax_{op}_{v}_axis{a}", v, op, [X], {"axis": a}, 1)
      for op in ("Softmax", "LogSoftmax", "Hardmax") for v in (7, 12) for a in (0, 1, 2, 3)],
    ("softmax_default", 9, "Softmax", [f32(4, 5)], {}, 1),
    ("softmax_pointwise", 11, "Softmax", [f32(2, 5, 1, 1)], {}, 1),
    ("clip_6", 7, "Clip", [X], {"min": -0.5, "max": 0.7}, 1),
    ("clip_6_max", 10, "Clip", [X], {"max": 0.1}, 1),
    ("slice_1", 9, "Slice", [X], {"starts": [1, -3], "ends": [2147483647, -1], "axes": [0, 3]}, 1),
    ("slice_1_no_axes", 9, "Slice", [X], {"starts": [0, 1], "ends": [1, 3]}, 1),
    ("topk_1", 9, "TopK", [X], {"k": 3, "axis": 2}, 2),
    ("topk_10", 10, "TopK", [X, ("const", ints(2))], {}, 2),
    ("pad_2", 10, "Pad", [X], {"pads": [0, 0, 1, 2, 0, 0, 3, 0], "value": 1.5}, 1),
    ("pad_2_reflect", 9, "Pad", [X], {"pads": [0, 0, 1, 2, 0, 0, 3, 1], "mode": "reflect"}, 1),
    ("squeeze_1", 11, "Squeeze", [f32(2, 1, 3, 1)], {"axes": [1]}, 1),
    ("squeeze_1_all", 8, "Squeeze", [f32(2, 1, 3, 1)], {}, 1),
    ("unsqueeze_1", 12, "Unsqueeze", [f32(2, 3)], {"axes": [0, 3]}, 1),
    ("split_2", 11, "Split", [X], {"axis": 3, "split": [1, 5, 2]}, 3),
    ("split_2_even", 9, "Split", [X], {"axis": 1}, 3),
    ("split_13_even", 13, "Split", [X], {"axis": 2}, 2),
    *[(f"{op.lower()}_{v}", v, op, [positive(2, 3, 4, 5)], {"axes": [1, -1] if v >= 11 else [1, 3], "keepdims": k}, 1)
      for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum",
                 "ReduceLogSumExp", "ReduceSumSquare") for v, k in ((8, 1), (12, 0))],
    ("reduce_mean_all", 13, "ReduceMean", [X], {}, 1),
    ("reduce_max_17", 17, "ReduceMax", [X], {"axes": [-2]}, 1),
    ("dropout_7", 7, "Dropout", [X], {"ratio": 0.4}, 1),
    ("dropout_10", 10, "Dropout", [X], {"ratio": 0.4}, 1),
    *[(f"batch_normalization_{v}", v, "BatchNormalization", [X, f32(3), f32(3), f32(3), positive(3)], {"epsilon": 1e-3}, 1)
      for v in (7, 9, 14)],
    ("upsample_7_nearest", 7, "Upsample", [X], {"scales": [1.0, 1.0, 2.0, 3.0]}, 1),
    ("upsample_7_linear", 8, "Upsample", [X], {"scales": [1.0, 1.0, 2.0, 3.0], "mode": "linear"}, 1),
    ("upsample_9_nearest", 9, "Upsample", [X, ("const", np.array([1, 1, 1.7, 2.3], np.float32))], {}, 1),
    ("upsample_9_fed", 9, "Upsample", [X, np.array([1, 1, 2, 2], np.float32)], {}, 1),
    *[(f"resize_10_{mode}_{n}", 10, "Resize", [X, s], {"mode": mode}, 1)
      for mode in ("nearest", "linear")
      for n, s in (("up", ("const", np.array([1, 1, 1.7, 2.3], np.float32))), ("down", ("const", np.array([1, 1, .6, .4], np.float32))),
                   ("both", ("const", np.array([1, 1, .6, 1.9], np.float32))), ("fed", np.array([1, 1, 1.9, .6], np.float32)))],
    ("resize_11_sizes", 11, "Resize", [X, ("const", np.zeros(0, np.float32)), ("const", np.zeros(0, np.float32)), ("const", ints(2, 3, 9, 5))],
     {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}, 1),
    ("resize_11_tf_half_pixel", 11, "Resize", [X, ("const", np.zeros(0, np.float32)), ("const", np.array([1, 1, 2, 3], np.float32))],
     {"mode": "nearest", "coordinate_transformation_mode": "tf_half_pixel_for_nn", "nearest_mode": "floor"}, 1),
    ("resize_13_cubic", 13, "Resize", [X, None, ("const", np.array([1, 1, 1.5, 2], np.float32))], {"mode": "cubic"}, 1),
    ("scatter_9", 9, "Scatter", [f32(3, 4), np.array([[0, 2, 1, 0]]), f32(1, 4)], {"axis": 0}, 1),
    ("grid_sample_16", 16, "GridSample", [X, RNG.uniform(-1.2, 1.2, (2, 4, 5, 2)).astype(np.float32)], {"mode": "bilinear"}, 1),
    ("grid_sample_16_cubic", 16, "GridSample", [X, RNG.uniform(-1, 1, (2, 4, 5, 2)).astype(np.float32)], {"mode": "bicubic"}, 1),
    ("grid_sample_16_default", 16, "GridSample", [X, RNG.uniform(-1, 1, (2, 4, 5, 2)).astype(np.float32)], {"padding_mode": "border"}, 1),
    ("dft_17", 17, "DFT", [f32(2, 6, 5, 1)], {}, 1),
    ("dft_17_axis", 17, "DFT", [f32(2, 6, 5, 2)], {"axis": 2, "inverse": 1}, 1),
    ("roi_align_10", 10, "RoiAlign", [X, np.array([[0, 0, 4, 4], [1, 2, 7, 5]], np.float32), ints(0, 1)],
     {"output_height": 3, "output_width": 2, "sampling_ratio": 2}, 1),
    ("group_normalization_18", 18, "GroupNormalization", [f32(2, 6, 4, 4), f32(3), f32(3)], {"num_groups": 3}, 1),
    ("prelu_7", 7, "PRelu", [X, f32(3, 1, 1)], {}, 1),
    ("gemm_7", 7, "Gemm", [f32(3, 4), f32(5, 4), f32(5)], {"transB": 1, "alpha": 0.5, "beta": 2.0}, 1),
    ("gemm_9_column", 9, "Gemm", [f32(3, 4), f32(4, 5), f32(3, 1)], {}, 1),
    ("one_hot_9", 9, "OneHot", [ints(0, 2, 3), np.array(4.0, np.float32), np.array([-1, 5], np.float32)], {"axis": 0}, 1),
    ("argmax_7", 7, "ArgMax", [X], {"axis": 1, "keepdims": 0}, 1),
    ("gather_1", 10, "Gather", [X, ints(2, 0)], {"axis": 1}, 1),
    ("flatten_9", 9, "Flatten", [X], {"axis": 2}, 1),
    ("lstm_7", 7, "LSTM", [f32(4, 2, 3), f32(1, 8, 3), f32(1, 8, 2)], {"hidden_size": 2}, 3),
    ("gru_7", 7, "GRU", [f32(4, 2, 3), f32(2, 6, 3), f32(2, 6, 2)], {"hidden_size": 2, "direction": "bidirectional"}, 2),
    ("average_pool_7", 7, "AveragePool", [X], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}, 1),
    ("max_pool_8", 8, "MaxPool", [X], {"kernel_shape": [2, 3], "auto_pad": "SAME_UPPER"}, 2),
    ("lp_pool_2", 8, "LpPool", [X], {"kernel_shape": [2, 2], "p": 3}, 1),
    ("conv_transpose_output_shape", 10, "ConvTranspose", [f32(1, 2, 3, 3), f32(2, 2, 3, 3)], {"strides": [2, 2], "output_shape": [6, 6]}, 1),
    ("conv_transpose_output_shape_11", 11, "ConvTranspose", [f32(1, 2, 3, 3), f32(2, 2, 3, 3)], {"strides": [2, 2], "output_shape": [6, 6]}, 1),
    ("mean_variance_9", 9, "MeanVarianceNormalization", [X], {}, 1),
    ("thresholded_relu", 10, "ThresholdedRelu", [X], {"alpha": 0.3}, 1),
    ("quantize_10", 10, "QuantizeLinear", [X, np.float32(0.1), np.uint8(120)], {}, 1),
    ("cum_sum_11", 11, "CumSum", [X, np.array(2, np.int32)], {"reverse": 1}, 1),
    ("pow_12", 12, "Pow", [positive(3, 4), np.array([1, 2, 3, 0], np.int32)], {}, 1),
    ("sum_8", 8, "Sum", [f32(3, 4), f32(4), f32(3, 1)], {}, 1),
    ("lrn_1", 7, "LRN", [X], {"size": 3, "alpha": 0.1}, 1),
    ("scan_8", 8, "Scan", [None, f32(2, 3), f32(2, 5, 3)], {"num_scan_inputs": 1, "body": running_sum()}, 2),
    ("scan_8_reverse", 8, "Scan", [None, f32(2, 3), f32(2, 5, 3)], {"num_scan_inputs": 1, "directions": [1], "body": running_sum()}, 2),
    ("scan_8_lengths", 8, "Scan", [ints(2, 5, 1), f32(3, 3), f32(3, 5, 3)], {"num_scan_inputs": 1, "body": running_sum()}, 2),
    ("scan_8_lengths_reverse", 8, "Scan", [ints(4, 1), f32(2, 3), f32(2, 5, 3)],
     {"num_scan_inputs": 1, "directions": [1], "body": running_sum()}, 2),
    ("scan_9", 9, "Scan", [f32(3), f32(5, 3)], {"num_scan_inputs": 1, "body": running_sum()}, 2),
    ("label_encoder_1", 8, "ai.onnx.ml.LabelEncoder", [np.array(["b", "x", "a"])], {"classes_strings": ["a", "b"], "default_int64": 7}, 1),
    ("label_encoder_1_back", 8, "ai.onnx.ml.LabelEncoder", [ints(1, 5, 0)], {"classes_strings": ["a", "b"], "default_string": "?"}, 1),
    ("depth_to_space_1", 7, "DepthToSpace", [f32(1, 8, 2, 3)], {"blocksize": 2}, 1),
]
SCALAR_FREE = {"Upsample", "Resize"}  # a hidden rank is beyond what ONNX Runtime's own kernels of these take


def model_of(opset, op, inputs, attributes, outputs, hidden):
    """One node; the arrays that are fed go through a Reshape to a shape of unknown length where ranks are to be hidden."""
    nodes, formals, initialisers, names = [], [], [], []
    feeds = {}
    for k, value in enumerate(inputs):
        name = f"x{k}"
        if value is None:
            names.append("")
            continue
        if isinstance(value, tuple):
            initialisers.append(numpy_helper.from_array(value[1], name))
            names.append(name)
            continue
        value = np.asarray(value)
        elem = helper.np_dtype_to_tensor_dtype(value.dtype)
        formals.append(helper.make_tensor_value_info(name, elem, value.shape))
        feeds[name] = value
        if hidden:
            formals.append(helper.make_tensor_value_info(name + "_shape", TensorProto.INT64, None))
            feeds[name + "_shape"] = np.array(value.shape, dtype=np.int64)
            nodes.append(helper.make_node("Reshape", [name, name + "_shape"], [name + "_hidden"]))
            name += "_hidden"
        names.append(name)
    made = [f"y{k}" for k in range(outputs)]
    domain, _, op = op.rpartition(".")
    nodes.append(helper.make_node(op, names, made, domain=domain, **attributes))
    return nodes, formals, initialisers, feeds, made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build" / "conformance")
    out = parser.parse_args().out / "versions"
    shutil.rmtree(out, ignore_errors=True)
    onnxruntime.set_default_logger_severity(4)
    written = 0
    refused = []
    for name, opset, op, inputs, attributes, outputs in CASES:
        for hidden in (False, True):
            if hidden and op in SCALAR_FREE:
                continue
            nodes, formals, initialisers, feeds, made = model_of(opset, op, inputs, attributes, outputs, hidden)
            case = name + ("_hidden" if hidden else "")

            def build(infos):
                graph = helper.make_graph(nodes, case, formals, infos, initialisers)
                return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 1)], ir_version=7)

            try:
                # The element types of the outputs are ONNX Runtime's to say.
                bare = build([onnx.ValueInfoProto(name=n) for n in made])
                session = onnxruntime.InferenceSession(bare.SerializeToString(), providers=["CPUExecutionProvider"])
                results = session.run(None, feeds)
            except Exception as e:  # noqa: BLE001: what the oracle cannot do is no case
                refused.append(f"{case}: {str(e).splitlines()[0][:150]}")
                continue
            infos = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(r.dtype), None) for n, r in zip(made, results)]
            write_case(out / case, build(infos), [([feeds[f.name] for f in formals], results)], rtol=1e-4, atol=1e-5)
            written += 1
    print(f"wrote {written} cases to {out}")
    for line in refused:
        print("ONNX Runtime refused", line)


if __name__ == "__main__":
    main()
