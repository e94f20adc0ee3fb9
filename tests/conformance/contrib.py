#!/usr/bin/env python3
"""Writes conformance cases of com.microsoft operators, judged by ONNX Runtime.

    contrib.py [--out build/conformance]

Each case is a model of one node with seeded random inputs; the expected outputs are those of ONNX Runtime's CPU kernels.
The folders are <out>/contrib/<case> in the form that cases.py describes. A case that ONNX Runtime cannot run is an error:
the list below holds only what it can.
"""

import argparse
import pathlib
import shutil
import sys
import zlib

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from cases import ROOT, write_case  # noqa: E402

F = np.float32


class Const:
    """An input that ONNX Runtime wants as an initialiser."""

    def __init__(self, value):
        self.value = np.asarray(value)


class Case:
    """One node. `inputs` are arrays, Const or None; `outputs` says which of the node's outputs are asked for."""

    def __init__(self, name, op, inputs, outputs="1", domain="com.microsoft", rtol=1e-3, atol=1e-5, **attributes):
        self.name, self.op, self.inputs, self.outputs, self.domain = name, op, inputs, outputs, domain
        self.rtol, self.atol, self.attributes = rtol, atol, attributes

    def model(self, types) -> onnx.ModelProto:
        names, formals, constants = [], [], []
        for k, value in enumerate(self.inputs):
            if value is None:
                names.append("")
                continue
            names.append(f"in{k}")
            if isinstance(value, Const):
                constants.append(onnx.numpy_helper.from_array(value.value, f"in{k}"))
            else:
                formals.append(helper.make_tensor_value_info(f"in{k}", helper.np_dtype_to_tensor_dtype(value.dtype), value.shape))
        outs = [f"out{k}" if wanted == "1" else "" for k, wanted in enumerate(self.outputs)]
        node = helper.make_node(self.op, names, outs, name=self.name, domain=self.domain, **self.attributes)
        results = [helper.make_tensor_value_info(o, t, None) for o, t in zip(filter(None, outs), types)]
        graph = helper.make_graph([node], self.name, formals, results, constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)], ir_version=10)

    def run(self):
        """The model with its output types filled in, the inputs and the outputs of ONNX Runtime."""
        values = [v for v in self.inputs if v is not None and not isinstance(v, Const)]
        names = [f"in{k}" for k, v in enumerate(self.inputs) if v is not None and not isinstance(v, Const)]
        count = self.outputs.count("1")
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        # An unknown output type is inferred by ONNX Runtime; it is then written into the model.
        probe = self.model([TensorProto.UNDEFINED] * count)
        for o in probe.graph.output:
            o.ClearField("type")
        session = ort.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
        results = session.run(None, dict(zip(names, values)))
        model = self.model([helper.np_dtype_to_tensor_dtype(r.dtype) for r in results])
        return model, values, results


class Numbers:
    """Seeded by the case's name, so that adding a case does not change the others."""

    def __init__(self, name):
        self.random = np.random.default_rng(zlib.crc32(name.encode()))

    def f(self, *shape, scale=1.0):
        return (self.random.standard_normal(shape) * scale).astype(F)

    def i(self, low, high, *shape, dtype=np.int32):
        return self.random.integers(low, high, shape).astype(dtype)


