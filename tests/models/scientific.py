"""Scientific models: a graph neural network and a physics-informed network."""

from builder import INT64, Net


def graph_network(features: int = 32, hidden: int = 128, layers: int = 3) -> Net:
    """Message passing on a graph of nodes and directed edges, as in molecular and mesh models: messages from the two ends
    of an edge, their mean at its target, an update with a residual, and a sum over all nodes."""
    net = Net("graph_network")
    x = net.input("x", ["nodes", features])
    edges = net.input("edge_index", [2, "edges"], INT64)
    nodes = net.size(x, 0)
    source = net.op("Gather", edges, net.const(0), axis=0)
    target = net.op("Gather", edges, net.const(1), axis=0)
    count = net.size(source, 0)

    def scatter_sum(values, width):
        zeros = net.op("Expand", net.const(0.0), net.shape(nodes, width))
        index = net.op("Expand", net.op("Unsqueeze", target, net.const([1])), net.shape(count, width))
        return net.op("ScatterElements", zeros, index, values, axis=0, reduction="add")

    degree = scatter_sum(net.op("Expand", net.const(1.0), net.shape(count, 1)), 1)
    degree = net.op("Clip", degree, net.const(1.0))
    h = net.gemm(x, features, hidden, act="relu")
    for k in range(layers):
        net.scope = f"/layer.{k}"
        ends = net.op("Concat", net.op("Gather", h, target, axis=0), net.op("Gather", h, source, axis=0), axis=1)
        message = net.gemm(net.gemm(ends, 2 * hidden, hidden, act="silu"), hidden, hidden, act="silu")
        mean = net.div(scatter_sum(message, hidden), degree)
        update = net.gemm(net.op("Concat", h, mean, axis=1), 2 * hidden, hidden, act="silu")
        h = net.add(h, update)
    net.scope = ""
    net.output("node_values", net.gemm(h, hidden, 3), ["nodes", 3])
    total = net.op("ReduceSum", h, net.const([0]), keepdims=1)
    net.output("energy", net.gemm(net.div(total, net.const(100.0)), hidden, 1), [1, 1])
    return net


def physics_informed(hidden: int = 256, layers: int = 6) -> Net:
    """Raissi et al. 2019 with Fourier features: (x, y, t) → velocities and pressure, tanh layers with sine in the first."""
    net = Net("physics_informed")
    points = net.input("points", ["points", 3])
    waves = net.op("MatMul", points, net.normal((3, hidden // 2), 1.0, "frequencies"))
    x = net.op("Concat", net.op("Sin", waves), net.op("Cos", waves), axis=1)
    for _ in range(layers):
        x = net.op("Tanh", net.gemm(x, hidden, hidden, gain=1.5))
    net.output("flow", net.gemm(x, hidden, 3), ["points", 3])
    return net
