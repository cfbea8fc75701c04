"""What a measurement depends on: the file, the stages' settings, versions and weights, libraries; and who decided."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from datasets.diff.lineage import Difference, Makings
from datasets.diff.rows import Row, Side
from datasets.diff.table import Cause

# Stages that draw what later ones see: their settings reach every later measurement of the same crop.
_DRAWING = ("upscale", "augment")
_OF_THE_FILE = ("crop", "dedup")  # dedup compares whole posts, too
_REJECTED = "rejected_by_person"
_UNREADABLE = "unreadable_file"  # a disk or a network that failed: no stage and no setting did
# Settings of the source by what follows from them; the first that differs is named.
_POSTS = ("kind", "root", "metadata", "images", "modulus", "recursive")  # which posts there are, and which files
_FILES = ("kind", "root", "images", "modulus")  # which file a post has
_SOURCE_KEYS = {
    "post": _POSTS,
    "source_path": _POSTS,
    "file": _FILES,
    "rating": ("rating_vintage", "metadata", "kind"),
    "score": ("metadata", "kind"),
    "tags": ("metadata", "kind"),
    "flags": ("metadata", "kind"),  # deleted, banned, declared sizes
}
_SAID = {"keep": "kept", "reject": "rejected", "unsure": "marked unsure"}


@dataclass(frozen=True)
class Why:
    """A cause with its figures."""

    cause: Cause
    detail: str
    stage: str | None = None
    parameter: str | None = None
    value: float | None = None
    who: str | None = None


def blame_source(makings: Makings, differs: Iterable[str], why: Why) -> Why:
    """A setting of the source in place of what it brought about; `why` where none of these differs.

    differs: what of the item is another, in the words of _SOURCE_KEYS.
    """
    found = makings.compare_source()
    keys = dict.fromkeys(key for word in differs for key in _SOURCE_KEYS.get(word, ()) if key in found)
    named = name_first([found[key] for key in keys])
    if named is None:
        return why
    return replace(
        why, cause=named.cause, detail=f"{named.detail}: {why.detail}", stage=named.stage, parameter=named.parameter
    )


def explain_measuring(makings: Makings, stage: str, before: Row, after: Row) -> Why | None:
    """Why a stage found something else out about an item; None when nothing that it depends on differs."""
    files = before["file_digest"], after["file_digest"]
    moved = before["pixel_digest"] != after["pixel_digest"] or not before["pixel_digest"]
    if (moved or stage in _OF_THE_FILE) and files[0] != files[1] and all(files):
        return blame_source(makings, ["file"], Why(Cause.SOURCE_FILE_CHANGED, "its file has other bytes", "crop"))
    order = makings.before.order
    stages = [stage, *(name for name in _DRAWING if order(name) < order(stage))]
    if moved and "crop" not in stages:
        stages.insert(0, "crop")
    for name in stages:
        if found := makings.compare_stage(name):
            return name_first(found)
    if _UNREADABLE in (before["reason"], after["reason"]):
        return Why(Cause.SOURCE_FILE_CHANGED, "its file could be read for one of the versions only", "crop")
    if moved and not all(files) and not makings.compare_libraries():  # versions that do not keep file digests
        return Why(Cause.SOURCE_FILE_CHANGED, "its pixels differ, and nothing that was measured with", "crop")
    return blame_libraries(makings)


def explain_drawing(makings: Makings) -> Why | None:
    """Why one crop was published as two pictures."""
    for stage in _DRAWING:
        if found := makings.compare_stage(stage):
            return name_first(found)
    return blame_libraries(makings)


def name_first(differences: Sequence[Difference]) -> Why | None:
    """The first difference is the cause; the detail names all."""
    if not differences:
        return None
    first = differences[0]
    return Why(first.cause, ", ".join(difference.text for difference in differences), first.stage, first.parameter)


def blame_libraries(makings: Makings) -> Why | None:
    """Libraries, Python or device, if any differs."""
    said = makings.compare_libraries()
    return Why(Cause.LIBRARIES, said) if said else None


def explain_decision(before: Row, after: Row, side: Side) -> Why:
    """What a person said of an item's pixels between the versions. side: the later one."""
    word = after["decision"]
    if word is None:
        return Why(Cause.DECISION, f"no longer {_SAID.get(before['decision'], before['decision'])}")
    who, note = side.who_decided(after["pixel_digest"], word)
    if after["reason"] == _REJECTED:
        who = after["detail"] or who  # whom the build itself wrote down
    detail = f"{_SAID.get(word, word)} by {who or 'a person'}" + (f" ({note})" if note else "")
    if word == "unsure" and before["decision"] in ("keep", "reject"):
        detail += f", no longer {_SAID[before['decision']]}"
    return Why(Cause.DECISION, detail, who=who)
