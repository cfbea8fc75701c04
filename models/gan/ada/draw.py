"""What a batch's augmentations are: all chance of ADA in a few small tensors (arXiv:2006.06676, appendix B)."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from models.gan.ada.colour import brightnesses, contrasts, hue_turns, luma_flips, saturations
from models.gan.ada.geometry import quarter_turns, rotations, scalings, translations

SHIFT = 0.125  # of the side: reach of whole-pixel translations, standard deviation of fractional ones
SCALE = 0.2  # standard deviation of log2 of both scalings
BRIGHTNESS = 0.2  # standard deviation
CONTRAST = 0.5  # standard deviation of log2
SATURATION = 1.0  # standard deviation of log2
BAND = 1.0  # standard deviation of log2 of a band's gain
BAND_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # what natural pictures have in the four bands, low to high
NOISE = 0.1  # of the half-normal distribution of the noise's standard deviation

UNIFORMS, NORMALS = 29, 12  # values that every sample takes from the generator, used or not


@dataclass(frozen=True)
class Strengths:
    """What p is multiplied with for each group of augmentations: 0 is off, 1 is p itself."""

    blit: float = 0.0  # mirroring, quarter turns, whole-pixel translation
    geometry: float = 0.0  # scaling, rotation, stretching, fractional translation
    colour: float = 0.0  # brightness, contrast, luma flip, hue, saturation
    filter: float = 0.0  # gains of four frequency bands
    noise: float = 0.0  # white noise
    cutout: float = 0.0  # a grey square over half of each side

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not 0 <= value < math.inf:
                raise ValueError(f"the multiplier of {name} must be 0 or more, got {value}")


@dataclass(frozen=True)
class AdaDraw:
    """The augmentations of N pictures of one size, on the CPU. `draw[a:b]` are those of pictures a to b."""

    width: int
    height: int
    blit: torch.Tensor  # float64 (N, 3, 3): whole-pixel moves about the centre, pixels
    geometry: torch.Tensor  # float64 (N, 3, 3): everything after them
    colour: torch.Tensor  # float64 (N, 4, 4)
    gains: torch.Tensor  # float64 (N, 4): of the bands, low to high
    noise: torch.Tensor  # float64 (N,): standard deviation, 0 is off
    noise_seed: torch.Tensor  # int64 (N,): each picture's noise has a generator of its own
    cutout: torch.Tensor  # float64 (N, 2): centre of the square as shares of width and height; NaN is off

    def __len__(self) -> int:
        return len(self.blit)

    def __getitem__(self, part: slice) -> "AdaDraw":
        tensors: dict[str, Any] = {name: v[part] for name, v in vars(self).items() if isinstance(v, torch.Tensor)}
        return dataclasses.replace(self, **tensors)


class _Chance:
    """Columns of random values, taken one after the other, for `count` samples."""

    def __init__(self, count: int, rng: torch.Generator) -> None:
        self.seeds = torch.randint(2**63 - 1, (count,), generator=rng)
        uniforms = torch.rand((count, UNIFORMS), generator=rng, dtype=torch.float64)
        normals = torch.randn((count, NORMALS), generator=rng, dtype=torch.float64)
        self._uniforms: Iterator[torch.Tensor] = iter(uniforms.unbind(1))
        self._normals: Iterator[torch.Tensor] = iter(normals.unbind(1))

    def below(self, p: float) -> torch.Tensor:
        """True with probability p. Whatever is on at one p is on at every larger one as well."""
        return next(self._uniforms) < p

    def uniform(self, low: float, high: float) -> torch.Tensor:
        """Between low and high (excluded)."""
        return low + next(self._uniforms) * (high - low)

    def normal(self, deviation: float) -> torch.Tensor:
        """About 0."""
        return next(self._normals) * deviation


def draw_augmentations(
    count: int,
    p: float,
    strengths: Strengths,
    width: int,
    height: int,
    rng: torch.Generator,
) -> AdaDraw:
    """Draw for `count` pictures; takes the same values from `rng`, in the same order, for every p and all strengths."""
    chance = _Chance(count, rng)
    blit = _draw_blit(chance, min(p * strengths.blit, 1.0), width, height)
    geometry = _draw_geometry(chance, min(p * strengths.geometry, 1.0), width, height)
    colour = _draw_colour(chance, min(p * strengths.colour, 1.0))
    gains = _draw_gains(chance, min(p * strengths.filter, 1.0))
    noisy, noise = chance.below(min(p * strengths.noise, 1.0)), chance.normal(NOISE).abs()
    cut = chance.below(min(p * strengths.cutout, 1.0))
    centre = torch.stack((chance.uniform(0, 1), chance.uniform(0, 1)), 1)
    return AdaDraw(
        width=width,
        height=height,
        blit=blit,
        geometry=geometry,
        colour=colour,
        gains=gains,
        noise=torch.where(noisy, noise, 0.0),
        noise_seed=chance.seeds,
        cutout=torch.where(cut[:, None], centre, math.nan),
    )


def _draw_blit(chance: _Chance, p: float, width: int, height: int) -> torch.Tensor:
    flipped = chance.below(p) & (chance.uniform(0, 1) < 0.5)  # so half of those that are chosen
    quarters = torch.where(chance.below(p), chance.uniform(0, 4), 0.0).long()
    shifted, x, y = chance.below(p), chance.uniform(-SHIFT, SHIFT), chance.uniform(-SHIFT, SHIFT)
    one = torch.ones(len(x), dtype=torch.float64)
    mirrored = scalings(torch.where(flipped, -one, one), one)
    x, y = torch.where(shifted, x * width, 0.0).round(), torch.where(shifted, y * height, 0.0).round()
    return translations(x, y) @ quarter_turns(quarters) @ mirrored


def _draw_geometry(chance: _Chance, p: float, width: int, height: int) -> torch.Tensor:
    p_turn = 1 - math.sqrt(1 - p)  # of each of two rotations, so that either is there with probability p
    scale = torch.where(chance.below(p), chance.normal(SCALE).exp2(), 1.0)
    before = torch.where(chance.below(p_turn), chance.uniform(-math.pi, math.pi), 0.0)
    stretch = torch.where(chance.below(p), chance.normal(SCALE).exp2(), 1.0)
    after = torch.where(chance.below(p_turn), chance.uniform(-math.pi, math.pi), 0.0)
    shifted, x, y = chance.below(p), chance.normal(SHIFT), chance.normal(SHIFT)
    x, y = torch.where(shifted, x * width, 0.0), torch.where(shifted, y * height, 0.0)
    stretched = scalings(stretch, 1 / stretch) @ rotations(before) @ scalings(scale, scale)
    return translations(x, y) @ rotations(after) @ stretched


def _draw_colour(chance: _Chance, p: float) -> torch.Tensor:
    bright = brightnesses(torch.where(chance.below(p), chance.normal(BRIGHTNESS), 0.0))
    contrast = contrasts(torch.where(chance.below(p), chance.normal(CONTRAST).exp2(), 1.0))
    flipped = luma_flips(chance.below(p) & (chance.uniform(0, 1) < 0.5))
    hue = hue_turns(torch.where(chance.below(p), chance.uniform(-math.pi, math.pi), 0.0))
    saturation = saturations(torch.where(chance.below(p), chance.normal(SATURATION).exp2(), 1.0))
    return saturation @ hue @ flipped @ contrast @ bright


def _draw_gains(chance: _Chance, p: float) -> torch.Tensor:
    power = torch.tensor(BAND_POWER, dtype=torch.float64)
    gains: list[torch.Tensor] = []
    for band in range(4):
        chosen, gain = chance.below(p), chance.normal(BAND).exp2()
        one = torch.ones((len(gain), 4), dtype=torch.float64)
        one[:, band] = gain
        balanced = one / (one.square() @ power).sqrt()[:, None]  # a natural picture keeps its power
        gains.append(torch.where(chosen[:, None], balanced, 1.0))
    return gains[0] * gains[1] * gains[2] * gains[3]
