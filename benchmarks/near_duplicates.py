"""How fast near copies are found, and how well.

    python benchmarks/near_duplicates.py speed [--large] [--json out.json]
    python benchmarks/near_duplicates.py copies [--pictures 60] [--json out.json]
    python benchmarks/near_duplicates.py strangers FOLDER [--json out.json]
    python benchmarks/near_duplicates.py groups FOLDER [--json out.json]

speed: the search and the dedup stage on made hashes; `--large` adds 3,000,000 hashes. The figure of comparing all with
all is measured on 20,000 hashes, where both must find the same pairs.
copies: draws pictures as the demo board does, makes a copy of each kind, looks for faces in all of them, and asks the
dedup stage: of the faces found in both, how many fell (recall), and how many fell for another face (wrong).
strangers: pictures of which no two are copies: how many pairs are within which radius.
groups: pictures and groups.csv (image, group) of equal files: pairs found of each group, and others.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from PIL import Image

from datasets.booru import defects
from datasets.booru.board import Order, draw_post
from datasets.booru.defects import Draft
from datasets.booru.evaluate import overlap
from models.faces.geometry import FACE, Box, cut_square, place_square
from models.faces.load import load_detector
from models.hashing import (
    PictureHashes,
    find_near_pairs,
    find_near_pairs_within,
    hamming,
    hash_picture,
    visit_near_pairs_within,
)
from tasks.dedup import FACTS, DedupParams, decide, measure_pixels

SEED = 64
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
Row = dict[str, Any]


# ---- speed -----------------------------------------------------------------------------------------------------------


def draw_hashes(count: int, words: int = 1, planted: float = 0.01, flips: int = 3) -> np.ndarray:
    """Even random hashes, some of them near copies of others: uint64 (count,) or (count, words)."""
    rng = np.random.default_rng(SEED)
    hashes = rng.integers(0, 2**64, (count, words), dtype=np.uint64)
    copies, originals = rng.permutation(count).reshape(2, -1)[:, : int(count * planted)]
    hashes[copies] = hashes[originals]
    for _ in range(flips):
        hashes[copies, rng.integers(0, words, len(copies))] ^= np.uint64(1) << rng.integers(
            0, 64, len(copies), dtype=np.uint64
        )
    return hashes[:, 0] if words == 1 else hashes


def draw_uneven_hashes(count: int) -> np.ndarray:
    """Hashes as pictures of one kind have them: smooth fields about a common one, each bit against the median."""
    rng = np.random.default_rng(SEED)
    side = np.arange(64)
    scale = 1.0 / np.sqrt(1.0 + side // 8 + side % 8)
    common, mixing = rng.normal(0, 0.7, 64) * scale, np.eye(64) + 0.1 * rng.normal(size=(64, 64))
    hashes = np.empty(count, np.uint64)
    for start in range(0, count, 100_000):
        size = min(100_000, count - start)
        fields = common + (rng.normal(size=(size, 64)) * scale) @ mixing
        bits = np.packbits(fields > np.median(fields, axis=1, keepdims=True), axis=1)
        hashes[start : start + size] = bits.view(np.uint64)[:, 0]
    return hashes


def draw_crops(count: int, cluster: int = 0, copies: float = 0.0, flips: int = 2) -> pa.Table:
    """A table as the dedup stage judges it: random crops, `cluster` of them copies of one, `copies` pairs of copies."""
    rng = np.random.default_rng(SEED)
    columns: dict[str, Any] = {}
    for name in ("phash_bits", "phash_mirrored_bits", "source_hash", "source_hash_mirrored"):
        hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
        if name == "phash_bits":
            chosen = rng.permutation(count)[: max(cluster, 1)]
            hashes[chosen] = hashes[chosen[0]]
            twins, originals = rng.permutation(count // 2 * 2).reshape(2, -1)[:, : int(count * copies)]
            hashes[twins] = hashes[originals]
            for _ in range(flips):
                some = np.concatenate([chosen, twins])
                hashes[some] ^= np.uint64(1) << rng.integers(0, 64, len(some), dtype=np.uint64)
        columns[name] = pa.array(hashes)
        wide = pa.py_buffer(bytes(32 * count))
        columns[name.replace("hash", "hash256", 1)] = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(32), count, [None, wide]
        )
    names = [f"{k:08d}" for k in range(count)]
    numbers = {"source_width": 800, "source_height": 800, "box_x": 100, "box_y": 100, "box_w": 400, "box_h": 400}
    columns |= {name: pa.array(np.full(count, value, np.int32)) for name, value in numbers.items()}
    columns |= {name: pa.array(names) for name in ("crop_id", "post_id", "pixel_digest")}
    columns["score"] = pa.array(rng.integers(0, 100, count).astype(np.int32))
    columns["jpeg_quality"] = pa.array(rng.integers(60, 100, count).astype(np.float64))
    columns["true_format"], columns["decision"] = pa.array(["JPEG"] * count), pa.nulls(count, pa.string())
    return pa.table(columns)


def compare_all(hashes: np.ndarray, radius: int) -> int:
    """How many pairs are near, comparing all with all."""
    rows = 64
    found = 0
    for top in range(0, len(hashes), rows):
        apart = np.bitwise_count(hashes[top : top + rows, None] ^ hashes[None, top:])
        found += (
            int(np.triu(apart <= radius, 1).sum())
            if top + rows >= len(hashes)
            else int(np.triu(apart[:, :rows] <= radius, 1).sum() + (apart[:, rows:] <= radius).sum())
        )
    return found


def count_pairs(hashes: np.ndarray, radius: int) -> int:
    found = [0]
    visit_near_pairs_within(hashes, radius, lambda i, j, apart: found.__setitem__(0, found[0] + len(i)))
    return found[0]


def count_dropped(crops: pa.Table, params: DedupParams) -> int:
    return len(crops) - int(np.count_nonzero(decide(crops, params)["keep"].to_numpy()))


def time_it(name: str, work: Callable[[], Any], **said: Any) -> Row:
    """Wall seconds, processor seconds and the process's highest memory so far, of one run after none."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    row = {"what": name, "seconds": round(time.perf_counter() - wall, 3), "cpu": round(time.process_time() - cpu, 3)}
    row |= {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "result": result} | said
    print(" | ".join(str(value) for value in row.values()), flush=True)
    return row


