"""The estimate against files written at known qualities, by two encoders, and against tables that no encoder wrote."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from datasets.jpeg_quality import estimate_quality


def noise(channels: int = 3) -> np.ndarray:
    shape = (32, 40, 3) if channels == 3 else (32, 40)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def tables_of(data: bytes) -> dict[int, list[int]]:
    image = Image.open(io.BytesIO(data))
    assert isinstance(image, JpegImagePlugin.JpegImageFile)
    return dict(image.quantization)


def written(mode_channels: int = 3, **options: Any) -> dict[int, list[int]]:
    stream = io.BytesIO()
    Image.fromarray(noise(mode_channels)).save(stream, "JPEG", **options)
    return tables_of(stream.getvalue())


@pytest.mark.parametrize("channels", [3, 1])
def test_every_quality_of_pillow_is_found_exactly(channels: int) -> None:
    found = [estimate_quality(written(channels, quality=quality)) for quality in range(1, 101)]
    assert found == list(range(1, 101))


def test_every_quality_of_opencv_is_found_exactly() -> None:
    for quality in range(1, 101):
        done, data = cv2.imencode(".jpg", noise(), [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert done
        assert estimate_quality(tables_of(data.tobytes())) == quality


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}, {"optimize": True}])
def test_how_the_scan_is_coded_does_not_matter(options: dict[str, Any]) -> None:
    assert estimate_quality(written(quality=83, **options)) == 83


@pytest.mark.parametrize("quality", [20, 50, 75, 90])
def test_tables_of_another_make_get_the_nearest_quality(quality: int) -> None:
    """Steps off by up to a fifth here and there, as programs with tables of their own have them."""
    rng = np.random.default_rng(quality)
    own = {
        number: np.maximum(1, np.rint(np.array(table) * rng.uniform(0.8, 1.2, 64))).astype(int).tolist()
        for number, table in written(quality=quality).items()
    }
    estimate = estimate_quality(own)
    assert estimate is not None
    assert abs(estimate - quality) <= 3


def test_a_flat_table_is_judged_by_its_steps() -> None:
    estimates = [estimate_quality({0: [step] * 64, 1: [step] * 64}) for step in (1, 2, 4, 8, 16, 32, 64, 128, 255)]
    assert estimates[0] == 100
    assert estimates[-1] == 1
    assert all(a is not None and b is not None and a > b for a, b in pairwise(estimates))


def test_one_table_for_all_components_is_enough_and_a_third_does_not_count() -> None:
    tables = written(quality=64)
    assert estimate_quality({3: tables[0]}) == 64
    assert estimate_quality({**tables, 2: [255] * 64}) == 64
    assert estimate_quality(dict(reversed(tables.items()))) == 64


def test_steps_of_sixteen_bits_count_as_the_coarsest() -> None:
    assert estimate_quality({0: [65_535] * 64}) == 1


@pytest.mark.parametrize(
    "lie",
    [
        {},
        {0: []},
        {0: [1] * 63},
        {0: [1] * 65},
        {0: [0] * 64},
        {0: [16] * 63 + [0]},
        {0: [-1] * 64},
        {0: [65_536] * 64},
        {0: [10**30] * 64},
        {0: [1.5] * 64},
        {0: ["x"] * 64},
        {0: [[1, 2], [3]] * 32},
        {0: [[1] * 64]},
        {0: [16] * 64, 1: [0] * 64},
    ],
    ids=repr,
)
def test_tables_that_cannot_be_true_give_no_estimate(lie: dict[int, Any]) -> None:
    assert estimate_quality(lie) is None
