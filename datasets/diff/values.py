"""What two rows of one item say: columns that differ in words, measured values, and the filter's lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from datasets.diff.items import METADATA_COLUMNS
from datasets.diff.lineage import say
from datasets.diff.rows import Row
from datasets.query import covers_tag

# A published row's width is the published picture's; the crop's own is its box's.
_AS_CUT = {"width": "box_w", "height": "box_h"}
_WORDS = {"item_id": "crop_id", "source_path": "moved"}
_MANY = 8  # tags named, before the rest is counted


def compare_columns(before: Row, after: Row) -> dict[str, str]:
    """What is said of an item that differs, by column: `score 3 -> 9`, `tags +sketch -smile`."""
    said = {}
    for name in METADATA_COLUMNS:
        old, new = before[name], after[name]
        if name == "tags":
            gone, come = sorted(set(old or ()) - set(new or ())), sorted(set(new or ()) - set(old or ()))
            words = [f"+{tag}" for tag in come] + [f"-{tag}" for tag in gone]
            more = f" and {len(words) - _MANY} more" if len(words) > _MANY else ""
            if words or (old or []) != (new or []):
                said[name] = f"tags {' '.join(words[:_MANY]) or 'in another order'}{more}"
        elif old != new:
            said[name] = f"{_WORDS.get(name, name)} {say(old)} -> {say(new)}"
    return said


def has_value(row: Row, fallen: Row) -> bool:
    """Whether a row says what the fallen row was judged by."""
    name = fallen["measurement"] or ""
    return row is fallen or row.get(_AS_CUT.get(name, name)) is not None


def value_of(row: Row, fallen: Row) -> float:
    """What was measured of a row, in the column that the fallen row was judged by; the fallen row's if not known."""
    name = fallen["measurement"] or ""
    value = None if row is fallen else row.get(_AS_CUT.get(name, name))
    return float(fallen["value"] if value is None else value)


# The manifest's column that a key of the filter judges, where it has one.
JUDGED_COLUMNS = {
    "filter.ratings": "rating",
    "filter.min_score": "score",
    "filter.max_score": "score",
    "filter.tags_all": "tags",
    "filter.tags_any": "tags",
    "filter.tags_none": "tags",
}

# Settings of the filter that judge together: a list of ids in the recipe, and one in a file.
COMPANIONS = {"filter.ids_only": ("filter.ids_only_file",), "filter.ids_only_file": ("filter.ids_only",)}

# By name of a setting of the filter: whether a row falls by a list. `word` is what the ledger names, for rows that do
# not keep what is judged (the extension).
LIST_RULES: dict[str, Callable[[Row, Sequence[str], str], bool]] = {
    "ratings": lambda row, words, word: (row["rating"] or word) not in words,
    "extensions": lambda row, words, word: word not in words,
    "tags_all": lambda row, words, word: not all(covers_tag([pattern], row["tags"] or ()) for pattern in words),
    "tags_any": lambda row, words, word: bool(words) and not covers_tag(words, row["tags"] or ()),
    "tags_none": lambda row, words, word: covers_tag(words, row["tags"] or ()),
}
