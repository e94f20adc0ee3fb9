"""Convolutional networks: classifiers, a detector, a segmenter."""

import numpy as np

from builder import Net


def mobilenet_v3_large() -> Net:
    """Howard et al. 2019, table 1."""
    net = Net("mobilenet_v3_large")
    x = net.conv(net.input("input", ["batch", 3, 224, 224]), 3, 16, 3, 2, act="hardswish")
    channels = 16
    rows = [  # kernel, expanded, out, squeeze-and-excite, activation, stride
        (3, 16, 16, 0, "relu", 1), (3, 64, 24, 0, "relu", 2), (3, 72, 24, 0, "relu", 1), (5, 72, 40, 1, "relu", 2),
        (5, 120, 40, 1, "relu", 1), (5, 120, 40, 1, "relu", 1), (3, 240, 80, 0, "hardswish", 2),
        (3, 200, 80, 0, "hardswish", 1), (3, 184, 80, 0, "hardswish", 1), (3, 184, 80, 0, "hardswish", 1),
        (3, 480, 112, 1, "hardswish", 1), (3, 672, 112, 1, "hardswish", 1), (5, 672, 160, 1, "hardswish", 2),
        (5, 960, 160, 1, "hardswish", 1), (5, 960, 160, 1, "hardswish", 1)]
    for kernel, wide, out, excite, act, stride in rows:
        y = net.conv(x, channels, wide, 1, act=act) if wide != channels else x
        y = net.conv(y, wide, wide, kernel, stride, groups=wide, act=act)
        if excite:
            small = max(8, (wide // 4 + 4) // 8 * 8)
            s = net.conv(net.op("GlobalAveragePool", y), wide, small, 1, act="relu")
            y = net.mul(net.op("HardSigmoid", net.conv(s, small, wide, 1), alpha=1 / 6), y)
        y = net.conv(y, wide, out, 1)
        x = net.add(x, y) if stride == 1 and channels == out else y
        channels = out
    x = net.op("GlobalAveragePool", net.conv(x, channels, 960, 1, act="hardswish"))
    x = net.gemm(net.op("Flatten", x, axis=1), 960, 1280, act="hardswish")
    net.output("logits", net.gemm(x, 1280, 1000), ["batch", 1000])
    return net


def efficientnet_b0() -> Net:
    """Tan and Le 2019, table 1."""
    net = Net("efficientnet_b0")
    x = net.conv(net.input("input", ["batch", 3, 224, 224]), 3, 32, 3, 2, act="silu")
    channels = 32
    for expand, out, count, kernel, first_stride in [(1, 16, 1, 3, 1), (6, 24, 2, 3, 2), (6, 40, 2, 5, 2), (6, 80, 3, 3, 2),
                                                     (6, 112, 3, 5, 1), (6, 192, 4, 5, 2), (6, 320, 1, 3, 1)]:
        for block in range(count):
            stride = first_stride if block == 0 else 1
            wide = channels * expand
            y = net.conv(x, channels, wide, 1, act="silu") if expand > 1 else x
            y = net.conv(y, wide, wide, kernel, stride, groups=wide, act="silu")
            small = max(1, channels // 4)
            s = net.conv(net.op("GlobalAveragePool", y), wide, small, 1, act="silu")
            y = net.mul(net.op("Sigmoid", net.conv(s, small, wide, 1)), y)
            y = net.conv(y, wide, out, 1)
            x = net.add(y, x) if stride == 1 and channels == out else y
            channels = out
    x = net.op("GlobalAveragePool", net.conv(x, channels, 1280, 1, act="silu"))
    net.output("logits", net.gemm(net.op("Flatten", x, axis=1), 1280, 1000), ["batch", 1000])
    return net


def resnet50() -> Net:
    """He et al. 2015, with the stride in the 3×3 layer."""
    net = Net("resnet50")
    x = net.conv(net.input("input", ["batch", 3, 224, 224]), 3, 64, 7, 2, act="relu")
    x = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=0)
    channels = 64
    for stage, count in enumerate([3, 4, 6, 3]):
        width = 64 << stage
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            y = net.conv(x, channels, width, 1, act="relu")
            y = net.conv(y, width, width, 3, stride, act="relu")
            y = net.conv(y, width, 4 * width, 1)
            x = net.conv(x, channels, 4 * width, 1, stride) if block == 0 else x
            x = net.relu(net.add(y, x))
            channels = 4 * width
    x = net.op("Flatten", net.op("GlobalAveragePool", x), axis=1)
    net.output("logits", net.gemm(x, channels, 1000), ["batch", 1000])
    return net


def unet() -> Net:
    """Ronneberger et al. 2015 with 32 to 512 channels and padded convolutions."""
    net = Net("unet")
    x = net.input("input", ["batch", 3, 256, 256])
    channels, kept = 3, []
    double = lambda x, cin, cout: net.conv(net.conv(x, cin, cout, 3, act="relu"), cout, cout, 3, act="relu")
    for out in [32, 64, 128, 256]:
        x = double(x, channels, out)
        kept.append((x, out))
        x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        channels = out
    x = double(x, channels, 512)
    channels = 512
    for skip, out in reversed(kept):
        up = net.normal((channels, out, 2, 2), (1 / channels) ** 0.5)
        x = net.op("ConvTranspose", x, up, net.normal((out,), 0.02, "bias"), kernel_shape=[2, 2], strides=[2, 2],
                   pads=[0] * 4, dilations=[1, 1], group=1)
        x = double(net.op("Concat", skip, x, axis=1), 2 * out, out)
        channels = out
    net.output("mask", net.conv(x, channels, 2, 1), ["batch", 2, 256, 256])
    return net


def yolov8n(size: int = 640) -> Net:
    """The nano detector of the YOLOv8 family with its decoupled head: boxes as expectations over 16 bins, 80 classes."""
    net = Net("yolov8n")

    def c2f(x, cin, cout, count, shortcut):
        half = cout // 2
        a, b = net.op("Split", net.conv(x, cin, cout, 1, act="silu"), net.const([half, half]), outputs=2, axis=1)
        parts = [a, b]
        for _ in range(count):
            y = net.conv(net.conv(parts[-1], half, half, 3, act="silu"), half, half, 3, act="silu")
            parts.append(net.add(parts[-1], y) if shortcut else y)
        return net.conv(net.op("Concat", *parts, axis=1), half * len(parts), cout, 1, act="silu")

    def up(x):
        return net.op("Resize", x, None, net.const([1.0, 1.0, 2.0, 2.0]), mode="nearest", nearest_mode="floor",
                      coordinate_transformation_mode="asymmetric")

    cat = lambda *xs: net.op("Concat", *xs, axis=1)
    x = net.conv(net.input("images", ["batch", 3, size, size]), 3, 16, 3, 2, act="silu")
    x = c2f(net.conv(x, 16, 32, 3, 2, act="silu"), 32, 32, 1, True)
    p3 = c2f(net.conv(x, 32, 64, 3, 2, act="silu"), 64, 64, 2, True)
    p4 = c2f(net.conv(p3, 64, 128, 3, 2, act="silu"), 128, 128, 2, True)
    x = c2f(net.conv(p4, 128, 256, 3, 2, act="silu"), 256, 256, 1, True)
    pools = [net.conv(x, 256, 128, 1, act="silu")]
    for _ in range(3):
        pools.append(net.op("MaxPool", pools[-1], kernel_shape=[5, 5], strides=[1, 1], pads=[2] * 4, ceil_mode=0,
                            dilations=[1, 1]))
    p5 = net.conv(cat(*pools), 512, 256, 1, act="silu")
    n4 = c2f(cat(up(p5), p4), 384, 128, 1, False)
    n3 = c2f(cat(up(n4), p3), 192, 64, 1, False)
    m4 = c2f(cat(net.conv(n3, 64, 64, 3, 2, act="silu"), n4), 192, 128, 1, False)
    m5 = c2f(cat(net.conv(m4, 128, 128, 3, 2, act="silu"), p5), 384, 256, 1, False)

    batch = net.size("images", 0)
    rows = []
    for x, channels in [(n3, 64), (m4, 128), (m5, 256)]:
        box = net.conv(net.conv(net.conv(x, channels, 64, 3, act="silu"), 64, 64, 3, act="silu"), 64, 64, 1)
        cls = net.conv(net.conv(net.conv(x, channels, 80, 3, act="silu"), 80, 80, 3, act="silu"), 80, 80, 1)
        rows.append(net.view(cat(box, cls), batch, 144, -1))
    boxes, scores = net.op("Split", net.op("Concat", *rows, axis=2), net.const([64, 80]), outputs=2, axis=1)
    cells = [(size // s, s) for s in (8, 16, 32)]
    anchors = np.concatenate([np.stack(np.meshgrid(np.arange(n) + 0.5, np.arange(n) + 0.5), 0).reshape(2, -1)
                              for n, _ in cells], 1)
    strides = np.concatenate([np.full(n * n, s) for n, s in cells])[None]
    bins = net.transpose(net.view(boxes, batch, 4, 16, anchors.shape[1]), 0, 2, 1, 3)
    bins = net.op("Softmax", bins, axis=1)
    sides = net.op("Conv", bins, net.weight(np.arange(16, dtype=np.float32).reshape(1, 16, 1, 1)), kernel_shape=[1, 1])
    sides = net.view(sides, batch, 4, anchors.shape[1])
    near, far = net.slice(sides, 0, 2, 1), net.slice(sides, 2, 4, 1)
    middle = net.weight(anchors[None].astype(np.float32), "anchors")
    low, high = net.sub(middle, near), net.add(middle, far)
    xywh = cat(net.div(net.add(low, high), net.const(2.0)), net.sub(high, low))
    xywh = net.mul(xywh, net.weight(strides.astype(np.float32), "strides"))
    net.output("output0", cat(xywh, net.op("Sigmoid", scores)), ["batch", 84, anchors.shape[1]])
    return net
