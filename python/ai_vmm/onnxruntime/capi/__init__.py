"""onnxruntime.capi: where programs find the exceptions."""

from typing import Any


def __getattr__(name: str) -> Any:
    # Loaded when asked for: the package itself must be complete before them.
    if name in ("_pybind_state", "onnxruntime_pybind11_state", "onnxruntime_inference_collection"):
        import importlib

        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
