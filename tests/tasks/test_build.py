"""The build engine end to end: accounts, cache, decisions, repair. Runners and kills are in test_build_history."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from datasets.decisions import append_decisions
from datasets.errors import KaobakoError, LockedError, StoreError
from datasets.lock import hold_lock
from datasets.store import Store
from datasets.version import count_problems, read_version, verify_version
from tasks.build import BuildResult
from tasks.chain import REJECTED
from tasks.dedup import COPY_OF_REJECTED
from tasks.shards import ShardRef, ShardResult, measure_shard
from tasks.stage import Stage

Build = Callable[..., BuildResult]
GOOD = 16


@pytest.fixture
def source(tmp_path: Path, draw: Callable[..., np.ndarray], png: Callable[[np.ndarray], bytes]) -> Path:
    """24 files: 16 good pictures, and one of each kind that must go."""
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    for k in range(GOOD):
        (folder / ("sub" if k % 2 else ".") / f"good{k:02d}.png").write_bytes(png(draw(k, 96 + k, 96)))
    (folder / "copy.png").write_bytes((folder / "good00.png").read_bytes())
    (folder / "mirrored.png").write_bytes(png(draw(2, 98, 96)[:, ::-1]))
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.png").write_bytes((folder / "good04.png").read_bytes()[:3000])
    (folder / "text.jpg").write_bytes(b"<html>404</html>")
    (folder / "tiny.png").write_bytes(png(draw(50, 20, 20)))
    (folder / "animation.gif").write_bytes(b"GIF89a")
    (folder / "grey.png").write_bytes(png(draw(51).mean(axis=2, keepdims=True).repeat(3, 2).astype(np.uint8)))
    return folder


def ids(table: pa.Table) -> list[str]:
    return sorted(table["post_id"].to_pylist())


def reasons(result: BuildResult) -> dict[str, str]:
    ledger = result.version.ledger()
    names, why = ledger["item_id"].to_pylist(), ledger["reason"].to_pylist()
    return dict(zip(names, why, strict=True))


def decide_on(store: Store, result: BuildResult, post_id: str, decision: str) -> None:
    """What a person says of a post's crop, whether it was published or dropped."""
    for table in (result.version.manifest(), result.version.ledger()):
        for row in table.to_pylist():
            if row["post_id"] == post_id and row["pixel_digest"]:
                said = {"pixel_digest": row["pixel_digest"], "decision": decision, "who": "mika"}
                moment = datetime.now(UTC)
                append_decisions(store.decisions, pa.Table.from_pylist([said | {"decided_at": moment}]))
                return
    raise AssertionError(f"{post_id} has no pixels to decide on")


# ---- accounts --------------------------------------------------------------------------------------------------------


def test_every_post_is_kept_or_dropped_exactly_once_with_its_reason(source: Path, build: Build, store: Store) -> None:
    result = build()
    assert count_problems(result.counts) == []
    posts = sorted(path.relative_to(source).as_posix() for path in source.rglob("*.*"))
    assert sorted(ids(result.version.manifest()) + ids(result.version.ledger())) == posts
    assert len(posts) == 24
    assert reasons(result) == {
        "animation.gif": "extension",
        "cut.png": "truncated",
        "empty.png": "zero_byte",
        "good00.png#0": "exact_copy",
        "grey.png#0": "grey",
        "mirrored.png#0": "mirrored_copy",
        "text.jpg": "not_a_picture",
        "tiny.png#0": "too_small",
    }
    assert verify_version(store, result.version) == []


def test_counts_add_up_with_the_ledger(source: Path, build: Build, watch: Any) -> None:
    result = build(watch=watch)
    ledger = result.version.ledger()
    by_stage = Counter(zip(ledger["stage"].to_pylist(), ledger["reason"].to_pylist(), strict=True))
    assert by_stage == {(s, r): n for s, row in result.counts.items() for r, n in row["dropped"].items()}
    assert watch.done == result.counts == result.version.lineage["counts"]
    assert list(result.counts) == ["filter", "crop", "clean", "dedup"]
    # distinct files that the filter let pass; clean and dedup looked at their crops in the same breath
    assert result.opened == {"fingerprint": 0, "crop": 22, "clean": 0, "dedup": 0}
    assert sum(shard.count for shard in watch.shards) == sum(watch.measured.values())


