"""Recommendation systems: large embedding tables, feature interaction, small dense layers."""

import numpy as np

from builder import INT64, Net


def _mlp(net, x, sizes, last=""):
    for k, (n_in, n_out) in enumerate(zip(sizes, sizes[1:])):
        x = net.gemm(x, n_in, n_out, act="relu" if k + 2 < len(sizes) else last, gain=1.4)
    return x


def dlrm(tables: int = 26, rows: int = 20000, dim: int = 64, bag: int = 4) -> Net:
    """Naumov et al. 2019: a bag of `bag` rows per table is summed; all pairs of features interact by dot products."""
    net = Net("dlrm")
    dense = net.input("dense", ["batch", 13])
    sparse = net.input("sparse", ["batch", tables, bag], INT64)
    batch = net.size(dense, 0)
    features = [_mlp(net, dense, [13, 512, 256, dim], "relu")]
    for k in range(tables):
        ids = net.op("Gather", sparse, net.const(k), axis=1)
        picked = net.op("Gather", net.normal((rows, dim), 0.1, f"table_{k}"), ids, axis=0)
        features.append(net.op("ReduceSum", picked, net.const([1]), keepdims=0))
    count = tables + 1
    t = net.view(net.op("Concat", *features, axis=1), batch, count, dim)
    pairs = net.op("MatMul", t, net.transpose(t, 0, 2, 1))
    rows_of, columns_of = np.tril_indices(count, -1)
    flat = net.op("Gather", net.view(pairs, batch, count * count), net.const(rows_of * count + columns_of), axis=1)
    x = net.op("Concat", features[0], flat, axis=1)
    x = _mlp(net, x, [dim + len(rows_of), 1024, 512, 256, 1])
    net.output("click", net.op("Sigmoid", x), ["batch", 1])
    return net


def wide_and_deep(fields: int = 16, rows: int = 10000, dim: int = 32) -> Net:
    """Cheng et al. 2016: a linear model over sparse features beside a dense network over their embeddings. All fields
    share one table with an offset for each."""
    net = Net("wide_and_deep")
    ids = net.input("fields", ["batch", fields], INT64)
    numbers = net.input("numbers", ["batch", 8])
    shifted = net.add(ids, net.const(np.arange(fields) * rows))
    wide = net.op("Gather", net.normal((fields * rows, 1), 0.1, "wide"), shifted)
    wide = net.op("ReduceSum", wide, net.const([1]), keepdims=0)
    deep = net.op("Gather", net.normal((fields * rows, dim), 0.1, "embedding"), shifted)
    deep = net.op("Concat", net.op("Flatten", deep, axis=1), numbers, axis=1)
    deep = _mlp(net, deep, [fields * dim + 8, 256, 128, 64, 1])
    net.output("click", net.op("Sigmoid", net.add(wide, deep)), ["batch", 1])
    return net
