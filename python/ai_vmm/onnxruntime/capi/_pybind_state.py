"""onnxruntime.capi._pybind_state: another name of the same."""

from .onnxruntime_pybind11_state import *  # noqa: F403
from .onnxruntime_pybind11_state import NotImplemented, OrtValueVector  # noqa: A004, F401