def measure_speed(large: bool) -> Iterator[Row]:
    """The claims of docs/duplicates.md."""
    small = draw_hashes(20_000)
    brute = time_it("20,000: all with all, radius 3", partial(compare_all, small, 3))
    search = time_it("20,000: search, radius 3", partial(count_pairs, small, 3))
    if brute["result"] != search["result"]:
        raise SystemExit("the search does not find what comparing all finds")
    yield brute
    yield search | {"ratio": round(brute["seconds"] / search["seconds"], 1)}
    hashes, uneven = draw_hashes(300_000), draw_uneven_hashes(300_000)
    for radius in (3, 4, 6, 8, 10):
        yield time_it(f"300,000: search, radius {radius}", partial(count_pairs, hashes, radius))
    for radius in (4, 6, 8):
        yield time_it(f"300,000 uneven: search, radius {radius}", partial(count_pairs, uneven, radius))
    new = draw_hashes(310_000)[300_000:]

    def add(radius: int) -> int:
        return len(find_near_pairs(hashes, new, radius)[0]) + len(find_near_pairs_within(new, radius)[0])

    for radius in (3, 6):
        yield time_it(f"10,000 new against 300,000, radius {radius}", partial(add, radius))
    wide = draw_hashes(300_000, words=4)
    for radius in (2, 25):
        yield time_it(f"300,000 of 256 bits: search, radius {radius}", partial(count_pairs, wide, radius))
    if large:
        many = draw_hashes(3_000_000)
        yield time_it("3,000,000: search, radius 3", partial(count_pairs, many, 3))
    yield from measure_stage()


