"""What an ONNX file declares of itself, read from its bytes without the package onnx: the library keeps types in its own
form, and programs written for ONNX Runtime look at the file's. Field numbers are those of onnx.proto."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

_TYPE_NAMES = ("undefined float uint8 int8 uint16 int16 int32 int64 string bool float16 double uint32 uint64 complex64 "
               "complex128 bfloat16 float8e4m3fn float8e4m3fnuz float8e5m2 float8e5m2fnuz uint4 int4 float4e2m1 "
               "float8e8m0 uint2 int2").split()


def type_name(number: int) -> str:
    """The name of an element type, as in "tensor(float)"."""
    return _TYPE_NAMES[number] if 0 <= number < len(_TYPE_NAMES) else "undefined"


@dataclasses.dataclass
class Declared:
    """An input or output as the file declares it."""

    name: str
    type: str  # "tensor(float)", "seq(map(int64,tensor(float)))"; "" if the file says nothing
    shape: list[int | str | None] | None  # of a tensor or an optional one; None: of any rank

    @property
    def is_tensor(self) -> bool:
        return self.type.startswith("tensor(")


@dataclasses.dataclass
class ModelFile:
    inputs: list[Declared]  # those that must be given
    defaults: list[Declared]  # inputs with a default value: an initializer of the same name
    outputs: list[Declared]
    graph_name: str = ""
    graph_description: str = ""
    producer_name: str = ""
    domain: str = ""
    description: str = ""
    version: int | None = None
    properties: dict[str, str] = dataclasses.field(default_factory=dict)


class _Damaged(ValueError):
    pass


def _varint(buffer, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise _Damaged


def _fields(buffer, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(field, start of its tag, start, end) of each; a varint's value stands in place of start."""
    while at < end:
        tag_at = at
        tag, at = _varint(buffer, at)
        wire = tag & 7
        if wire == 2:
            size, at = _varint(buffer, at)
            if at + size > end:
                raise _Damaged
            yield tag >> 3, tag_at, at, at + size
            at += size
        elif wire == 0:
            value, at = _varint(buffer, at)
            yield tag >> 3, tag_at, value, at
        elif wire == 5 or wire == 1:
            at += 4 if wire == 5 else 8
            yield tag >> 3, tag_at, at, at
        else:
            raise _Damaged


def _text(buffer, start: int, end: int) -> str:
    return bytes(buffer[start:end]).decode("utf-8", "replace")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _shape(buffer, start: int, end: int) -> list[int | str | None]:
    dims: list[int | str | None] = []
    for field, _, a, b in _fields(buffer, start, end):
        if field == 1:
            dim: int | str | None = None
            for f, _, x, y in _fields(buffer, a, b):
                if f == 1:
                    dim = _signed(x)
                elif f == 2:
                    dim = _text(buffer, x, y) or None
            dims.append(None if isinstance(dim, int) and dim < 0 else dim)
    return dims


def _type(buffer, start: int, end: int) -> tuple[str, list[int | str | None] | None]:
    for field, _, a, b in _fields(buffer, start, end):
        if field in (1, 8):  # tensor, sparse tensor
            element, shape = 0, None
            for f, _, x, y in _fields(buffer, a, b):
                if f == 1:
                    element = x
                elif f == 2:
                    shape = _shape(buffer, x, y)
            return f"{'tensor' if field == 1 else 'sparse_tensor'}({type_name(element)})", shape
        if field in (4, 9):  # sequence, optional
            inner: tuple[str, list[int | str | None] | None] = ("", None)
            for f, _, x, y in _fields(buffer, a, b):
                if f == 1:
                    inner = _type(buffer, x, y)
            return (f"seq({inner[0]})", []) if field == 4 else (f"optional({inner[0]})", inner[1])
        if field == 5:
            key, value = 0, ""
            for f, _, x, y in _fields(buffer, a, b):
                if f == 1:
                    key = x
                elif f == 2:
                    value = _type(buffer, x, y)[0]
            return f"map({type_name(key)},{value})", []
    return "", None


def _declared(buffer, start: int, end: int) -> Declared:
    d = Declared("", "", None)
    for field, _, a, b in _fields(buffer, start, end):
        if field == 1:
            d.name = _text(buffer, a, b)
        elif field == 2:
            d.type, d.shape = _type(buffer, a, b)
    return d


def _tensor_name(buffer, start: int, end: int) -> str:
    for field, _, a, b in _fields(buffer, start, end):
        if field == 8:
            return _text(buffer, a, b)
    return ""


