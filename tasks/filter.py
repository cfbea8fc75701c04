"""Filter: which posts are worth opening, by what the source says of them. No picture is opened.

The rules and their words are in docs/filter.md. A post falls by the first rule that it breaks; what the source does not
say of a post breaks no rule, unless the recipe says so (`take_unsaid`).
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator, model_validator

from datasets.errors import SourceError
from datasets.query import TagAnswers, TagPattern, TagQuestions, ask_tags, pin_ids, read_ids
from datasets.query.tags import MAX_ALL
from datasets.sources.config import Rating
from tasks.filter_checks import find_contradiction
from tasks.filter_columns import ASPECT, CREATED_YEAR, MEGAPIXELS, SCORE_PERCENTILE, add_columns, year_of
from tasks.filter_family import Children, find_childless, find_elders, find_parents
from tasks.stage import Stage, StageParams, Threshold
from tasks.verdicts import Verdicts

STAGE_VERSION = 1
_LETTERS = {"g": "general", "s": "safe (until 2021) or sensitive (since 2022)", "q": "questionable", "e": "explicit"}
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


class FilterParams(StageParams):
    """Which posts are taken. What is left empty asks for nothing."""

    ratings: tuple[Rating, ...] = Field(
        (Rating.SAFE, Rating.GENERAL, Rating.UNRATED),
        description="Ratings to take. `sensitive` (the letter s since 2022) is not safe and must be asked for",
    )
    tags_all: tuple[str, ...] = Field(
        (),
        max_length=MAX_ALL,
        description="Every one of these tags must be there (AND). In tags * stands for anything: *_hair, blue_*",
    )
    tags_any: tuple[str, ...] = Field((), description="At least one of these tags must be there (OR)")
    tags_none: tuple[str, ...] = Field((), description="None of these tags may be there (NOT)")
    min_score: int | None = Field(None, description="Lowest score; posts without a score pass")
    max_score: int | None = Field(None, description="Highest score; posts without a score pass")
    min_score_percentile: float | None = Field(
        None,
        ge=0,
        lt=100,
        description="Lowest percentile of the score among posts of the same rating; 50: the top half",
    )
    min_favourites: int | None = Field(None, ge=0, description="Fewest favourites; posts without a count pass")
    max_favourites: int | None = Field(None, ge=0, description="Most favourites; posts without a count pass")
    created_from: dt.date | None = Field(None, description="First day (UTC) that is taken, such as 2015-01-01")
    created_to: dt.date | None = Field(None, description="Last day (UTC) that is taken; posts without a date pass")
    extensions: tuple[str, ...] = Field(
        ("jpg", "jpeg", "png", "webp", "bmp"), description="File extensions to take; a GIF may be an animation"
    )
    min_side: int = Field(0, ge=0, description="Shortest side in pixels that the metadata must promise")
    max_side: int | None = Field(None, ge=1, description="Longest side in pixels that the metadata may promise")
    min_megapixels: float | None = Field(None, ge=0, description="Fewest millions of pixels, by the metadata")
    max_megapixels: float | None = Field(None, gt=0, description="Most millions of pixels, by the metadata")
    min_aspect: float | None = Field(
        None, ge=1, description="Lowest long side / short side, by the metadata; 1: a square"
    )
    max_aspect: float | None = Field(None, ge=1, description="Highest long side / short side, by the metadata")
    min_bytes: int = Field(0, ge=0, description="Smallest file in bytes")
    max_bytes: int | None = Field(None, ge=1, description="Largest file in bytes")
    children: Children = Field(
        Children.TAKE,
        description="Posts that name a parent. take; drop-beside-parent: where the parent is taken; drop: all of them; "
        "only-parents: take only posts that others name as their parent",
    )
    ids_only: tuple[str, ...] = Field((), description="Take only these posts; an id is text: 7 is not 007")
    ids_only_file: str = Field("", description="Take only the posts of this file (and of ids_only): one id per line")
    ids_except: tuple[str, ...] = Field((), description="Take none of these posts")
    ids_except_file: str = Field("", description="Take none of the posts of this file: one id per line")
    take_deleted: bool = Field(False, description="Take posts that the site has deleted")
    take_banned: bool = Field(False, description="Take posts whose artist was banned")
    take_unsaid: bool = Field(
        True, description="Take posts of which the source does not say what a rule asks for: their score, date, size"
    )

    @field_validator("ratings", mode="before")
    @classmethod
    def _refuse_letters(cls, ratings: Any) -> Any:
        """A letter would mean one thing in one dump and another in the next: the words do not."""
        for word in [ratings] if isinstance(ratings, str) else ratings if isinstance(ratings, list | tuple) else ():
            if isinstance(word, str) and word in _LETTERS:
                raise ValueError(f"write a rating as a word: {word} stands for {_LETTERS[word]}")
        return ratings

    @field_validator("ratings", "extensions")
    @classmethod
    def _refuse_none(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if not words:
            raise ValueError("nothing at all would be taken: name at least one")
        return words

    @field_validator("tags_all", "tags_any", "tags_none")
    @classmethod
    def _check_tags(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        for tag in tags:
            TagPattern.parse(tag)
        return tags

    @field_validator("created_from", "created_to", mode="before")
    @classmethod
    def _check_day(cls, day: Any) -> Any:
        """A bare number would be read as seconds since 1970, a moment as its day: only days are days."""
        if isinstance(day, str) and _DAY.fullmatch(day.strip()):
            return day.strip()
        if day is None or (isinstance(day, dt.date) and not isinstance(day, dt.datetime)):
            return day
        raise ValueError("a day is written as 2019-12-31")

    @field_validator("created_from", "created_to")
    @classmethod
    def _check_century(cls, day: dt.date | None) -> dt.date | None:
        if day is not None and not 1900 <= day.year < 2200:
            raise ValueError("a day between 1900 and 2199 was expected")
        return day

    @field_validator("ids_only", "ids_except", mode="before")
    @classmethod
    def _read_numbers(cls, ids: Any) -> Any:
        """Ids are text; a list of bare numbers means the same."""
        if not isinstance(ids, list | tuple):
            return ids
        return [str(word) if isinstance(word, int) and not isinstance(word, bool) else word for word in ids]

    @field_validator("ids_only_file", "ids_except_file")
    @classmethod
    def _pin_file(cls, name: str) -> str:
        """The file's content is part of the recipe: its digest is kept with its name."""
        try:
            return pin_ids(name.strip())
        except SourceError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        if said := find_contradiction(self):
            raise ValueError(said)
        return self


