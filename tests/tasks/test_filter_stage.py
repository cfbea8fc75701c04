"""The filter: what metadata alone can say, each rule by itself and all in their order."""

from __future__ import annotations

import datetime as dt
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from datasets.chunks import spell_out
from datasets.errors import SourceError
from datasets.query import read_ids
from datasets.schema import POSTS, VERDICTS
from datasets.sources.config import Problem, Rating, SourceConfig
from datasets.sources.read import read_posts
from flows.recipe import RecipeError, load_recipe
from tasks.filter import THRESHOLDS, FilterParams, decide
from tasks.filter_columns import DERIVED, year_of

SOUND: dict[str, Any] = {"rating": "safe", "score": 10, "tags": ["1girl", "solo"], "extension": "png", "deleted": False}
SOUND |= {"banned": False, "declared_width": 800, "declared_height": 600, "file_bytes": 5000}


def make_posts(rows: list[dict[str, Any]]) -> pa.Table:
    """A row names what differs from a sound post; ids are 0, 1, 2..."""
    return pa.Table.from_pylist([{"post_id": str(k)} | SOUND | row for k, row in enumerate(rows)], schema=POSTS)


def reasons(rows: list[dict[str, Any]], **params: Any) -> list[str | None]:
    """The reason of each post, None where it stays."""
    verdicts = decide(make_posts(rows), FilterParams(**params))
    found = verdicts["reason"].to_pylist()
    assert [reason is None for reason in found] == verdicts["keep"].to_pylist()
    return found


def test_a_sound_post_stays_and_no_posts_are_no_error() -> None:
    assert reasons([{}]) == [None]
    assert reasons([]) == []


def test_ratings_are_taken_by_name_only() -> None:
    rows = [{"rating": rating.value} for rating in Rating]
    assert dict(zip(Rating, reasons(rows), strict=True)) == {
        Rating.SAFE: None,
        Rating.GENERAL: None,
        Rating.UNRATED: None,
        Rating.SENSITIVE: "rating",
        Rating.QUESTIONABLE: "rating",
        Rating.EXPLICIT: "rating",
        Rating.UNKNOWN: "rating",
    }


@pytest.mark.parametrize("rating", Rating)
def test_a_filter_for_one_rating_lets_no_other_in(rating: Rating) -> None:
    found = reasons([{"rating": other.value} for other in Rating] + [{"rating": None}], ratings=[rating])
    assert [reason is None for reason in found] == [other is rating for other in Rating] + [False]


def test_tags_and_or_not() -> None:
    rows = [{"tags": tags} for tags in (["a"], ["a", "b"], ["b"], ["a", "c"], [], None, ["aa"])]
    kept = {
        "and": [reason is None for reason in reasons(rows, tags_all=["a", "b"])],
        "or": [reason is None for reason in reasons(rows, tags_any=["a", "b"])],
        "not": [reason is None for reason in reasons(rows, tags_none=["a", "b"])],
    }
    assert kept == {
        "and": [False, True, False, False, False, False, False],
        "or": [True, True, True, True, False, False, False],
        "not": [False, False, False, False, True, True, True],
    }
    together = reasons(rows, tags_all=["a"], tags_any=["b", "c"], tags_none=["c"])
    assert [k for k, reason in enumerate(together) if reason is None] == [1]


def test_score_size_and_bytes_at_their_limits() -> None:
    rows = [{"score": score} for score in (4, 5, -3, None)]
    assert reasons(rows, min_score=5) == ["score", None, "score", None]
    assert reasons([{"score": -1}], min_score=0) == ["score"]
    sizes = [{"declared_width": width, "declared_height": 600} for width in (499, 500, None)]
    assert reasons(sizes, min_side=500) == ["too_small", None, None]
    assert reasons([{"declared_height": 499}], min_side=500) == ["too_small"]
    assert reasons([{"file_bytes": 99}, {"file_bytes": 100}], min_bytes=100) == ["file_too_small", None]


