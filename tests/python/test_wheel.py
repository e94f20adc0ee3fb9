"""The wheel in a fresh virtual environment, and what is in it.

    test_wheel.py WHEELS     WHEELS: a folder with a wheel of NumPy
"""

import ast
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
import wheels  # noqa: E402

PROGRAM = """
import os, pathlib, sys
import numpy as np
import ai_vmm
assert pathlib.Path(ai_vmm.__file__).is_relative_to(sys.prefix), ai_vmm.__file__
model = ai_vmm.deploy(sys.argv[1])
y = model(np.ones((2, 3), np.float32))
assert y.tolist() == [[2, 3, 4]] * 2, y
assert "libomp" in model.report().device, model.report().device  # the bundled OpenMP is the one that is bound
maps = pathlib.Path("/proc/self/maps").read_text()
libraries = {line.split()[-1] for line in maps.splitlines() if ".so" in line}
for name in ("libdnnl", "libomp", "libpng", "libjpeg", "libtiff", "libwebp", "libopenjp2", "libre2"):
    where = [l for l in libraries if pathlib.Path(l).name.startswith(name)]
    assert where and all(l.startswith(sys.prefix) for l in where), (name, where)
if os.environ.get("AI_VMM_AS_ONNXRUNTIME"):
    import onnxruntime
    assert onnxruntime.InferenceSession(sys.argv[1]).run(None, {"x": np.ones((2, 3), np.float32)})[0][0, 0] == 2
print("good")
"""


class Wheel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        subprocess.run([str(ROOT / "scripts" / "wheel.sh"), sys.executable], check=True, stdout=subprocess.DEVNULL)
        tag = f"cp3{sys.version_info.minor}" if sys.version_info < (3, 12) else "abi3"
        found = sorted((ROOT / "build" / "dist").glob(f"ai_vmm-*{tag}*manylinux*.whl"), key=lambda p: p.stat().st_mtime)
        cls.wheel = found[-1]

    def test_a_fresh_environment(self):
        import models

        wheels.wheel("numpy").close()
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
            python = folder / "venv" / "bin" / "python"
            subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-index", "--find-links",
                            wheels.WHEELS, self.wheel], check=True)
            (folder / "program.py").write_text(PROGRAM)
            (folder / "model.onnx").write_bytes(models.add())
            clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "AI_VMM", "LD_"))}
            for switch in ({}, {"AI_VMM_AS_ONNXRUNTIME": "1"}):
                done = subprocess.run([python, folder / "program.py", folder / "model.onnx"], text=True, capture_output=True,
                                      env=clean | switch, cwd=folder)
                self.assertEqual(done.stdout, "good\n", done.stderr)

    def test_contents(self):
        with zipfile.ZipFile(self.wheel) as z:
            names = z.namelist()
            stub = ast.parse(z.read("ai_vmm/_core.pyi"))
        for part in ("ai_vmm/py.typed", "ai_vmm/onnxruntime/capi/_pybind_state.py", "ai_vmm_as_onnxruntime.pth"):
            self.assertIn(part, names)
        classes = {n.name: {m.name for m in n.body if isinstance(m, ast.FunctionDef)}
                   for n in stub.body if isinstance(n, ast.ClassDef)}
        for name, methods in {"Deployment": {"__init__", "__call__", "run", "inputs"}, "Value": {"of", "numpy"},
                              "Port": {"name", "shape"}, "Session": {"run"}}.items():
            self.assertLessEqual(methods, classes[name])


if __name__ == "__main__":
    unittest.main()
