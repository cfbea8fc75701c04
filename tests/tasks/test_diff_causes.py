"""Every cause of a change, made on purpose in a real build, is named by the diff; none is unknown."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from datasets.decisions import append_decisions
from datasets.diff import Cause, Change, diff_versions, explain_change, summarise_diff
from datasets.store import Store
from datasets.version import Version
from tasks.build import BuildResult

Build = Callable[..., BuildResult]
Rows = dict[str, dict[str, Any]]
COUNT = 8


@pytest.fixture
def source(tmp_path: Path, draw: Callable[..., np.ndarray], png: Callable[[np.ndarray], bytes]) -> Path:
    """Eight good pictures, an exact and a mirrored copy, a small one, a grey one and a file that is no picture."""
    folder = tmp_path / "source"
    folder.mkdir()
    for k in range(COUNT):
        (folder / f"good{k}.png").write_bytes(png(draw(k, 96 + k, 96)))
    (folder / "same.png").write_bytes((folder / "good0.png").read_bytes())
    (folder / "turned.png").write_bytes(png(draw(1, 97, 96)[:, ::-1]))
    (folder / "small.png").write_bytes(png(draw(50, 56, 56)))
    (folder / "grey.png").write_bytes(png(draw(51).mean(axis=2, keepdims=True).repeat(3, 2).astype(np.uint8)))
    (folder / "text.jpg").write_bytes(b"<html>404</html>")
    return folder


def compare(before: BuildResult, after: BuildResult) -> Rows:
    """The diff by item_id, after what holds for every diff."""
    table = diff_versions(before.version, after.version)
    rows = {row["item_id"]: row for row in table.to_pylist()}
    assert len(rows) == len(table)
    assert [row for row in rows.values() if row["cause"] == Cause.UNKNOWN] == []
    back = diff_versions(after.version, before.version)
    assert [row for row in back.to_pylist() if row["cause"] == Cause.UNKNOWN] == []
    assert len(back) == len(table)
    assert sum(summarise_diff(table)["count"].to_pylist()) == len(table)
    assert_complete(before.version, after.version, table)
    return rows


def assert_complete(before: Version, after: Version, table: pa.Table) -> None:
    """Added and removed rows account for every difference of the two manifests' pictures."""
    added = pc.sum(pc.equal(table["change"], Change.ADDED)).as_py() or 0
    removed = pc.sum(pc.equal(table["change"], Change.REMOVED)).as_py() or 0
    assert len(after.manifest()) - len(before.manifest()) == added - removed


def causes(rows: Rows) -> dict[str, str]:
    return {name: row["cause"] for name, row in rows.items()}


def decide_on(store: Store, result: BuildResult, crop_id: str, decision: str, note: str | None = None) -> None:
    for table in (result.version.manifest(), result.version.ledger()):
        for row in table.to_pylist():
            if row["crop_id"] == crop_id and row["pixel_digest"]:
                said = {"pixel_digest": row["pixel_digest"], "decision": decision, "who": "mika", "note": note}
                append_decisions(store.decisions, pa.Table.from_pylist([said | {"decided_at": datetime.now(UTC)}]))
                return
    raise AssertionError(f"{crop_id} is in neither table")


# ---- the source ------------------------------------------------------------------------------------------------------


def test_nothing_differs_from_itself(source: Path, build: Build) -> None:
    result = build()
    assert compare(result, result) == {}


def test_new_posts_and_copies_of_them(
    source: Path, build: Build, draw: Callable[..., np.ndarray], png: Callable[[np.ndarray], bytes]
) -> None:
    before = build()
    (source / "new.png").write_bytes(png(draw(70)))
    (source / "new_small.png").write_bytes(png(draw(71, 40, 40)))
    (source / "again.png").write_bytes((source / "good3.png").read_bytes())  # sorts before what is in, and replaces it
    rows = compare(before, build())
    assert rows["new.png#0"]["change"] == Change.ADDED
    assert (rows["new.png#0"]["before"], rows["new.png#0"]["after"]) == ("absent", "published")
    assert rows["new_small.png#0"]["change"] == Change.VERDICT
    assert rows["good3.png#0"]["detail"] == "exact copy of again.png#0, which is new"
    assert causes(rows) == {
        "new.png#0": Cause.NEW_POST,
        "new_small.png#0": Cause.NEW_POST,
        "again.png#0": Cause.NEW_POST,
        "good3.png#0": Cause.DUPLICATE_OF_NEW,
    }