def test_the_source_is_untouched(source: Path, build: Build) -> None:
    def look() -> dict[str, tuple[bytes, int, int]]:
        files = [path for path in sorted(source.rglob("*")) if path.is_file()]
        return {str(p): (p.read_bytes(), p.stat().st_mtime_ns, p.stat().st_ino) for p in files}

    before = look()
    build()
    assert look() == before


def test_nothing_but_the_version_and_the_cache_is_left(source: Path, build: Build, store: Store) -> None:
    result = build()
    assert [path.name for path in store.root.rglob("*.tmp")] == []
    left = sorted(path.name for path in store.dataset("faces").iterdir() if not path.name.endswith(".turn"))
    assert left == ["checked.json", result.version.folder.name]
    roots = sorted(path.name for path in store.root.iterdir() if not path.name.endswith(".turn"))
    assert roots == ["blobs", "cache", "datasets", "thumbnails"]


def test_a_filter_that_takes_nothing_publishes_an_empty_version(source: Path, build: Build) -> None:
    changes = {"filter.ratings": ["explicit"], "augment.mirror": True}
    result = build(**changes)
    assert (len(result.version.manifest()), len(result.version.ledger())) == (0, 24)
    assert count_problems(result.counts) == []
    assert result.opened["crop"] == 0


def test_thresholds_that_drop_everything_late(source: Path, build: Build) -> None:
    result = build(**{"clean.min_blur": 1.0})
    assert len(result.version.manifest()) == 0
    assert len(result.version.ledger()) == 24


