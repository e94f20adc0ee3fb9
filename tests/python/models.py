"""Small ONNX models for the tests of the Python package, as bytes."""

from onnx import TensorProto as T
from onnx import helper


def tensor(name: str, shape, dtype: int = T.FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def model(nodes, inputs, outputs, initializers=(), opset: int = 21, **properties: str) -> bytes:
    graph = helper.make_graph(nodes, "small", inputs, outputs, list(initializers))
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    if properties:
        helper.set_model_props(proto, properties)
    return proto.SerializeToString()


def add() -> bytes:
    """y = x + [1, 2, 3]; x is f32[N,3]."""
    return model([helper.make_node("Add", ["x", "w"], ["y"])], [tensor("x", ["N", 3])], [tensor("y", ["N", 3])],
                 [helper.make_tensor("w", T.FLOAT, [3], [1, 2, 3])], author="us")


def identity(dtype: int, shape=("N",)) -> bytes:
    return model([helper.make_node("Identity", ["x"], ["y"])], [tensor("x", shape, dtype)], [tensor("y", shape, dtype)])


def endless() -> bytes:
    """A loop of n rounds of a small product: run it with a huge n and it takes for ever."""
    body = helper.make_graph(
        [helper.make_node("MatMul", ["a", "a"], ["b"]), helper.make_node("Identity", ["c"], ["d"])], "body",
        [tensor("i", [], T.INT64), tensor("c", [], T.BOOL), tensor("a", [64, 64])],
        [tensor("d", [], T.BOOL), tensor("b", [64, 64])])
    return model([helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)],
                 [tensor("n", [], T.INT64), tensor("x", [64, 64])], [tensor("y", [64, 64])])
