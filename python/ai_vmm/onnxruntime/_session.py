"""InferenceSession and IOBinding."""

import copy
import mmap
import os
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from .. import _core, _onnx_file
from .._deployment import Deployment, _executor, deploy
from .._errors import Error, make
from . import _providers, _state
from ._core_types import RunOptions
from ._exceptions import Fail, InvalidArgument, InvalidProtobuf, error, on_load, on_run, unsupported
from ._options import SessionOptions
from ._values import OrtValue, OrtValueVector, onnx_number, require_cpu


class NodeArg:
    """An input or output as the model declares it: its name, its type ("tensor(float)") and its shape, in which a number is
    a size, text the name of one that inputs decide, None a size without a name."""

    def __init__(self, name: str, type: str, shape: list[int | str | None]):  # noqa: A002 - ONNX Runtime's name
        self.name, self.type, self.shape = name, type, shape

    def __str__(self) -> str:
        return f"NodeArg(name={self.name!r}, type={self.type!r}, shape={self.shape!r})"


class ModelMetadata:
    """What the model file says of itself."""

    def __init__(self, file: _onnx_file.ModelFile):
        self.producer_name = file.producer_name
        self.graph_name = file.graph_name
        self.domain = file.domain
        self.description = file.description
        self.graph_description = file.graph_description
        self.version = (1 << 63) - 1 if file.version is None else file.version
        self.custom_metadata_map = dict(file.properties)


def _open(path: str) -> Any:
    """The file's bytes, mapped. Raises OSError."""
    with open(path, "rb") as f:
        if os.fstat(f.fileno()).st_size == 0:
            return b""
        return mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)


def _bare(e: Exception) -> str:
    """The sentence without ONNX Runtime's prefix, which its asynchronous and bound runs leave out."""
    text = str(e)
    return text.split(" : ", 3)[-1] if text.startswith("[ONNXRuntimeError]") else text


