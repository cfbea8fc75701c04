"""Derived pictures that nobody keeps: who is one, who may read them, and who must refuse."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from datasets.card import CardWriter
from datasets.derived import find_derived
from datasets.digests import digest_pixels
from datasets.errors import StoreError
from datasets.exports.format import Format
from datasets.exports.plan import plan_export
from datasets.exports.preflight import Kind
from datasets.exports.run import check_export
from datasets.loader import VersionReader
from datasets.pictures import encode_png
from datasets.schema import LEDGER, MANIFEST
from datasets.store import Store
from datasets.version import CARD_FILE, Version, publish_version

Lazy = Callable[..., Version]


@pytest.fixture
def lazy(store: Store, draw_noise: Callable[..., np.ndarray]) -> Lazy:
    """lazy(keep=False) -> a version of two pictures with a negative each, kept or not."""

    def publish(keep: bool = False, recipe: dict[str, Any] | None = None) -> Version:
        rows = []
        for k in range(2):
            pixels = draw_noise(k)
            row: dict[str, Any] = {"crop_id": f"p{k}#0", "post_id": f"p{k}", "width": 16, "height": 16}
            row |= {"blob": store.blobs.put(encode_png(pixels)), "pixel_digest": digest_pixels(pixels)}
            child = {**row, "crop_id": f"p{k}#0+invert", "augmentation": "invert", "parent_crop": f"p{k}#0"}
            if keep:
                child["blob"] = store.blobs.put(encode_png(255 - pixels))
            rows += [row, child]
        lineage: dict[str, Any] = {"recipe": recipe or {}, "stage_versions": {}, "weights": {}, "counts": {}}
        tables = pa.Table.from_pylist(rows, schema=MANIFEST), LEDGER.empty_table()
        return publish_version(store, "faces", *tables, lineage, lambda folder, *rest: (folder / CARD_FILE).touch())

    return publish


def negative(name: str, rgb: np.ndarray) -> np.ndarray:
    assert name == "invert"
    return 255 - rgb


def shrink(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.ascontiguousarray(rgb[:: rgb.shape[0] // height, :: rgb.shape[1] // width])


def read_all(store: Store, version: Version, **options: Any) -> set[bytes]:
    reader = VersionReader(store, version, 16, shrink, mirror=False, **options)
    with closing(reader.batches(4, seed=0)) as batches:
        return {picture.transpose(1, 2, 0).tobytes() for picture in next(batches)}


def test_a_child_with_its_parents_blob_is_derived(lazy: Lazy) -> None:
    assert find_derived(lazy().manifest()).tolist() == [False, True, False, True]
    assert not find_derived(lazy(keep=True).manifest()).any()
    assert find_derived(MANIFEST.empty_table()).tolist() == []


def test_a_lineage_that_says_that_all_is_kept_is_trusted(lazy: Lazy, store: Store, tmp_path: Any) -> None:
    """A build of old kept what left its parent as it is, too: those blobs are equal, and all there is."""
    for said, derived in ((True, 0), (False, 2), (None, 2)):
        version = lazy(recipe={"augment": {} if said is None else {"materialise": said}})
        assert find_derived(version.manifest(), version.lineage).sum() == derived
        found = check_export(plan_export(store, version, Format.FOLDER, tmp_path / "out")).problems
        assert (Kind.NOT_KEPT in [problem.kind for problem in found]) == bool(derived)
    assert len(read_all(store, lazy(recipe={"augment": {"materialise": True}}))) == 2


def test_chunks_make_no_difference(lazy: Lazy) -> None:
    manifest = lazy().manifest()
    cut = pa.concat_tables(manifest.slice(k, 1) for k in range(4))
    assert find_derived(cut).tolist() == [False, True, False, True]


def test_a_child_without_its_parent_is_an_error(lazy: Lazy) -> None:
    with pytest.raises(StoreError, match=r"no parent in the manifest, p0#0\+invert first"):
        find_derived(lazy().manifest().slice(1))


def test_training_reads_the_same_pictures_kept_or_not(
    lazy: Lazy, store: Store, draw_noise: Callable[..., np.ndarray]
) -> None:
    kept = read_all(store, lazy(keep=True))
    assert kept == {p.tobytes() for k in range(2) for p in (draw_noise(k), 255 - draw_noise(k))}
    assert read_all(store, lazy(), derive=negative) == kept
    assert read_all(store, lazy(), derive=negative, cache_bytes=0) == kept


def test_a_reader_that_cannot_derive_refuses(lazy: Lazy, store: Store) -> None:
    with pytest.raises(StoreError, match=r"2 pictures of faces@v1 are listed, but not kept"):
        read_all(store, lazy())


@pytest.mark.parametrize("file_format", list(Format))
def test_every_export_refuses_them_and_says_what_to_do(
    lazy: Lazy, store: Store, tmp_path: Any, file_format: Format
) -> None:
    def problems(version: Version) -> list[Kind]:
        name = "out" if file_format is not Format.STYLEGAN else "out.zip"
        return [
            problem.kind for problem in check_export(plan_export(store, version, file_format, tmp_path / name)).problems
        ]

    assert Kind.NOT_KEPT in problems(lazy())
    assert Kind.NOT_KEPT not in problems(lazy(keep=True))


def test_the_card_shows_a_kept_child_as_it_is_and_no_other(lazy: Lazy, store: Store, tmp_path: Any) -> None:
    writer = CardWriter(store, tmp_path)
    for version, shown in ((lazy(), 2), (lazy(keep=True), 4)):
        (_, _, cells), *_ = writer.sheets(version.manifest(), version.ledger(), [])
        assert len(cells) == shown
    rows = version.manifest().to_pylist()
    assert [cell.path for cell in cells][1] == store.blobs.path(rows[1]["blob"])
    assert cells[1].caption == ("invert",)
    assert store.thumbnails.path(rows[1]["pixel_digest"]) is None  # the child's picture is not the crop's
