"""One picture of a folder: read, judged, its noise level chosen, its result encoded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import cv2
import numpy as np

from datasets.pictures import (
    MAX_BYTES,
    MAX_PIXELS,
    Defect,
    PictureFacts,
    UnreadablePictureError,
    decode_picture,
    encode_jpeg,
    encode_png,
)
from datasets.pictures.alpha import decode_alpha, encode_png_with_alpha, spread_colours
from models.quality_scale import measure_native_scale
from models.upscale.noise import choose_noise
from models.upscale.plan import Picture, Target, Upscaled, plan_picture

Format = Literal["png", "jpeg"]
AUTO = "auto"
_ECHO = 16  # of 255: Lanczos leaves less than this beside an edge between 0 and 255
T = TypeVar("T")
R = TypeVar("R")


class Enlarger(Protocol):
    """What is used of models.upscale.engine.Upscaler."""

    @property
    def engine(self) -> str: ...

    def weights(self, noise: str) -> tuple[str, ...]: ...

    def upscale(self, rgb: np.ndarray, target: Target, noise: str = "none") -> Upscaled: ...

    def upscale_all(
        self, items: Iterable[T], load: Callable[[T], Picture], finish: Callable[[T, Upscaled | Exception], R]
    ) -> Iterator[R]: ...


@dataclass(frozen=True)
class Order:
    """What is wanted of every picture; which network does it is the enlarger's."""

    target: Target
    network: str  # its name, or a user's file; told apart by the digests of the weights, this is for people
    noise: str = AUTO  # none, 0 to 3, or auto: by the JPEG quality of each file
    levels: Collection[str] = ()  # the noise levels that the network has, besides none
    tta: bool = False
    format: Format = "png"
    quality: int = 95  # of JPEG
    min_native_scale: float | None = None  # a picture whose detail fills less of its side is skipped

    def choose(self, jpeg_quality: float | None) -> str:
        """The noise level for a picture. Networks without levels have none."""
        if self.noise != AUTO:
            return self.noise
        level = choose_noise(jpeg_quality)
        return level if level in self.levels else "none"

    def used_levels(self) -> list[str]:
        """Every noise level that some picture could be given."""
        return sorted({self.choose(quality) for quality in (None, *range(1, 101))})


@dataclass
class Job:
    """One picture on its way; what `load_picture` learns of it is kept for its end."""

    name: str  # relative to the source, "/" as separator
    path: Path
    output: str  # relative to the output folder
    size: int  # bytes
    mtime_ns: int
    noise: str | None = None
    alpha: np.ndarray | None = None  # uint8 (H, W), where it is to be kept
    as_it_is: bytes | None = None  # the file, where its bytes would do for a result of the same size

    def forget(self) -> None:
        """Give back the memory; the next pictures need it."""
        self.alpha = self.as_it_is = None


class SkippedError(Exception):
    """The picture is left out on purpose."""


def load_picture(job: Job, order: Order) -> Picture:
    """Read and decode a picture, and choose what becomes of it.

    Raises SkippedError, and UnreadablePictureError, OSError, MemoryError or ValueError for what cannot be enlarged.
    """
    if job.size > MAX_BYTES:
        raise UnreadablePictureError(Defect.TOO_LARGE, f"{job.size} bytes, at most {MAX_BYTES} are read")
    data = job.path.read_bytes()
    decoded = decode_picture(data)  # transparency laid over white, which is all that a JPEG can hold
    rgb, facts = decoded.rgb, decoded.facts
    if order.min_native_scale is not None:
        scale = measure_native_scale(np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), dtype=np.uint8))
        if scale < order.min_native_scale:
            raise SkippedError(f"it looks enlarged already: its detail fills {scale:.2f} of its side")
    job.noise = order.choose(facts.jpeg_quality)
    if facts.alpha_share > 0 and order.format == "png":
        colours, job.alpha = decode_alpha(data)
        rgb = spread_colours(colours, job.alpha)
    job.as_it_is = data if _shows_its_pixels(facts, order.format) else None
    picture = Picture(rgb, order.target, job.noise)
    _check_result(picture)
    return picture


def _shows_its_pixels(facts: PictureFacts, wanted: Format) -> bool:
    """Whether the file itself, in the wanted format, shows the pixels that were decoded to whoever opens it next."""
    return facts.format.lower() == wanted and not facts.oriented and not facts.icc


def _check_result(picture: Picture) -> None:
    """ValueError for a result that would not be read again. The engine refuses sides, this refuses areas."""
    target, (height, width) = picture.target, picture.rgb.shape[:2]
    if target.size is not None and target.fit != "keep":
        across = down = float(target.size)
    else:
        factor = target.scale or (target.size or 0) / max(height, width)
        across, down = width * factor, height * factor
    if across * down > MAX_PIXELS:
        raise ValueError(
            f"the result would have {across:.0f} x {down:.0f} pixels; pictures of more than {MAX_PIXELS} are not read "
            "again: choose a smaller --scale or --size"
        )


def encode_result(job: Job, result: Upscaled, order: Order, enlarger: Enlarger) -> bytes:
    """The bytes of the result. Raises OSError, ValueError or MemoryError where the format cannot hold it."""
    if result.method == "none" and job.as_it_is is not None:
        return job.as_it_is
    if order.format == "jpeg":
        return encode_jpeg(result.rgb, order.quality)
    if job.alpha is None:
        return encode_png(result.rgb)
    return encode_png_with_alpha(result.rgb, enlarge_alpha(job.alpha, order.target, enlarger))


def enlarge_alpha(alpha: np.ndarray, target: Target, enlarger: Enlarger) -> np.ndarray:
    """A transparency channel at its new size: uint8 (H, W) -> (H', W').

    A soft one goes through the network as a grey picture: on six game sprites, halved and enlarged again, that was 6 to
    11 dB better than Lanczos, and what was clear or opaque stayed so. One of nothing but 0 and 255 has stairs for an
    edge, which the network would draw faithfully; Lanczos smooths them, and was 1 dB better on each of them. What it
    leaves as an echo beside the edge is taken off.
    """
    grey = np.repeat(alpha[:, :, None], 3, axis=2)
    plan = plan_picture(Picture(grey, target), "alpha", 2)
    hard = bool(np.isin(alpha, (0, 255)).all())
    if hard or plan.applications == 0:
        resized = plan.complete(plan.begin(grey)).rgb[:, :, 0]
        return _take_off_echo(resized) if hard else resized
    enlarged = enlarger.upscale(grey, target).rgb
    return np.asarray(np.rint(enlarged.mean(axis=2)).astype(np.uint8))  # the network may tint a grey picture a little


def _take_off_echo(alpha: np.ndarray) -> np.ndarray:
    """Nearly clear to clear, nearly opaque to opaque."""
    return np.where(alpha < _ECHO, 0, np.where(alpha > 255 - _ECHO, 255, alpha)).astype(np.uint8)
