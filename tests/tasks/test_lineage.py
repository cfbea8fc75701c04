"""Lineage: what a version says of how its ratings were understood."""

from __future__ import annotations

import json
from dataclasses import replace

from datasets.sources.config import RatingVintage, SourceConfig
from datasets.sources.listing import VintageReport
from tasks.lineage import take_notes
from tasks.plan import BuildPlan

PLAN = BuildPlan("x", SourceConfig(), (), {})
NEWER = VintageReport(
    vintage=RatingVintage.S_IS_SAFE,
    stated=True,
    inferred=RatingVintage.S_IS_SENSITIVE,
    letters=9,
    newer=3,
    undated=0,
    first="posts.json:2: rated general",
)


def notes_of(report: VintageReport) -> list[str]:
    """As a build has it: out of JSON."""
    return take_notes(PLAN, json.loads(json.dumps(report.describe())))


def test_a_setting_that_the_rows_gainsay_is_noted() -> None:
    said, contradiction = notes_of(NEWER)
    assert said == "The rating s was read as safe, in 9 rows (source.rating_vintage says so)."
    assert "posts.json:2: rated general" in contradiction and "Set source.rating_vintage=auto" in contradiction


def test_doubt_is_noted_with_what_to_do() -> None:
    doubt = replace(NEWER, vintage=RatingVintage.S_IS_SENSITIVE, stated=False, newer=0, undated=4, first=None)
    said, advice = notes_of(doubt)
    assert said.startswith("The rating s was read as sensitive")
    assert "4 of 9 rows" in advice and "source.rating_vintage=s-is-safe" in advice


def test_what_is_certain_is_noted_in_one_sentence_and_no_letters_in_none() -> None:
    certain = replace(NEWER, inferred=RatingVintage.S_IS_SAFE, stated=False, newer=0, first=None)
    assert notes_of(certain) == ["The rating s was read as safe, in 9 rows (no row shows otherwise)."]
    assert notes_of(replace(certain, letters=0)) == []
    assert take_notes(PLAN, None) == []
