"""Colour or tone: drawn pictures, their greys, sepias and duotones through real JPEGs, and their pastels."""

from __future__ import annotations

import io
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image

from models.quality_tint import (
    TINT_REDUCTION,
    TINT_SIDE,
    measure_saturation,
    measure_tint,
    reduce_for_tint,
)

LIMIT = 0.19  # the cleaning stage's default


def as_grey(picture: np.ndarray) -> np.ndarray:
    return np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)


def toned(picture: np.ndarray, dark: tuple[int, int, int], light: tuple[int, int, int]) -> np.ndarray:
    """Each brightness mapped to one colour between two: sepia and its like."""
    share = as_grey(picture).astype(np.float64) / 255
    return np.rint(np.array(dark) * (1 - share) + np.array(light) * share).astype(np.uint8)


def clipped_sepia(picture: np.ndarray) -> np.ndarray:
    """The matrix of image editors: bright pixels clip, first red, then green."""
    matrix = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]])
    return np.clip(np.rint(picture @ matrix.T), 0, 255).astype(np.uint8)


def jpeg(picture: np.ndarray, quality: int = 75) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def tint(picture: np.ndarray) -> float:
    return measure_tint(reduce_for_tint(picture))


@pytest.mark.parametrize("side", [96, 256])
@pytest.mark.parametrize("seed", range(4))
def test_grey_and_every_tone_are_below_the_limit_and_colour_above(
    seed: int, side: int, discs: Callable[..., np.ndarray]
) -> None:
    picture = discs(seed, side)
    for quality in (50, 75, 90):
        for one_tone in (
            as_grey(picture),
            toned(picture, (40, 20, 5), (255, 240, 200)),
            toned(picture, (10, 20, 80), (220, 230, 255)),
            toned(picture, (0, 60, 0), (200, 255, 200)),
            toned(picture, (20, 15, 12), (255, 253, 248)),
            clipped_sepia(picture),
        ):
            assert tint(jpeg(one_tone, quality)) < LIMIT
    for share in (1.0, 0.35, 0.2):
        pastel = as_grey(picture) + (picture.astype(np.float64) - as_grey(picture)) * share
        assert tint(jpeg((pastel * 0.6 + 100).astype(np.uint8))) > 2 * LIMIT


@pytest.mark.parametrize("seed", range(4))
def test_a_grey_page_through_a_colour_scanner_is_grey(seed: int, discs: Callable[..., np.ndarray]) -> None:
    grey = as_grey(discs(seed, 256)).astype(np.float64)
    noisy = grey + np.random.default_rng(seed).normal(0, 3, grey.shape)
    assert tint(jpeg(np.clip(noisy, 0, 255).astype(np.uint8), 85)) < LIMIT


def test_the_share_is_the_same_for_a_picture_and_its_pastel(discs: Callable[..., np.ndarray]) -> None:
    picture = discs(3, 256)
    pastel = as_grey(picture) + (picture.astype(np.float64) - as_grey(picture)) * 0.5
    assert tint(np.rint(pastel).astype(np.uint8)) == pytest.approx(tint(picture), abs=0.05)


def test_a_strong_tone_drifts_within_a_band_of_brightness_and_is_no_colour() -> None:
    ramp = np.linspace(0, 255, 128).astype(np.uint8)[None, :, None].repeat(128, axis=0).repeat(3, axis=2)
    assert tint(toned(ramp, (0, 0, 160), (255, 240, 0))) < 0.05


def test_two_colours_of_one_brightness_are_colour() -> None:
    """Red and blue of equal luma: nothing in the brightness says which is which."""
    picture = np.empty((128, 128, 3), np.uint8)
    picture[:, :64], picture[:, 64:] = (200, 40, 40), (32, 90, 237)
    picture -= np.arange(128, dtype=np.uint8)[:, None, None] // 4  # darker downwards, both alike
    levels = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    assert abs(float(levels[:, :64].mean()) - float(levels[:, 64:].mean())) <= 1
    assert tint(picture) > 0.8


def test_saturation_tells_grey_from_toned(discs: Callable[..., np.ndarray]) -> None:
    picture = discs(0)
    assert measure_saturation(reduce_for_tint(as_grey(picture))) == 0
    assert measure_saturation(reduce_for_tint(toned(picture, (60, 30, 10), (255, 220, 160)))) > 20
    assert measure_saturation(np.full((20, 20, 3), (255, 0, 0), np.uint8)) == 255


def test_too_few_pixels_have_no_tint() -> None:
    assert measure_tint(np.zeros((1, 3, 3), np.uint8)) == 0.0


@pytest.mark.parametrize("shape", [(512, 512), (96, 96), (2000, 500), (130, 4000), (1, 700), (3, 2)])
def test_the_reduction_keeps_the_shape_and_is_a_quarter_at_most(shape: tuple[int, int]) -> None:
    small = reduce_for_tint(np.zeros((*shape, 3), np.uint8))
    assert max(small.shape[:2]) <= max(1, min(TINT_SIDE, max(shape) // TINT_REDUCTION + 1))
    if min(shape) > 100:
        assert small.shape[1] / small.shape[0] == pytest.approx(shape[1] / shape[0], rel=0.3)
