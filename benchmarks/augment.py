"""What augmenting costs, and the contact sheet of docs/augmentation.md.

    python benchmarks/augment.py                                   # seconds and bytes per picture, by set and size
    python benchmarks/augment.py --sheet docs/augmentation.jpg     # one drawn face, and what is made of it

Every picture in it was drawn by Kaobako itself.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datasets.booru.scene import draw_picture
from datasets.pictures import encode_png
from models.augment.apply import apply_augmentation
from models.augment.geometry import resize
from models.augment.guide import GUIDE
from tasks.augment import AugmentParams, make_children

SETS = {
    "mirror": AugmentParams(mirror=True),
    "guide": AugmentParams(guide=("all",)),
    "tiles": AugmentParams(tiles=True),
}
VIEWS = (
    *("mirror", "invert", "rotate:90", "tile:1448/2048@0,0", "tile:1448/2048@300,300;rotate:45"),
    *("tile:1024/2048@341,0", "tile:1024/2048@683,683", "tile:1024/2048@683,683;rotate:135"),
    "tile:1024/2048@341,341;rotate:315",
)
COLUMNS, CELL, CAPTION = 7, 148, 15


def main() -> None:
    """Print a table, or write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", type=Path, help="JPEG to write instead")
    parser.add_argument("--seed", type=int, default=14, help="of the drawn picture")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512], help="sides of published pictures")
    arguments = parser.parse_args()
    face = draw_face(arguments.seed)
    if arguments.sheet:
        draw_sheet(face).save(arguments.sheet, quality=82)
        return
    print("side  set     children   s/picture   ms/child   MB/picture")
    for side in arguments.sizes:
        for name, params in SETS.items():
            seconds, sizes = measure(resize(face, side, side), params)
            cost = f"{seconds:9.2f} {1000 * seconds / len(sizes):10.1f} {sum(sizes) / 1e6:12.2f}"
            print(f"{side:4d}  {name:6s} {len(sizes):9d} {cost}")


def draw_face(seed: int) -> np.ndarray:
    """The middle of a drawn picture of one person, about the face: uint8 (512, 512, 3)."""
    picture = draw_picture(np.random.default_rng(seed), 1)
    face = picture.faces[0]
    height, width = picture.pixels.shape[:2]
    side = min(height, width, round(face.side * 1.7))
    left = int(np.clip(face.x + face.side / 2 - side / 2, 0, width - side))
    top = int(np.clip(face.y + face.side * 0.45 - side / 2, 0, height - side))
    return resize(np.ascontiguousarray(picture.pixels[top : top + side, left : left + side]), 512, 512)


def measure(rgb: np.ndarray, params: AugmentParams) -> tuple[float, list[int]]:
    """Seconds to make and encode all children of one picture, and the bytes of each."""
    start = time.perf_counter()
    sizes = [len(encode_png(child)) for _, child in make_children(rgb, params)]
    return time.perf_counter() - start, sizes


def draw_sheet(rgb: np.ndarray) -> Image.Image:
    """The picture, the guide's set, and some of the tiles, each with its name."""
    names = ["", *(f"guide:{name}" for name in GUIDE), *VIEWS]
    rows = -(-len(names) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (CELL + 4) + 4, rows * (CELL + CAPTION + 4) + 4), "white")
    draw = ImageDraw.Draw(sheet)
    for place, name in enumerate(names):
        x, y = 4 + place % COLUMNS * (CELL + 4), 4 + place // COLUMNS * (CELL + CAPTION + 4)
        shown = apply_augmentation(name, rgb) if name else rgb
        sheet.paste(Image.fromarray(resize(shown, CELL, CELL)), (x, y))
        caption = name.rpartition("guide:")[2].replace("/2048", "").replace(";rotate:", ", ") or "the picture"
        draw.text((x + CELL / 2, y + CELL + 1), caption, font=ImageFont.load_default(10), fill="black", anchor="ma")
    return sheet


if __name__ == "__main__":
    main()
