"""Cropping large JPEGs: speed, recall and precision against the guide's script, and what a blob costs.

    python benchmarks/cropping.py [FOLDER] [--megapixels 4.1] [--posts 120] [--rounds 3] [--json out.json]

FOLDER holds pictures and boxes.csv (image, x, y, w, h, kind = face or ignore), as for face_detectors.py. Without it the
demo board is drawn and its own truth is taken. Every picture is enlarged to the given size, with its boxes, and saved
as JPEG of quality 92 to 95 in a temporary folder. Faces below the script's smallest box (250 pixels) count neither way.

The script is the one of the StyleGAN guide: cv2.imread in full, grey, equalised, detectMultiScale by 1.1 with 5
neighbours from 250 pixels on, and the boxes cut out. Against it stands what the crop stage does with detector `lbp` and
search_face = 188 (our boxes are tight: .75 of the cascade's side). Both run on one core, in turns within each round;
the least of the rounds counts.
"""

import argparse
import csv
import io
import json
import math
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from datasets.booru.board import draw_board
from datasets.cache import INPUT
from datasets.digests import digest_file
from datasets.pictures import OpenPicture, UnreadablePictureError, decode_picture, encode_png, open_picture
from datasets.store import Store
from models.faces.combine import match_faces
from models.faces.detector import Face, share_inside
from models.faces.geometry import FACE, cut_square, lowest_row, place_square
from models.faces.lbp import TIGHT
from models.hashing import perceptual_hash
from models.weights import read_weight
from tasks import crop
from tasks.crop import CropParams
from tasks.detection import Detector, FaceSearch
from tasks.stage import Shard

SCRIPT_FACE = 250  # pixels: smallest box of the script
SEARCH_FACE = round(SCRIPT_FACE * TIGHT)
MATCH_IOU = 0.3
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}

Labels = dict[str, dict[str, list[Face]]]  # image -> kind -> boxes
Cropper = Callable[[Path], list[Face]]


