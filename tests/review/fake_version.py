"""A little version with something dropped at every stage, drawn in code; as a program, its review or its pull.

`python fake_version.py serve FOLDER PORT` opens the App, `python fake_version.py pull FOLDER` pulls the decisions.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image, ImageDraw

from datasets.blobs import BlobFolder
from datasets.digests import digest_bytes
from datasets.review.commands import open_review, pull_review
from datasets.review.records import ReviewInputs, review_name
from datasets.schema import DECISIONS, LEDGER, MANIFEST, conform

NAME = review_name("faces", 7)
KEPT = 18


def draw_face(hue: int, size: int = 96) -> bytes:
    """A PNG of a face as a child draws it; every hue gives other pixels."""
    image = Image.new("HSV", (size, size), (hue % 256, 70, 235)).convert("RGB")
    draw = ImageDraw.Draw(image)
    hair = Image.new("HSV", (1, 1), ((hue + 90) % 256, 180, 150)).convert("RGB").getpixel((0, 0))
    draw.ellipse((size * 0.12, size * 0.06, size * 0.88, size * 0.9), fill=hair)
    draw.ellipse((size * 0.2, size * 0.24, size * 0.8, size * 0.92), fill=(252, 226, 206))
    for x in (0.37, 0.63):
        draw.ellipse((size * (x - 0.07), size * 0.48, size * (x + 0.07), size * 0.66), fill=(50, 40, 70))
        draw.ellipse((size * (x - 0.03), size * 0.5, size * (x + 0.01), size * 0.55), fill=(255, 255, 255))
    draw.arc((size * 0.42, size * 0.68, size * 0.58, size * 0.8), 20, 160, fill=(190, 80, 90), width=max(1, size // 48))
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def make_row(item: str, png: bytes, blobs: BlobFolder, **more: Any) -> dict[str, Any]:
    """What is known of a crop, as a row of the manifest."""
    post = item.split("#")[0]
    return {
        "crop_id": item,
        "post_id": post,
        "blob": blobs.put(png),
        "pixel_digest": digest_bytes(png),
        "width": 96,
        "height": 96,
        "box_x": 10,
        "box_y": 20,
        "box_w": 96,
        "box_h": 96,
        "face_x": 34.0,
        "face_y": 44.0,
        "face_w": 48.0,
        "face_h": 48.0,
        "detector": "lbp",
        "detector_score": 0.9,
        "rating": "general",
        "score": 12,
        "tags": ["1girl", f"series_{int(post) % 3}"],
        "source_path": f"pictures/{post}.png",
        "blur": 310.5,
        "colours": 40,
        "saturation": 66.0,
        **more,
    }


def make_dropped(stage: str, reason: str, row: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The row as the ledger has it: no published blob, but the crop's pixels if there were any."""
    crop = row.pop("blob", None)
    return {
        "stage": stage,
        "reason": reason,
        "item_id": row["crop_id"] or row["post_id"],
        **row,
        "crop_blob": crop,
        **more,
    }


def make_version(folder: Path) -> ReviewInputs:
    """18 kept; dropped: a post without a file, a face too small, a blurry crop, two duplicates, a low rank."""
    blobs = BlobFolder(folder / "blobs")
    source = folder / "source"
    (source / "pictures").mkdir(parents=True)
    kept = [
        make_row(
            f"{100 + i}#0", draw_face(i * 13), blobs, d_score=round(i * 0.31 - 2, 3), d_percentile=i * 100 / (KEPT - 1)
        )
        for i in range(KEPT)
    ]
    (source / "pictures" / "201.png").write_bytes(draw_face(7, size=200))
    nothing = dict.fromkeys(MANIFEST.names) | {"post_id": "200", "crop_id": None}
    dropped = [
        make_dropped("filter", "file_missing", dict(nothing), detail="pictures/200.png is not there"),
        make_dropped(
            "crop",
            "face_too_small",
            dict(nothing)
            | {"post_id": "201", "source_path": "pictures/201.png", "rating": "general"}
            | {"face_x": 40.0, "face_y": 48.0, "face_w": 120.0, "face_h": 120.0},
            measurement="face_w",
            value=120.0,
            threshold=150.0,
            parameter="crop.min_face",
        ),
        make_dropped(
            "clean",
            "blurry",
            make_row("202#0", draw_face(201), blobs, blur=12.25),
            measurement="blur",
            value=12.25,
            threshold=50.0,
            parameter="clean.min_blur",
        ),
        make_dropped("dedup", "near_duplicate", make_row("203#0", draw_face(14), blobs), related="101#0", value=2.0),
        make_dropped("dedup", "near_duplicate", make_row("204#0", draw_face(15), blobs), related="203#0", value=3.0),
        make_dropped("rank", "low_rank", make_row("205#0", draw_face(220), blobs, d_score=-9.5, d_percentile=0.5)),
    ]
    return ReviewInputs(
        version="faces@v7",
        content_digest="c" * 64,
        manifest=conform(pa.Table.from_pylist(kept), MANIFEST),
        ledger=pa.Table.from_pylist(dropped, schema=LEDGER),
        decisions=DECISIONS.empty_table(),
        blob_path=blobs.path,
        source_root=source,
        placeholder_folder=folder / "review" / "placeholders",
    )


if __name__ == "__main__":
    command, where = sys.argv[1], Path(sys.argv[2])
    if command == "serve":
        open_review(where / "review", NAME, make_version(where), int(sys.argv[3]), lambda line: print(line, flush=True))
    else:
        print(*pull_review(where / "review", NAME, where / "decisions", who="mika").describe(), sep="\n")