def test_deleted_and_banned_are_dropped_unless_taken() -> None:
    rows: list[dict[str, Any]] = [{"deleted": True}, {"banned": True}, {"deleted": None, "banned": None}]
    assert reasons(rows) == ["deleted", "banned", None]
    assert reasons(rows, take_deleted=True) == [None, "banned", None]
    assert reasons(rows, take_banned=True) == ["deleted", None, None]


def test_extensions() -> None:
    rows = [{"extension": extension} for extension in ("png", "gif", "swf", "mp4", None)]
    assert reasons(rows) == [None, *["extension"] * 4]
    assert reasons(rows, extensions=["gif"]) == ["extension", None, *["extension"] * 3]


@pytest.mark.parametrize("problem", Problem)
def test_a_problem_of_the_source_is_always_the_reason(problem: Problem) -> None:
    row: dict[str, Any] = {
        "problem": problem.value,
        "problem_detail": "why",
        "rating": None,
        "tags": None,
        "extension": None,
    }
    posts = pa.Table.from_pylist([{"post_id": "1"} | SOUND | row], schema=POSTS)
    everything = FilterParams(ratings=list(Rating), take_deleted=True, take_banned=True)
    (verdict,) = decide(posts, everything).to_pylist()
    assert (verdict["keep"], verdict["reason"], verdict["detail"]) == (False, problem.value, "why")


def test_the_ledger_says_which_tag_rating_and_figure() -> None:
    rows: list[dict[str, Any]] = [{"rating": "explicit"}, {"tags": ["sketch"]}, {"score": 1}]
    posts = pa.Table.from_pylist([{"post_id": str(k)} | SOUND | row for k, row in enumerate(rows)], schema=POSTS)
    verdicts = decide(posts, FilterParams(tags_none=["sketch"], min_score=5)).to_pylist()
    assert (verdicts[0]["detail"], verdicts[0]["parameter"]) == ("explicit", "filter.ratings")
    assert (verdicts[1]["detail"], verdicts[1]["parameter"]) == ("sketch", "filter.tags_none")
    assert (verdicts[2]["value"], verdicts[2]["threshold"]) == (1.0, 5.0)


# ---- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["declared_width", "declared_height"])
@pytest.mark.parametrize("side", [0, -1])
def test_a_side_below_one_is_unsaid(column: str, side: int) -> None:
    for limits in ({"min_side": 500}, {"max_side": 5000}, {"min_megapixels": 0.1}, {"max_aspect": 9}):
        assert reasons([{column: side}], **limits) == [None]
        assert reasons([{column: side}], **limits, take_unsaid=False) == ["unsaid"]


def test_numbers_at_their_limits() -> None:
    assert reasons([{"score": score} for score in (4, 5, 6, None)], max_score=5) == [None, None, "score_too_high", None]
    favourites = [{"favourites": count} for count in (1, 2, 3, 4, None)]
    found = reasons(favourites, min_favourites=2, max_favourites=3)
    assert found == ["favourites", None, None, "favourites_too_high", None]
    sizes = [{"declared_width": 100, "declared_height": height} for height in (800, 801, None)]
    assert reasons(sizes, max_side=800) == [None, "too_large", None]
    sizes = [{"declared_width": 1000, "declared_height": height} for height in (499, 500, 2000, 2001, None, 0)]
    found = reasons(sizes, min_megapixels=0.5, max_megapixels=2)
    assert found == ["too_small", None, None, "too_large", None, None]
    shapes = [{"declared_width": 300, "declared_height": height} for height in (300, 360, 900, 901, 99, None, 0)]
    found = reasons(shapes, min_aspect=1.2, max_aspect=3)
    assert found == ["too_square", None, None, "too_long", "too_long", None, None]
    assert reasons([{"file_bytes": size} for size in (10, 11, None)], max_bytes=10) == [None, "file_too_large", None]


