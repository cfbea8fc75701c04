"""Upscale as a stage: sizes, reasons, cache. How it enlarges is tested with the models."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.pictures import decode_picture
from datasets.store import Store
from models.upscale.catalogue import NETWORKS
from models.upscale.engine import UpscaleSettings
from models.weights import DEFAULT_WEIGHTS, WeightError, weight_status
from tasks import upscale
from tasks.build import BuildResult
from tasks.upscale import Network, Noise, UpscaleParams

Build = Callable[..., BuildResult]


@pytest.fixture(autouse=True)
def weights() -> None:
    missing = [status.message for name in DEFAULT_WEIGHTS if (status := weight_status(name)).state != "ok"]
    if missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing[0])


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
    assert rows["small.png"]["upscaled_by"] == "centre crop + upconv7 x2 + lanczos (ncnn)"
    assert rows["small.png"]["upscale_factor"] == 1.5
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


def jpeg(rgb: np.ndarray, quality: int) -> bytes:
    written, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert written
    return data.tobytes()


def methods(result: BuildResult) -> dict[str, str]:
    return {row["post_id"]: row["upscaled_by"] for row in result.version.manifest().to_pylist()}


def test_auto_takes_the_noise_level_of_each_source(
    source: Path, build: Build, draw: Callable[..., np.ndarray], png: Callable[..., bytes]
) -> None:
    for path in source.iterdir():
        path.unlink()
    for seed, quality in enumerate((20, 70, 100)):
        (source / f"q{quality}.jpg").write_bytes(jpeg(draw(seed, 64, 64), quality))
    (source / "lossless.png").write_bytes(png(draw(9, 64, 64)))
    said = methods(build(**{"upscale.size": 128}))
    assert said["lossless.png"].startswith("upconv7 x2") and said["q100.jpg"].startswith("upconv7 x2")
    assert "noise3" in said["q20.jpg"] and "noise" in said["q70.jpg"]
    assert len({said["q20.jpg"], said["q70.jpg"], said["q100.jpg"]}) == 3
    assert set(methods(build(**{"upscale.size": 128, "upscale.noise": "1"})).values()) == {
        said["lossless.png"].replace("upconv7", "upconv7-noise1")
    }


def test_equal_pixels_of_another_source_are_measured_at_its_own_level(
    source: Path, build: Build, png: Callable[..., bytes], draw: Callable[..., np.ndarray]
) -> None:
    """A lossless copy takes the place of a coarse JPEG: what was found of the JPEG must not be taken for it."""
    for path in source.iterdir():
        path.unlink()
    coarse = jpeg(draw(3, 64, 64), 20)
    (source / "a.jpg").write_bytes(coarse)
    before = build(**{"upscale.size": 128})
    (source / "a.jpg").unlink()
    (source / "b.png").write_bytes(png(decode_picture(coarse).rgb))
    after = build(**{"upscale.size": 128})
    assert "noise3" in methods(before)["a.jpg"] and "noise" not in methods(after)["b.png"]
    assert before.version.manifest()["pixel_digest"] == after.version.manifest()["pixel_digest"]


def test_published_jpegs_where_the_recipe_asks(source: Path, build: Build, store: Store) -> None:
    rows = build(**{"upscale.size": 96, "upscale.codec": "jpeg"}).version.manifest().to_pylist()
    for row in rows:
        path = store.blobs.path(row["blob"])
        picture = decode_picture(path.read_bytes())
        assert path.suffix == ".jpg" and picture.facts.format == "JPEG" and picture.facts.jpeg_quality == 95


def test_what_looks_enlarged_already_is_not_enlarged_again(
    source: Path, build: Build, draw: Callable[..., np.ndarray], png: Callable[..., bytes]
) -> None:
    for name, side in (("small", 64), ("large", 200)):
        blown_up = cv2.resize(draw(5, side // 4, side // 4), (side, side), interpolation=cv2.INTER_CUBIC)
        (source / f"blown-{name}.png").write_bytes(png(blown_up))
    result = build(**{"upscale.size": 96, "clean.min_blur": 0})
    rows = [row for row in result.version.ledger().to_pylist() if row["stage"] == "upscale"]
    assert [(row["post_id"], row["reason"], row["threshold"]) for row in rows] == [
        ("blown-small.png", "already_enlarged", 0.7)  # the large one is only reduced: nothing is made up again
    ]
    kept = build(**{"upscale.size": 96, "clean.min_blur": 0, "upscale.min_native_scale": None})
    assert "blown-small.png" in methods(kept) and set(kept.opened.values()) == {0}


def test_missing_weights_are_named_before_any_work(
    source: Path, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    monkeypatch.delenv("KAOBAKO_WEIGHTS", raising=False)
    with pytest.raises(WeightError, match=r"kaobako weights fetch waifu2x-cunet\.param waifu2x-cunet-scale\.bin$"):
        build(**{"upscale.size": 96, "upscale.network": "cunet", "upscale.noise": "none"})
    with pytest.raises(WeightError, match="network_file"):
        build(**{"upscale.size": 96, "upscale.network_file": str(tmp_path / "gone.pth")})


def test_the_choices_are_those_of_the_catalogue() -> None:
    assert {network.value for network in Network} == {name for name, info in NETWORKS.items() if info.scale > 1}
    levels = {level for info in NETWORKS.values() for level in info.noise_levels}
    assert {"auto", "none", *levels} == {noise.value for noise in Noise}
    assert isinstance(UpscaleParams().settings(), UpscaleSettings)
    assert upscale.STAGE.enabled(UpscaleParams()) and not upscale.STAGE.enabled(UpscaleParams(size=0))