def products():
    r = Numbers("products")
    for activation, params in (("Relu", None), ("Tanh", None), ("Sigmoid", None), ("LeakyRelu", [0.2]), ("Clip", [-0.5, 0.7]), ("HardSigmoid", [0.3, 0.4])):
        extra = {"activation_params": params} if params else {}
        yield Case(f"fused_conv_{activation.lower()}", "FusedConv", [r.f(2, 4, 7, 6), r.f(6, 2, 3, 3), r.f(6)], activation=activation,
                   group=2, pads=[1, 0, 1, 2], strides=[2, 1], **extra)
    yield Case("fused_conv_sum", "FusedConv", [r.f(1, 3, 5, 5), r.f(4, 3, 3, 3), r.f(4), r.f(1, 4, 3, 3)], activation="Relu")
    yield Case("fused_gemm_relu", "FusedGemm", [r.f(4, 5), r.f(5, 3), r.f(3)], activation="Relu", alpha=0.5, beta=2.0)
    yield Case("fused_gemm_leaky_transposed", "FusedGemm", [r.f(5, 4), r.f(3, 5), r.f(4, 1)], activation="LeakyRelu",
               activation_alpha=0.1, transA=1, transB=1)
    yield Case("fused_matmul_plain", "FusedMatMul", [r.f(2, 3, 4), r.f(4, 5)], alpha=0.25)
    yield Case("fused_matmul_trans_a", "FusedMatMul", [r.f(2, 4, 3), r.f(2, 4, 5)], transA=1)
    yield Case("fused_matmul_trans_b", "FusedMatMul", [r.f(2, 1, 3, 4), r.f(3, 5, 4)], transB=1, alpha=-2.0)
    yield Case("fused_matmul_trans_both", "FusedMatMul", [r.f(4, 3), r.f(5, 4)], transA=1, transB=1)
    yield Case("fused_matmul_batch_a", "FusedMatMul", [r.f(3, 2, 4), r.f(2, 4, 5)], transBatchA=1)
    yield Case("fused_matmul_batch_a_trans", "FusedMatMul", [r.f(4, 2, 3), r.f(2, 4, 5)], transBatchA=1, transA=1)
    yield Case("fused_matmul_batch_b", "FusedMatMul", [r.f(2, 3, 4), r.f(4, 2, 5)], transBatchB=1)
    yield Case("fused_matmul_batch_b_trans", "FusedMatMul", [r.f(2, 6, 3, 4), r.f(5, 2, 6, 4)], transBatchB=1, transB=1)
    yield Case("fused_matmul_vector", "FusedMatMul", [r.f(4), r.f(2, 4, 3)], alpha=3.0)
    yield Case("transpose_matmul", "TransposeMatMul", [r.f(2, 4, 3), r.f(2, 4, 5)], transA=1)


def gelus():
    r = Numbers("gelus")
    yield Case("gelu", "Gelu", [r.f(3, 8, scale=2)])
    yield Case("bias_gelu", "BiasGelu", [r.f(2, 3, 8, scale=2), r.f(8)])
    yield Case("fast_gelu", "FastGelu", [r.f(2, 3, 8, scale=2)])
    yield Case("fast_gelu_bias", "FastGelu", [r.f(2, 3, 8, scale=2), r.f(8)])
    yield Case("quick_gelu", "QuickGelu", [r.f(3, 8, scale=2)], alpha=1.702)
    yield Case("quick_gelu_silu", "QuickGelu", [r.f(3, 8, scale=2)], alpha=1.0)