def test_a_post_that_is_gone_frees_its_copy(source: Path, build: Build) -> None:
    before = build()
    (source / "good1.png").unlink()
    rows = compare(before, build())
    assert causes(rows) == {"good1.png#0": Cause.SOURCE_GONE, "turned.png#0": Cause.KEEPER_GONE}
    assert (rows["turned.png#0"]["before"], rows["turned.png#0"]["change"]) == ("dedup: mirrored_copy", Change.ADDED)
    assert rows["turned.png#0"]["detail"] == "its keeper good1.png#0 is gone"


def test_a_renamed_file_says_where_it_went(source: Path, build: Build) -> None:
    before = build()
    (source / "good5.png").rename(source / "other.png")
    rows = compare(before, build())
    assert causes(rows) == {"good5.png#0": Cause.SOURCE_GONE, "other.png#0": Cause.NEW_POST}
    assert rows["good5.png#0"]["detail"] == "post gone, moved to other.png"
    assert rows["other.png#0"]["detail"] == "new post, moved from good5.png"


def test_changed_bytes(
    source: Path, build: Build, draw: Callable[..., np.ndarray], png: Callable[[np.ndarray], bytes]
) -> None:
    before = build()
    (source / "good2.png").write_bytes(png(draw(80)))
    (source / "good4.png").write_bytes(b"cut off")
    (source / "text.jpg").write_bytes(png(draw(81)))
    (source / "good6.png").write_bytes((source / "good7.png").read_bytes())
    rows = compare(before, build())
    assert rows["good2.png#0"]["change"] == Change.PIXELS
    assert rows["good2.png#0"]["pixel_digest_before"] != rows["good2.png#0"]["pixel_digest_after"]
    assert (rows["good4.png#0"]["before"], rows["good4.png#0"]["after"]) == ("published", "crop: not_a_picture")
    assert (rows["text.jpg#0"]["before"], rows["text.jpg#0"]["after"]) == ("crop: not_a_picture", "published")
    assert causes(rows) == {
        "good2.png#0": Cause.SOURCE_FILE_CHANGED,
        "good4.png#0": Cause.SOURCE_FILE_CHANGED,
        "text.jpg#0": Cause.SOURCE_FILE_CHANGED,
        "good6.png#0": Cause.SOURCE_FILE_CHANGED,  # the copy's own file: said before what it is a copy of
        "good7.png#0": Cause.DUPLICATE_OF_NEW,
    }


def test_a_file_packed_anew_without_loss_changes_nothing(source: Path, build: Build) -> None:
    from PIL import Image

    before = build()
    with Image.open(source / "good2.png") as picture:
        picture.load()
    picture.save(source / "good2.png", compress_level=0)
    os.utime(source / "good2.png", (1, 1))
    assert compare(before, build()) == {}


METADATA = "path,rating,score,tags\n" + "".join(
    f"good{k}.png,{rating},{score},{tags}\n"
    for k, (rating, score, tags) in enumerate(
        [("general", 5, "smile hat"), ("general", 5, "hat"), ("explicit", 5, "hat")] + [("general", 5, "hat")] * 5
    )
)
METADATA += "".join(f"{name},unrated,,\n" for name in ("grey.png", "same.png", "small.png", "text.jpg", "turned.png"))


