"""What follows from a post's metadata, as columns that the filter's thresholds are held against."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from datasets.sources.config import Problem

SCORE_PERCENTILE = "score_percentile"  # 0..100 among the posts of the same rating
MEGAPIXELS = "declared_megapixels"
ASPECT = "declared_aspect"  # long side / short side, 1 and more
CREATED_YEAR = "created_year"  # 2019.5 is the middle of 2019, UTC
SIDES = ("declared_width", "declared_height")
DERIVED = (SCORE_PERCENTILE, MEGAPIXELS, ASPECT, CREATED_YEAR)

_YEARS = np.arange("1900", "2201", dtype="datetime64[Y]").astype("datetime64[s]").astype(np.int64)
_COUNTABLE = 4_000_000  # scores further apart than this are sorted instead of counted


def add_columns(posts: pa.Table, names: set[str]) -> pa.Table:
    """Posts with the named columns added: float64, null where the source does not say enough.

    Declared sides that are named are there already, but one below 1 says nothing: it becomes null.
    """
    makers = {
        SCORE_PERCENTILE: find_percentiles,
        MEGAPIXELS: find_megapixels,
        ASPECT: find_aspects,
        CREATED_YEAR: find_years,
    }
    for name, make in makers.items():
        if name in names:
            posts = posts.append_column(name, pa.array(make(posts), pa.float64(), from_pandas=True))
    for place, name in enumerate(posts.column_names):
        if name in SIDES and name in names:
            side = pa.array(_side(posts, name), pa.float64(), from_pandas=True)
            posts = posts.set_column(place, name, side.cast(posts.schema.field(name).type))
    return posts


def find_percentiles(posts: pa.Table) -> np.ndarray:
    """The percentile of each post's score among all posts of its rating in the source: float64 (N,), NaN without score.

    Percent of those posts that score lower, plus half of those that score the same, itself included: equal scores have
    equal percentiles, a lone post has 50, nothing has 0 or 100. Whether a post's file is there, or another rule drops
    it, makes no difference; only rows that repeat an id are left out, for their post is counted already.
    """
    scores = pc.cast(posts["score"], pa.float64()).to_numpy(zero_copy_only=False)
    repeats = pc.fill_null(pc.equal(posts["problem"], str(Problem.DUPLICATE_ID)), False)
    ratings = posts["rating"].combine_chunks().dictionary_encode()
    codes = pc.fill_null(ratings.indices, len(ratings.dictionary)).to_numpy()
    counted = ~np.isnan(scores) & ~repeats.to_numpy(zero_copy_only=False)
    percentiles = np.full(len(posts), np.nan)
    for code in range(len(ratings.dictionary) + 1):
        places = np.flatnonzero(counted & (codes == code))
        if len(places):
            percentiles[places] = _rank(scores[places].astype(np.int64))
    return percentiles


def _rank(scores: np.ndarray) -> np.ndarray:
    lowest = int(scores.min())
    if int(scores.max()) - lowest < _COUNTABLE:
        places = scores - lowest
        equal = np.bincount(places)
    else:
        _, places, equal = np.unique(scores, return_inverse=True, return_counts=True)
    twice_below = 2 * (np.cumsum(equal) - equal) + equal
    ranks: np.ndarray = (100 * twice_below / (2 * len(scores)))[places]
    return ranks


def find_megapixels(posts: pa.Table) -> np.ndarray:
    """Millions of pixels that the metadata promises: float64 (N,), NaN where it does not say both sides."""
    width, height = _sides(posts)
    return width * height / 1e6


def find_aspects(posts: pa.Table) -> np.ndarray:
    """Long side / short side as the metadata says: float64 (N,), NaN where it does not say both."""
    width, height = _sides(posts)
    return np.maximum(width, height) / np.minimum(width, height)


def _sides(posts: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Declared width and height, NaN where there is none: a side below 1 says nothing."""
    return _side(posts, SIDES[0]), _side(posts, SIDES[1])


def _side(posts: pa.Table, name: str) -> np.ndarray:
    side = pc.cast(posts[name], pa.float64()).to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore"):
        known: np.ndarray = np.where(side >= 1, side, np.nan)
    return known


def find_years(posts: pa.Table) -> np.ndarray:
    """When each post was made, in years: float64 (N,), NaN where the source does not say it in a way that can be read.

    Whole seconds count; years before 1900 and after 2199 are taken for slips.
    """
    texts = posts["created_at"]
    try:
        moments = pc.cast(texts, pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid:  # some text is no date, or lacks its zone: read each for itself
        read = pd.to_datetime(texts.to_pandas(), errors="coerce", utc=True, format="ISO8601")
        moments = pa.chunked_array([pa.array(read, pa.timestamp("us", "UTC"), from_pandas=True)])
    known = pc.is_valid(moments).to_numpy(zero_copy_only=False)
    seconds = pc.fill_null(moments.cast(pa.int64()), 0).to_numpy() // 1_000_000
    return np.where(known, count_years(seconds), np.nan)


def count_years(seconds: np.ndarray) -> np.ndarray:
    """Seconds since 1970 UTC as years: int64 (N,) -> float64 (N,), NaN outside of 1900 to 2199."""
    place = np.searchsorted(_YEARS, seconds, "right") - 1
    inside = (place >= 0) & (place < len(_YEARS) - 1)
    place = np.clip(place, 0, len(_YEARS) - 2)
    share = (seconds - _YEARS[place]) / (_YEARS[place + 1] - _YEARS[place])
    years: np.ndarray = np.where(inside, 1900 + place + share, np.nan)
    return years


def year_of(day: dt.date, end: bool = False) -> float:
    """A day's first second (or its last) in years."""
    moment = np.datetime64(day, "s").astype(np.int64) + (86_399 if end else 0)
    return float(count_years(np.array([moment]))[0])
