"""SessionOptions. RunOptions is in the extension module, where runs look at it."""

from typing import Any

from ._enums import ExecutionMode, ExecutionOrder, GraphOptimizationLevel
from ._exceptions import unsupported
from ._values import OrtValue

# Configuration entries that change results or where things are read from, and that AI VMM has no counterpart of. All
# other entries tune ONNX Runtime's own machinery; they are kept and have no effect.
_REFUSED_ENTRIES = {
    "session.set_denormal_as_zero": "0",
    "session.load_model_format": "ONNX",
    "session.save_model_format": "ONNX",
    "session.model_external_initializers_file_folder_path": "",
    "session.use_env_allocators": "0",
    "ep.context_enable": "0",
}


class _Option:
    """A property of one type: another type is a TypeError, as with ONNX Runtime."""

    def __init__(self, kind: type, default: Any, doc: str):
        self.kind, self.default, self.__doc__ = kind, default, doc

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else instance._values.get(self.name, self.default)

    def converted(self, value: Any) -> Any:
        """As ONNX Runtime converts: what has a truth value to bool, what is an index to int."""
        if self.kind is bool and (value is None or hasattr(value, "__bool__")):
            return bool(value)
        if self.kind is int and hasattr(value, "__index__"):
            return value.__index__()
        if not isinstance(value, self.kind):
            raise TypeError(f"SessionOptions.{self.name} takes {self.kind.__name__}, not {value!r}.")
        return value

    def __set__(self, instance: Any, value: Any) -> None:
        instance._values[self.name] = self.converted(value)


class _Refused(_Option):
    """A property whose default alone is possible."""

    def __init__(self, kind: type, default: Any, what: str):
        super().__init__(kind, default, f"Only {default!r}: {what} is not there.")
        self.what = what

    def __set__(self, instance: Any, value: Any) -> None:
        if self.converted(value) != self.default:
            raise unsupported(f"{self.what} (SessionOptions.{self.name} = {value!r})")
        super().__set__(instance, value)


class SessionOptions:
    """Configuration of a session. Options that tune ONNX Runtime's own machinery are accepted and have no effect, since
    they cannot change results; those that would are refused."""

    __slots__ = ("_values", "_entries", "_sizes", "_denoted")

    intra_op_num_threads = _Option(int, 0, "Compute threads at most; 0: as many as the process may use.")
    use_deterministic_compute = _Option(bool, False, "True: kernels are not chosen by measurement.")
    inter_op_num_threads = _Option(int, 0, "No effect: nodes run one after the other, each on all threads.")
    execution_mode = _Option(ExecutionMode, ExecutionMode.ORT_SEQUENTIAL, "No effect, see inter_op_num_threads.")
    execution_order = _Option(ExecutionOrder, ExecutionOrder.DEFAULT, "No effect.")
    graph_optimization_level = _Option(GraphOptimizationLevel, GraphOptimizationLevel.ORT_ENABLE_ALL,
                                       "No effect: all passes run, and keep results within the accuracy contract.")
    enable_cpu_mem_arena = _Option(bool, True, "No effect: memory is planned, not pooled.")
    enable_mem_pattern = _Option(bool, True, "No effect.")
    enable_mem_reuse = _Option(bool, True, "No effect.")
    use_per_session_threads = _Option(bool, True, "False: the thread count of set_global_thread_pool_sizes.")
    log_severity_level = _Option(int, -1, "No effect: AI VMM's log level is a setting (AI_VMM_LOG_LEVEL).")
    log_verbosity_level = _Option(int, 0, "No effect, see log_severity_level.")
    logid = _Option(str, "", "No effect, see log_severity_level.")
    profile_file_prefix = _Option(str, "onnxruntime_profile_", "No effect: see enable_profiling.")
    enable_profiling = _Refused(bool, False, "Profiling in ONNX Runtime's format")
    optimized_model_filepath = _Refused(str, "", "Writing the optimised model as ONNX")

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._entries: dict[str, str] = {}
        self._sizes: dict[str, int] = {}
        self._denoted: dict[str, int] = {}

    def _copy(self) -> "SessionOptions":
        new = SessionOptions()
        for slot in self.__slots__:
            setattr(new, slot, dict(getattr(self, slot)))
        return new

    def add_session_config_entry(self, key: str, value: str) -> None:
        """Sets a configuration entry. `session.disable_cpu_ep_fallback` is honoured; entries that would change results
        are refused; all others are kept and have no effect."""
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError("add_session_config_entry takes two strings.")
        if value != _REFUSED_ENTRIES.get(key, value):
            raise unsupported(f"The session entry {key} = {value!r}")
        self._entries[key] = value

    def get_session_config_entry(self, key: str) -> str:
        if key not in self._entries:
            raise RuntimeError(f"SessionOptions does not have configuration with key: {key}")
        return self._entries[key]

    def add_free_dimension_override_by_name(self, name: str, size: int) -> None:
        """Makes a named size of the inputs a number."""
        self._sizes[name] = int(size)

    def add_free_dimension_override_by_denotation(self, denotation: str, size: int) -> None:
        self._denoted[denotation] = int(size)

    def has_providers(self) -> bool:
        return False

    def add_provider(self, name: str, options: dict[str, str]) -> None:
        raise unsupported("SessionOptions.add_provider", "Give `providers` to InferenceSession.")

    def add_provider_for_devices(self, devices: Any, options: dict[str, str]) -> None:
        raise unsupported("SessionOptions.add_provider_for_devices", "Give `providers` to InferenceSession.")

    def set_provider_selection_policy(self, policy: Any) -> None:
        raise unsupported("A provider selection policy", "AiVmmExecutionProvider chooses by measuring.")

    def set_provider_selection_policy_delegate(self, delegate: Any) -> None:
        raise unsupported("A provider selection policy", "AiVmmExecutionProvider chooses by measuring.")

    def add_initializer(self, name: str, value: OrtValue) -> None:
        raise unsupported("Replacing initializers", "Save the model with the values that it should have.")

    def add_external_initializers(self, names: list[str], values: list[OrtValue]) -> None:
        raise unsupported("Replacing initializers", "Save the model with the values that it should have.")

    def add_external_initializers_from_files_in_memory(self, names: Any, buffers: Any, lengths: Any) -> None:
        raise unsupported("External data in memory", "Give the path of a model beside its external data.")

    def register_custom_ops_library(self, path: str) -> None:
        raise unsupported(f"A library of custom operators ({path})",
                          "AI VMM's operators are listed by `aivmm ops`; model-local functions work.")

    def set_load_cancellation_flag(self, cancel: bool) -> None:
        if cancel:
            raise unsupported("Cancelling a load")

    def set_ep_context_data_read_func(self, *args: Any) -> None:
        raise unsupported("EPContext data")

    def clear_ep_context_data_read_func(self) -> None:
        pass
