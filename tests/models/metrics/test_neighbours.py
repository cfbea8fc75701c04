"""Memorisation on constructed sets: a generator that repeats its pictures is caught, another is not."""

from __future__ import annotations

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
    Memorisation,
    Nearest,
    Scale,
    find_nearest,
    judge_memorisation,
    most_suspicious,
    reduce_picture,
    scale_pixels,
)

TRAINING, SAMPLES = 600, 500


def draw_set(seed: int, count: int) -> np.ndarray:
    """Smooth random pictures of one distribution, uint8 (count, 24, 24, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(128, 50, (count, 4, 4, 3)).clip(0, 255).astype(np.uint8)
    return np.stack([cv2.resize(one, (24, 24), interpolation=cv2.INTER_CUBIC) for one in coarse])


def look(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features of a sort, float32 (N, 48), and reduced pixels."""
    pixels = np.stack([reduce_picture(picture) for picture in pictures])
    features = np.stack([cv2.resize(one, (4, 4), interpolation=cv2.INTER_AREA) for one in pictures]).reshape(-1, 48)
    return np.sqrt(features.astype(np.float32)), pixels


def judge(training: np.ndarray, samples: np.ndarray, mirrored: bool = False) -> list[Memorisation]:
    """What is found by features and by pixels, with leave-one-out as the yardstick."""
    identities = np.unique(training.reshape(len(training), -1), axis=0, return_inverse=True)[1].reshape(-1)
    found = []
    scale = Scale.of(look(training)[0])
    for kind in range(2):
        scaled = [scale.apply, scale_pixels][kind]
        references = scaled(look(training)[kind])
        flips = [scaled(look(each[:, :, ::-1])[kind]) if mirrored else None for each in (samples, training)]
        near = find_nearest(scaled(look(samples)[kind]), references, flips[0])
        usual = find_nearest(references, references, flips[1], identities, identities)
        found.append(judge_memorisation(near.distances, usual.distances))
    return found


def with_noise(pictures: np.ndarray, seed: int = 9) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 4, pictures.shape)
    return np.clip(pictures + noise, 0, 255).astype(np.uint8)


def test_repeated_training_pictures_are_caught_and_fresh_ones_are_not() -> None:
    training = draw_set(0, TRAINING)
    for judged in judge(training, with_noise(training[:SAMPLES])):
        assert judged.share > 0.98
        assert "repeats training pictures" in judged.verdict()
    for judged in judge(training, draw_set(1, SAMPLES)):
        assert judged.share < judged.limit < 0.04
        assert "no sign of memorisation" in judged.verdict()


def test_a_part_that_is_repeated_is_noticed() -> None:
    training = draw_set(0, TRAINING)
    samples = np.concatenate([with_noise(training[:30]), draw_set(1, SAMPLES - 30)])
    for judged in judge(training, samples):
        assert judged.limit < judged.share < 0.1
        assert "some training pictures" in judged.verdict()


def test_mirror_images_of_training_pictures_are_caught_where_the_training_mirrored() -> None:
    training = draw_set(0, TRAINING)
    samples = with_noise(training[:SAMPLES, :, ::-1])
    assert all(judged.share > 0.98 for judged in judge(training, samples, mirrored=True))
    assert all(judged.share < 0.1 for judged in judge(training, samples, mirrored=False))
    assert all(judged.share < judged.limit for judged in judge(training, draw_set(1, SAMPLES), mirrored=True))


def test_exact_copies_in_the_training_set_do_not_hide_memorisation() -> None:
    """With each picture twice, every other distance would be 0, and nothing could be nearer."""
    training = draw_set(0, TRAINING)
    doubled = np.concatenate([training, training])
    for judged in judge(doubled, with_noise(training[:SAMPLES])):
        assert judged.threshold > 0
        assert judged.share > 0.98


def test_nearest_agrees_with_all_distances() -> None:
    rng = np.random.default_rng(0)
    queries, references = (rng.normal(size=(count, 20)).astype(np.float32) for count in (700, 300))
    found = find_nearest(queries, references)
    table = np.linalg.norm(queries[:, None].astype(np.float64) - references, axis=2)
    np.testing.assert_array_equal(found.references, table.argmin(axis=1))
    np.testing.assert_allclose(found.distances, table.min(axis=1), rtol=1e-5)
    assert not found.mirrored.any()
    same = find_nearest(references, references)
    np.testing.assert_array_equal(same.references, np.arange(300))
    assert (same.distances == 0).all()


def test_a_picture_is_never_its_own_neighbour() -> None:
    references = np.array([[0.0], [0.0], [1.0], [3.0]], np.float32)
    identities = np.array([0, 0, 1, 2])
    found = find_nearest(references, references, None, identities, identities)
    np.testing.assert_array_equal(found.references, [2, 2, 0, 2])
    np.testing.assert_array_equal(found.distances, [1, 1, 1, 2])
    with pytest.raises(ValueError, match="exact copies of one"):
        find_nearest(references[:2], references[:2], None, identities[:2], identities[:2])
    with pytest.raises(ValueError, match="no picture to compare with"):
        find_nearest(references, references[:0])


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


def test_suspects_are_those_that_either_distance_accuses() -> None:
    features, pixels = np.array([0.9, 0.1, 5, 5]), np.array([50, 50, 2, 50.0])
    judged = [Memorisation(0.5, 1.0, 4, 100), Memorisation(0.25, 10.0, 4, 100)]
    suspects = most_suspicious(list(zip((features, pixels), judged, strict=True)), 3)
    np.testing.assert_array_equal(suspects, [1, 2, 0])
    with pytest.raises(ValueError, match="distances of samples and reals"):
        judge_memorisation(features, np.empty(0))


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