def test_a_card_that_fails_publishes_nothing(
    source: Path, build: Build, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr("datasets.card.draw_histograms", fail)
    with pytest.raises(RuntimeError, match="no font"):
        build()
    assert store.version_numbers("faces") == []
    assert [path.name for path in store.dataset("faces").iterdir() if path.is_dir()] == []
    monkeypatch.undo()
    assert build().published


def test_a_held_lock_refuses_a_second_build_before_any_work(source: Path, build: Build, store: Store) -> None:
    with hold_lock(store.dataset("faces") / "lock.json", "curate faces"), pytest.raises(LockedError, match="curate"):
        build()
    assert not store.cache.exists()


# ---- the cache -------------------------------------------------------------------------------------------------------


def test_the_second_build_publishes_nothing_and_opens_nothing(source: Path, build: Build) -> None:
    first, second = build(), build()
    assert (first.published, second.published) == (True, False)
    assert second.version.reference == "faces@v1"
    assert set(second.opened.values()) == {0}


def blur_between(result: BuildResult, share: float) -> float:
    """A threshold that drops about this share of the published pictures."""
    blurs = np.sort(result.version.manifest()["blur"].to_numpy())
    place = int(len(blurs) * share)
    return float((blurs[place - 1] + blurs[place]) / 2)


def test_a_stricter_threshold_opens_nothing_nor_does_a_looser_one_before_upscaling(source: Path, build: Build) -> None:
    first = build()
    half, most = blur_between(first, 0.5), blur_between(first, 0.75)
    strict = build(**{"clean.min_blur": most})
    assert strict.published
    assert set(strict.opened.values()) == {0}
    other = build(into=Store(source.parent / "other"), **{"clean.min_blur": most})
    assert other.version.content_digest == strict.version.content_digest
    loose = build(into=Store(source.parent / "other"), **{"clean.min_blur": half})
    newly = loose.counts["clean"]["kept"] - other.counts["clean"]["kept"]
    assert newly > 0
    assert set(loose.opened.values()) == {0}


def test_a_measured_setting_opens_everything_again(source: Path, build: Build) -> None:
    first = build()
    second = build(**{"crop.background": "#000000"})
    assert second.opened["crop"] == first.opened["crop"]
    assert second.opened["clean"] == 0  # the same pixels


def test_a_new_picture_costs_only_itself(
    source: Path, build: Build, draw: Callable[..., np.ndarray], png: Callable[..., bytes]
) -> None:
    build()
    (source / "new.png").write_bytes(png(draw(99)))
    result = build()
    assert result.published
    assert "new.png" in ids(result.version.manifest())
    assert result.opened == {"fingerprint": 0, "crop": 1, "clean": 0, "dedup": 0}


def test_lost_facts_of_two_stages_cost_one_look_at_each_crop(source: Path, build: Build, store: Store) -> None:
    first = build()
    for folder in (*store.cache.glob("clean-*"), *store.cache.glob("dedup-*")):
        shutil.rmtree(folder)
    again = build()
    assert not again.published
    assert again.counts == first.counts
    crops = len({row["pixel_digest"] for row in all_rows(again) if row["stage"] not in ("filter", "crop")})
    assert again.opened == {"fingerprint": 0, "crop": 0, "clean": crops, "dedup": 0}
    shutil.rmtree(next(store.cache.glob("dedup-*")))
    passed = len({row["pixel_digest"] for row in all_rows(again) if row["stage"] not in ("filter", "crop", "clean")})
    assert build().opened == {"fingerprint": 0, "crop": 0, "clean": 0, "dedup": passed}


def all_rows(result: BuildResult) -> list[dict[str, Any]]:
    """Rows of manifest and ledger, with the stage that each fell at."""
    kept = [{**row, "stage": "published"} for row in result.version.manifest().to_pylist()]
    return [*kept, *result.version.ledger().to_pylist()]


def test_touched_and_moved_files_are_not_decoded_again(source: Path, build: Build) -> None:
    first = build()
    os.utime(source / "good00.png", ns=(1, 1))
    (source / "good06.png").rename(source / "sub" / "moved.png")
    second = build()
    assert set(second.opened.values()) == {0}
    assert "sub/moved.png" in ids(second.version.manifest())
    assert second.version.content_digest != first.version.content_digest


def test_a_changed_file_is_read_again(
    source: Path, build: Build, draw: Callable[..., np.ndarray], png: Callable[..., bytes]
) -> None:
    build()
    data = png(draw(77, 96, 96))
    (source / "good00.png").write_bytes(data)
    os.utime(source / "good00.png", ns=(1, 1))
    assert build().opened["crop"] == 1


def test_the_cache_may_be_deleted(source: Path, build: Build, store: Store) -> None:
    first = build()
    for path in sorted(store.cache.rglob("*.parquet"))[::2]:
        path.unlink()
    assert not build().published
    assert first.version.content_digest == read_version(store, "faces").content_digest


@pytest.mark.parametrize("augmented", [False, True])
def test_a_lost_blob_is_made_anew(source: Path, build: Build, store: Store, augmented: bool) -> None:
    result = build(**{"augment.mirror": augmented})
    blob = store.blobs.path(result.version.manifest()["blob"][-1].as_py())
    data = blob.read_bytes()
    blob.unlink()
    assert verify_version(store, result.version)
    again = build(**{"augment.mirror": augmented})
    assert not again.published
    assert sum(again.opened.values()) == 1
    assert blob.read_bytes() == data
    assert verify_version(store, result.version) == []


def test_a_file_that_vanishes_while_it_is_built_is_tried_again_by_the_next_build(
    source: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not being able to read a file now says nothing of its bytes, by which facts are kept."""
    from tasks import crop

    real = crop.locate
    monkeypatch.setattr(crop, "locate", lambda root, path: real(root, path + (".gone" if path == "good04.png" else "")))
    first = build()
    assert reasons(first)["good04.png"] == "unreadable_file"
    assert count_problems(first.counts) == []
    monkeypatch.undo()
    second = build()
    assert second.opened["crop"] == 1
    assert "good04.png" in ids(second.version.manifest())


def test_a_file_that_cannot_be_fingerprinted_drops_its_post(
    source: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks import fingerprint

    def read(path: Path) -> str:
        if path.name == "good04.png":
            raise PermissionError(13, "Permission denied", str(path))
        return digest_file(path)

    digest_file = fingerprint.digest_file
    monkeypatch.setattr(fingerprint, "digest_file", read)
    assert reasons(build())["good04.png"] == "unreadable_file"
    monkeypatch.undo()
    assert "good04.png" in ids(build().version.manifest())


def test_a_file_that_changes_while_it_is_built_waits_for_the_next_build(
    source: Path, build: Build, draw: Callable[..., np.ndarray], png: Callable[[np.ndarray], bytes]
) -> None:
    def run(stage: Stage, refs: Sequence[ShardRef]) -> Iterable[ShardResult]:
        for ref in refs:
            yield measure_shard(stage, ref)
        if stage.name == "fingerprint" and not changed:
            changed.append((source / "good04.png").write_bytes(png(draw(99))))

    changed: list[int] = []
    first = build(run_shards=run)
    assert reasons(first)["good04.png"] == "unreadable_file"
    assert first.unread == 1
    assert len(first.version.manifest()) == GOOD - 1
    second = build(run_shards=run)
    assert "good04.png" in ids(second.version.manifest())
    assert (second.opened["crop"], second.unread) == (1, 0)


def test_a_damaged_crop_blob_is_an_error_with_advice_not_a_dropped_picture(
    source: Path, build: Build, store: Store
) -> None:
    result = build(**{"clean.min_side": 1000})
    blob = store.blobs.path(result.version.ledger().to_pylist()[0]["crop_blob"] or next(iter(store.blobs.digests())))
    blob.write_bytes(blob.read_bytes()[:-20])
    shutil.rmtree(next(store.cache.glob("clean-*")))  # else nobody has to look at the crop
    with pytest.raises(KaobakoError, match="Delete it and run the build again"):
        build()
    blob.unlink()
    assert build().published


def test_facts_that_vanish_during_a_build_are_an_error_not_lost_pictures(
    source: Path, build: Build, store: Store
) -> None:
    def run(stage: Stage, refs: Sequence[ShardRef]) -> Iterable[ShardResult]:
        yield from [measure_shard(stage, ref) for ref in refs]
        if stage.name == "crop":
            shutil.rmtree(refs[0].cache)

    with pytest.raises(StoreError, match="measurements of the stage crop are gone"):
        build(run_shards=run)
    assert store.version_numbers("faces") == []
    assert len(build().version.manifest()) == GOOD


# ---- decisions -------------------------------------------------------------------------------------------------------


def test_keep_beats_a_threshold_and_reject_drops(source: Path, build: Build, store: Store) -> None:
    first = build()
    decide_on(store, first, "tiny.png", "keep")
    decide_on(store, first, "grey.png", "keep")
    decide_on(store, first, "good04.png", "reject")
    decide_on(store, first, "good06.png", "unsure")
    second = build()
    rows = {row["post_id"]: row for row in second.version.manifest().to_pylist()}
    assert {"tiny.png", "grey.png", "good06.png"} <= set(rows)
    assert (rows["tiny.png"]["decision"], rows["good06.png"]["decision"]) == ("keep", "unsure")
    dropped = {row["post_id"]: row for row in second.version.ledger().to_pylist()}
    assert dropped["good04.png"]["reason"] == REJECTED
    assert (dropped["good04.png"]["stage"], dropped["good04.png"]["detail"]) == ("dedup", "mika")
    assert count_problems(second.counts) == []


def test_the_newest_decision_holds(source: Path, build: Build, store: Store) -> None:
    first = build()
    for decision in ("reject", "keep", "reject"):
        decide_on(store, first, "good04.png", decision)
    assert reasons(build())["good04.png#0"] == REJECTED
    decide_on(store, first, "good04.png", "keep")
    assert "good04.png" in ids(build().version.manifest())


def test_decisions_survive_another_name_and_lossless_re_encoding(
    source: Path, build: Build, store: Store, draw: Callable[..., np.ndarray]
) -> None:
    from PIL import Image

    first = build()
    decide_on(store, first, "good04.png", "reject")
    decide_on(store, first, "tiny.png", "keep")
    (source / "good04.png").rename(source / "renamed.png")
    Image.open(source / "tiny.png").save(source / "tiny.bmp")
    (source / "tiny.png").unlink()
    result = build(**{"clean.min_blur": 0.0})
    assert reasons(result)["renamed.png#0"] == REJECTED
    assert "tiny.bmp" in ids(result.version.manifest())


def test_keeping_a_picture_does_not_bring_its_copies_back(source: Path, build: Build, store: Store) -> None:
    """`keep` is said of pixels: they are in once, however many files hold them."""
    first = build()
    decide_on(store, first, "good00.png", "keep")
    second = build()
    assert {"good00.png", "copy.png"} & set(ids(second.version.manifest()))
    assert not {"good00.png", "copy.png"} <= set(ids(second.version.manifest()))
    assert len(second.version.manifest()) == len(first.version.manifest())


def test_keeping_both_of_two_near_copies_keeps_both(source: Path, build: Build, store: Store) -> None:
    first = build()
    before = set(ids(first.version.manifest()))
    for name in ("good02.png", "mirrored.png"):
        decide_on(store, first, name, "keep")
    assert set(ids(build().version.manifest())) == before | {"good02.png", "mirrored.png"}


def test_a_rejected_copy_takes_its_exact_copies_with_it(source: Path, build: Build, store: Store) -> None:
    decide_on(store, build(), "good00.png", "reject")
    found = reasons(build())
    assert (found["good00.png#0"], found["copy.png#0"]) == (REJECTED, REJECTED)


def test_a_rejected_picture_takes_its_worse_near_copies_with_it(source: Path, build: Build, store: Store) -> None:
    first = build()
    assert reasons(first)["mirrored.png#0"] == "mirrored_copy"
    decide_on(store, first, "good02.png", "reject")
    second = build()
    found = reasons(second)
    assert (found["good02.png#0"], found["mirrored.png#0"]) == (REJECTED, COPY_OF_REJECTED)
    assert count_problems(second.counts) == []
    decide_on(store, first, "mirrored.png", "keep")
    assert "mirrored.png" in ids(build().version.manifest())


def test_a_stricter_threshold_does_not_bring_back_the_copy_of_a_rejected_picture(
    source: Path, build: Build, store: Store, draw: Callable[..., np.ndarray], png: Callable[[np.ndarray], bytes]
) -> None:
    """The rejected crop fails the threshold too, its stronger copy does not."""
    stronger = np.clip((draw(2, 98, 96) - 128.0) * 1.1 + 128.0, 0, 255).astype(np.uint8)
    (source / "stronger.png").write_bytes(png(stronger))
    first = build(**{"dedup.mirror": False})
    decide_on(store, first, "good02.png", "reject")
    rows = {row["post_id"]: row for row in (*first.version.manifest().to_pylist(), *first.version.ledger().to_pylist())}
    limit = (rows["good02.png"]["contrast"] + rows["stronger.png"]["contrast"]) / 2
    assert rows["good02.png"]["contrast"] < limit < rows["stronger.png"]["contrast"]
    found = reasons(build(**{"clean.min_contrast": limit}))
    assert (found["good02.png#0"], found["stronger.png#0"]) == (REJECTED, COPY_OF_REJECTED)


def test_rejecting_a_copy_leaves_the_better_one(source: Path, build: Build, store: Store) -> None:
    first = build()
    decide_on(store, first, "mirrored.png", "reject")
    second = build()
    assert reasons(second)["mirrored.png#0"] == REJECTED
    assert ids(second.version.manifest()) == ids(first.version.manifest())


# ---- children --------------------------------------------------------------------------------------------------------


def test_mirrored_children_are_published_beside_their_parents(source: Path, build: Build, store: Store) -> None:
    from datasets.pictures import decode_picture

    result = build(**{"augment.mirror": True})
    rows = {row["crop_id"]: row for row in result.version.manifest().to_pylist()}
    parents = [row for row in rows.values() if row["parent_crop"] is None]
    assert len(rows) == 2 * len(parents)
    for parent in parents:
        child = rows[f"{parent['crop_id']}+mirror"]
        assert (child["parent_crop"], child["augmentation"]) == (parent["crop_id"], "mirror")
        left, right = (decode_picture(store.blobs.path(row["blob"]).read_bytes()).rgb for row in (parent, child))
        assert np.array_equal(left[:, ::-1], right)
    assert count_problems(result.counts) == []
    assert result.counts["augment"]["in"] == 2 * result.counts["augment"]["inputs"]
    decide_on(store, result, "good04.png", "reject")
    again = ids(build(**{"augment.mirror": True}).version.manifest())
    assert "good04.png" not in again
