import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.interpolate
import torch
from hypothesis import given, settings
from PIL import Image

from models.metrics.resizing import resize_matrix, resize_pictures


def with_pillow(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((256, 256), (128, 128)),
        ((97, 300), (128, 61)),  # one side grows, the other shrinks
        ((40, 33), (224, 299)),
        ((1000, 70), (128, 128)),
        ((1, 1), (5, 3)),
        ((300, 300), (299, 301)),
    ],
)
def test_it_is_what_pillow_does(old: tuple[int, int], new: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).random((3, *old), dtype=np.float32) * 255
    found = resize_pictures(torch.from_numpy(picture)[None], *new)
    assert found.shape == (1, 3, *new) and found.dtype == torch.float32
    for plane, resized in zip(picture, found[0].numpy(), strict=True):
        np.testing.assert_allclose(resized, with_pillow(plane, *new), atol=1e-4)


def test_enlarging_is_keys_interpolation() -> None:
    """scipy's Hermite spline with the central differences that Keys's kernel (1981) implies."""
    row = np.random.default_rng(1).random(40)
    spline = scipy.interpolate.CubicHermiteSpline(np.arange(1, 39), row[1:39], (row[2:40] - row[:38]) / 2)
    places = (np.arange(120) + 0.5) / 3 - 0.5
    inner = (places >= 1) & (places <= 38)
    found = resize_matrix(40, 120) @ row
    np.testing.assert_allclose(found[inner], spline(places[inner]), atol=1e-12)


def test_it_is_antialiased() -> None:
    board = torch.from_numpy(np.indices((256, 256)).sum(axis=0) % 2 * 255.0)[None, None]
    for side in (128, 100, 31):
        inner = resize_pictures(board, side, side)[..., 3:-3, 3:-3]
        assert (inner - 127.5).abs().max() < 8, side
    skipped = board[..., ::2, ::2]  # what a resize that skips pixels would see
    assert skipped.std() == 0 and skipped.mean() in (0, 255)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400))
def test_a_plain_picture_stays_plain_and_a_mirrored_one_mirrored(old: int, new: int) -> None:
    matrix = resize_matrix(old, new)
    assert matrix.shape == (new, old)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-12)


def test_the_same_size_changes_nothing() -> None:
    pictures = torch.rand(2, 3, 17, 9)
    assert torch.equal(resize_pictures(pictures, 17, 9), pictures)
    np.testing.assert_array_equal(resize_matrix(23, 23), np.eye(23))
    with pytest.raises(ValueError, match="at least one pixel"):
        resize_matrix(0, 4)
