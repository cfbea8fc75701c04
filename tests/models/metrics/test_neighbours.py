"""The nearest training pictures, copies among them, and the pictures that show them."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from models.metrics.figures import (
    CurvePoint,
    Distances,
    Neighbour,
    Suspect,
    draw_curve,
    draw_distances,
    draw_neighbours,
)
from models.metrics.neighbours import (
    SIDE,
    Nearest,
    Scale,
    find_nearest,
    group_twins,
    mirror_pixels,
    reduce_picture,
    scale_pixels,
    twin_limit,
)


def draw_set(seed: int, count: int) -> np.ndarray:
    """Smooth random pictures of one distribution, uint8 (count, 24, 24, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(128, 50, (count, 4, 4, 3)).clip(0, 255).astype(np.uint8)
    return np.stack([cv2.resize(one, (24, 24), interpolation=cv2.INTER_CUBIC) for one in coarse])


def reduce(pictures: np.ndarray) -> np.ndarray:
    return np.stack([reduce_picture(picture) for picture in pictures])


def keep(rows: np.ndarray) -> np.ndarray:
    """Rows that need no scaling."""
    return rows


def test_nearest_agrees_with_all_distances() -> None:
    rng = np.random.default_rng(0)
    queries, references = (rng.normal(size=(count, 20)).astype(np.float32) for count in (70, 9000))
    found = find_nearest(queries, references, keep)
    table = np.linalg.norm(queries[:, None].astype(np.float64) - references, axis=2)
    np.testing.assert_array_equal(found.references, table.argmin(axis=1))
    np.testing.assert_allclose(found.distances, table.min(axis=1), rtol=1e-5)
    assert not found.mirrored.any()
    assert found.references.max() > 8192  # beyond the second chunk
    same = find_nearest(references[8000:8500], references, keep)
    np.testing.assert_array_equal(same.references, np.arange(8000, 8500))
    assert (same.distances == 0).all()


def test_a_picture_is_not_compared_with_its_group() -> None:
    references = np.array([[0.0], [0.0], [1.0], [3.0]], np.float32)
    groups = np.array([0, 0, 1, 2])
    found = find_nearest(references, references, keep, None, groups, groups)
    np.testing.assert_array_equal(found.references, [2, 2, 0, 2])
    np.testing.assert_array_equal(found.distances, [1, 1, 1, 2])
    with pytest.raises(ValueError, match="copies of one"):
        find_nearest(references[:2], references[:2], keep, None, groups[:2], groups[:2])
    with pytest.raises(ValueError, match="no picture to compare with"):
        find_nearest(references, references[:0], keep)


def test_mirror_images_are_found_where_they_count() -> None:
    pixels = reduce(draw_set(0, 50))
    found = find_nearest(mirror_pixels(pixels), pixels, scale_pixels, pixels)
    np.testing.assert_array_equal(found.references, np.arange(50))
    assert found.mirrored.all()
    assert (found.distances == 0).all()
    assert (find_nearest(mirror_pixels(pixels), pixels, scale_pixels).distances > 10).all()
    np.testing.assert_array_equal(mirror_pixels(pixels), reduce(draw_set(0, 50)[:, :, ::-1]))


def test_many_references_are_never_copied_as_a_whole() -> None:
    references = np.random.default_rng(0).normal(5, 3, (60_000, 128)).astype(np.float32)  # 31 MB
    tracemalloc.start()
    try:
        scale = Scale.of(references)
        find_nearest(references[:100], references, scale.apply, references[100:200])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < references.nbytes / 2
    np.testing.assert_allclose(scale.mean, references.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(scale.deviation, references.std(axis=0, dtype=np.float64), rtol=1e-6)


def compress(picture: np.ndarray, quality: int) -> np.ndarray:
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1))


