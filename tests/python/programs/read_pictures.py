"""RapidOCR on pictures, as its README shows it. Arguments: pictures. Prints what it read, where and how surely."""

import json
import sys

from rapidocr_onnxruntime import RapidOCR

engine = RapidOCR()
print(json.dumps([[{"box": box, "text": text, "score": float(score)} for box, text, score in engine(path)[0] or []]
                  for path in sys.argv[1:]]))
