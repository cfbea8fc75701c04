"""A version as plain records, one per item, kept and dropped: what the review shows. No FiftyOne here."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa

from datasets.decisions import Decision
from datasets.derived import find_derived
from datasets.review.media import Media, Showing

PUBLISHED = "published"  # stands where a dropped item has the stage that dropped it
DEDUP = "dedup"
Row = dict[str, Any]


class Kind(StrEnum):
    """The type of a field, in words that need no FiftyOne."""

    TEXT = "text"
    WHOLE = "whole number"
    REAL = "real number"
    FLAG = "yes or no"
    TEXTS = "list of texts"


@dataclass(frozen=True)
class ReviewField:
    """A field of every record: what it is, which group of the sidebar it is in, and what its tooltip says."""

    name: str
    kind: Kind
    group: str
    description: str


REVIEW_FIELDS = (
    ReviewField("stage", Kind.TEXT, "verdict", "published, or the stage that dropped it"),
    ReviewField("reason", Kind.TEXT, "verdict", "why it was dropped, in a word"),
    ReviewField("why", Kind.TEXT, "verdict", "why it was dropped, in a sentence"),
    ReviewField("decision", Kind.TEXT, "verdict", "the decision that the store held when this view was built"),
    ReviewField("measurement", Kind.TEXT, "verdict", "the column that was judged"),
    ReviewField("value", Kind.REAL, "verdict", "what was measured"),
    ReviewField("threshold", Kind.REAL, "verdict", "what the recipe asks for"),
    ReviewField("parameter", Kind.TEXT, "verdict", "the recipe's key of the threshold"),
    ReviewField("detail", Kind.TEXT, "verdict", "what figures do not say"),
    ReviewField("related", Kind.TEXT, "verdict", "the other item: the keeper of a duplicate"),
    ReviewField("duplicate_group", Kind.TEXT, "verdict", "the item that stands for all of its near-duplicates"),
    ReviewField("d_score", Kind.REAL, "rank", "the discriminator's score; higher looks more real"),
    ReviewField("d_percentile", Kind.REAL, "rank", "0 to 100 within the set that was ranked"),
    ReviewField("blur", Kind.REAL, "measurements", "0 to 1: what edges lose when blurred again; lower is blurrier"),
    ReviewField("colours", Kind.WHOLE, "measurements", "unique RGB values, counted up to a limit"),
    ReviewField("saturation", Kind.REAL, "measurements", "mean chroma, 0 to 255"),
    ReviewField("tint_residual", Kind.REAL, "measurements", "0 to 1: share of chroma that brightness does not explain"),
    ReviewField("contrast", Kind.REAL, "measurements", "standard deviation of brightness"),
    ReviewField("black_share", Kind.REAL, "measurements", "0 to 1: pixels near black"),
    ReviewField("white_share", Kind.REAL, "measurements", "0 to 1: pixels near white"),
    ReviewField("bars", Kind.REAL, "measurements", "0 to 1: what uniform bars at the edges take up"),
    ReviewField("native_scale", Kind.REAL, "measurements", "0 to 1: the part of its size that its detail fills"),
    ReviewField("jpeg_quality", Kind.REAL, "measurements", "1 to 100: of the source file, if it is a JPEG"),
    ReviewField("detector", Kind.TEXT, "measurements", "what found the face"),
    ReviewField("detector_score", Kind.REAL, "measurements", "how sure the detector is"),
    ReviewField("face_cut", Kind.FLAG, "measurements", "the face touches the border of its picture"),
    ReviewField("face_inside", Kind.FLAG, "measurements", "the face lies inside a larger one"),
    ReviewField("faces_in_crop", Kind.WHOLE, "measurements", "detected faces whose centre lies in the crop"),
    ReviewField("roll", Kind.REAL, "measurements", "degrees by which it was turned to level the eyes"),
    ReviewField("phash", Kind.TEXT, "measurements", "perceptual hash, 64 bits in hexadecimal"),
    ReviewField("width", Kind.WHOLE, "measurements", "of the published image, pixels"),
    ReviewField("height", Kind.WHOLE, "measurements", "of the published image, pixels"),
    ReviewField("box_w", Kind.WHOLE, "measurements", "of the crop before upscaling, pixels of the source"),
    ReviewField("box_h", Kind.WHOLE, "measurements", "of the crop before upscaling, pixels of the source"),
    ReviewField("upscaled_by", Kind.TEXT, "measurements", "the upscaler, where one was needed"),
    ReviewField("upscale_factor", Kind.REAL, "measurements", "side of the published image / side of the crop"),
    ReviewField("augmentation", Kind.TEXT, "measurements", "how it was made from its parent crop"),
    ReviewField("true_format", Kind.TEXT, "post", "what the file is, by its bytes"),
    ReviewField("rating", Kind.TEXT, "post", "the post's rating"),
    ReviewField("score", Kind.WHOLE, "post", "the post's score at its source"),
    ReviewField("post_tags", Kind.TEXTS, "post", "the post's tags at its source"),
    ReviewField("item_id", Kind.TEXT, "identity", "the crop_id if there is one, else the post_id"),
    ReviewField("crop_id", Kind.TEXT, "identity", "post_id#k"),
    ReviewField("post_id", Kind.TEXT, "identity", "the picture at its source"),
    ReviewField("parent_crop", Kind.TEXT, "identity", "the crop that it was augmented from"),
    ReviewField("pixel_digest", Kind.TEXT, "identity", "of the crop before upscaling; a decision is keyed by it"),
    ReviewField("blob", Kind.TEXT, "identity", "digest of the published file"),
    ReviewField("file_digest", Kind.TEXT, "identity", "of the source file; none when it was never read"),
    ReviewField("source_path", Kind.TEXT, "identity", "relative to the source's root"),
    ReviewField(
        "showing",
        Kind.TEXT,
        "identity",
        "what the picture on screen is: published, crop, source, nothing, or its parent: made when training reads it",
    ),
)


@dataclass(frozen=True)
class ReviewInputs:
    """Everything that a review shows, as it lies in the store.

    manifest, ledger, decisions: `schema.MANIFEST`, `LEDGER` and `DECISIONS` (all decisions or the current ones).
    version: how people call it, e.g. faces@v7. content_digest: as in its version.json.
    blob_path: digest -> file, raising StoreError when missing. source_root: None when the source is not here.
    placeholder_folder: where tiles for items without any picture are drawn.
    """

    version: str
    content_digest: str
    manifest: pa.Table
    ledger: pa.Table
    decisions: pa.Table
    blob_path: Callable[[str], Path]
    source_root: Path | None
    placeholder_folder: Path


def review_name(dataset: str, number: int) -> str:
    """The FiftyOne name of a version's review, e.g. faces-v0007."""
    return f"{dataset}-v{number:04d}"


