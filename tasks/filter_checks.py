"""Recipes of the filter that no post could pass, or that say two things at once: found before any work starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datasets.query import TagPattern

if TYPE_CHECKING:
    from tasks.filter import FilterParams

_PAIRS = ("score", "favourites", "side", "megapixels", "aspect", "bytes")


def find_contradiction(params: FilterParams) -> str | None:
    """What contradicts what, as a sentence; None when nothing does."""
    for check in (_check_limits, _check_size, _check_tags, _check_ids):
        if said := check(params):
            return said
    return None


def _check_limits(params: FilterParams) -> str | None:
    pairs = [(f"min_{name}", f"max_{name}") for name in _PAIRS] + [("created_from", "created_to")]
    for low, high in pairs:
        lowest, highest = getattr(params, low), getattr(params, high)
        if lowest is not None and highest is not None and lowest > highest:
            return f"no post can pass: {low} {lowest} is above {high} {highest}"
    return None


def _check_size(params: FilterParams) -> str | None:
    if params.max_side and params.min_megapixels and params.min_megapixels * 1e6 > params.max_side**2:
        return (
            f"no post can pass: min_megapixels {params.min_megapixels:g} needs sides above max_side {params.max_side}"
        )
    if params.max_megapixels and params.min_side**2 > params.max_megapixels * 1e6:
        return f"no post can pass: min_side {params.min_side} makes more than max_megapixels {params.max_megapixels:g}"
    return None


def _check_tags(params: FilterParams) -> str | None:
    banned = [TagPattern.parse(text) for text in params.tags_none]

    def ban_of(text: str) -> str | None:
        tag = TagPattern.parse(text).exact
        same = (ban.text for ban in banned if ban.text == text or (tag is not None and ban.covers(tag)))
        return next(same, None)

    for text in params.tags_all:
        if ban := ban_of(text):
            return f"no post can pass: tags_all asks for {text} and tags_none forbids {ban}"
    bans = [ban_of(text) for text in params.tags_any]
    if bans and all(bans):
        return f"no post can pass: tags_none forbids all of tags_any ({', '.join(params.tags_any)})"
    return None


def _check_ids(params: FilterParams) -> str | None:
    if both := sorted(set(params.ids_only) & set(params.ids_except)):
        more = f" and {len(both) - 3} more" if len(both) > 3 else ""
        return f"ids_only and ids_except both name {', '.join(both[:3])}{more}"
    return None
