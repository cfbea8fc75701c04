"""Derived pictures that are listed, but not kept: the same dataset to whoever reads it, at no room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.loader import VersionReader
from datasets.store import Store
from datasets.version import verify_version
from models.augment.apply import apply_augmentation, made_size, parse_augmentation
from models.gan.pictures import resize
from tasks.augment import AugmentParams, make_children
from tasks.build import BuildResult

Build = Callable[..., BuildResult]
CHANGES: dict[str, Any] = {
    "augment.guide": ["all"],
    "augment.tiles": True,
    "augment.scale_to": 192,
    "augment.tile_scales": [{"side": 96, "count": 3}],
    "augment.sample": 40,
}


@pytest.fixture
def source(tmp_path: Path, draw: Callable[..., np.ndarray], png: Callable[..., bytes]) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for seed in range(3):
        (folder / f"p{seed}.png").write_bytes(png(draw(seed)))
    return folder


def read_all(store: Store, result: BuildResult) -> list[bytes]:
    reader = VersionReader(store, result.version, 96, resize, mirror=False, derive=apply_augmentation)
    with closing(reader.batches(reader.count, seed=1)) as batches:
        return [picture.tobytes() for picture in next(batches)]


def test_kept_or_not_training_sees_the_same(source: Path, build: Build, store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "lazy")
    kept, listed = build(**CHANGES), build(into=other, **CHANGES, **{"augment.materialise": False})
    columns = ["crop_id", "post_id", "augmentation", "parent_crop", "width", "height", "pixel_digest"]
    assert kept.version.manifest().select(columns).equals(listed.version.manifest().select(columns))
    sampled = Counter(row for row in kept.version.manifest()["parent_crop"].to_pylist() if row)
    assert len(sampled) == 3
    assert set(sampled.values()) <= {39, 40}  # a deskew that was drawn changes nothing
    assert len(set(other.blobs.digests())) == 3
    assert read_all(store, kept) == read_all(other, listed)
    assert verify_version(other, listed.version) == []
    assert not build(into=other, **CHANGES, **{"augment.materialise": False}).published


def test_the_sizes_are_known_before_anything_is_made(draw: Callable[..., np.ndarray]) -> None:
    params = AugmentParams.model_validate(
        {"tiles": True, "guide": ["all"], "scale_to": 128, "tile_scales": [{"side": 64, "count": 2}]}
    )
    for name, made in make_children(draw(5, 96, 64), params):
        assert made_size(parse_augmentation(name), 96, 64) == (made.shape[1], made.shape[0])