def test_days_are_taken_whole_and_in_utc() -> None:
    moments = [
        *("2015-05-31T23:59:59Z", "2015-06-01T00:00:00Z", "2016-12-31T23:59:59Z", "2017-01-01T00:00:00Z"),
        *("2015-06-01T01:30:00+02:00", "2016-12-31T23:59:59.900000Z", None),
    ]
    expected = ["too_old", None, None, "too_new", "too_old", None, None]
    limits = {"created_from": "2015-06-01", "created_to": "2016-12-31"}
    assert reasons([{"created_at": moment} for moment in moments], **limits) == expected
    # a text that is no date takes the slow way, and is a post without a date
    slow = reasons([{"created_at": moment} for moment in [*moments, "long ago", "", "2016-02-31T00:00:00Z"]], **limits)
    assert slow == [*expected, None, None, None]


def test_a_date_in_the_ledger_is_a_year_with_its_fraction() -> None:
    posts = make_posts([{"created_at": "2019-07-02T12:00:00Z"}, {"created_at": "2020-01-01T00:00:00Z"}])
    verdicts = decide(posts, FilterParams(created_from="2020-01-01")).to_pylist()
    assert (verdicts[0]["measurement"], verdicts[0]["value"], verdicts[0]["threshold"]) == (
        "created_year",
        2019.5,
        2020.0,
    )
    assert verdicts[1]["keep"]
    assert year_of(dt.date(2019, 12, 31), end=True) < 2020.0 <= year_of(dt.date(2020, 1, 1))


def test_score_percentile_is_within_the_rating() -> None:
    rows = [{"rating": "safe", "score": score} for score in (1, 2, 3, 4)]
    rows += [{"rating": "general", "score": score} for score in (100, 200)]
    rows += [{"rating": "explicit", "score": score} for score in (1000, 2000, 3000)]  # count for nobody else
    found = reasons(rows, min_score_percentile=50)
    assert found == ["score_percentile"] * 2 + [None] * 2 + ["score_percentile", None] + ["rating"] * 3


def test_percentiles_of_ties_lone_posts_and_unscored_ones() -> None:
    assert reasons([{"score": 7}] * 4, min_score_percentile=50) == [None] * 4
    assert reasons([{"score": 7}, {"score": None}], min_score_percentile=50) == [None, None]
    rows = [{"score": 0}] * 3 + [{"score": 5}]
    assert reasons(rows, min_score_percentile=50) == ["score_percentile"] * 3 + [None]
    posts = make_posts(rows)
    verdict = decide(posts, FilterParams(min_score_percentile=50)).to_pylist()[0]
    assert (verdict["measurement"], verdict["value"], verdict["threshold"]) == ("score_percentile", 37.5, 50.0)


def test_percentiles_do_not_depend_on_which_files_are_there_or_on_other_rules() -> None:
    rows: list[dict[str, Any]] = [{"score": 1, "problem": "missing_file"}, {"score": 2}, {"score": 3, "deleted": True}]
    assert reasons(rows, min_score_percentile=50) == ["missing_file", None, "deleted"]
    rows = [{"score": 1}, {"score": 9, "problem": "duplicate_id"}, {"score": 9, "problem": "duplicate_id"}]
    assert reasons(rows, min_score_percentile=50) == [None, "duplicate_id", "duplicate_id"]


def test_what_the_source_does_not_say_is_dropped_when_asked() -> None:
    nothing = {"score": None, "declared_width": None, "created_at": None, "favourites": None}
    rules: dict[str, Any] = {"min_score": 1, "max_aspect": 2, "created_from": "2015-01-01", "min_favourites": 0}
    assert reasons([nothing], **rules) == [None]
    for name, value in rules.items():
        assert reasons([nothing], **{name: value}, take_unsaid=False) == ["unsaid"], name
    assert reasons([nothing], take_unsaid=False) == [None]  # nobody asked for any of it
    verdict = decide(make_posts([nothing]), FilterParams(min_score=1, take_unsaid=False)).to_pylist()[0]
    assert (verdict["parameter"], verdict["measurement"], verdict["value"]) == ("filter.min_score", "score", None)
    assert verdict["detail"] == "the source does not say its score"