def measure_stage() -> Iterator[Row]:
    """The dedup stage as a whole: four ways to be near, ranking, verdicts."""
    for count, cluster, copies in (
        (3_000, 3_000, 0.0),
        (30_000, 30_000, 0.0),
        (300_000, 0, 0.05),
        (300_000, 30_000, 0.05),
    ):
        crops = draw_crops(count, cluster, copies)
        for params in (DedupParams(), DedupParams(radius=8)) if count == 300_000 else (DedupParams(),):
            name = f"decide(): {count:,} crops, {cluster:,} of one picture, {copies:.0%} copies, radius {params.radius}"
            yield time_it(name, partial(count_dropped, crops, params))


# ---- copies ----------------------------------------------------------------------------------------------------------


def brighten(draft: Draft, rng: np.random.Generator) -> Draft:
    """Another gamma, .75 to 1.3."""
    scale = np.round(255 * (np.arange(256) / 255) ** float(rng.uniform(0.75, 1.3))).astype(np.uint8)
    return _encode(draft, scale[draft.pixels])


def shift_colours(draft: Draft, rng: np.random.Generator) -> Draft:
    """Channels mixed by a tenth and moved by twelve levels."""
    mixed = draft.pixels @ (np.eye(3) + rng.uniform(-0.12, 0.12, (3, 3))).T + rng.uniform(-12, 12, 3)
    return _encode(draft, np.clip(mixed, 0, 255).astype(np.uint8))


def soften(draft: Draft, rng: np.random.Generator) -> Draft:
    return _encode(draft, np.asarray(cv2.GaussianBlur(draft.pixels, (0, 0), 1.5), np.uint8))


def stamp(draft: Draft, rng: np.random.Generator) -> Draft:
    """A line of white text across the picture."""
    pixels, place = draft.pixels.copy(), (int(draft.width * 0.05), int(draft.height * rng.uniform(0.5, 0.95)))
    size = draft.width / 600
    cv2.putText(
        pixels, "SAMPLE by nobody", place, cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), max(1, round(2 * size))
    )
    return _encode(draft, pixels)


def crop_more(draft: Draft, rng: np.random.Generator) -> Draft:
    """Four to ten hundredths cut off each side."""
    left, right, top, bottom = (
        rng.uniform(0.04, 0.1, 4) * [draft.width, draft.width, draft.height, draft.height]
    ).astype(int)
    faces = tuple(replace(face, x=face.x - left, y=face.y - top) for face in draft.faces)
    pixels = np.ascontiguousarray(draft.pixels[top : draft.height - bottom, left : draft.width - right])
    return _encode(replace(draft, faces=faces), pixels)


def _encode(draft: Draft, pixels: np.ndarray) -> Draft:
    return replace(draft, pixels=pixels, data=defects.jpeg(pixels), width=pixels.shape[1], height=pixels.shape[0])


COPIES: dict[str, Callable[[Draft, np.random.Generator], Draft]] = {
    **{kind.name: kind.spoil for kind in defects.KINDS if kind.subject == "copy" and kind.name != "byte_copy"},
    "heavy_jpeg": defects.heavy_jpeg,
    "brightened": brighten,
    "colour_shifted": shift_colours,
    "softened": soften,
    "stamped": stamp,
    "cropped_4_to_10": crop_more,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "crops 4, posts only at 0": {"radius": 4, "source_radius": 0},
    "crops 10, posts only at 0": {"radius": 10, "source_radius": 0},
    "crops 4, posts 4, 64 bits alone": {"radius": 4, "source_radius": 4, "radius256": None},
    "posts 6, 256 bits 40": {"source_radius": 6, "radius256": 40},
    "posts 6": {"source_radius": 6},
    "posts 10": {"source_radius": 10},
    "defaults": {},
}


