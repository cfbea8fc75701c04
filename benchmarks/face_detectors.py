"""Recall, precision and speed of the face detectors on pictures whose faces are known.

    python benchmarks/face_detectors.py FOLDER... [--modes union,agreement] [--model face.onnx] [--max-side 1024]
                                        [--min-size 24] [--every 1] [--json out.json]

What a folder holds is seen from its files:

* boxes.csv (image, x, y, w, h, kind): a box of kind `face` is found when a detection overlaps it at IoU .3
  or more (one to one, best overlap first). A box of kind `ignore` counts neither way, nor does a detection that
  overlaps one at IoU .3 or lies at least half inside it. Whatever else is found is wrong.
* truth.parquet (a demo board of `kaobako booru`): the faces of the posts to keep, matched in the same way; recall is
  also given for each skin.
* folders face and nonface: a picture in face holds one face, whatever is found in nonface is wrong.
* pictures alone: each holds exactly one face; a second detection is wrong.

Times are processor time of all threads, per picture, without decoding: other work on the machine does not count.
"""

import argparse
import csv
import json
import statistics
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from models.faces.combine import match_faces
from models.faces.detector import RGB, SAME_FACE, Face, FaceDetector, share_inside
from models.faces.load import DetectorMode, load_detector

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True)
class Example:
    """A picture and what is to be found in it."""

    path: Path
    faces: tuple[Face, ...] = ()
    ignored: tuple[Face, ...] = ()
    groups: tuple[str, ...] = ()  # of each face
    count: int | None = None  # how many faces there are, where their places are not known


@dataclass(frozen=True)
class Result:
    """One detector over one folder."""

    folder: str
    pictures: int
    detector: str
    recall: float | None  # None where there is no face to be found
    precision: float | None
    found: int
    faces: int
    wrong: int
    mean_iou: float | None  # of the faces found
    ms_median: float
    ms_mean: float
    groups: dict[str, str] = field(default_factory=dict)  # found/faces