def test_metadata_that_changes(source: Path, build: Build) -> None:
    (source / "data.csv").write_text(METADATA)
    changes = {"source.metadata": "data.csv", "filter.tags_none": ["sketch"], "filter.min_score": 2}
    before = build(**changes)
    text = METADATA.replace("good0.png,general,5,smile hat", "good0.png,general,9,hat red")
    text = text.replace("good1.png,general", "good1.png,explicit").replace("good2.png,explicit", "good2.png,general")
    text = text.replace("good3.png,general,5,hat", "good3.png,general,5,hat sketch")
    (source / "data.csv").write_text(text.replace("good4.png,general,5", "good4.png,general,1"))
    rows = compare(before, build(**changes))
    assert rows["good0.png#0"]["change"] == Change.METADATA
    assert rows["good0.png#0"]["detail"] == "score 5 -> 9, tags +red -smile"
    assert (rows["good1.png#0"]["after"], rows["good1.png#0"]["detail"]) == (
        "filter: rating",
        "rating general -> explicit",
    )
    assert (rows["good2.png#0"]["before"], rows["good2.png#0"]["change"]) == ("filter: rating", Change.ADDED)
    assert (rows["good3.png#0"]["after"], rows["good3.png#0"]["detail"]) == ("filter: tag_unwanted", "tags +sketch")
    assert (rows["good4.png#0"]["after"], rows["good4.png#0"]["value"]) == ("filter: score", 1.0)
    assert rows["turned.png#0"]["detail"] == "its keeper good1.png#0 is out: rating general -> explicit"
    told = {f"good{k}.png#0": Cause.SOURCE_METADATA_CHANGED for k in range(5)}
    assert causes(rows) == told | {"turned.png#0": Cause.KEEPER_GONE}


def test_a_score_that_makes_the_copy_the_better_one(source: Path, build: Build) -> None:
    rows = "path,score\ngood1.png,5\nturned.png,{}\n"
    (source / "data.csv").write_text(rows.format(3))
    before = build(**{"source.metadata": "data.csv"})
    (source / "data.csv").write_text(rows.format(9))
    found = compare(before, build(**{"source.metadata": "data.csv"}))
    assert {name: row["change"] for name, row in found.items()} == {"good1.png#0": "removed", "turned.png#0": "added"}
    assert set(causes(found).values()) == {Cause.SOURCE_METADATA_CHANGED}
    assert "score of turned.png#0 3 -> 9" in found["good1.png#0"]["detail"]
    assert "score of turned.png#0 3 -> 9" in found["turned.png#0"]["detail"]


def test_settings_of_the_source(source: Path, build: Build) -> None:
    """The lineage of a real build says how its source was read."""
    (source / "deep").mkdir()
    (source / "good5.png").rename(source / "deep" / "good5.png")
    (source / "data.csv").write_text(METADATA.replace("explicit", "general"))
    before = build()
    rows = compare(before, build(**{"source.recursive": False}))
    assert causes(rows) == {"deep/good5.png#0": Cause.SETTING}
    assert rows["deep/good5.png#0"]["detail"] == "source.recursive true -> false: post gone"
    rows = compare(before, build(**{"source.metadata": "data.csv"}))
    row = rows["good2.png#0"]
    assert (row["change"], row["cause"], row["parameter"]) == ("metadata", Cause.SETTING, "source.metadata")
    assert row["detail"].startswith("source.metadata nothing -> data.csv: rating unrated -> general, score none -> 5")


# ---- the recipe ------------------------------------------------------------------------------------------------------


def test_thresholds_stricter_and_looser(source: Path, build: Build) -> None:
    before = build()
    blurs = dict(zip(*(before.version.manifest()[name].to_pylist() for name in ("crop_id", "blur")), strict=True))
    limit = sorted(blurs.values())[3] - 0.001
    after = build(**{"clean.min_blur": limit, "crop.min_size": 50, "clean.min_tint_residual": 0.0})
    rows = compare(before, after)
    fallen = {name for name, blur in blurs.items() if blur < limit}
    for name in fallen:
        row = rows.pop(name)
        assert (row["change"], row["cause"], row["parameter"]) == ("removed", Cause.THRESHOLD, "clean.min_blur")
        assert (row["value"], row["threshold_before"], row["threshold_after"]) == (blurs[name], 0.3, limit)
        assert explain_change(row) == (
            f"{name} removed: blur {blurs[name]:.6g} against clean.min_blur 0.3 -> {limit:.6g}"
        )
    small = rows.pop("small.png#0")
    assert (small["before"], small["cause"]) == ("crop: too_small", Cause.THRESHOLD)
    assert (small["parameter"], small["value"], small["threshold_after"]) == ("crop.min_size", 56.0, 50.0)
    grey = rows.pop("grey.png#0")
    assert (grey["before"], grey["parameter"]) == ("clean: grey", "clean.min_tint_residual")
    for name, row in rows.items():  # copies of what fell, which fall themselves now or take its place
        assert row["cause"] == (Cause.THRESHOLD if row["after"] == "clean: blurred" else Cause.KEEPER_GONE), name
        assert "clean.min_blur" in explain_change(row)


