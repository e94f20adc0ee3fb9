"""One measurement of ONNX Runtime in a process of its own: prints one JSON object.

    onnx_runtime.py MODEL INPUTS.npz THREADS WARMUP REPEAT
"""

import json
import resource
import sys
import time

import numpy as np
import onnxruntime as ort


def main(model: str, inputs: str, threads: str, warmup: str, repeat: str) -> None:
    with np.load(inputs) as archive:
        feeds = dict(archive)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(threads)
    options.log_severity_level = 3
    start = time.perf_counter_ns()
    session = ort.InferenceSession(model, options, ["CPUExecutionProvider"])
    loaded = time.perf_counter_ns()
    for _ in range(int(warmup)):
        session.run(None, feeds)
    times = []
    for _ in range(int(repeat)):
        begin = time.perf_counter_ns()
        session.run(None, feeds)
        times.append((time.perf_counter_ns() - begin) / 1e3)
    times.sort()
    print(json.dumps({
        "median_us": times[len(times) // 2], "min_us": times[0], "p90_us": times[int(0.9 * (len(times) - 1))],
        "repeat": len(times), "load_us": (loaded - start) / 1e3,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "interpreter_rss_bytes": before}))


if __name__ == "__main__":
    main(*sys.argv[1:])