def diff_name(review: str, before: str) -> str:
    """The FiftyOne name of what differs between two versions, by the names of their reviews: faces-v0007-vs-v0006.

    Begins with the later review's name and `-vs-`.
    """
    dataset, _, number = before.rpartition("-")
    return f"{review}-vs-{number if review.rpartition('-')[0] == dataset else before}"


def build_records(
    manifest: pa.Table,
    ledger: pa.Table,
    decisions: Mapping[str, Decision],
    find_media: Callable[[Row], Media],
) -> list[Row]:
    """One record per published sample and per dropped item, sorted by item_id.

    manifest, ledger: `schema.MANIFEST` and `schema.LEDGER`. decisions: pixel_digest -> what holds now.
    find_media: row -> the file to show; rows of the manifest have `derived` too (`datasets.derived`).
    A record has REVIEW_FIELDS and `filepath` (absolute), `tags` (the decision, if any), `media_size` ((w, h) or None)
    and `boxes` (dicts of label, bounding_box as fractions x, y, w, h of the picture shown, and confidence).
    """
    derived = find_derived(manifest).tolist()
    kept = [
        {**row, "item_id": row["crop_id"], "stage": PUBLISHED, "derived": is_derived}
        for row, is_derived in zip(manifest.to_pylist(), derived, strict=True)
    ]
    dropped = ledger.to_pylist()
    groups = find_duplicate_groups(dropped)
    rows = sorted(kept + dropped, key=lambda row: (row["item_id"], row["stage"]))
    return [_build_record(row, groups, decisions, find_media(row)) for row in rows]


