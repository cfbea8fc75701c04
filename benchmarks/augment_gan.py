"""What ADA and DiffAugment cost per batch, how exactly ADA resamples, and the contact sheet of docs/ada.jpg.

    python benchmarks/augment_gan.py                         # milliseconds per batch: applied, and with its gradient
    python benchmarks/augment_gan.py --exactness             # errors of the identity, mirroring and shifts, resampled
    python benchmarks/augment_gan.py --sheet docs/ada.jpg    # one drawn face under every group, and under bgc

The picture in it was drawn by Kaobako itself.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from datasets.booru.scene import draw_picture
from models.gan.ada import AdaPipeline
from models.gan.ada.geometry import scalings, translations
from models.gan.ada.resample import warp
from models.gan.diffaugment import DiffAugment
from models.gan.pictures import resize, to_input, to_uint8

GROUPS = ("blit", "geometry", "colour", "filter", "noise", "cutout")
COLUMNS, CELL, LABEL, GAP = 8, 96, 84, 3


def main() -> None:
    """Print a table, or write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", type=Path, help="JPEG to write instead")
    parser.add_argument("--exactness", action="store_true", help="print errors instead of times")
    parser.add_argument("--seed", type=int, default=14, help="of the drawn picture")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128], help="sides in pixels")
    parser.add_argument("--batch", type=int, default=32, help="pictures at once")
    parser.add_argument("--device", default="cpu", help="torch's name of it")
    arguments = parser.parse_args()
    if arguments.sheet:
        draw_sheet(draw_face(arguments.seed)).save(arguments.sheet, quality=68)
    elif arguments.exactness:
        print_exactness(arguments.sizes)
    else:
        print_times(arguments.sizes, arguments.batch, arguments.device)


def draw_face(seed: int) -> np.ndarray:
    """A drawn face, uint8 (128, 128, 3)."""
    picture = draw_picture(np.random.default_rng(seed), 1)
    face = picture.faces[0]
    height, width = picture.pixels.shape[:2]
    side = min(height, width, round(face.side * 1.7))
    left = int(np.clip(face.x + face.side / 2 - side / 2, 0, width - side))
    top = int(np.clip(face.y + face.side * 0.45 - side / 2, 0, height - side))
    return resize(np.ascontiguousarray(picture.pixels[top : top + side, left : left + side]), 128, 128)


def print_times(sizes: Sequence[int], batch: int, device: str) -> None:
    """Medians of five batches, each with a draw of its own, after one to warm up."""
    cases: list[tuple[str, AdaPipeline | DiffAugment, float]] = [
        *((f"{name} at {p}", AdaPipeline(name), p) for name in ("b", "bg", "bgc") for p in (0.0, 0.2, 0.8)),
        ("bgcfnc at 0.8", AdaPipeline("bgcfnc"), 0.8),
        ("DiffAugment", DiffAugment(), 1.0),
    ]
    print(f"milliseconds per batch of {batch} RGB pictures, {device}, {torch.get_num_threads()} threads")
    print(f"side  {'augmentation':14s}    draw   apply   apply and gradient")
    for side in sizes:
        images = torch.rand((batch, 3, side, side), generator=torch.Generator().manual_seed(0)).to(device) * 2 - 1
        for name, pipeline, p in cases:
            rows = [measure(pipeline, p, images, seed) for seed in range(6)][1:]
            draw, apply, both = (1000 * statistics.median(column) for column in zip(*rows, strict=True))
            print(f"{side:4d}  {name:14s} {draw:7.1f} {apply:7.1f} {both:20.1f}")


def measure(pipeline: AdaPipeline | DiffAugment, p: float, images: torch.Tensor, seed: int) -> tuple[float, ...]:
    """Seconds to draw, to apply, and to apply with the gradient for the pictures."""
    count, _, height, width = images.shape
    moments = [time.perf_counter()]

    def lap() -> None:
        if images.is_cuda:
            torch.cuda.synchronize(images.device)
        moments.append(time.perf_counter())

    draw = pipeline.draw(count, p, width, height, torch.Generator().manual_seed(seed))
    lap()
    pipeline.apply(images, draw)  # type: ignore[arg-type]
    lap()
    leaves = images.clone().requires_grad_()
    lap()
    pipeline.apply(leaves, draw).square().mean().backward()  # type: ignore[arg-type]
    lap()
    return moments[1] - moments[0], moments[2] - moments[1], moments[4] - moments[3]


def print_exactness(sizes: Sequence[int]) -> None:
    """Largest errors of resampling, of pictures in -1..1: white noise, and waves of about 9 pixels."""
    one = torch.ones(1, dtype=torch.float64)
    print("side  picture  dtype     identity  mirrored  moved by (3, -2)   (the last two 8 pixels from the border)")
    for side in sizes:
        y, x = np.mgrid[:side, :side]
        white = np.random.default_rng(0).uniform(-1, 1, (side, side))
        for name, picture in (("noise", white), ("waves", np.sin(x / 1.5 + 1) * np.cos(y / 1.5))):
            for dtype in (torch.float32, torch.float64):
                images = torch.from_numpy(picture)[None, None].to(dtype)
                inner = (..., slice(8, -8), slice(8, -8))
                same = (warp(images, scalings(one, one)) - images).abs().max()
                flipped = (warp(images, scalings(-one, one)) - images.flip(3))[inner].abs().max()
                moved = (
                    (warp(images, translations(3 * one, -2 * one)) - images.roll((-2, 3), (2, 3)))[inner].abs().max()
                )
                print(f"{side:4d}  {name}    {str(dtype)[6:]}  {same:9.1e} {flipped:9.1e} {moved:9.1e}")


def draw_sheet(rgb: np.ndarray) -> Image.Image:
    """A row for every group alone at p = 1, for bgc at rising p, for DiffAugment; first comes the picture itself."""
    none = dict.fromkeys(GROUPS, 0.0)
    rows: list[tuple[str, AdaPipeline | DiffAugment, float]] = [
        *((group, AdaPipeline("none", **{**none, group: 1.0}), 1.0) for group in GROUPS),
        *((f"bgc, p = {p}", AdaPipeline("bgc"), p) for p in (0.2, 0.5, 0.8)),
        ("DiffAugment", DiffAugment(), 1.0),
    ]
    width, height = LABEL + COLUMNS * (CELL + GAP), GAP + len(rows) * (CELL + GAP)
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    side = rgb.shape[0]
    images = to_input(torch.from_numpy(rgb.transpose(2, 0, 1).copy())[None], "cpu").repeat(COLUMNS - 1, 1, 1, 1)
    for row, (name, pipeline, p) in enumerate(rows):
        draw = pipeline.draw(len(images), p, side, side, torch.Generator().manual_seed(3))
        shown = [rgb, *to_uint8(pipeline.apply(images, draw))]  # type: ignore[arg-type]
        top = GAP + row * (CELL + GAP)
        pen.text((6, top + CELL / 2), name, font=ImageFont.load_default(12), fill="black", anchor="lm")
        for column, picture in enumerate(shown):
            sheet.paste(Image.fromarray(resize(picture, CELL, CELL)), (LABEL + column * (CELL + GAP), top))
    return sheet


if __name__ == "__main__":
    main()
