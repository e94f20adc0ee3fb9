"""Installs the build into a fresh folder, builds and runs examples/hello against it, out of tree, then the plugin of
examples/plugin, which must get its certificate and run a model.

Run as: install_test.py BUILD_FOLDER
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import onnx
from onnx import TensorProto, helper

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(sys.argv[1]).resolve()


def run(*words, **more):
    return subprocess.run([str(w) for w in words], check=True, text=True, **more)


def main():
    with tempfile.TemporaryDirectory() as folder:
        at = pathlib.Path(folder)
        run("cmake", "--install", BUILD, "--prefix", at / "prefix", stdout=subprocess.DEVNULL)
        run("cmake", "-S", ROOT / "examples" / "hello", "-B", at / "build", "-G", "Ninja",
            f"-DCMAKE_PREFIX_PATH={at / 'prefix'}", stdout=subprocess.DEVNULL)
        run("cmake", "--build", at / "build", stdout=subprocess.DEVNULL)

        x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 3]) for n in "xy")
        graph = helper.make_graph([helper.make_node("ReduceSum", ["x"], ["y"], keepdims=1)], "g", [x], [y])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), at / "sum.onnx")
        said = run(at / "build" / "hello", at / "sum.onnx", stdout=subprocess.PIPE).stdout
        assert said == "y = 3\n", said

        run("cmake", "-S", ROOT / "examples" / "plugin", "-B", at / "trio", "-G", "Ninja",
            "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Wpedantic -Werror",
            f"-DCMAKE_PREFIX_PATH={at / 'prefix'}", stdout=subprocess.DEVNULL)
        run("cmake", "--build", at / "trio", stdout=subprocess.DEVNULL)
        plugin = at / "trio" / "trio.so"
        shown = run("nm", "-D", "--defined-only", plugin, stdout=subprocess.PIPE).stdout
        # Weak instances of std templates are the compiler's; nothing of ours may show but the entry.
        ours = [line for line in shown.splitlines() if "trio" in line or "ai_vmm" in line]
        assert len(ours) == 1 and ours[0].endswith("ai_vmm_backend_entry"), ours
        aivmm = at / "prefix" / "bin" / "aivmm"
        said = json.loads(run(aivmm, "plugin-check", plugin, "--json", stdout=subprocess.PIPE).stdout)
        assert said["passed"] and said["backend"] == "trio" and said["level"] == 2, said
        nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
        x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 3]) for n in "xy")
        w = helper.make_tensor("w", TensorProto.FLOAT, [3, 3], [1, 0, 0, 0, -1, 0, 0, 0, 1])
        graph = helper.make_graph(nodes, "g", [x], [y], [w])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), at / "net.onnx")
        said = json.loads(run(aivmm, "run", at / "net.onnx", "--random", "1", "--strict", "--json", "--backend", "trio",
                              env={**os.environ, "AI_VMM_PLUGINS": str(at / "trio")}, stdout=subprocess.PIPE).stdout)
        assert said["backend"] == "trio" and said["fallback_nodes"] == 0, said
        said = json.loads(run(aivmm, "run", at / "net.onnx", "--random", "1", "--strict", "--json", "--backend", "trio",
                              env={**os.environ, "AI_VMM_PLUGINS": str(at / "trio"), "AI_VMM_ISOLATE": "plugins"},
                              stdout=subprocess.PIPE).stdout)
        assert said["backend"] == "trio", said
        version = run(at / "prefix" / "bin" / "aivmm", "--version", stdout=subprocess.PIPE).stdout
        assert version.startswith("aivmm "), version


if __name__ == "__main__":
    main()
