"""Networks in torch: pictures of equal padded size go through together, in batches whose shape never varies.

A batch that is not full is filled up with zeros, so a picture's result does not depend on which others are there, or
how many. A picture too large for a batch goes alone, in tiles.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.upscale.fit import RGB
from models.upscale.network import UpscaleNetwork
from models.upscale.precision import DTYPES, Precision, exact_arithmetic
from models.upscale.tiles import VIEWS, Planes, border, compute_picture

Speedup = Literal["none", "compile", "graphs"]

TILE_PIXELS = 512 * 512  # input pixels in one pass on a CPU: about 600 MB for upconv_7 in float32
GRANULARITY = 16  # pixels; sides are rounded up to it, so that pictures of nearly equal size share a batch
MAX_BATCH = 64
BYTES_PER_PIXEL = 12_000  # of activations per input pixel at twice the size, generously
SMALLEST_TILE = 64 * 64


class TooLargeError(RuntimeError):
    """A picture does not fit into the device's memory, not even in small tiles."""


class Bucket(NamedTuple):
    """The size that pictures are brought to, by repeating their edges, to go through together."""

    height: int
    width: int
    batch: int  # pictures in one pass


def batch_pixels(device: torch.device) -> int:
    """Input pixels in one pass: from the device's whole memory, not from what is free, so that shapes are constant."""
    if device.type != "cuda":
        return 0  # one picture at a time
    memory = torch.cuda.get_device_properties(device).total_memory
    return 1 << max(0, (memory // 3 // BYTES_PER_PIXEL).bit_length() - 1)


class TorchBackend:
    """One network on one device. Any thread may call it; in a process one computes at a time."""

    def __init__(
        self,
        network: UpscaleNetwork,
        device: torch.device,
        precision: Precision = "float32",
        tta: bool = False,
        speedup: Speedup = "none",
        pixels: int | None = None,
        tile_pixels: int | None = None,
    ) -> None:
        """
        Args:
            network: is copied.
            precision: of the arithmetic; results come back in 8 bits whatever it is.
            tta: the mean of eight flips and rotations.
            speedup: "compile" (torch.compile, for the first eight buckets) or "graphs" (CUDA graphs, CUDA only). Both
                prepare once per bucket, which takes seconds, so they are for many pictures of few sizes.
            pixels: input pixels in one pass; None: by the device's memory, on a CPU one picture.
            tile_pixels: a picture with more than this goes alone, in tiles; None: by the device.

        Raises ValueError for graphs without CUDA.
        """
        if speedup == "graphs" and device.type != "cuda":
            raise ValueError(f"CUDA graphs need a CUDA device, not {device}: choose speedup 'none'")
        self.device = device
        self.network: UpscaleNetwork = copy.deepcopy(network).eval().requires_grad_(False)
        self.network = self.network.to(device=device, dtype=DTYPES[precision], memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.name = f"torch {device.type} {precision}" + ("" if speedup == "none" else f" {speedup}")
        self.tta = tta
        self._dtype = DTYPES[precision]
        growth = max(1, network.scale // 2) ** 2  # what a network of scale 4 makes at its end is four times as large
        self._pixels = batch_pixels(device) // growth if pixels is None else pixels
        self.tile_pixels = max(TILE_PIXELS // growth, self._pixels // 4) if tile_pixels is None else tile_pixels
        self._at_most: dict[Bucket, int] = {}  # what memory has turned out to allow
        self._run: Callable[[Tensor], Tensor] = (
            torch.compile(self.network, dynamic=False) if speedup == "compile" else self.network
        )
        self._graphs: dict[torch.Size, _Graph] | None = {} if speedup == "graphs" else None
        self._copying = torch.cuda.Stream(device) if device.type == "cuda" else None

    def bucket(self, height: int, width: int) -> Bucket | None:
        """Where pictures of this size go; None: alone, in tiles. It depends on the size and the settings only.

        Sides are rounded up only for networks that convolve without padding and have no gates: for them the picture's
        part of the result is the same however often its edge is repeated.
        """
        if height * width > self.tile_pixels:
            return None
        batched = self._pixels > 0
        if batched and self.network.loss > 0 and not self.network.gates:
            height, width = (-(-side // GRANULARITY) * GRANULARITY for side in (height, width))
        fitting = self._pixels // (height * width)
        batch = 1 << max(0, fitting.bit_length() - 1) if batched and fitting else 1
        return Bucket(height, width, min(batch, MAX_BATCH))

    def enlarge(self, rgb: RGB, stop: Callable[[], None] = lambda: None) -> RGB:
        """One picture: (H, W, 3) uint8 to (scale * H, scale * W, 3), the same bytes as in company.

        On a GPU the pass has the shape of a full batch, so for many pictures `launch` is much faster. Raises
        `TooLargeError`, and what ``stop`` raises when it is called between tiles.
        """
        bucket = self.bucket(*rgb.shape[:2])
        if bucket is None:
            return self.enlarge_in_tiles(rgb, self.tile_pixels, stop)
        result = self.launch([rgb], bucket).collect()[0]
        if isinstance(result, Exception):
            raise result
        return np.ascontiguousarray(result)

    def launch(self, pictures: Sequence[RGB], bucket: Bucket) -> Launched:
        """Start one bucket's batch. On a GPU this returns before the work is done: `Launched.collect` waits for it.

        When memory runs out the batch is halved, as often as it takes, and stays so for this bucket. A single picture
        that does not fit goes in tiles.
        """
        with exact_arithmetic(), torch.inference_mode():
            parts: list[_Part] = []
            done = 0
            while done < len(pictures):
                batch = self._at_most.get(bucket, bucket.batch)
                some = pictures[done : done + batch]
                try:
                    parts.append(self._launch_part(some, bucket, batch))
                except torch.OutOfMemoryError:
                    self._free()
                    if batch > 1:
                        self._at_most[bucket] = batch // 2
                        continue
                    parts.append(_Part(some, None, None, [self._squeeze_in(some[0])]))
                done += len(some)
            return Launched(self.network.scale, parts)

    def enlarge_in_tiles(self, rgb: RGB, tile_pixels: int, stop: Callable[[], None] = lambda: None) -> RGB:
        """One picture alone, in tiles of at most ``tile_pixels``; smaller ones where memory runs out."""
        with exact_arithmetic(), torch.inference_mode():
            while True:
                try:
                    return compute_picture(
                        self.network, rgb, self._compute, tile_pixels, self.tta, stop, run=self._upload_and_run
                    )
                except torch.OutOfMemoryError as error:
                    self._free()
                    if tile_pixels <= SMALLEST_TILE:
                        height, width = rgb.shape[:2]
                        raise TooLargeError(
                            f"{width} x {height} pixels do not fit into the memory of {self.device}, not even in tiles "
                            f"of {SMALLEST_TILE} pixels: free memory, or choose device cpu"
                        ) from error
                    tile_pixels = max(SMALLEST_TILE, tile_pixels // 4)

    def _squeeze_in(self, rgb: RGB) -> RGB | Exception:
        try:
            return self.enlarge_in_tiles(rgb, max(SMALLEST_TILE, rgb.shape[0] * rgb.shape[1] // 4))
        except TooLargeError as error:
            return error

    def _free(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _upload_and_run(self, padded: RGB) -> Tensor:
        """One padded (H, W, 3) piece to (1, 3, H', W')."""
        pixels = torch.from_numpy(np.ascontiguousarray(padded)[None]).to(self.device)
        return self.network(_to_planes(pixels, self._dtype))

    def _compute(self, padded: RGB) -> Planes:
        return np.asarray(self._upload_and_run(padded)[0].float().cpu().numpy())

    def _launch_part(self, pictures: Sequence[RGB], bucket: Bucket, batch: int) -> _Part:
        pixels = _stack(pictures, bucket, batch, pinned=self._copying is not None)
        uploaded = pixels.to(self.device, non_blocking=True)
        enlarged = self._graph(uploaded) if self._graphs is not None else self._enlarge(uploaded)
        if self._copying is None:
            return _Part(pictures, enlarged, None, None)
        host = torch.empty(enlarged.shape, dtype=torch.uint8, pin_memory=True)
        self._copying.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._copying):
            host.copy_(enlarged, non_blocking=True)
            enlarged.record_stream(self._copying)
            copied = torch.cuda.Event()
            copied.record(self._copying)
        return _Part(pictures, host, copied, None)

    def _enlarge(self, pixels: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 to (N, scale * H, scale * W, 3) uint8, on the device."""
        planes = _to_planes(pixels, self._dtype)
        if not self.tta:
            return _to_pixels(self._enlarge_view(planes))
        total: Tensor | None = None
        for view in VIEWS:
            result = turn_back(self._enlarge_view(turn(planes, view)), view).float()
            total = result.clone() if total is None else total.add_(result)
        assert total is not None
        return _to_pixels(total / len(VIEWS))

    def _enlarge_view(self, planes: Tensor) -> Tensor:
        height, width = planes.shape[2:]
        scale, cut = self.network.scale, self.network.scale * (self.network.margin - self.network.loss)
        sides = (*border(self.network, width), *border(self.network, height))
        padded = F.pad(planes, sides, mode="replicate") if any(sides) else planes
        enlarged = self._run(padded.contiguous(memory_format=torch.channels_last))
        return enlarged[:, :, cut : cut + scale * height, cut : cut + scale * width]

    def _graph(self, pixels: Tensor) -> Tensor:
        assert self._graphs is not None
        if pixels.shape not in self._graphs:
            self._graphs[pixels.shape] = _Graph(self._enlarge, pixels)
        return self._graphs[pixels.shape].replay(pixels)


class _Graph:
    """A recorded pass for one shape: replayed with one call instead of one per layer."""

    def __init__(self, enlarge: Callable[[Tensor], Tensor], pixels: Tensor) -> None:
        self._input = pixels.clone()
        aside = torch.cuda.Stream(pixels.device)
        aside.wait_stream(torch.cuda.current_stream(pixels.device))
        with torch.cuda.stream(aside):
            for _ in range(2):  # what libraries set up at the first pass must not be recorded
                enlarge(self._input)
        torch.cuda.current_stream(pixels.device).wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._output = enlarge(self._input)

    def replay(self, pixels: Tensor) -> Tensor:
        self._input.copy_(pixels)
        self._graph.replay()
        return self._output.clone()  # the next replay writes there again


class _Part(NamedTuple):
    """A pass that was started: its result, when it has arrived, or what became of its pictures otherwise."""

    pictures: Sequence[RGB]
    pixels: Tensor | None  # (batch, H, W, 3) uint8 on the host
    arrived: torch.cuda.Event | None
    instead: list[RGB | Exception] | None


class Launched:
    """A batch on its way."""

    def __init__(self, scale: int, parts: list[_Part]) -> None:
        self._scale = scale
        self._parts = parts

    def collect(self) -> list[RGB | Exception]:
        """Wait for it: each picture's (scale * H, scale * W, 3) uint8, a view of the batch, or why there is none."""
        results: list[RGB | Exception] = []
        for part in self._parts:
            if part.instead is not None:
                results += part.instead
                continue
            if part.arrived is not None:
                part.arrived.synchronize()
            assert part.pixels is not None
            for rgb, enlarged in zip(part.pictures, part.pixels.numpy(), strict=False):  # the rest is filling
                results.append(enlarged[: self._scale * rgb.shape[0], : self._scale * rgb.shape[1]])
        return results


def _stack(pictures: Sequence[RGB], bucket: Bucket, batch: int, pinned: bool) -> Tensor:
    """(batch, H, W, 3) uint8 of one bucket: edges repeated up to its size, zeros where there is no picture."""
    stacked = torch.empty((batch, bucket.height, bucket.width, 3), dtype=torch.uint8, pin_memory=pinned)
    array = stacked.numpy()
    for place, rgb in zip(array, pictures, strict=False):
        height, width = rgb.shape[:2]
        place[:height, :width] = rgb
        place[:height, width:] = rgb[:, -1:]
        place[height:] = place[height - 1]
    array[len(pictures) :] = 0
    return stacked


def _to_planes(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) in 0..1, which is then already channels_last."""
    return pixels.permute(0, 3, 1, 2).to(dtype).div_(255)


def _to_pixels(planes: Tensor) -> Tensor:
    """(N, 3, H, W) to (N, H, W, 3) uint8: clipped, rounded half to even."""
    return planes.float().clamp_(0, 1).mul_(255).round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def turn(planes: Tensor, view: tuple[bool, bool, bool]) -> Tensor:
    """A view of (N, 3, H, W) pictures: transposed first, then reversed."""
    turned, upside, mirrored = view
    seen = planes.transpose(2, 3) if turned else planes
    directions = [direction for direction, wanted in ((2, upside), (3, mirrored)) if wanted]
    return seen.flip(directions) if directions else seen


def turn_back(planes: Tensor, view: tuple[bool, bool, bool]) -> Tensor:
    """The result of a view as the pictures lie."""
    turned, upside, mirrored = view
    directions = [direction for direction, wanted in ((2, upside), (3, mirrored)) if wanted]
    seen = planes.flip(directions) if directions else planes
    return seen.transpose(2, 3) if turned else seen
