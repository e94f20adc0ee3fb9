"""Things for programs to look at and listen to, made anew each time, the same each time."""

import pathlib
import wave

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

ROOT = pathlib.Path(__file__).resolve().parents[2]
RATE = 16000
LINES = ("Invoice 2024-117", "Coffee beans, 3 kg", "Total: 48.60 EUR", "Thank you very much!")


def voice(pitch: float, seconds: float) -> np.ndarray:
    """Harmonics of a gliding pitch under two formants, in syllables: enough like a voice for a detector."""
    t = np.arange(int(RATE * seconds)) / RATE
    phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.1 * np.sin(2 * np.pi * 3 * t))) / RATE
    sound = sum(np.sin(k * phase) / k * (np.exp(-((k * pitch - 700) / 600) ** 2)
                                         + 0.3 * np.exp(-((k * pitch - 1800) / 500) ** 2)) for k in range(1, 25))
    return sound * np.clip(0.6 + 0.5 * np.sin(2 * np.pi * 4 * t), 0, 1)


def write_sound(path: pathlib.Path) -> pathlib.Path:
    """Silence, a low voice, silence, a high voice, silence: 16-bit WAV of 16 kHz."""
    rest = np.zeros(RATE // 2)
    sound = np.concatenate([rest, 0.3 * voice(120, 1.5), rest, 0.3 * voice(200, 1.0), rest])
    sound += np.random.default_rng(0).normal(0, 0.002, len(sound))
    with wave.open(str(path), "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(RATE)
        f.writeframes((np.clip(sound, -1, 1) * 32000).astype("<i2").tobytes())
    return path


def write_page(path: pathlib.Path) -> pathlib.Path:
    """LINES, one under the other, black on white."""
    page = Image.new("RGB", (480, 60 + 56 * len(LINES)), "white")
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(30)
    for i, line in enumerate(LINES):
        draw.text((30, 30 + 56 * i), line, "black", font)
    page.save(path)
    return path


def write_faces(path: pathlib.Path) -> pathlib.Path:
    """Two drawn faces."""
    picture = Image.new("RGB", (640, 480), (120, 150, 180))
    draw = ImageDraw.Draw(picture)
    for x, y, s in ((180, 220, 80), (450, 240, 50)):
        def at(a: float, b: float, c: float, d: float) -> list[float]:
            return [x + a * s, y + b * s, x + c * s, y + d * s]

        draw.ellipse(at(-1.15, -1.6, 1.15, 1.1), (60, 40, 30))
        draw.ellipse(at(-1, -1.3, 1, 1.4), (224, 178, 150))
        for k in (-0.42, 0.42):
            draw.ellipse(at(k - 0.2, -0.28, k + 0.2, -0.08), "white")
            draw.ellipse(at(k - 0.09, -0.27, k + 0.09, -0.09), (50, 30, 20))
            draw.arc(at(k - 0.28, -0.55, k + 0.28, -0.15), 200, 340, (60, 40, 30), max(2, s // 12))
        draw.polygon([(x - 0.05 * s, y - 0.1 * s), (x - 0.18 * s, y + 0.38 * s), (x + 0.18 * s, y + 0.38 * s)],
                     (205, 155, 128))
        draw.ellipse(at(-0.36, 0.62, 0.36, 0.85), (180, 80, 80))
    picture.filter(ImageFilter.GaussianBlur(2)).save(path)
    return path


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Files of many kinds, in `folder`."""
    texts = {"a.py": "import os\n\n\ndef main():\n    print(os.getcwd())\n\n\nmain()\n" * 5,
             "b.json": '{"name": "value", "list": [1, 2, 3]}\n' * 3, "c.html": "<!DOCTYPE html><html><body><p>Hi</p></body>",
             "d.csv": "a,b,c\n1,2,3\n4,5,6\n" * 20, "e.sh": "#!/bin/sh\nset -e\nfor f in *; do echo \"$f\"; done\n",
             "f.sql": "SELECT name, count(*) FROM people WHERE age > 30 GROUP BY name ORDER BY 2 DESC;\n" * 4,
             "g.cpp": "#include <vector>\n\nint main() {\n  std::vector<int> v{1, 2};\n  return v.size();\n}\n" * 4,
             "h.txt": "It was a dark and stormy night; the rain fell in torrents.\n" * 6, "i.empty": ""}
    made = []
    for name, text in texts.items():
        made.append(folder / name)
        made[-1].write_text(text)
    made.append(folder / "noise.bin")
    made[-1].write_bytes(np.random.default_rng(1).bytes(5000))
    made.append(folder / "picture.jpg")
    Image.effect_mandelbrot((64, 64), (-2, -1.5, 1, 1.5), 50).save(made[-1])
    return made
