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

from datasets.decisions import append_decisions, current_decisions
from datasets.review.tagging import DECISION_TAGS, ReviewError, require_review
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


def pull_decisions(dataset_name: str, folder: Path, who: str, note: str | None = None) -> PulledDecisions:
    """Append the new decisions of a review to the store's decisions folder.

    dataset_name: of the FiftyOne dataset (`view.review_name`). folder: the store's `decisions`. who: the reviewer.
    Pulling again adds nothing. Raises ReviewError when there is no such review; DecisionError for an empty `who`.
    """
    import fiftyone as fo

    if not fo.dataset_exists(dataset_name):
        raise ReviewError(f"there is no review {dataset_name} yet: open it with `kaobako review` and decide something")
    dataset = fo.load_dataset(dataset_name)
    version = require_review(dataset)["version"]
    tagged = find_new_tags(dataset)
    pulled = collect_decisions(tagged, current_decisions(folder), who=who, note=note, version=version)
    file = append_decisions(folder, pulled.rows)
    _remember(dataset, tagged, current_decisions(folder))
    return PulledDecisions(pulled.rows, pulled.contradictory, pulled.without_pixels, pulled.superseded, file)


def find_new_tags(dataset: Any) -> list[NewTags]:
    """The samples of a fiftyone.Dataset under review with a decision tag that is not the one it was built with.

    A decision tag that was taken away is not a decision: the store's one goes on holding.
    """
    require_review(dataset)
    fields = ["id", "item_id", "crop_id", "pixel_digest", "decision", "tags", "last_modified_at"]
    found = []
    for sample, item, crop, digest, built_with, tags, changed in zip(
        *dataset.match_tags(DECISION_TAGS).values(fields), strict=True
    ):
        words = tuple(sorted(set(tags) & set(DECISION_TAGS)))
        if words != (built_with,):
            found.append(NewTags(sample, item, crop, digest, words, changed.replace(tzinfo=UTC)))
    return found


def collect_decisions(
    tagged: Iterable[NewTags], current: pa.Table, *, who: str, note: str | None, version: str
) -> PulledDecisions:
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
                    "version": version,
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