def test_copies_are_one_group_and_other_pictures_are_not() -> None:
    pictures = draw_set(0, 300)
    noise = np.random.default_rng(1).integers(-3, 4, (10, *pictures.shape[1:]))
    copies = [
        *(pictures[:10].astype(int) + noise).clip(0, 255).astype(np.uint8),
        *pictures[10:20, :, ::-1],
        *(compress(picture, 75) for picture in pictures[20:30]),
        *(compress(picture, 95)[:, ::-1] for picture in pictures[30:40]),
    ]
    pixels = reduce(np.stack([*pictures, *copies]))
    groups = group_twins(np.arange(340), pixels, np.arange(300), twin_limit(pixels))
    np.testing.assert_array_equal(groups[300:], groups[:40])
    assert len(np.unique(groups)) == 300


def test_what_was_made_of_one_is_a_group_and_copies_are_looked_for_of_some() -> None:
    pictures = draw_set(0, 30)
    pixels = reduce(np.stack([*pictures, *pictures[:10]]))
    origins = np.array([f"crop-{k}" for k in [*range(28), 0, 1, *range(100, 110)]])  # 28 and 29 were made of 0 and 1
    groups = group_twins(origins, pixels, np.array([1, 5, 37]), twin_limit(pixels))  # copies of 1, of 5, and of 7
    several = [np.flatnonzero(groups == group).tolist() for group in np.unique(groups) if (groups == group).sum() > 1]
    assert sorted(several) == [[0, 28], [1, 29, 31], [5, 35], [7, 37]]


def test_a_set_of_little_contrast_has_a_small_limit() -> None:
    pictures = draw_set(0, 300)
    faint = (128 + (pictures.astype(int) - 128) // 8).astype(np.uint8)
    limits = [twin_limit(reduce(each)) for each in (pictures, faint)]
    assert limits[1] == pytest.approx(limits[0] / 8, rel=0.05)
    pixels = reduce(faint)
    assert len(np.unique(group_twins(np.arange(300), pixels, np.arange(300), limits[1]))) == 300


def test_features_that_never_vary_count_for_nothing() -> None:
    features = np.random.default_rng(0).normal(3, 2, (500, 4)).astype(np.float32)
    features[:, 2] = 7
    scaled = Scale.of(features).apply(features)
    np.testing.assert_allclose(scaled.std(axis=0), [0.5, 0.5, 0, 0.5], atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 8), (16, 12), (64, 48), (5, 40)])
def test_any_picture_is_reduced(shape: tuple[int, int]) -> None:
    flat = np.full((*shape, 3), (10, 120, 250), np.uint8)
    reduced = reduce_picture(flat)
    assert reduced.shape == (SIDE * SIDE * 3,)
    assert (reduced.reshape(-1, 3) == (10, 120, 250)).all()


def test_figures_are_pictures(tmp_path: Path) -> None:
    pictures = draw_set(0, 4)
    suspects = [Suspect(k, one, Neighbour(one, 0.5), Neighbour(one[:, ::-1], 12.25)) for k, one in enumerate(pictures)]
    draw_neighbours(tmp_path / "neighbours.png", [("Nearest", suspects), ("At random", suspects[:1])])
    with Image.open(tmp_path / "neighbours.png") as image:
        assert image.width > 4 * 3 * 100
    distances = Distances("features", np.array([1.0, 2.0]), np.array([2.0, 2.5, 3.0]), 2.0, 0.5)
    draw_distances(tmp_path / "histogram.png", [distances, distances], "reals", "title")
    same = Distances("pixels", np.ones(3), np.ones(3), 1.0, 0.0)
    draw_distances(tmp_path / "same.png", [same], "reals", "all alike")
    points = [CurvePoint(nimg, 1 / nimg, 1e-5) for nimg in (4000, 8000, 12000)]
    draw_curve(tmp_path / "curve.png", points, CurvePoint(0, 0.0, 1e-6), "KID", "run")
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(files) == {"neighbours.png", "histogram.png", "same.png", "curve.png"}
    draw_curve(tmp_path / "curve.png", points, CurvePoint(0, 0.0, 1e-6), "KID", "run")
    assert (tmp_path / "curve.png").read_bytes() == files["curve.png"]


def test_nearest_of_some() -> None:
    found = Nearest(np.arange(3.0), np.arange(3), np.array([True, False, True]))
    np.testing.assert_array_equal(found.take(np.array([2, 0])).references, [2, 0])
