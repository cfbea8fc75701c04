"""Causes of the filter's rules that look at lists, patterns, parents and the whole set: each made, each named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.diff import Cause, diff_versions
from tasks.build import BuildResult

Build = Callable[..., BuildResult]
Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, draw: Callable[..., np.ndarray], png: Callable[[np.ndarray], bytes]) -> Write:
    """write(0={...}, 1={...}): a dump of posts with these fields; scores are 10 times the id unless said."""

    def posts(rows: dict[int, dict[str, Any]]) -> None:
        (tmp_path / "source" / "metadata").mkdir(parents=True, exist_ok=True)
        lines = []
        for number, row in sorted(rows.items()):
            path = tmp_path / f"source/original/{number:04d}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(draw(number)))
            said = {"id": number, "rating": "g", "file_ext": "png", "score": 10 * number, "tag_string": "solo"}
            lines.append(json.dumps(said | row))
        (tmp_path / "source" / "metadata" / "posts.json").write_text("\n".join(lines))

    return posts


DUMP = {"source.kind": "danbooru"}


def causes(before: BuildResult, after: BuildResult) -> dict[str, tuple[str, str | None]]:
    found = {}
    for one, two in ((after, before), (before, after)):
        rows = diff_versions(one.version, two.version).to_pylist()
        assert [row for row in rows if row["cause"] == Cause.UNKNOWN] == []
        found = {row["item_id"]: (row["cause"], row["parameter"]) for row in rows}
    return found


def test_a_wildcard_that_came_into_the_recipe(write: Write, build: Build) -> None:
    write({1: {"tag_string": "blue_hair"}, 2: {}, 3: {"tag_string": "hair"}})
    found = causes(build(**DUMP), build(**DUMP, **{"filter.tags_none": ["*_hair"]}))
    assert found == {"1#0": (Cause.THRESHOLD, "filter.tags_none")}


def test_a_tag_that_a_wildcard_covers_came_into_the_source(write: Write, build: Build) -> None:
    write({1: {}, 2: {}})
    asked = DUMP | {"filter.tags_none": ["*_hair"]}
    first = build(**asked)
    write({1: {"tag_string": "solo blue_hair"}, 2: {}})
    assert causes(first, build(**asked)) == {"1#0": (Cause.SOURCE_METADATA_CHANGED, "filter.tags_none")}


def test_a_percentile_moved_because_others_came(write: Write, build: Build) -> None:
    asked = DUMP | {"filter.min_score_percentile": 50}
    write({k: {} for k in (1, 2)})
    first = build(**asked)
    write({k: {} for k in (1, 2, 3, 4)})
    found = causes(first, build(**asked))
    assert found["2#0"] == (Cause.SET_CHANGED, "filter.min_score_percentile")
    write({1: {}, 2: {"score": 999}, 3: {}, 4: {}})
    found = causes(first, build(**asked))
    assert all(cause != Cause.UNKNOWN for cause, _ in found.values())


def test_a_parent_came_beside_its_child(write: Write, build: Build) -> None:
    asked = DUMP | {"filter.children": "drop-beside-parent"}
    write({2: {"parent_id": 1}, 3: {}})
    first = build(**asked)
    write({1: {}, 2: {"parent_id": 1}, 3: {}})
    assert causes(first, build(**asked))["2#0"] == (Cause.UPSTREAM, "filter.children")
    loose = build(**DUMP)
    assert causes(loose, build(**asked))["2#0"] == (Cause.THRESHOLD, "filter.children")


def test_lists_of_ids_and_what_is_not_said(write: Write, build: Build, tmp_path: Path) -> None:
    write({1: {"score": None}, 2: {}})
    (tmp_path / "ids.txt").write_text("1\n2\n")
    everything = build(**DUMP)
    listed = build(**DUMP, **{"filter.ids_only": ["2"]})
    assert causes(everything, listed) == {"1#0": (Cause.THRESHOLD, "filter.ids_only")}
    in_file = build(**DUMP, **{"filter.ids_only_file": str(tmp_path / "ids.txt")})
    assert causes(listed, in_file)["1#0"][0] == Cause.THRESHOLD
    strict = build(**DUMP, **{"filter.min_score": 1, "filter.take_unsaid": False})
    assert causes(everything, strict) == {"1#0": (Cause.THRESHOLD, "filter.min_score")}
    lenient = build(**DUMP, **{"filter.min_score": 1})
    assert causes(lenient, strict) == {"1#0": (Cause.THRESHOLD, "filter.take_unsaid")}
