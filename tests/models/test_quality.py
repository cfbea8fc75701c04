"""The measures of a picture against pictures whose answer is known."""

from __future__ import annotations

import io
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image

from models.quality import COLOUR_LIMIT, count_colours, measure_blur, measure_quality


def jpeg(picture: np.ndarray, quality: int = 75) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def test_blur_falls_with_every_blurring_and_is_zero_for_nothing(discs: Callable[..., np.ndarray]) -> None:
    picture = discs(1)
    values = [
        measure_quality(np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.uint8)).blur
        for sigma in (0.5, 1, 2, 4, 8)
    ]
    assert values == sorted(values, reverse=True)
    assert values[0] > 10 * values[-1]
    assert measure_quality(np.full((64, 64, 3), 90, np.uint8)).blur == 0


@pytest.mark.parametrize("seed", range(4))
def test_blur_does_not_depend_on_contrast_and_low_contrast_is_not_blur(
    seed: int, discs: Callable[..., np.ndarray]
) -> None:
    picture = discs(seed, 256)
    sharp = measure_quality(picture).blur
    soft = measure_quality(np.asarray(cv2.GaussianBlur(picture, (0, 0), 2), np.uint8)).blur
    for contrast in (0.6, 0.35, 0.2):
        faint = (picture * contrast + 178 * (1 - contrast)).astype(np.uint8)
        assert measure_quality(faint).blur == pytest.approx(sharp, abs=0.06)
        assert measure_quality(jpeg(faint, 90)).blur > soft + 0.1


def test_blur_is_not_fooled_by_noise_on_a_blurred_picture(discs: Callable[..., np.ndarray]) -> None:
    picture = discs(1, 256)
    soft = cv2.GaussianBlur(picture, (0, 0), 2.5).astype(np.float64)
    noisy = np.clip(soft + np.random.default_rng(0).normal(0, 2, soft.shape), 0, 255).astype(np.uint8)
    assert measure_quality(noisy).blur < 0.3 < measure_quality(picture).blur


def test_blur_of_a_step_is_the_share_that_the_box_takes_away() -> None:
    """A step of 100 levels in columns; a box of 5 spreads it over five differences of 20."""
    grey = np.full((40, 40), 50, np.uint8)
    grey[:, 20:] = 150
    # at the five columns of the blurred edge: energies 5 * 20^2 after, 100^2 before
    assert measure_blur(grey) == pytest.approx(1 - np.sqrt(5 * 20**2 / 100**2))


def test_a_large_picture_is_judged_at_the_size_of_a_small_one(discs: Callable[..., np.ndarray]) -> None:
    small = discs(2, 256)
    large = small.repeat(4, axis=0).repeat(4, axis=1)
    assert measure_quality(large).blur == measure_quality(small).blur


def test_shares_of_black_and_white() -> None:
    picture = np.full((100, 100, 3), 128, np.uint8)
    picture[:30] = (10, 14, 12)
    picture[90:] = 250
    measured = measure_quality(picture)
    assert (measured.black_share, measured.white_share) == (0.3, 0.1)
    yellow = np.full((50, 50, 3), (255, 255, 0), np.uint8)
    assert (measure_quality(yellow).black_share, measure_quality(yellow).white_share) == (0.0, 0.0)


def test_aspect_is_at_least_one_and_of_the_whole_picture(discs: Callable[..., np.ndarray]) -> None:
    assert measure_quality(discs(0)[:96]).aspect == 2.0
    assert measure_quality(discs(0)[:, :64]).aspect == 3.0
    assert measure_quality(discs(0)).aspect == 1.0


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


def test_measures_depend_on_pixels_not_on_memory_layout(discs: Callable[..., np.ndarray]) -> None:
    picture = discs(3)
    assert measure_quality(np.asfortranarray(picture)) == measure_quality(picture)
    assert measure_quality(np.ascontiguousarray(picture[::2])[:, ::-1].copy()) == measure_quality(picture[::2, ::-1])


def test_a_picture_with_few_colours_in_most_rows_is_counted_to_the_end() -> None:
    picture = np.zeros((128, 128, 3), np.uint8)
    picture[127] = np.arange(128)[:, None]  # in a row that the first looks leave out
    assert count_colours(picture) == 128
