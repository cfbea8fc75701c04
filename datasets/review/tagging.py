"""What the Keep, Reject and Unsure buttons do: exactly one decision tag on each selected sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets.decisions import Decision
from datasets.errors import KaobakoError

INFO_KEY = "kaobako"  # in `dataset.info`: says that a FiftyOne dataset is one of our reviews, and of which version
DRAFT_SUFFIX = "-building"  # of the name of a dataset that is not complete yet
DECISION_TAGS = [decision.value for decision in Decision]


class ReviewError(KaobakoError):
    """A review that cannot go on as asked; the message says why and what to do."""


@dataclass(frozen=True)
class Tagged:
    """How many samples were given the tag, and the items that could not be: no pixels of theirs are known."""

    count: int
    without_pixels: tuple[str, ...]

    def describe(self, decision: Decision) -> str:
        sentence = f"{self.count} marked {decision.value}"
        if self.without_pixels:
            shown = ", ".join(self.without_pixels[:3]) + (", …" if len(self.without_pixels) > 3 else "")
            sentence += (
                f"; {len(self.without_pixels)} not marked ({shown}): dropped before there was a crop, "
                "so there are no pixels that a decision could be about"
            )
        return sentence


def require_review(dataset: Any) -> dict[str, Any]:
    """What `dataset.info` says of the version under review. Raises ReviewError for any other FiftyOne dataset."""
    info = dataset.info.get(INFO_KEY)
    if not info:
        raise ReviewError(f"{dataset.name} is not a Kaobako review: open one with `kaobako review NAME`")
    return dict(info)


def tag_decision(dataset: Any, sample_ids: Sequence[str], decision: Decision) -> Tagged:
    """Give the samples this decision's tag and take the other two away.

    dataset: the fiftyone.Dataset under review. sample_ids: ids as FiftyOne gives them.
    Raises ReviewError for an empty selection (never fall back to the whole view) and for a foreign dataset.
    """
    require_review(dataset)
    if not sample_ids:
        raise ReviewError(f"Select images first, then press {decision.value.capitalize()}.")
    chosen = dataset.select(list(sample_ids))
    digests, items = chosen.values(["pixel_digest", "item_id"])
    decidable = chosen.exists("pixel_digest")
    decidable.untag_samples([tag for tag in DECISION_TAGS if tag != decision.value])
    decidable.tag_samples(decision.value)
    without = tuple(item for item, digest in zip(items, digests, strict=True) if not digest)
    return Tagged(count=len(digests) - len(without), without_pixels=without)