class InferenceSession(_core.Session):
    """onnxruntime.InferenceSession on AI VMM. `deployment` is the AI VMM deployment behind it."""

    def __init__(self, path_or_bytes: str | bytes | os.PathLike, sess_options: SessionOptions | None = None,
                 providers: Sequence[Any] | None = None, provider_options: Sequence[dict[str, Any]] | None = None, *,
                 disabled_optimizers: Sequence[str] | None = None, enable_fallback: int = 1,
                 read_config_from_model: int = 0):
        super().__init__()
        if isinstance(path_or_bytes, (str, os.PathLike)):
            self._source: str | bytes = os.fspath(path_or_bytes)
        elif isinstance(path_or_bytes, bytes):
            self._source = path_or_bytes
        else:
            raise TypeError(f"Unable to load from type '{type(path_or_bytes)}'")
        if sess_options is not None and not isinstance(sess_options, SessionOptions):
            raise TypeError(f"sess_options takes SessionOptions, not {type(sess_options).__name__}.")
        if read_config_from_model:
            raise unsupported("A session configuration inside a model")
        self._options = sess_options._copy() if sess_options else SessionOptions()
        self._start(providers, provider_options)

    # ------------------------------------------------------------ loading

    def _start(self, providers: Sequence[Any] | None, provider_options: Sequence[dict[str, Any]] | None) -> None:
        backend, self._providers = _providers.settle(providers, provider_options)
        options = self._options
        threads = options.intra_op_num_threads if options.use_per_session_threads else _state.pool_threads
        strict = options._entries.get("session.disable_cpu_ep_fallback") == "1"
        self._settings = {"device": backend, "threads": max(threads, 0), "seed": _state.seed,
                          "strict": True if strict else None,
                          "deterministic": True if options.use_deterministic_compute else None}
        self._nameless: Deployment | None = None
        try:
            bytes_ = self._bytes()
            self._file = _onnx_file.read(bytes_)
        except FileNotFoundError:
            raise on_load("not_found", f"Load model from {self._source} failed. File doesn't exist") from None
        except IsADirectoryError:
            raise error(InvalidProtobuf, f"Load model from {self._source!s} failed: it is a folder.") from None
        except OSError as e:
            raise error(Fail, f"Load model from {self._source!s} failed: {e.strerror}.") from None
        except ValueError:
            source = "" if isinstance(self._source, bytes) else f"Load model from {self._source} failed: "
            raise error(InvalidProtobuf, f"{source}Protobuf parsing failed: it is not an ONNX model.") from None
        if len(bytes_) == 0:
            raise error(InvalidArgument, "No graph was found in the protobuf: the model is empty.")
        model: str | bytes = self._source
        if options._sizes or options._denoted:
            model = _onnx_file.rewrite(bytes_, sizes=options._sizes, denoted=options._denoted)
            self._file = _onnx_file.read(model)
        self.deployment = self._deploy(model)
        self._use(self.deployment)
        self._describe()

    def _bytes(self) -> Any:
        return self._source if isinstance(self._source, bytes) else _open(self._source)

    def _deploy(self, model: str | bytes) -> Deployment:
        try:
            return deploy(model, **self._settings)
        except Error as e:
            raise on_load(e.code, str(e)) from None

    def _without_names(self) -> Deployment:
        """The deployment for calls in which sizes of one name differ, which ONNX Runtime allows."""
        if self._nameless is None:
            self._nameless = self._deploy(_onnx_file.rewrite(
                self._bytes(), sizes=self._options._sizes, denoted=self._options._denoted, forget_names=True))
        return self._nameless

    def _describe(self) -> None:
        ports = {p.name: p for p in (*self.deployment.inputs, *self.deployment.outputs)}
        names = {d for i in (*self._file.inputs, *self._file.defaults) for d in i.shape or () if isinstance(d, str)}

        def arg(d: _onnx_file.Declared) -> NodeArg:
            port = ports.get(d.name)
            kind, shape = d.type, d.shape
            if not kind and port is not None and port.dtype is not None:
                kind = f"tensor({_onnx_file.type_name(onnx_number(port.dtype))})"
            if shape is None:  # what the file leaves open, inference may know
                shape = [s if isinstance(s, int) or s in names else None for s in (port.shape if port else None) or ()]
            return NodeArg(d.name, kind, shape)

        self._inputs = [arg(d) for d in self._file.inputs]
        overridable = {p.name for p in self.deployment.overridable}
        self._defaults = [arg(d) for d in self._file.defaults if d.name in overridable]
        self._outputs = [arg(d) for d in self._file.outputs]

    # ------------------------------------------------------------ facts

    def get_inputs(self) -> list[NodeArg]:
        return list(self._inputs)

    def get_outputs(self) -> list[NodeArg]:
        return list(self._outputs)

    def get_overridable_initializers(self) -> list[NodeArg]:
        return list(self._defaults)

    def get_modelmeta(self) -> ModelMetadata:
        return ModelMetadata(self._file)

    def get_providers(self) -> list[str]:
        return list(self._providers)

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {name: dict(options) for name, options in self._providers.items()}

    def set_providers(self, providers: Sequence[Any] | None = None,
                      provider_options: Sequence[dict[str, Any]] | None = None) -> None:
        """Loads the model anew for other providers."""
        self._start(providers, provider_options)

    def get_session_options(self) -> SessionOptions:
        return self._options._copy()

    def enable_fallback(self) -> None:
        """Nodes that a device cannot run always fall to another one, and the report says so."""

    def disable_fallback(self) -> None:
        """ONNX Runtime's fallback to other providers when one fails to start; there is none here."""

    def get_profiling_start_time_ns(self) -> int:
        return 0

    def end_profiling(self) -> str:
        return ""

    def get_tuning_results(self) -> list[Any]:
        return []

    def set_tuning_results(self, results: Any, *, error_on_invalid: bool = False) -> None:
        if results:
            raise unsupported("Tuning results of ONNX Runtime")

    def set_ep_dynamic_options(self, options: dict[str, str]) -> None:
        raise unsupported("A dynamic option of an execution provider")

    def get_input_epdevices(self) -> NoReturn:
        raise unsupported("get_input_epdevices", "session.deployment.report() says where the model runs.")

    def get_input_memory_infos(self) -> NoReturn:
        raise unsupported("get_input_memory_infos", "session.deployment.report() says where the model runs.")

    def get_output_memory_infos(self) -> NoReturn:
        raise unsupported("get_output_memory_infos", "session.deployment.report() says where the model runs.")

    def get_provider_graph_assignment_info(self) -> NoReturn:
        raise unsupported("get_provider_graph_assignment_info",
                          "session.deployment.report() says where each node runs.")

    def create_ortvalue_from_shape_and_type(self, shape: Sequence[int], element_type: Any, device_type: str,
                                            device_id: int = 0, vendor_id: int = -1) -> OrtValue:
        return OrtValue.ortvalue_from_shape_and_type(shape, element_type, device_type, device_id)

    # ------------------------------------------------------------ running; `run` itself is in the extension module

    def _raise(self, code: int, message: str) -> NoReturn:
        raise on_run(make(code, message).code, message)

    def _output_names(self, names: Sequence[str] | None) -> list[str]:
        known = [o.name for o in self._outputs]
        if names is None or len(names) == 0:
            return known
        if isinstance(names, str) or not all(isinstance(n, str) for n in names):
            raise TypeError("run(): output_names takes a sequence of str or None.")
        for name in names:
            if name not in known:
                raise error(InvalidArgument, f"Invalid output name:{name}")
        return list(names)

    def _data(self, arg: NodeArg, value: Any) -> Any:
        """What run() was given for an input, as ONNX Runtime takes it: an array, an OrtValue, a list, a dict."""
        if isinstance(value, OrtValue):
            return value._value
        if isinstance(value, np.ndarray) or value is None:
            return value
        if arg.type.startswith("tensor("):
            if isinstance(value, (list, tuple)):
                port = next((p for p in self.deployment.inputs if p.name == arg.name), None)
                return np.array(value, port.dtype if port else None)
            if isinstance(value, str):
                raise RuntimeError(f"Input must be a list of dictionaries or a single numpy array for input '{arg.name}'.")
            raise RuntimeError(f"Unable to handle object of type {type(value)}")
        if arg.type.startswith("map(") and isinstance(value, list) and len(value) == 1:
            return value[0]
        if isinstance(value, (list, tuple, dict)):
            return value
        raise RuntimeError(f"Unable to handle object of type {type(value)}")

    def _check(self, arg: NodeArg, value: Any, sizes: dict[str, int]) -> bool:
        """Raises for a type or shape that does not fit; False: a named size differs from that of another input."""
        if not arg.type.startswith("tensor("):
            if isinstance(value, np.ndarray) and arg.type.startswith("seq("):
                raise error(InvalidArgument, f"input with name: '{arg.name}' expected to be of type: {arg.type} but "
                                             "received a tensor")
            return True
        if value is None:
            raise error(Fail, f"Input {arg.name} is None; the model takes {arg.type}.")
        data = value if isinstance(value, _core.Value) else _core.Value.of(value)
        if data.kind != "tensor":
            raise error(InvalidArgument, f"Input {arg.name} is a {data.kind}; the model takes {arg.type}.")
        given = f"tensor({_onnx_file.type_name(data.onnx_type)})"
        if given != arg.type:
            raise error(InvalidArgument, f"Unexpected input data type. Actual: ({given}) , expected: ({arg.type})")
        shape = data.shape
        declared = next(d for d in (*self._file.inputs, *self._file.defaults) if d.name == arg.name).shape
        if declared is None:
            return True
        if len(shape) != len(declared):
            raise error(InvalidArgument, f"Invalid rank for input: {arg.name} Got: {len(shape)} Expected: "
                                         f"{len(declared)} Please fix either the inputs/outputs or the model.")
        wrong = [(i, got, want) for i, (got, want) in enumerate(zip(shape, declared))
                 if isinstance(want, int) and got != want]
        if wrong:
            lines = "".join(f"\n index: {i} Got: {got} Expected: {want}" for i, got, want in wrong)
            raise error(InvalidArgument, f"Got invalid dimensions for input: {arg.name} for the following indices{lines}"
                                         "\n Please fix either the inputs/outputs or the model.")
        return all(sizes.setdefault(d, n) == n for d, n in zip(declared, shape) if isinstance(d, str))

    def _prepare(self, input_feed: dict[str, Any]) -> tuple[Deployment, dict[str, Any]]:
        """The deployment and the inputs for a call, checked as ONNX Runtime checks them."""
        given = list(input_feed.keys())
        missing = [i.name for i in self._inputs if i.name not in input_feed and not i.type.startswith("optional(")]
        if missing:
            raise ValueError(f"Required inputs ({missing}) are missing from input feed ({given}).")
        args = {a.name: a for a in (*self._inputs, *self._defaults)}
        sizes: dict[str, int] = {}
        feed, agree = {}, True
        for name, value in input_feed.items():
            if name not in args:
                raise error(InvalidArgument, f"Invalid input name: {name}")
            feed[name] = self._data(args[name], value)
            agree = self._check(args[name], feed[name], sizes) and agree
        return self.deployment if agree else self._without_names(), feed

    def _irregular_run(self, output_names: Any, input_feed: Any, run_options: Any) -> list[Any]:
        """What `run` leaves over: calls that do not fit the model's declaration to the letter, and wrong ones."""
        if run_options is not None and not isinstance(run_options, RunOptions):
            raise TypeError(f"run_options takes RunOptions, not {type(run_options).__name__}.")
        deployment, feed = self._prepare(input_feed)
        names = self._output_names(output_names)
        try:
            results = deployment.run(feed, cancel=run_options._cancel if run_options else None)
        except Error as e:
            raise on_run(e.code, str(e)) from None
        return [results[name] if names.count(name) == 1 else copy.deepcopy(results[name]) for name in names]

    def _run_values(self, feed: dict[str, Any], into: dict[str, Any], run_options: RunOptions | None) -> dict[str, Any]:
        deployment, data = self._prepare(feed)
        try:
            values = deployment._run_values(data, into, run_options._cancel if run_options else None)
        except Error as e:
            raise on_run(e.code, str(e)) from None
        return {port.name: value for port, value in zip(deployment.outputs, values)}

    def run_with_ort_values(self, output_names: Sequence[str] | None, input_dict_ort_values: dict[str, OrtValue],
                            run_options: RunOptions | None = None) -> list[OrtValue]:
        """`run` with OrtValues in and out."""
        names = self._output_names(output_names)
        results = self._run_values(input_dict_ort_values, {}, run_options)
        return [OrtValue(results[name]) for name in names]

    def run_with_ortvaluevector(self, run_options: RunOptions | None, feed_names: Sequence[str],
                                feeds: Sequence[OrtValue], fetch_names: Sequence[str], fetches: OrtValueVector,
                                fetch_devices: Sequence[Any]) -> None:
        """`run` with lists of OrtValues; results replace the contents of `fetches`."""
        results = self.run_with_ort_values(fetch_names, dict(zip(feed_names, feeds, strict=True)), run_options)
        fetches[:] = results

    def run_async(self, output_names: Sequence[str] | None, input_feed: dict[str, Any],
                  callback: Callable[[list[Any], Any, str], None], user_data: Any,
                  run_options: RunOptions | None = None) -> None:
        """Starts `run` and returns; `callback(results, user_data, error)` is called from another thread, with an empty
        error on success."""
        feed = dict(input_feed)

        def work() -> None:
            try:
                results, text = self.run(output_names, feed, run_options), ""
            except Exception as e:  # whatever it is, it is the callback's
                results, text = [], _bare(e)
            callback(results, user_data, text)

        _executor().submit(work)

    def io_binding(self) -> "IOBinding":
        return IOBinding(self)

    def run_with_iobinding(self, iobinding: "IOBinding", run_options: RunOptions | None = None) -> None:
        """Runs on what is bound; results are then in the bound outputs."""
        if not iobinding._outputs:
            raise RuntimeError("Error in execution: At least one output should be requested.")
        into = {name: value._value for name, value in iobinding._outputs.items() if value is not None}
        try:
            results = self._run_values(iobinding._inputs, into, run_options)
        except Exception as e:  # ONNX Runtime gives every failure here this type
            raise RuntimeError(f"Error in execution: {_bare(e)}") from e
        unknown = [name for name in iobinding._outputs if name not in results]
        if unknown:
            raise RuntimeError(f"Error in execution: Invalid output name:{unknown[0]}")
        iobinding._results = {name: OrtValue(results[name]) for name in iobinding._outputs}


