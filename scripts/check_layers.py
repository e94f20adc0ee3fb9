"""Holds the includes of src/, apps/ and include/ against the order of layers. Prints every violation; exit 1 if any.

base ← telemetry ← graph ← ops ← kit ← gpu ← {import, passes, analysis, hal} ← {place, certify} ← plan ← runtime ← {the files of src/
itself} ← apps.
A layer sees itself and those before it; siblings do not see each other. A backend sees the plugin interface, base, graph,
ops, kit, gpu and its own folder, never the host above them. The interposer sees only base.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
ORDER = [{"base"}, {"telemetry"}, {"graph"}, {"ops"}, {"kit"}, {"gpu"}, {"import", "passes", "analysis", "hal"},
         {"place", "certify"}, {"plan"},
         {"runtime"}, {"src"}, {"interposer"}, {"apps", "tests"}]
RANK = {layer: rank for rank, layers in enumerate(ORDER) for layer in layers}
FOR_BACKENDS = {"backend_abi.h", "cancel.hpp", "compute_backend.hpp", "types.hpp"}
FOR_ALL = {"types.hpp", "cancel.hpp", "backend_abi.h", "compute_backend.hpp", "graph.hpp"}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def layer_of(path):
    """The layer of a file, such as "graph", "backends/cpu", "src" for files of src/ itself, "apps"."""
    parts = path.relative_to(ROOT).parts
    if parts[0] != "src":
        return parts[0]
    if len(parts) == 2:
        return "src"
    return "/".join(parts[1:3]) if parts[1] == "backends" else parts[1]


def resolve(path, included):
    """The file that an include names: beside the file, or under src/ or include/; None for another library's."""
    for base in (path.parent, ROOT / "src", ROOT / "include", ROOT):
        if (base / included).is_file():
            return (base / included).resolve()
    return None


def problem(layer, target):
    """Why a file of `layer` may not include `target`, or None."""
    public = target.parts[len(ROOT.parts)] == "include"
    if public:
        if layer == "include" or layer in ("src", "apps", "tests", "runtime", "hal", "certify"):
            return None
        allowed = FOR_BACKENDS if layer.startswith("backends/") else FOR_ALL
        return None if target.name in allowed else f"the public header {target.name} is above it"
    other = layer_of(target)
    if other == layer:
        return None
    if layer == "include":
        return "installed headers see only installed headers"
    if layer.startswith("backends/"):
        return None if RANK.get(other, 99) <= RANK["gpu"] else f"a backend does not see {other}"
    if layer == "interposer":
        return None if other == "base" else f"the interposer sees only base, not {other}"
    if layer not in RANK:
        return f"the layer {layer} has no place in the order"
    if other.startswith("backends/"):
        return "backends are reached through the plugin interface"
    return None if RANK.get(other, 99) < RANK[layer] else f"{other} is not before {layer}"


def main():
    problems = 0
    for top in ("include", "src", "apps", "interposer"):
        for path in sorted((ROOT / top).rglob("*")):
            if path.suffix not in (".cpp", ".hpp", ".h", ".def"):
                continue
            text = path.read_text()
            for match in INCLUDE.finditer(text):
                target = resolve(path, match.group(1))
                why = problem(layer_of(path), target) if target else None
                if why:
                    problems += 1
                    line = text.count("\n", 0, match.start()) + 1
                    print(f"{path.relative_to(ROOT)}:{line}: includes {match.group(1)}, but {why}")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
