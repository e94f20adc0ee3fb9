"""Random models: single operators and small graphs, each from a random number generator alone.

A maker takes a `Draw` and returns nothing; it adds nodes to the draw's graph. SINGLE and GRAPHS list the makers.
"""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

OPSET = 21
FLOATS = [np.float32] * 6 + [np.float64, np.float16]
INTS = [np.int64, np.int32, np.int32, np.int8, np.uint8]
UNARY = ["Abs", "Neg", "Exp", "Sqrt", "Relu", "Sigmoid", "Tanh", "Erf", "Floor", "Ceil", "Round", "Softplus", "Softsign",
         "HardSwish", "Sin", "Cos", "Atan", "Sinh", "Sign", "Reciprocal", "Elu", "Selu", "LeakyRelu", "HardSigmoid", "Celu",
         "Mish", "Gelu", "ThresholdedRelu", "Identity", "Asinh"]
SAFE_UNARY = ["Abs", "Neg", "Relu", "Sigmoid", "Tanh", "Erf", "HardSwish", "LeakyRelu", "Elu", "Softplus", "HardSigmoid", "Gelu"]


class Draw:
    """Random choices and the graph that they make."""

    def __init__(self, seed, index):
        self.rng = np.random.default_rng([seed, index])
        self.nodes, self.feeds, self.initializers, self.made = [], {}, [], []
        self.symbolic = self.rng.random() < 0.3

    # choices
    def pick(self, items): return items[self.rng.integers(len(items))]
    def chance(self, p): return self.rng.random() < p
    def int(self, low, high): return int(self.rng.integers(low, high + 1))
    def axis(self, rank): return self.int(-rank, rank - 1)
    def dim(self): return 0 if self.chance(0.02) else self.int(1, 7) if self.chance(0.9) else self.int(8, 40)
    def shape(self, low=0, high=4): return [self.dim() for _ in range(self.int(low, high))]

    def broadcastable(self, shape):
        """A shape that broadcasts to `shape`, or with it."""
        cut = shape[self.int(0, len(shape)):] if self.chance(0.5) else list(shape)
        return [1 if self.chance(0.3) else d for d in cut]

    def array(self, shape, dtype=np.float32):
        dtype = np.dtype(dtype)
        if dtype == bool:
            return self.rng.random(shape) < 0.5
        if dtype.kind in "iu":
            return self.rng.integers(0 if dtype.kind == "u" else -20, 20, shape).astype(dtype)
        return (2 * self.rng.standard_normal(shape)).astype(dtype)

    # values
    def value(self, array, constant=0.3):
        """An input of the graph, or with that probability an initialiser."""
        array = np.asarray(array)
        if self.chance(constant):
            name = f"w{len(self.initializers)}"
            self.initializers.append(numpy_helper.from_array(array, name))
        else:
            name = f"x{len(self.feeds)}"
            self.feeds[name] = array
        return name

    def tensor(self, shape, dtype=np.float32, constant=0.3): return self.value(self.array(shape, dtype), constant)
    def ints(self, values, constant=0.8): return self.value(np.array(values, np.int64), constant)

    def op(self, kind, *inputs, outputs=1, **attributes):
        names = [f"v{len(self.made) + k}" for k in range(outputs)]
        self.made += names
        attributes = {k: v for k, v in attributes.items() if v is not None}
        self.nodes.append(helper.make_node(kind, [i or "" for i in inputs], names, **attributes))
        return names[0] if outputs == 1 else names

    def model(self, outputs=None):
        used = {i for n in self.nodes for i in n.input}
        ends = outputs or [v for v in self.made if v not in used or self.chance(0.15)]
        inputs = []
        for name, array in self.feeds.items():
            shape = [f"{name}_{k}" if self.symbolic else d for k, d in enumerate(array.shape)]
            inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape))
        graph = helper.make_graph(self.nodes, "random", inputs, [helper.make_empty_tensor_value_info(v) for v in ends],
                                  self.initializers)
        opsets = [helper.make_opsetid("", OPSET)]
        if any(n.domain == "ai.onnx.ml" for n in self.nodes):
            later = any(n.op_type == "TreeEnsemble" for n in self.nodes)
            opsets.append(helper.make_opsetid("ai.onnx.ml", 5 if later else 3))
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


# ---------------------------------------------------------------- single operators


def unary(d):
    kind = d.pick(UNARY)
    extra = {"approximate": d.pick(["none", "tanh"])} if kind == "Gelu" else {}
    if kind in ("Elu", "LeakyRelu", "Celu", "ThresholdedRelu") and d.chance(0.7):
        extra["alpha"] = float(np.round(d.rng.uniform(0.1, 2), 3))
    d.op(kind, d.tensor(d.shape(), d.pick(FLOATS), 0), **extra)


