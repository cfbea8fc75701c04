"""Upscale as a stage: sizes, reasons, cache. How it enlarges is tested with the models."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datasets.pictures import decode_picture
from datasets.store import Store
from models.weights import weight_status
from tasks.build import BuildResult

Build = Callable[..., BuildResult]


@pytest.fixture(autouse=True)
def weights() -> None:
    status = weight_status("waifu2x-upconv7-art-scale")
    if status.state != "ok":
        (pytest.fail if os.environ.get("CI") else pytest.skip)(status.message)


@pytest.fixture
def source(tmp_path: Path, draw: Callable[..., np.ndarray], png: Callable[..., bytes]) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for seed, (name, width, height) in enumerate((("small", 64, 70), ("exact", 96, 96), ("large", 200, 150))):
        (folder / f"{name}.png").write_bytes(png(draw(seed, width, height)))
    return folder


def test_every_picture_gets_the_size_and_says_how(source: Path, build: Build, store: Store) -> None:
    rows = {row["post_id"]: row for row in build(**{"upscale.size": 96}).version.manifest().to_pylist()}
    for row in rows.values():
        assert decode_picture(store.blobs.path(row["blob"]).read_bytes()).rgb.shape == (96, 96, 3)
        assert (row["width"], row["height"]) == (96, 96)
    assert rows["exact.png"]["upscaled_by"] == "none"
    assert "x2" in rows["small.png"]["upscaled_by"]
    assert "lanczos-down" in rows["large.png"]["upscaled_by"]
    assert (rows["small.png"]["box_w"], rows["small.png"]["box_h"]) == (64, 70)


def test_too_much_enlarging_is_judged_without_opening_anything(source: Path, build: Build) -> None:
    build(**{"upscale.size": 96})
    result = build(**{"upscale.size": 96, "upscale.max_factor": 1.2})
    assert set(result.opened.values()) == {0}
    assert result.counts["upscale"]["dropped"] == {"enlarged_too_much": 1}
    (row,) = result.version.ledger().to_pylist()
    assert (row["post_id"], row["value"], row["threshold"], row["crop_blob"] is None) == ("small.png", 1.5, 1.2, False)


def test_the_digest_of_the_pixels_is_that_of_the_crop_not_of_its_enlargement(source: Path, build: Build) -> None:
    def digests(result: BuildResult) -> list[str]:
        found: list[str] = result.version.manifest()["pixel_digest"].to_pylist()
        return found

    assert digests(build(**{"upscale.size": 96})) == digests(build())


def test_a_picture_does_not_depend_on_its_companions(source: Path, build: Build, store: Store, tmp_path: Path) -> None:
    together = {row["post_id"]: row["blob"] for row in build(**{"upscale.size": 96}).version.manifest().to_pylist()}
    for name in ("exact.png", "large.png"):
        (source / name).unlink()
    (alone,) = build(into=Store(tmp_path / "alone"), **{"upscale.size": 96}).version.manifest().to_pylist()
    assert alone["blob"] == together["small.png"]
