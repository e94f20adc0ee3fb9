"""OrtValue, OrtDevice and their relatives: data that stays in AI VMM's memory between runs."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .. import _core
from .._onnx_file import type_name
from ._enums import OrtSparseFormat
from ._exceptions import unsupported

# numpy type → number of the ONNX type, for calls that name a type.
_NUMBERS = {np.dtype(t): n for n, t in {
    1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64, 9: np.bool_,
    10: np.float16, 11: np.float64, 12: np.uint32, 13: np.uint64, 14: np.complex64, 15: np.complex128}.items()}


def onnx_number(element_type: Any) -> int:
    """The number of an ONNX type, given it or a NumPy type."""
    if isinstance(element_type, (int, np.integer)) and not isinstance(element_type, bool):
        return int(element_type)
    dtype = np.dtype(element_type)
    if dtype not in _NUMBERS:
        raise ValueError(f"{dtype} has no ONNX type; give its number (onnx.TensorProto).")
    return _NUMBERS[dtype]


_KNOWN_DEVICES = ("cpu", "cuda", "cann", "dml", "gpu", "npu", "webgpu", "fpga", "hip")


def require_cpu(device_type: str) -> None:
    name = device_type.lower()
    if name == "cpu":
        return
    if name not in _KNOWN_DEVICES:
        raise Exception(f"Unsupported device type: {device_type}")
    raise RuntimeError(f"Memory of the device {device_type!r} cannot be handed over here: AI VMM copies to and from its "
                       "devices by itself. Use 'cpu'.")


class OrtDevice:
    """Where memory is. AI VMM moves data to its devices by itself, so that only "cpu" appears here."""

    def __init__(self, device_type: int = 0, mem_type: int = 0, vendor_id: int = 0, device_id: int = 0):
        self._device_id = int(device_id)

    @staticmethod
    def make(ort_device_name: str, device_id: int, vendor_id: int = -1) -> "OrtDevice":
        require_cpu(ort_device_name)
        return OrtDevice(device_id=device_id)

    @staticmethod
    def cpu() -> int:
        return 0

    @staticmethod
    def default_memory() -> int:
        return 0

    def _get_c_device(self) -> "OrtDevice":
        return self

    def device_id(self) -> int:
        return self._device_id

    def device_type(self) -> int:
        return 0

    def device_vendor_id(self) -> int:
        return 0

    def device_mem_type(self) -> int:
        return 0


class OrtValue:
    """A tensor or a sequence in AI VMM's memory, or a view of an array's."""

    def __init__(self, value: "_core.Value | OrtValue", numpy_obj: np.ndarray | None = None):
        self._value: _core.Value = value._value if isinstance(value, OrtValue) else value

    def _get_c_value(self) -> "OrtValue":
        return self

    @classmethod
    def ortvalue_from_numpy(cls, numpy_obj: np.ndarray, /, device_type: str = "cpu", device_id: int = 0,
                            vendor_id: int = -1) -> "OrtValue":
        """Shares the memory of a C-contiguous array, which it keeps alive."""
        require_cpu(device_type)
        if not isinstance(numpy_obj, np.ndarray) or numpy_obj.dtype.kind in "OSU":
            raise RuntimeError("Creation of OrtValues is currently only supported from non-string numpy arrays")
        return cls(_core.Value.of(numpy_obj))

    @classmethod
    def ortvalue_from_numpy_with_onnx_type(cls, data: np.ndarray, /, onnx_element_type: int) -> "OrtValue":
        return cls(_core.Value.of(data, onnx_element_type))

    @classmethod
    def ortvalue_from_shape_and_type(cls, shape: Sequence[int], element_type: Any, device_type: str = "cpu",
                                     device_id: int = 0, vendor_id: int = -1, memory_info: Any = None) -> "OrtValue":
        require_cpu(device_type)
        if memory_info is not None:
            raise unsupported("OrtMemoryInfo")
        return cls(_core.Value.empty(onnx_number(element_type), [int(n) for n in shape]))

    @classmethod
    def from_dlpack(cls, data: Any, /) -> "OrtValue":
        return cls(_core.Value.of(data))

    @classmethod
    def ort_value_from_sparse_tensor(cls, sparse_tensor: Any) -> "OrtValue":
        raise unsupported("A sparse tensor")

    def as_sparse_tensor(self) -> "SparseTensor":
        raise unsupported("A sparse tensor")

    def data_ptr(self) -> int:
        return self._value.address

    def device_name(self) -> str:
        return "cpu"

    def shape(self) -> list[int]:
        return list(self._value.shape)

    def element_type(self) -> int:
        return self._value.onnx_type

    def data_type(self) -> str:
        if self._value.kind == "sequence":
            items = self._value.items()
            return f"seq({OrtValue(items[0]).data_type() if items else 'tensor(float)'})"
        return f"tensor({type_name(self._value.onnx_type)})"

    def tensor_size_in_bytes(self) -> int:
        return self._value.nbytes

    def has_value(self) -> bool:
        return self._value.kind != "none"

    def is_tensor(self) -> bool:
        return self._value.kind == "tensor"

    def is_sparse_tensor(self) -> bool:
        return False

    def is_tensor_sequence(self) -> bool:
        return self._value.kind == "sequence"

    def numpy(self) -> Any:
        """A copy."""
        return self._value.numpy()

    def update_inplace(self, data: "np.ndarray | OrtValue") -> None:
        """Copies an array of the same type and size over the contents."""
        source = data._value.view() if isinstance(data, OrtValue) else np.ascontiguousarray(data)
        target = self._value.view()
        if source.nbytes != target.nbytes:
            raise RuntimeError("The input size of numpy arrays does not match the size of the OrtValue.")
        if source.dtype != target.dtype:
            raise RuntimeError(f"The array is {source.dtype}, the OrtValue {target.dtype}; convert it first.")
        target[...] = source.reshape(target.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._value.view(), dtype=dtype, copy=copy)

    def __dlpack__(self, **options: Any) -> Any:
        return self._value.view().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


class OrtValueVector(list):
    """A list of OrtValues with the methods that ONNX Runtime's vector has."""

    def push_back(self, value: OrtValue | np.ndarray) -> None:
        self.append(value if isinstance(value, OrtValue) else OrtValue.ortvalue_from_numpy(value))

    def reserve(self, size: int) -> None:
        pass

    def shrink_to_fit(self) -> None:
        pass

    def to_numpy_list(self) -> list[Any]:
        return [v.numpy() for v in self]

    def element_type_at(self, index: int) -> int:
        return self[index].element_type()

    def bool_tensor_indices(self) -> list[int]:
        return [i for i, v in enumerate(self) if v.element_type() == 9]


class SparseTensor:
    """Sparse tensors are refused wherever they appear."""

    def __init__(self, *args: Any):
        raise unsupported("A sparse tensor")

    @classmethod
    def sparse_coo_from_numpy(cls, *args: Any) -> "SparseTensor":
        raise unsupported("A sparse tensor")

    @classmethod
    def sparse_csr_from_numpy(cls, *args: Any) -> "SparseTensor":
        raise unsupported("A sparse tensor")

    def format(self) -> OrtSparseFormat:
        return OrtSparseFormat.ORT_SPARSE_UNDEFINED


def copy_tensors(sources: Iterable[OrtValue], targets: Iterable[OrtValue], stream: Any = None) -> None:
    """Copies each tensor over its target, which has the same type and size."""
    if stream is not None:
        raise unsupported("A stream")
    for source, target in zip(sources, targets, strict=True):
        target.update_inplace(source)