def read_rgb(path: Path) -> RGB:
    """A picture as (H, W, 3) uint8, upright, transparency over white."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if "A" in image.getbands() or "transparency" in image.info:
            rgba = image.convert("RGBA")
            return np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB"))
        return np.asarray(image.convert("RGB"))


def read_examples(folder: Path) -> list[Example]:
    """The pictures of a folder with their faces, in the order of their names."""
    if (folder / "boxes.csv").exists():
        return _read_labelled(folder)
    if (folder / "truth.parquet").exists():
        return _read_board(folder)
    if (folder / "nonface").is_dir():
        return [Example(p, count=1) for p in list_pictures(folder / "face")] + [
            Example(p, count=0) for p in list_pictures(folder / "nonface")
        ]
    return [Example(path, count=1) for path in list_pictures(folder)]


def list_pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def _read_labelled(folder: Path) -> list[Example]:
    boxes: dict[tuple[str, str], list[Face]] = defaultdict(list)
    with (folder / "boxes.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            x, y, w, h = (round(float(row[key])) for key in "xywh")
            boxes[row["image"], row["kind"]].append(Face(x, y, w, h, 1.0, "label"))
    return [
        Example(path, tuple(boxes[path.name, "face"]), tuple(boxes[path.name, "ignore"]))
        for path in list_pictures(folder)
    ]


def _read_board(folder: Path) -> list[Example]:
    examples = []
    for post in pq.read_table(folder / "truth.parquet").sort_by("post_id").to_pylist():
        if post["expected"] == "keep" and post["path"]:
            faces = tuple(Face(*(round(face[key]) for key in "xywh"), 1.0, "truth") for face in post["faces"])
            skins = tuple(f"skin {face['skin']}" for face in post["faces"])
            examples.append(Example(folder / post["path"], faces, groups=skins))
    return examples


def score_faces(example: Example, detected: list[Face]) -> tuple[list[tuple[int, float]], int]:
    """(index of a face that was found, its IoU), and how many detections are wrong."""
    if example.count is not None:
        found = min(example.count, len(detected))
        return [(k, 1.0) for k in range(found)], len(detected) - found
    pairs = match_faces(list(example.faces), detected, SAME_FACE)
    matched = {j for _, j, _ in pairs}
    ignored = list(example.ignored)
    wrong = sum(
        j not in matched
        and not match_faces([face], ignored, SAME_FACE)
        and all(share_inside(face, box) < 0.5 for box in ignored)
        for j, face in enumerate(detected)
    )
    return [(i, overlap) for i, _, overlap in pairs], wrong


def measure(detector: FaceDetector, label: str, folder: str, examples: list[Example]) -> Result:
    """Run one detector over all pictures."""
    wrong, total = 0, 0
    overlaps: list[float] = []
    times: list[float] = []
    there, seen = Counter[str](), Counter[str]()
    for example in examples:
        rgb = read_rgb(example.path)
        start = time.process_time()
        detected = detector.detect(rgb)
        times.append(1000 * (time.process_time() - start))
        found, more = score_faces(example, detected)
        wrong += more
        total += len(example.faces) if example.count is None else example.count
        overlaps += [overlap for _, overlap in found]
        there.update(example.groups)
        seen.update(example.groups[i] for i, _ in found if example.groups)
    found_faces = len(overlaps)
    placed = bool(overlaps) and examples[0].count is None
    return Result(
        folder=folder,
        pictures=len(examples),
        detector=label,
        recall=round(found_faces / total, 4) if total else None,
        precision=round(found_faces / (found_faces + wrong), 4) if found_faces + wrong else None,
        found=found_faces,
        faces=total,
        wrong=wrong,
        mean_iou=round(statistics.fmean(overlaps), 3) if placed else None,
        ms_median=round(statistics.median(times), 1),
        ms_mean=round(statistics.fmean(times), 1),
        groups={name: f"{seen[name]}/{count}" for name, count in sorted(there.items())},
    )


def show(result: Result) -> str:
    recall, precision, overlap = (
        "   -" if value is None else f"{value:4.2f}" for value in (result.recall, result.precision, result.mean_iou)
    )
    groups = "".join(f"  {name} {count}" for name, count in result.groups.items())
    return (
        f"{result.detector:16} {recall:>6} {precision:>10} {result.found:5}/{result.faces:<4} {result.wrong:5} "
        f"{overlap:>5} {result.ms_median:10.0f} {result.ms_mean:7.0f}{groups}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--modes", help="comma-separated (default: all that need no network of yours)")
    parser.add_argument("--model", type=Path, help="an ONNX network, for the modes onnx, union and agreement")
    parser.add_argument("--min-size", type=int, default=24, help="smallest face in pixels (default 24)")
    parser.add_argument("--max-side", type=int, default=1024, help="search a copy of at most this size; 0: full size")
    parser.add_argument("--every", type=int, default=1, help="take every n-th picture of a folder")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    arguments = parser.parse_args()

    every_mode = [mode for mode in get_args(DetectorMode) if mode != "onnx"]
    modes = arguments.modes.split(",") if arguments.modes else (["onnx"] if arguments.model else every_mode)
    max_side = arguments.max_side or None
    results = []
    for folder in arguments.folders:
        examples = read_examples(folder)[:: arguments.every]
        print(
            f"{folder.name}: {len(examples)} pictures, min size {arguments.min_size}, max side {max_side or 'none'}\n"
            "detector         recall  precision      found wrong   IoU  ms median    mean"
        )
        for mode in modes:
            detector = load_detector(mode, arguments.min_size, max_side=max_side, model=arguments.model)
            results.append(measure(detector, mode, folder.name, examples))
            print(show(results[-1]), flush=True)
    if arguments.json:
        settings = {"min_size": arguments.min_size, "max_side": max_side, "every": arguments.every}
        arguments.json.write_text(json.dumps({**settings, "results": [asdict(r) for r in results]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
