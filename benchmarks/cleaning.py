"""What a cleaning pass costs beside the bare decode, in one run, on one core.

    python benchmarks/cleaning.py [--pictures FOLDER] [--count 48] [--side 512] [--quality 95] [--rounds 7]

Makes JPEGs of `side` pixels from a folder of illustrations (or from drawn ones), then times, picture by picture and in
turn, so that a busy machine slows all alike: the bare decode (`decode_picture`), the whole pass (read the file, SHA-256
of it, decode, digest of the pixels, all measures, the hashes for duplicates), and each part by itself. Each figure is
the sum over the pictures of the fastest round, in processor time of this thread. OpenCV gets one thread, as it does in
a worker. The share is of the bare decode; the bar is a whole pass at 1.7 and 250 a second.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from datasets.digests import digest_bytes, digest_pixels
from datasets.pictures import decode_picture
from models.quality import count_colours, measure_blur, measure_quality
from models.quality_bars import measure_bars
from models.quality_scale import measure_native_scale
from models.quality_size import reduce_picture
from models.quality_tint import measure_saturation, measure_tint, reduce_for_tint
from tasks.clean import CleanParams, measure_pixels
from tasks.dedup import STAGE as DEDUP

BAR_RATIO, BAR_RATE = 1.7, 250
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def square(rgb: np.ndarray, side: int) -> np.ndarray:
    """The centre square, reduced to `side`."""
    height, width = rgb.shape[:2]
    short = min(height, width)
    y, x = (height - short) // 2, (width - short) // 2
    return np.asarray(cv2.resize(rgb[y : y + short, x : x + short], (side, side), interpolation=cv2.INTER_AREA))


def find_pictures(folder: Path | None, count: int, side: int) -> list[np.ndarray]:
    if folder is None:
        from datasets.booru.scene import draw_picture

        drawn = (draw_picture(np.random.default_rng([7, k]), 1).pixels for k in range(count))
        return [square(p, side) for p in drawn]
    found = []
    for file in sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES):
        rgb = decode_picture(file.read_bytes()).rgb
        if min(rgb.shape[:2]) >= side:
            found.append(square(rgb, side))
        if len(found) == count:
            break
    return found


def time_parts(files: list[Path], rounds: int) -> tuple[dict[str, float], int]:
    """Seconds of each part, summed over the files, and the bytes of all files."""
    best: dict[str, list[float]] = {}
    for _ in range(rounds):
        for number, file in enumerate(files):
            for name, part in parts_of(file).items():
                start = time.thread_time()
                part()
                spent = time.thread_time() - start
                fastest = best.setdefault(name, [float("inf")] * len(files))
                fastest[number] = min(fastest[number], spent)
    return {name: sum(values) for name, values in best.items()}, sum(f.stat().st_size for f in files)


def parts_of(file: Path) -> dict[str, Callable[[], object]]:
    """The bare decode, the whole pass, and what the pass is made of. Each part gets what it would have at hand."""
    params = CleanParams().for_measure()
    hashes = DEDUP.measure_pixels
    hash_params = DEDUP.params().for_measure()
    data = file.read_bytes()
    rgb = decode_picture(data).rgb
    full = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
    grey = reduce_picture(full, 256)
    small = reduce_for_tint(rgb)

    def whole() -> None:
        read = file.read_bytes()
        digest_bytes(read)
        pixels = decode_picture(read).rgb
        digest_pixels(pixels)
        measure_pixels(pixels, params)
        if hashes is not None:
            hashes(pixels, hash_params)

    def without_digest() -> None:
        pixels = decode_picture(file.read_bytes()).rgb
        measure_pixels(pixels, params)

    parts: dict[str, Callable[[], object]] = {
        "bare decode": lambda: decode_picture(data),
        "whole pass": whole,
        "decode and all measures": without_digest,
        "read the file": file.read_bytes,
        "SHA-256 of the file": lambda: digest_bytes(data),
        "digest of the pixels": lambda: digest_pixels(rgb),
        "hashes for duplicates": lambda: hashes(rgb, hash_params) if hashes is not None else None,
        "all measures": lambda: measure_quality(rgb),
        "- grey, and reduced to 256": lambda: reduce_picture(
            np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8), 256
        ),
        "- reduced for colour": lambda: reduce_for_tint(rgb),
        "- blur": lambda: measure_blur(grey),
        "- tint": lambda: measure_tint(small),
        "- saturation": lambda: measure_saturation(small),
        "- bars": lambda: measure_bars(grey),
        "- native scale": lambda: measure_native_scale(full),
        "- colours": lambda: count_colours(rgb),
    }
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="a folder of illustrations; drawn ones without it")
    parser.add_argument("--count", type=int, default=48, help="how many pictures")
    parser.add_argument("--side", type=int, default=512, help="pixels")
    parser.add_argument("--quality", type=int, default=95, help="of the JPEGs")
    parser.add_argument("--rounds", type=int, default=7, help="each part is timed so often; the fastest counts")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, rgb in enumerate(find_pictures(arguments.pictures, arguments.count, arguments.side)):
            files.append(Path(folder) / f"{number:04d}.jpg")
            bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(files[-1]), bgr, [cv2.IMWRITE_JPEG_QUALITY, arguments.quality])
        if not files:
            raise SystemExit(f"no picture of {arguments.side} pixels or more in {arguments.pictures}")
        seconds, size = time_parts(files, arguments.rounds)
    decode = seconds["bare decode"]
    kilobytes = size / len(files) / 1024
    print(f"{len(files)} JPEGs of {arguments.side} px, quality {arguments.quality}, {kilobytes:.0f} KB each")
    print("\n| part | ms | of the bare decode | a second and core |\n|---|---|---|---|")
    for name, spent in seconds.items():
        print(f"| {name} | {1e3 * spent / len(files):.3f} | {spent / decode:.2f} | {len(files) / spent:,.0f} |")
    ratio, rate = seconds["whole pass"] / decode, len(files) / seconds["whole pass"]
    print(f"\nWhole pass: {ratio:.2f} bare decodes (bar {BAR_RATIO}), {rate:.0f} a second and core (bar {BAR_RATE}).")


if __name__ == "__main__":
    main()
