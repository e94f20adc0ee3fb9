"""The devices of this machine."""

import dataclasses

from . import _core


@dataclasses.dataclass(frozen=True)
class Device:
    """Something that a model can run on. Devices with the same `resource` are the same silicon, shown twice."""

    backend: str
    index: int
    name: str
    version: str
    resource: str
    memory_bytes: int | None  # None: unknown
    problem: str  # why it cannot be used; empty when it can

    @property
    def usable(self) -> bool:
        return not self.problem


def devices() -> list[Device]:
    """Every device of every backend of this build, the preferred backend first; also those that cannot be used, with
    the reason."""
    return [Device(**row) for row in _core.devices()]
