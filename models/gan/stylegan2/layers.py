"""Layers with an equalised learning rate (Karras et al. 2018, arXiv:1710.10196, section 4.1), and modulated ones.

Stored weights are standard normal; the gain 1 / sqrt(fan-in) is applied in every pass, so that Adam changes all layers
at the same relative speed. A leaky ReLU halves a signal's second moment about; a gain of sqrt(2) makes up for it. As
leaky_relu(a x) = a leaky_relu(x) for a > 0, that gain goes into the weights and biases instead of another pass over a
map.
"""

import math
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from models.gan.fir import conv2d_down, conv2d_up

Form = Literal["fused", "grouped"]  # of a modulated convolution; both compute the same

SLOPE = 0.2  # of the leaky ReLU below 0
ACTIVATION_GAIN = math.sqrt(2)
EPSILON = 1e-8
_HALF = (torch.float16, torch.bfloat16)


def normalise_moment(x: torch.Tensor) -> torch.Tensor:
    """(N, features) scaled so that each row's mean square is 1."""
    return x * (x.square().mean(dim=1, keepdim=True) + EPSILON).rsqrt()


def clamp(x: torch.Tensor, limit: float | None) -> torch.Tensor:
    """Keep values within +-limit (None: as they are), against overflow in half precision."""
    return x if limit is None else x.clamp(-limit, limit)


