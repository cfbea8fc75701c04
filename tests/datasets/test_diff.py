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
    "source": {},
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


def boxed(x: int, y: int = 0, side: int = 90) -> dict[str, int]:
    return {"box_x": x, "box_y": y, "box_w": side, "box_h": side}


UNION = {"crop.detector": "union"}


def test_faces_are_paired_by_their_places_not_by_their_numbers(make: Make) -> None:
    """Another detector finds one more face on the left, and draws the other boxes a few pixels larger."""
    before = make(crop("1#0", "a", **boxed(300)), fallen("1#1", **boxed(600)), **UNION)
    shifted = crop("1#1", "a larger", **boxed(296, 2, 96)), fallen("1#2", pixel_digest=digest("b"), **boxed(605))
    after = make(crop("1#0", "new", **boxed(10)), *shifted, **{"crop.detector": "animeface"})
    rows = rows_of(before, after)
    assert {name: (row["before"], row["change"]) for name, row in rows.items()} == {
        "1#0": ("absent", "added"),
        "1#1": ("published", "pixels"),
    }
    assert rows["1#1"]["pixel_digest_before"] == digest("a")
    back = diff_versions(after, before).to_pylist()  # rows are named by the later version, if that has the item
    assert [(row["item_id"], row["change"]) for row in back] == [("1#0", "removed"), ("1#0", "pixels")]


def test_of_overlapping_places_the_best_is_taken_first(make: Make) -> None:
    before = make(crop("1#0", "a", **boxed(0)), crop("1#1", "b", **boxed(40)))
    after = make(crop("1#0", "c", **boxed(38)), crop("1#1", "d", **boxed(5)), **UNION)
    rows = rows_of(before, after)
    assert {name: row["pixel_digest_before"] for name, row in rows.items()} == {"1#0": digest("b"), "1#1": digest("a")}
    # one place twice: in order of the ids, in both directions
    twins = make(crop("1#0", "c", **boxed(2)), crop("1#1", "d", **boxed(2)), **UNION)
    again = make(crop("1#0", "a", **boxed(2)), crop("1#1", "b", **boxed(2)))
    assert {name: row["pixel_digest_before"] for name, row in rows_of(again, twins).items()} == {
        "1#0": digest("a"),
        "1#1": digest("b"),
    }


def test_a_number_counts_where_places_do_not(make: Make) -> None:
    """Of another picture places say nothing; of the same picture two places are two faces, whatever their number."""
    before, far = make(crop("1#0", **boxed(0))), crop("1#0", "other", **boxed(500))
    assert only_row(before, make({**far, "file_digest": digest("other file")}))["change"] == Change.PIXELS
    assert only_row(before, make({**far, "box_x": None}, **UNION))["change"] == Change.PIXELS
    table = diff_versions(before, make(far, **UNION))
    assert table["change"].to_pylist() == ["added", "removed"]
    assert set(table["parameter"].to_pylist()) == {"crop.detector"}


def test_a_mirror_image_follows_the_place_of_its_parent(make: Make) -> None:
    def doubled(name: str, pixels: str, **box: int) -> list[dict[str, Any]]:
        child = crop(name, pixels, **box) | {"crop_id": f"{name}+mirror", "augmentation": "mirror", "parent_crop": name}
        return [crop(name, pixels, **box), child | {"blob": digest("flipped" + pixels)}]

    before = make(*doubled("1#0", "a", **boxed(300)))
    after = make(*doubled("1#0", "new", **boxed(0)), *doubled("1#1", "a larger", **boxed(303)), **UNION)
    assert {name: row["change"] for name, row in rows_of(before, after).items()} == {
        "1#0": "added",
        "1#0+mirror": "added",
        "1#1": "pixels",
        "1#1+mirror": "pixels",
    }


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


def test_a_moved_file_is_recognised_when_only_its_post_is_asked_for(make: Make) -> None:
    before, after = make(crop("1#0"), crop("5#0")), make(crop("9#0", file_digest=digest("1")), crop("5#0"))
    (gone,) = diff_versions(before, after, {"1"}).to_pylist()
    (came,) = diff_versions(before, after, {"9"}).to_pylist()
    assert (gone["item_id"], gone["detail"]) == ("1#0", "post gone, moved to 9")
    assert (came["item_id"], came["detail"]) == ("9#0", "new post, moved from 1")
    assert diff_versions(before, after).to_pylist() == [came, gone]
    # a copy that stays where it is was not moved there
    copies = crop("9#0", "x", file_digest=digest("1"))
    (gone,) = diff_versions(make(crop("1#0"), copies), make(copies), {"1"}).to_pylist()
    assert gone["detail"] == "post gone"