def test_lists_and_flags_of_the_filter(source: Path, build: Build) -> None:
    (source / "data.csv").write_text(METADATA)
    before = build(**{"source.metadata": "data.csv"})
    after = build(
        **{
            "source.metadata": "data.csv",
            "filter.ratings": ["explicit", "general", "unrated"],
            "filter.tags_none": ["smile"],
            "filter.extensions": ["png"],
        }
    )
    rows = compare(before, after)
    assert (rows["good2.png#0"]["change"], rows["good2.png#0"]["parameter"]) == ("added", "filter.ratings")
    assert rows["good2.png#0"]["detail"] == "filter.ratings lost safe and gained explicit"
    assert (rows["good0.png#0"]["after"], rows["good0.png#0"]["cause"]) == ("filter: tag_unwanted", Cause.THRESHOLD)
    assert rows["good0.png#0"]["detail"] == "filter.tags_none gained smile"
    assert (rows["text.jpg"]["before"], rows["text.jpg"]["after"]) == ("crop: not_a_picture", "filter: extension")
    assert (rows["text.jpg"]["change"], rows["text.jpg"]["parameter"]) == (Change.VERDICT, "filter.extensions")
    assert rows["same.png#0"]["cause"] == Cause.KEEPER_GONE


def test_the_radius_and_the_mirror_of_dedup(
    source: Path, build: Build, draw: Callable[..., np.ndarray], png: Callable[[np.ndarray], bytes]
) -> None:
    near = draw(2, 98, 96).astype(np.int16)
    near[:, :, 0] += 9
    near[20:40, 20:40] += 40
    (source / "near.png").write_bytes(png(np.clip(near, 0, 255).astype(np.uint8)))
    before = build(**{"dedup.radius": 10, "dedup.source_radius": 10})
    assert "near_copy" in before.version.ledger()["reason"].to_pylist()
    after = build(**{"dedup.radius": 0, "dedup.source_radius": 0, "dedup.mirror": False})
    rows = compare(before, after)
    (moved,) = (row for name, row in rows.items() if name in ("near.png#0", "good2.png#0"))
    assert (moved["change"], moved["cause"], moved["parameter"]) == ("added", Cause.THRESHOLD, "dedup.radius")
    assert (moved["threshold_before"], moved["threshold_after"]) == (10.0, 0.0)
    assert rows["turned.png#0"]["cause"] == Cause.THRESHOLD
    assert rows["turned.png#0"]["detail"] == "dedup.mirror true -> false"
    off = compare(before, build(**{"dedup.near": False}))
    assert {row["detail"] for row in off.values()} == {"dedup.near true -> false"}


def test_a_measured_setting_changes_pixels(source: Path, build: Build, draw: Callable[..., np.ndarray]) -> None:
    from PIL import Image

    rgba = np.dstack([draw(60), np.full((96, 96), 255, np.uint8)])
    rgba[:40, :40, 3] = 0
    Image.fromarray(rgba).save(source / "clear.png")
    before = build()
    rows = compare(before, build(**{"crop.background": "#ff0000"}))
    assert list(rows) == ["clear.png#0"]
    row = rows["clear.png#0"]
    assert (row["change"], row["cause"], row["parameter"]) == ("pixels", Cause.SETTING, "crop.background")
    assert row["detail"] == "crop.background #ffffff -> #ff0000"


