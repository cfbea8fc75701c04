"""ncnn against torch on the same weights, in pieces, in many threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch

from models.upscale.fit import RGB
from models.upscale.ncnn_backend import NcnnBackend, NcnnError, ncnn_present
from models.upscale.network import UpscaleNetwork
from models.upscale.torch_backend import TorchBackend

pytestmark = pytest.mark.skipif(not ncnn_present(), reason="the package ncnn is not installed")

Make = Callable[..., NcnnBackend]


@pytest.fixture
def make(load_real: Callable[..., UpscaleNetwork], real_ncnn_files: Callable[..., tuple[bytes, bytes]]) -> Make:
    """``make(name, noise="none", **settings)``: the backend with real weights."""

    def build(name: str, noise: str = "none", **settings: object) -> NcnnBackend:
        return NcnnBackend(load_real(name, noise), *real_ncnn_files(name, noise), **settings)  # type: ignore[arg-type]

    return build


def picture(height: int, width: int, seed: int = 0) -> RGB:
    """Smooth colours with a hard edge in them."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(2, height // 6), max(2, width // 6), 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    smooth[height // 3 : height // 2, width // 4 :] = (250, 30, 60)
    return np.asarray(smooth, np.uint8)


def largest(a: RGB, b: RGB) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b).max())


@pytest.mark.parametrize(
    ("name", "noise"),
    [
        ("upconv7", "none"),
        ("upconv7", "2"),
        ("cunet", "none"),
        ("cunet-denoise", "1"),
        ("realesr-animevideov3", "none"),
    ],
)
def test_both_backends_agree(make: Make, load_real: Callable[..., UpscaleNetwork], name: str, noise: str) -> None:
    network = load_real(name, noise)
    in_torch = TorchBackend(network, torch.device("cpu"))
    in_ncnn = make(name, noise)
    for rgb in (picture(61, 46), picture(1, 1)):
        result = in_ncnn.enlarge(rgb)
        assert result.shape == (network.scale * rgb.shape[0], network.scale * rgb.shape[1], 3)
        assert result.dtype == np.uint8
        assert largest(result, in_torch.enlarge(rgb)) <= 2


def test_tiles_and_eight_views(make: Make, load_real: Callable[..., UpscaleNetwork]) -> None:
    rgb = picture(70, 44)
    whole = make("upconv7").enlarge(rgb)
    tiled = make("upconv7", tile_pixels=30 * 30).enlarge(rgb)
    assert largest(whole, tiled) <= 1 and float((whole != tiled).mean()) < 1e-3
    views = make("upconv7", tta=True).enlarge(rgb)
    assert largest(views, TorchBackend(load_real("upconv7"), torch.device("cpu"), tta=True).enlarge(rgb)) <= 2
    assert largest(views, whole) > 2


def test_threads_do_not_disturb_each_other(make: Make) -> None:
    backend = make("upconv7")
    pictures = [picture(20 + 3 * k, 30, k) for k in range(8)]
    alone = [backend.enlarge(rgb) for rgb in pictures]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            for result, wanted in zip(pool.map(backend.enlarge, pictures), alone, strict=True):
                np.testing.assert_array_equal(result, wanted)


def test_a_gate_never_sees_a_tile_only(make: Make) -> None:
    rgb = picture(40, 50)
    with pytest.raises(NcnnError, match="backend 'torch'"):
        make("cunet", tile_pixels=900).enlarge(rgb)
    given = []

    def fall_back(large: RGB, stop: Callable[[], None]) -> RGB:
        given.append(large.shape)
        return large

    make("cunet", tile_pixels=900, fallback=fall_back).enlarge(rgb)
    assert given == [(40, 50, 3)]


def test_files_that_ncnn_does_not_read_are_refused(
    load_real: Callable[..., UpscaleNetwork], real_ncnn_files: Callable[..., tuple[bytes, bytes]]
) -> None:
    param, weights = real_ncnn_files("upconv7")
    network = load_real("upconv7")
    with pytest.raises(NcnnError, match=r"\.param"):
        NcnnBackend(network, b"no network", weights)
    with pytest.raises(NcnnError, match=r"\.bin"):
        NcnnBackend(network, param, weights[:100])
