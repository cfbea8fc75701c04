"""Bars: found where they were painted, to the row, and not where a plain background only looks like one."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from models.quality import measure_quality
from models.quality_bars import measure_bars


def scene(seed: int, height: int = 200, width: int = 200) -> np.ndarray:
    """uint8 (height, width): discs on a ground that changes across the picture."""
    rng = np.random.default_rng(seed)
    grey = np.tile(np.linspace(90, 200, width), (height, 1)).astype(np.uint8)
    for _ in range(25):
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        cv2.circle(grey, centre, int(rng.integers(5, 30)), int(rng.integers(60, 220)), -1)
    return grey


@pytest.mark.parametrize("level", [0, 255, 10])
@pytest.mark.parametrize(("top", "bottom"), [(20, 20), (0, 30), (7, 0), (60, 61)])
def test_painted_bars_are_measured_to_the_row(top: int, bottom: int, level: int) -> None:
    grey = scene(1)
    grey[:top], grey[len(grey) - bottom :] = level, level
    assert measure_bars(grey) == (top + bottom) / 200
    assert measure_bars(np.ascontiguousarray(grey.T)) == (top + bottom) / 200


@pytest.mark.parametrize("seed", range(5))
def test_a_full_picture_has_none(seed: int) -> None:
    assert measure_bars(scene(seed)) == 0.0


@pytest.mark.parametrize("ground", [255, 0, 180])
def test_a_subject_on_plain_ground_has_none(ground: int) -> None:
    grey = np.full((200, 200), ground, np.uint8)
    cv2.circle(grey, (100, 130), 60, 120, -1)  # the ground above it is uniform, and ends in a round edge
    assert measure_bars(grey) == 0.0


def test_a_sky_that_pales_downwards_is_no_bar() -> None:
    grey = np.tile(np.linspace(100, 220, 200)[:, None], (1, 200)).astype(np.uint8)
    assert measure_bars(grey) == 0.0


@pytest.mark.parametrize("shape", [(50, 50), (1, 1), (1, 300), (300, 1), (2, 2)])
def test_a_uniform_picture_has_none(shape: tuple[int, int]) -> None:
    assert measure_bars(np.full(shape, 77, np.uint8)) == 0.0


@pytest.mark.parametrize("quality", [60, 75, 90])
def test_bars_survive_jpeg_and_reduction(quality: int) -> None:
    grey = scene(2, 700, 900)
    grey[:70], grey[-70:] = 0, 0
    buffer = io.BytesIO()
    Image.fromarray(np.dstack([grey] * 3)).save(buffer, "JPEG", quality=quality)
    rgb = np.asarray(Image.open(buffer).convert("RGB"))
    assert measure_quality(rgb).bars == pytest.approx(0.2, abs=0.012)
