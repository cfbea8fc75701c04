"""Records as a FiftyOne dataset: what the review of a version and the review of a diff have in common."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import fiftyone as fo

from datasets.decisions import Decision
from datasets.review.pull import find_new_tags
from datasets.review.records import Kind, ReviewField, Row
from datasets.review.tagging import DECISION_TAGS, DRAFT_SUFFIX, INFO_KEY, ReviewError

BATCH = 1000  # samples per insert
GREEN, RED, AMBER, GREY, BLUE = "#3f9b57", "#c8473c", "#d99a2b", "#8a8f9c", "#4b7fd1"
QUIET_COLOURS = ["#4d6a8f", "#586f86", "#5f6b8c", "#4f7583"]  # all other values: told apart by reading, not by colour
TAG_COLOURS = {Decision.KEEP: GREEN, Decision.REJECT: RED, Decision.UNSURE: AMBER}
TYPES: dict[Kind, tuple[Any, Any]] = {
    Kind.TEXT: (fo.StringField, None),
    Kind.WHOLE: (fo.IntField, None),
    Kind.REAL: (fo.FloatField, None),
    Kind.FLAG: (fo.BooleanField, None),
    Kind.TEXTS: (fo.ListField, fo.StringField),
}


def load_unchanged(name: str, origin: str, decisions: Mapping[str, Decision]) -> fo.Dataset | None:
    """The FiftyOne dataset `name` with the decisions of today, if it was built from the same; else None.

    origin: a digest of all that the dataset shows, decisions apart. decisions: pixel_digest -> what holds now.
    """
    if not fo.dataset_exists(name):
        return None
    dataset = fo.load_dataset(name)
    if dataset.info.get(INFO_KEY, {}).get("built_from") != origin:
        return None
    _refresh_decisions(dataset, decisions)
    return dataset


def write_dataset(
    name: str,
    fields: Sequence[ReviewField],
    records: Sequence[Row],
    *,
    indexes: Collection[str],
    info: Row,
    finish: Callable[[fo.Dataset], None],
) -> fo.Dataset:
    """Make the persistent FiftyOne dataset `name` anew; the old one stays until the new one is complete.

    records: the columns of `fields`, and filepath, tags, media_size and boxes as `records.build_records` gives them.
    info: what `dataset.info` says of it. finish: adds saved views and looks to the dataset.
    """
    draft = f"{name}{DRAFT_SUFFIX}"
    if fo.dataset_exists(draft):
        fo.delete_dataset(draft)
    dataset = fo.Dataset(draft, persistent=True)
    _declare_fields(dataset, fields)
    for start in range(0, len(records), BATCH):
        samples = [_build_sample(record, fields) for record in records[start : start + BATCH]]
        dataset.add_samples(samples, expand_schema=False, validate=False, progress=False)
    for field in indexes:
        dataset.create_index(field)
    dataset.info = {INFO_KEY: info}
    finish(dataset)
    if fo.dataset_exists(name):
        fo.delete_dataset(name)
    dataset.name = name
    dataset.save()
    return dataset


def read_unpulled(name: str) -> dict[tuple[str, str | None], list[str]]:
    """(item_id, pixel_digest) -> decision tags set in the dataset of this name and not pulled into the store yet."""
    if not fo.dataset_exists(name):
        return {}
    new = find_new_tags(fo.load_dataset(name))
    return {(tagged.item_id, tagged.pixel_digest): list(tagged.tags) for tagged in new}


def carry_over(unpulled: Mapping[tuple[str, str | None], list[str]], records: Sequence[Row], name: str) -> None:
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


def arrange_sidebar(
    dataset: fo.Dataset, fields: Sequence[ReviewField], groups: Sequence[str], expanded: Collection[str]
) -> None:
    """Sidebar groups in this order, between the tags and what FiftyOne itself says of a file."""
    paths: dict[str, list[str]] = {"tags": []}
    paths |= {name: [field.name for field in fields if field.group == name] for name in groups}
    paths |= {"labels": ["boxes"], "file": ["id", "filepath", "created_at", "last_modified_at"]}
    paths["metadata"] = [f"metadata.{part}" for part in ("size_bytes", "mime_type", "width", "height", "num_channels")]
    dataset.app_config.sidebar_groups = [
        fo.SidebarGroupDocument(name=name, paths=members, expanded=name in expanded) for name, members in paths.items()
    ]


def colour_by_value(dataset: fo.Dataset, colours: Mapping[str, Mapping[str, str]], others: Sequence[Row]) -> None:
    """Decisions in traffic colours, the named values of the named fields as asked, all else quiet.

    colours: field -> value -> colour. others: further fields, as FiftyOne's ColorScheme takes them.
    """
    decisions = {tag.value: colour for tag, colour in TAG_COLOURS.items()}
    fields = {"tags": decisions, "decision": decisions, **colours}
    dataset.app_config.color_scheme = fo.ColorScheme(
        color_by="value",
        color_pool=QUIET_COLOURS,
        fields=[
            {"path": path, "valueColors": [{"value": value, "color": colour} for value, colour in values.items()]}
            for path, values in fields.items()
        ]
        + list(others),
    )


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


def _declare_fields(dataset: fo.Dataset, fields: Sequence[ReviewField]) -> None:
    """All fields with their types: a column that is null throughout must exist all the same."""
    for field in fields:
        kind, subfield = TYPES[field.kind]
        dataset.add_sample_field(field.name, kind, subfield=subfield, description=field.description)
    dataset.add_sample_field(
        "boxes",
        fo.EmbeddedDocumentField,
        embedded_doc_type=fo.Detections,
        description="the face; on a source picture the crop too",
    )


def _build_sample(record: Row, fields: Sequence[ReviewField]) -> fo.Sample:
    values = {field.name: record[field.name] for field in fields if record[field.name] is not None}
    if record["boxes"]:
        values["boxes"] = fo.Detections(detections=[fo.Detection(**box) for box in record["boxes"]])
    if record["media_size"]:
        width, height = record["media_size"]
        values["metadata"] = fo.ImageMetadata(width=width, height=height, num_channels=3)
    return fo.Sample(filepath=record["filepath"], tags=record["tags"], **values)