def test_slices_do_not_change_what_is_told(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of copies, moved files and mirror images: what a cause depends on may lie in another slice."""
    near = {"stage": "dedup", "reason": "near_copy", "measurement": "hash distance", "value": 2.0, "threshold": 4.0}
    near["parameter"] = "dedup.radius"
    chain = [fallen(f"{k}#0", related=f"{k + 1}#0", **near) for k in range(1, 6)]
    before = make(*chain, crop("6#0"), crop("7#0"), **{"clean.min_blur": 20.0})
    after = make(
        crop("1#0"), *(crop(f"{k}#0") for k in range(2, 6)), fallen("6#0"), crop("8#0", file_digest=digest("7"))
    )
    whole = [diff_versions(before, after), diff_versions(after, before)]
    assert len(whole[0]) == 8 and "moved to 8" in str(whole[0]["detail"].to_pylist())
    for size in (1, 3):
        monkeypatch.setattr("datasets.diff.compare._SLICE", size)
        monkeypatch.setattr("datasets.diff.items._POSTS", size)
        assert [diff_versions(before, after), diff_versions(after, before)] == whole


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
    assert row["detail"] == "stage clean version 1 -> 2 (blur 70 -> 30 against clean.min_blur 40 -> 60)"
    assert row["value"] == 30.0


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
    assert (row["cause"], row["detail"]) == (
        Cause.SET_CHANGED,
        "percentile 6 -> 4 among other pictures, against rank.drop_lowest 5",
    )
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
    assert (row["cause"], row["detail"]) == (
        Cause.SOURCE_METADATA_CHANGED,
        "declared_width is 90 against filter.min_side 100",
    )


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


def test_a_keep_that_was_of_other_pixels(make: Make) -> None:
    kept, out = crop("1#0", "kept", blur=20.0, decision="keep"), fallen("1#0", **boxed(0))
    before, after = make(kept), make(out, **UNION)
    row = only_row(before, after)
    assert (row["change"], row["cause"], row["parameter"], row["value"]) == (
        "removed",
        "setting",
        "crop.detector",
        30.0,
    )
    said = "crop.detector lbp -> union (blur 30 against clean.min_blur 40)"
    assert row["detail"] == f"a person's keep was of other pixels: {said}"
    back = only_row(after, before)
    assert back["detail"] == "a person's keep is of these pixels: " + said.replace("lbp -> union", "union -> lbp")


def test_a_rejection_that_was_of_other_pixels(make: Make) -> None:
    out = fallen("1#0", "dedup", "rejected_by_person", detail="mika", decision="reject", blur=20.0)
    row = only_row(make(out), make(crop("1#0", "other"), **UNION))
    assert (row["cause"], row["who"]) == (Cause.SETTING, "mika")
    assert row["detail"] == "was rejected by mika, of other pixels: crop.detector lbp -> union"
    back = only_row(make(crop("1#0", "other"), **UNION), make(out))
    assert back["detail"] == "other pixels, rejected by mika: crop.detector union -> lbp"
    blurred = only_row(make(out), make(fallen("1#0", pixel_digest=digest("other")), **UNION))
    assert blurred["cause"] == Cause.SETTING
    assert blurred["detail"].startswith("a person's reject was of other pixels: crop.detector lbp -> union (blur 30 ")


def test_a_rejection_carries_a_blurred_crop_to_where_it_falls_for_that(make: Make) -> None:
    out = fallen("1#0", "dedup", "rejected_by_person", detail="mika", decision="reject", blur=30.0)
    row = only_row(make(fallen("1#0")), make(out))
    assert (row["change"], row["cause"], row["detail"]) == ("verdict", Cause.DECISION, "rejected by mika")
    assert only_row(make(out), make(fallen("1#0")))["detail"] == "no longer rejected"


def test_a_deleted_post_that_loses_its_file(make: Make) -> None:
    """The filter looks for the file first: the deletion still holds."""
    deleted = cropless("1", "filter", "deleted", parameter="filter.take_deleted")
    missing = cropless("1", "filter", "missing_file", detail="1.jpg does not exist")
    row = only_row(make(deleted), make(missing))
    assert (row["cause"], row["detail"]) == (Cause.SOURCE_GONE, "its file is gone (1.jpg does not exist)")
    row = only_row(make(missing), make(deleted))
    assert (row["cause"], row["detail"]) == (Cause.NEW_POST, "its file is there now")
    row = only_row(make(missing), make(cropless("1", "filter", "unsafe_path", detail="../1.jpg")))
    assert row["detail"] == "its file is there now, but unsafe_path: ../1.jpg"


SOURCE = {"kind": "danbooru", "root": "booru", "metadata": "", "images": "original", "modulus": 1000}


def sourced(**changes: Any) -> dict[str, Any]:
    """The recipe's source as a keyword of `make`, by way of its keys."""
    return {f"source.{key}": value for key, value in {**SOURCE, "rating_vintage": "auto", **changes}.items()}


def blamed(before: Version, after: Version) -> tuple[str, str, str]:
    row = only_row(before, after)
    return row["cause"], row["parameter"], row["detail"]


def test_settings_of_the_source_come_before_what_follows_from_them(make: Make) -> None:
    here, vintage = sourced(), sourced(rating_vintage="s-is-sensitive")
    safe, sensitive = crop("1#0"), cropless("1", "filter", "rating", rating="sensitive", parameter="filter.ratings")
    changed = "source.rating_vintage auto -> s-is-sensitive"
    assert blamed(make(safe, **here), make(sensitive | {"detail": "sensitive"}, **vintage)) == (
        "setting", "source.rating_vintage", f"{changed}: rating safe -> sensitive"
    )  # fmt: skip
    said = blamed(make(safe, **here), make(crop("1#0", rating="general"), **vintage))
    assert said == ("setting", "source.rating_vintage", f"{changed}: rating safe -> general")
    # another score does not follow from how ratings are read
    assert blamed(make(safe, **here), make(crop("1#0", score=9), **vintage))[0] == Cause.SOURCE_METADATA_CHANGED

    other = sourced(metadata="new/*")
    said = blamed(make(safe, **here), make(crop("1#0", score=9, tags=[]), **other))
    assert said == ("setting", "source.metadata", "source.metadata nothing -> new/*: score 3 -> 9, tags -hat")
    low = {"measurement": "score", "value": 1.0, "threshold": 2.0, "parameter": "filter.min_score", "score": 1}
    limit = {"filter.min_score": 2}
    said = blamed(make(safe, **here, **limit), make(cropless("1", "filter", "score", **low), **other, **limit))
    assert said[1:] == (
        "source.metadata",
        "source.metadata nothing -> new/*: score 3 -> 1 against filter.min_score 2",
    )


@pytest.mark.parametrize("key", ["kind", "root", "metadata", "images", "modulus"])
def test_posts_and_files_that_come_and_go_with_a_setting_of_the_source(make: Make, key: str) -> None:
    here, there = sourced(), sourced(**{key: 7 if key == "modulus" else "elsewhere"})
    missing = cropless("1", "filter", "missing_file", detail="1.jpg does not exist")
    for one, two, word in (
        ([crop("1#0")], [], "post gone"),
        ([], [crop("1#0")], "new post"),
        ([crop("1#0")], [missing], "its file is gone (1.jpg does not exist)"),
        ([missing], [crop("1#0")], "its file is there now"),
    ):
        cause, parameter, detail = blamed(make(*one, **here), make(*two, **there))
        assert (cause, parameter) == (Cause.SETTING, f"source.{key}")
        assert detail.startswith(f"source.{key} ") and detail.endswith(f": {word}")
        assert blamed(make(*one, **here), make(*two, **sourced()))[0] in (Cause.SOURCE_GONE, Cause.NEW_POST)
    if key != "metadata":
        bytes_changed = crop("1#0", "other", file_digest=digest("smaller"))
        said = blamed(make(crop("1#0"), **here), make(bytes_changed, **there))
        assert said[:2] == (Cause.SETTING, f"source.{key}") and said[2].endswith("its file has other bytes")


def test_the_figures_are_told_whatever_the_cause(make: Make) -> None:
    low = {"measurement": "d_percentile", "value": 4.0, "threshold": 5.0, "parameter": "rank.drop_lowest"}
    out = make(fallen("1#0", "rank", "ranked_low", **low, d_percentile=4.0))
    unranked = {stage: {} for stage in STAGES if stage != "rank"}
    row = only_row(make(crop("1#0"), counts=unranked, **{"rank.run": ""}), out)
    assert (row["cause"], row["value"]) == (Cause.SETTING, 4.0)
    assert row["detail"] == "rank.run nothing -> r1 (d_percentile 4 against rank.drop_lowest off -> 5)"

    near = {"measurement": "hash distance", "value": 3.0, "threshold": 4.0, "parameter": "dedup.radius"}
    one = crop("1#0"), fallen("2#0", "dedup", "near_copy", **near, related="1#0")
    two = fallen("1#0", "dedup", "near_copy", **near, related="2#0"), crop("2#0", score=9)
    rows = rows_of(make(*one), make(*two))
    said = "score of 2#0 3 -> 9 (hash distance 3 against dedup.radius 4)"
    assert {name: (row["detail"], row["value"]) for name, row in rows.items()} == {
        "1#0": (f"copy of 2#0: {said}", 3.0),
        "2#0": (f"copy of 1#0: {said}", 3.0),
    }


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
