"""Resampling with short FIR filters (finite impulse responses), alone and around strided convolutions.

Karras et al. 2020 (StyleGAN2, arXiv:1912.04958, after Zhang 2019, arXiv:1904.11486) filter with [1, 3, 3, 1] wherever
a map is doubled or halved. With a symmetric filter of even length `upsample2d` and `downsample2d` by 2 shift nothing:
where pixel k reaches from k to k + 1, pixel k of a doubled map covers k / 2 to (k + 1) / 2 of the old one, and pixel k
of a halved map covers the old pixels 2 k and 2 k + 1. What lies outside a picture counts as 0.

Everything here is linear in the picture and made of torch's own convolutions, hence differentiable any number of
times. Depthwise convolutions are fastest with `channels_last` pictures (on a CPU four times).
"""

from collections.abc import Sequence

import torch
from torch.nn import functional

STYLEGAN2_TAPS = (1.0, 3.0, 3.0, 1.0)
_MAX_DENSE_TAPS = 8  # longer filters run as two passes: fewer products, but one more pass over memory

Padding = tuple[int, int, int, int]  # left, right, top, bottom, in pixels of the map after zeros were put in


def setup_filter(taps: Sequence[float] = STYLEGAN2_TAPS) -> torch.Tensor:
    """Taps of a separable filter, float32 (n,), scaled to sum 1; the filter in 2-D is their outer product.

    Raises ValueError for no taps, or taps that sum to 0 (they cannot be scaled so).
    """
    if not taps or not sum(taps):
        raise ValueError(f"a filter needs taps with a sum other than 0, got {tuple(taps)}")
    total = sum(taps)
    return torch.tensor([tap / total for tap in taps], dtype=torch.float32)


def filter2d(
    x: torch.Tensor, taps: torch.Tensor, padding: Padding | None = None, gain: float = 1.0, up: int = 1, down: int = 1
) -> torch.Tensor:
    """Put up - 1 zeros after each pixel, pad, convolve with the taps along both axes, keep each down-th pixel.

    x: (N, C, H, W); taps: (n,), flipped as a convolution (not a correlation) does. padding: left, right, top, bottom,
    negative to crop; None gives H and W back (up = down = 1): n // 2 before and (n - 1) // 2 after, so that an even
    filter shifts the picture by half a pixel towards its end. Returns (N, C, H', W') with
    H' = ceil((H * up + top + bottom - n + 1) / down), of x's dtype. gain scales the result; `up` needs gain = up^2 to
    keep the mean. Raises ValueError if nothing would be left.
    """
    count = taps.shape[0]
    left, right, top, bottom = padding or (count // 2, (count - 1) // 2) * 2
    height, width = (x.shape[2] * up + top + bottom - count + 1), (x.shape[3] * up + left + right - count + 1)
    if height < 1 or width < 1:
        raise ValueError(f"a filter of {count} taps leaves nothing of a {x.shape[3]}x{x.shape[2]} map padded so")
    scaled = (taps * gain**0.5).to(x.dtype)
    if up > 1:
        # A transposed convolution spreads each pixel over n outputs, which is a full convolution of the zero-filled
        # map; the padding says where in it the result begins.
        spread = _depthwise(x, scaled, up, transposed=True)
        begin = (count - 1 - left, count - 1 - top)
        end = (width - spread.shape[3] + begin[0], height - spread.shape[2] + begin[1])
        filtered = functional.pad(spread, (-begin[0], end[0], -begin[1], end[1]))
        return filtered[:, :, ::down, ::down] if down > 1 else filtered
    if left == right and top == bottom and min(left, top) >= 0:
        return _depthwise(x, scaled.flip(0), down, (top, left))
    return _depthwise(functional.pad(x, (left, right, top, bottom)), scaled.flip(0), down)


def _depthwise(
    x: torch.Tensor,
    taps: torch.Tensor,
    stride: int,
    padding: tuple[int, int] = (0, 0),  # rows, columns
    transposed: bool = False,
) -> torch.Tensor:
    """Each channel correlated with the taps along both axes (or spread by them, if transposed)."""
    channels, count = x.shape[1], taps.shape[0]
    convolve = functional.conv_transpose2d if transposed else functional.conv2d
    if count <= _MAX_DENSE_TAPS:
        kernel = torch.outer(taps, taps).expand(channels, 1, count, count)
        return convolve(x, kernel, stride=stride, padding=padding, groups=channels)
    rows, columns = taps.view(1, 1, count, 1), taps.view(1, 1, 1, count)
    x = convolve(x, rows.expand(channels, 1, count, 1), stride=(stride, 1), padding=(padding[0], 0), groups=channels)
    return convolve(
        x, columns.expand(channels, 1, 1, count), stride=(1, stride), padding=(0, padding[1]), groups=channels
    )


def upsample2d(x: torch.Tensor, taps: torch.Tensor, up: int = 2) -> torch.Tensor:
    """(N, C, H, W) to (N, C, H * up, W * up), the mean kept away from the edges; nothing is shifted (see above)."""
    count = taps.shape[0]
    before, after = (count + up - 1) // 2, (count - up) // 2
    return filter2d(x, taps, (before, after, before, after), gain=up**2, up=up)


def downsample2d(x: torch.Tensor, taps: torch.Tensor, down: int = 2) -> torch.Tensor:
    """(N, C, H, W) to (N, C, H / down, W / down); nothing is shifted (see above). H and W must be multiples of down."""
    count = taps.shape[0]
    before, after = (count - down + 1) // 2, (count - down) // 2
    return filter2d(x, taps, (before, after, before, after), down=down)


def conv2d_up(x: torch.Tensor, weight: torch.Tensor, taps: torch.Tensor, groups: int = 1) -> torch.Tensor:
    """Double the map and convolve: a transposed convolution of stride 2, then the filter (gain 4).

    x: (N, groups * in, H, W); weight: (groups * in, out, k, k), in conv_transpose2d's order, k odd.
    Returns (N, groups * out, 2 H, 2 W), equal to filtering up first and then convolving with the flipped kernel,
    except that the map filtered up reaches a little beyond the picture's edges; but 4 times cheaper.
    """
    kernel, count = weight.shape[-1], taps.shape[0]
    x = functional.conv_transpose2d(x, weight, stride=2, groups=groups)  # (N, groups * out, 2 H - 2 + k, ...)
    before = kernel // 2 + (count + 1) // 2 - (kernel - 1)
    after = kernel // 2 + (count - 2) // 2 - (kernel - 2)
    return filter2d(x, taps, (before, after, before, after), gain=4)


def conv2d_down(x: torch.Tensor, weight: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
    """Convolve and halve the map: the filter, then a convolution of stride 2.

    x: (N, in, H, W), H and W even; weight: (out, in, k, k), k odd. Returns (N, out, H / 2, W / 2).
    """
    kernel, count = weight.shape[-1], taps.shape[0]
    if kernel == 1:
        return functional.conv2d(downsample2d(x, taps), weight)  # the same, on a quarter of the pixels
    before, after = kernel // 2 + (count - 1) // 2, kernel // 2 + (count - 2) // 2
    return functional.conv2d(filter2d(x, taps, (before, after, before, after)), weight, stride=2)
