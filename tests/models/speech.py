"""Speech: recurrent networks and an audio transformer."""

import numpy as np

from builder import Net


def _recurrent(net, x, kind, n_in, hidden, gates, batch):
    """One forward layer over [time, batch, features], from a zero state, as nn.LSTM and nn.GRU are exported."""
    std = 3 / np.sqrt(hidden)  # thrice the usual, so that the states do not forget the input
    w = net.weight(net.rng.uniform(-std, std, (1, gates * hidden, n_in)).astype(np.float32), "W")
    r = net.weight(net.rng.uniform(-std, std, (1, gates * hidden, hidden)).astype(np.float32), "R")
    b = net.weight(net.rng.uniform(-std, std, (1, 2 * gates * hidden)).astype(np.float32), "B")
    zero = net.op("Expand", net.const(0.0), net.shape(1, batch, hidden))
    states = [zero, zero] if kind == "LSTM" else [zero]
    extra = {"linear_before_reset": 1} if kind == "GRU" else {}
    made = net.op(kind, x, w, r, b, None, *states, outputs=3 if kind == "LSTM" else 2, hidden_size=hidden, **extra)
    return net.op("Squeeze", made[0], net.const([1]))


def lstm_speech() -> Net:
    """Acoustic model: 3 LSTM layers of 512 over 80 filter-bank features, 41 phonemes."""
    net = Net("lstm_speech")
    x = net.input("features", ["batch", "time", 80])
    batch = net.size(x, 0)
    x = net.transpose(x, 1, 0, 2)
    for n_in in (80, 512, 512):
        x = _recurrent(net, x, "LSTM", n_in, 512, 4, batch)
    x = net.linear(net.transpose(x, 1, 0, 2), 512, 41)
    net.output("log_probs", net.op("LogSoftmax", x, axis=2), ["batch", "time", 41])
    return net


def gru_keyword() -> Net:
    """Keyword spotter: a strided convolution over 40 features, 2 GRU layers of 128, 12 words."""
    net = Net("gru_keyword")
    x = net.input("features", ["batch", 40, "time"])
    batch = net.size(x, 0)
    x = net.conv(x, 40, 64, (5,), 2, act="relu")
    x = net.transpose(x, 2, 0, 1)
    for n_in in (64, 128):
        x = _recurrent(net, x, "GRU", n_in, 128, 3, batch)
    last = net.op("Gather", x, net.const(-1), axis=0)
    net.output("scores", net.gemm(last, 128, 12), ["batch", 12])
    return net


def wav2vec2(layers: int = 6) -> Net:
    """Baevski et al. 2020: raw audio at 16 kHz through seven convolutions and `layers` transformer blocks to characters;
    group normalisation as the exporter decomposes it, a grouped convolution for positions."""
    net = Net("wav2vec2")
    dim, heads = 768, 12
    audio = net.input("input_values", ["batch", "samples"])
    x = net.op("Unsqueeze", audio, net.const([1]))
    channels = 1
    for k, (kernel, stride) in enumerate([(10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)]):
        x = net.conv(x, channels, 512, (kernel,), stride, pad=0, bias=False)
        channels = 512
        if k == 0:
            whole = net.op("Shape", x)
            flat = net.op("Reshape", x, net.const([0, 512, -1]))
            flat = net.op("InstanceNormalization", flat, net.weight(np.ones(512, np.float32)),
                          net.weight(np.zeros(512, np.float32)), epsilon=1e-5)
            x = net.op("Reshape", flat, whole)
            gamma = net.weight(1 + 0.1 * net.rng.standard_normal((512, 1), np.float32))
            x = net.add(net.mul(x, gamma), net.normal((512, 1), 0.02))
        x = net.gelu(x)
    x = net.transpose(x, 0, 2, 1)
    x = net.linear(net.layer_norm(x, 512), 512, dim)
    positions = net.op("Conv", net.transpose(x, 0, 2, 1), net.normal((dim, dim // 16, 128), 0.01), net.normal((dim,), 0.02),
                       kernel_shape=[128], strides=[1], pads=[64, 64], dilations=[1], group=16)
    positions = net.gelu(net.slice(positions, 0, -1, 2))
    x = net.layer_norm(net.add(x, net.transpose(positions, 0, 2, 1)), dim)
    batch, length = net.size(x, 0), net.size(x, 1)
    for k in range(layers):
        net.scope = f"/layer.{k}"
        x = net.layer_norm(net.add(x, net.self_attention(x, batch, length, dim, heads)), dim)
        y = net.linear(net.gelu(net.linear(x, dim, 4 * dim)), 4 * dim, dim)
        x = net.layer_norm(net.add(x, y), dim)
    net.scope = ""
    net.output("logits", net.linear(x, dim, 32), ["batch", "frames", 32])
    return net
