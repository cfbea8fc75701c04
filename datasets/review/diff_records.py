"""What differs between two versions as plain records, one per item: what the review of a diff shows. No FiftyOne."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datasets.decisions import Decision, read_decisions
from datasets.derived import find_derived
from datasets.diff import Cause, Change, diff_versions, explain_change
from datasets.diff.table import ABSENT, PUBLISHED
from datasets.review.comparison import save_comparison
from datasets.review.media import Media, MediaFinder, Showing, read_size
from datasets.review.records import Kind, ReviewField, Row, drop_nan
from datasets.review.tagging import ReviewError
from datasets.store import Store
from datasets.version import LEDGER_FILE, MANIFEST_FILE, Version

DIFF_FIELDS = (
    ReviewField(
        "change", Kind.TEXT, "difference", "added, removed, pixels, metadata, or verdict: published in neither"
    ),
    ReviewField("cause", Kind.TEXT, "difference", "why it changed, in a word"),
    ReviewField("sentence", Kind.TEXT, "difference", "what happened and why, in a sentence"),
    ReviewField("before", Kind.TEXT, "difference", "published, absent, or the stage and reason that dropped it"),
    ReviewField("after", Kind.TEXT, "difference", "published, absent, or the stage and reason that dropped it"),
    ReviewField("stage", Kind.TEXT, "figures", "where the cause acts"),
    ReviewField("parameter", Kind.TEXT, "figures", "the recipe's key of the cause"),
    ReviewField("value", Kind.REAL, "figures", "what was measured of the item"),
    ReviewField("threshold_before", Kind.REAL, "figures", "what the earlier recipe asked for"),
    ReviewField("threshold_after", Kind.REAL, "figures", "what the later recipe asks for"),
    ReviewField("who", Kind.TEXT, "people", "who decided, where a decision is the cause"),
    ReviewField("decision", Kind.TEXT, "people", "the decision that the store held when this view was built"),
    ReviewField("item_id", Kind.TEXT, "identity", "the crop_id if there is one, else the post_id"),
    ReviewField("crop_id", Kind.TEXT, "identity", "post_id#k"),
    ReviewField("post_id", Kind.TEXT, "identity", "the picture at its source"),
    ReviewField(
        "version", Kind.TEXT, "identity", "whose pixels a decision is about: the later version's if it has any"
    ),
    ReviewField("pixel_digest", Kind.TEXT, "identity", "of those pixels, before upscaling; a decision is keyed by it"),
    ReviewField("pixel_digest_before", Kind.TEXT, "identity", "of the crop in the earlier version"),
    ReviewField("pixel_digest_after", Kind.TEXT, "identity", "of the crop in the later version"),
    ReviewField("blob_before", Kind.TEXT, "identity", "digest of the earlier picture: as published, else as cropped"),
    ReviewField("blob_after", Kind.TEXT, "identity", "digest of the later picture: as published, else as cropped"),
    ReviewField(
        "showing",
        Kind.TEXT,
        "identity",
        "what is on screen: published, crop, source, nothing, both, or its parent: made when training reads it",
    ),
)
_CHANGES, _CAUSES = list(Change), list(Cause)


@dataclass(frozen=True)
class Side:
    """One of the two versions, as far as a picture must be found.

    version: how people call it, e.g. faces@v6. content_digest: as in its version.json. source_root: None when its
    source is not here. find_source_paths: post_ids -> source_path of each that has one. derived: crop_ids of the
    pictures that it lists without keeping them: their blob is their parent's.
    """

    version: str
    content_digest: str
    source_root: Path | None
    find_source_paths: Callable[[Collection[str]], Mapping[str, str]]
    derived: frozenset[str] = frozenset()


@dataclass(frozen=True)
class DiffInputs:
    """Everything that the review of a diff shows, as it lies in the store.

    review: the name of the later version's review, with which its decisions are pulled. table: `diff.DIFF`.
    decisions: `schema.DECISIONS`, all or the current ones. blob_path: digest -> file, raising StoreError when missing.
    placeholder_folder, comparison_folder: where tiles and pictures side by side are drawn.
    """

    review: str
    before: Side
    after: Side
    table: pa.Table
    decisions: pa.Table
    blob_path: Callable[[str], Path]
    placeholder_folder: Path
    comparison_folder: Path


def collect_diff(
    store: Store, before: Version, after: Version, review: str, source_root: Path | None = None
) -> DiffInputs:
    """Compare two versions of a store, for `open_diff`.

    review: the name of the later version's review. source_root: where the source is now, when it was moved.
    Raises ReviewError when nothing differs.
    """
    table = diff_versions(before, after)
    if not len(table):
        raise ReviewError(
            f"nothing differs between {before.reference} and {after.reference}: they hold the same pictures, and "
            f"dropped the others for the same reasons. `kaobako review {after.reference}` shows the version itself."
        )
    return DiffInputs(
        review=review,
        before=_describe_side(before, source_root),
        after=_describe_side(after, source_root),
        table=table,
        decisions=read_decisions(store.decisions),
        blob_path=store.blobs.path,
        placeholder_folder=store.root / "review" / "placeholders",
        comparison_folder=store.root / "review" / "comparisons",
    )


def with_decided_pixels(table: pa.Table) -> pa.Table:
    """A DIFF table with `pixel_digest`, what a decision is about: the later version's pixels if it has any."""
    return table.append_column("pixel_digest", pc.coalesce(table["pixel_digest_after"], table["pixel_digest_before"]))


