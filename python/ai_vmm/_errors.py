"""Exceptions. Each carries a sentence that names the value and the way out."""


class Error(Exception):
    """What AI VMM could not do. `code` is the name of the status: "invalid_argument", "unimplemented", …"""

    code = "unknown"


class InvalidArgument(Error, ValueError):
    """The caller gave something that cannot be right: a name, a type, a shape, a setting."""

    code = "invalid_argument"


class NotFound(Error, FileNotFoundError):
    """A file or a device is not there."""

    code = "not_found"


class PermissionDenied(Error, PermissionError):
    """The system, or a rule such as "external data stays in the model's folder", forbids it."""

    code = "permission_denied"


class OutOfMemory(Error, MemoryError):
    """The memory limit of the deployment, or the machine's memory, is used up."""

    code = "resource_exhausted"


class Unimplemented(Error, NotImplementedError):
    """Valid, but no part of this build can do it."""

    code = "unimplemented"


class Cancelled(Error):
    """The run was ended by the caller."""

    code = "cancelled"


class Damaged(Error, ValueError):
    """The model file is damaged or cut short."""

    code = "data_loss"


class Internal(Error, RuntimeError):
    """A bug in AI VMM."""

    code = "internal"


# By the numbers of ai_vmm::Code, which are gRPC's.
_NAMES = ("ok cancelled unknown invalid_argument deadline_exceeded not_found already_exists permission_denied "
          "resource_exhausted failed_precondition aborted out_of_range unimplemented internal unavailable data_loss "
          "unauthenticated").split()
_TYPES = {t.code: t for t in (InvalidArgument, NotFound, PermissionDenied, OutOfMemory, Unimplemented, Cancelled,
                              Damaged, Internal)}


def make(code: int, message: str) -> Error:
    """The exception for a status."""
    name = _NAMES[code] if code < len(_NAMES) else "unknown"
    error = _TYPES.get(name, Error)(message)
    error.code = name
    return error
