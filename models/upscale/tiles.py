"""One picture through a network: its border, tiles where it is too large for one pass, eight views where asked.

Along each direction a picture is extended by `margin` pixels that repeat its edge, and at its end by what makes it fit
the network's `multiple`. What a network without inner padding gives up (`loss`) leaves the *inner* length, in which
tiles are counted: a tile owns a part of it, and is computed with `context` pixels of its true surroundings. So tiles
equal the whole up to float rounding, gates included: their means are found over the whole picture first.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.upscale.fit import RGB
from models.upscale.network import SqueezeExcite, UpscaleNetwork

Planes = npt.NDArray[np.float32]  # (3, H, W) RGB, 1 = full
Compute = Callable[[RGB], Planes]  # a padded (H, W, 3) uint8 piece to (3, scale * (H - 2 loss), scale * (W - 2 loss))

VIEWS = tuple((turned, upside, mirrored) for turned in (False, True) for upside in (False, True)
              for mirrored in (False, True))  # fmt: skip
"""The eight flips and rotations as (transposed, rows reversed, columns reversed), in the order they are summed."""


class Span(NamedTuple):
    """A tile along one direction, in inner pixels."""

    start: int  # what it owns
    stop: int
    first: int  # what is computed
    last: int


@dataclass(frozen=True)
class Tile:
    rows: Span
    columns: Span


def inner_side(network: UpscaleNetwork, side: int) -> int:
    """The inner length of a picture's side."""
    least = side + 2 * (network.margin - network.loss)
    return -(-least // network.multiple) * network.multiple


def border(network: UpscaleNetwork, side: int) -> tuple[int, int]:
    """Pixels that a side is extended by at its beginning and its end."""
    return network.margin, inner_side(network, side) + 2 * network.loss - side - network.margin


def surroundings(network: UpscaleNetwork) -> int:
    """Inner pixels that a tile needs beyond its own, a multiple of the network's."""
    beyond = max(0, network.context - network.loss)
    return -(-beyond // network.multiple) * network.multiple


def cut_tiles(network: UpscaleNetwork, height: int, width: int, tile_pixels: int) -> list[Tile]:
    """The tiles of a picture, row by row: one where height * width is at most ``tile_pixels``."""
    whole = height * width <= tile_pixels
    return [
        Tile(rows, columns)
        for rows in _cut_spans(network, height, tile_pixels, whole)
        for columns in _cut_spans(network, width, tile_pixels, whole)
    ]


def _cut_spans(network: UpscaleNetwork, side: int, tile_pixels: int, whole: bool) -> list[Span]:
    inner = inner_side(network, side)
    if whole:
        return [Span(0, inner, 0, inner)]
    beyond, step = surroundings(network), network.multiple
    # a tile's own part is at least as long as its surroundings, or nearly all work would be done twice
    most = max(int(tile_pixels**0.5) - 2 * beyond, beyond, step)
    number = -(-inner // most)
    own = -(-inner // (number * step)) * step
    return [
        Span(start, min(start + own, inner), max(0, start - beyond), min(start + own + beyond, inner))
        for start in range(0, inner, own)
    ]


def compute_picture(
    network: UpscaleNetwork,
    rgb: RGB,
    compute: Compute,
    tile_pixels: int,
    tta: bool,
    stop: Callable[[], None],
    run: Callable[[RGB], Any] | None = None,
) -> RGB:
    """One picture through the network once: (H, W, 3) uint8 to (scale * H, scale * W, 3).

    Args:
        network: says how large margins and tiles are.
        compute: the network itself on one padded piece, whoever runs it.
        tile_pixels: a picture with more pixels than this is done in tiles.
        tta: the mean of the eight views' results, each turned back, instead of one result.
        stop: called before each tile; raises when the work is to end.
        run: ``network`` itself on one padded piece, where it has gates and there may be tiles (see `whole_means`).
    """

    def compute_view(seen: RGB) -> Planes:
        tiles = cut_tiles(network, seen.shape[0], seen.shape[1], tile_pixels)
        with nullcontext() if run is None else whole_means(network, seen, tiles, run, stop):
            return _compute_tiles(network, seen, tiles, compute, stop)

    if not tta:
        return to_bytes(compute_view(rgb))
    total: Planes | None = None
    for view in VIEWS:
        result = turn_back(compute_view(turn(rgb, view)), view)
        total = result.copy() if total is None else np.add(total, result, out=total)
    assert total is not None
    return to_bytes(total / np.float32(len(VIEWS)))


def _compute_tiles(
    network: UpscaleNetwork, rgb: RGB, tiles: list[Tile], compute: Compute, stop: Callable[[], None]
) -> Planes:
    """(3, scale * H, scale * W)."""
    height, width = rgb.shape[:2]
    scale, cut = network.scale, network.scale * (network.margin - network.loss)
    padded = pad_picture(network, rgb)
    if len(tiles) == 1:
        stop()
        return compute(padded)[:, cut : cut + scale * height, cut : cut + scale * width]
    canvas = np.empty((3, scale * inner_side(network, height), scale * inner_side(network, width)), np.float32)
    for tile in tiles:
        stop()
        result = compute(take(network, padded, tile))
        inside = [slice(scale * (s.start - s.first), scale * (s.stop - s.first)) for s in (tile.rows, tile.columns)]
        top, bottom, left, right = (scale * n for n in (*tile.rows[:2], *tile.columns[:2]))
        canvas[:, top:bottom, left:right] = result[:, inside[0], inside[1]]
    return canvas[:, cut : cut + scale * height, cut : cut + scale * width]


def pad_picture(network: UpscaleNetwork, rgb: RGB) -> RGB:
    """A picture with the border that the network needs, repeating its edge."""
    return np.pad(rgb, (border(network, rgb.shape[0]), border(network, rgb.shape[1]), (0, 0)), mode="edge")


def take(network: UpscaleNetwork, padded: RGB, tile: Tile) -> RGB:
    """What is computed for a tile, out of the padded picture."""
    lost = 2 * network.loss
    return padded[tile.rows.first : tile.rows.last + lost, tile.columns.first : tile.columns.last + lost]


def turn(rgb: RGB, view: tuple[bool, bool, bool]) -> RGB:
    """A view of an (H, W, 3) picture: transposed first, then reversed."""
    turned, upside, mirrored = view
    seen = rgb.transpose(1, 0, 2) if turned else rgb
    return seen[:: -1 if upside else 1, :: -1 if mirrored else 1]


def turn_back(planes: Planes, view: tuple[bool, bool, bool]) -> Planes:
    """The (3, H, W) result of a view as the picture lies."""
    turned, upside, mirrored = view
    seen = planes[:, :: -1 if upside else 1, :: -1 if mirrored else 1]
    return seen.transpose(0, 2, 1) if turned else seen


def to_bytes(planes: Planes) -> RGB:
    """(3, H, W) float to (H, W, 3) uint8: clipped, rounded half to even."""
    return np.ascontiguousarray(np.rint(np.clip(planes, 0, 1) * np.float32(255)).astype(np.uint8).transpose(1, 2, 0))


class _GateReachedError(Exception):
    """A gate has seen what it came for: what lies behind it need not be computed."""


@contextmanager
def whole_means(
    network: UpscaleNetwork, rgb: RGB, tiles: list[Tile], run: Callable[[RGB], Any], stop: Callable[[], None]
) -> Iterator[None]:
    """Within the body every gate uses its mean over the whole picture, found in one pass over the tiles per gate.

    Args:
        network: on the device where ``run`` computes it. Its gates hold the picture's means for the body, so nobody
            else may use it meanwhile.
        run: the network on one padded piece.

    Later gates depend on earlier ones, so the passes follow the gates' order; each ends at its gate. Does nothing for a
    network without gates, or a picture that is one tile.
    """
    gates = network.gates
    if len(tiles) == 1 or not gates:
        yield
        return
    padded = pad_picture(network, rgb)
    maps = _map_sizes(network)
    try:
        for gate, sides in zip(gates, maps, strict=True):
            mean = _mean_over_tiles(network, gate, sides, padded, tiles, run, stop)
            gate.mean = mean.to(gate.squeeze.weight.dtype)
        yield
    finally:
        for gate in gates:
            gate.mean = None


def _mean_over_tiles(
    network: UpscaleNetwork,
    gate: SqueezeExcite,
    sides: tuple[int, int, int],
    padded: RGB,
    tiles: list[Tile],
    run: Callable[[RGB], Any],
    stop: Callable[[], None],
) -> Tensor:
    """(1, C) float64: each tile adds up what it owns of the gate's feature map."""
    total: Tensor | None = None
    count = 0
    seen: list[Tensor] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0])
        raise _GateReachedError

    lost = 2 * network.loss
    ends = padded.shape[0] - lost, padded.shape[1] - lost
    handle = gate.register_forward_pre_hook(look)
    try:
        for tile in tiles:
            stop()
            try:
                run(take(network, padded, tile))
            except _GateReachedError:
                feature = seen.pop()
            else:
                raise RuntimeError(f"{type(network).__name__} has a gate that it does not compute")
            rows, columns = _owned(tile.rows, ends[0], sides), _owned(tile.columns, ends[1], sides)
            part = feature[:, :, rows, columns].double()
            total = part.sum(dim=(2, 3)) if total is None else total + part.sum(dim=(2, 3))
            count += part.shape[2] * part.shape[3]
    finally:
        handle.remove()
    assert total is not None
    return total / count


def _owned(span: Span, inner: int, sides: tuple[int, int, int]) -> slice:
    """Which part of a tile's feature map is its own; the last tile owns the end as well.

    sides: the map of n inner pixels has n * up // down + rest positions.
    """
    up, down, rest = sides
    origin = span.first * up // down
    stop = inner * up // down + rest if span.stop == inner else span.stop * up // down
    return slice(span.start * up // down - origin, stop - origin)


def _map_sizes(network: UpscaleNetwork) -> list[tuple[int, int, int]]:
    """For each gate (up, down, rest): its feature map of n inner pixels has n * up // down + rest positions a side.

    Found from two sizes on torch's meta device, which computes shapes only.
    """
    shapes = copy.deepcopy(network).to("meta")
    found: list[int] = []
    for gate in shapes.gates:
        gate.mean = None
        gate.register_forward_pre_hook(lambda module, inputs: found.append(int(inputs[0].shape[2])))
    small = -(-64 // network.multiple) * network.multiple
    dtype = next(network.parameters()).dtype
    for inner in (small, 2 * small):
        side = inner + 2 * network.loss
        shapes(torch.zeros(1, 3, side, side, device="meta", dtype=dtype))
    half = len(found) // 2
    sizes = []
    for first, second in zip(found[:half], found[half:], strict=True):
        grown = second - first
        rest = first - grown
        if grown < 1 or rest < 0 or grown * network.multiple % small:
            raise ValueError(
                f"{type(network).__name__} has a gate whose feature map does not follow its tiles: "
                f"{first} and {second} positions for {small} and {2 * small} pixels"
            )
        sizes.append((grown, small, rest))
    return sizes
