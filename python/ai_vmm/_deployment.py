"""deploy() and what it gives."""

import asyncio
import concurrent.futures
import os
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np

from . import _core
from ._errors import InvalidArgument
from ._report import Explanation, Report

_threads: concurrent.futures.ThreadPoolExecutor | None = None


def _executor() -> concurrent.futures.ThreadPoolExecutor:
    """Threads that wait for asynchronous runs; the computing happens in the compute pool that all runs share."""
    global _threads
    if _threads is None:
        _threads = concurrent.futures.ThreadPoolExecutor(8, thread_name_prefix="ai_vmm")
    return _threads


def _after_fork() -> None:
    global _threads
    _threads = None  # threads do not survive fork()


os.register_at_fork(after_in_child=_after_fork)


def _array(value: Any, dtype: np.dtype | None) -> np.ndarray:
    """An array as it is; plain numbers and lists in the type that the model takes, as far as that keeps their meaning."""
    array = np.asarray(value)
    plain = isinstance(value, (bool, int, float, list, tuple))
    return array.astype(dtype) if plain and dtype and np.can_cast(array.dtype, dtype, "same_kind") else array


class AsyncRun:
    """A run under way. `await` it in a coroutine, or ask it for its `result()` from a thread."""

    def __init__(self, future: concurrent.futures.Future, cancel: _core.Cancel):
        self._future = future
        self._cancel = cancel

    def __await__(self) -> Generator[Any, None, dict[str, Any]]:
        return self._wait().__await__()

    async def _wait(self) -> dict[str, Any]:
        try:
            return await asyncio.shield(asyncio.wrap_future(self._future))
        except asyncio.CancelledError:
            self.cancel()  # the task that waits is cancelled, and so is the run
            raise

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """The outputs by name. Raises what the run raised, and TimeoutError after `timeout` seconds."""
        return self._future.result(timeout)

    def done(self) -> bool:
        return self._future.done()

    def cancel(self) -> None:
        """Ends the run soon: result() then raises ai_vmm.Cancelled."""
        self._cancel.set = True


class Deployment(_core.Deployment):
    """A loaded, warmed model on the device that was chosen for it. May be called from many threads at once.

    model(x)               one run; inputs in order or by name; NumPy, DLPack, __array__, numbers, lists
    model.run({"x": x})    the same, all outputs by name; `out` gives arrays to write into
    """

    def run_async(self, *args: Any, **named: Any) -> AsyncRun:
        """Starts a run and returns at once. Takes inputs as a call does; gives all outputs by name.

        Input arrays are read in place while the run goes on: do not write to them before it ends.
        """
        if len(args) > len(self.inputs):
            raise InvalidArgument(f"The model takes {len(self.inputs)} inputs; {len(args)} are given.")
        feed = {port.name: value for port, value in zip(self.inputs, args)}
        if twice := feed.keys() & named.keys():
            raise InvalidArgument(f"Given twice, in order and by name: {', '.join(sorted(twice))}.")
        cancel = _core.Cancel()
        return AsyncRun(_executor().submit(self._run_owned, {**feed, **named}, cancel), cancel)

    def run_batch(self, samples: Sequence[Mapping[str, Any]], *, batch_size: int = 0) -> list[dict[str, np.ndarray]]:
        """Runs many samples together: each is a dict of inputs by name, as `run` takes it, with the batch axis in front
        (size 1 or more); one dict of outputs a sample comes back, in order.

        Samples are joined along the first axis, at most `batch_size` rows a run (0: all in one). Where the model fixes
        the size of that axis, samples run one after the other. Raises InvalidArgument if an output has no such axis.
        """
        if not all(p.dtype is not None and p.shape and isinstance(p.shape[0], str) for p in self.inputs):
            return [self.run(dict(sample)) for sample in samples]
        types = {p.name: p.dtype for p in self.inputs}
        samples = [{name: _array(value, types.get(name)) for name, value in sample.items()} for sample in samples]
        rows = []
        for i, sample in enumerate(samples):
            sizes = {value.shape[0] if value.ndim else 0 for value in sample.values()}
            if len(sizes) != 1:
                raise InvalidArgument(f"Sample {i}: the first axes of its inputs differ: {sorted(sizes)}.")
            rows.append(sizes.pop())
        results: list[dict[str, np.ndarray]] = []
        start = 0
        while start < len(samples):
            stop, total = start + 1, rows[start]
            while stop < len(samples) and (not batch_size or total + rows[stop] <= batch_size):
                total += rows[stop]
                stop += 1
            part = samples[start:stop]
            outputs = self.run({name: np.concatenate([s[name] for s in part]) for name in part[0]})
            for name, value in outputs.items():
                if not isinstance(value, np.ndarray) or value.ndim == 0 or value.shape[0] != total:
                    raise InvalidArgument(f'Output "{name}" has no batch axis: {total} rows went in, and its shape is '
                                          f'{getattr(value, "shape", None)}. Run the samples one by one.')
            ends = np.cumsum(rows[start:stop])[:-1]
            split = {name: np.split(value, ends) for name, value in outputs.items()}
            results += [{name: split[name][k] for name in split} for k in range(len(part))]
            start = stop
        return results

    def report(self) -> Report:
        """The record of what was chosen and why; read anew at each call."""
        return Report(self._report_json())

    def explain(self) -> Explanation:
        """The report for people: print it in a terminal, show it in Jupyter."""
        return Explanation(self.report())

    def __repr__(self) -> str:
        ports = ", ".join(f"{p.name}: {p.type}" for p in self.inputs)
        outs = ", ".join(f"{p.name}: {p.type}" for p in self.outputs)
        return f"Deployment(({ports}) -> ({outs}))"


