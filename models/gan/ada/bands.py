"""Image-space filtering: four frequency bands, each with its own gain (arXiv:2006.06676, appendix B).

The bands, from low to high, are 0..1/8, 1/8..1/4, 1/4..1/2 and 1/2..1 of the highest frequency. They come from the
half-band filter P(z) = H(z) H(1/z) / 2 of the sym2 wavelet: P(z) keeps the lower half, P(z) P(z^2) the lower quarter,
and so on, so the four sum up to the unit impulse, and equal gains change nothing but the brightness.
"""

import functools

import numpy as np
import torch

from models.gan.ada.wavelets import SYM2, extend

RADIUS = 21  # taps to either side: 3 of P(z), 6 of P(z^2), 12 of P(z^4)


@functools.cache
def band_filters() -> torch.Tensor:
    """The impulse responses of the four bands, float64 (4, 43), symmetric; from low to high."""
    half = np.convolve(SYM2, SYM2[::-1]) / 2
    lows = [np.ones(1)]
    for step in (1, 2, 4):
        spread = np.zeros((len(half) - 1) * step + 1)
        spread[::step] = half
        lows.append(np.convolve(lows[-1], spread))
    padded = [np.pad(low, RADIUS - len(low) // 2) for low in lows]
    bands = [padded[3], padded[2] - padded[3], padded[1] - padded[2], padded[0] - padded[1]]
    return torch.from_numpy(np.stack(bands))


def amplify(images: torch.Tensor, gains: torch.Tensor) -> torch.Tensor:
    """Filter images (N, C, H, W) with the gains (N, 4) of the bands, along rows and columns; borders are mirrored.

    C = 4: alpha stays.
    """
    taps = (gains.double() @ band_filters()).to(images)[:, :, None, None, None]  # (N, 43, 1, 1, 1)
    filtered = images[:, :3]
    for dim in (3, 2):
        size = filtered.shape[dim]
        wide = extend(filtered, RADIUS, dim)
        filtered = taps[:, RADIUS] * wide.narrow(dim, RADIUS, size)
        for k in range(1, RADIUS + 1):
            pair = wide.narrow(dim, RADIUS - k, size) + wide.narrow(dim, RADIUS + k, size)
            filtered = filtered + taps[:, RADIUS + k] * pair
    return torch.cat((filtered, images[:, 3:]), 1) if images.shape[1] == 4 else filtered