THRESHOLDS = (
    Threshold("score", "filter.min_score", "score"),
    Threshold("score", "filter.max_score", "score_too_high", "<="),
    Threshold(SCORE_PERCENTILE, "filter.min_score_percentile", "score_percentile"),
    Threshold("favourites", "filter.min_favourites", "favourites"),
    Threshold("favourites", "filter.max_favourites", "favourites_too_high", "<="),
    Threshold(
        CREATED_YEAR,
        "filter.created_from",
        "too_old",
        ">=",
        lambda p: None if not p.created_from else year_of(p.created_from),
    ),
    Threshold(
        CREATED_YEAR,
        "filter.created_to",
        "too_new",
        "<=",
        lambda p: None if not p.created_to else year_of(p.created_to, end=True),
    ),
    Threshold("declared_width", "filter.min_side", "too_small"),
    Threshold("declared_height", "filter.min_side", "too_small"),
    Threshold("declared_width", "filter.max_side", "too_large", "<="),
    Threshold("declared_height", "filter.max_side", "too_large", "<="),
    Threshold(MEGAPIXELS, "filter.min_megapixels", "too_small"),
    Threshold(MEGAPIXELS, "filter.max_megapixels", "too_large", "<="),
    Threshold(ASPECT, "filter.min_aspect", "too_square"),
    Threshold(ASPECT, "filter.max_aspect", "too_long", "<="),
    Threshold("file_bytes", "filter.min_bytes", "file_too_small"),
    Threshold("file_bytes", "filter.max_bytes", "file_too_large", "<="),
)


def decide(posts: pa.Table, params: FilterParams) -> pa.Table:
    """Verdicts on posts (POSTS) by metadata alone; the first broken rule is the reason.

    posts: the whole source. Percentiles and parents are of all of it, so a verdict depends on no earlier build. The
    tags may be list<string> or list<dictionary<int32, string>>.
    """
    asked = [rule for rule in THRESHOLDS if rule.limit(params) is not None]
    posts = add_columns(posts, {rule.column for rule in asked})
    verdicts = Verdicts(posts)
    verdicts.drop(_mask(pc.is_valid(posts["problem"])), posts["problem"], detail=posts["problem_detail"])
    for flag, taken in (("deleted", params.take_deleted), ("banned", params.take_banned)):
        if not taken:
            verdicts.drop(_mask(pc.fill_null(posts[flag], False)), flag, parameter=f"filter.take_{flag}")
    _judge_ids(verdicts, params)
    _drop_unlisted(verdicts, "rating", params.ratings, "filter.ratings")
    _drop_unlisted(verdicts, "extension", params.extensions, "filter.extensions")
    for rule in asked:
        _judge_number(verdicts, rule, params)
    _judge_tags(verdicts, params)
    _judge_family(verdicts, params)
    return verdicts.table()