def _initializer_name(buffer, field: int, start: int, end: int) -> str:
    if field == 5:
        return _tensor_name(buffer, start, end)
    for f, _, a, b in _fields(buffer, start, end):  # sparse: the values carry the name
        if f == 1:
            return _tensor_name(buffer, a, b)
    return ""


def read(buffer) -> ModelFile:
    """From bytes or a mapped file. Raises ValueError for what is no ONNX file."""
    try:
        m = ModelFile([], [], [])
        initializers: set[str] = set()
        for field, _, a, b in _fields(buffer, 0, len(buffer)):
            if field == 2:
                m.producer_name = _text(buffer, a, b)
            elif field == 4:
                m.domain = _text(buffer, a, b)
            elif field == 5:
                m.version = _signed(a)
            elif field == 6:
                m.description = _text(buffer, a, b)
            elif field == 14:
                pair = ["", ""]
                for f, _, x, y in _fields(buffer, a, b):
                    if f in (1, 2):
                        pair[f - 1] = _text(buffer, x, y)
                m.properties[pair[0]] = pair[1]
            elif field == 7:
                for f, _, x, y in _fields(buffer, a, b):
                    if f == 2:
                        m.graph_name = _text(buffer, x, y)
                    elif f == 10:
                        m.graph_description = _text(buffer, x, y)
                    elif f == 11:
                        m.inputs.append(_declared(buffer, x, y))
                    elif f == 12:
                        m.outputs.append(_declared(buffer, x, y))
                    elif f in (5, 15):
                        initializers.add(_initializer_name(buffer, f, x, y))
    except (IndexError, _Damaged) as e:
        raise ValueError("not an ONNX file") from e
    m.defaults = [d for d in m.inputs if d.name in initializers]
    m.inputs = [d for d in m.inputs if d.name not in initializers]
    return m


def _encode(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _block(field: int, payload: bytes) -> bytes:
    return _encode(field << 3 | 2) + _encode(len(payload)) + payload


def _map(buffer, start: int, end: int, change: Callable[[int, int, int], bytes | None]) -> bytes:
    """The message with each field replaced by what `change(field, start, end)` gives; None keeps it as it is."""
    parts = []
    for field, tag_at, a, b in _fields(buffer, start, end):
        new = change(field, a, b)
        parts.append(bytes(buffer[tag_at:b]) if new is None else new)
    return b"".join(parts)


def rewrite(buffer, *, sizes: Mapping[str, int] | None = None, denoted: Mapping[str, int] | None = None,
            forget_names: bool = False) -> bytes:
    """The model with named sizes made numbers, by name or by denotation; or with the names of sizes forgotten, so that
    equal names no longer mean equal sizes."""
    sizes, denoted = sizes or {}, denoted or {}

    def dim(a: int, b: int) -> bytes | None:
        name = denotation = ""
        for f, _, x, y in _fields(buffer, a, b):
            if f == 2:
                name = _text(buffer, x, y)
            elif f == 3:
                denotation = _text(buffer, x, y)
        number = sizes.get(name) if name else None
        number = denoted.get(denotation, number) if denotation else number
        if number is not None:
            return _block(1, b"\x08" + _encode(number))
        return _block(1, b"") if name and forget_names else None

    def shape(a: int, b: int) -> bytes:
        return _map(buffer, a, b, lambda f, x, y: dim(x, y) if f == 1 else None)

    def of_type(a: int, b: int) -> bytes:
        def inside(field: int):
            nested = 2 if field in (1, 8, 5) else 1
            if field in (1, 8):
                return lambda f, x, y: _block(2, shape(x, y)) if f == nested else None
            return lambda f, x, y: _block(nested, of_type(x, y)) if f == nested else None

        return _map(buffer, a, b,
                    lambda f, x, y: _block(f, _map(buffer, x, y, inside(f))) if f in (1, 4, 5, 8, 9) else None)

    def value_info(field: int, a: int, b: int) -> bytes:
        return _block(field, _map(buffer, a, b, lambda f, x, y: _block(2, of_type(x, y)) if f == 2 else None))

    def graph(field: int, a: int, b: int) -> bytes | None:
        return value_info(field, a, b) if field in (11, 12, 13) else None

    return _map(buffer, 0, len(buffer),
                lambda field, a, b: _block(7, _map(buffer, a, b, graph)) if field == 7 else None)
