"""openWakeWord on a sound: wake-word models over an embedding model over a spectrogram model, and its voice-activity
detector. Argument: a WAV file of 16 kHz. Prints the scores for each 80 ms, the last embeddings, and where voice is."""

import json
import sys
import wave

import numpy as np
import openwakeword
from openwakeword.model import Model

model = Model()
frames = model.predict_clip(sys.argv[1])
with wave.open(sys.argv[1]) as f:
    sound = np.frombuffer(f.readframes(f.getnframes()), np.int16)
vad = openwakeword.VAD()
voice = [float(vad.predict(sound[start:start + 1440])) for start in range(0, len(sound) - 1439, 1440)]
print(json.dumps({"scores": [{k: float(v) for k, v in frame.items()} for frame in frames], "voice": voice,
                  "embeddings": model.preprocessor.get_features(16).tolist()}))
