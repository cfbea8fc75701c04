"""What KID, FID, precision and recall make of damaged pictures, in the features of `hed-vgg4` and in two others.

    python benchmarks/metric_features.py PICTURES [--count 250]

The folder's pictures are split into two random parts of `count`. The first are the reals; the second, damaged in each
of the ways, are the "fakes". Undamaged, they are the best that a generator could do. The last columns show why the
features are what they are: KID in the same network's means without the scaling of blocks, and in its last block alone.
`errors` is KID over its standard error: from about 3 on, a difference is seen.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from models.metrics.distances import Estimate, frechet_distance, kernel_distance, precision_recall
from models.metrics.extraction import BATCH
from models.metrics.vgg import HedVgg, scale_blocks
from models.weights import read_weight

Picture = np.ndarray
Damage = Callable[[Picture, np.random.Generator], Picture]
SIDE = 256
UNSCALED = 14.0  # about the root mean square of the network's means: KID's kernel has a scale of its own


def blur(sigma: float) -> Damage:
    return lambda picture, rng: cv2.GaussianBlur(picture, (0, 0), sigma)


def compress(quality: int) -> Damage:
    def damage(picture: Picture, rng: np.random.Generator) -> Picture:
        return cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)

    return damage


def shrink(factor: int) -> Damage:
    def damage(picture: Picture, rng: np.random.Generator) -> Picture:
        small = cv2.resize(picture, (SIDE // factor, SIDE // factor), interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)

    return damage


def add_noise(sigma: float) -> Damage:
    return lambda picture, rng: to_bytes(picture + rng.normal(0, sigma, picture.shape))


def flatten(contrast: float) -> Damage:
    return lambda picture, rng: to_bytes((picture.astype(float) - 128) * contrast + 128)


def turn_hue(degrees: int) -> Damage:
    def damage(picture: Picture, rng: np.random.Generator) -> Picture:
        hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + degrees // 2) % 180
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)

    return damage


def warp(pixels: float) -> Damage:
    def damage(picture: Picture, rng: np.random.Generator) -> Picture:
        field = cv2.GaussianBlur(rng.normal(size=(SIDE, SIDE, 2)).astype(np.float32), (0, 0), 12)
        y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32) + (field / field.std() * pixels).transpose(2, 0, 1)
        return cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)

    return damage


def shuffle_tiles(tiles: int) -> Damage:
    def damage(picture: Picture, rng: np.random.Generator) -> Picture:
        side = SIDE // tiles
        cut = picture.reshape(tiles, side, tiles, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
        shuffled = cut[rng.permutation(len(cut))].reshape(tiles, tiles, side, side, 3)
        return shuffled.swapaxes(1, 2).reshape(SIDE, SIDE, 3)

    return damage


def blank_eyes(picture: Picture, rng: np.random.Generator) -> Picture:
    blanked = picture.copy()
    band = blanked[110:150, 70:186]  # where an aligned portrait has them
    band[:] = band.mean(axis=(0, 1))
    return blanked


def turn_over(picture: Picture, rng: np.random.Generator) -> Picture:
    return picture[::-1]


def mirror(picture: Picture, rng: np.random.Generator) -> Picture:
    return picture[:, ::-1]


DAMAGES: dict[str, Damage] = {
    "none": lambda picture, rng: picture,
    "mirrored": mirror,
    "blur, sigma 1 px": blur(1),
    "blur, 2": blur(2),
    "blur, 4": blur(4),
    "JPEG, quality 30": compress(30),
    "JPEG, 10": compress(10),
    "halved and enlarged": shrink(2),
    "quartered and enlarged": shrink(4),
    "noise, sigma 15": add_noise(15),
    "noise, 40": add_noise(40),
    "contrast times 0.9": flatten(0.9),
    "contrast, 0.7": flatten(0.7),
    "hue turned by 20 degrees": turn_hue(20),
    "hue, 60": turn_hue(60),
    "bent by 2 px": warp(2),
    "bent, 4": warp(4),
    "bent, 8": warp(8),
    "eyes painted over": blank_eyes,
    "tiles shuffled, 2 x 2": shuffle_tiles(2),
    "tiles, 4 x 4": shuffle_tiles(4),
    "upside down": turn_over,
}


def main() -> None:
    """Print the figures as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--count", type=int, default=250)
    arguments = parser.parse_args()
    network = HedVgg(read_weight("hed-vgg4"), torch.device("cpu"))
    reals, others = read_halves(arguments.pictures, arguments.count)
    start = time.perf_counter()
    views = view(network, reals)
    print(f"{len(reals)} pictures each, {len(reals) / (time.perf_counter() - start):.1f} pictures per second\n")
    print_sizes(views[0], view(network, others)[0])
    print("| the fakes | KID x 1000 | errors | FID | precision | recall | unscaled: errors | last block: errors |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    rng = np.random.default_rng(0)
    sets = {name: np.stack([damage(picture, rng) for picture in others]) for name, damage in DAMAGES.items()}
    sets["20 pictures, repeated"] = others[np.arange(len(others)) % 20]
    sets["a Gaussian's pixels"] = draw_from_gaussian(others, rng)
    for name, fakes in sets.items():
        seen = view(network, fakes)
        kids = [kernel_distance(real, fake) for real, fake in zip(views, seen, strict=True)]
        fid, (precision, recall) = frechet_distance(views[0], seen[0]), precision_recall(views[0], seen[0])
        print(
            f"| {name} | {1000 * kids[0].value:.1f} ± {1000 * (kids[0].error or 0):.1f} | {count_errors(kids[0])} "
            f"| {fid:.1f} | {precision:.2f} | {recall:.2f} | {count_errors(kids[1])} | {count_errors(kids[2])} |",
            flush=True,
        )


def print_sizes(reals: np.ndarray, others: np.ndarray) -> None:
    """What no difference looks like, by the number of pictures."""
    print("| reals, and as many others | KID x 1000 | FID | precision | recall |\n|---:|---:|---:|---:|---:|")
    for count in (25, 50, 100, len(reals)):
        a, b = reals[:count], others[:count]
        kid, (precision, recall) = kernel_distance(a, b), precision_recall(a, b)
        spread = f"{1000 * kid.value:.1f} ± {1000 * (kid.error or 0):.1f}"
        print(f"| {count} | {spread} | {frechet_distance(a, b):.1f} | {precision:.2f} | {recall:.2f} |")
    print()


def read_halves(folder: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Two disjoint random parts of a folder of pictures: uint8 RGB (count, 256, 256, 3) each."""
    paths = sorted(folder.glob("*.[jp][pn]g"))
    if len(paths) < 2 * count:
        raise SystemExit(f"{folder} has {len(paths)} pictures; two parts of {count} need {2 * count}.")
    chosen = np.random.default_rng(0).permutation(len(paths))[: 2 * count]
    pictures = [cv2.cvtColor(cv2.imread(str(paths[k])), cv2.COLOR_BGR2RGB) for k in chosen]
    sized = np.stack([cv2.resize(p, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for p in pictures])
    return sized[:count], sized[count:]


def view(network: HedVgg, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pictures' features: as `hed-vgg4` has them, without the scaling of blocks, and of the last block alone."""
    parts = [network.pool(pictures[k : k + BATCH]) for k in range(0, len(pictures), BATCH)]
    blocks = [np.concatenate(block) for block in zip(*parts, strict=True)]
    return scale_blocks(blocks), np.concatenate(blocks, axis=1) / UNSCALED, scale_blocks(blocks[-1:])


def draw_from_gaussian(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many pictures whose pixels have the same mean and covariance: blurred ghosts, as of a first generator."""
    rows = pictures.reshape(len(pictures), -1).astype(np.float32)
    mixing = rng.normal(size=(len(rows), len(rows))).astype(np.float32) / np.sqrt(len(rows) - 1)
    return to_bytes(rows.mean(axis=0) + mixing @ (rows - rows.mean(axis=0))).reshape(pictures.shape)


def count_errors(estimate: Estimate) -> str:
    return f"{estimate.value / (estimate.error or np.inf):.1f}"


def to_bytes(pixels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
