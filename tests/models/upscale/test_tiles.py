"""Tiles equal the whole picture, for every kind of network: without padding, with padding inside, with gates."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.upscale.fit import RGB
from models.upscale.network import SqueezeExcite, UpscaleNetwork
from models.upscale.tiles import (
    VIEWS,
    border,
    compute_picture,
    cut_tiles,
    inner_side,
    pad_picture,
    take,
    to_bytes,
    turn,
    turn_back,
    whole_means,
)
from models.upscale.torch_backend import TorchBackend

CPU = torch.device("cpu")


class Valid(UpscaleNetwork):
    """As upconv_7, but small."""

    scale, margin, loss, context = 2, 3, 3, 3

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.enlarge = nn.ConvTranspose2d(8, 3, 4, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.enlarge(F.leaky_relu(self.second(F.leaky_relu(self.first(x), 0.1)), 0.1))
        return result


class Gated(UpscaleNetwork):
    """As a U-Net: gates at full and at half the size, cells of 2 x 2."""

    scale, margin, loss, context, multiple = 2, 4, 4, 4, 2

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.gate = nn.Conv2d(3, 8, 3), SqueezeExcite(8, 4)
        self.shrink, self.inner, self.inner_gate = nn.Conv2d(8, 8, 2, 2), nn.Conv2d(8, 8, 3), SqueezeExcite(8, 4)
        self.grow, self.enlarge = nn.ConvTranspose2d(8, 8, 2, 2), nn.ConvTranspose2d(8, 3, 4, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.gate(F.leaky_relu(self.enter(x), 0.1))
        x = self.inner_gate(F.leaky_relu(self.inner(self.shrink(x)), 0.1))
        result: Tensor = self.enlarge(F.leaky_relu(self.grow(x), 0.1))
        return result


class Padded(UpscaleNetwork):
    """As the ESRGAN family: zeros around the padded picture, nothing lost; here with a gate and cells of 2 x 2."""

    scale, margin, loss, context, multiple = 2, 5, 0, 6, 2

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate = nn.Conv2d(12, 8, 3, padding=1), SqueezeExcite(8, 4)
        self.second, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 48, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.first(F.pixel_unshuffle(x, 2)), 0.1)
        x = F.leaky_relu(self.second(self.gate(x)), 0.1)
        return F.pixel_shuffle(self.last(x), 4)


def make(kind: type[UpscaleNetwork]) -> UpscaleNetwork:
    """Random weights whose results fill the range, and whose gates react to the mean."""
    torch.manual_seed(1)
    network = kind().eval().requires_grad_(False)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)  # constants would drown what the gates do
        if isinstance(layer, nn.Linear):
            layer.weight.normal_(std=3)
    side = inner_side(network, 40) + 2 * network.loss
    sample = network(torch.rand(1, 3, side, side))
    last = list(network.children())[-1]
    assert isinstance(last, nn.Conv2d | nn.ConvTranspose2d) and last.bias is not None
    last.weight *= 0.2 / sample.std()
    last.bias += 0.5 - 0.2 * float(sample.mean() / sample.std())
    return network


def picture(height: int, width: int, seed: int = 0) -> RGB:
    """Dark on the left and bright on the right, so that a tile's mean is far from the picture's."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(0, 200, width)[None, :, None] + np.zeros((height, width, 3))
    return (slope + rng.integers(0, 56, slope.shape)).astype(np.uint8)


def run(network: UpscaleNetwork) -> Callable[[RGB], Tensor]:
    def compute(piece: RGB) -> Tensor:
        planes = torch.from_numpy(np.ascontiguousarray(piece)).permute(2, 0, 1)[None].float() / 255
        result: Tensor = network(planes)
        return result

    return compute


def enlarge(network: UpscaleNetwork, rgb: RGB, tile_pixels: int, means: bool = True, tta: bool = False) -> RGB:
    forward = run(network)

    def compute(piece: RGB) -> np.ndarray:
        return np.asarray(forward(piece)[0].numpy())

    with torch.inference_mode():
        return compute_picture(network, rgb, compute, tile_pixels, tta, lambda: None, run=forward if means else None)


def largest(a: RGB, b: RGB) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b).max())


@pytest.mark.parametrize("kind", [Valid, Gated, Padded])
@pytest.mark.parametrize("size", [(1, 1), (1, 30), (23, 47), (64, 33)])
def test_every_size_comes_out_and_its_middle_is_computed_from_true_pixels(
    kind: type[UpscaleNetwork], size: tuple[int, int]
) -> None:
    network, rgb = make(kind), picture(*size)
    whole = enlarge(network, rgb, 10**9)
    assert whole.shape == (2 * size[0], 2 * size[1], 3) and np.ptp(whole) > 20
    padded = run(network)(pad_picture(network, rgb))[0].numpy()
    cut = 2 * (network.margin - network.loss)
    np.testing.assert_array_equal(whole, to_bytes(padded[:, cut : cut + 2 * size[0], cut : cut + 2 * size[1]]))


