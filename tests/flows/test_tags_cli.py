"""`kaobako tags`: what a filter lets in and keeps out, by tag."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from datasets.errors import KaobakoError
from flows.cli.tags import tags

POSTS = [
    *[(k, "g", ["solo", "blue_hair", "smile"]) for k in range(6)],
    *[(k, "g", ["solo", "red_hair", f"rare_{k}"]) for k in range(6, 8)],
    *[(k, "g", ["comic", "smile"]) for k in range(8, 12)],
    (12, "e", ["solo", "*_*"]),
]
KEPT_OUT = ("--set", 'filter.tags_none=["com*"]')


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A dump of thirteen posts with files that are no pictures: nobody may open them. One more has no file."""
    root = tmp_path / "dump"
    (root / "metadata").mkdir(parents=True)
    lines = []
    for number, rating, names in [*POSTS, (13, "g", ["solo", "absent"])]:
        row = {"id": number, "rating": rating, "tag_string": " ".join(names), "file_ext": "png", "score": number}
        lines.append(json.dumps(row))
        if number < 13:
            path = root / f"original/{number:04d}/{number}.png"
            path.parent.mkdir(parents=True)
            path.write_bytes(b"no picture")
    (root / "metadata" / "posts.json").write_text("\n".join(lines))
    path = tmp_path / "recipe.toml"
    path.write_text(f'dataset = "x"\n[source]\nroot = "{root.as_posix()}"\n')
    return path


def run(*arguments: str | Path) -> Result:
    app = typer.Typer()
    app.command()(tags)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "120"})


