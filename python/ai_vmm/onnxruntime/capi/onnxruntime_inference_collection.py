"""onnxruntime.capi.onnxruntime_inference_collection: where some programs import the classes from."""

from .. import InferenceSession, IOBinding, OrtDevice, OrtValue, SparseTensor, copy_tensors  # noqa: F401
from .onnxruntime_pybind11_state import *  # noqa: F403
