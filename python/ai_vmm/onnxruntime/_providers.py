"""ONNX Runtime's execution providers and AI VMM's backends."""

import os
import warnings
from collections.abc import Sequence
from typing import Any

from .. import _core

AUTOMATIC = "AiVmmExecutionProvider"  # the fastest device by measurement, or provider option {"device": backend}
# Programs ask for these by name; each is the backend that drives the same devices.
_BACKEND_OF = {
    "CPUExecutionProvider": "cpu",
    "CUDAExecutionProvider": "cuda",
    "TensorrtExecutionProvider": "cuda",
    "ROCMExecutionProvider": "hip",
    "MIGraphXExecutionProvider": "hip",
    "OpenVINOExecutionProvider": "openvino",
    AUTOMATIC: "auto",
}


def available() -> list[str]:
    """AiVmmExecutionProvider, then the providers whose backends have a usable device, the CPU last."""
    usable = {d["backend"] for d in _core.devices() if not d["problem"]}
    named = [p for p, backend in _BACKEND_OF.items() if backend in usable and backend != "cpu"]
    return [AUTOMATIC, *named, "CPUExecutionProvider"]


def every() -> list[str]:
    return [AUTOMATIC, *[p for p in _BACKEND_OF if p not in (AUTOMATIC, "CPUExecutionProvider")],
            "CPUExecutionProvider"]


def device() -> str:
    """"GPU" where a GPU can be used, otherwise "CPU", as onnxruntime.get_device says it."""
    return "GPU" if any(_BACKEND_OF[p] in ("cuda", "hip") for p in available()) else "CPU"


def settle(providers: Sequence[Any] | None, options: Sequence[dict[str, Any]] | None) -> tuple[str, dict[str, dict]]:
    """What was asked for → the backend to deploy on, and the providers in effect with their options."""
    if isinstance(providers, str):
        providers = [providers]
    if options is not None and providers and len(options) != len(providers):
        raise ValueError("'providers' and 'provider_options' should be the same length if both are given.")
    asked: dict[str, dict[str, str]] = {}
    for i, p in enumerate(providers or ()):
        name, given = p if isinstance(p, (tuple, list)) else (p, (options[i] if options else {}) or {})
        if not isinstance(name, str) or not isinstance(given, dict):
            raise ValueError("providers takes names or pairs of a name and a dict of options.")
        asked.setdefault(name, {str(k): str(v) for k, v in given.items()})
    present = available()
    taken = {}
    for name, given in asked.items():
        if name in present:
            taken[name] = given
        else:
            warnings.warn(f"Specified provider '{name}' is not in available provider names. "
                          f"Available providers: '{', '.join(present)}'", UserWarning, stacklevel=4)
    if not providers:
        taken = {AUTOMATIC: {}}
    first = next(iter(taken), "CPUExecutionProvider")
    backend = _BACKEND_OF[first]
    if first == AUTOMATIC:
        backend = taken[first].get("device", "auto")
    taken.setdefault("CPUExecutionProvider", {})
    # A program that names the CPU only because it knows nothing else still runs where its user wants it.
    return os.environ.get("AI_VMM_BACKEND") or backend, taken