def test_upscaling_switched_on_changes_every_picture(source: Path, build: Build) -> None:
    before = build()
    rows = compare(before, build(**{"upscale.size": 32, "upscale.fit": "letterbox"}))
    assert len(rows) == len(before.version.manifest())
    assert {(r["change"], r["cause"], r["stage"]) for r in rows.values()} == {("pixels", "setting", "upscale")}
    assert all("upscale.size 0 -> 32" in row["detail"] for row in rows.values())


def test_another_method_of_cropping(source: Path, build: Build) -> None:
    """Drawn discs have no faces: every crop becomes a post without one, and is told as one story."""
    before = build()
    after = build(**{"crop.method": "face", "crop.detector": "agreement"})
    rows = compare(before, after)
    published = set(before.version.manifest()["crop_id"].to_pylist())
    assert {name for name, row in rows.items() if row["change"] == "removed"} == published
    for name in published:
        assert (rows[name]["before"], rows[name]["after"]) == ("published", "crop: no_face")
        assert (rows[name]["cause"], rows[name]["stage"]) == (Cause.SETTING, "crop")
        assert "crop.method whole -> face" in rows[name]["detail"]


def test_augmentation_switched_on_and_a_parent_that_falls(source: Path, build: Build, store: Store) -> None:
    before = build()
    mirrored = build(**{"augment.mirror": True})
    rows = compare(before, mirrored)
    assert len(rows) == len(before.version.manifest())
    assert {(r["change"], r["cause"], r["parameter"]) for r in rows.values()} == {
        ("added", "setting", "augment.mirror")
    }
    assert all(name.endswith("+mirror") for name in rows)
    decide_on(store, mirrored, "good5.png#0", "reject")
    rows = compare(mirrored, build(**{"augment.mirror": True}))
    assert causes(rows) == {"good5.png#0": Cause.DECISION, "good5.png#0+mirror": Cause.DECISION}
    assert {row["after"] for row in rows.values()} == {"dedup: rejected_by_person"}


# ---- people ----------------------------------------------------------------------------------------------------------


def test_decisions_name_who_decided(source: Path, build: Build, store: Store) -> None:
    before = build()
    decide_on(store, before, "good5.png#0", "reject", "a watermark")
    decide_on(store, before, "good1.png#0", "reject")
    decide_on(store, before, "grey.png#0", "keep")
    decide_on(store, before, "good6.png#0", "unsure")
    after = build()
    rows = compare(before, after)
    assert {(name, row["change"], row["cause"], row["who"]) for name, row in rows.items()} == {
        ("good5.png#0", "removed", "decision", "mika"),
        ("good1.png#0", "removed", "decision", "mika"),
        ("turned.png#0", "verdict", "decision", "mika"),  # it falls with what it is a copy of
        ("grey.png#0", "added", "decision", "mika"),
        ("good6.png#0", "metadata", "decision", "mika"),
    }
    assert rows["good5.png#0"]["detail"] == "rejected by mika (a watermark)"
    assert rows["grey.png#0"]["detail"] == "kept by mika"
    assert rows["turned.png#0"]["detail"] == "copy of good1.png#0, which was rejected by mika"
    decide_on(store, before, "good5.png#0", "unsure")
    rows = compare(after, build())
    assert causes(rows) == {"good5.png#0": Cause.DECISION}
    assert rows["good5.png#0"]["detail"] == "marked unsure by mika, no longer rejected"


def test_a_copy_that_a_person_keeps_takes_the_place_of_its_keeper(source: Path, build: Build, store: Store) -> None:
    before = build()
    decide_on(store, before, "turned.png#0", "keep")
    rows = compare(before, build())
    assert causes(rows) == {"turned.png#0": Cause.DECISION, "good1.png#0": Cause.DECISION}
    assert rows["good1.png#0"]["detail"] == (
        "copy of turned.png#0: turned.png#0 was kept by mika (hash distance 0 against dedup.mirror_radius 4)"
    )
    assert (rows["good1.png#0"]["change"], rows["turned.png#0"]["change"]) == ("removed", "added")