def binary(d):
    kind = d.pick(["Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "PRelu", "Equal", "Less", "Greater", "LessOrEqual",
                   "GreaterOrEqual", "Mod", "Mean", "Sum"])
    shape = d.shape()
    other = d.broadcastable(shape)
    dtype = np.float32 if kind in ("PRelu", "Mean", "Sum", "Pow") else d.pick(FLOATS + INTS)
    a, b = d.array(shape, dtype), d.array(other, dtype)
    if kind == "Pow":
        a = np.abs(a)
    if kind in ("Div", "Mod") and np.dtype(dtype).kind in "iu":
        b = np.where(b == 0, 3, b).astype(dtype)
    if d.chance(0.5) and kind != "PRelu":
        a, b = b, a
        if kind in ("Div", "Mod") and np.dtype(dtype).kind in "iu":
            b = np.where(b == 0, 3, b).astype(dtype)
    d.op(kind, d.value(a), d.value(b, 0.5), fmod=1 if kind == "Mod" and np.dtype(dtype).kind == "f" else None)


def logic(d):
    shape = d.shape()
    d.op(d.pick(["And", "Or", "Xor"]), d.tensor(shape, bool), d.tensor(d.broadcastable(shape), bool))


def where(d):
    shape, dtype = d.shape(), d.pick(FLOATS + INTS)
    d.op("Where", d.tensor(d.broadcastable(shape), bool), d.tensor(shape, dtype), d.tensor(d.broadcastable(shape), dtype))


def clip(d):
    dtype = d.pick(FLOATS + INTS)
    low = d.value(np.array(2, dtype)) if d.chance(0.7) else None
    d.op("Clip", d.tensor(d.shape(), dtype, 0), low, d.value(np.array(9, dtype)) if d.chance(0.7) or not low else None)


def cast(d):
    target = d.pick([np.float32, np.float64, np.int64, np.int32, bool, np.float16, np.uint8])
    source = d.pick([np.float32, np.int64, np.int32, bool, np.float16])
    x = d.array(d.shape(), source)
    x = np.abs(x) if target == np.uint8 and source != bool else x
    d.op("Cast", d.value(x, 0), to=helper.np_dtype_to_tensor_dtype(np.dtype(target)))


def reduce(d):
    kind = d.pick(["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare",
                   "ReduceLogSumExp"])
    shape = d.shape(1, 5)
    axes = [a - len(shape) if d.chance(0.4) else a for a in range(len(shape)) if d.chance(0.5)]
    given = d.ints(axes) if axes or d.chance(0.5) else None
    dtype = np.float32 if d.chance(0.8) else np.int32
    d.op(kind, d.tensor(shape, dtype, 0), given, keepdims=d.int(0, 1), noop_with_empty_axes=d.pick([None, None, 1]))


def arg(d):
    shape = d.shape(1)
    d.op(d.pick(["ArgMax", "ArgMin"]), d.tensor(shape, d.pick([np.float32, np.int32]), 0), axis=d.axis(len(shape)),
         keepdims=d.int(0, 1), select_last_index=d.pick([None, 1]))


def softmax(d):
    shape = d.shape(1)
    d.op(d.pick(["Softmax", "LogSoftmax", "Hardmax"]), d.tensor(shape, np.float32, 0), axis=d.axis(len(shape)))


def transpose(d):
    shape = d.shape(0, 5)
    perm = [int(p) for p in d.rng.permutation(len(shape))]
    d.op("Transpose", d.tensor(shape, d.pick(FLOATS + INTS + [bool]), 0), perm=perm if d.chance(0.9) and perm else None)


def reshape(d):
    shape = [d.int(1, 6) for _ in range(d.int(1, 4))]
    target = [int(x) for x in d.rng.permutation(shape)]
    if len(target) > 1 and d.chance(0.5):
        target = [target[0] * target[1]] + target[2:]
    if d.chance(0.5):
        target[d.int(0, len(target) - 1)] = -1
    elif target[0] == shape[0]:
        target[0] = 0
    d.op("Reshape", d.tensor(shape, d.pick(FLOATS + INTS), 0), d.ints(target))


def squeeze(d):
    shape = [1 if d.chance(0.5) else d.int(1, 5) for _ in range(d.int(1, 5))]
    ones = [k - (len(shape) if d.chance(0.5) else 0) for k, s in enumerate(shape) if s == 1]
    d.op("Squeeze", d.tensor(shape, np.float32, 0), d.ints(ones) if ones and d.chance(0.7) else None)


def unsqueeze(d):
    shape, count = d.shape(0, 3), d.int(1, 2)
    rank = len(shape) + count
    axes = [int(a) - (rank if d.chance(0.4) else 0) for a in d.rng.permutation(rank)[:count]]
    d.op("Unsqueeze", d.tensor(shape, np.float32, 0), d.ints(axes))


def concat(d):
    shape = d.shape(1)
    axis, dtype = d.axis(len(shape)), d.pick(FLOATS + INTS)
    parts = []
    for _ in range(d.int(1, 4)):
        part = list(shape)
        part[axis] = d.int(0, 5)
        parts.append(d.tensor(part, dtype))
    d.op("Concat", *parts, axis=axis)