class EqualizedLinear(nn.Module):
    """Dense layer: (N, inputs) to (N, outputs)."""

    def __init__(
        self,
        inputs: int,  # values per row
        outputs: int,  # values per row
        activated: bool = False,  # whether a leaky ReLU with gain sqrt(2) follows
        rate: float = 1.0,  # learning-rate multiplier; stored weights are larger by its inverse
        bias_start: float = 0.0,  # every bias at the start; 1 for styles, which scale
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.activated = activated
        self.rate = rate
        self.bias_start = bias_start
        self.gain = rate / math.sqrt(inputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gain = ACTIVATION_GAIN if self.activated else 1.0
        y = functional.linear(x, self.weight * (self.gain * gain), self.bias * (self.rate * gain))
        return functional.leaky_relu(y, SLOPE) if self.activated else y

    def draw_weights(self, rng: torch.Generator) -> None:
        self.weight.copy_(torch.randn(self.weight.shape, generator=rng) / self.rate)
        self.bias.fill_(self.bias_start / self.rate)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, activated={self.activated}, rate={self.rate}"


class EqualizedConv2d(nn.Module):
    """Convolution with zeros beyond the edges, keeping the map's size or halving it: (N, inputs, H, W) in x's dtype."""

    def __init__(
        self,
        inputs: int,  # channels
        outputs: int,  # channels
        kernel: int,  # side in pixels, odd
        activated: bool = True,  # whether a leaky ReLU with gain sqrt(2) follows
        bias: bool = True,  # the residual path of D has none
        halving: bool = False,  # whether the map is filtered and halved
        clamp: float | None = None,  # limit of the outputs before `gain` scales it
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        self.activated = activated
        self.halving = halving
        self.clamp = clamp
        self.gain = 1 / math.sqrt(inputs * kernel**2)

    def forward(self, x: torch.Tensor, taps: torch.Tensor | None = None, gain: float = 1.0) -> torch.Tensor:
        """taps: the filter, needed if the layer halves. gain scales the output, after the activation."""
        total = gain * (ACTIVATION_GAIN if self.activated else 1.0)
        weight = (self.weight * (self.gain * total)).to(x.dtype)
        bias = None if self.bias is None else (self.bias * total).to(x.dtype)
        if self.halving:
            if taps is None:
                raise ValueError("a halving convolution needs the filter's taps")
            y = conv2d_down(x, weight, taps)
            y = y if bias is None else y + bias[:, None, None]
        else:
            y = functional.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
        if self.activated:
            y = functional.leaky_relu(y, SLOPE)
        return clamp(y, None if self.clamp is None else self.clamp * gain)

    def draw_weights(self, rng: torch.Generator) -> None:
        self.weight.copy_(torch.randn(self.weight.shape, generator=rng))
        if self.bias is not None:
            self.bias.zero_()

    def extra_repr(self) -> str:
        outputs, inputs, kernel, _ = self.weight.shape
        return f"{inputs}, {outputs}, kernel={kernel}, activated={self.activated}, halving={self.halving}"


def modulated_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    style: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    demodulate: bool = True,
    up_taps: torch.Tensor | None = None,
    gain: float = 1.0,
    form: Form = "fused",
) -> torch.Tensor:
    """Convolve each picture with weights of its own: weight * style, scaled to unit norm per output channel.

    Karras et al. 2020, section 2.2 and appendix B. x: (N, in, H, W), float32, float64 or half; weight: (out, in, k, k)
    and style: (N, in) float32 or float64; bias: (out,), added. up_taps: a filter, to double the map on the way.
    Returns gain * convolution + bias: (N, out, H, W), doubled with up_taps, in x's dtype.

    form "grouped": one convolution with N groups. "fused": scale the activations before and after one ordinary
    convolution, which is the same product in another order and needs no N sets of weights. "fused" is several times
    faster on batches, as grouped convolutions are slow, and about as fast on a single picture.
    """
    if demodulate and x.dtype in _HALF:
        # Demodulation undoes any scale of the weight's rows and of the style, so both may be divided by their largest
        # value: products then stay far from float16's end at 65504. No gradient flows through the divisor, as the
        # result does not depend on it.
        fan_in = weight[0].numel()
        weight = weight / (weight.detach().abs().amax(dim=(1, 2, 3), keepdim=True) * math.sqrt(fan_in) + 1e-30)
        style = style / (style.detach().abs().amax(dim=1, keepdim=True) + 1e-30)
    if form == "grouped":
        y = _convolve_groups(x, weight, style, demodulate, up_taps, gain)
        return y if bias is None else y + bias.to(x.dtype)[:, None, None]
    if not demodulate:
        y = _convolve_plainly(x * (style * gain).to(x.dtype)[:, :, None, None], weight.to(x.dtype), up_taps)
        return y if bias is None else y + bias.to(x.dtype)[:, None, None]
    y = _convolve_plainly(x * style.to(x.dtype)[:, :, None, None], weight.to(x.dtype), up_taps)
    norms = style.square() @ weight.square().sum(dim=(2, 3)).t()  # (N, out): squared norm of each modulated row
    scale = ((norms + EPSILON).rsqrt() * gain).to(x.dtype)[:, :, None, None]
    return y * scale if bias is None else torch.addcmul(bias.to(x.dtype)[:, None, None], y, scale)


def _convolve_plainly(x: torch.Tensor, weight: torch.Tensor, up_taps: torch.Tensor | None) -> torch.Tensor:
    if up_taps is None:
        return functional.conv2d(x, weight, padding=weight.shape[-1] // 2)
    return conv2d_up(x, weight.transpose(0, 1), up_taps)


def _convolve_groups(
    x: torch.Tensor,
    weight: torch.Tensor,
    style: torch.Tensor,
    demodulate: bool,
    up_taps: torch.Tensor | None,
    gain: float,
) -> torch.Tensor:
    count, inputs, height, width = x.shape
    outputs, _, kernel, _ = weight.shape
    own = weight * style[:, None, :, None, None]  # (N, out, in, k, k)
    if demodulate:
        own = own * (own.square().sum(dim=(2, 3, 4), keepdim=True) + EPSILON).rsqrt()
    own = (own * gain).to(x.dtype)
    row = x.reshape(1, count * inputs, height, width)
    if up_taps is None:
        y = functional.conv2d(row, own.flatten(0, 1), padding=kernel // 2, groups=count)
    else:
        y = conv2d_up(row, own.transpose(1, 2).flatten(0, 1), up_taps, groups=count)
    return y.reshape(count, outputs, *y.shape[2:])
