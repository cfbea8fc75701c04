"""Recall, precision and speed of the face detectors on pictures with labelled faces.

    python benchmarks/face_detectors.py FOLDER [--max-side 1024] [--min-size 24] [--json out.json]

FOLDER holds pictures and boxes.csv with the columns image, x, y, w, h, kind. A box of kind `face` should be found: it
is when a detection overlaps it at IoU .3 or more (one to one, best overlap first). A box of kind `ignore` counts
neither way, nor does a detection that overlaps one at IoU .3 or lies at least half inside it. Pictures without boxes
count: whatever is found there is wrong.
"""

import argparse
import csv
import json
import statistics
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from PIL import Image

from models.faces.combine import match_faces
from models.faces.detector import RGB, Face, FaceDetector
from models.faces.load import DetectorMode, load_detector

MATCH_IOU = 0.3
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True)
class Result:
    """One detector over the whole folder."""

    detector: str
    recall: float
    precision: float
    found: int
    faces: int
    wrong: int
    mean_iou: float  # of the faces found
    ms_median: float
    ms_mean: float


def read_rgb(path: Path) -> RGB:
    """A picture as (H, W, 3) uint8, transparency over white."""
    with Image.open(path) as image:
        if "A" in image.getbands() or "transparency" in image.info:
            rgba = image.convert("RGBA")
            return np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB"))
        return np.asarray(image.convert("RGB"))


def read_boxes(path: Path) -> dict[tuple[str, str], list[Face]]:
    """The labelled boxes by (image, kind)."""
    boxes: dict[tuple[str, str], list[Face]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            x, y, w, h = (round(float(row[key])) for key in "xywh")
            boxes[row["image"], row["kind"]].append(Face(x, y, w, h, 1.0, "label"))
    return boxes


def inside(face: Face, box: Face) -> float:
    """Which part of the face's area lies within the box."""
    width = min(face.x + face.w, box.x + box.w) - max(face.x, box.x)
    height = min(face.y + face.h, box.y + box.h) - max(face.y, box.y)
    return max(0, width) * max(0, height) / (face.w * face.h)


def measure(
    detector: FaceDetector, label: str, pictures: list[Path], boxes: dict[tuple[str, str], list[Face]]
) -> Result:
    """Run one detector over all pictures."""
    found, wrong, total = 0, 0, 0
    overlaps: list[float] = []
    times: list[float] = []
    for path in pictures:
        rgb = read_rgb(path)
        start = time.perf_counter()
        detected = detector.detect(rgb)
        times.append(1000 * (time.perf_counter() - start))
        labels, ignored = boxes[path.name, "face"], boxes[path.name, "ignore"]
        pairs = match_faces(labels, detected, MATCH_IOU)
        matched = {j for _, j, _ in pairs}
        rest = [face for j, face in enumerate(detected) if j not in matched]
        rest = [
            f for f in rest if not match_faces([f], ignored, MATCH_IOU) and all(inside(f, b) < 0.5 for b in ignored)
        ]
        found, wrong, total = found + len(pairs), wrong + len(rest), total + len(labels)
        overlaps += [overlap for _, _, overlap in pairs]
    return Result(
        detector=label,
        recall=round(found / max(1, total), 4),
        precision=round(found / max(1, found + wrong), 4),
        found=found,
        faces=total,
        wrong=wrong,
        mean_iou=round(statistics.fmean(overlaps), 3) if overlaps else 0.0,
        ms_median=round(statistics.median(times), 1),
        ms_mean=round(statistics.fmean(times), 1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--min-size", type=int, default=24, help="smallest face in pixels (default 24)")
    parser.add_argument("--max-side", type=int, default=1024, help="search a copy of at most this size; 0: full size")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    arguments = parser.parse_args()

    pictures = sorted(path for path in arguments.folder.iterdir() if path.suffix.lower() in SUFFIXES)
    boxes = read_boxes(arguments.folder / "boxes.csv")
    max_side = arguments.max_side or None
    print(f"{len(pictures)} pictures, min size {arguments.min_size}, max side {max_side or 'full'}")
    print("detector    recall  precision     found  wrong   IoU  ms median    mean")
    results = []
    for mode in get_args(DetectorMode):
        result = measure(load_detector(mode, arguments.min_size, max_side=max_side), mode, pictures, boxes)
        results.append(result)
        print(
            f"{mode:10} {result.recall:7.2f} {result.precision:10.2f} {result.found:5}/{result.faces:<3} "
            f"{result.wrong:6} {result.mean_iou:5.2f} {result.ms_median:10.0f} {result.ms_mean:7.0f}"
        )
    if arguments.json:
        settings = {"pictures": len(pictures), "min_size": arguments.min_size, "max_side": max_side}
        arguments.json.write_text(json.dumps({**settings, "results": [asdict(r) for r in results]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