def split(d):
    shape = [d.int(1, 8) for _ in range(d.int(1, 4))]
    axis, count = d.axis(len(shape)), d.int(1, 3)
    cuts = np.sort(d.rng.integers(0, shape[axis] + 1, count - 1))
    sizes = np.diff([0, *cuts, shape[axis]])
    d.op("Split", d.tensor(shape, np.float32, 0), d.ints(sizes), outputs=count, axis=axis)


def slice_(d):
    shape = d.shape(1)
    axes = [k for k in range(len(shape)) if d.chance(0.6)] or [0]
    starts = [d.int(-9, 9) for _ in axes]
    ends = [d.pick([d.int(-9, 9), 1 << 40, -(1 << 40)]) for _ in axes]
    steps = [d.pick([1, 1, 2, 3, -1, -2]) for _ in axes]
    axes = [a - len(shape) if d.chance(0.3) else a for a in axes]
    d.op("Slice", d.tensor(shape, d.pick(FLOATS + INTS), 0), d.ints(starts), d.ints(ends), d.ints(axes), d.ints(steps))


def gather(d):
    shape = [d.int(1, 6) for _ in range(d.int(1, 4))]
    axis = d.axis(len(shape))
    indices = d.rng.integers(-shape[axis], shape[axis], d.shape(0, 2))
    d.op("Gather", d.tensor(shape, d.pick(FLOATS + INTS)), d.value(indices.astype(d.pick([np.int64, np.int32]))), axis=axis)


def gather_elements(d):
    shape = [d.int(1, 5) for _ in range(d.int(1, 3))]
    axis = d.axis(len(shape))
    picked = list(shape)
    picked[axis] = d.int(1, 6)
    indices = d.rng.integers(-shape[axis], shape[axis], picked)
    d.op("GatherElements", d.tensor(shape), d.value(indices), axis=axis)


def gather_nd(d):
    shape = [d.int(1, 5) for _ in range(d.int(1, 4))]
    last = d.int(1, len(shape))
    rows = d.shape(0, 2)
    indices = np.stack([d.rng.integers(-shape[k], shape[k], rows) for k in range(last)], -1)
    d.op("GatherND", d.tensor(shape), d.value(indices))


def scatter(d):
    shape = [d.int(2, 5) for _ in range(d.int(1, 3))]
    axis = d.axis(len(shape))
    reduction = d.pick(["none", "add", "mul", "max", "min"])
    picked = [d.int(1, s) for s in shape]
    indices = np.zeros(picked, np.int64)
    for at in np.ndindex(*[p for k, p in enumerate(picked) if k != axis % len(shape)]):
        where_ = list(at)
        where_.insert(axis % len(shape), slice(None))
        indices[tuple(where_)] = d.rng.permutation(shape[axis])[:picked[axis]]
    d.op("ScatterElements", d.tensor(shape), d.value(indices), d.tensor(picked), axis=axis, reduction=reduction)


def scatter_nd(d):
    shape = [d.int(2, 5) for _ in range(d.int(1, 3))]
    last = d.int(1, len(shape))
    cells = list(np.ndindex(*shape[:last]))
    count = d.int(1, len(cells))
    indices = np.array([cells[k] for k in d.rng.permutation(len(cells))[:count]], np.int64)
    d.op("ScatterND", d.tensor(shape), d.value(indices), d.tensor([count] + shape[last:]),
         reduction=d.pick(["none", "add", "mul"]))


def pad(d):
    shape = [d.int(2, 6) for _ in range(d.int(1, 4))]
    mode = d.pick(["constant", "constant", "reflect", "edge", "wrap"])
    low = -1 if mode == "constant" else 0
    pads = [d.int(low, min(3, s - 1) if mode != "constant" else 3) for s in shape + shape]
    fill = d.value(np.array(1.5, np.float32)) if mode == "constant" and d.chance(0.6) else None
    d.op("Pad", d.tensor(shape, np.float32, 0), d.ints(pads), fill, mode=mode)


def expand(d):
    shape = d.shape(0)
    d.op("Expand", d.tensor(d.broadcastable(shape), d.pick(FLOATS + INTS), 0), d.ints(shape))


def tile(d):
    shape = d.shape(1, 3)
    d.op("Tile", d.tensor(shape, d.pick(FLOATS + INTS), 0), d.ints([d.int(0, 3) for _ in shape]))


def _window(d, spatial, sizes):
    kernel = [d.int(1, min(3, s)) for s in sizes]
    same = d.pick([None, None, None, "SAME_UPPER", "SAME_LOWER", "VALID"])
    return {"kernel_shape": kernel, "strides": [d.int(1, 3) for _ in kernel], "auto_pad": same,
            "pads": None if same else [d.int(0, k - 1) for k in kernel] * 2}


