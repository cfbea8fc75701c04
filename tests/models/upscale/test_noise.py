"""The noise level that a JPEG's quality asks for: its bounds, and what it does to pictures."""

import io
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from models.upscale.fit import RGB
from models.upscale.network import UpscaleNetwork
from models.upscale.noise import FLOORS, LAST, choose_noise
from models.upscale.torch_backend import TorchBackend

WEAKEST_FIRST = ("none", "0", "1", "2", "3")


@pytest.mark.parametrize(
    ("quality", "level"),
    [(100, "none"), (97, "none"), (96.9, "0"), (86, "0"), (85, "1"), (67, "1"), (66, "3"), (1, "3"), (None, "none")],
)
def test_levels_at_their_bounds(quality: float | None, level: str) -> None:
    assert choose_noise(quality) == level


def test_a_harder_compressed_file_never_gets_a_weaker_level() -> None:
    levels = [WEAKEST_FIRST.index(choose_noise(quality)) for quality in range(1, 101)]
    assert levels == sorted(levels, reverse=True)
    assert {WEAKEST_FIRST[level] for level in levels} == {LAST, *(level for _, level in FLOORS)}


def drawing() -> RGB:
    """256 x 256: outlined shapes in flat colours on a gradient, as drawings are."""
    rng = np.random.default_rng(5)
    ramp = np.linspace(150, 240, 1024)
    large = np.stack([np.add.outer(ramp, ramp[::-1]) / 2 - shade for shade in (0, 20, 60)], axis=2).astype(np.uint8)
    for _ in range(14):
        centre, axes = rng.integers(100, 924, 2), rng.integers(40, 240, 2)
        colour = rng.integers(40, 256, 3).tolist()
        at, size, turn = tuple(centre.tolist()), tuple(axes.tolist()), float(rng.uniform(0, 180))
        cv2.ellipse(large, at, size, turn, 0, 360, colour, -1, cv2.LINE_AA)
        cv2.ellipse(large, at, size, turn, 0, 360, (30, 20, 40), 9, cv2.LINE_AA)
    return np.asarray(Image.fromarray(large).reduce(4))


def measure_errors(load_real: Callable[..., UpscaleNetwork], quality: int | None) -> dict[str, float]:
    """Mean squared error by level, of a halved drawing that was stored as JPEG and enlarged again."""
    original = drawing()
    small = Image.fromarray(original).reduce(2)
    if quality is not None:
        stream = io.BytesIO()
        small.save(stream, "JPEG", quality=quality)
        small = Image.open(stream).convert("RGB")
    errors = {}
    for level in WEAKEST_FIRST:
        network = TorchBackend(load_real("upconv7", level), torch.device("cpu"))
        errors[level] = float(np.mean((network.enlarge(np.asarray(small)).astype(float) - original) ** 2))
    return errors


@pytest.mark.parametrize("quality", [30, 75, 90])
def test_the_level_chosen_brings_back_more(load_real: Callable[..., UpscaleNetwork], quality: int) -> None:
    errors = measure_errors(load_real, quality)
    level = choose_noise(quality)
    assert level != "none"
    assert errors[level] < 0.95 * errors["none"]
    assert errors[level] < 1.1 * min(errors.values())  # the best, or as good as the best


def test_no_level_is_best_for_what_was_never_compressed(load_real: Callable[..., UpscaleNetwork]) -> None:
    errors = measure_errors(load_real, None)
    assert min(errors, key=lambda level: errors[level]) == choose_noise(None) == "none"
