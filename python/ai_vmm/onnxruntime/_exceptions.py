"""The exceptions of ONNX Runtime, by its status codes, with AI VMM's sentences."""


class Fail(Exception):
    pass


class InvalidArgument(Exception):
    pass


class NoSuchFile(Exception):
    pass


class NoModel(Exception):
    pass


class EngineError(Exception):
    pass


class RuntimeException(Exception):
    pass


class InvalidProtobuf(Exception):
    pass


class ModelLoaded(Exception):
    pass


class NotImplemented(Exception):  # noqa: A001 - ONNX Runtime's name
    pass


class InvalidGraph(Exception):
    pass


class EPFail(Exception):
    pass


class ModelLoadCanceled(Exception):
    pass


class ModelRequiresCompilation(Exception):
    pass


class NotFound(Exception):
    pass


class DeviceReset(Exception):
    pass


_CODES = {Fail: (1, "FAIL"), InvalidArgument: (2, "INVALID_ARGUMENT"), NoSuchFile: (3, "NO_SUCHFILE"),
          RuntimeException: (6, "RUNTIME_EXCEPTION"), InvalidProtobuf: (7, "INVALID_PROTOBUF"),
          NotImplemented: (9, "NOT_IMPLEMENTED"), InvalidGraph: (10, "INVALID_GRAPH")}


def error(kind: type[Exception], text: str) -> Exception:
    """An exception worded as ONNX Runtime words its own."""
    number, name = _CODES[kind]
    return kind(f"[ONNXRuntimeError] : {number} : {name} : {text}")


def unsupported(what: str, way_out: str = "Use onnxruntime itself for it.") -> Exception:
    return error(NotImplemented, f"{what} is not part of AI VMM's stand-in for ONNX Runtime. {way_out}")


# What a failed load or run becomes, by the name of AI VMM's status code.
_ON_LOAD = {"not_found": NoSuchFile, "data_loss": InvalidProtobuf, "invalid_argument": InvalidGraph,
            "unimplemented": InvalidGraph, "permission_denied": InvalidArgument,
            "resource_exhausted": RuntimeException}
_ON_RUN = {"unimplemented": NotImplemented, "resource_exhausted": RuntimeException, "internal": RuntimeException}


def on_load(code: str, message: str) -> Exception:
    return error(_ON_LOAD.get(code, Fail), message)


def on_run(code: str, message: str) -> Exception:
    if code == "cancelled":
        message = "Exiting due to terminate flag being set to true."
    return error(_ON_RUN.get(code, Fail), message)
