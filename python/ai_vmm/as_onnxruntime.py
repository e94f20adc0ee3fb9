"""Puts ai_vmm.onnxruntime in the place of onnxruntime, for programs that are not to be changed.

    python -m ai_vmm.as_onnxruntime SCRIPT [ARGS]       a file, or -m MODULE, or -c CODE
    AI_VMM_AS_ONNXRUNTIME=1 python …                    the same for every Python of the environment

The environment variable works where the package is installed: its wheel brings a .pth file, which Python reads at start.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import os
import runpy
import sys
from collections.abc import Iterator, Sequence
from typing import Any

_OURS = "ai_vmm.onnxruntime"


class _Distribution(importlib.metadata.Distribution):
    """What importlib.metadata says of onnxruntime: programs ask it for the version."""

    def read_text(self, filename: str) -> str | None:
        version = importlib.import_module(_OURS).__version__
        return f"Metadata-Version: 2.1\nName: onnxruntime\nVersion: {version}\n" if filename == "METADATA" else None

    def locate_file(self, path: Any) -> Any:
        return path


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds onnxruntime and its submodules in AI VMM; those that it lacks are an ImportError that says so."""

    def __init__(self) -> None:
        self._specs: dict[str, Any] = {}

    def find_distributions(self, context: Any = None) -> Iterator[importlib.metadata.Distribution]:
        if context is not None and (context.name or "").lower() == "onnxruntime":
            yield _Distribution()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != "onnxruntime" and not name.startswith("onnxruntime."):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=name in ("onnxruntime", "onnxruntime.capi"))

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Any:
        ours = "ai_vmm.backend" if spec.name == "onnxruntime.backend" else _OURS + spec.name[len("onnxruntime"):]
        try:
            module = importlib.import_module(ours)
        except ModuleNotFoundError as e:
            if e.name != ours:
                raise
            raise ModuleNotFoundError(f"{spec.name} is not part of AI VMM, which stands in for onnxruntime here.",
                                      name=spec.name) from None
        self._specs[module.__name__] = module.__spec__
        return module

    def exec_module(self, module: Any) -> None:
        # It is loaded already, under its own name, whose spec it keeps.
        module.__spec__ = self._specs.pop(module.__name__)


def install() -> None:
    """From here on `import onnxruntime` gives the stand-in. Raises RuntimeError if the real one is loaded already."""
    loaded = sys.modules.get("onnxruntime")
    if loaded is not None and loaded is not sys.modules.get(_OURS):
        raise RuntimeError("onnxruntime is imported already; put AI VMM in its place before that.")
    if not any(isinstance(f, _Finder) for f in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def uninstall() -> None:
    """Takes the stand-in away again, for modules that are imported later."""
    sys.meta_path[:] = [f for f in sys.meta_path if not isinstance(f, _Finder)]
    for name in [n for n in sys.modules if n == "onnxruntime" or n.startswith("onnxruntime.")]:
        del sys.modules[name]


def main(arguments: Sequence[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        sys.exit(0 if arguments else 2)
    install()
    # Programs that this one starts follow.
    os.environ["AI_VMM_AS_ONNXRUNTIME"] = "true"
    if arguments[0] == "-c" and len(arguments) > 1:
        sys.argv = ["-c", *arguments[2:]]
        sys.path[0] = ""
        exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
    elif arguments[0] == "-m" and len(arguments) > 1:
        sys.argv = list(arguments[1:])
        sys.path[0] = ""
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(arguments)
        sys.path[0] = os.path.dirname(os.path.abspath(arguments[0]))
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    # Under its own name, so that what it installs is what `import ai_vmm.as_onnxruntime` gives.
    importlib.import_module("ai_vmm.as_onnxruntime").main(sys.argv[1:])
