"""Transformers: encoders and a decoder for text, two for images."""

import json
import struct

import numpy as np

from builder import INT64, Net



def _padding_mask(net, mask):
    """[batch, seq] of 1 and 0 → [batch, 1, 1, seq] of 0 and the lowest float."""
    wide = net.op("Unsqueeze", net.op("Unsqueeze", mask, net.const([1])), net.const([2]))
    kept = net.op("Cast", wide, to=1)
    return net.mul(net.sub(net.const(1.0), kept), net.const(float(np.finfo(np.float32).min)))


def bert(name, layers, dim, heads, weights=None) -> tuple[Net, str]:
    """Devlin et al. 2018 as Hugging Face lays it out; `weights` maps its parameter names to arrays. Returns the last
    hidden state, too."""
    net = Net(name)
    ids = net.input("input_ids", ["batch", "sequence"], INT64)
    mask = net.input("attention_mask", ["batch", "sequence"], INT64)
    types = net.input("token_type_ids", ["batch", "sequence"], INT64)

    def parameter(key, shape, std=0.02, mean=0.0):
        if weights is None:
            return net.weight(mean + std * net.rng.standard_normal(shape, np.float32), key)
        assert weights[key].shape == tuple(shape), key
        return net.weight(weights[key], key)

    def linear(x, key, n_in, n_out):
        if weights is None:
            return net.linear(x, n_in, n_out)
        y = net.op("MatMul", x, net.weight(weights[key + ".weight"].T, key))
        return net.add(net.weight(weights[key + ".bias"], key + ".bias"), y)

    def norm(x, key):
        return net.op("LayerNormalization", x, parameter(key + ".weight", (dim,), 0.1, 1.0),
                      parameter(key + ".bias", (dim,)), axis=-1, epsilon=1e-12)

    batch, length = net.size(ids, 0), net.size(ids, 1)
    words = net.op("Gather", parameter("embeddings.word_embeddings.weight", (30522, dim)), ids)
    kinds = net.op("Gather", parameter("embeddings.token_type_embeddings.weight", (2, dim)), types)
    buffer = net.weight(np.arange(512, dtype=np.int64)[None], "position_ids")
    positions = net.slice(buffer, 0, net.shape(length), 1)
    where = net.op("Gather", parameter("embeddings.position_embeddings.weight", (512, dim)), positions)
    x = norm(net.add(net.add(words, kinds), where), "embeddings.LayerNorm")
    blocked = _padding_mask(net, mask)
    for k in range(layers):
        base = f"encoder.layer.{k}."
        net.scope = f"/layer.{k}"
        q, key, v = (net.heads(linear(x, f"{base}attention.self.{part}", dim, dim), batch, length, heads, dim // heads)
                     for part in ("query", "key", "value"))
        y = net.merge_heads(net.attention(q, key, v, dim // heads, blocked), batch, length, dim)
        x = norm(net.add(linear(y, base + "attention.output.dense", dim, dim), x), base + "attention.output.LayerNorm")
        y = net.gelu(linear(x, base + "intermediate.dense", dim, 4 * dim))
        x = norm(net.add(linear(y, base + "output.dense", 4 * dim, dim), x), base + "output.LayerNorm")
    net.scope = ""
    return net, x


def bert_base() -> Net:
    net, x = bert("bert_base", 12, 768, 12)
    net.output("last_hidden_state", x, ["batch", "sequence", 768])
    first = net.op("Gather", x, net.const(0), axis=1)
    net.output("pooler_output", net.op("Tanh", net.gemm(first, 768, 768)), ["batch", 768])
    return net


def read_safetensors(data: bytes) -> dict[str, np.ndarray]:
    """The format: header length (u64), JSON header, raw little-endian arrays."""
    size, = struct.unpack("<Q", data[:8])
    arrays = {}
    for name, entry in json.loads(data[8:8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        kind = {"F32": np.float32, "I64": np.int64}[entry["dtype"]]
        arrays[name] = np.frombuffer(data[8 + size + begin:8 + size + end], kind).reshape(entry["shape"])
    return arrays


def minilm(safetensors: bytes) -> Net:
    """all-MiniLM-L6-v2 with its real weights: sentence embeddings by mean pooling, of length 1."""
    net, x = bert("all_minilm_l6_v2", 6, 384, 12, read_safetensors(safetensors))
    kept = net.op("Cast", net.op("Unsqueeze", "attention_mask", net.const([-1])), to=1)
    total = net.op("ReduceSum", net.mul(x, kept), net.const([1]), keepdims=0)
    count = net.op("Clip", net.op("ReduceSum", kept, net.const([1]), keepdims=0), net.const(1e-9))
    mean = net.div(total, count)
    length = net.op("ReduceL2", mean, axes=[1], keepdims=1)
    net.output("token_embeddings", x, ["batch", "sequence", 384])
    net.output("sentence_embedding", net.div(mean, net.op("Clip", length, net.const(1e-12))), ["batch", 384])
    return net


def gpt2(layers: int = 12, dim: int = 768, heads: int = 12, vocabulary: int = 50257, name: str = "gpt2") -> Net:
    """GPT-2 small (Radford et al. 2019) with a cache of keys and values: past_key_values.<n>.key and .value in,
    present.<n>.key and .value out, [batch, heads, length, 64]."""
    net = Net(name)
    width = dim // heads
    ids = net.input("input_ids", ["batch", "sequence"], INT64)
    positions = net.input("position_ids", ["batch", "sequence"], INT64)
    past = [[net.input(f"past_key_values.{k}.{part}", ["batch", heads, "past", width]) for part in ("key", "value")]
            for k in range(layers)]
    table = net.normal((vocabulary, dim), 0.02, "wte")
    x = net.add(net.op("Gather", table, ids), net.op("Gather", net.normal((1024, dim), 0.01, "wpe"), positions))
    batch, length = net.size(ids, 0), net.size(ids, 1)
    triangle = net.weight(np.tril(np.ones((1, 1, 1024, 1024), bool)), "causal")
    present = []

    def conv1d(x, n_in, n_out, std=0.02):  # Hugging Face's Conv1D: addmm over flattened rows
        rows = net.view(x, -1, n_in)
        y = net.op("Gemm", rows, net.normal((n_in, n_out), std), net.normal((n_out,), 0.02, "bias"))
        return net.view(y, batch, length, n_out)

    for k in range(layers):
        net.scope = f"/h.{k}"
        y = conv1d(net.layer_norm(x, dim), dim, 3 * dim)
        q, key, value = net.op("Split", y, net.const([dim] * 3), outputs=3, axis=2)
        q, key, value = (net.heads(t, batch, length, heads, width) for t in (q, key, value))
        key = net.op("Concat", past[k][0], key, axis=2)
        value = net.op("Concat", past[k][1], value, axis=2)
        present.append((key, value))
        total = net.size(key, 2)
        scores = net.div(net.op("MatMul", q, net.transpose(key, 0, 1, 3, 2)), net.const(width ** 0.5))
        rows = net.slice(triangle, net.shape(net.sub(total, length)), net.shape(total), 2)
        seen = net.slice(rows, 0, net.shape(total), 3)
        scores = net.op("Where", seen, scores, net.const(float(np.finfo(np.float32).min)))
        y = net.op("MatMul", net.op("Softmax", scores, axis=-1), value)
        y = conv1d(net.merge_heads(y, batch, length, dim), dim, dim)
        x = net.add(y, x)
        y = conv1d(net.gelu_tanh(conv1d(net.layer_norm(x, dim), dim, 4 * dim)), 4 * dim, dim)
        x = net.add(x, y)
    net.scope = ""
    x = net.layer_norm(x, dim)
    net.output("logits", net.op("MatMul", x, net.transpose(table, 1, 0)), ["batch", "sequence", vocabulary])
    for k, (key, value) in enumerate(present):
        net.output(f"present.{k}.key", key, ["batch", heads, "total", width])
        net.output(f"present.{k}.value", value, ["batch", heads, "total", width])
    return net


def vit_b_16() -> Net:
    """Dosovitskiy et al. 2020."""
    net = Net("vit_b_16")
    dim, heads, tokens = 768, 12, 197
    image = net.input("pixel_values", ["batch", 3, 224, 224])
    batch = net.size(image, 0)
    x = net.conv(image, 3, dim, 16, 16, pad=0)
    x = net.transpose(net.view(x, batch, dim, 196), 0, 2, 1)
    token = net.op("Expand", net.normal((1, 1, dim), 0.02), net.shape(batch, 1, dim))
    x = net.add(net.op("Concat", token, x, axis=1), net.normal((1, tokens, dim), 0.02))
    for k in range(12):
        net.scope = f"/layer.{k}"
        x = net.add(net.self_attention(net.layer_norm(x, dim, 1e-6), batch, tokens, dim, heads), x)
        y = net.gelu(net.linear(net.layer_norm(x, dim, 1e-6), dim, 4 * dim))
        x = net.add(net.linear(y, 4 * dim, dim), x)
    net.scope = ""
    first = net.op("Gather", net.layer_norm(x, dim, 1e-6), net.const(0), axis=1)
    net.output("logits", net.gemm(first, dim, 1000), ["batch", 1000])
    return net


def swin_tiny() -> Net:
    """Liu et al. 2021: attention within 7×7 windows that shift by 3 in every second block."""
    net = Net("swin_tiny")
    image = net.input("pixel_values", ["batch", 3, 224, 224])
    batch, dim, side, window = net.size(image, 0), 96, 56, 7
    x = net.transpose(net.view(net.conv(image, 3, dim, 4, 4, pad=0), batch, dim, side * side), 0, 2, 1)
    x = net.layer_norm(x, dim)

    def roll(x, shift):  # torch.roll along both sides
        for axis in (1, 2):
            x = net.op("Concat", net.slice(x, shift, 1 << 40, axis), net.slice(x, 0, shift, axis), axis=axis)
        return x

    def shift_mask(side):
        region = np.zeros((side, side))
        cuts = [slice(0, side - window), slice(side - window, side - 3), slice(side - 3, side)]
        for n, (rows, columns) in enumerate((a, b) for a in cuts for b in cuts):
            region[rows, columns] = n
        parts = region.reshape(side // window, window, side // window, window).transpose(0, 2, 1, 3).reshape(-1, 49)
        return np.where(parts[:, None] != parts[:, :, None], -100, 0).astype(np.float32)

    for stage, (count, heads) in enumerate([(2, 3), (2, 6), (6, 12), (2, 24)]):
        for block in range(count):
            net.scope = f"/stage.{stage}/block.{block}"
            shifted, n = block % 2 == 1 and side > window, side // window
            y = net.view(net.layer_norm(x, dim), batch, side, side, dim)
            y = roll(y, 3) if shifted else y
            y = net.transpose(net.view(y, batch, n, window, n, window, dim), 0, 1, 3, 2, 4, 5)
            y = net.view(y, -1, 49, dim)
            q, key, v = (net.transpose(net.view(net.linear(y, dim, dim), -1, 49, heads, dim // heads), 0, 2, 1, 3)
                         for _ in range(3))
            scores = net.op("MatMul", q, net.transpose(key, 0, 1, 3, 2))
            scores = net.mul(scores, net.const((heads / dim) ** 0.5))
            scores = net.add(scores, net.normal((1, heads, 49, 49), 0.02, "relative_position"))
            if shifted:
                mask = net.weight(shift_mask(side)[None, :, None], "mask")
                scores = net.add(net.view(scores, batch, n * n, heads, 49, 49), mask)
                scores = net.view(scores, -1, heads, 49, 49)
            y = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
            y = net.linear(net.view(net.transpose(y, 0, 2, 1, 3), -1, 49, dim), dim, dim)
            y = net.transpose(net.view(y, batch, n, n, window, window, dim), 0, 1, 3, 2, 4, 5)
            y = net.view(y, batch, side, side, dim)
            y = roll(y, side - 3) if shifted else y
            x = net.add(x, net.view(y, batch, side * side, dim))
            y = net.gelu(net.linear(net.layer_norm(x, dim), dim, 4 * dim))
            x = net.add(x, net.linear(y, 4 * dim, dim))
        if stage < 3:  # merge 2×2 patches
            y = net.view(x, batch, side, side, dim)
            quarters = [net.slice(y, [a, b], [1 << 40] * 2, [1, 2], [2, 2]) for b in (0, 1) for a in (0, 1)]
            side //= 2
            y = net.view(net.op("Concat", *quarters, axis=3), batch, side * side, 4 * dim)
            x = net.linear(net.layer_norm(y, 4 * dim), 4 * dim, 2 * dim, bias=False)
            dim *= 2
    net.scope = ""
    x = net.op("ReduceMean", net.layer_norm(x, dim), axes=[1], keepdims=0)
    net.output("logits", net.gemm(x, dim, 1000), ["batch", 1000])
    return net