def hash_columns(rgb: np.ndarray) -> Row:
    """The hashes of a whole picture, as the crop stage keeps them."""
    found = hash_picture(rgb)
    names = ("source_hash", "source_hash_mirrored", "source_hash256", "source_hash256_mirrored")
    return dict(zip(names, _values(found), strict=True))


def _values(found: PictureHashes | None) -> tuple[Any, ...]:
    return (None,) * 4 if found is None else (found.bits, found.mirrored, found.bits256, found.mirrored256)


def cut_faces(draft: Draft, post: str, detector: Any) -> Iterator[Row]:
    """Rows of the crops of a post that show a face of its own, with the number of that face."""
    rgb = np.asarray(Image.open(io.BytesIO(draft.data or b"")).convert("RGB"))
    height, width = rgb.shape[:2]
    whole = hash_columns(rgb) | {"post_id": post, "source_width": width, "source_height": height}
    for k, face in enumerate(detector.detect(rgb)):
        box = (face.x, face.y, face.w, face.h)
        overlaps = [(overlap(box, (own.x, own.y, own.side, own.side)), own.number) for own in draft.faces]
        if max(overlaps, default=(0.0, 0))[0] < 0.3:
            continue
        square = place_square(face, (width, height), FACE)
        pixels = cut_square(partial(_read_box, rgb), square, (width, height))
        place = {"box_x": square.x, "box_y": square.y, "box_w": square.side, "box_h": square.side}
        names = {"crop_id": f"{post}#{k}", "pixel_digest": hashlib.sha256(pixels.tobytes()).hexdigest()}
        told = {"score": 0, "true_format": "JPEG", "jpeg_quality": None, "decision": None}
        facts = measure_pixels(pixels, DedupParams())
        yield whole | place | names | told | facts | {"face": max(overlaps)[1]}


def _read_box(rgb: np.ndarray, box: Box) -> np.ndarray:
    return rgb[box.y : box.y + box.h, box.x : box.x + box.w]


def make_table(rows: list[Row]) -> pa.Table:
    types = {field.name: field.type for field in FACTS}
    types |= {"source_hash": pa.uint64(), "source_hash_mirrored": pa.uint64(), "decision": pa.string()}
    types |= {"source_hash256": pa.binary(32), "source_hash256_mirrored": pa.binary(32), "jpeg_quality": pa.float64()}
    names = [name for name in rows[0] if name != "face"]
    return pa.table({name: pa.array([row[name] for row in rows], types.get(name)) for name in names})


def measure_copies(pictures: int) -> Iterator[Row]:
    """Recall by kind and settings, of faces that were found in the original and in the copy."""
    detector = load_detector("union", min_size=48, max_side=640)
    crops: dict[str, list[Row]] = {name: [] for name in ("original", *COPIES)}
    for k in range(pictures):
        draft, _ = draw_post(Order(k, k, "plain", None, None), SEED)
        crops["original"] += cut_faces(draft, f"{k}/original", detector)
        for number, (name, spoil) in enumerate(COPIES.items()):
            copy = spoil(draft, np.random.default_rng([SEED, k, number]))
            crops[name] += cut_faces(copy, f"{k}/{name}", detector)
    for settings, values in SETTINGS.items():
        for name in COPIES:
            yield score_copies(crops["original"], crops[name], DedupParams(**values)) | {
                "kind": name,
                "settings": settings,
            }


def score_copies(originals: list[Row], copies: list[Row], params: DedupParams) -> Row:
    """What the dedup stage makes of two lists of crops."""
    rows = originals + copies
    shown = {row["crop_id"]: (row["post_id"].split("/")[0], row["face"]) for row in rows}
    both = {shown[row["crop_id"]] for row in originals} & {shown[row["crop_id"]] for row in copies}
    verdicts = decide(make_table(rows), params).to_pylist()
    fallen = [
        (shown[row["crop_id"]], shown[verdict["related"]])
        for row, verdict in zip(rows, verdicts, strict=True)
        if not verdict["keep"]
    ]
    found = {face for face, other in fallen if face == other}
    wrong = sum(face != other for face, other in fallen)
    return {"faces": len(both), "recall": round(len(found & both) / max(1, len(both)), 3), "wrong": wrong}