class IOBinding:
    """Inputs and outputs bound to memory ahead of runs. `session` runs it with run_with_iobinding."""

    def __init__(self, session: InferenceSession):
        self._names = [a.name for a in (*session._inputs, *session._defaults)]
        self._inputs: dict[str, OrtValue] = {}
        self._outputs: dict[str, OrtValue | None] = {}
        self._results: dict[str, OrtValue] = {}

    def _bind(self, name: str, value: OrtValue) -> None:
        if name not in self._names:
            raise RuntimeError(f"Failed to find NodeArg with name: {name} in the def list")
        self._inputs[name] = value

    def bind_cpu_input(self, name: str, arr_on_cpu: np.ndarray) -> None:
        """Binds an array: its memory, if C-contiguous, is read at each run."""
        self._bind(name, OrtValue(_core.Value.of(arr_on_cpu)))

    def bind_input(self, name: str, device_type: str, device_id: int, element_type: Any, shape: Sequence[int],
                   buffer_ptr: int) -> None:
        """Binds memory that the caller keeps alive."""
        require_cpu(device_type)
        self._bind(name, OrtValue(_core.Value.at(buffer_ptr, onnx_number(element_type), [int(n) for n in shape])))

    def bind_ortvalue_input(self, name: str, ortvalue: OrtValue) -> None:
        self._bind(name, ortvalue)

    def bind_output(self, name: str, device_type: str = "cpu", device_id: int = 0, element_type: Any = None,
                    shape: Sequence[int] | None = None, buffer_ptr: int | None = None) -> None:
        """Binds memory that the caller keeps alive, or, without `buffer_ptr`, asks for the output in new memory."""
        require_cpu(device_type)
        self._outputs[name] = None if buffer_ptr is None else OrtValue(
            _core.Value.at(buffer_ptr, onnx_number(element_type), [int(n) for n in shape or ()]))

    def bind_ortvalue_output(self, name: str, ortvalue: OrtValue) -> None:
        self._outputs[name] = ortvalue

    def synchronize_inputs(self) -> None:
        """Nothing is under way between calls."""

    def synchronize_outputs(self) -> None:
        """Nothing is under way between calls."""

    def get_outputs(self) -> list[OrtValue]:
        return list(self._results.values())

    def get_outputs_as_ortvaluevector(self) -> OrtValueVector:
        return OrtValueVector(self._results.values())

    def copy_outputs_to_cpu(self) -> list[Any]:
        return [v.numpy() for v in self._results.values()]

    def clear_binding_inputs(self) -> None:
        self._inputs.clear()

    def clear_binding_outputs(self) -> None:
        self._outputs.clear()
        self._results.clear()