def read_labels(folder: Path) -> Labels:
    """boxes.csv of a labelled folder."""
    labels: Labels = defaultdict(lambda: defaultdict(list))
    with (folder / "boxes.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            x, y, w, h = (round(float(row[key])) for key in "xywh")
            labels[row["image"]][row["kind"]].append(Face(x, y, w, h, 1.0, "label"))
    return labels


def draw_pictures(folder: Path, posts: int) -> tuple[list[Path], Labels]:
    """The demo board and the boxes of its faces."""
    draw_board(folder, posts, seed=3)
    labels: Labels = defaultdict(lambda: defaultdict(list))
    taken = set()
    for row in pq.read_table(folder / "truth.parquet").to_pylist():
        if row["path"] is None:
            continue
        path = folder / row["path"]
        taken.add(path)
        for face in row["faces"]:
            sides = [round(face[key]) for key in "xywh"]
            labels[path.name]["face"].append(Face(*sides, 1.0, "label"))
    return sorted(taken), labels


def enlarge(paths: Iterable[Path], labels: Labels, folder: Path, megapixels: float) -> tuple[list[Path], Labels]:
    """The readable pictures at the given size as JPEGs, and their boxes; small faces become boxes to ignore."""
    folder.mkdir()
    made: list[Path] = []
    larger: Labels = defaultdict(lambda: defaultdict(list))
    for number, path in enumerate(paths):
        try:
            image = Image.fromarray(decode_picture(path.read_bytes()).rgb)
        except UnreadablePictureError:  # what the board has planted
            continue
        factor = math.sqrt(megapixels * 1e6 / (image.width * image.height))
        if factor < 1 or image.width * image.height < 250_000:
            continue
        size = (round(image.width * factor), round(image.height * factor))
        copy = image.resize(size, Image.Resampling.LANCZOS)
        target = folder / f"{path.stem}.jpg"
        copy.save(target, quality=92 + number % 4)
        made.append(target)
        for kind, boxes in labels[path.name].items():
            for box in boxes:
                sides = [round(side * factor) for side in (box.x, box.y, box.w, box.h)]
                known = kind if min(sides[2:]) >= SCRIPT_FACE else "ignore"
                larger[target.name][known].append(Face(*sides, 1.0, "label"))
    return made, larger


def make_script(out: Path | None = None) -> Cropper:
    """The guide's script, as a function of a file. out: folder for its crops as PNG files."""
    cascade = cv2.CascadeClassifier()
    xml = read_weight("lbpcascade-animeface", ()).decode("ascii")
    storage = cv2.FileStorage(xml, cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
    cascade.read(storage.getFirstTopLevelNode())

    def crop_file(path: Path) -> list[Face]:
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        grey = cv2.equalizeHist(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY))
        found = cascade.detectMultiScale(grey, 1.1, 5, minSize=(SCRIPT_FACE, SCRIPT_FACE))
        for number, (x, y, w, h) in enumerate(found):
            piece = picture[y : y + h, x : x + w].copy()
            if out is not None:
                cv2.imwrite(str(out / f"{path.stem}-{number}.png"), piece)
        return [Face(*map(int, box), 1.0, "script") for box in found]

    return crop_file


def cut_face(picture: OpenPicture, face: Face) -> np.ndarray:
    """The pixels of a face's crop."""
    size = (picture.width, picture.height)
    return cut_square(lambda box: picture.cut(box.x, box.y, box.w, box.h), place_square(face, size, FACE), size)


def make_ours(detector: Detector, search_face: int) -> Cropper:
    """The way of the crop stage, up to the pixels of the crops."""
    search = FaceSearch(detector, search_face, 1024)

    def crop_file(path: Path) -> list[Face]:
        picture = open_picture(path.read_bytes(), choose_reduction=search.choose_reduction)
        size = (picture.width, picture.height)
        faces = search.find(picture)
        squares = [place_square(face, size, FACE) for face in faces]
        picture.expect(max(map(lowest_row, squares), default=0))
        for square in squares:
            cut_square(lambda box: picture.cut(box.x, box.y, box.w, box.h), square, size)
        return faces

    return crop_file


def score(found: dict[str, list[Face]], labels: Labels) -> dict[str, float]:
    """Recall and precision at IoU .3, one to one; what matches or lies in a box to ignore counts neither way."""
    right, wrong, total = 0, 0, 0
    for name, faces in found.items():
        wanted, ignored = labels[name]["face"], labels[name]["ignore"]
        pairs = match_faces(wanted, faces, MATCH_IOU)
        matched = {j for _, j, _ in pairs}
        rest = [face for j, face in enumerate(faces) if j not in matched]
        rest = [face for face in rest if not match_faces([face], ignored, MATCH_IOU)]
        rest = [face for face in rest if all(share_inside(face, box) < 0.5 for box in ignored)]
        right, wrong, total = right + len(pairs), wrong + len(rest), total + len(wanted)
    return {
        "found": right,
        "faces": total,
        "wrong": wrong,
        "recall": round(right / max(1, total), 3),
        "precision": round(right / max(1, right + wrong), 3),
    }


def compare(ways: dict[str, Cropper], paths: list[Path], labels: Labels, rounds: int) -> dict[str, dict[str, float]]:
    """Each way over all files, in turns; pictures per second of the core's time."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, dict[str, list[Face]]] = {name: {} for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.process_time()
            for path in paths:
                found[name][path.name] = way(path)
            seconds[name].append(time.process_time() - start)
    return {
        name: {
            "per_second": round(len(paths) / min(seconds[name]), 1),
            "with_face": round(sum(bool(faces) for faces in found[name].values()) / len(paths), 2),
            **score(found[name], labels),
        }
        for name in ways
    }


def time_stage(paths: list[Path], root: Path, rounds: int) -> dict[str, float]:
    """The whole stage, digests, blobs, thumbnails and hashes included, against the script with its crops as PNG files,
    both on one core; then as many shards side by side as there are cores, by the clock."""
    params = CropParams(detector=Detector.LBP, search_face=SEARCH_FACE)
    rows = [{INPUT: digest_file(path), "source_path": path.name} for path in paths]
    cores = len(os.sched_getaffinity(0))
    (root / "script").mkdir()
    script = make_script(root / "script")

    def measure(part: list[dict[str, str]], store: Store) -> None:
        with store.blobs.syncing_together():
            crop.measure(Shard(pa.Table.from_pylist(part), store, paths[0].parent), params.for_measure())

    spent: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        start = time.process_time()
        for path in paths:
            script(path)
        spent["script"].append(time.process_time() - start)
        start, clock = time.process_time(), time.perf_counter()
        measure(rows, Store(root / f"one-{number}"))
        spent["stage"].append(time.process_time() - start)
        spent["one core"].append(time.perf_counter() - clock)
        clock = time.perf_counter()
        with ThreadPoolExecutor(cores) as executor:
            stores = [Store(root / f"all-{number}-{core}") for core in range(cores)]
            list(executor.map(measure, [rows[core::cores] for core in range(cores)], stores))
        spent["all cores"].append(time.perf_counter() - clock)
    speed = {name: len(paths) / min(seconds) for name, seconds in spent.items()}
    return {
        "script_per_second": round(speed["script"], 1),
        "stage_per_second": round(speed["stage"], 1),
        "ratio": round(speed["stage"] / speed["script"], 2),
        "cores": cores,
        "all_cores_against_one": round(speed["all cores"] / speed["one core"], 2),
    }


def compare_hashes(paths: list[Path]) -> dict[str, float]:
    """Bits of 64 between a picture's hash from its reduced copy and from all of it, and from its half-size copy."""
    search = FaceSearch(Detector.LBP, SEARCH_FACE, 1024)
    to_whole, to_half = [], []
    for path in paths:
        data = path.read_bytes()
        one = perceptual_hash(open_picture(data, choose_reduction=search.choose_reduction).preview)
        rgb = decode_picture(data).rgb
        whole = perceptual_hash(rgb)
        half = cv2.resize(rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        jpeg = cv2.imencode(".jpg", cv2.cvtColor(half, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
        other = perceptual_hash(open_picture(jpeg, choose_reduction=search.choose_reduction).preview)
        if one is None or whole is None or other is None:
            continue  # a uniform picture has no hash
        to_whole.append((one ^ whole).bit_count())
        to_half.append((one ^ other).bit_count())
    return {
        "to_whole_mean": round(float(np.mean(to_whole)), 2),
        "to_whole_most": max(to_whole),
        "to_half_mean": round(float(np.mean(to_half)), 2),
        "to_half_most": max(to_half),
        "half_within_4_bits": round(float(np.mean(np.array(to_half) <= 4)), 3),
    }


def compare_encoders(crops: list[np.ndarray], rounds: int) -> dict[str, dict[str, float]]:
    """Crops as PNG: megapixels a second written and read again (by Pillow), and bytes a pixel."""

    def with_pillow(level: int) -> Callable[[np.ndarray], bytes]:
        def encode(rgb: np.ndarray) -> bytes:
            buffer = io.BytesIO()
            Image.fromarray(rgb).save(buffer, "PNG", compress_level=level)
            return buffer.getvalue()

        return encode

    def with_opencv(strategy: int, kind: int) -> Callable[[np.ndarray], bytes]:
        flags = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, strategy, cv2.IMWRITE_PNG_FILTER, kind]

        def encode(rgb: np.ndarray) -> bytes:
            return cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), flags)[1].tobytes()

        return encode

    ways = {
        "pillow level 1": with_pillow(1),
        "pillow level 6": with_pillow(6),
        "opencv default, up": with_opencv(cv2.IMWRITE_PNG_STRATEGY_DEFAULT, cv2.IMWRITE_PNG_FILTER_UP),
        "opencv runs, sub": with_opencv(cv2.IMWRITE_PNG_STRATEGY_RLE, cv2.IMWRITE_PNG_FILTER_SUB),
        "opencv runs, paeth": with_opencv(cv2.IMWRITE_PNG_STRATEGY_RLE, cv2.IMWRITE_PNG_FILTER_PAETH),
        "ours (runs, up)": encode_png,
    }
    pixels = sum(rgb.shape[0] * rgb.shape[1] for rgb in crops)
    table = {}
    for name, encode in ways.items():
        written, read = [], []
        for _ in range(rounds):
            start = time.process_time()
            files = [encode(rgb) for rgb in crops]
            written.append(time.process_time() - start)
            start = time.process_time()
            for data in files:
                Image.open(io.BytesIO(data)).load()
            read.append(time.process_time() - start)
        table[name] = {
            "write_mp_s": round(pixels / min(written) / 1e6, 1),
            "read_mp_s": round(pixels / min(read) / 1e6, 1),
            "bytes_per_pixel": round(sum(map(len, files)) / pixels, 3),
        }
    return table


def cut_labelled(paths: list[Path], labels: Labels, most: int = 40) -> list[np.ndarray]:
    """The labelled faces as the crop stage would cut them."""
    crops = []
    for path in paths:
        try:
            picture = open_picture(path.read_bytes())
        except UnreadablePictureError:
            continue
        for face in labels[path.name]["face"]:
            if min(face.w, face.h) >= 64 and len(crops) < most:
                crops.append(cut_face(picture, face))
    return crops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="pictures and boxes.csv; none: the demo board")
    parser.add_argument("--megapixels", type=float, default=4.1)
    parser.add_argument("--posts", type=int, default=120, help="posts of the demo board to draw")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        if arguments.folder is None:
            originals, labels = draw_pictures(root / "board", arguments.posts)
        else:
            originals = sorted(path for path in arguments.folder.iterdir() if path.suffix.lower() in SUFFIXES)
            labels = read_labels(arguments.folder)
        paths, larger = enlarge(originals, labels, root / "large", arguments.megapixels)
        sizes = [path.stat().st_size for path in paths]
        print(f"{len(paths)} JPEGs of {arguments.megapixels} megapixels, {sum(sizes) / len(sizes) / 1000:.0f} kB each")
        ways = {"script": make_script(), "ours": make_ours(Detector.LBP, SEARCH_FACE)}
        results = compare(ways, paths, larger, arguments.rounds)
        figures = {
            "in memory": results,
            "ratio": round(results["ours"]["per_second"] / results["script"]["per_second"], 2),
            "with files": time_stage(paths, root, arguments.rounds),
            "hashes": compare_hashes(paths),
            "png": compare_encoders(cut_labelled(originals, labels), arguments.rounds),
        }
    text = json.dumps(figures, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
