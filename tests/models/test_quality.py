"""The measures of a picture against pictures whose answer is known."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from models.quality import COLOUR_LIMIT, count_colours, measure_blur, measure_quality, measure_tint


def discs(seed: int, side: int = 192) -> np.ndarray:
    rng = np.random.default_rng(seed)
    picture = np.full((side, side, 3), rng.integers(60, 200, 3), np.uint8)
    for _ in range(30):
        centre, radius = rng.integers(0, side, 2).tolist(), int(rng.integers(5, side // 5))
        cv2.circle(picture, centre, radius, rng.integers(0, 256, 3).tolist(), -1)
    return picture


def as_grey(picture: np.ndarray) -> np.ndarray:
    return np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)


def toned(picture: np.ndarray, dark: tuple[int, int, int], light: tuple[int, int, int]) -> np.ndarray:
    """Each brightness mapped to one colour between two: sepia and its like."""
    share = as_grey(picture).astype(np.float64) / 255
    return np.rint(np.array(dark) * (1 - share) + np.array(light) * share).astype(np.uint8)


def jpeg(picture: np.ndarray, quality: int = 75) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


@pytest.mark.parametrize("seed", range(4))
def test_tint_is_near_zero_for_grey_and_every_tone_and_high_for_colour(seed: int) -> None:
    picture = discs(seed)
    for one_tone in (
        as_grey(picture),
        jpeg(as_grey(picture)),
        jpeg(toned(picture, (40, 20, 5), (255, 240, 200))),
        jpeg(toned(picture, (10, 20, 80), (220, 230, 255))),
        toned(picture, (0, 60, 0), (200, 255, 200)),
    ):
        assert measure_quality(one_tone).tint_residual < 2.0
    pastel = (picture.astype(np.float64) * 0.25 + 185).astype(np.uint8)
    assert measure_quality(picture).tint_residual > 20
    assert measure_quality(jpeg(pastel)).tint_residual > 4


def test_a_strong_tone_drifts_within_a_band_of_brightness_and_is_no_colour() -> None:
    ramp = np.linspace(0, 255, 64).astype(np.uint8)[None, :, None].repeat(64, axis=0).repeat(3, axis=2)
    assert measure_tint(toned(ramp, (0, 0, 160), (255, 240, 0))) < 1.0


def test_saturation_tells_grey_from_toned() -> None:
    picture = discs(0)
    assert measure_quality(as_grey(picture)).saturation == 0
    assert measure_quality(toned(picture, (60, 30, 10), (255, 220, 160))).saturation > 20
    assert measure_quality(np.full((50, 50, 3), (255, 0, 0), np.uint8)).saturation == 255


def test_blur_falls_with_every_blurring_and_is_zero_for_nothing() -> None:
    picture = discs(1)
    values = [
        measure_quality(np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.uint8)).blur
        for sigma in (0.5, 1, 2, 4, 8)
    ]
    assert values == sorted(values, reverse=True)
    assert values[0] > 10 * values[-1]
    assert measure_quality(np.full((64, 64, 3), 90, np.uint8)).blur == 0


def test_blur_is_the_variance_of_the_laplacian() -> None:
    grey = np.zeros((9, 9), np.uint8)
    grey[4, 4] = 10
    laplacian = np.zeros((9, 9))
    laplacian[4, 4], laplacian[[3, 5, 4, 4], [4, 4, 3, 5]] = -40, 10
    assert measure_blur(grey) == pytest.approx(laplacian.var())


def test_a_large_picture_is_judged_at_the_size_of_a_small_one() -> None:
    small = discs(2, 256)
    large = small.repeat(4, axis=0).repeat(4, axis=1)
    assert measure_quality(large).blur == pytest.approx(measure_quality(small).blur, rel=0.02)


def test_contrast_is_the_deviation_of_luma() -> None:
    halves = np.zeros((64, 64, 3), np.uint8)
    halves[:, 32:] = 255
    assert measure_quality(halves).contrast == 127.5
    assert measure_quality(np.full((64, 64, 3), 200, np.uint8)).contrast == 0


@pytest.mark.parametrize("count", [1, 2, 255, COLOUR_LIMIT, COLOUR_LIMIT + 1, 3 * COLOUR_LIMIT])
def test_colours_are_counted_up_to_the_limit(count: int) -> None:
    codes = np.resize(np.arange(count), 128 * 128)
    picture = np.stack([codes % 256, codes // 256, codes * 0], axis=1).astype(np.uint8).reshape(128, 128, 3)
    assert count_colours(picture) == min(count, COLOUR_LIMIT + 1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (2, 3)])
def test_any_size_has_finite_measures(shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert all(np.isfinite(value) for value in vars(measure_quality(picture)).values())


def test_measures_depend_on_pixels_not_on_memory_layout() -> None:
    picture = discs(3)
    assert measure_quality(np.asfortranarray(picture)) == measure_quality(picture)
    assert measure_quality(np.ascontiguousarray(picture[::2])[:, ::-1].copy()) == measure_quality(picture[::2, ::-1])


def test_too_few_pixels_have_no_tint() -> None:
    assert measure_tint(np.zeros((2, 3, 3), np.uint8)) == 0.0