def norms():
    r = Numbers("norms")
    yield Case("simplified_layer_norm", "SimplifiedLayerNormalization", [r.f(2, 3, 8), r.f(8)], domain="", epsilon=1e-6)
    yield Case("simplified_layer_norm_inverse", "SimplifiedLayerNormalization", [r.f(2, 3, 8), r.f(8)], outputs="11", domain="", epsilon=1e-6)
    yield Case("simplified_layer_norm_axis", "SimplifiedLayerNormalization", [r.f(2, 3, 4), r.f(3, 4)], domain="", axis=1)
    yield Case("skip_layer_norm", "SkipLayerNormalization", [r.f(2, 3, 8), r.f(2, 3, 8), r.f(8), r.f(8)], epsilon=1e-5)
    yield Case("skip_layer_norm_bias_sum", "SkipLayerNormalization", [r.f(2, 3, 8), r.f(2, 3, 8), r.f(8), r.f(8), r.f(8)], outputs="1001")
    yield Case("skip_layer_norm_broadcast", "SkipLayerNormalization", [r.f(2, 3, 8), r.f(1, 3, 8), r.f(8)])
    yield Case("skip_layer_norm_rank2_skip", "SkipLayerNormalization", [r.f(2, 3, 8), r.f(3, 8), r.f(8), r.f(8)])
    yield Case("skip_simplified_layer_norm", "SkipSimplifiedLayerNormalization", [r.f(2, 3, 8), r.f(2, 3, 8), r.f(8)], epsilon=1e-6)
    yield Case("skip_simplified_layer_norm_sum", "SkipSimplifiedLayerNormalization", [r.f(2, 3, 8), r.f(2, 3, 8), r.f(8), r.f(8)], outputs="1001")
    ids, segments = r.i(0, 20, 2, 5), r.i(0, 2, 2, 5)
    tables = [r.f(20, 8), r.f(6, 8), r.f(2, 8), r.f(8), r.f(8)]
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
    yield Case("embed_layer_norm", "EmbedLayerNormalization", [ids, segments, *tables], outputs="11")
    yield Case("embed_layer_norm_mask_sum", "EmbedLayerNormalization", [ids, segments, *tables, mask], outputs="111", epsilon=1e-6)
    yield Case("embed_layer_norm_positions", "EmbedLayerNormalization",
               [ids, None, tables[0], tables[1], None, tables[3], tables[4], None, r.i(0, 6, 2, 5)], outputs="11")


def packed_attention():
    r = Numbers("packed_attention")
    batch, length, hidden, heads, past = 2, 5, 8, 2, 3
    x, w, b = r.f(batch, length, hidden), r.f(hidden, 3 * hidden, scale=0.5), r.f(3 * hidden)

    def case(name, *rest, outputs="1", **attributes):
        return Case(f"attention_{name}", "Attention", [x, w, b, *rest], outputs=outputs, num_heads=heads, **attributes)

    total = past + length
    history = r.f(2, batch, heads, past, hidden // heads)
    yield case("plain")
    yield case("unidirectional", unidirectional=1)
    yield case("lengths", np.array([3, 5], np.int32))
    yield case("ranges", np.array([4, 5, 1, 0], np.int32))
    yield case("key_mask", np.array([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1]], np.int32))
    yield case("key_mask_filter", np.array([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1]], np.int32), mask_filter_value=-3.0)
    yield case("score_mask", r.i(0, 2, batch, length, length))
    yield case("past", None, history, outputs="11")
    yield case("past_unidirectional_mask", np.ones((batch, total), np.int32), history, outputs="11", unidirectional=1)
    yield case("bias_of_scores", None, None, r.f(1, heads, length, length))
    yield Case("attention_value_size", "Attention", [x, r.f(hidden, 8 + 8 + 12, scale=0.5), r.f(28)], num_heads=heads, qkv_hidden_sizes=[8, 8, 12])


def multi_head_attention():
    r = Numbers("multi_head_attention")
    batch, length, keys, heads, size, past = 2, 4, 6, 2, 4, 3
    hidden = heads * size
    q, k, v = r.f(batch, length, hidden), r.f(batch, keys, hidden), r.f(batch, keys, hidden)

    def case(name, *inputs, outputs="1", **attributes):
        return Case(f"multi_head_attention_{name}", "MultiHeadAttention", list(inputs), outputs=outputs, num_heads=heads, **attributes)

    yield case("cross", q, k, v)
    yield case("scale", q, k, v, scale=0.2)
    yield case("bias", q, k, v, r.f(3 * hidden))
    yield case("value_size", q, k, r.f(batch, keys, heads * 6))
    yield case("lengths", q, k, v, None, np.array([4, 6], np.int32))
    yield case("key_mask", q, k, v, None, r.i(0, 2, batch, keys))
    yield case("score_bias", q, k, v, None, None, r.f(1, heads, length, keys))
    yield case("heads_of_encoder", q, r.f(batch, heads, keys, size), r.f(batch, heads, keys, size))
    yield case("past", q, r.f(batch, length, hidden), r.f(batch, length, hidden), None, None, None, r.f(batch, heads, past, size),
               r.f(batch, heads, past, size), outputs="111")
    yield case("past_unidirectional", q, r.f(batch, length, hidden), r.f(batch, length, hidden), None, None, None, r.f(batch, heads, past, size),
               r.f(batch, heads, past, size), outputs="111", unidirectional=1)
    yield case("unidirectional", q, r.f(batch, length, hidden), r.f(batch, length, hidden), unidirectional=1)