def test_a_keep_of_a_picture_that_was_cut_differently(source: Path, build: Build, store: Store) -> None:
    """The kept picture is grey and half transparent: another background makes other pixels of it, still grey."""
    from PIL import Image

    with Image.open(source / "grey.png") as picture:
        grey = picture.convert("RGBA")
    grey.paste((0, 0, 0, 0), (0, 0, 30, 30))
    grey.save(source / "grey.png")
    decide_on(store, build(), "grey.png#0", "keep")
    rows = compare(build(), build(**{"crop.background": "#000000"}))
    row = rows["grey.png#0"]
    assert (row["before"], row["after"]) == ("published", "clean: grey")
    assert (row["cause"], row["parameter"]) == (Cause.SETTING, "crop.background")
    assert row["detail"].startswith("a person's keep was of other pixels: crop.background #ffffff -> #000000 (")
    assert " against clean." in row["detail"]


# ---- the program -----------------------------------------------------------------------------------------------------


def bump(monkeypatch: pytest.MonkeyPatch, name: str, **changes: Any) -> None:
    import flows.recipe

    stages = tuple(
        (dataclasses.replace(stage, **changes) if stage.name == name else stage, shard_task)
        for stage, shard_task in flows.recipe.STAGES
    )
    monkeypatch.setattr(flows.recipe, "STAGES", stages)


def test_a_stage_that_measures_differently(source: Path, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new version of the stage calls every picture blurrier than before."""
    from tasks import clean
    from tasks.stage import Facts, Shard

    before = build()

    def measure(crops: Shard, params: Any) -> Facts:
        facts = clean.measure(crops, params)
        column = facts.table.column_names.index("blur")
        table = facts.table.set_column(column, "blur", pc.divide(facts.table["blur"], 1e4))
        return Facts(table.cast(clean.FACTS), facts.opened)

    monkeypatch.setattr("tasks.clean.STAGE", dataclasses.replace(clean.STAGE, version=3, measure=measure))
    bump(monkeypatch, "clean", version=3, measure=measure)

    def run(stage: Any, refs: Any) -> Any:
        from tasks.shards import measure_shard

        return [measure_shard(stage, ref) for ref in refs]

    rows = compare(before, build(run_shards=run))
    published = before.version.manifest()["crop_id"].to_pylist()
    for name in published:
        assert (rows[name]["cause"], rows[name]["stage"]) == (Cause.STAGE_VERSION, "clean"), rows[name]
        assert rows[name]["detail"].startswith("stage clean version 2 -> 3 (blur ")


def test_a_new_version_of_a_stage_is_not_blamed_for_a_threshold(
    source: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = build()
    bump(monkeypatch, "clean", version=3)
    rows = compare(before, build(**{"clean.min_contrast": 200.0}))
    published = before.version.manifest()["crop_id"].to_pylist()
    assert {rows[name]["parameter"] for name in published} == {"clean.min_contrast"}
    assert {rows[name]["cause"] for name in published} == {Cause.THRESHOLD}


# ---- versions that are not neighbours --------------------------------------------------------------------------------


def test_versions_of_different_datasets(source: Path, build: Build, recipe: Callable[..., dict[str, Any]]) -> None:
    from flows.recipe import make_recipe
    from flows.runners import Runner, run_locally
    from tasks.build import build_version

    class Silent:
        def metadata_read(self, *said: object) -> None: ...

        def stage_started(self, *said: object) -> None: ...
        def shard_done(self, *said: object) -> None: ...
        def stage_done(self, *said: object) -> None: ...

    before = build()
    values = recipe(**{"clean.min_tint_residual": 0.0}) | {"dataset": "paintings"}
    store = Store(before.version.folder.parents[2])
    other = build_version(make_recipe(values, "test").plan(), store, run_locally(Runner.THREADS, 2), Silent(), 2)
    rows = compare(before, other)
    assert causes(rows) == {"grey.png#0": Cause.THRESHOLD}
