"""Augment as a stage: which children, under which names, in the manifest and in the store."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from datasets.derived import find_derived
from datasets.digests import digest_pixels
from datasets.exports.format import Format
from datasets.exports.plan import plan_export
from datasets.exports.preflight import Kind
from datasets.exports.run import check_export
from datasets.gc import BLOBS, collect_garbage
from datasets.loader import VersionReader
from datasets.pictures import decode_picture, encode_png
from datasets.schema import MANIFEST, conform
from datasets.splits import assign_splits
from datasets.store import Store
from datasets.version import verify_version
from models.augment.apply import apply_augmentation, parse_augmentation
from models.augment.geometry import level
from models.augment.guide import GUIDE
from models.gan.pictures import resize
from tasks.augment import (
    STAGE,
    AugmentParams,
    GuideVariant,
    add_children,
    child_blobs,
    draw_sample,
    keep_children,
    list_augmentations,
    list_children,
    make_children,
)
from tasks.build import BuildResult

Build = Callable[..., BuildResult]
SMALL_TILES: dict[str, Any] = {
    "augment.tiles": True,
    "augment.scale_to": 192,
    "augment.tile_scales": [{"side": 136, "count": 3}, {"side": 96, "count": 2}],
    "augment.whole_views": ["plain", "invert"],
}
COUNT = 3


@pytest.fixture
def source(tmp_path: Path, draw: Callable[..., np.ndarray], png: Callable[..., bytes]) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for seed in range(COUNT):
        (folder / f"p{seed}.png").write_bytes(png(draw(seed)))
    return folder


def names(params: AugmentParams, width: int = 1024, height: int = 1024) -> list[str]:
    return [augmentation.name for augmentation in list_augmentations(width, height, params)]


# ---- which -----------------------------------------------------------------------------------------------------------


def test_the_tiles_as_they_are_make_136_pictures_of_one() -> None:
    """4 views of the whole, 9 and 16 tiles, 5 of them slanted: 34, in 4 quarter turns each; one is the picture."""
    listed = [parse_augmentation(name) for name in names(AugmentParams(tiles=True))]
    kinds: Counter[Any] = Counter()
    for made in listed:
        kinds[made.tile.side if made.tile else "whole", made.degrees % 90 != 0] += 1
    assert kinds == {
        ("whole", False): 4 * 4 - 1,
        (1448, False): 9 * 4,
        (1024, False): 16 * 4,
        (1448, True): 1 * 4,
        (1024, True): 4 * 4,
    }
    assert len(listed) + 1 == 136


@pytest.mark.parametrize(("width", "height"), [(256, 256), (512, 512), (300, 200), (77, 1000)])
def test_there_are_136_at_every_square_size_and_no_fewer_of_long_pictures(width: int, height: int) -> None:
    assert len(names(AugmentParams(tiles=True), width, height)) >= 135
    assert width != height or len(names(AugmentParams(tiles=True), width, height)) == 135


def test_tiles_at_the_edge_are_not_slanted() -> None:
    for name in names(AugmentParams(tiles=True)):
        made = parse_augmentation(name)
        if made.tile is not None and made.degrees % 90:
            assert min(made.tile.left, made.tile.top) > 0
            assert max(made.tile.left, made.tile.top) + made.tile.side < 2048


def test_three_slants_as_in_the_write_up_make_131() -> None:
    assert len(names(AugmentParams(tiles=True, tile_slants=(45, 135, 225)))) + 1 == 131


def test_the_guides_set_is_eighteen_and_may_be_named_one_by_one() -> None:
    every = AugmentParams(guide=(GuideVariant("all"),))
    assert names(every) == [f"guide:{name}" for name in GUIDE]
    assert AugmentParams.model_validate({"guide": ["tint-red", "all"]}) == every
    some = AugmentParams.model_validate({"guide": ["tint-red", "deskew", "tint-red"]})
    assert names(some) == ["guide:deskew", "guide:tint-red"]


def test_the_sets_are_added_and_nothing_is_listed_twice() -> None:
    together = names(AugmentParams(mirror=True, guide=(GuideVariant("all"),), tiles=True))
    assert len(together) == len(set(together)) == 18 + 135  # the mirror image is one of the whole's views


def test_a_picture_too_long_to_be_enlarged_has_no_tiles() -> None:
    assert all("tile" not in name for name in names(AugmentParams(tiles=True), 40, 40_000))


def test_nothing_is_asked_for_unless_the_recipe_says_so() -> None:
    assert names(AugmentParams()) == []
    assert not STAGE.enabled(AugmentParams())
    for asked in ({"mirror": True}, {"tiles": True}, {"guide": ["deskew"]}):
        assert STAGE.enabled(AugmentParams.model_validate(asked))


@pytest.mark.parametrize(
    "wrong",
    [
        {"guide": ["sepia"]},
        {"scale_to": 512},  # the tiles are larger
        {"tile_turns": [45]},
        {"tile_slants": [90]},
        {"tile_slants": [0]},
        {"tile_slants": [360.5]},
        {"tile_slants": [45.00001]},
        {"tile_slants": [float("nan")]},
        {"tile_scales": [{"side": 8, "count": 2}]},
        {"tile_scales": [{"side": 512, "count": 0}]},
        {"sample": -1},
        {"whole_views": ["upside-down"]},
    ],
)
def test_settings_without_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AugmentParams.model_validate(wrong)


# ---- drawing lots ----------------------------------------------------------------------------------------------------

NAMES = st.lists(st.text("abc:;@", min_size=1, max_size=6), max_size=30, unique=True)


@settings(deadline=None, derandomize=True)
@given(NAMES, st.integers(0, 12), st.integers(0, 3), st.randoms(use_true_random=False))
def test_a_draw_has_its_size_and_does_not_look_at_the_order(
    names: list[str], count: int, seed: int, random: Any
) -> None:
    drawn = draw_sample(names, count, seed, "digest")
    assert drawn <= set(names)
    assert len(drawn) == (min(count, len(names)) if count else len(names))
    shuffled = list(names)
    random.shuffle(shuffled)
    assert draw_sample(shuffled, count, seed, "digest") == drawn


@settings(deadline=None, derandomize=True)
@given(NAMES, st.integers(1, 12), st.text("xyz", min_size=7, max_size=9))
def test_one_more_to_draw_from_changes_one_at_most(names: list[str], count: int, new: str) -> None:
    assert len(draw_sample(names, count, 0, "digest") - draw_sample([*names, new], count, 0, "digest")) <= 1


def test_pictures_and_seeds_draw_differently_and_each_name_about_as_often() -> None:
    listed = names(AugmentParams(tiles=True))
    drawn = Counter()
    for k in range(2000):
        drawn.update(draw_sample(listed, 10, 0, hashlib.sha256(str(k).encode()).hexdigest()))
    expected = 2000 * 10 / 135
    assert len(drawn) == 135
    assert max(abs(times - expected) for times in drawn.values()) < 5 * expected**0.5
    assert draw_sample(listed, 10, 0, "a") != draw_sample(listed, 10, 1, "a") != draw_sample(listed, 10, 1, "b")


def test_children_are_made_one_at_a_time(draw: Callable[..., np.ndarray]) -> None:
    children = make_children(draw(1), AugmentParams(tiles=True, guide=(GuideVariant("all"),)))
    name, first = next(children)
    assert (name, first.shape) == ("guide:stretch-wide", (96, 96, 3))  # nothing is crooked: deskew leaves it as it is
    children.close()


# ---- in a build ------------------------------------------------------------------------------------------------------


def read_blob(store: Store, digest: str) -> np.ndarray:
    return decode_picture(store.blobs.path(digest).read_bytes()).rgb


def test_children_stand_in_the_manifest_with_name_and_parent(source: Path, build: Build, store: Store) -> None:
    result = build(**SMALL_TILES, **{"augment.guide": ["all"], "augment.mirror": True})
    rows = {row["crop_id"]: row for row in result.version.manifest().to_pylist()}
    # 2 views, 9 and 4 tiles in 4 turns each, the middle one slanted by 4; the picture itself is the parent; all of the
    # guide's but deskew, as no picture is crooked
    per_picture = 1 + 17 + (4 * 2 - 1) + 4 * (9 + 4) + 4
    assert len(rows) == COUNT * (1 + per_picture)
    for crop_id, row in rows.items():
        if row["parent_crop"] is None:
            assert row["augmentation"] is None
            continue
        parent = rows[row["parent_crop"]]
        assert crop_id == f"{row['parent_crop']}+{row['augmentation']}"
        assert (row["post_id"], row["pixel_digest"]) == (parent["post_id"], parent["pixel_digest"])
        pixels = read_blob(store, row["blob"])
        assert (row["height"], row["width"]) == pixels.shape[:2] == (96, 96)
        assert np.array_equal(pixels, apply_augmentation(row["augmentation"], read_blob(store, parent["blob"])))
    assert result.counts["augment"] == {
        "inputs": COUNT,
        "in": COUNT * (1 + per_picture),
        "kept": COUNT * (1 + per_picture),
        "dropped": {},
    }


def test_the_same_recipe_makes_the_same_version_however_it_is_cut_up(
    source: Path, build: Build, tmp_path: Path
) -> None:
    changes = {**SMALL_TILES, "augment.sample": 5, "augment.seed": 3}
    first = build(**changes)
    second = build(into=Store(tmp_path / "other"), workers=1, **changes)
    assert first.version.content_digest == second.version.content_digest
    for path in sorted(source.iterdir())[1:]:
        path.unlink()
    alone = build(into=Store(tmp_path / "alone"), **changes).version.manifest().to_pylist()
    together = {row["crop_id"]: row["blob"] for row in first.version.manifest().to_pylist()}
    assert len(alone) == 1 + 5
    assert all(together[row["crop_id"]] == row["blob"] for row in alone)


def test_a_new_picture_costs_its_own_children_alone(
    source: Path, build: Build, store: Store, draw: Callable[..., np.ndarray], png: Callable[..., bytes]
) -> None:
    changes = {"augment.guide": ["blue-shift", "tint-red"]}
    assert build(**changes).opened["augment"] == COUNT
    (source / "new.png").write_bytes(png(draw(77)))
    before = set(store.blobs.digests())
    assert build(**changes).opened["augment"] == 1
    assert len(set(store.blobs.digests()) - before) == 3  # the picture and two children
    assert build(**changes).opened["augment"] == 0


def test_each_setting_has_facts_of_its_own_and_going_back_costs_nothing(source: Path, build: Build) -> None:
    build(**{"augment.guide": ["tint-red"]})
    wider = build(**{"augment.guide": ["tint-red", "tint-blue"]})
    assert wider.opened["augment"] == COUNT
    back = build(**{"augment.guide": ["tint-red"]})
    assert back.opened["augment"] == 0
    assert len(back.version.manifest()) == 2 * COUNT


def test_a_lost_child_is_made_anew(source: Path, build: Build, store: Store) -> None:
    changes = {"augment.guide": ["all"]}
    result = build(**changes)
    rows = result.version.manifest().to_pylist()
    lost = next(row["blob"] for row in rows if row["augmentation"] == "guide:tint-green")
    data = store.blobs.path(lost).read_bytes()
    store.blobs.path(lost).unlink()
    assert verify_version(store, result.version)
    assert build(**changes).opened["augment"] == 1
    assert store.blobs.path(lost).read_bytes() == data


def test_garbage_collection_leaves_the_children_that_a_version_or_a_measurement_names(
    source: Path, build: Build, store: Store
) -> None:
    result = build(**SMALL_TILES)
    stray = store.blobs.put(b"no picture of ours")
    report = collect_garbage(store, delete=True, grace_hours=0.0)
    assert {kind.kind: kind.count for kind in report.kinds}[BLOBS] == 1
    assert stray not in set(store.blobs.digests())
    assert verify_version(store, result.version) == []


def test_what_would_change_nothing_is_left_out_and_equal_children_share_a_blob(
    tmp_path: Path, build: Build, draw: Callable[..., np.ndarray], png: Callable[..., bytes]
) -> None:
    """A picture that is symmetric, and whose turns are itself: of its 15 views the 8 negatives are other pictures."""
    flower = draw(9)
    flower = np.maximum(flower, flower[:, ::-1])
    flower = np.maximum(flower, np.rot90(flower))
    flower = np.maximum(flower, np.rot90(flower, 2))
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "flower.png").write_bytes(png(flower))
    rows = build(**{"augment.tiles": True, "augment.tile_scales": []}).version.manifest().to_pylist()
    assert len(rows) == 1 + 8
    assert all("invert" in row["augmentation"] for row in rows if row["augmentation"])
    assert len({row["blob"] for row in rows}) == 2  # as it is, and inverted
    assert len({row["crop_id"] for row in rows}) == 1 + 8


@pytest.mark.parametrize("materialise", [True, False])
def test_a_crooked_page_is_hung_straight_and_a_straight_one_left_out(
    tmp_path: Path, build: Build, png: Callable[..., bytes], materialise: bool
) -> None:
    rng = np.random.default_rng(0)
    page = rng.integers(225, 250, (96, 96, 3), dtype=np.uint8)
    for top in range(6, 88, 6):
        page[top : top + 3, 6:90] = rng.integers(0, 160, 3)  # of many colours: a page of few is dropped
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "crooked.png").write_bytes(png(level(page, 5.0)))
    (tmp_path / "source" / "straight.png").write_bytes(png(page))
    changes = {"dedup.near": False, "augment.guide": ["deskew"], "augment.materialise": materialise}
    manifest = build(**changes).version.manifest()
    assert manifest["crop_id"].to_pylist() == ["crooked.png#0", "crooked.png#0+guide:deskew", "straight.png#0"]


@pytest.mark.parametrize("guide", ["deskew", "all"])
@pytest.mark.parametrize("file_format", list(Format))
def test_a_kept_set_can_be_exported_and_read_without_a_way_to_derive(
    source: Path, build: Build, store: Store, tmp_path: Path, guide: str, file_format: Format
) -> None:
    version = build(**{"augment.guide": [guide]}).version
    assert version.lineage["recipe"]["augment"]["materialise"] is True
    assert not find_derived(version.manifest()).any()
    assert len(version.manifest()) == COUNT * (1 + (17 if guide == "all" else 0))
    out = tmp_path / ("out.zip" if file_format is Format.STYLEGAN else "out")
    found = [problem.kind for problem in check_export(plan_export(store, version, file_format, out)).problems]
    assert Kind.NOT_KEPT not in found
    assert VersionReader(store, version, 96, resize).count == len(version.manifest())


@pytest.mark.parametrize("colour", [(128, 128, 128), (0, 0, 0), (255, 255, 255), (255, 0, 0)])
def test_a_picture_of_one_colour_has_the_same_children_kept_or_not(store: Store, colour: tuple[int, int, int]) -> None:
    """Most variants, every tile and every turn leave it as it is."""
    flat = np.full((96, 96, 3), colour, np.uint8)
    params = AugmentParams.model_validate({name.removeprefix("augment."): v for name, v in SMALL_TILES.items()})
    params = params.model_copy(update={"guide": tuple(map(GuideVariant, GUIDE)), "mirror": True})
    kept = [child["name"] for child in keep_children(flat, params, store)]
    listed = list(list_children(flat, params, "0" * 64))
    assert kept == [child["name"] for child in listed]
    assert 0 < len(kept) < len(list_augmentations(96, 96, params))


@settings(deadline=None, derandomize=True, max_examples=20)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 3))
def test_small_and_thin_pictures_have_the_same_children_kept_or_not(width: int, height: int, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    params = AugmentParams.model_validate({"guide": ["all"], "tiles": True, "tile_scales": []})
    listed = [child["name"] for child in list_children(noise, params, "0" * 64)]
    assert [name for name, _ in make_children(noise, params)] == listed


def test_parents_and_children_are_on_one_side_of_a_split(source: Path, build: Build) -> None:
    manifest = build(**SMALL_TILES).version.manifest()
    for seed in range(5):
        sides = assign_splits(manifest, {"train": 0.5, "test": 0.5}, seed).to_pylist()
        assert len(set(zip(manifest["post_id"].to_pylist(), sides, strict=True))) == COUNT


# ---- tables ----------------------------------------------------------------------------------------------------------


def test_pictures_without_children_and_equal_pictures() -> None:
    child = {"name": "mirror", "blob": "c" * 64, "width": 4, "height": 5}
    facts = pa.Table.from_pylist(
        [{"input": "a", "children": [child, {**child, "name": "invert"}]}, {"input": "b", "children": []}],
        schema=STAGE.facts,
    )
    items = pa.table(
        {
            "input": ["a", "b", "a"],
            "crop_id": ["1#0", "2#0", "3#0"],
            "blob": ["a" * 64, "b" * 64, "a" * 64],
            "width": pa.array([5, 5, 5], pa.int32()),
            "height": pa.array([4, 4, 4], pa.int32()),
        }
    )
    rows = add_children(items, facts).to_pylist()
    assert [row["crop_id"] for row in rows] == [
        *("1#0", "2#0", "3#0"),
        *("1#0+mirror", "1#0+invert", "3#0+mirror", "3#0+invert"),
    ]
    assert [(row["width"], row["height"]) for row in rows] == 3 * [(5, 4)] + 4 * [(4, 5)]
    assert child_blobs(facts).to_pylist() == [["c" * 64, "c" * 64], []]
    empty = STAGE.facts.empty_table() if STAGE.facts else facts
    assert len(add_children(items.slice(0, 0), empty)) == 0
    assert child_blobs(empty).to_pylist() == []


def test_children_are_added_in_chunks_of_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each child repeats its parent's tags: no array has to hold those of all children."""
    rng = np.random.default_rng(5)
    counts = rng.integers(0, 5, 40)
    rows = [
        {
            "input": f"{k:02d}",
            "children": [{"name": f"n{i}", "blob": f"{k}-{i}", "width": k, "height": i} for i in range(count)],
        }
        for k, count in enumerate(counts.tolist())
    ]
    facts = pa.concat_tables(pa.Table.from_pylist(rows[a : a + 7], schema=STAGE.facts) for a in range(0, 40, 7))
    order = rng.permutation(40).tolist()
    items = pa.table(
        {
            "input": [f"{k:02d}" for k in order],
            "crop_id": [f"{k}#0" for k in order],
            "tags": [[f"tag {k}"] * (k % 3) for k in order],
            "blob": [f"{k}" for k in order],
            "width": pa.array([9] * 40, pa.int32()),
            "height": pa.array([9] * 40, pa.int32()),
        }
    )
    items = pa.concat_tables(items.slice(a, 11) for a in range(0, 40, 11))
    whole = add_children(items, facts)
    monkeypatch.setattr("datasets.chunks.CHUNK_ROWS", 8)
    monkeypatch.setattr("datasets.chunks.JOINED_BYTES", 64)
    cut = add_children(items, facts)
    assert cut.to_pylist() == whole.to_pylist()
    for name in ("tags", "crop_id", "parent_crop"):
        children = cut[name].slice(40)
        assert max(len(chunk) for chunk in children.chunks) <= 8
        assert children.num_chunks >= counts.sum() / 8
    expected = [
        (f"{k}#0+n{i}", f"{k}#0", f"n{i}", [f"tag {k}"] * (k % 3), f"{k}-{i}", k, i)
        for k in order
        for i in range(counts[k])
    ]
    columns = ["crop_id", "parent_crop", "augmentation", "tags", "blob", "width", "height"]
    found = cut.slice(40).select(columns).to_pylist()
    assert [tuple(row[name] for name in columns) for row in found] == expected
    assert conform(cut, MANIFEST).num_rows == 40 + counts.sum()


def test_a_long_picture_turned_has_its_sides_exchanged(draw: Callable[..., np.ndarray]) -> None:
    picture = draw(5, 96, 64)
    made = dict(make_children(picture, AugmentParams(tiles=True, scale_to=128, tile_scales=[{"side": 64, "count": 2}])))
    assert made["rotate:90"].shape == (96, 64, 3)
    assert made["rotate:180"].shape == (64, 96, 3)
    tiles = {name: pixels for name, pixels in made.items() if name.startswith("tile")}
    assert {pixels.shape for pixels in tiles.values()} == {(64, 64, 3)}
    assert "tile:64/128@128,64" in tiles  # the enlarged picture is 192 x 128
    assert digest_pixels(decode_picture(encode_png(made["rotate:90"])).rgb) == digest_pixels(made["rotate:90"])