# ---- tags with wildcards ---------------------------------------------------------------------------------------------


def test_wildcards_in_every_tag_rule() -> None:
    rows = [{"tags": tags} for tags in (["blue_hair", "solo"], ["blue_eyes"], ["*_*"], ["hair"], [], None)]
    kept = {
        "all": [reason is None for reason in reasons(rows, tags_all=["*_hair", "sol*"])],
        "any": [reason is None for reason in reasons(rows, tags_any=["blue_*", "*air"])],
        "none": [reason is None for reason in reasons(rows, tags_none=["*_*"])],
        "literal": [reason is None for reason in reasons(rows, tags_none=[r"\*_\*"])],
    }
    assert kept == {
        "all": [True, False, False, False, False, False],
        "any": [True, True, False, True, False, False],
        "none": [False, False, False, True, True, True],
        "literal": [True, True, False, True, True, True],
    }


def test_the_ledger_names_the_pattern_that_decided() -> None:
    rows = [{"tags": ["blue_hair", "comic"]}, {"tags": ["comic"]}, {"tags": []}]
    verdicts = decide(make_posts(rows), FilterParams(tags_none=["3d", "*_hair", "comic"])).to_pylist()
    assert [verdict["detail"] for verdict in verdicts] == ["*_hair", "comic", None]
    verdicts = decide(make_posts(rows), FilterParams(tags_all=["comic", "*_hair"])).to_pylist()
    assert [verdict["detail"] for verdict in verdicts] == [None, "*_hair", "comic"]
    verdicts = decide(make_posts(rows), FilterParams(tags_any=["3d", "*_hair"])).to_pylist()
    assert [verdict["detail"] for verdict in verdicts] == [None, "3d or *_hair", "3d or *_hair"]


def test_tags_with_codes_are_judged_alike() -> None:
    posts = make_posts([{"tags": ["blue_hair"]}, {"tags": None}, {"tags": ["comic", "solo"]}])
    assert pa.types.is_dictionary(posts.schema.field("tags").type.value_type)
    plain = spell_out(posts)
    assert plain.schema.field("tags").type == pa.list_(pa.string())
    params = FilterParams(tags_any=["*_hair", "solo"], tags_none=["comic"])
    assert decide(plain, params).equals(decide(posts, params))


# ---- parents and children --------------------------------------------------------------------------------------------

# 0 is the parent of 1 and 2, 1 of 3; 4 names one that the source has not; 5 is alone; 6 is dropped, and parent of 7
FAMILY: list[dict[str, Any]] = [
    {"parent_id": None},
    {"parent_id": "0"},
    {"parent_id": "0"},
    {"parent_id": "1"},
    {"parent_id": "999"},
    {"parent_id": None},
    {"rating": "explicit"},
    {"parent_id": "6"},
]


def test_children_beside_a_parent_that_is_taken() -> None:
    assert reasons(FAMILY) == [None] * 6 + ["rating", None]
    found = reasons(FAMILY, children="drop-beside-parent")
    assert found == [None, "child_of_taken", "child_of_taken", "child_of_taken", None, None, "rating", None]
    verdicts = decide(make_posts(FAMILY), FilterParams(children="drop-beside-parent")).to_pylist()
    assert [verdict["related"] for verdict in verdicts[:4]] == [None, "0", "0", "0"]
    assert verdicts[1]["parameter"] == "filter.children"


