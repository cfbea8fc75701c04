"""Transparency: the same as Pillow sees it, and colours that bleed nothing dark into an edge."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets.pictures import decode_picture
from datasets.pictures.alpha import decode_alpha, encode_png_with_alpha, spread_colours


def save(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.fixture
def layers() -> np.ndarray:
    """uint8 (40, 30, 4): a soft disc."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:40, :30]
    pixels = rng.integers(0, 256, (40, 30, 4), dtype=np.uint8)
    pixels[:, :, 3] = np.clip(160 - 12 * (np.hypot(y - 20, x - 15) - 10), 0, 255)
    return pixels


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True})])
def test_colours_and_alpha_come_back_as_they_were_stored(layers: np.ndarray, form: str, options: Any) -> None:
    colours, alpha = decode_alpha(save(Image.fromarray(layers), form, **options))
    assert np.array_equal(colours, layers[:, :, :3])
    assert np.array_equal(alpha, layers[:, :, 3])


def test_what_is_written_is_read_back(layers: np.ndarray) -> None:
    data = encode_png_with_alpha(layers[:, :, :3], layers[:, :, 3])
    colours, alpha = decode_alpha(data)
    assert np.array_equal(np.dstack([colours, alpha]), layers)
    assert data == encode_png_with_alpha(layers[:, :, :3].copy(), layers[:, :, 3].copy())


def test_a_palette_with_a_clear_colour_and_grey_with_alpha() -> None:
    palette = Image.new("P", (4, 3), 1)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((2, 1), 0)
    colours, alpha = decode_alpha(save(palette, transparency=0))
    assert alpha[1, 2] == 0 and (alpha == 255).sum() == 11
    assert colours[0, 0].tolist() == [200, 100, 50]
    colours, alpha = decode_alpha(save(Image.new("LA", (4, 3), (77, 66))))
    assert (colours == 77).all() and (alpha == 66).all()


def test_grey_of_16_bits_with_a_clear_value() -> None:
    values = np.full((4, 5), 65535, np.uint16)
    values[2, 3] = 300
    colours, alpha = decode_alpha(save(Image.fromarray(values), transparency=300))
    assert alpha[2, 3] == 0 and (alpha == 255).sum() == 19
    assert colours[0, 0].tolist() == [255, 255, 255]


def test_it_is_turned_upright_like_the_picture_itself(layers: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = save(Image.fromarray(layers), exif=exif)
    colours, alpha = decode_alpha(data)
    shown = decode_picture(data, background=(0, 0, 0)).rgb
    assert shown.shape == colours.shape == (30, 40, 3) and alpha.shape == (30, 40)
    opaque = alpha == 255
    assert opaque.any() and np.array_equal(shown[opaque], colours[opaque])


def test_clear_pixels_take_the_colour_of_the_nearest_one_that_is_seen() -> None:
    rgb = np.zeros((20, 20, 3), np.uint8)
    alpha = np.zeros((20, 20), np.uint8)
    rgb[:, :3], alpha[:, :3] = (250, 10, 10), 255
    rgb[:, 17:], alpha[:, 17:] = (10, 10, 250), 1
    spread = spread_colours(rgb, alpha)
    assert (spread[:, :10] == (250, 10, 10)).all() and (spread[:, 10:] == (10, 10, 250)).all()
    assert (rgb[:, 5] == 0).all()  # an array of its own


def test_what_lies_beneath_clear_pixels_does_not_matter(layers: np.ndarray) -> None:
    rgb, alpha = layers[:, :, :3], layers[:, :, 3]
    other = np.where(alpha[:, :, None] == 0, 255 - rgb, rgb)
    assert not np.array_equal(rgb, other)
    assert np.array_equal(spread_colours(rgb, alpha), spread_colours(other, alpha))


@pytest.mark.parametrize("value", [0, 255])
def test_nothing_to_spread(value: int, layers: np.ndarray) -> None:
    rgb = layers[:, :, :3]
    assert np.array_equal(spread_colours(rgb, np.full(rgb.shape[:2], value, np.uint8)), rgb)
