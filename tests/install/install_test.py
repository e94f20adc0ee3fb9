"""Installs the build into a fresh folder and builds and runs examples/hello against it, out of tree.

Run as: install_test.py BUILD_FOLDER
"""

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
        version = run(at / "prefix" / "bin" / "aivmm", "--version", stdout=subprocess.PIPE).stdout
        assert version.startswith("aivmm "), version


if __name__ == "__main__":
    main()
