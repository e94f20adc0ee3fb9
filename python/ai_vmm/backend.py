"""AI VMM as a backend of the ONNX project's interface (onnx.backend.base), which its test runner drives. Needs the package
onnx.

    rep = ai_vmm.backend.prepare(model)        # a ModelProto, its bytes or a path
    outputs = rep.run([x])                     # arrays in the order of the model's inputs → a tuple by position or name
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx.backend.base import Backend, BackendRep, Device, namedtupledict

from ._deployment import Deployment, deploy
from ._devices import devices
from ._errors import Error, InvalidArgument

_BACKENDS = {"CPU": "cpu", "CUDA": "cuda"}


class AiVmmBackendRep(BackendRep):
    """A deployed model. `deployment` is the ai_vmm.Deployment."""

    def __init__(self, deployment: Deployment):
        self.deployment = deployment
        self._outputs = namedtupledict("Outputs", [p.name for p in deployment.outputs])

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """`inputs`: a sequence in the model's order, a dict by name, or the one input. Raises ai_vmm.Error."""
        if kwargs:
            raise InvalidArgument(f"run() takes no {', '.join(sorted(kwargs))}.")
        ports = self.deployment.inputs
        if isinstance(inputs, Mapping):
            feed = dict(inputs)
        else:
            if isinstance(inputs, np.ndarray) or not isinstance(inputs, Sequence):
                inputs = [inputs]
            if len(inputs) > len(ports):
                raise InvalidArgument(f"The model takes {len(ports)} inputs; {len(inputs)} are given.")
            feed = {p.name: value for p, value in zip(ports, inputs)}
        results = self.deployment.run({name: value for name, value in feed.items() if value is not None})
        return self._outputs(*results.values())


class AiVmmBackend(Backend):
    """onnx.backend.base.Backend; device "CPU" is backend cpu, "CUDA" backend cuda. Keyword arguments are those of
    ai_vmm.deploy."""

    @classmethod
    def is_compatible(cls, model: Any, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether the model can be deployed there."""
        try:
            cls.prepare(model, device, **kwargs)
        except Error:
            return False
        return True

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **kwargs: Any) -> AiVmmBackendRep:
        if not cls.supports_device(device):
            raise InvalidArgument(f'No device "{device}" can be used; there are '
                                  f"{', '.join(d for d in _BACKENDS if cls.supports_device(d))}.")
        source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
        return AiVmmBackendRep(deploy(source, **{"device": _BACKENDS[device.split(":")[0]], **kwargs}))

    @classmethod
    def run_model(cls, model: Any, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(cls, node: onnx.NodeProto, inputs: Any, device: str = "CPU", outputs_info: Any = None,
                 **kwargs: Any) -> tuple[Any, ...]:
        """Runs one operator. `opset_version` is that of its domain (default: the newest that onnx knows)."""
        version = kwargs.pop("opset_version", None) or onnx.defs.onnx_opset_version()
        names = [name for name in node.input if name]
        values = list(inputs.values()) if isinstance(inputs, Mapping) else list(inputs)
        arrays = [np.asarray(v) for v in values]
        declared = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
                    for name, a in zip(names, arrays, strict=True)]
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        domains = {"": version} if not node.domain else {"": onnx.defs.onnx_opset_version(), node.domain: version}
        model = helper.make_model(helper.make_graph([node], "node", declared, outputs),
                                  opset_imports=[helper.make_opsetid(d, v) for d, v in domains.items()])
        return cls.run_model(model, arrays, device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        try:
            kind = Device(device)
        except (AttributeError, ValueError):
            return False
        name = _BACKENDS[device.split(":")[0]]
        return any(d.usable and d.backend == name and d.index == kind.device_id for d in devices())


is_compatible = AiVmmBackend.is_compatible
prepare = AiVmmBackend.prepare
run = AiVmmBackend.run_model
run_model = AiVmmBackend.run_model
run_node = AiVmmBackend.run_node
supports_device = AiVmmBackend.supports_device
