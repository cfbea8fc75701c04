"""What happens to one picture: cut, enlarged so many times, reduced, framed. Decided from its size alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.upscale.fit import RGB, check_picture, crop_centre, letterbox, reduce_to

Fit = Literal["crop", "letterbox", "keep"]

MAX_SCALE = 8.0  # a scale beyond this is a mistake: nothing of such a picture would be from the original
MAX_SIDE = 16_384  # pixels; a result of this side is 805 MB
MAX_BETWEEN = 2 * MAX_SIDE  # pixels; what the network makes before it is reduced


@dataclass(frozen=True)
class Target:
    """How large a picture shall become: exactly one of ``size`` (pixels) and ``scale``.

    fit, for a size: "crop" makes a square of ``size`` from the picture's middle, "letterbox" a square with black bars,
    "keep" makes the long side ``size``. With a scale both sides are multiplied by it, and the form is kept anyway.

    Raises ValueError for a size or scale out of range.
    """

    size: int | None = None
    scale: float | None = None
    fit: Fit = "crop"

    def __post_init__(self) -> None:
        if (self.size is None) == (self.scale is None):
            raise ValueError("a target has either a size in pixels or a scale, not both and not neither")
        if self.size is not None and not 1 <= self.size <= MAX_SIDE:
            raise ValueError(f"the size must be between 1 and {MAX_SIDE} pixels, not {self.size}")
        if self.scale is not None and not 0 < self.scale <= MAX_SCALE:
            raise ValueError(f"the scale must be above 0 and at most {MAX_SCALE:g}, not {self.scale:g}")
        if self.fit not in ("crop", "letterbox", "keep"):
            raise ValueError(f"fit must be 'crop', 'letterbox' or 'keep', not {self.fit!r}")


@dataclass(frozen=True)
class Plan:
    """The way of one picture: its middle, ``applications`` times through the network, reduced to a size, framed."""

    crop: bool  # the square in its middle first
    applications: int
    height: int  # pixels, after reducing
    width: int
    frame: bool  # with black bars to a square
    method: str  # "centre crop + upconv7-noise1 x4 + lanczos", "lanczos-down", "none"
    factor: float  # long side of the result by that of the (cut) picture, before bars

    def begin(self, rgb: RGB) -> RGB:
        """What the network sees first."""
        return crop_centre(rgb) if self.crop else rgb

    def complete(self, rgb: RGB) -> Upscaled:
        """The result, from what the network (or nobody) has enlarged."""
        if rgb.shape[:2] != (self.height, self.width):
            rgb = reduce_to(rgb, self.height, self.width)
        if self.frame:
            rgb = letterbox(rgb)
        return Upscaled(np.ascontiguousarray(rgb), self.method, self.factor)


@dataclass(frozen=True)
class Upscaled:
    """A picture at its new size, how it got there, and how often its long side was multiplied."""

    rgb: RGB  # (H, W, 3) uint8
    method: str
    factor: float  # four decimals


@dataclass(frozen=True)
class Picture:
    """A decoded picture and what shall become of it."""

    rgb: RGB  # (H, W, 3) uint8
    target: Target
    noise: str = "none"  # the network's noise level


def plan_picture(picture: Picture, name: str, network_scale: int) -> Plan:
    """The way of a picture through a network that enlarges ``network_scale`` times (1: it only removes noise).

    A picture that is large enough never sees a network that enlarges. One that only removes noise sees every picture
    once and enlarges none.

    Args:
        name: how the network is called in the method ("upconv7-noise1").

    Raises ValueError for what is no picture, for a result or a step towards it that is absurdly large, and where a
    network that does not enlarge would have to.
    """
    check_picture(picture.rgb)
    target = picture.target
    height, width = picture.rgb.shape[:2]
    cut = target.size is not None and target.fit == "crop" and height != width
    if cut:
        height = width = min(height, width)
    rows, columns = _size(height, width, target)
    if network_scale == 1 and (rows > height or columns > width):
        raise ValueError(
            f"{name} only removes noise, so it cannot make {columns} x {rows} pixels of {width} x {height}: "
            f"choose scale 1, or a network that enlarges"
        )
    longest = max(height, width)
    applications = 1 if network_scale == 1 else _count_applications(longest, max(rows, columns), network_scale)
    total = network_scale**applications
    if max(rows, columns) > MAX_SIDE or longest * total > MAX_BETWEEN:
        raise ValueError(
            f"{width} x {height} pixels would become {width * total} x {height * total} in the network and then "
            f"{columns} x {rows}: at most {MAX_BETWEEN} and {MAX_SIDE} a side are possible, choose a smaller target"
        )
    frame = target.size is not None and target.fit == "letterbox" and rows != columns
    steps = ["centre crop"] if cut else []
    if applications:
        steps.append(name if network_scale == 1 else f"{name} x{total}")
    if (rows, columns) != (height * total, width * total):
        steps.append("lanczos" if applications else "lanczos-down")
    if frame:
        steps.append("letterbox")
    factor = round(max(rows, columns) / longest, 4)
    return Plan(cut, applications, rows, columns, frame, " + ".join(steps) or "none", factor)


def _size(height: int, width: int, target: Target) -> tuple[int, int]:
    """Rows and columns before any bars."""
    if target.size is not None:
        factor = target.size / max(height, width)
    else:
        assert target.scale is not None
        factor = target.scale
    return max(1, round(height * factor)), max(1, round(width * factor))


def _count_applications(side: int, wanted: int, network_scale: int) -> int:
    """How often a long side goes through the network; the short one is then long enough too."""
    times = 0
    while side * network_scale**times < wanted:
        times += 1
    return times
