"""A stand-in for the package onnxruntime: programs written for it run on AI VMM.

    import ai_vmm.onnxruntime as onnxruntime          # in a program of one's own
    python -m ai_vmm.as_onnxruntime SCRIPT [ARGS]     # for one that is not to be changed
    AI_VMM_AS_ONNXRUNTIME=1 python SCRIPT             # the same

What AI VMM has no counterpart of raises an error that says so; docs/onnxruntime.md lists it.
"""

from typing import Any

from .. import __version__ as _ai_vmm_version
from . import _providers, _state, capi
from ._core_types import RunOptions
from ._enums import (ExecutionMode, ExecutionOrder, GraphOptimizationLevel, OrtAllocatorType, OrtMemType,
                     OrtSparseFormat)
from ._exceptions import unsupported
from ._options import SessionOptions
from ._session import InferenceSession, IOBinding, ModelMetadata, NodeArg
from ._values import OrtDevice, OrtValue, OrtValueVector, SparseTensor, copy_tensors

__version__ = "1.31.1"  # the version of ONNX Runtime whose behaviour this follows
__author__ = "AI VMM"
package_name = "onnxruntime"
version = __version__
cuda_version = ""
SessionIOBinding = IOBinding


def get_version_string() -> str:
    return __version__


def get_build_info() -> str:
    return f"AI VMM {_ai_vmm_version}, standing in for ONNX Runtime {__version__}"


def get_available_providers() -> list[str]:
    """AiVmmExecutionProvider (the fastest device by measurement), then those with a usable device."""
    return _providers.available()


def get_all_providers() -> list[str]:
    return _providers.every()


def get_device() -> str:
    return _providers.device()


def set_seed(seed: int) -> None:
    """The seed of random operators, for sessions made from now on."""
    _state.seed = int(seed)


def set_global_thread_pool_sizes(intra_op_num_threads: int, inter_op_num_threads: int) -> None:
    """The thread count of sessions made from now on with use_per_session_threads = False."""
    _state.pool_threads = int(intra_op_num_threads)


def set_default_logger_severity(severity: int) -> None:
    """No effect: AI VMM's log level is a setting."""
    if not 0 <= severity <= 4:
        raise RuntimeError(f"Invalid logging severity {severity}. 0:Verbose, 1:Info, 2:Warning, 3:Error, 4:Fatal")


def set_default_logger_verbosity(verbosity: int) -> None:
    """No effect: AI VMM's log level is a setting."""


def disable_telemetry_events() -> None:
    """Nothing is ever reported."""


def enable_telemetry_events() -> None:
    """Nothing is ever reported."""


def has_collective_ops() -> bool:
    return False


def preload_dlls(cuda: bool = True, cudnn: bool = True, msvc: bool = True, directory: Any = None) -> None:
    """No effect: libraries of vendors are loaded when a device needs them."""


def print_debug_info() -> None:
    print(get_build_info())
    for row in _providers._core.devices():
        print(f"{row['backend']}:{row['index']}  {row['name']}  {row['problem']}".rstrip())


_ABSENT = {
    "AdapterFormat": "A LoRA adapter", "LoraAdapter": "A LoRA adapter", "ModelCompiler": "Compiling to an EPContext model",
    "OrtArenaCfg": "An allocator", "OrtMemoryInfo": "An allocator", "OrtMemoryInfoDeviceType": "An allocator",
    "OrtDeviceMemoryType": "An allocator", "OrtDeviceVendorId": "A device of a vendor",
    "OrtCompileApiFlags": "Compiling to an EPContext model", "OrtEpAssignedNode": "An execution-provider device",
    "OrtEpAssignedSubgraph": "An execution-provider device", "OrtEpContextData": "EPContext data",
    "OrtEpContextDataBuffer": "EPContext data", "OrtEpDevice": "An execution-provider device",
    "OrtExecutionProviderDevicePolicy": "A provider selection policy",
    "OrtExternalInitializerInfo": "Replacing initializers", "OrtHardwareDevice": "An execution-provider device",
    "OrtHardwareDeviceType": "An execution-provider device", "OrtSyncStream": "A stream",
    "create_and_register_allocator": "An allocator", "create_and_register_allocator_v2": "An allocator",
    "get_ep_devices": "An execution-provider device",
    "register_execution_provider_library": "A library of an execution provider",
    "unregister_execution_provider_library": "A library of an execution provider",
}


class _Absent:
    """A name of ONNX Runtime that AI VMM has no counterpart of: it can be imported; using it raises."""

    def __init__(self, name: str):
        self._name = name

    def __call__(self, *args: Any, **named: Any) -> Any:
        raise unsupported(f"{_ABSENT[self._name]} (onnxruntime.{self._name})")

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return self()

    def __repr__(self) -> str:
        return f"<onnxruntime.{self._name}: not part of AI VMM's stand-in>"


def __getattr__(name: str) -> Any:
    if name in _ABSENT:
        return _Absent(name)
    raise AttributeError(f"module 'onnxruntime' (AI VMM's stand-in) has no attribute {name!r}")


__all__ = ["ExecutionMode", "ExecutionOrder", "GraphOptimizationLevel", "IOBinding", "InferenceSession", "ModelMetadata",
           "NodeArg", "OrtAllocatorType", "OrtDevice", "OrtMemType", "OrtSparseFormat", "OrtValue", "RunOptions",
           "SessionIOBinding", "SessionOptions", "SparseTensor", "copy_tensors", "disable_telemetry_events",
           "enable_telemetry_events", "get_all_providers", "get_available_providers", "get_build_info", "get_device",
           "get_version_string", "has_collective_ops", "preload_dlls", "print_debug_info",
           "set_default_logger_severity", "set_default_logger_verbosity", "set_global_thread_pool_sizes", "set_seed"]