def conv(d):
    spatial, groups = d.pick([1, 2, 2, 2, 3]), d.pick([1, 1, 2, 4])
    cin, cout = groups * d.int(1, 6), groups * d.int(1, 6)
    if d.chance(0.25):  # depthwise
        groups = cin = cout = d.int(1, 20)
    sizes = [d.int(3, 12) for _ in range(spatial)]
    window = _window(d, spatial, sizes)
    dilations = [d.int(1, 2) for _ in sizes] if not window["auto_pad"] else None
    w = d.tensor([cout, cin // groups] + window["kernel_shape"], np.float32, 0.8)
    d.op("Conv", d.tensor([d.int(1, 3), cin] + sizes, np.float32, 0), w, d.tensor([cout], np.float32, 0.8) if d.chance(0.6) else None,
         group=groups, dilations=dilations, **window)


def conv_transpose(d):
    groups, spatial = d.pick([1, 1, 2]), d.pick([1, 2, 2])
    cin, cout = groups * d.int(1, 4), d.int(1, 4)
    sizes = [d.int(2, 7) for _ in range(spatial)]
    kernel, strides = [d.int(1, 4) for _ in sizes], [d.int(1, 3) for _ in sizes]
    pads = [d.int(0, (k - 1) // 2) for k in kernel] * 2
    d.op("ConvTranspose", d.tensor([d.int(1, 2), cin] + sizes, np.float32, 0), d.tensor([cin, cout] + kernel, np.float32, 0.8),
         d.tensor([cout * groups], np.float32, 0.8) if d.chance(0.5) else None, group=groups, strides=strides, pads=pads,
         kernel_shape=kernel, output_padding=[d.int(0, s - 1) for s in strides] if d.chance(0.3) else None)


def pool(d):
    kind, spatial = d.pick(["MaxPool", "AveragePool"]), d.pick([1, 2, 2, 3])
    sizes = [d.int(3, 12) for _ in range(spatial)]
    window = _window(d, spatial, sizes)
    extra = {"ceil_mode": d.pick([None, 0, 1]) if not window["auto_pad"] else None}
    if kind == "AveragePool":
        extra["count_include_pad"] = d.pick([None, 1])
    d.op(kind, d.tensor([d.int(1, 2), d.int(1, 17)] + sizes, np.float32, 0), **window, **extra)


def global_pool(d):
    d.op(d.pick(["GlobalAveragePool", "GlobalMaxPool"]), d.tensor([d.int(1, 2), d.int(1, 9)] + [d.int(1, 7) for _ in range(d.int(1, 3))], np.float32, 0))


def matmul(d):
    m, k, n = d.int(1, 20), d.int(1, 40), d.int(1, 20)
    batch = d.shape(0, 2)
    a, b = d.broadcastable(batch) + [m, k], (batch if d.chance(0.6) else []) + [k, n]
    if d.chance(0.1):
        a = [k]
    elif d.chance(0.1):
        b = [k]
    d.op("MatMul", d.tensor(a, np.float32, 0.1), d.tensor(b, np.float32, 0.5))


def gemm(d):
    m, k, n = d.int(1, 20), d.int(1, 40), d.int(1, 20)
    ta, tb = d.int(0, 1), d.int(0, 1)
    c = d.tensor(d.pick([[n], [m, n], [1], [1, n], [m, 1], []]), np.float32, 0.6) if d.chance(0.7) else None
    d.op("Gemm", d.tensor([k, m] if ta else [m, k], np.float32, 0), d.tensor([n, k] if tb else [k, n], np.float32, 0.7), c, transA=ta,
         transB=tb, alpha=d.pick([None, 0.5]), beta=d.pick([None, 2.0]))


def normalisation(d):
    channels = d.int(1, 9)
    x = d.tensor([d.int(1, 3), channels] + [d.int(2, 6) for _ in range(d.int(1, 2))], np.float32, 0)
    row = lambda: d.tensor([channels], np.float32, 0.8)
    kind = d.pick(["BatchNormalization", "InstanceNormalization", "LRN"])
    if kind == "BatchNormalization":
        d.op(kind, x, row(), row(), row(), d.value(np.abs(d.array([channels])) + 0.1, 0.8))
    elif kind == "InstanceNormalization":
        d.op(kind, x, row(), row())
    else:
        d.op(kind, x, size=d.pick([1, 3, 5]), alpha=0.3, beta=0.6, bias=1.5)


def layer_norm(d):
    shape = [d.int(1, 9) for _ in range(d.int(1, 4))]
    axis = d.axis(len(shape))
    d.op("LayerNormalization", d.tensor(shape, np.float32, 0), d.tensor(shape[axis % len(shape):], np.float32, 0.8),
         d.tensor(shape[axis % len(shape):], np.float32, 0.8) if d.chance(0.7) else None, axis=axis, epsilon=1e-3)


def resize(d):
    sizes = [d.int(2, 6), d.int(2, 6)]
    mode = d.pick(["nearest", "linear", "cubic"])
    scales = [1.0, 1.0] + [d.pick([0.5, 1.0, 1.5, 2.0, 3.0]) for _ in sizes]
    d.op("Resize", d.tensor([1, d.int(1, 3)] + sizes, np.float32, 0), None, d.value(np.array(scales, np.float32), 0.9), mode=mode,
         coordinate_transformation_mode=d.pick(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]),
         nearest_mode=d.pick(["floor", "ceil", "round_prefer_floor"]) if mode == "nearest" else None)


def space(d):
    block = d.int(1, 3)
    if d.chance(0.5):
        d.op("DepthToSpace", d.tensor([d.int(1, 2), block * block * d.int(1, 3), d.int(1, 4), d.int(1, 4)], np.float32, 0),
             blocksize=block, mode=d.pick(["DCR", "CRD"]))
    else:
        d.op("SpaceToDepth", d.tensor([1, d.int(1, 3), block * d.int(1, 3), block * d.int(1, 3)], np.float32, 0), blocksize=block)


def top_k(d):
    shape = [d.int(1, 9) for _ in range(d.int(1, 3))]
    axis = d.axis(len(shape))
    d.op("TopK", d.tensor(shape, np.float32, 0), d.ints([d.int(1, shape[axis])]), outputs=2, axis=axis, largest=d.int(0, 1))


def cum_sum(d):
    shape = d.shape(1)
    d.op("CumSum", d.tensor(shape, d.pick([np.float32, np.int64]), 0), d.value(np.array(d.axis(len(shape)), np.int64), 0.8),
         exclusive=d.int(0, 1), reverse=d.int(0, 1))


def trilu(d):
    d.op("Trilu", d.tensor(d.shape(0, 2) + [d.int(1, 6), d.int(1, 6)], np.float32, 0),
         d.value(np.array(d.int(-4, 4), np.int64), 0.8) if d.chance(0.7) else None, upper=d.int(0, 1))


def one_hot(d):
    depth = d.int(1, 6)
    indices = d.rng.integers(-depth, depth, d.shape(1, 2))
    d.op("OneHot", d.value(indices, 0), d.value(np.array(depth, np.int64), 0.9), d.value(np.array([0.5, 2], np.float32), 0.9),
         axis=d.int(-1, 1))


def einsum(d):
    sizes = dict(zip("abijk", [d.int(1, 5) for _ in range(5)]))
    left, right, out = d.pick([("ij", "jk", "ik"), ("bij", "bjk", "bik"), ("abij", "abkj", "abik"), ("ij", "ij", "i"),
                               ("bi", "ij", "jb"), ("ij", "k", "kij"), ("bij", "jk", "bik")])
    d.op("Einsum", d.tensor([sizes[c] for c in left]), d.tensor([sizes[c] for c in right]), equation=f"{left},{right}->{out}")


def recurrent(d):
    kind = d.pick(["LSTM", "GRU", "RNN"])
    gates, both = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], d.chance(0.3)
    time, batch, n_in, hidden, ways = d.int(1, 6), d.int(1, 3), d.int(1, 6), d.int(1, 9), 2 if both else 1
    direction = "bidirectional" if both else d.pick(["forward", "reverse"])
    weights = [d.value(0.5 * d.array([ways, gates * hidden, n]), 0.9) for n in (n_in, hidden)]
    bias = d.tensor([ways, 2 * gates * hidden], np.float32, 0.9) if d.chance(0.7) else None
    state = [d.tensor([ways, batch, hidden]) for _ in range(2 if kind == "LSTM" else 1)] if d.chance(0.5) else []
    d.op(kind, d.tensor([time, batch, n_in], np.float32, 0), *weights, bias, None, *state, outputs=3 if kind == "LSTM" else 2,
         hidden_size=hidden, direction=direction, linear_before_reset=d.int(0, 1) if kind == "GRU" else None)


def quantise(d):
    shape, dtype = [d.int(1, 5) for _ in range(d.int(1, 3))], d.pick([np.uint8, np.int8])
    axis = d.axis(len(shape))
    each = d.chance(0.5)
    count = [shape[axis]] if each else []
    scale = d.value((np.abs(d.array(count)) + 0.1).astype(np.float32), 0.8)
    zero = d.value(d.array(count, dtype), 0.8)
    where_ = axis if each else None
    q = d.op("QuantizeLinear", d.tensor(shape, np.float32, 0), scale, zero, axis=where_)
    if d.chance(0.6):
        d.op("DequantizeLinear", q, scale, zero, axis=where_)


def non_zero(d):
    y = d.op("NonZero", d.value(d.array(d.shape(1, 3), np.int32) % 2, 0))
    if d.chance(0.5):
        d.op("Transpose", y, perm=[1, 0])


def trees(d, targets, votes):
    """Attributes of random binary trees over 4 features; their leaves vote under the prefix `votes`."""
    modes = [d.pick(["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"])]
    if d.chance(0.3):
        modes.append(d.pick(["BRANCH_LEQ", "BRANCH_GT", "BRANCH_LT"]))
    of = {k: [] for k in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids",
                          "missing_value_tracks_true")}
    leaf = {f"{votes}_treeids": [], f"{votes}_nodeids": [], f"{votes}_ids": [], f"{votes}_weights": []}
    missing = d.chance(0.4)
    for tree in range(d.int(1, 6)):
        depth = d.int(0, 3)
        inner = 2**depth - 1
        for node in range(2 * inner + 1):
            branch = node < inner
            row = (tree, node, d.int(0, 3) if branch else 0, float(d.int(-3, 3)) if branch else 0.0,
                   d.pick(modes) if branch else "LEAF", 2 * node + 1 if branch else 0, 2 * node + 2 if branch else 0,
                   int(branch and missing and d.chance(0.5)))
            for column, item in zip(of.values(), row):
                column.append(item)
            if not branch:
                for target in sorted({d.int(0, targets - 1) for _ in range(d.int(1, 2))}):
                    for column, item in zip(leaf.values(), (tree, node, target, round(float(d.rng.normal()), 3))):
                        column.append(item)
    return {f"nodes_{k}": v for k, v in of.items()} | leaf


def table(d):
    """Rows of 4 features, many of them on a threshold, some missing."""
    x = np.round(2 * d.rng.standard_normal((d.int(1, 20), 4))).astype(np.float32)
    if d.chance(0.4):
        x[d.rng.random(x.shape) < 0.2] = np.nan
    return d.value(x, 0)


TRANSFORMS = ["NONE", "NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"]


def tree_regressor(d):
    targets = d.int(1, 3)
    d.op("TreeEnsembleRegressor", table(d), domain="ai.onnx.ml", n_targets=targets,
         aggregate_function=d.pick(["SUM", "SUM", "AVERAGE", "MIN", "MAX"]),  # onnx.reference has no transforms here
         base_values=[round(float(v), 3) for v in d.rng.normal(size=targets)] if d.chance(0.4) else None,
         **trees(d, targets, "target"))


def tree_classifier(d):
    classes = d.int(2, 4)
    labels = {"classlabels_strings": [f"c{k}" for k in range(classes)]} if d.chance(0.4) else {
        "classlabels_int64s": [int(k) for k in d.rng.permutation(9)[:classes]]}
    one_score = classes == 2 and d.chance(0.5)  # a single weight decides between two classes
    d.op("TreeEnsembleClassifier", table(d), outputs=2, domain="ai.onnx.ml",
         post_transform=d.pick(TRANSFORMS[:-1] if one_score else TRANSFORMS),  # PROBIT leaves the other score unwritten
         base_values=[round(float(v), 3) for v in d.rng.normal(size=classes)] if d.chance(0.3) and not one_score else None,
         **labels, **trees(d, 1 if one_score else classes, "class"))


def tree_ensemble(d):
    """The later form of both: tables of interior nodes and of leaves, and sets of members beside the comparisons."""
    targets, members, missing = d.int(1, 3), d.chance(0.3), d.chance(0.4)
    of = {k: [] for k in ("featureids", "modes", "splits", "truenodeids", "trueleafs", "falsenodeids", "falseleafs",
                          "missing_value_tracks_true")}
    roots, leaf_ids, leaf_weights, sets = [], [], [], []
    for _ in range(d.int(1, 6)):
        depth = 0 if d.chance(0.05) else d.int(1, 3)
        inner, root = max(2**depth - 1, 1), len(of["modes"])
        roots.append(root)

        def branch(child):
            if depth and child < inner:
                return root + child, 0
            leaf_ids.append(d.int(0, targets - 1))
            leaf_weights.append(round(float(d.rng.normal()), 3))
            return len(leaf_ids) - 1, 1

        for node in range(inner):
            member = members and d.chance(0.4)
            if member:
                sets += [float(v) for v in sorted({d.int(-3, 3) for _ in range(d.int(1, 3))})] + [np.nan]
            yes = branch(2 * node + 1)
            no = branch(2 * node + 2) if depth else yes  # a tree that is a leaf
            row = (d.int(0, 3), 6 if member else d.int(0, 5), 0.0 if member else float(d.int(-3, 3)), *yes, *no,
                   int(missing and d.chance(0.5)))
            for column, item in zip(of.values(), row):
                column.append(item)
    tensors = {"nodes_modes": np.array(of.pop("modes"), np.uint8), "nodes_splits": np.array(of.pop("splits"), np.float32),
               "leaf_weights": np.array(leaf_weights, np.float32)}
    if members:
        tensors["membership_values"] = np.array(sets, np.float32)
    d.op("TreeEnsemble", table(d), domain="ai.onnx.ml", n_targets=targets, aggregate_function=d.pick([0, 1, 1, 2, 3]),
         post_transform=d.pick([0, 0, 0, 1, 3]), tree_roots=roots, leaf_targetids=leaf_ids,
         **{k: numpy_helper.from_array(v, k) for k, v in tensors.items()}, **{f"nodes_{k}": v for k, v in of.items()})


SINGLE = [unary, unary, binary, binary, binary, logic, where, clip, cast, reduce, reduce, arg, softmax, transpose, reshape, squeeze,
          unsqueeze, concat, split, slice_, slice_, gather, gather_elements, gather_nd, scatter, scatter_nd, pad, expand, tile,
          conv, conv, conv, conv_transpose, pool, pool, global_pool, matmul, matmul, gemm, normalisation, layer_norm, resize, space,
          top_k, cum_sum, trilu, one_hot, einsum, recurrent, quantise, non_zero, tree_regressor, tree_classifier,
          tree_ensemble]

# ---------------------------------------------------------------- small graphs


def _act(d, x):
    kind = d.pick(["", "Relu", "Sigmoid", "HardSwish", "Clip", "silu", "LeakyRelu", "gelu", "Tanh"])
    if kind == "silu":
        return d.op("Mul", x, d.op("Sigmoid", x))
    if kind == "gelu":
        erf = d.op("Erf", d.op("Div", x, d.value(np.float32(np.sqrt(2)), 1)))
        return d.op("Mul", d.op("Mul", x, d.op("Add", erf, d.value(np.float32(1), 1))), d.value(np.float32(0.5), 1))
    if kind == "Clip":
        return d.op("Clip", x, d.value(np.float32(0), 1), d.value(np.float32(6), 1))
    return d.op(kind, x) if kind else x


def residual(d):
    """Convolution blocks with skips, normalisations, gates and values that are used twice."""
    channels, side = d.pick([3, 8, 16, 19]), d.int(4, 9)
    x = d.tensor([d.int(1, 2), channels, side, side], np.float32, 0)
    for _ in range(d.int(1, 3)):
        y, groups = x, d.pick([1, 1, channels])
        for _ in range(d.int(1, 2)):
            k = d.pick([1, 3, 3])
            w = d.value(d.array([channels, channels // groups, k, k]) / (k * np.sqrt(channels)).astype(np.float32), 0.95)
            y = d.op("Conv", y, w, d.tensor([channels], np.float32, 0.9) if d.chance(0.6) else None, pads=[k // 2] * 4, group=groups)
            if d.chance(0.5):
                row = lambda: d.tensor([channels], np.float32, 0.95)
                y = d.op("BatchNormalization", y, row(), row(), row(), d.value(np.abs(d.array([channels])) + 0.5, 0.95))
            if d.chance(0.3):  # a scale and shift of the channels, or of everything
                shape = d.pick([[channels, 1, 1], [1, channels, 1, 1], []])
                y = d.op(d.pick(["Mul", "Add"]), *d.rng.permutation([y, d.tensor(shape, np.float32, 0.9)]))
            y = _act(d, y)
        if d.chance(0.3):
            s = d.op("GlobalAveragePool", y)
            s = d.op("Sigmoid", d.op("Conv", s, d.tensor([channels, channels, 1, 1], np.float32, 0.9)))
            y = d.op("Mul", *d.rng.permutation([y, s]))
        x = _act(d, d.op(d.pick(["Add", "Add", "Sub", "Mul"]), *d.rng.permutation([x, y]))) if d.chance(0.8) else y
        if d.chance(0.2):
            x = d.op("Concat", d.op("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4), x, axis=1)
            x = d.op("Slice", x, d.value(np.array([1]), 1), d.value(np.array([channels + 1]), 1), d.value(np.array([1]), 1))


def elementwise_web(d):
    """Elementwise operators over a pool of values, many of them used more than once."""
    shape = [d.int(1, 6) for _ in range(d.int(1, 4))]
    pool_ = [d.tensor(shape, np.float32, 0)] + [d.tensor(d.broadcastable(shape), np.float32) for _ in range(d.int(0, 3))]
    for _ in range(d.int(2, 9)):
        if d.chance(0.4):
            pool_.append(d.op(d.pick(SAFE_UNARY), d.pick(pool_)))
        elif d.chance(0.8):
            pool_.append(d.op(d.pick(["Add", "Sub", "Mul", "Max", "Min"]), d.pick(pool_), d.pick(pool_)))
        else:
            condition = d.op(d.pick(["Less", "Greater"]), d.pick(pool_), d.pick(pool_))
            pool_.append(d.op("Where", condition, d.pick(pool_), d.pick(pool_)))


def dense(d):
    """MatMul or Gemm with biases, activations, residuals, normalisation and transposes in between."""
    rows, width = [d.int(1, 3), d.int(1, 9)], d.pick([4, 8, 17, 32])
    x = d.tensor(rows + [width], np.float32, 0)
    for _ in range(d.int(1, 4)):
        y = d.op("MatMul", x, d.value(d.array([width, width]) / np.float32(np.sqrt(width)), 0.9))
        if d.chance(0.7):
            y = d.op("Add", *d.rng.permutation([y, d.tensor(d.pick([[width], [1, width], [1], []]), np.float32, 0.9)]))
        y = _act(d, y)
        if d.chance(0.3):
            y = d.op("Transpose", d.op("Transpose", y, perm=[0, 2, 1]), perm=[0, 2, 1])
        if d.chance(0.5):
            y = d.op("Add", x, y)
        if d.chance(0.4):
            y = d.op("LayerNormalization", y, d.tensor([width], np.float32, 0.9), d.tensor([width], np.float32, 0.9), axis=-1)
        x = y


def attention(d):
    """Scaled dot products with or without mask, heads split by Reshape and Transpose."""
    batch, length, heads, width = d.int(1, 2), d.int(1, 7), d.int(1, 3), d.pick([2, 4, 8])
    total = d.pick([length, d.int(1, 9)])
    split_ = lambda x, n: d.op("Transpose", d.op("Reshape", x, d.value(np.array([0, n, heads, width]), 1)), perm=[0, 2, 1, 3])
    q = split_(d.tensor([batch, length, heads * width], np.float32, 0), length)
    k = split_(d.tensor([batch, total, heads * width], np.float32, 0), total)
    v = split_(d.tensor([batch, total, heads * width], np.float32, 0), total)
    scores = d.op("MatMul", q, d.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = d.op(d.pick(["Mul", "Div"]), scores, d.value(np.float32(1.7), 0.9))
    if d.chance(0.6):
        mask = np.where(d.rng.random(d.pick([[batch, 1, 1, total], [length, total], [1, heads, length, total]])) < 0.7, 0, -1e4)
        scores = d.op("Add", scores, d.value(mask.astype(np.float32)))
    y = d.op("MatMul", d.op("Softmax", scores, axis=-1), v)
    d.op("Reshape", d.op("Transpose", y, perm=[0, 2, 1, 3]), d.value(np.array([batch, length, heads * width]), 1))


def moves(d):
    """Chains of operators that only move elements, with a sum at a random place."""
    shape = [d.int(2, 5) for _ in range(3)]
    x = d.tensor(shape, np.float32, 0)
    for _ in range(d.int(2, 6)):
        kind = d.pick(["Transpose", "Reshape", "Slice", "Concat", "Add", "Unsqueeze", "Gather", "Pad"])
        if kind == "Transpose":
            perm = [int(p) for p in d.rng.permutation(len(shape))]
            x, shape = d.op("Transpose", x, perm=perm), [shape[p] for p in perm]
        elif kind == "Reshape":
            shape = [int(s) for s in d.rng.permutation(shape)]
            x = d.op("Reshape", x, d.value(np.array(shape), 1))
        elif kind == "Slice" and shape[0] > 1:
            x = d.op("Slice", x, d.value(np.array([1]), 1), d.value(np.array([shape[0]]), 1), d.value(np.array([0]), 1))
            shape = [shape[0] - 1] + shape[1:]
        elif kind == "Concat":
            x = d.op("Concat", x, x, axis=len(shape) - 1)
            shape = shape[:-1] + [2 * shape[-1]]
        elif kind == "Add":
            x = d.op("Add", x, d.tensor(shape[-1:], np.float32))
        elif kind == "Unsqueeze":
            x = d.op("Squeeze", d.op("Unsqueeze", x, d.value(np.array([1]), 1)), d.value(np.array([1]), 1))
        elif kind == "Gather":
            x = d.op("Gather", x, d.value(d.rng.integers(0, shape[0], 3), 0.5), axis=0)
            shape = [3] + shape[1:]
        elif kind == "Pad":
            x = d.op("Pad", x, d.value(np.array([1] + [0] * (2 * len(shape) - 1)), 1))
            shape = [shape[0] + 1] + shape[1:]


def sizes(d):
    """Shapes computed in the graph, as exporters write them for symbolic sizes."""
    batch, length, width = d.int(1, 3), d.int(1, 5), d.int(1, 4)
    x = d.tensor([batch, length, 2 * width], np.float32, 0)
    shape = d.op("Shape", x)
    part = lambda k: d.op("Unsqueeze", d.op("Gather", shape, d.value(np.array(k), 1), axis=0), d.value(np.array([0]), 1))
    target = d.op("Concat", part(0), part(1), d.value(np.array([2, width]), 1), axis=0)
    y = d.op("Transpose", d.op("Reshape", x, target), perm=[0, 2, 1, 3])
    zero = d.op("ConstantOfShape", d.op("Shape", y), value=numpy_helper.from_array(np.array([0.5], np.float32)))
    y = d.op("Add", d.op("Expand", d.value(np.float32(1), 1), d.op("Shape", zero)), y)
    flat = d.op("Reshape", y, d.op("Concat", part(0), d.value(np.array([-1]), 1), axis=0))
    if d.chance(0.5):
        steps = d.op("Range", d.value(np.array(0), 1), d.op("Gather", shape, d.value(np.array(1), 1), axis=0), d.value(np.array(1), 1))
        d.op("Add", d.op("Cast", steps, to=TensorProto.FLOAT), d.op("ReduceSum", flat, d.value(np.array([0, 1]), 1), keepdims=0))


GRAPHS = [residual, residual, elementwise_web, elementwise_web, dense, dense, attention, moves, moves, sizes]
