"""Which noise level fits a picture: one answer for the stage of a build and for `kaobako upscale`."""

from __future__ import annotations

from enum import StrEnum


class Noise(StrEnum):
    """How much JPEG noise is removed while a picture is enlarged."""

    AUTO = "auto"
    NONE = "none"
    LEVEL_0 = "0"
    LEVEL_1 = "1"
    LEVEL_2 = "2"
    LEVEL_3 = "3"


# The lowest JPEG quality (1 to 100, IJG scale) at which each level is best; below the last one, LAST. Measured with
# upconv7 and cunet on halved pictures (docs/upscaling.md, "Noise"): level 2 is nowhere the best by more than .04 dB.
FLOORS: tuple[tuple[float, str], ...] = ((97, "none"), (86, "0"), (67, "1"))
LAST = "3"


def choose_noise(jpeg_quality: float | None) -> str:
    """The noise level, "none" or "0" to "3", for a file of this JPEG quality; None (no JPEG) is "none".

    It says how much was lost, not how much of it is seen: a network without noise levels is used without one.
    """
    if jpeg_quality is None:
        return "none"
    return next((level for floor, level in FLOORS if jpeg_quality >= floor), LAST)
