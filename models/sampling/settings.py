"""How pictures are sampled. Imports no torch, so that a command's help can list the choices."""

from dataclasses import dataclass
from enum import StrEnum


class SamplingError(ValueError):
    """Something that this generator cannot do, or that was asked for wrongly; the message says what to do."""


class Noise(StrEnum):
    """The noise that a StyleGAN2 adds to its maps."""

    CONST = "const"  # the maps stored in the network: the same for all pictures
    NONE = "none"
    RANDOM = "random"  # drawn anew for each seed, from the seed


class Ground(StrEnum):
    """What lies under pictures with transparency in grids, figures and films."""

    CHECKER = "checker"
    WHITE = "white"
    BLACK = "black"


class WalkPath(StrEnum):
    """How a walk goes through latent space."""

    AUTO = "auto"  # random for a network with styles, slerp for others
    SLERP = "slerp"  # along great circles from the picture of one seed to the next
    RANDOM = "random"  # a smooth random loop, one per seed


@dataclass(frozen=True)
class SamplingSettings:
    """How latents become pictures. The defaults suit every network."""

    psi: float | None = None  # truncation: 0 = the mean picture, 1 = none; None = the network's default_psi
    layers: int | None = None  # how many of the first layers are truncated; None = all
    label: tuple[float, ...] | None = None  # of all pictures, for a conditional network
    noise: Noise = Noise.CONST


def parse_label(text: str) -> tuple[float, ...]:
    """A label's values as people write them: "0.2,0,1"."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise SamplingError(f"cannot read label {text!r}: write its values with commas, such as 0.2,0,1") from error


def parse_psis(text: str) -> list[float]:
    """Truncations as people write them: "-1,-0.5,0,0.5,1"."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise SamplingError(f"cannot read psis {text!r}: write numbers with commas, such as -1,-0.5,0,0.5,1") from error
