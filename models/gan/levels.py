"""The maps that a network goes through, from the smallest to the picture, each twice as large as the one before.

Imports no torch: a configuration is checked with it.
"""

from dataclasses import dataclass

SMALLEST_SIDE = 4  # longer side of the smallest map unless told otherwise
SMALLEST_HALF_SIDE = 8  # no smaller map is computed in half precision: it costs nothing there, and steers everything
R3GAN_WIDTH_STEP = 8  # channels of its maps: a block doubles them and cuts them into groups of 16


@dataclass(frozen=True)
class Level:
    """One size of map."""

    height: int
    width: int
    channels: int
    half: bool  # whether it is computed in half precision when the network is told to use it

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.height, self.width


def plan_levels(
    width: int,  # of the picture, in pixels
    height: int,
    channel_base: int,  # a map of longer side r has channel_base / r channels, ...
    channel_max: int,  # ... but at most this many
    start: tuple[int, int] | None = None,  # (rows, columns) of the smallest map; None: the longer side is 4
    half_resolutions: int = 0,  # how many of the largest maps may be computed in half precision
) -> list[Level]:
    """Smallest first. Raises ValueError unless doublings of `start` reach the picture's size, at least one."""
    longer = max(width, height)
    if start is None:
        start = (height * SMALLEST_SIDE // longer, width * SMALLEST_SIDE // longer)
    doublings = max(longer // max(max(start), 1), 1).bit_length() - 1
    if min(start) < 1 or doublings < 1 or (start[0] << doublings, start[1] << doublings) != (height, width):
        raise ValueError(
            f"a picture of {width}x{height} is no doubling of a map of {start[1]}x{start[0]} (columns x rows): "
            "change the resolution or the aspect"
        )
    levels = []
    for k in range(doublings + 1):
        side = max(start) << k
        half = k > doublings - half_resolutions and k > 0 and side >= SMALLEST_HALF_SIDE
        channels = max(min(channel_base // side, channel_max), 1)
        levels.append(Level(start[0] << k, start[1] << k, channels, half))
    return levels