def deploy(model: str | os.PathLike | bytes | bytearray | memoryview, *, device: str = "auto", threads: int = 0,
           precision: str = "model", memory_limit: int = 0, strict: bool | None = None,
           deterministic: bool | None = None, tune_budget_ms: int = 0,
           shapes: Mapping[str, Sequence[int]] | None = None, seed: int = 0, copy_weights: bool | None = None,
           allow_links: bool | None = None, disabled_passes: Sequence[str] = ()) -> Deployment:
    """Loads an ONNX model and makes it ready on the fastest device of this machine.

    What is left out is as configured (`aivmm config`).

    model            a path, or the bytes of a model (copied; external data needs a path)
    device           "auto": as configured, by default the fastest by measurement; or a backend, "cpu" for instance (see
                     ai_vmm.devices()); or several, separated by commas: the fastest of those
    threads          compute threads at most; 0: the fastest count that affinity and cgroup allow
    precision        "model": as the model says; "f32"; "auto"
    memory_limit     bytes of tensors alive at once; 0: a share of the machine's memory
    strict           True: a node that no device can run is an error, not a fall to the slow reference
    deterministic    True: kernel choices are pinned across loads, nothing is chosen by measurement
    tune_budget_ms   time for measuring candidates, beyond one run of each
    shapes           sizes of inputs whose dimensions are symbolic, for measuring: {"x": (1, 3, 224, 224)}
    seed             of operators that draw random numbers; 0: a new one each run
    copy_weights     True: read weights into memory instead of mapping the file
    allow_links      True: external data may be links that leave the model's folder
    disabled_passes  names of graph passes to leave out

    Raises NotFound, Damaged, InvalidArgument, Unimplemented or OutOfMemory, all ai_vmm.Error.
    """
    source = os.fsdecode(model) if isinstance(model, (str, os.PathLike)) else model
    if not isinstance(source, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"deploy takes a path or the bytes of a model, not {type(model).__name__}.")
    return Deployment(source, device=device, threads=threads, precision=precision, memory_limit=memory_limit,
                      strict=strict, deterministic=deterministic, tune_budget_ms=tune_budget_ms,
                      shapes={name: [int(n) for n in shape] for name, shape in (shapes or {}).items()}, seed=seed,
                      copy_weights=copy_weights, allow_links=allow_links, disabled_passes=list(disabled_passes))
