"""make_sample.py TARGET: draws the line of text that `make run` reads. Needs no font file: Pillow carries one."""

import sys

from PIL import Image, ImageDraw, ImageFont

TEXT = "The model reads this line."
HEIGHT, MARGIN = 48, 8


def main(target):
    font = ImageFont.load_default(size=28)
    left, top, right, bottom = font.getbbox(TEXT)
    image = Image.new("RGB", (int(right - left) + 2 * MARGIN, HEIGHT), "white")
    ImageDraw.Draw(image).text((MARGIN - left, (HEIGHT - bottom - top) / 2), TEXT, font=font, fill=(20, 30, 60))
    image.save(target, optimize=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