def test_a_child_stays_where_its_parent_falls_by_any_other_rule() -> None:
    rows = [{"score": 0}, {"parent_id": "0"}, {"parent_id": "1"}]
    found = reasons(rows, children="drop-beside-parent", min_score=5)
    assert found == ["score", None, "child_of_taken"]
    missing = [{"problem": "missing_file"}, {"parent_id": "0"}]
    assert reasons(missing, children="drop-beside-parent") == ["missing_file", None]


def test_a_circle_of_parents_keeps_its_first() -> None:
    rows = [{"parent_id": "2"}, {"parent_id": "0"}, {"parent_id": "1"}, {"parent_id": "2"}, {"parent_id": "4"}]
    found = reasons(rows, children="drop-beside-parent")
    assert found == [None, "child_of_taken", "child_of_taken", "child_of_taken", None]


def test_no_children_and_parents_only() -> None:
    found = reasons(FAMILY, children="drop")
    assert found == [None, "child", "child", "child", "child", None, "rating", "child"]
    found = reasons(FAMILY, children="only-parents")
    assert found == [None, None, "no_children", "no_children", "no_children", "no_children", "rating", "no_children"]


# ---- lists of ids ----------------------------------------------------------------------------------------------------


def test_lists_of_ids(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{}, {}, {}, {}]
    assert reasons(rows, ids_only=["1", 3, "77"]) == ["id_unlisted", None, "id_unlisted", None]
    assert reasons(rows, ids_except=["1"]) == [None, "id_excluded", None, None]
    (tmp_path / "good.txt").write_text("0\n1\n")
    (tmp_path / "bad.txt").write_text("# seen by me\n1\n")
    files = {"ids_only_file": str(tmp_path / "good.txt"), "ids_except_file": str(tmp_path / "bad.txt")}
    assert reasons(rows, **files) == [None, "id_excluded", "id_unlisted", "id_unlisted"]
    assert reasons(rows, **files, ids_only=["2"]) == [None, "id_excluded", None, "id_unlisted"]


def test_the_content_of_a_list_is_part_of_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "good.txt"
    path.write_text("0\n")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'[filter]\nids_only_file = "{path.as_posix()}"\n')
    before = load_recipe(recipe)
    assert load_recipe(recipe).plan().recipe == before.plan().recipe
    assert before.filter.ids_only_file == read_ids(str(path)).name
    assert FilterParams.model_validate(before.filter.model_dump(mode="json")) == before.filter
    path.write_text("1\n")
    assert load_recipe(recipe).plan().recipe != before.plan().recipe
    with pytest.raises(SourceError, match="its content has changed"):
        decide(make_posts([{}]), before.filter)  # never another list than the one that is written down
    with pytest.raises(ValidationError, match="its content has changed"):
        FilterParams.model_validate(before.filter.model_dump(mode="json"))


