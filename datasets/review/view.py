"""A version as a FiftyOne dataset: rebuilt from Parquet at will, never the record of truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import fiftyone as fo
from fiftyone import ViewField

from datasets.decisions import Decision, decision_by_digest
from datasets.digests import digest_json
from datasets.review.media import MediaFinder
from datasets.review.pull import find_new_tags
from datasets.review.records import (
    DEDUP,
    PUBLISHED,
    REVIEW_FIELDS,
    Kind,
    ReviewInputs,
    Row,
    build_records,
    choose_dropped,
)
from datasets.review.tagging import DECISION_TAGS, INFO_KEY, ReviewError

VIEW_FORMAT = 1  # bump when the views or the style below change: reviews are then built anew
MOST_PER_REASON = 2000  # dropped items shown of each stage and reason
BATCH = 1000  # samples per insert
INDEXES = ("item_id", "stage", "reason", "d_score", "d_percentile", "pixel_digest", "duplicate_group", "tags")
GREEN, RED, AMBER, GREY, BLUE = "#3f9b57", "#c8473c", "#d99a2b", "#8a8f9c", "#4b7fd1"
QUIET_COLOURS = ["#4d6a8f", "#586f86", "#5f6b8c", "#4f7583"]  # all other values: told apart by reading, not by colour
TAG_COLOURS = {Decision.KEEP: GREEN, Decision.REJECT: RED, Decision.UNSURE: AMBER}
ACTIVE_FIELDS = ("stage", "reason", "d_percentile")  # written on each picture; our plugin adds the tags
GROUPS = ("verdict", "rank", "measurements", "post", "identity")
TYPES: dict[Kind, tuple[Any, Any]] = {
    Kind.TEXT: (fo.StringField, None),
    Kind.WHOLE: (fo.IntField, None),
    Kind.REAL: (fo.FloatField, None),
    Kind.TEXTS: (fo.ListField, fo.StringField),
}


def load_review_dataset(name: str, inputs: ReviewInputs, most_per_reason: int = MOST_PER_REASON) -> fo.Dataset:
    """The FiftyOne dataset `name` of a version: the one that is there when it shows the same, else a new one.

    A version never changes, so only decisions can have: they are brought up to date.
    """
    if fo.dataset_exists(name):
        dataset = fo.load_dataset(name)
        if dataset.info.get(INFO_KEY, {}).get("built_from") == _describe_origin(inputs, most_per_reason):
            _refresh_decisions(dataset, decision_by_digest(inputs.decisions))
            return dataset
    return build_review_dataset(name, inputs, most_per_reason)


def build_review_dataset(name: str, inputs: ReviewInputs, most_per_reason: int = MOST_PER_REASON) -> fo.Dataset:
    """Make the persistent FiftyOne dataset `name` anew, kept and dropped items together.

    Decisions of the store become sample tags. Tags that were set in an earlier dataset of this name and never pulled
    are carried over. Of each stage and reason at most `most_per_reason` dropped items are in; `dataset.info` says how
    many were left out. The old dataset stays until the new one is complete.
    """
    decisions = decision_by_digest(inputs.decisions)
    unpulled = _read_unpulled(name)
    decided = {*decisions, *(digest for _, digest in unpulled if digest)}
    dropped, left_out = choose_dropped(inputs.ledger, most_per_reason, decided)
    finder = MediaFinder(inputs.blob_path, inputs.source_root, inputs.placeholder_folder)
    records = build_records(inputs.manifest, dropped, decisions, finder.find)
    _carry_over(unpulled, records, name)

    draft = f"{name}-building"
    if fo.dataset_exists(draft):
        fo.delete_dataset(draft)
    dataset = fo.Dataset(draft, persistent=True)
    _declare_fields(dataset)
    for start in range(0, len(records), BATCH):
        samples = [_build_sample(record) for record in records[start : start + BATCH]]
        dataset.add_samples(samples, expand_schema=False, validate=False, progress=False)
    for field in INDEXES:
        dataset.create_index(field)
    dataset.info = {
        INFO_KEY: {
            "version": inputs.version,
            "content_digest": inputs.content_digest,
            "kept": len(inputs.manifest),
            "dropped": dict(sorted(Counter(inputs.ledger.column("stage").to_pylist()).items())),
            "left_out_of_this_view": left_out,
            "built_from": _describe_origin(inputs, most_per_reason),
        }
    }
    _save_views(dataset, records)
    _style(dataset)
    if fo.dataset_exists(name):
        fo.delete_dataset(name)
    dataset.name = name
    dataset.save()
    return dataset


def _describe_origin(inputs: ReviewInputs, most_per_reason: int) -> str:
    """A digest of all that a review dataset shows, decisions apart. Paths are in it: a store may have been moved."""
    paths = [str(inputs.source_root), str(inputs.placeholder_folder.absolute())]
    fields = [[field.name, field.kind, field.group, field.description] for field in REVIEW_FIELDS]
    rows = [inputs.version, inputs.content_digest, len(inputs.manifest), len(inputs.ledger), most_per_reason]
    return digest_json([VIEW_FORMAT, fields, rows, paths])


def _refresh_decisions(dataset: fo.Dataset, decisions: Mapping[str, Decision]) -> None:
    """Show what the store holds now, except where somebody has set another tag since, which waits to be pulled."""
    waiting = {tagged.sample_id for tagged in find_new_tags(dataset)}
    held: dict[str, str | None] = {}
    retagged: dict[str, list[str]] = {}
    fields = dataset.values(["id", "pixel_digest", "decision", "tags"])
    for sample, digest, before, tags in zip(*fields, strict=True):
        now = decisions[digest].value if digest in decisions else None
        if now != before and sample not in waiting:
            held[sample] = now
            retagged[sample] = [tag for tag in tags if tag not in DECISION_TAGS] + ([now] if now else [])
    if held:
        dataset.set_values("decision", held, key_field="id", progress=False)
        dataset.set_values("tags", retagged, key_field="id", progress=False)


def _read_unpulled(name: str) -> dict[tuple[str, str | None], list[str]]:
    """(item_id, pixel_digest) -> decision tags set in the dataset of this name and not pulled into the store yet."""
    if not fo.dataset_exists(name):
        return {}
    new = find_new_tags(fo.load_dataset(name))
    return {(tagged.item_id, tagged.pixel_digest): list(tagged.tags) for tagged in new}


def _carry_over(unpulled: Mapping[tuple[str, str | None], list[str]], records: list[Row], name: str) -> None:
    """Put the tags onto the records of the same pixels. Raises ReviewError rather than lose one."""
    found = {(record["item_id"], record["pixel_digest"]): record for record in records}
    # a tag on an item without pixels is no decision (pull says so), so it may go
    homeless = sorted(item for item, digest in unpulled if digest and (item, digest) not in found)
    if homeless:
        raise ReviewError(
            f"the review {name} is of another dataset of that name, with {len(homeless)} decisions that were never "
            f"pulled ({', '.join(homeless[:5])}). Pull them into their store first, or use a database of its own."
        )
    for key in found.keys() & unpulled.keys():
        found[key]["tags"] = unpulled[key]


def _declare_fields(dataset: fo.Dataset) -> None:
    """All fields with their types: a column that is null throughout must exist all the same."""
    for field in REVIEW_FIELDS:
        kind, subfield = TYPES[field.kind]
        dataset.add_sample_field(field.name, kind, subfield=subfield, description=field.description)
    dataset.add_sample_field(
        "boxes",
        fo.EmbeddedDocumentField,
        embedded_doc_type=fo.Detections,
        description="the face; on a source picture the crop too",
    )


def _build_sample(record: Row) -> fo.Sample:
    fields = {field.name: record[field.name] for field in REVIEW_FIELDS if record[field.name] is not None}
    if record["boxes"]:
        fields["boxes"] = fo.Detections(detections=[fo.Detection(**box) for box in record["boxes"]])
    if record["media_size"]:
        width, height = record["media_size"]
        fields["metadata"] = fo.ImageMetadata(width=width, height=height, num_channels=3)
    return fo.Sample(filepath=record["filepath"], tags=record["tags"], **fields)


def _save_views(dataset: fo.Dataset, records: list[Row]) -> None:
    """The ways in which people look at a version; each has an address of its own."""
    stage = ViewField("stage")
    kept = dataset.match(stage == PUBLISHED)
    dataset.save_view("kept", kept.sort_by("item_id"), description="everything in this version", color=GREEN)
    if any(record["d_score"] is not None for record in records):
        ranked = kept.exists("d_score")
        dataset.save_view(
            "lowest ranked", ranked.sort_by("d_score"), description="kept, worst first: reject from here", color=AMBER
        )
        dataset.save_view(
            "highest ranked", ranked.sort_by("d_score", reverse=True), description="kept, best first", color=BLUE
        )
    undecided = kept.match_tags(DECISION_TAGS, bool=False).sort_by([("d_score", 1), ("item_id", 1)])
    dataset.save_view("undecided", undecided, description="kept, and nobody has said a word yet", color=GREY)
    for dropped_at in sorted({record["stage"] for record in records} - {PUBLISHED}):
        view = dataset.match(stage == dropped_at).sort_by([("reason", 1), ("value", 1), ("item_id", 1)])
        dataset.save_view(
            f"dropped: {dropped_at}", view, description=f"what the stage {dropped_at} took out", color=RED
        )
    if any(record["stage"] == DEDUP for record in records):
        groups = dataset.exists("duplicate_group").sort_by([("duplicate_group", 1), ("stage", -1), ("item_id", 1)])
        dataset.save_view(
            "near-duplicate groups",
            groups,
            description="each keeper, followed by the duplicates that were dropped for it",
            color=BLUE,
        )


def _style(dataset: fo.Dataset) -> None:
    """Open with what matters: the verdict first, decisions in traffic colours, long ids folded away."""
    config = dataset.app_config
    groups: dict[str, list[str]] = {"tags": []}
    groups |= {name: [f.name for f in REVIEW_FIELDS if f.group == name] for name in GROUPS}
    groups |= {"labels": ["boxes"], "file": ["id", "filepath", "created_at", "last_modified_at"]}
    groups["metadata"] = [f"metadata.{part}" for part in ("size_bytes", "mime_type", "width", "height", "num_channels")]
    config.sidebar_groups = [
        fo.SidebarGroupDocument(name=name, paths=paths, expanded=name in ("tags", "verdict", "rank"))
        for name, paths in groups.items()
    ]
    config.active_fields = fo.ActiveFields(paths=list(ACTIVE_FIELDS))
    stages = dataset.distinct("stage")
    config.color_scheme = fo.ColorScheme(
        color_by="value",
        color_pool=QUIET_COLOURS,
        fields=[
            {"path": "tags", "valueColors": [{"value": tag.value, "color": c} for tag, c in TAG_COLOURS.items()]},
            {"path": "decision", "valueColors": [{"value": tag.value, "color": c} for tag, c in TAG_COLOURS.items()]},
            {
                "path": "stage",
                "valueColors": [{"value": name, "color": GREEN if name == PUBLISHED else RED} for name in stages],
            },
            {"path": "reason", "fieldColor": AMBER},
            {"path": "d_percentile", "fieldColor": BLUE},
        ],
    )
    dataset.save()
