"""A version as a FiftyOne dataset: rebuilt from Parquet at will, never the record of truth."""

from __future__ import annotations

from collections import Counter

import fiftyone as fo
from fiftyone import ViewField

from datasets.decisions import decision_by_digest
from datasets.digests import digest_json
from datasets.review.media import MediaFinder
from datasets.review.records import (
    DEDUP,
    PUBLISHED,
    REVIEW_FIELDS,
    ReviewInputs,
    Row,
    build_records,
    choose_rows,
)
from datasets.review.samples import (
    AMBER,
    BLUE,
    GREEN,
    GREY,
    RED,
    arrange_sidebar,
    carry_over,
    colour_by_value,
    load_unchanged,
    read_unpulled,
    write_dataset,
)
from datasets.review.tagging import DECISION_TAGS

VIEW_FORMAT = 1  # bump when the views or the style below change: reviews are then built anew
MOST_PER_REASON = 2000  # dropped items shown of each stage and reason
INDEXES = ("item_id", "stage", "reason", "d_score", "d_percentile", "pixel_digest", "duplicate_group", "tags")
ACTIVE_FIELDS = ("stage", "reason", "d_percentile")  # written on each picture; our plugin adds the tags
GROUPS = ("verdict", "rank", "measurements", "post", "identity")


def load_review_dataset(name: str, inputs: ReviewInputs, most_per_reason: int = MOST_PER_REASON) -> fo.Dataset:
    """The FiftyOne dataset `name` of a version: the one that is there when it shows the same, else a new one.

    A version never changes, so only decisions can have: they are brought up to date.
    """
    origin = _describe_origin(inputs, most_per_reason)
    unchanged = load_unchanged(name, origin, decision_by_digest(inputs.decisions))
    return build_review_dataset(name, inputs, most_per_reason) if unchanged is None else unchanged


def build_review_dataset(name: str, inputs: ReviewInputs, most_per_reason: int = MOST_PER_REASON) -> fo.Dataset:
    """Make the persistent FiftyOne dataset `name` anew, kept and dropped items together.

    Decisions of the store become sample tags. Tags that were set in an earlier dataset of this name and never pulled
    are carried over. Of each stage and reason at most `most_per_reason` dropped items are in; `dataset.info` says how
    many were left out. The old dataset stays until the new one is complete.
    """
    decisions = decision_by_digest(inputs.decisions)
    unpulled = read_unpulled(name)
    decided = {*decisions, *(digest for _, digest in unpulled if digest)}
    dropped, left_out = choose_rows(inputs.ledger, ("stage", "reason"), most_per_reason, decided)
    finder = MediaFinder(inputs.blob_path, inputs.source_root, inputs.placeholder_folder)
    records = build_records(inputs.manifest, dropped, decisions, finder.find)
    carry_over(unpulled, records, name)

    def finish(dataset: fo.Dataset) -> None:
        _save_views(dataset, records)
        _style(dataset)

    info = {
        "version": inputs.version,
        "content_digest": inputs.content_digest,
        "kept": len(inputs.manifest),
        "dropped": dict(sorted(Counter(inputs.ledger.column("stage").to_pylist()).items())),
        "left_out_of_this_view": left_out,
        "built_from": _describe_origin(inputs, most_per_reason),
    }
    return write_dataset(name, REVIEW_FIELDS, records, indexes=INDEXES, info=info, finish=finish)


def _describe_origin(inputs: ReviewInputs, most_per_reason: int) -> str:
    """A digest of all that a review dataset shows, decisions apart. Paths are in it: a store may have been moved."""
    paths = [str(inputs.source_root), str(inputs.placeholder_folder.absolute())]
    fields = [[field.name, field.kind, field.group, field.description] for field in REVIEW_FIELDS]
    rows = [inputs.version, inputs.content_digest, len(inputs.manifest), len(inputs.ledger), most_per_reason]
    return digest_json([VIEW_FORMAT, fields, rows, paths])


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
    arrange_sidebar(dataset, REVIEW_FIELDS, GROUPS, expanded=("tags", "verdict", "rank"))
    dataset.app_config.active_fields = fo.ActiveFields(paths=list(ACTIVE_FIELDS))
    stages = {name: GREEN if name == PUBLISHED else RED for name in dataset.distinct("stage")}
    quiet = [{"path": "reason", "fieldColor": AMBER}, {"path": "d_percentile", "fieldColor": BLUE}]
    colour_by_value(dataset, {"stage": stages}, quiet)
    dataset.save()
