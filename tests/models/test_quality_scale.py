"""The native scale of pictures that were enlarged here by known factors, and of pictures that were not."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from models.quality_scale import measure_native_scale

SMOOTH = {"bicubic": cv2.INTER_CUBIC, "Lanczos": cv2.INTER_LANCZOS4, "bilinear": cv2.INTER_LINEAR}


def drawing(seed: int, side: int = 256) -> np.ndarray:
    """uint8 (side, side): shapes drawn four times as large and averaged, so that edges are as sharp as they can be."""
    rng = np.random.default_rng(seed)
    large = np.full((side * 4, side * 4), int(rng.integers(60, 200)), np.uint8)
    for _ in range(60):
        centre = (int(rng.integers(0, side * 4)), int(rng.integers(0, side * 4)))
        axes = (int(rng.integers(20, side)), int(rng.integers(20, side)))
        level = int(rng.integers(0, 256))
        cv2.ellipse(large, centre, axes, float(rng.uniform(0, 180)), 0, 360, level, int(rng.choice([-1, 6, 12])))
    return np.asarray(cv2.resize(large, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def enlarged(grey: np.ndarray, factor: float, how: int) -> np.ndarray:
    return np.asarray(cv2.resize(grey, None, fx=factor, fy=factor, interpolation=how), np.uint8)


def jpeg(grey: np.ndarray, quality: int = 90) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(np.dstack([grey] * 3)).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("L"))


@pytest.mark.parametrize("seed", range(4))
def test_a_picture_as_it_was_drawn_is_full(seed: int) -> None:
    grey = drawing(seed)
    assert measure_native_scale(grey) > 0.9
    assert measure_native_scale(jpeg(grey)) > 0.9
    assert measure_native_scale(jpeg(grey, 50)) > 0.8


@pytest.mark.parametrize("lossy", [False, True])
@pytest.mark.parametrize("how", SMOOTH)
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_smooth_enlargement_is_seen(factor: int, how: str, lossy: bool) -> None:
    for seed in range(3):
        large = enlarged(drawing(seed), factor, SMOOTH[how])
        found = measure_native_scale(jpeg(large) if lossy else large)
        assert 0.5 / factor < found < 1.8 / factor


@pytest.mark.parametrize("lossy", [False, True])
@pytest.mark.parametrize(
    ("factor", "expected"), [(1.5, 2 / 3), (2, 1 / 2), (3, 1 / 3), (4, 1 / 4), (5, 1 / 5), (2.5, 2 / 5)]
)
def test_repeated_pixels_are_counted(factor: float, expected: float, lossy: bool) -> None:
    large = enlarged(drawing(5), factor, cv2.INTER_NEAREST)
    large = large[3:, 1:]  # the repetition need not begin at the border
    assert measure_native_scale(jpeg(large) if lossy else large) == pytest.approx(expected, abs=1e-6)


def test_it_falls_with_every_enlargement() -> None:
    grey = drawing(6)
    found = [measure_native_scale(enlarged(grey, factor, cv2.INTER_CUBIC)) for factor in (1, 1.5, 2, 3, 4)]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == len(found)


def test_a_blurred_picture_looks_enlarged() -> None:
    assert measure_native_scale(np.asarray(cv2.GaussianBlur(drawing(7), (0, 0), 2), np.uint8)) < 0.6


def test_where_nothing_can_be_told_nothing_is_claimed() -> None:
    for grey in (np.full((200, 200), 128, np.uint8), drawing(0)[:32], drawing(0)[:, :32], drawing(0)[:1, :1]):
        assert measure_native_scale(grey) == 1.0
    one_line = np.full((200, 200), 255, np.uint8)
    one_line[:, 100] = 0
    assert measure_native_scale(one_line) == 1.0


@pytest.mark.parametrize("shape", [(33, 33), (34, 400), (400, 35), (63, 65), (300, 40)])
def test_any_size_gives_a_share(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert 0.9 <= measure_native_scale(noise) <= 1.0
    assert 0.0 < measure_native_scale(np.asarray(cv2.GaussianBlur(noise, (0, 0), 3), np.uint8)) < 0.7