def run_json(*arguments: str | Path) -> dict[str, Any]:
    said = run(*arguments, "--json")
    assert said.exit_code == 0, said.output
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def counts(rows: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    return [(row["tag"], row["taken"], row["dropped"]) for row in rows]


def test_what_comes_in_what_stays_out_and_what_tells(recipe: Path) -> None:
    said = run_json(recipe, *KEPT_OUT)
    assert said["posts"] == {"taken": 8, "dropped": 5, "unusable": 1}
    assert counts(said["taken"]) == [
        *[("solo", 8, 1), ("blue_hair", 6, 0), ("smile", 6, 4), ("red_hair", 2, 0), ("rare_6", 1, 0), ("rare_7", 1, 0)],
    ]
    assert counts(said["dropped"]) == [("comic", 0, 4), ("smile", 6, 4), ("*_*", 0, 1), ("solo", 8, 1)]
    assert said["telling"][0]["tag"] in ("solo", "comic")
    solo = next(row for row in said["telling"] if row["tag"] == "solo")
    assert (solo["taken_share"], solo["dropped_share"]) == (1.0, 0.2)
    assert solo["lift"] == pytest.approx((8.5 / 9) / (1.5 / 6))
    comic = next(row for row in said["telling"] if row["tag"] == "comic")
    assert comic["telling"] < 0 < solo["telling"]
    assert said["reasons"] == [
        {"reason": "tag_unwanted", "parameter": "filter.tags_none", "rating": None, "count": 4},
        {"reason": "rating", "parameter": "filter.ratings", "rating": "explicit", "count": 1},
    ]


def test_ratings_that_fell_are_told_apart(recipe: Path) -> None:
    said = run_json(recipe, "--set", 'filter.ratings=["safe"]')
    assert [(row["rating"], row["count"]) for row in said["reasons"]] == [("general", 12), ("explicit", 1)]
    assert "rating general" in run(recipe, "--set", 'filter.ratings=["safe"]').stdout


def test_tags_of_the_recipe_that_no_post_has_are_named(recipe: Path) -> None:
    asked = ("--set", 'filter.tags_none=["blue hair","comic","zzz*"]', "--set", 'filter.tags_any=["solo","nobody"]')
    assert run_json(recipe, *asked)["absent_tags"] == ["blue hair", "nobody"]
    assert "No post has these tags of the recipe: 'blue hair', 'nobody'" in run(recipe, *asked).stdout
    assert run_json(recipe, *KEPT_OUT)["absent_tags"] == []
    only_in_unusable = ("--set", 'filter.tags_any=["solo","absent"]', "--reason", "rating")
    assert run_json(recipe, *only_in_unusable)["absent_tags"] == []


def test_what_the_letter_s_was_read_as_is_said(recipe: Path) -> None:
    assert run_json(recipe)["rating_vintage"] == []
    path = recipe.parent / "dump" / "metadata" / "posts.json"
    path.write_text(path.read_text().replace('"rating": "g"', '"rating": "s"'))
    (said, doubt) = run_json(recipe)["rating_vintage"]
    assert said == "The rating s was read as sensitive, in 13 rows (in doubt)."
    assert "source.rating_vintage=s-is-safe" in doubt
    stated = run(recipe, "--set", 'source.rating_vintage="s-is-safe"').stdout
    assert "read as safe, in 13 rows (source.rating_vintage says so)" in stated.replace("\n", " ")


def test_like_and_limit(recipe: Path) -> None:
    said = run_json(recipe, *KEPT_OUT, "--like", "*_hair", "--limit", "1")
    assert counts(said["taken"]) == [("blue_hair", 6, 0)]
    assert said["dropped"] == []
    assert counts(run_json(recipe, *KEPT_OUT, "--like", r"\*_\*")["dropped"]) == [("*_*", 0, 1)]
    with pytest.raises(KaobakoError, match="is no tag"):
        raise run(recipe, "--like", " ").exception or AssertionError


def test_against_one_reason(recipe: Path) -> None:
    said = run_json(recipe, *KEPT_OUT, "--reason", "tag_unwanted")
    assert said["posts"]["dropped"] == 4
    assert counts(said["dropped"]) == [("comic", 0, 4), ("smile", 6, 4)]
    with pytest.raises(KaobakoError, match="Reasons: rating, tag_unwanted"):
        raise run(recipe, *KEPT_OUT, "--reason", "score").exception or AssertionError


def test_posts_whose_file_is_not_there(recipe: Path) -> None:
    said = run_json(recipe, "--without-files")
    assert said["posts"] == {"taken": 13, "dropped": 1, "unusable": 0}
    assert ("absent", 1, 0) in counts(said["taken"])


def test_nothing_to_compare_with(recipe: Path) -> None:
    said = run_json(recipe, "--set", 'filter.ratings=["general","explicit"]')
    assert (said["dropped"], said["telling"], said["reasons"]) == ([], [], [])
    assert said["taken"][0]["lift"] is None


def test_csv_has_every_tag_once(recipe: Path) -> None:
    said = run(recipe, *KEPT_OUT, "--csv")
    assert said.exit_code == 0, said.output
    rows = list(csv.DictReader(io.StringIO(said.stdout)))
    assert [row["tag"] for row in rows] == sorted({tag for _, _, names in POSTS for tag in names})
    assert rows[0]["tag"] == "*_*"
    assert {row["tag"]: row["dropped"] for row in rows}["smile"] == "4"
    few = run(recipe, *KEPT_OUT, "--csv", "--limit", "1").stdout
    assert {row["tag"] for row in csv.DictReader(io.StringIO(few))} == {"solo", "comic"}


def test_tables_for_people(recipe: Path) -> None:
    said = run(recipe, *KEPT_OUT, "--set", 'filter.ids_except=["0"]').stdout
    assert "7 posts are taken, 6 dropped." in said
    for words in ("Commonest in", "Commonest out", "Most telling", "tag_unwanted", "filter.ids_except", "lift"):
        assert words in said
    assert "1 more could not be judged" in said
    asked = run(recipe, "--set", "filter.ids_only=[1,2,98,99]").stdout
    assert "2 of the ids that the recipe asks for are not in the source: 98, 99" in asked
    assert "No tag is like zzz" in run(recipe, "--like", "zzz").stdout


def test_json_and_csv_exclude_each_other(recipe: Path) -> None:
    assert run(recipe, "--json", "--csv").exit_code == 2


def test_a_recipe_that_contradicts_itself_is_said_before_anything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('[source]\nroot = "nowhere"\n[filter]\ntags_all = ["solo"]\ntags_none = ["so*"]\n')
    with pytest.raises(KaobakoError, match="tags_all asks for solo"):
        raise run(path).exception or AssertionError


def test_the_command_costs_nothing_before_it_runs() -> None:
    code = "import sys, flows.cli.tags; print({'pyarrow', 'numpy', 'prefect', 'torch', 'cv2'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"


def test_help_teaches(recipe: Path) -> None:
    said = run("--help").stdout
    assert "--reason tag_unwanted" in said
    assert "tags_none = [" in said