def group_query_attention():
    r = Numbers("group_query_attention")
    batch, heads, kv_heads, size = 2, 4, 2, 16

    def case(name, length, lengths, total, past=None, packed=False, rest=(), outputs="111", **attributes):
        count = len(lengths)
        if packed:
            q, k, v = r.f(count, length, (heads + 2 * kv_heads) * size), None, None
        else:
            q, k, v = (r.f(count, length, n * size) for n in (heads, kv_heads, kv_heads))
        old = [r.f(count, kv_heads, past, size) for _ in range(2)] if past is not None else [None, None]
        return Case(f"group_query_attention_{name}", "GroupQueryAttention",
                    [q, k, v, *old, np.array(lengths, np.int32) - 1, np.array([total], np.int32), *rest], outputs=outputs,
                    num_heads=heads, kv_num_heads=kv_heads, **attributes)

    angles = r.f(32, size // 2, scale=3)
    caches = [np.cos(angles), np.sin(angles)]
    yield case("prompt", 5, [5, 5], 5)
    yield case("prompt_past_buffer", 5, [5, 5], 5, past=8)
    yield case("packed", 5, [5, 5], 5, packed=True)
    yield case("decode", 1, [7, 7], 7, past=6)
    yield case("decode_buffer", 1, [4, 7], 7, past=9)
    yield case("continued", 3, [8], 8, past=5)
    yield case("rotary_prompt", 5, [5, 5], 5, rest=caches, do_rotary=1)
    yield case("rotary_interleaved", 5, [5, 5], 5, rest=caches, do_rotary=1, rotary_interleaved=1)
    yield case("rotary_decode", 1, [4, 7], 7, past=9, rest=caches, do_rotary=1)
    yield case("rotary_packed", 4, [4, 4], 4, packed=True, rest=caches, do_rotary=1)
    yield case("window", 7, [7, 7], 7, local_window_size=3)
    yield case("window_decode", 1, [6, 9], 9, past=10, local_window_size=4)
    yield case("softcap", 5, [5, 5], 5, softcap=2.0)
    yield case("scale", 5, [5, 5], 5, scale=0.5)
    yield case("smooth_softmax", 5, [5, 5], 5, smooth_softmax=1)
    yield case("head_sink", 5, [5, 5], 5, rest=[None, None, None, None, r.f(heads)])
    yield case("score_bias", 5, [5, 5], 5, rest=[None, None, None, r.f(1, heads, 5, 5)])
    yield case("position_ids", 1, [7, 7], 7, past=6, rest=[*caches, np.array([[6], [6]], np.int64)], do_rotary=1)


def rotary():
    r = Numbers("rotary")
    angles = r.f(16, 4, scale=3)
    caches = [np.cos(angles), np.sin(angles)]
    ids = r.i(0, 16, 2, 5, dtype=np.int64)
    yield Case("rotary_embedding", "RotaryEmbedding", [r.f(2, 5, 24), ids, *caches])
    yield Case("rotary_embedding_interleaved", "RotaryEmbedding", [r.f(2, 5, 24), ids, *caches], interleaved=1)
    yield Case("rotary_embedding_start", "RotaryEmbedding", [r.f(2, 3, 5, 8), np.array([3], np.int64), *caches])
    yield Case("rotary_embedding_partial", "RotaryEmbedding", [r.f(2, 5, 36), ids, *caches], num_heads=3, rotary_embedding_dim=8)
    yield Case("rotary_embedding_scale", "RotaryEmbedding", [r.f(2, 5, 24), ids, *caches], scale=1.0)


def quantised():
    r = Numbers("quantised")

    def q(dtype, *shape):
        return r.i(-128, 128, *shape, dtype=dtype) if dtype == np.int8 else r.i(0, 256, *shape, dtype=dtype)

    def params(scale, zero, dtype):
        return Const(np.array(scale, F)), Const(np.array(zero, dtype))

    for dtype, zero in ((np.uint8, 120), (np.int8, -7)):
        suffix = np.dtype(dtype).name
        a, b, c = params(0.021, zero, dtype), params(0.033, zero + 3, dtype), params(0.05, zero - 5, dtype)
        for op in ("QLinearAdd", "QLinearMul"):
            name = f"qlinear_{op[7:].lower()}_{suffix}"
            yield Case(name, op, [q(dtype, 2, 3, 17), *a, q(dtype, 2, 3, 17), *b, *c])
            yield Case(name + "_broadcast", op, [q(dtype, 2, 3, 17), *a, q(dtype, 3, 1), *b, *c])
        yield Case(f"qlinear_sigmoid_{suffix}", "QLinearSigmoid", [q(dtype, 4, 33), *a, *params(1 / 256, 0 if zero > 0 else -128, dtype)])
        yield Case(f"qlinear_leaky_relu_{suffix}", "QLinearLeakyRelu", [q(dtype, 4, 33), *a, *b], alpha=0.1)
        yield Case(f"qlinear_concat_{suffix}", "QLinearConcat", [*c, q(dtype, 2, 3), *a, q(dtype, 2, 5), *b], axis=1)
        yield Case(f"qlinear_global_average_pool_{suffix}", "QLinearGlobalAveragePool", [q(dtype, 2, 3, 5, 6), *a, *b])
        yield Case(f"qlinear_global_average_pool_last_{suffix}", "QLinearGlobalAveragePool", [q(dtype, 2, 5, 6, 3), *a, *b], channels_last=1)
        yield Case(f"nhwc_max_pool_{suffix}", "NhwcMaxPool", [q(dtype, 2, 7, 6, 3)], kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])
    u = np.uint8
    pool = dict(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    p, s = params(0.021, 120, u), params(0.019, 117, u)
    yield Case("qlinear_average_pool", "QLinearAveragePool", [q(u, 2, 3, 8, 7), *p, *s], **pool)
    yield Case("qlinear_average_pool_count_pads", "QLinearAveragePool", [q(u, 2, 3, 8, 7), *p, *s], count_include_pad=1, **pool)
    yield Case("qlinear_average_pool_last", "QLinearAveragePool", [q(u, 2, 8, 7, 3), *p, *s], channels_last=1, **pool)

    i8 = np.int8
    yield Case("qgemm", "QGemm", [q(u, 4, 6), *params(0.02, 110, u), Const(q(i8, 6, 5)), *params(0.03, 2, i8), Const(r.i(-900, 900, 5)), *params(0.2, 128, u)])
    yield Case("qgemm_transposed", "QGemm", [q(u, 6, 4), *params(0.02, 110, u), Const(q(i8, 5, 6)), *params(0.03, 2, i8), None, *params(0.2, 128, u)],
               transA=1, transB=1, alpha=0.5)
    yield Case("qgemm_columns", "QGemm", [q(u, 4, 6), *params(0.02, 110, u), Const(q(i8, 6, 5)), Const(np.abs(r.f(5)) / 30 + F(0.01)), Const(r.i(-3, 4, 5, dtype=i8)),
                                          Const(r.i(-900, 900, 5)), *params(0.2, 128, u)])
    yield Case("qgemm_float", "QGemm", [q(u, 4, 6), *params(0.02, 110, u), Const(q(i8, 6, 5)), *params(0.03, 2, i8), Const(r.i(-900, 900, 5))])

    yield Case("dynamic_quantize_matmul", "DynamicQuantizeMatMul", [r.f(2, 3, 6), Const(q(i8, 6, 5)), Const(np.array([0.03], F)), Const(np.array([2], i8)), Const(r.f(5))])
    yield Case("dynamic_quantize_matmul_columns", "DynamicQuantizeMatMul", [r.f(3, 6), Const(q(u, 6, 5)), Const(np.abs(r.f(5)) / 30 + F(0.01)), Const(q(u, 5))])
    yield Case("dynamic_quantize_matmul_plain", "DynamicQuantizeMatMul", [r.f(3, 6), Const(q(i8, 6, 5)), Const(np.array([0.03], F))])
    yield Case("matmul_integer_to_float", "MatMulIntegerToFloat", [q(u, 2, 3, 6), Const(q(i8, 6, 5)), np.array([0.02], F), Const(np.array([0.03], F)),
                                                                  np.array([110], u), Const(np.array([2], i8)), Const(r.f(5))])
    yield Case("matmul_integer_to_float_columns", "MatMulIntegerToFloat", [q(u, 3, 6), Const(q(u, 6, 5)), np.array([0.02], F), Const(np.abs(r.f(5)) / 30 + F(0.01)),
                                                                          np.array([110], u), Const(q(u, 5))])
    yield Case("matmul_integer_to_float_plain", "MatMulIntegerToFloat", [q(i8, 3, 6), Const(q(i8, 6, 5)), np.array([0.02], F), Const(np.array([0.03], F))])

    for bits in (2, 4, 8):
        block, k, n = 16, 40, 6
        blocks, blob, zeros = -(-k // block), block * bits // 8, -(-(-(-k // block)) * bits // 8)
        inputs = [r.f(2, 3, k), Const(q(u, n, blocks, blob)), Const(np.abs(r.f(n, blocks)) / 10 + F(0.01))]
        shape = dict(K=k, N=n, block_size=block, bits=bits)
        yield Case(f"matmul_{bits}bits", "MatMulNBits", inputs, rtol=1e-3, atol=1e-4, **shape)
        yield Case(f"matmul_{bits}bits_zero_points", "MatMulNBits", [*inputs, Const(q(u, n, zeros))], rtol=1e-3, atol=1e-4, **shape)
    yield Case("matmul_4bits_bias", "MatMulNBits", [r.f(4, 32), Const(q(u, 5, 1, 16)), Const(r.f(5, 1)), None, None, Const(r.f(5))], atol=1e-4,
               K=32, N=5, block_size=32, bits=4)
    yield Case("matmul_4bits_float_zero_points", "MatMulNBits", [r.f(4, 32), Const(q(u, 5, 2, 8)), Const(r.f(5, 2)), Const(r.f(5, 2, scale=4) + F(8))], atol=1e-4,
               K=32, N=5, block_size=16, bits=4)


GROUPS = (products, gelus, norms, packed_attention, multi_head_attention, group_query_attention, rotary, quantised)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build" / "conformance")
    folder = parser.parse_args().out / "contrib"
    stamp = f"{zlib.crc32(pathlib.Path(__file__).read_bytes())}, onnxruntime {ort.__version__}\n"
    if (folder / "stamp").exists() and (folder / "stamp").read_text() == stamp:
        print(f"contrib cases are in {folder}")
        return
    shutil.rmtree(folder, ignore_errors=True)
    refused, count = [], 0
    for case in (c for group in GROUPS for c in group()):
        try:
            model, inputs, outputs = case.run()
        except Exception as error:  # noqa: BLE001: ONNX Runtime raises types of its own
            refused.append(f"{case.name}: {str(error).splitlines()[0][:200]}")
            continue
        write_case(folder / case.name, model, [(inputs, outputs)], case.rtol, case.atol)
        count += 1
    if refused:
        sys.exit("ONNX Runtime refused:\n  " + "\n  ".join(refused))
    (folder / "stamp").write_text(stamp)
    print(f"wrote {count} contrib cases to {folder}")


if __name__ == "__main__":
    main()
