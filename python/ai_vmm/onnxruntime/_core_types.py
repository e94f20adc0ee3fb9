"""Types of the extension module under ONNX Runtime's names."""

from .._core import RunOptions as _RunOptions
from ._exceptions import unsupported


class RunOptions(_RunOptions):
    """Configuration of one call. `terminate = True`, from any thread, ends the runs that use it."""

    __slots__ = ()

    def add_run_config_entry(self, key: str, value: str) -> None:
        """Kept; has no effect, since such entries tune ONNX Runtime's own machinery."""
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError("add_run_config_entry takes two strings.")
        self._entries[key] = value

    def get_run_config_entry(self, key: str) -> str:
        if key not in self._entries:
            raise RuntimeError(f"RunOptions does not have configuration with key: {key}")
        return self._entries[key]

    def add_active_adapter(self, adapter: object) -> None:
        raise unsupported("A LoRA adapter", "Merge it into the model.")
