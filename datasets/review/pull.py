"""Tags that people set in a review, as decisions for the store.

A decision belongs to an item's pixels and to the moment when it was made: the tag's last change, not the pull. Tags
that only repeat what the store held when the view was built are no decisions: an old view never overrules a new one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from datasets.decisions import append_decisions, current_decisions, newest_decisions
from datasets.review.tagging import DECISION_TAGS, DRAFT_SUFFIX, INFO_KEY, ReviewError, require_review
from datasets.schema import DECISIONS


@dataclass(frozen=True)
class NewTags:
    """A sample whose decision tags differ from what the store held when the view was built."""

    sample_id: str
    item_id: str
    crop_id: str | None
    pixel_digest: str | None
    tags: tuple[str, ...]  # decision tags only, at least one
    changed_at: datetime  # aware
    version: str  # whose pixels were looked at, e.g. faces@v7


@dataclass(frozen=True)
class PulledDecisions:
    """What the tags of a review amount to.

    rows: `schema.DECISIONS`, what is new. The rest was not taken, as item ids: `contradictory` has more than one of
    the tags (on one sample, or on two samples with the same pixels), `without_pixels` was dropped before there was a
    crop, `superseded` was decided otherwise later than the tag was set. file: where the rows went.
    """

    rows: pa.Table
    contradictory: tuple[str, ...]
    without_pixels: tuple[str, ...]
    superseded: tuple[str, ...]
    file: Path | None = None

    def describe(self) -> list[str]:
        """Sentences for a person: what was taken, and what was not and why."""
        counts = {word: self.rows.column("decision").to_pylist().count(word) for word in DECISION_TAGS}
        lines = ["pulled " + ", ".join(f"{count} {word}" for word, count in counts.items())]
        for items, why in (
            (self.contradictory, "carry more than one of the tags keep, reject, unsure: leave one and pull again"),
            (self.without_pixels, "were dropped before there was a crop: there are no pixels to decide about"),
            (self.superseded, "were decided otherwise, later than the tag was set: the later decision holds"),
        ):
            if items:
                shown = ", ".join(items[:10]) + (", …" if len(items) > 10 else "")
                lines.append(f"not taken: {len(items)} ({shown}) {why}")
        return lines


def pull_decisions(review: str, folder: Path, who: str, note: str | None = None) -> PulledDecisions:
    """Append the new decisions of a version's review, and of its diffs with other versions, to the store's decisions.

    review: the name of the version's review (`records.review_name`); its diffs are found by it. folder: the store's
    `decisions`. who: the reviewer. What was tagged in one of them and otherwise in another is no contradiction: the
    later tag holds. Pulling again adds nothing.
    Raises ReviewError when there is nothing to pull from; DecisionError for an empty `who`.
    """
    reviews = _find_reviews(review)
    if not reviews:
        raise ReviewError(f"there is no review {review} yet: open it with `kaobako review` and decide something")
    held = current_decisions(folder)
    parts, tagged_in = [], []
    for dataset in reviews:
        tagged = find_new_tags(dataset)
        parts.append(collect_decisions(tagged, held, who=who, note=note))
        tagged_in.append(tagged)
        held = newest_decisions(pa.concat_tables([held, parts[-1].rows]))
    rows = pa.concat_tables([part.rows for part in parts])
    file = append_decisions(folder, rows)
    for dataset, tagged in zip(reviews, tagged_in, strict=True):
        _remember(dataset, tagged, current_decisions(folder))
    return PulledDecisions(
        rows=rows,
        contradictory=_join(part.contradictory for part in parts),
        without_pixels=_join(part.without_pixels for part in parts),
        superseded=_join(part.superseded for part in parts),
        file=file,
    )


def _find_reviews(review: str) -> list[Any]:
    """The fiftyone.Datasets of a version: its own review, and those of what differs between it and another version."""
    import fiftyone as fo

    own = [fo.load_dataset(review)] if fo.dataset_exists(review) else []
    diffs = [fo.load_dataset(name) for name in fo.list_datasets(f"{review}-vs-*")]
    return own + [
        dataset
        for dataset in sorted(diffs, key=lambda dataset: str(dataset.name))
        if dataset.info.get(INFO_KEY, {}).get("review") == review and not dataset.name.endswith(DRAFT_SUFFIX)
    ]


def _join(parts: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(sorted({item for part in parts for item in part}))


def find_new_tags(dataset: Any) -> list[NewTags]:
    """The samples of a fiftyone.Dataset under review with a decision tag that is not the one it was built with.

    A decision tag that was taken away is not a decision: the store's one goes on holding.
    """
    version = require_review(dataset)["version"]
    fields = ["id", "item_id", "crop_id", "pixel_digest", "decision", "tags", "last_modified_at"]
    tagged = dataset.match_tags(DECISION_TAGS)
    columns = tagged.values(fields)
    # what a diff shows may be in the earlier version only
    versions = tagged.values("version") if dataset.has_sample_field("version") else [version] * len(columns[0])
    found = []
    for (sample, item, crop, digest, built_with, tags, changed), seen in zip(
        zip(*columns, strict=True), versions, strict=True
    ):
        words = tuple(sorted(set(tags) & set(DECISION_TAGS)))
        if words != (built_with,):
            moment = changed.replace(tzinfo=UTC)
            found.append(NewTags(sample, item, crop, digest, words, moment, seen or version))
    return found


def collect_decisions(tagged: Iterable[NewTags], current: pa.Table, *, who: str, note: str | None) -> PulledDecisions:
    """Turn tags into rows of `schema.DECISIONS`, against the decisions that hold now (`schema.DECISIONS`)."""
    by_digest: dict[str, list[NewTags]] = defaultdict(list)
    without_pixels, contradictory, superseded, rows = [], [], [], []
    for sample in tagged:
        if sample.pixel_digest is None:
            without_pixels.append(sample.item_id)
        else:
            by_digest[sample.pixel_digest].append(sample)
    held = {row["pixel_digest"]: row for row in current.to_pylist()}
    for digest, samples in sorted(by_digest.items()):
        words = {word for sample in samples for word in sample.tags}
        newest = max(samples, key=lambda sample: (sample.changed_at, sample.item_id))
        row = held.get(digest)
        if len(words) > 1:
            contradictory += [sample.item_id for sample in samples]
        elif row and row["decision"] in words:
            continue
        elif row and row["decided_at"] > newest.changed_at:
            superseded += [sample.item_id for sample in samples]
        else:
            rows.append(
                {
                    "pixel_digest": digest,
                    "decision": words.pop(),
                    "who": who,
                    "decided_at": newest.changed_at,
                    "note": note,
                    "version": newest.version,
                    "crop_id": newest.crop_id,
                }
            )
    return PulledDecisions(
        rows=pa.Table.from_pylist(rows, schema=DECISIONS),
        contradictory=tuple(sorted(contradictory)),
        without_pixels=tuple(sorted(without_pixels)),
        superseded=tuple(sorted(superseded)),
    )


def _remember(dataset: Any, tagged: Iterable[NewTags], current: pa.Table) -> None:
    """Write into the view what the store holds now of these samples, so that changing one's mind later counts."""
    held = dict(zip(current.column("pixel_digest").to_pylist(), current.column("decision").to_pylist(), strict=True))
    known = {
        sample.sample_id: held.get(sample.pixel_digest)
        for sample in tagged
        if sample.tags == (held.get(sample.pixel_digest),)
    }
    if known:
        dataset.set_values("decision", known, key_field="id")