@pytest.mark.parametrize("kind", [Valid, Gated, Padded])
@pytest.mark.parametrize("tile_pixels", [120, 300, 900])
def test_tiles_equal_the_whole(kind: type[UpscaleNetwork], tile_pixels: int) -> None:
    network, rgb = make(kind), picture(59, 73)
    assert len(cut_tiles(network, 59, 73, tile_pixels)) > 4
    whole, tiled = enlarge(network, rgb, 10**9), enlarge(network, rgb, tile_pixels)
    assert largest(whole, tiled) <= 1
    assert float((whole != tiled).mean()) < 1e-3
    assert all(gate.mean is None for gate in network.gates)


@pytest.mark.parametrize("kind", [Gated, Padded])
def test_gates_need_the_mean_of_the_whole(kind: type[UpscaleNetwork]) -> None:
    network, rgb = make(kind), picture(59, 73)
    whole = enlarge(network, rgb, 10**9)
    assert largest(whole, enlarge(network, rgb, 300, means=False)) > 8  # what the passes over the tiles are for
    assert largest(whole, enlarge(network, rgb, 300)) <= 1


def test_an_error_in_a_pass_leaves_no_mean_behind() -> None:
    network, rgb = make(Gated), picture(40, 40)
    calls: list[RGB] = []

    def fail(piece: RGB) -> Tensor:
        calls.append(piece)
        if len(calls) == len(tiles) + 2:  # in the second gate's passes
            raise RuntimeError("broken")
        return run(network)(piece)

    tiles = cut_tiles(network, 40, 40, 200)
    with pytest.raises(RuntimeError, match="broken"), whole_means(network, rgb, tiles, fail, lambda: None):
        pytest.fail("the body was reached")
    assert len(calls) == len(tiles) + 2 and all(gate.mean is None for gate in network.gates)
    assert not any(module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("kind", [Valid, Gated, Padded])
@pytest.mark.parametrize("size", [(59, 73), (17, 200)])
def test_tiles_own_every_pixel_once_within_the_budget(kind: type[UpscaleNetwork], size: tuple[int, int]) -> None:
    network = make(kind)
    tiles = cut_tiles(network, *size, 1600)
    owned = np.zeros([inner_side(network, side) for side in size], int)
    padded = np.zeros((*(side + sum(border(network, side)) for side in size), 3), np.uint8)
    for tile in tiles:
        owned[tile.rows.start : tile.rows.stop, tile.columns.start : tile.columns.stop] += 1
        assert tile.rows.first % network.multiple == tile.columns.first % network.multiple == 0
        height, width = take(network, padded, tile).shape[:2]
        assert (height - 2 * network.loss) * (width - 2 * network.loss) <= 1600
    assert owned.min() == owned.max() == 1


@pytest.mark.parametrize("kind", [Valid, Gated])
@pytest.mark.parametrize("tile_pixels", [300, 10**9])
def test_eight_views_know_no_side(kind: type[UpscaleNetwork], tile_pixels: int) -> None:
    network, rgb = make(kind), picture(38, 29)
    straight = enlarge(network, rgb, 10**9, tta=True)
    assert largest(straight, enlarge(network, rgb, 10**9)) > 3  # one view alone is another result
    for view in VIEWS:
        seen = enlarge(network, np.ascontiguousarray(turn(rgb, view)), tile_pixels, tta=True)
        assert largest(straight, np.moveaxis(turn_back(np.moveaxis(seen, 2, 0), view), 0, 2)) <= 1


def test_every_view_is_another_and_is_turned_back() -> None:
    rgb = picture(5, 7)
    seen = {turn(rgb, view).tobytes() for view in VIEWS}
    assert len(seen) == 8
    for view in VIEWS:
        np.testing.assert_array_equal(turn_back(np.moveaxis(turn(rgb, view), 2, 0), view), np.moveaxis(rgb, 2, 0))


@pytest.mark.parametrize("name", ["upconv7", "cunet", "upresnet10", "realesr-animevideov3"])
def test_real_networks_in_tiles(load_real: Callable[..., UpscaleNetwork], name: str) -> None:
    backend = TorchBackend(load_real(name), CPU)
    rgb = picture(50, 41)
    whole = backend.enlarge(rgb)
    tiled = backend.enlarge_in_tiles(rgb, 26 * 26)
    assert largest(whole, tiled) <= 1 and float((whole != tiled).mean()) < 1e-3


def test_stop_is_asked_before_every_tile() -> None:
    network, rgb = make(Gated), picture(40, 40)
    asked: list[int] = []
    tiles = cut_tiles(network, 40, 40, 400)
    with whole_means(network, rgb, tiles, run(network), lambda: asked.append(1)):
        assert len(asked) == 2 * len(tiles)