# ---- recipes that cannot be meant ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"min_score": 5, "max_score": 4}, "min_score 5 is above max_score 4"),
        ({"min_favourites": 5, "max_favourites": 4}, "min_favourites 5 is above"),
        ({"min_side": 500, "max_side": 400}, "min_side 500 is above max_side 400"),
        ({"min_megapixels": 2, "max_megapixels": 1}, "min_megapixels 2.0 is above"),
        ({"min_aspect": 2, "max_aspect": 1.5}, "min_aspect 2.0 is above"),
        ({"min_bytes": 9, "max_bytes": 8}, "min_bytes 9 is above"),
        ({"created_from": "2016-01-02", "created_to": "2016-01-01"}, "created_from 2016-01-02 is above"),
        ({"min_megapixels": 1, "max_side": 999}, "needs sides above max_side 999"),
        ({"min_side": 1001, "max_megapixels": 1}, "makes more than max_megapixels 1"),
        ({"tags_all": ["solo"], "tags_none": ["solo"]}, "tags_all asks for solo and tags_none forbids solo"),
        ({"tags_all": ["blue_hair"], "tags_none": ["*_hair"]}, r"tags_none forbids \*_hair"),
        ({"tags_all": ["*_hair"], "tags_none": ["*_hair"]}, r"tags_none forbids \*_hair"),
        ({"tags_any": ["red_hair", "comic"], "tags_none": ["*_hair", "comic"]}, "forbids all of tags_any"),
        ({"ids_only": ["1", "2"], "ids_except": ["2"]}, "ids_only and ids_except both name 2"),
        ({"ratings": []}, "name at least one"),
        ({"extensions": []}, "name at least one"),
        ({"ratings": ["s"]}, "s stands for safe .until 2021. or sensitive"),
        ({"ratings": ["nsfw"]}, "Input should be 'safe'"),
        ({"tags_all": [""]}, "is no tag"),
        ({"tags_none": ["comic "]}, "is no tag"),
        ({"tags_all": [f"t{k}" for k in range(61)]}, "at most 60"),
        ({"created_from": 2019}, "a day is written as 2019-12-31"),
        ({"created_to": "2019-13-01"}, "created_to"),
        ({"created_to": "2019-01-01T10:00:00"}, "a day is written as"),
        ({"created_to": "0019-01-01"}, "between 1900 and 2199"),
        ({"min_score_percentile": 100}, "less than 100"),
        ({"min_aspect": 0.5}, "greater than or equal to 1"),
        ({"children": "drop-all"}, "drop-beside-parent"),
        ({"ids_only_file": "no/such/list.txt"}, "one id per line"),
    ],
)
def test_recipes_that_cannot_be_meant(params: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        FilterParams.model_validate(params)


@pytest.mark.parametrize(
    "params",
    [
        {"tags_all": ["*_hair"], "tags_none": ["blue_hair"]},
        {"tags_any": ["red_hair", "comic"], "tags_none": ["*_hair"]},
        {"min_score": 4, "max_score": 4, "created_from": "2016-01-01", "created_to": dt.date(2016, 1, 1)},
        {"min_side": 1000, "max_megapixels": 1, "min_megapixels": 1, "max_side": 1000},
        {"tags_all": [r"\m/", "*_*", "!?"]},
    ],
)
def test_recipes_that_some_post_can_pass(params: dict[str, Any]) -> None:
    FilterParams.model_validate(params)


def test_a_recipe_says_which_key_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("[filter]\nmin_score = 9\ncreated_from = 2016-01-01\n")
    assert load_recipe(path, ["filter.created_to=2016-12-31"]).filter.created_from == dt.date(2016, 1, 1)
    with pytest.raises(RecipeError, match=r"filter: .*min_score 9 is above max_score 5"):
        load_recipe(path, ["filter.max_score=5"])


def test_the_recipes_of_the_docs_are_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "filter.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    Path("seen.txt").write_text("12\n")
    found = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert len(found) >= 4
    for block in found:
        FilterParams.model_validate(tomllib.loads(block)["filter"])
    for name in FilterParams.model_fields:
        assert f"`{name}`" in text, f"docs/filter.md does not speak of {name}"


# ---- sensitive, and every rule at once -------------------------------------------------------------------------------


@pytest.mark.parametrize("ratings", [["safe"], ["general"], ["safe", "general", "unrated"], ["questionable"]])
def test_no_rule_lets_sensitive_posts_in_unless_it_is_named(ratings: list[str]) -> None:
    rows = [{"rating": "sensitive", "score": 10_000, "favourites": 9_999, "created_at": "2023-01-01T00:00:00Z"}]
    loose: dict[str, Any] = {"take_deleted": True, "take_banned": True, "tags_any": ["*"], "min_score": 0}
    loose |= {"ids_only": ["0"], "children": "take", "min_score_percentile": 0, "created_from": "2020-01-01"}
    assert reasons(rows, ratings=ratings, **loose) == ["rating"]
    assert reasons(rows, ratings=[*ratings, "sensitive"], **loose) == [None]


def test_every_limit_has_a_column_and_a_reason() -> None:
    for rule in THRESHOLDS:
        assert rule.column in (*POSTS.names, *DERIVED)
        assert rule.reason


def test_verdicts_are_of_the_schema_and_account_for_every_post() -> None:
    rows = [
        {"rating": rating.value, "score": k, "problem": "no_id" if k == 3 else None} for k, rating in enumerate(Rating)
    ]
    verdicts = decide(make_posts(rows), FilterParams(min_score=1, tags_none=["x"], children="drop-beside-parent"))
    assert verdicts.schema == VERDICTS
    keep = verdicts["keep"].to_numpy()
    assert np.array_equal(keep, verdicts["reason"].is_null().to_numpy())


# ---- genuine rows ----------------------------------------------------------------------------------------------------

GENUINE = Path(__file__).resolve().parents[3] / "shared" / "data" / "metadata"


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """Rows of two real sites as posts, with files that are there in name only."""
    if not GENUINE.is_dir():
        pytest.skip("the genuine metadata is not here")
    root = tmp_path_factory.mktemp("genuine")
    (root / "metadata").mkdir()
    (root / "original").mkdir()
    for path in sorted(GENUINE.glob("*.jsonl")):
        (root / "metadata" / path.name).write_bytes(path.read_bytes())
    posts = read_posts(SourceConfig(root=root))
    sound = pa.nulls(len(posts), pa.string())
    missing = np.array([problem in (None, "missing_file") for problem in posts["problem"].to_pylist()])
    posts = posts.set_column(posts.column_names.index("problem"), "problem", sound)
    return posts.filter(pa.array(missing))


def test_rules_on_genuine_rows(genuine: pa.Table) -> None:
    rows = genuine.to_pylist()
    every = [rating.value for rating in Rating]
    for params, passes in (
        ({"tags_all": ["*_hair"]}, lambda row: any(tag.endswith("_hair") for tag in row["tags"])),
        (
            {"tags_any": ["*users入り", "solo"]},
            lambda r: any(t.endswith("users入り") or t == "solo" for t in r["tags"]),
        ),
        ({"tags_none": ["*_*"]}, lambda row: not any("_" in tag for tag in row["tags"])),
        ({"max_aspect": 1.5}, lambda r: max(s := (r["declared_width"], r["declared_height"])) <= 1.5 * min(s)),
        ({"children": "drop"}, lambda row: row["parent_id"] is None),
    ):
        rules = FilterParams.model_validate({"ratings": every, "take_deleted": True, "take_banned": True} | params)
        keep = decide(genuine, rules)["keep"].to_pylist()
        expected = [bool(passes(row)) and row["extension"] in rules.extensions for row in rows]
        assert keep == expected, params
        assert any(keep), params
        assert not all(keep), params


def test_the_better_half_of_genuine_posts_is_the_better_half_of_each_rating(genuine: pa.Table) -> None:
    rules = FilterParams(ratings=list(Rating), take_deleted=True, take_banned=True, min_score_percentile=50)
    everything = rules.model_copy(update={"min_score_percentile": None})
    rows = [
        (row["rating"], row["score"], keep)
        for row, keep, there in zip(
            genuine.to_pylist(),
            decide(genuine, rules)["keep"].to_pylist(),
            decide(genuine, everything)["keep"].to_pylist(),
            strict=True,
        )
        if row["score"] is not None and there
    ]
    assert rows
    for rating in {rating for rating, _, _ in rows}:
        kept = [score for of, score, keep in rows if of == rating and keep]
        fell = [score for of, score, keep in rows if of == rating and not keep]
        assert not kept or not fell or min(kept) > max(fell)


def test_no_genuine_sensitive_post_passes_for_safe(genuine: pa.Table) -> None:
    kept = genuine.filter(decide(genuine, FilterParams())["keep"])
    assert set(kept["rating"].to_pylist()) <= {"safe", "general", "unrated"}
    assert "sensitive" in genuine["rating"].to_pylist()