def find_duplicate_groups(dropped: Iterable[Row]) -> dict[str, str]:
    """item_id -> the item at the head of its near-duplicate group, for duplicates and their keepers.

    A keeper may itself be the duplicate of another: chains are followed to their end, and a cycle ends at the
    smallest id in it.
    """
    keeper = {row["item_id"]: row["related"] for row in dropped if row["stage"] == DEDUP and row["related"]}
    groups = {}
    for item in sorted({*keeper, *keeper.values()}):
        seen = [item]
        while (following := keeper.get(seen[-1])) is not None and following not in seen:
            seen.append(following)
        groups[item] = seen[-1] if following is None else min(seen[seen.index(following) :])
    return groups


def choose_rows(
    rows: pa.Table, by: Sequence[str], most: int, decided: Iterable[str]
) -> tuple[pa.Table, dict[str, int]]:
    """At most `most` items of each group, so that a dump of millions stays a view to look at.

    rows: a table with `item_id`, `pixel_digest` and the columns `by`, whose values make a group. The choice is by a
    digest of the item's id: even over the whole, and the same at every time. Items with a decision (pixel digests in
    `decided`) are always in. Returns the rows, and how many were left out of each group: "stage: reason" -> count.
    """
    groups: dict[str, list[tuple[str, int]]] = defaultdict(list)
    decided = set(decided)
    chosen = []
    columns = rows.select(["item_id", "pixel_digest", *by]).to_pydict()
    for index, (item, digest, *values) in enumerate(zip(*columns.values(), strict=True)):
        if digest in decided:
            chosen.append(index)
        else:
            group = ": ".join(value for value in values if value is not None)
            groups[group].append((hashlib.sha256(item.encode()).hexdigest(), index))
    left_out: Counter[str] = Counter()
    for name, members in sorted(groups.items()):
        chosen += [index for _, index in sorted(members)[:most]]
        left_out[name] = max(0, len(members) - most)
    return rows.take(pa.array(sorted(chosen), pa.int64())), dict(+left_out)


def describe_verdict(row: Mapping[str, Any]) -> str | None:
    """Why a row of the ledger is out, in a sentence; None for a published sample."""
    if row["stage"] == PUBLISHED:
        return None
    sentence = f"{row['stage']}: {row['reason'].replace('_', ' ')}"
    if row["value"] is not None and row["threshold"] is not None:
        sentence += f", {row['measurement'] or 'measured'} is {row['value']:g}, the limit is {row['threshold']:g}"
    if row["parameter"]:
        sentence += f" ({row['parameter']})"
    return f"{sentence}. {row['detail']}" if row["detail"] else sentence


def _build_record(row: Row, groups: Mapping[str, str], decisions: Mapping[str, Decision], media: Media) -> Row:
    decision = decisions.get(row["pixel_digest"])
    record = {field.name: drop_nan(row.get(field.name)) for field in REVIEW_FIELDS}
    record.update(
        why=describe_verdict(row),
        decision=decision.value if decision else None,
        duplicate_group=groups.get(row["item_id"]),
        post_tags=row["tags"],
        showing=media.showing.value,
        filepath=str(media.path),
        tags=[decision.value] if decision else [],
        media_size=(media.width, media.height) if media.width and media.height else None,
        boxes=_build_boxes(row, media),
    )
    return record


def drop_nan(value: Any) -> Any:
    """NaN says nothing that null does not, and the App's sliders stumble over it."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _build_boxes(row: Row, media: Media) -> list[Row]:
    """The face, and on a source picture the crop too, as fractions of the picture that is shown.

    A derived picture has none: what was turned or cut again has its face elsewhere.
    """
    if row.get("augmentation"):
        return []
    crop = [row[f"box_{side}"] for side in "xywh"]
    face = [row[f"face_{side}"] for side in "xywh"]
    if media.showing is Showing.SOURCE and media.width and media.height:
        frame = [0, 0, media.width, media.height]
        candidates = [("crop", crop, None), ("face", face, row["detector_score"])]
    elif media.showing in (Showing.PUBLISHED, Showing.CROP):
        frame, candidates = crop, [("face", face, row["detector_score"])]
    else:
        return []
    if None in frame or not (frame[2] > 0 and frame[3] > 0):
        return []
    return [
        {"label": label, "bounding_box": _relate(box, frame), "confidence": confidence}
        for label, box, confidence in candidates
        if None not in box
    ]


def _relate(box: Sequence[float], frame: Sequence[float]) -> list[float]:
    x, y, width, height = frame
    return [(box[0] - x) / width, (box[1] - y) / height, box[2] / width, box[3] / height]