def build_diff_records(table: pa.Table, inputs: DiffInputs, decisions: Mapping[str, Decision]) -> list[Row]:
    """One record per row of a table as `with_decided_pixels` makes it, by change, cause, parameter, value and item.

    decisions: pixel_digest -> what holds now. A record has DIFF_FIELDS, and filepath, tags, media_size and boxes (none)
    as in `records.build_records`.
    """
    rows = sorted(table.to_pylist(), key=_order)
    finder = _PictureFinder(inputs, {row["post_id"] for row in rows if not (row["blob_before"] or row["blob_after"])})
    return [_build_record(row, inputs, decisions.get(row["pixel_digest"]), finder.find(row)) for row in rows]


def _order(row: Row) -> tuple[int, int, str, bool, float, str, str]:
    value = drop_nan(row["value"])
    ranks = _CHANGES.index(Change(row["change"])), _CAUSES.index(Cause(row["cause"]))
    return (*ranks, row["parameter"] or "", value is None, value or 0.0, row["item_id"], row["before"])


def _build_record(row: Row, inputs: DiffInputs, decision: Decision | None, media: Media) -> Row:
    side = inputs.after if row["pixel_digest_after"] else inputs.before
    record = {field.name: drop_nan(row.get(field.name)) for field in DIFF_FIELDS}
    record.update(
        sentence=explain_change(row),
        decision=decision.value if decision else None,
        crop_id=row["item_id"] if row["pixel_digest"] else None,  # a post without a crop has no pixels either
        version=side.version if row["pixel_digest"] else None,
        showing=media.showing.value,
        filepath=str(media.path),
        tags=[decision.value] if decision else [],
        media_size=(media.width, media.height) if media.width and media.height else None,
        boxes=[],
    )
    return record


class _PictureFinder:
    """The picture of a differing item: both if they differ, else as published, the crop, the source, a placeholder."""

    def __init__(self, inputs: DiffInputs, posts: Collection[str]) -> None:
        """posts: of the items that no version has a blob of."""
        self.inputs = inputs
        self.sides = [
            (side, MediaFinder(inputs.blob_path, side.source_root, inputs.placeholder_folder))
            for side in (inputs.after, inputs.before)
        ]
        self.source_paths = [side.find_source_paths(posts) if posts else {} for side, _ in self.sides]

    def find(self, row: Row) -> Media:
        """What is shown is what a decision is about: other pixels are shown beside them, never instead of them."""
        digests = row["pixel_digest_before"], row["pixel_digest_after"]
        recut = all(digests) and digests[0] != digests[1]
        if (recut or row["change"] == Change.PIXELS) and (both := self._show_both(row)) is not None:
            return both
        finder = self.sides[0][1]
        after, before = self.inputs.after, self.inputs.before
        # the decided ones first
        candidates = [(row["blob_after"], row["after"], after), (row["blob_before"], row["before"], before)]
        if recut:
            candidates = candidates[:1]
        else:
            candidates.sort(key=lambda candidate: candidate[1] != PUBLISHED)
        for digest, state, side in candidates:
            if (path := finder.find_blob(digest)) is not None:
                showing = Showing.PUBLISHED if state == PUBLISHED else Showing.CROP
                if showing is Showing.PUBLISHED and row["item_id"] in side.derived:
                    showing = Showing.PARENT
                return Media(path, showing, *(read_size(path) or (None, None)))
        for (_, finder), paths in zip(self.sides, self.source_paths, strict=True):
            if (source := finder.find_source(paths.get(row["post_id"]))) is not None:
                return source
        if row["blob_after"] or row["blob_before"]:
            return finder.show_reason("its blob is missing")
        state = row["before"] if row["after"] == ABSENT else row["after"]
        return finder.show_reason(state.rpartition(": ")[2])

    def _show_both(self, row: Row) -> Media | None:
        finder = self.sides[0][1]
        before, after = finder.find_blob(row["blob_before"]), finder.find_blob(row["blob_after"])
        if before is None or after is None:
            return None

        def caption(when: str, side: Side) -> str:
            return f"{when}: {side.version}{', its parent' if row['item_id'] in side.derived else ''}"

        captions = caption("before", self.inputs.before), caption("after", self.inputs.after)
        path = save_comparison(self.inputs.comparison_folder, before, after, captions)
        if path is None:
            return None
        return Media(path.absolute(), Showing.BOTH, *(read_size(path) or (None, None)))


def _describe_side(version: Version, source_root: Path | None) -> Side:
    root = source_root or Path(version.lineage["sources"][0]["root"])

    def find_source_paths(posts: Collection[str]) -> dict[str, str]:
        wanted = [("post_id", "in", sorted(posts))]
        found: dict[str, str] = {}
        for name in (MANIFEST_FILE, LEDGER_FILE):
            table = pq.read_table(version.folder / name, columns=["post_id", "source_path"], filters=wanted)
            found |= {row["post_id"]: row["source_path"] for row in table.to_pylist() if row["source_path"]}
        return found

    names = ["crop_id", "blob", "augmentation", "parent_crop"]
    manifest = pq.read_table(version.folder / MANIFEST_FILE, columns=names)
    derived = manifest.filter(pa.array(find_derived(manifest, version.lineage)))["crop_id"].to_pylist()
    root_here = root if root.is_dir() else None
    return Side(version.reference, version.content_digest, root_here, find_source_paths, frozenset(derived))
