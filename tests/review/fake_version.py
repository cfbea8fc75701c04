"""A little version with something dropped at every stage, and what differs from the one before it, drawn in code.

As a program, `python fake_version.py serve FOLDER PORT` opens the App on its review, with the review of the diff in the
same database; `python fake_version.py pull FOLDER` pulls the decisions of both.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image, ImageDraw

from datasets.blobs import BlobFolder
from datasets.diff import DIFF
from datasets.digests import digest_bytes
from datasets.review.commands import open_review, pull_review
from datasets.review.database import review_database
from datasets.review.diff_records import DiffInputs, Side
from datasets.review.records import ReviewInputs, diff_name, review_name
from datasets.schema import DECISIONS, LEDGER, MANIFEST, conform

NAME = review_name("faces", 7)
DIFF_NAME = diff_name(NAME, review_name("faces", 6))
KEPT = 18
DIFFERING = 9


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
    (source / "pictures").mkdir(parents=True, exist_ok=True)
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


def make_diff(folder: Path) -> DiffInputs:
    """From faces@v6 to v7: two fell to a threshold, one to a person, one with its post; one came; the rest changed."""
    blobs = BlobFolder(folder / "blobs")
    picture = folder / "source" / "pictures" / "201.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(draw_face(7, size=200))
    blurred = {"cause": "threshold", "stage": "clean", "parameter": "clean.min_blur"}
    limits = {"threshold_before": 40.0, "threshold_after": 60.0}
    rows = [
        *(
            make_difference(item, blobs, "published", "clean: blurred", **blurred, **limits, value=value, detail=detail)
            for item, value, detail in (
                ("101#0", 52.0, "blur 52 against clean.min_blur 40 -> 60"),
                ("107#0", 45.0, "blur 45 against clean.min_blur 40 -> 60"),
            )
        ),
        make_difference("102#0", blobs, "absent", "published", cause="new_post", detail="post 102 is new"),
        make_difference(
            *("103#0", blobs, "published", "published"),
            change="pixels",
            cause="setting",
            stage="crop",
            parameter="crop.margin",
            detail="crop.margin 0.2 -> 0.4",
            enlarged=True,
        ),
        make_difference(
            *("104#0", blobs, "published", "published"),
            change="metadata",
            cause="source_metadata_changed",
            detail="rating general -> sensitive",
        ),
        make_difference("105#0", blobs, "published", "absent", cause="source_gone", detail="post 105 is gone"),
        make_difference("106#0", blobs, "published", "clean: rejected", cause="decision", who="rin", detail="rin: no"),
        make_difference("200", blobs, "absent", "filter: file_missing", cause="new_post", detail="post 200 is new"),
        make_difference(
            *("201", blobs, "filter: rating", "crop: face_too_small"), cause="setting", detail="filter.ratings"
        ),
    ]
    return DiffInputs(
        review=NAME,
        before=Side("faces@v6", "b" * 64, None, lambda posts: {}),
        after=Side("faces@v7", "c" * 64, folder / "source", lambda posts: {"201": "pictures/201.png"}),
        table=pa.Table.from_pylist(rows, schema=DIFF),
        decisions=DECISIONS.empty_table(),
        blob_path=blobs.path,
        placeholder_folder=folder / "review" / "placeholders",
        comparison_folder=folder / "review" / "comparisons",
    )


def make_difference(
    item: str, blobs: BlobFolder, before: str, after: str, enlarged: bool = False, **more: Any
) -> dict[str, Any]:
    """A row of DIFF: the change follows from the two states unless it is named; `#` in the id means that it has pixels.

    enlarged: the later picture is another one, of half again the size.
    """
    changes = {("published", False): "removed", (False, "published"): "added", (False, False): "verdict"}
    states = [state if state == "published" else False for state in (before, after)]
    row = {"item_id": item, "post_id": item.split("#")[0], "change": changes.get(tuple(states)), **more}
    for name, state in (("before", before), ("after", after)):
        later = enlarged and name == "after"
        has_pixels = "#" in item and state != "absent"
        # a dropped item's crop is another file than what was published of the same pixels
        side = 72 if "#" in item and state not in ("published", "absent") else 96
        png = draw_face(int(row["post_id"]) * 13, 144 if later else side) if has_pixels else None
        crop = f"pixels of {item}{' enlarged' if later else ''}".encode()
        row |= {
            name: state,
            f"blob_{name}": blobs.put(png) if png else None,
            f"pixel_digest_{name}": digest_bytes(crop) if has_pixels else None,
        }
    return row


if __name__ == "__main__":
    command, where = sys.argv[1], Path(sys.argv[2])
    review_folder = where / "review"
    if command == "serve":
        version = make_version(where)
        with review_database(review_folder):
            from datasets.review.diff_view import load_diff_dataset

            load_diff_dataset(DIFF_NAME, make_diff(where))
            open_review(review_folder, NAME, version, int(sys.argv[3]), lambda line: print(line, flush=True))
    else:
        print(*pull_review(review_folder, NAME, where / "decisions", who="mika").describe(), sep="\n")