def _mask(found: pa.ChunkedArray) -> np.ndarray:
    mask: np.ndarray = found.to_numpy()
    return mask


def _drop_unlisted(verdicts: Verdicts, column: str, allowed: tuple[str, ...], parameter: str) -> None:
    """Drop what is not on a list of words; the detail says the word."""
    words = verdicts.items[column]
    listed = pc.is_in(words, value_set=pa.array([str(word) for word in allowed], pa.string()))
    verdicts.drop(~_mask(listed), column, parameter=parameter, detail=words)


def _judge_ids(verdicts: Verdicts, params: FilterParams) -> None:
    ids = verdicts.items["post_id"]
    if (wanted := wanted_ids(params)) is not None:
        parameter = "filter.ids_only_file" if params.ids_only_file else "filter.ids_only"
        verdicts.drop(~_mask(pc.is_in(ids, value_set=wanted)), "id_unlisted", parameter=parameter)
    if params.ids_except:
        listed = pc.is_in(ids, value_set=pa.array(params.ids_except, pa.string()))
        verdicts.drop(_mask(listed), "id_excluded", parameter="filter.ids_except")
    if params.ids_except_file:
        listed = pc.is_in(ids, value_set=read_ids(params.ids_except_file).ids)
        verdicts.drop(_mask(listed), "id_excluded", parameter="filter.ids_except_file")


def wanted_ids(params: FilterParams) -> pa.StringArray | None:
    """The ids that are asked for, of the list and of the file; None when none is, and any may come.

    Raises SourceError when the file has changed since the parameters were made.
    """
    if not params.ids_only and not params.ids_only_file:
        return None
    said = pa.array(params.ids_only, pa.string())
    return pa.concat_arrays([said, read_ids(params.ids_only_file).ids]) if params.ids_only_file else said


def _judge_number(verdicts: Verdicts, rule: Threshold, params: FilterParams) -> None:
    """Hold a threshold; where the source does not say the number, as the recipe wants."""
    verdicts.hold(rule, params)
    if not params.take_unsaid and rule.limit(params) != type(params).model_fields[_field(rule)].default:
        unsaid = np.isnan(verdicts.numbers(rule.column))
        said = f"the source does not say its {rule.column}"
        verdicts.drop(unsaid, "unsaid", parameter=rule.parameter, measurement=rule.column, detail=said)


def _field(rule: Threshold) -> str:
    return rule.parameter.partition(".")[2]


def _judge_tags(verdicts: Verdicts, params: FilterParams) -> None:
    parse = TagPattern.parse
    questions = TagQuestions(
        tuple(map(parse, params.tags_all)), tuple(map(parse, params.tags_any)), tuple(map(parse, params.tags_none))
    )
    if not questions.patterns:
        return
    answers: TagAnswers = ask_tags(verdicts.items["tags"], questions, verdicts.open)
    if params.tags_all:
        lacking = _name(params.tags_all, answers.lacking)
        verdicts.drop(answers.lacking >= 0, "tag_missing", parameter="filter.tags_all", detail=lacking)
    wanted = " or ".join(params.tags_any)
    verdicts.drop(answers.without, "tag_missing", parameter="filter.tags_any", detail=wanted)
    if params.tags_none:
        unwanted = _name(params.tags_none, answers.unwanted)
        verdicts.drop(answers.unwanted >= 0, "tag_unwanted", parameter="filter.tags_none", detail=unwanted)


def _name(words: tuple[str, ...], places: np.ndarray) -> pa.Array:
    """The word at each place, null for -1: string (N,)."""
    return pa.array(words, pa.string()).take(pa.array(places, mask=places < 0))


def _judge_family(verdicts: Verdicts, params: FilterParams) -> None:
    """Parents and children; the last of the rules, for it asks what all others let pass."""
    items, parameter = verdicts.items, "filter.children"
    if params.children is Children.DROP:
        verdicts.drop(_mask(pc.is_valid(items["parent_id"])), "child", parameter=parameter, related=items["parent_id"])
    elif params.children is Children.ONLY_PARENTS:
        verdicts.drop(find_childless(find_parents(items)), "no_children", parameter=parameter)
    elif params.children is Children.DROP_BESIDE_PARENT:
        elders = find_elders(find_parents(items), verdicts.open)
        names = items["post_id"].take(pa.array(elders, mask=elders < 0))
        verdicts.drop(elders >= 0, "child_of_taken", parameter=parameter, related=names)


STAGE = Stage(name="filter", version=STAGE_VERSION, params=FilterParams, decide=decide, thresholds=THRESHOLDS)
