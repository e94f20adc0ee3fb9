"""AI VMM: run ONNX models on the best device of this machine, chosen by measuring.

    import ai_vmm
    model = ai_vmm.deploy("model.onnx")
    y = model(x)                       # NumPy in, NumPy out
    print(model.explain())             # what was chosen, and why
"""

from . import _core
from ._core import Cancel, Port, Value
from ._deployment import AsyncRun, Deployment, deploy
from ._devices import Device, devices
from ._errors import (Cancelled, Damaged, Error, Internal, InvalidArgument, NotFound, OutOfMemory, PermissionDenied,
                      Unimplemented)
from ._report import Candidate, Explanation, Fallback, Report, Transfer

__version__: str = _core.version

__all__ = ["AsyncRun", "Cancel", "Cancelled", "Candidate", "Damaged", "Deployment", "Device", "Error", "Explanation",
           "Fallback", "Internal", "InvalidArgument", "NotFound", "OutOfMemory", "PermissionDenied", "Port", "Report",
           "Unimplemented", "Value", "deploy", "devices"]
