"""The names that programs take from onnxruntime.capi.onnxruntime_pybind11_state."""

from .. import (ExecutionMode, ExecutionOrder, GraphOptimizationLevel, InferenceSession, IOBinding, ModelMetadata,
                NodeArg, OrtAllocatorType, OrtDevice, OrtMemType, OrtSparseFormat, OrtValue, RunOptions, SessionIOBinding,
                SessionOptions, SparseTensor, copy_tensors, disable_telemetry_events, enable_telemetry_events,
                get_all_providers, get_available_providers, get_build_info, get_device, get_version_string,
                has_collective_ops, set_default_logger_severity, set_default_logger_verbosity,
                set_global_thread_pool_sizes, set_seed)
from .._exceptions import (DeviceReset, EngineError, EPFail, Fail, InvalidArgument, InvalidGraph, InvalidProtobuf,
                           ModelLoadCanceled, ModelLoaded, ModelRequiresCompilation, NoModel, NoSuchFile, NotFound,
                           NotImplemented, RuntimeException)
from .._values import OrtValueVector