# ---- real pictures ---------------------------------------------------------------------------------------------------


def read_hashes(folder: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Names and hashes of the pictures of a folder that are not uniform."""
    names, found = [], []
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES):
        with Image.open(path) as image:
            hashes = hash_picture(np.asarray(image.convert("RGB")))
        if hashes is not None:
            names.append(path.name)
            found.append(hashes)
    columns = {
        "bits": np.array([one.bits for one in found], np.uint64),
        "mirrored": np.array([one.mirrored for one in found], np.uint64),
        "bits256": np.frombuffer(b"".join(one.bits256 for one in found), np.uint64).reshape(-1, 4),
        "mirrored256": np.frombuffer(b"".join(one.mirrored256 for one in found), np.uint64).reshape(-1, 4),
    }
    return names, columns


def list_distances(hashes: dict[str, np.ndarray], mirror: bool) -> tuple[np.ndarray, ...]:
    """All pairs i < j: i, j, bits of 64 apart, bits of 256 apart."""
    how = "mirrored" if mirror else "bits"
    i, j = np.triu_indices(len(hashes["bits"]), 1)
    fine = hashes["mirrored256" if mirror else "bits256"]
    return i, j, hamming(hashes["bits"][i], hashes[how][j]), hamming(hashes["bits256"][i], fine[j])


def measure_strangers(folder: Path) -> Iterator[Row]:
    """How many pairs of different pictures each setting would take for copies."""
    _, hashes = read_hashes(folder)
    for mirror in (False, True):
        _, _, near, fine = list_distances(hashes, mirror)
        for radius in (4, 6, 8, 10):
            wrong = {f"256 bits {limit}": int(np.sum((near <= radius) & (fine <= limit))) for limit in (40, 60, 80)}
            counts = {"64 bits alone": int(np.sum(near <= radius))} | wrong
            yield {"folder": folder.name, "pairs": len(near), "mirror": mirror, "radius": radius} | counts
        yield {"mirror": mirror, "nearest by 64 bits": int(near.min()), "nearest by 256 bits": int(fine.min())}


def measure_groups(folder: Path) -> Iterator[Row]:
    """Pairs within the defaults against the groups that the folder tells of."""
    names, hashes = read_hashes(folder)
    with (folder / "groups.csv").open(newline="", encoding="utf-8") as file:
        groups = {row["image"]: row["group"] for row in csv.DictReader(file)}
    group = np.array([groups.get(name, name) for name in names])
    params = DedupParams()
    for mirror, radius in ((False, params.radius), (True, params.mirror_radius)):
        i, j, near, fine = list_distances(hashes, mirror)
        same = group[i] == group[j]
        found = (near <= radius) & (fine <= (params.radius256 or 256))
        row = {"mirror": mirror, "pairs of a group": int(same.sum()), "found": int((found & same).sum())}
        yield row | {"others found": int((found & ~same).sum())}


# ---- the command line ------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "copies", "strangers", "groups"))
    parser.add_argument("folder", type=Path, nargs="?", help="pictures, for strangers and groups")
    parser.add_argument("--large", action="store_true", help="speed: 3,000,000 hashes, too")
    parser.add_argument("--pictures", type=int, default=60, help="copies: how many pictures to draw (default 60)")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    arguments = parser.parse_args()
    if arguments.what in ("strangers", "groups") and arguments.folder is None:
        parser.error(f"{arguments.what} needs a folder of pictures")
    made = {
        "speed": lambda: measure_speed(arguments.large),
        "copies": lambda: measure_copies(arguments.pictures),
        "strangers": lambda: measure_strangers(arguments.folder),
        "groups": lambda: measure_groups(arguments.folder),
    }
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    rows = []
    for row in made[arguments.what]():
        rows.append(row)
        if arguments.what != "speed":  # told while it ran
            print(" | ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
