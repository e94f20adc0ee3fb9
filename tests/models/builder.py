"""Builds ONNX graphs the way a PyTorch exporter writes them, with fixed random weights."""

import math

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


class Net:
    """A graph under construction. Values are names; an operator's method returns the name of its output."""

    def __init__(self, name: str, seed: int = 1, opset: int = 17):
        self.name, self.opset = name, opset
        self.rng = np.random.default_rng(seed)
        self.nodes, self.inputs, self.outputs, self.initializers = [], [], [], []
        self.scope = ""
        self._count = 0
        self._constants: dict = {}

    # ------------------------------------------------------------ values

    def fresh(self, stem: str) -> str:
        self._count += 1
        return f"{self.scope}/{stem}_{self._count}"

    def input(self, name: str, shape, dtype: int = FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, name: str, value: str, shape, dtype: int = FLOAT) -> str:
        self.nodes.append(helper.make_node("Identity", [value], [name], name=self.fresh("Identity")))
        self.outputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def weight(self, array: np.ndarray, stem: str = "weight") -> str:
        name = self.fresh(stem)
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def normal(self, shape, std: float, stem: str = "weight") -> str:
        return self.weight(self.rng.standard_normal(shape, np.float32) * np.float32(std), stem)

    def const(self, value, dtype=None) -> str:
        """A Constant node; equal constants share one."""
        array = np.asarray(value)
        array = array.astype(dtype or (np.int64 if array.dtype.kind == "i" else np.float32))
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.op("Constant", value=numpy_helper.from_array(array))
        return self._constants[key]

    def op(self, kind: str, *inputs, outputs: int = 1, domain: str = "", **attributes):
        made = [self.fresh(kind) for _ in range(outputs)]
        node = helper.make_node(kind, [i or "" for i in inputs], made, name=self.fresh(f"{kind}_node"), domain=domain,
                                **attributes)
        self.nodes.append(node)
        return made[0] if outputs == 1 else made

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8,
                                  producer_name="ai_vmm zoo")
        return model

    # ------------------------------------------------------------ arithmetic and shape

    def add(self, a, b): return self.op("Add", a, b)
    def mul(self, a, b): return self.op("Mul", a, b)
    def sub(self, a, b): return self.op("Sub", a, b)
    def div(self, a, b): return self.op("Div", a, b)
    def transpose(self, x, *perm): return self.op("Transpose", x, perm=list(perm))

    def size(self, x: str, axis: int) -> str:
        """x.shape[axis] as an exporter traces it: a scalar."""
        return self.op("Gather", self.op("Shape", x), self.const(axis), axis=0)

    def shape(self, *sizes) -> str:
        """An integer vector from ints and scalar values."""
        if all(isinstance(s, int) for s in sizes):
            return self.const(list(sizes))
        parts = [self.const([s]) if isinstance(s, int) else self.op("Unsqueeze", s, self.const([0])) for s in sizes]
        return self.op("Concat", *parts, axis=0)

    def view(self, x: str, *sizes) -> str:
        return self.op("Reshape", x, self.shape(*sizes))

    def slice(self, x, starts, ends, axes, steps=None) -> str:
        pick = lambda v: v if isinstance(v, str) else self.const([v] if isinstance(v, int) else v)
        tail = [pick(steps)] if steps is not None else []
        return self.op("Slice", x, pick(starts), pick(ends), pick(axes), *tail)

    # ------------------------------------------------------------ activations

    def silu(self, x): return self.mul(x, self.op("Sigmoid", x))
    def relu(self, x): return self.op("Relu", x)

    def gelu(self, x):
        """The exact GELU: x/2 · (1 + erf(x/√2))."""
        erf = self.op("Erf", self.div(x, self.const(math.sqrt(2))))
        return self.mul(self.mul(x, self.add(erf, self.const(1.0))), self.const(0.5))

    def gelu_tanh(self, x):
        cube = self.op("Pow", x, self.const(3.0))
        inner = self.mul(self.add(x, self.mul(cube, self.const(0.044715))), self.const(math.sqrt(2 / math.pi)))
        return self.mul(self.mul(x, self.const(0.5)), self.add(self.op("Tanh", inner), self.const(1.0)))

    def activate(self, x, kind: str):
        if kind == "hardswish":
            return self.op("HardSwish", x)
        return getattr(self, kind)(x) if kind else x

    # ------------------------------------------------------------ layers

    def conv(self, x, cin, cout, kernel, stride=1, groups=1, act="", pad=None, bias=True) -> str:
        """2-D for an integer kernel; 1-D for a tuple of one. The batch normalisation is folded in, as exporters do."""
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        fan_in = cin // groups * math.prod(kernel)
        pads = [k // 2 if pad is None else pad for k in kernel]
        operands = [self.normal((cout, cin // groups, *kernel), math.sqrt(2 / fan_in))]
        if bias:
            operands.append(self.normal((cout,), 0.05, "bias"))
        y = self.op("Conv", x, *operands, kernel_shape=list(kernel), strides=[stride] * len(kernel), pads=pads * 2,
                    dilations=[1] * len(kernel), group=groups)
        return self.activate(y, act)

    def linear(self, x, n_in, n_out, act="", bias=True) -> str:
        """On three axes or more, as nn.Linear is exported there: MatMul, then Add with the bias first."""
        y = self.op("MatMul", x, self.normal((n_in, n_out), 1 / math.sqrt(n_in)))
        if bias:
            y = self.add(self.normal((n_out,), 0.02, "bias"), y)
        return self.activate(y, act)

    def gemm(self, x, n_in, n_out, act="", gain=1.0) -> str:
        """nn.Linear on two axes."""
        y = self.op("Gemm", x, self.normal((n_out, n_in), gain / math.sqrt(n_in)), self.normal((n_out,), 0.02, "bias"),
                    alpha=1.0, beta=1.0, transB=1)
        return self.activate(y, act)

    def layer_norm(self, x, width, eps=1e-5) -> str:
        scale = self.weight(1 + 0.1 * self.rng.standard_normal(width, np.float32), "gamma")
        return self.op("LayerNormalization", x, scale, self.normal((width,), 0.02, "beta"), axis=-1, epsilon=eps)

    def heads(self, x, batch, length, heads, width) -> str:
        """[batch, length, heads·width] → [batch, heads, length, width]"""
        return self.transpose(self.view(x, batch, length, heads, width), 0, 2, 1, 3)

    def merge_heads(self, x, batch, length, total) -> str:
        return self.view(self.transpose(x, 0, 2, 1, 3), batch, length, total)

    def attention(self, q, k, v, width, mask=None) -> str:
        """Scaled dot-product attention over [batch, heads, length, width]; the mask is added to the scores."""
        scores = self.op("MatMul", q, self.transpose(k, 0, 1, 3, 2))
        scores = self.div(scores, self.const(math.sqrt(width)))
        if mask:
            scores = self.add(scores, mask)
        return self.op("MatMul", self.op("Softmax", scores, axis=-1), v)

    def self_attention(self, x, batch, length, dim, heads, mask=None) -> str:
        q, k, v = (self.heads(self.linear(x, dim, dim), batch, length, heads, dim // heads) for _ in range(3))
        y = self.merge_heads(self.attention(q, k, v, dim // heads, mask), batch, length, dim)
        return self.linear(y, dim, dim)


def run_node(node: onnx.NodeProto, arrays: list, opset) -> list[np.ndarray]:
    """One node by ONNX Runtime; an array per input, None where it is absent."""
    import onnxruntime as ort
    inputs = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
              for n, a in zip(node.input, arrays) if n]
    outputs = [helper.make_empty_tensor_value_info(n) for n in node.output if n]
    model = helper.make_model(helper.make_graph([node], "one", inputs, outputs), opset_imports=opset, ir_version=8)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, {n: a for n, a in zip(node.input, arrays) if n})


def calibrate(model: onnx.ModelProto, feeds: dict[str, np.ndarray], last_std: float = 2.0) -> None:
    """Gives a random convolutional network the statistics of a trained one, from its own activations on `feeds`: every
    normalisation gets the mean and variance that it sees, every other layer with a bias is scaled and shifted to unit
    variance a channel, squeezed ones (too few elements for that) to 0.3 as a whole, and the last one to `last_std`.
    Without this, signals of deep random networks fade, saturate or no longer depend on the input."""
    weights = {t.name: t for t in model.graph.initializer}
    values = {name: numpy_helper.to_array(t) for name, t in weights.items()} | feeds
    normalised = {n.input[0] for n in model.graph.node if n.op_type == "BatchNormalization"}
    layers = [n for n in model.graph.node if n.op_type in ("Conv", "ConvTranspose", "Gemm") and len(n.input) > 2
              and n.input[1] in weights and n.output[0] not in normalised]
    adjusted = {n.output[0] for n in layers}

    def put(name, array):
        values[name] = array.astype(np.float32)
        weights[name].CopyFrom(numpy_helper.from_array(values[name], name))

    def channels(x):
        axes = tuple(a for a in range(x.ndim) if a != 1)
        if x.size < 16 * x.shape[1]:  # too few elements say nothing of a channel
            return np.zeros(x.shape[1]), np.full(x.shape[1], x.std() / 0.3)
        return x.mean(axes), np.maximum(x.std(axes), 1e-3 * x.std() + 1e-12)

    for node in model.graph.node:
        arrays = [values.get(name) for name in node.input]
        if node.op_type == "BatchNormalization":
            mean, std = channels(arrays[0])
            put(node.input[3], mean)
            put(node.input[4], std ** 2)
            arrays = [values[name] for name in node.input]
        made = run_node(node, arrays, model.opset_import)
        if node.output[0] in adjusted:
            mean, std = channels(made[0])
            if node is layers[-1]:
                std = std * (made[0] / std.reshape([1, -1] + [1] * (made[0].ndim - 2))).std() / last_std
            shape = [1, -1] + [1] * (made[0].ndim - 2)
            bias = values[node.input[2]]
            axis = 1 if node.op_type == "ConvTranspose" else 0
            put(node.input[1], arrays[1] / std.reshape([-1 if a == axis else 1 for a in range(arrays[1].ndim)]))
            put(node.input[2], (bias - mean) / std + bias)
            made[0] = ((made[0] - mean.reshape(shape)) / std.reshape(shape) + bias.reshape(shape)).astype(np.float32)
        values.update(zip([n for n in node.output if n], made))
