"""The diff on tables alone: who is matched with whom, what counts as a change, and causes that no small build makes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from datasets.atomic import write_parquet
from datasets.diff import DIFF, Cause, Change, diff_versions, explain_change, summarise_diff
from datasets.diff.table import write_diff
from datasets.errors import StoreError
from datasets.schema import LEDGER, MANIFEST
from datasets.version import Version

Make = Callable[..., Version]
STAGES = ("filter", "crop", "clean", "dedup", "upscale", "rank")
RECIPE: dict[str, Any] = {
    "filter": {"ratings": ["safe"], "min_side": 0, "take_deleted": False},
    "crop": {"method": "face", "detector": "lbp", "min_size": 64},
    "clean": {"min_blur": 40.0},
    "dedup": {"near": True, "radius": 4, "mirror": True},
    "upscale": {"size": 256, "max_factor": 4.0},
    "rank": {"run": "r1", "drop_lowest": 5.0, "drop_highest": 0.0},
}
SETTINGS = {"crop": ("method", "detector"), "upscale": ("size",), "rank": ("run",)}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def crop(name: str, pixels: str | None = None, **columns: Any) -> dict[str, Any]:
    """A published crop; its pixels and file are those of its name unless said otherwise."""
    post = name.rpartition("#")[0]
    shown = digest(pixels or name)
    row = {"crop_id": name, "post_id": post, "blob": digest(shown), "pixel_digest": shown, "file_digest": digest(post)}
    return {**row, "rating": "safe", "score": 3, "tags": ["hat"], "box_w": 90, "box_h": 90, **columns}


def fallen(name: str, stage: str = "clean", reason: str = "blurred", **columns: Any) -> dict[str, Any]:
    """A dropped crop."""
    row = {**crop(name), "item_id": name, "stage": stage, "reason": reason, "crop_blob": digest("cut" + name)}
    if reason == "blurred":
        row |= {"measurement": "blur", "value": 30.0, "threshold": 40.0, "parameter": "clean.min_blur", "blur": 30.0}
    return {**row, "blob": None, **columns}


def cropless(post: str, stage: str = "crop", reason: str = "no_face", **columns: Any) -> dict[str, Any]:
    """A dropped post that gave no crop."""
    row = {"item_id": post, "post_id": post, "stage": stage, "reason": reason, "rating": "safe"}
    return {**row, "parameter": "crop.detector" if reason == "no_face" else None, **columns}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """make(manifest and ledger rows, measured=..., libraries=..., **recipe changes "clean.min_blur") -> a Version."""
    count = 0

    def write(*rows: dict[str, Any], bare: bool = False, **changes: Any) -> Version:
        nonlocal count
        count += 1
        folder = tmp_path / f"store/datasets/faces/v{count:04d}"
        published = [row for row in rows if "stage" not in row]
        write_parquet(folder / "manifest.parquet", pa.Table.from_pylist(published, schema=MANIFEST))
        dropped = [row for row in rows if "stage" in row]
        write_parquet(folder / "ledger.parquet", pa.Table.from_pylist(dropped, schema=LEDGER))
        recipe = {stage: dict(keys) for stage, keys in RECIPE.items()}
        versions, weights = dict.fromkeys(STAGES, 1), {"lbpcascade-animeface": "a" * 64}
        lineage: dict[str, Any] = {"counts": {stage: {} for stage in STAGES}, "libraries": {"pillow": "12.2"}}
        for key, value in changes.items():
            stage, _, name = key.partition(".")
            if name == "version":
                versions[stage] = value
            elif name == "weights":
                weights = value
            elif name:
                recipe[stage][name] = value
            else:
                lineage[key] = value
        measured = {
            stage: {
                "version": versions[stage],
                "settings": {name: recipe[stage][name] for name in SETTINGS.get(stage, ())},
                "weights": weights if stage == "crop" else {},
            }
            for stage in STAGES
        }
        thresholds = [{"stage": "clean", "column": "blur", "parameter": "clean.min_blur", "sign": ">="}]
        thresholds[0]["value"] = recipe["clean"]["min_blur"]
        lineage |= {"recipe": recipe, "stage_versions": versions, "weights": weights}
        if not bare:
            lineage |= {"measured": measured, "thresholds": thresholds}
        return Version("faces", count, folder, lineage)

    return write


def rows_of(before: Version, after: Version) -> dict[str, dict[str, Any]]:
    table = diff_versions(before, after)
    assert table.schema == DIFF
    return {row["item_id"]: row for row in table.to_pylist()}


def only_row(before: Version, after: Version) -> dict[str, Any]:
    (row,) = rows_of(before, after).values()
    return row


# ---- matching --------------------------------------------------------------------------------------------------------


def test_equal_versions_and_empty_ones_differ_in_nothing(make: Make) -> None:
    rows = (crop("1#0"), fallen("2#0"), cropless("3"))
    assert rows_of(make(*rows), make(*rows)) == {}
    assert rows_of(make(), make()) == {}


def test_one_more_face_renumbers_the_others_and_changes_no_pixels(make: Make) -> None:
    before = make(crop("1#0", "a"), crop("1#1", "b"))
    after = make(crop("1#0", "new"), crop("1#1", "a"), crop("1#2", "b"), **{"crop.detector": "union"})
    rows = rows_of(before, after)
    assert {name: row["change"] for name, row in rows.items()} == {
        "1#0": Change.ADDED,
        "1#1": Change.METADATA,
        "1#2": Change.METADATA,
    }
    assert {row["cause"] for row in rows.values()} == {Cause.SETTING}
    assert rows["1#2"]["detail"] == "crop_id 1#1 -> 1#2: crop.detector lbp -> union"
    assert (rows["1#0"]["before"], rows["1#0"]["parameter"]) == ("absent", "crop.detector")


def test_crops_of_equal_pixels_in_one_post_are_paired_in_order(make: Make) -> None:
    before = make(crop("1#0", "x"), crop("1#1", "x"))
    assert rows_of(before, make(crop("1#0", "x"), crop("1#1", "x"))) == {}
    shifted = rows_of(before, make(crop("1#0", "y"), crop("1#1", "x"), crop("1#2", "x"), **{"crop.detector": "union"}))
    assert {name: row["change"] for name, row in shifted.items()} == {"1#0": "added", "1#2": "metadata"}


def test_equal_pixels_of_another_post_are_another_item(make: Make) -> None:
    rows = rows_of(make(crop("1#0", "x")), make(crop("2#0", "x")))
    assert {name: row["cause"] for name, row in rows.items()} == {"1#0": Cause.SOURCE_GONE, "2#0": Cause.NEW_POST}


def test_a_mirror_image_is_no_match_for_its_parent(make: Make) -> None:
    child = crop("1#0+mirror", "1#0", post_id="1", augmentation="mirror", parent_crop="1#0", blob=digest("flipped"))
    both = make(crop("1#0"), child)
    assert rows_of(both, both) == {}
    rows = rows_of(both, make(fallen("1#0"), **{"clean.min_blur": 90.0}))
    assert {name: (row["change"], row["after"]) for name, row in rows.items()} == {
        "1#0": ("removed", "clean: blurred"),
        "1#0+mirror": ("removed", "clean: blurred"),
    }


def test_a_post_without_a_crop_is_one_story_with_its_crops(make: Make) -> None:
    before = make(cropless("1"))
    after = make(crop("1#0"), fallen("1#1"), **{"crop.detector": "union"})
    rows = rows_of(before, after)
    assert {(name, row["before"], row["after"], row["change"]) for name, row in rows.items()} == {
        ("1#0", "crop: no_face", "published", "added"),
        ("1#1", "crop: no_face", "clean: blurred", "verdict"),
    }
    back = rows_of(after, before)
    assert {(name, row["before"], row["after"]) for name, row in back.items()} == {
        ("1#0", "published", "crop: no_face"),
        ("1#1", "clean: blurred", "crop: no_face"),
    }
    assert {row["cause"] for row in [*rows.values(), *back.values()]} == {Cause.SETTING}


# ---- what counts -----------------------------------------------------------------------------------------------------


def test_measurements_and_percentiles_are_no_state(make: Make) -> None:
    before = make(crop("1#0", blur=100.0, d_percentile=3.0, phash="0"))
    assert rows_of(before, make(crop("1#0", blur=101.0, d_percentile=4.0, phash="1"))) == {}


def test_metadata_says_old_and_new(make: Make) -> None:
    before = make(crop("1#0", tags=["hat", "sketch"], source_path="a.png"), crop("2#0", tags=None), crop("3#0"))
    after = make(crop("1#0", tags=["hat", "smile"], score=None, source_path="b.png"), crop("2#0", tags=[]), crop("3#0"))
    row = only_row(before, after)
    assert (row["item_id"], row["change"], row["cause"]) == ("1#0", "metadata", Cause.SOURCE_METADATA_CHANGED)
    assert row["detail"] == "score 3 -> none, tags +smile -sketch, moved a.png -> b.png"
    assert explain_change(row) == f"1#0 metadata: {row['detail']}"


def test_rows_are_in_order_and_counted(make: Make, tmp_path: Path) -> None:
    names = [f"{k}#0" for k in (5, 3, 1)]
    loose = {"clean.min_blur": 20.0}
    before = make(*(crop(name) for name in names), crop("7#0"), crop("8#0", score=1), **loose)
    after = make(*(fallen(name) for name in names), crop("8#0", score=2), crop("9#0"))
    table = diff_versions(before, after)
    assert table["item_id"].to_pylist() == ["9#0", "7#0", "1#0", "3#0", "5#0", "8#0"]
    assert summarise_diff(table).to_pylist() == [
        {"change": "added", "cause": "new_post", "parameter": None, "count": 1},
        {"change": "removed", "cause": "threshold", "parameter": "clean.min_blur", "count": 3},
        {"change": "removed", "cause": "source_gone", "parameter": None, "count": 1},
        {"change": "metadata", "cause": "source_metadata_changed", "parameter": None, "count": 1},
    ]
    write_diff(tmp_path / "diff.parquet", table)
    assert pq.read_table(tmp_path / "diff.parquet").equals(table)
    write_diff(tmp_path / "diff.csv", table)
    assert pa_csv.read_csv(tmp_path / "diff.csv")["detail"].to_pylist() == table["detail"].to_pylist()
    with pytest.raises(StoreError, match=r"\.parquet or \.csv"):
        write_diff(tmp_path / "diff.txt", table)


def test_a_diff_of_some_posts_is_that_part_of_the_whole(make: Make) -> None:
    copy = {"stage": "dedup", "reason": "exact_copy", "related": "2#0"}
    before = make(crop("2#0"), fallen("1#0", **copy), crop("3#0"), **{"clean.min_blur": 20.0})
    after = make(crop("1#0"), fallen("2#0"), fallen("3#0"))
    whole = {row["item_id"]: row for row in diff_versions(before, after).to_pylist()}
    assert len(whole) == 3
    for name, row in whole.items():
        assert diff_versions(before, after, {name.partition("#")[0]}).to_pylist() == [row]
    assert whole["1#0"]["detail"] == "its keeper 2#0 is out: blur 30 against clean.min_blur 20 -> 40"
    assert len(diff_versions(before, after, {"nobody"})) == 0


# ---- causes ----------------------------------------------------------------------------------------------------------


def test_a_threshold_is_blamed_only_when_the_value_lies_between(make: Make) -> None:
    between = crop("1#0", blur=52.0), fallen("1#0", value=52.0, blur=52.0, threshold=60.0)
    row = only_row(make(between[0]), make(between[1], **{"clean.min_blur": 60.0}))
    assert (row["cause"], row["value"], row["threshold_before"], row["threshold_after"]) == ("threshold", 52, 40, 60)
    assert explain_change(row) == "1#0 removed: blur 52 against clean.min_blur 40 -> 60"
    # measured anew, and below the old threshold as well: the measurement moved it
    moved = make(crop("1#0", blur=70.0)), make(fallen("1#0"), **{"clean.min_blur": 60.0, "clean.version": 2})
    row = only_row(*moved)
    assert (row["cause"], row["stage"]) == (Cause.STAGE_VERSION, "clean")
    assert row["detail"] == "stage clean version 1 -> 2 (blur 70 -> 30)"


def test_versions_from_before_thresholds_were_listed(make: Make) -> None:
    before = make(crop("1#0", blur=52.0), bare=True)
    after = make(fallen("1#0", value=52.0, blur=52.0, threshold=60.0), bare=True, **{"clean.min_blur": 60.0})
    row = only_row(before, after)
    assert (row["cause"], row["threshold_before"], row["threshold_after"]) == (Cause.THRESHOLD, 40.0, 60.0)
    other = make(crop("1#0", "other", blur=52.0), bare=True, **{"crop.detector": "union"})
    assert only_row(before, other)["parameter"] == "crop.detector"
    other = make(crop("1#0", "other", blur=52.0), bare=True, **{"crop.weights": {"lbpcascade-animeface": "b" * 64}})
    assert only_row(before, other)["cause"] == Cause.WEIGHTS


def test_files_whose_digest_is_not_on_record(make: Make) -> None:
    """Versions from before the manifest kept file digests, with columns missing altogether."""
    before, after = make(crop("1#0", file_digest=None)), make(crop("1#0", "other"))
    for name in ("manifest.parquet", "ledger.parquet"):
        table = pq.read_table(before.folder / name)
        write_parquet(before.folder / name, table.drop_columns(["file_digest"]))
    assert only_row(before, after)["cause"] == Cause.SOURCE_FILE_CHANGED
    assert only_row(after, before)["cause"] == Cause.SOURCE_FILE_CHANGED


def test_weights_are_named_by_their_digests(make: Make) -> None:
    after = make(crop("1#0", "other"), **{"crop.weights": {"lbpcascade-animeface": "b" * 64}})
    row = only_row(make(crop("1#0")), after)
    assert (row["change"], row["cause"], row["stage"]) == ("pixels", Cause.WEIGHTS, "crop")
    assert row["detail"] == "weights lbpcascade-animeface aaaaaaaa… -> bbbbbbbb…"


def test_a_percentile_that_moved_because_of_others(make: Make) -> None:
    low = {"measurement": "d_percentile", "value": 4.0, "threshold": 5.0, "parameter": "rank.drop_lowest"}
    out = fallen("1#0", "rank", "ranked_low", **low, d_score=0.5, d_percentile=4.0)
    row = only_row(make(crop("1#0", d_score=0.5, d_percentile=6.0)), make(out))
    assert (row["cause"], row["detail"]) == (Cause.SET_CHANGED, "percentile 6 -> 4 among other pictures")
    looser = make(crop("1#0", d_score=0.5, d_percentile=4.0), **{"rank.drop_lowest": 0.0})
    row = only_row(make(out), looser)
    assert (row["cause"], row["detail"]) == (Cause.THRESHOLD, "d_percentile 4 against rank.drop_lowest 5 -> off")
    other = make(crop("1#0", d_score=2.5, d_percentile=60.0), **{"rank.run": "r2"})
    assert (only_row(make(out), other)["cause"], only_row(make(out), other)["parameter"]) == ("setting", "rank.run")


def test_libraries_when_nothing_else_explains_the_pixels(make: Make) -> None:
    after = make(crop("1#0", "other"), libraries={"pillow": "13.0"})
    row = only_row(make(crop("1#0")), after)
    assert (row["cause"], row["detail"]) == (Cause.LIBRARIES, "pillow 12.2 -> 13.0")


def test_what_nothing_explains_is_said_to_be_unknown(make: Make) -> None:
    row = only_row(make(crop("1#0")), make(crop("1#0", "other")))
    assert (row["change"], row["cause"]) == (Change.PIXELS, Cause.UNKNOWN)


def test_flags_and_values_that_manifests_do_not_keep(make: Make) -> None:
    deleted = cropless("1", "filter", "deleted", parameter="filter.take_deleted")
    row = only_row(make(crop("1#0")), make(deleted))
    assert (row["cause"], row["detail"]) == (Cause.SOURCE_METADATA_CHANGED, "marked deleted")
    row = only_row(make(crop("1#0"), **{"filter.take_deleted": True}), make(deleted))
    assert (row["cause"], row["detail"]) == (Cause.THRESHOLD, "filter.take_deleted true -> false")
    side = {"measurement": "declared_width", "value": 90.0, "threshold": 100.0, "parameter": "filter.min_side"}
    small = cropless("1", "filter", "too_small", **side)
    row = only_row(make(crop("1#0")), make(small, **{"filter.min_side": 100}))
    assert (row["cause"], row["detail"]) == (
        Cause.THRESHOLD,
        "declared_width 90 against filter.min_side 0 -> 100",
    )
    strict = {"filter.min_side": 100}
    row = only_row(make(crop("1#0"), **strict), make(small, **strict))
    assert (row["cause"], row["detail"]) == (Cause.SOURCE_METADATA_CHANGED, "declared_width is 90")


def test_a_file_that_is_missing_though_its_metadata_is_there(make: Make) -> None:
    missing = cropless("1", "filter", "missing_file", detail="original/0001/1.jpg does not exist")
    row = only_row(make(crop("1#0")), make(missing))
    assert (row["cause"], row["after"]) == (Cause.SOURCE_GONE, "filter: missing_file")
    assert only_row(make(missing), make(crop("1#0")))["cause"] == Cause.NEW_POST


def test_a_rating_and_a_list_that_both_changed(make: Make) -> None:
    out = cropless("1", "filter", "rating", rating="explicit", parameter="filter.ratings", detail="explicit")
    both = make(crop("1#0", rating="questionable"), **{"filter.ratings": ["safe", "questionable"]})
    row = only_row(both, make(out))
    assert (row["cause"], row["detail"]) == (Cause.SOURCE_METADATA_CHANGED, "rating questionable -> explicit")


def test_a_person_overrules_what_the_recipe_would_have_explained(make: Make) -> None:
    row = only_row(make(fallen("1#0")), make(crop("1#0", decision="keep"), **{"clean.min_blur": 20.0}))
    assert (row["cause"], row["detail"]) == (Cause.DECISION, "kept by a person")
    row = only_row(make(crop("1#0", decision="keep")), make(fallen("1#0")))
    assert (row["cause"], row["detail"]) == (Cause.DECISION, "no longer kept")


def test_verdicts_that_moved_to_another_stage(make: Make) -> None:
    near = {"measurement": "hash distance", "value": 3.0, "threshold": 4.0, "parameter": "dedup.radius"}
    copy = fallen("1#0", "dedup", "near_copy", **near, related="2#0", blur=52.0)
    blurred = fallen("1#0", value=52.0, blur=52.0, threshold=60.0)
    row = only_row(make(copy, crop("2#0")), make(blurred, crop("2#0"), **{"clean.min_blur": 60.0}))
    assert (row["before"], row["after"]) == ("dedup: near_copy", "clean: blurred")
    assert (row["change"], row["cause"], row["parameter"]) == ("verdict", "threshold", "clean.min_blur")
    assert explain_change(row).startswith("1#0 dedup: near_copy -> clean: blurred: blur 52 against")


def test_copies_that_lead_back_to_each_other_end(make: Make) -> None:
    """Damaged tables, in which two copies name each other: a cause all the same, not a recursion without end."""
    exact = {"stage": "dedup", "reason": "exact_copy"}
    one, two = fallen("1#0", **exact, related="2#0"), fallen("2#0", **exact, related="1#0")
    assert len(rows_of(make(one, two), make(crop("1#0"), crop("2#0")))) == 2
