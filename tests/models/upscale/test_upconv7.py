import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.upscale.upconv7 import MARGIN, UpConv7, load_upconv7, upscale2x, weight_name
from models.weights import MissingWeightError, read_weight

PORTRAITS = Path(__file__).parents[4] / "shared" / "data" / "portraits256"
RGB = np.ndarray


@pytest.fixture(scope="module")
def untrained() -> UpConv7:
    """The architecture with random weights: what does not depend on the values is tested without any file."""
    torch.manual_seed(0)
    return UpConv7().eval().requires_grad_(False)


def picture(height: int, width: int, seed: int = 0) -> RGB:
    """A smooth coloured picture with a hard edge in it."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(2, height // 6), max(2, width // 6), 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    smooth[height // 3 : height // 2, width // 4 :] = (250, 30, 60)
    return smooth


def convolve(x: RGB, w: RGB, b: RGB) -> RGB:
    """(C, H, W) and (O, C, 3, 3): a valid correlation, written out tap by tap."""
    height, width = x.shape[1] - 2, x.shape[2] - 2
    out = np.zeros((w.shape[0], height, width)) + b[:, None, None]
    for dy in range(3):
        for dx in range(3):
            out += np.tensordot(w[:, :, dy, dx], x[:, dy : dy + height, dx : dx + width], axes=1)
    return out


def reference(arrays: dict[str, RGB], rgb: RGB) -> RGB:
    """upconv_7 in numpy float64, from the definition: every input pixel is spread over 4 x 4 output pixels."""
    x = np.pad(rgb, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), mode="edge").transpose(2, 0, 1) / 255.0
    for k in range(1, 7):
        x = convolve(x, arrays[f"conv{k}/W"].astype(float), arrays[f"conv{k}/b"].astype(float))
        x = np.where(x > 0, x, 0.1 * x)
    w = arrays["conv7/W"].astype(float)
    spread = np.zeros((3, 2 * x.shape[1] + 2, 2 * x.shape[2] + 2))
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            spread[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += np.tensordot(x[:, i, j], w, axes=1)
    inner = spread[:, 3:-3, 3:-3]
    return np.rint(np.clip(inner, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)


def psnr(a: RGB, b: RGB) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2)))


def test_equals_an_independent_implementation(network: UpConv7) -> None:
    with np.load(io.BytesIO(read_weight("waifu2x-upconv7-art-scale")), allow_pickle=False) as arrays:
        expected = reference(dict(arrays), picture(13, 18))
    result = upscale2x(network, picture(13, 18))
    assert result.shape == (26, 36, 3) and result.dtype == np.uint8
    assert int(np.abs(result.astype(int) - expected).max()) <= 1


def test_is_two_decibels_better_than_bicubic(network: UpConv7) -> None:
    paths = sorted(PORTRAITS.glob("*.jpg"))[::150]
    if not paths:
        pytest.skip(f"no pictures in {PORTRAITS}")
    gains = []
    for path in paths:
        bgr = cv2.imread(str(path))
        assert bgr is not None
        original = bgr[..., ::-1].copy()
        small = cv2.resize(original, (128, 128), interpolation=cv2.INTER_AREA)
        bicubic = cv2.resize(small, (256, 256), interpolation=cv2.INTER_CUBIC)
        gains.append(psnr(upscale2x(network, np.asarray(small, np.uint8)), original) - psnr(bicubic, original))
    assert np.mean(gains) > 2.0 and min(gains) > 0


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (16, 16), (33, 21)])
def test_every_size_is_doubled(untrained: UpConv7, height: int, width: int) -> None:
    assert upscale2x(untrained, picture(height, width)).shape == (2 * height, 2 * width, 3)


@pytest.mark.parametrize("tile_pixels", [100, 400, 1000])
def test_tiles_equal_the_whole(untrained: UpConv7, tile_pixels: int) -> None:
    rgb = picture(47, 38)
    whole, tiled = upscale2x(untrained, rgb), upscale2x(untrained, rgb, tile_pixels)
    assert int(np.abs(whole.astype(int) - tiled.astype(int)).max()) <= 1
    assert float((whole != tiled).mean()) < 1e-3


def test_same_bytes_every_time_and_flat_colours_stay(network: UpConv7) -> None:
    rgb = picture(40, 40, seed=3)
    assert upscale2x(network, rgb).tobytes() == upscale2x(network, rgb).tobytes()
    flat = np.full((10, 10, 3), (200, 100, 50), np.uint8)
    assert int(np.abs(upscale2x(network, flat).astype(int) - flat[0, 0]).max()) <= 3


def test_noise_levels_have_their_own_weights() -> None:
    names = [weight_name(level) for level in ("none", "0", "1", "2", "3")]
    assert len(set(names)) == 5 and all("upconv7" in name for name in names)
    with pytest.raises(ValueError, match="noise level"):
        weight_name("4")  # type: ignore[arg-type]


def test_bad_pictures_and_missing_weights_are_refused(
    untrained: UpConv7, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bad in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            upscale2x(untrained, bad)  # type: ignore[arg-type]
    monkeypatch.delenv("KAOBAKO_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(MissingWeightError, match="kaobako weights fetch waifu2x-upconv7-art-scale"):
        load_upconv7()
