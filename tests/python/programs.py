"""The programs of programs/, with what each is given. They are written for onnxruntime and know nothing of AI VMM."""

import json
import os
import pathlib
import subprocess
import sys

import samples

FOLDER = pathlib.Path(__file__).resolve().parent / "programs"
sys.path.insert(0, str(samples.ROOT / "tests"))
from wheels import wheel  # noqa: E402


def prepare(folder: pathlib.Path) -> dict[str, list[str]]:
    """Program → arguments, with the files that they name made in `folder`."""
    sound = samples.write_sound(folder / "sound.wav")
    model = folder / "silero_vad.onnx"
    model.write_bytes(wheel("silero-vad").read("silero_vad/data/silero_vad.onnx"))
    kinds = folder / "kinds"
    kinds.mkdir()
    arguments = {
        "read_pictures": [samples.ROOT / "samples" / "hello.png", samples.write_page(folder / "page.png")],
        "detect_speech": [model, sound],
        "identify_files": samples.files(kinds),
        "find_faces": [samples.write_faces(folder / "faces.png")],
        "wake_words": [sound],
        "classify_tables": [],
    }
    return {name: [str(a) for a in given] for name, given in arguments.items()}


def run(name: str, arguments: list[str], on_ai_vmm: bool):
    """What the program prints, parsed, and its stderr."""
    environment = os.environ | {"AI_VMM_LOG_LEVEL": "info", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, *(["-m", "ai_vmm.as_onnxruntime"] if on_ai_vmm else []), str(FOLDER / f"{name}.py")]
    done = subprocess.run([*command, *arguments], text=True, capture_output=True, env=environment)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads([line for line in done.stdout.splitlines() if line.strip()][-1]), done.stderr
