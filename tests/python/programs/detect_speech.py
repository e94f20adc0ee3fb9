"""The silero-vad model driven by plain onnxruntime calls, 32 ms at a time with its state. Arguments: the model, a WAV file
of 16 kHz. Prints the probability of speech for each step."""

import json
import sys
import wave

import numpy as np
import onnxruntime

options = onnxruntime.SessionOptions()
options.inter_op_num_threads = 1
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"], sess_options=options)
with wave.open(sys.argv[2]) as f:
    sound = np.frombuffer(f.readframes(f.getnframes()), np.int16).astype(np.float32) / 32768

state = np.zeros((2, 1, 128), np.float32)
context = np.zeros((1, 64), np.float32)
probabilities = []
for start in range(0, len(sound) - 511, 512):
    x = np.concatenate([context, sound[None, start:start + 512]], axis=1)
    out, state = session.run(None, {"input": x, "state": state, "sr": np.array(16000, np.int64)})
    context = x[:, -64:]
    probabilities.append(float(out[0, 0]))
print(json.dumps(probabilities))
