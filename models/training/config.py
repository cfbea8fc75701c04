"""What a training is told. Imports no torch, so that a recipe can be checked before anything heavy is loaded."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

LabelRange = Annotated[tuple[float, float], Field(description="Lowest and highest target.")]


class DeviceChoice(StrEnum):
    """Where to compute: `auto` is the first CUDA device if there is one, otherwise the CPU."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True)
class DatasetRef:
    """Which published dataset a run was trained on; written beside everything that the run leaves."""

    name: str  # such as "faces"
    version: int  # such as 7 for faces@v7
    digest: str  # the version's content digest, SHA-256 in hex
    count: int  # pictures in the version

    def __str__(self) -> str:
        return f"{self.name}@v{self.version}"


class DCGANConfig(BaseModel):
    """The DCGAN of the paintings write-up: Radford et al. 2016 with soft, sometimes swapped labels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["dcgan"] = Field("dcgan", description="Which algorithm this is.")
    z_dim: int = Field(200, ge=1, description="Normal values per latent.")
    width: int = Field(64, ge=1, description="Channels of the map at half the resolution; 8 times as many at 4x4.")
    learning_rate: float = Field(2e-4, gt=0, description="Adam's step size, the same for both networks.")
    betas: tuple[float, float] = Field((0.5, 0.999), description="Adam's decay of the first and second moments.")
    real_labels: LabelRange = (0.7, 1.2)
    fake_labels: LabelRange = (0.0, 0.3)
    label_swap: float = Field(
        0.03,
        ge=0,
        lt=0.5,
        description="Share of the discriminator's labels that are drawn from the other kind's range.",
    )

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        for field in ("real_labels", "fake_labels"):
            low, high = getattr(self, field)
            if low > high:
                raise ValueError(f"{field} must be (low, high), got ({low}, {high})")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie in 0..1 (1 excluded), got {self.betas}")
        return self


class TrainingConfig(BaseModel):
    """One training. Lengths are in kimg, thousands of real pictures shown to the discriminator."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    algorithm: DCGANConfig = Field(DCGANConfig(), description="Networks, losses and optimisers.")
    resolution: int = Field(64, description="Pixels a side, a power of two of at least 16.")
    channels: Literal[1, 3] = Field(3, description="3 = RGB, 1 = grey.")
    kimg: float = Field(1500.0, gt=0, description="How long to train.")
    batch: int = Field(64, ge=2, description="Pictures per step. Batch norm needs at least 2.")
    ema_half_life_kimg: float = Field(
        10.0, ge=0, description="Half-life of the average of the generator's weights; 0 follows the weights at once."
    )
    ema_ramp_up: float = Field(
        0.05, gt=0, description="Early on the half-life is at most this share of the pictures seen so far."
    )
    tick_kimg: float = Field(4.0, gt=0, description="One line of statistics, and one progress report, every so often.")
    grid_ticks: int = Field(5, ge=1, description="A grid of fakes every so many ticks.")
    snapshot_ticks: int = Field(25, ge=1, description="A snapshot every so many ticks, and one at the end.")
    seed: int = Field(0, ge=0, lt=2**63, description="Of the initial weights, the latents and the labels.")
    mirror: bool = Field(
        True, description="Half of the real pictures were shown mirrored; the reader of the data does it."
    )
    device: DeviceChoice = Field(DeviceChoice.AUTO, description="Where to compute.")

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.resolution < 16 or self.resolution & (self.resolution - 1):
            raise ValueError(f"resolution must be a power of two of at least 16 pixels, got {self.resolution}")
        if self.tick_images < self.batch:
            raise ValueError(f"tick_kimg must be at least one batch ({self.batch / 1000}), got {self.tick_kimg}")
        return self

    @property
    def total_images(self) -> int:
        """Real pictures until the end; the last batch may go over by less than a batch."""
        return max(round(self.kimg * 1000), 1)

    @property
    def tick_images(self) -> int:
        """Real pictures per tick."""
        return max(round(self.tick_kimg * 1000), 1)


RESUME_MAY_CHANGE = frozenset({"kimg", "tick_kimg", "grid_ticks", "snapshot_ticks", "device"})


def differences(old: TrainingConfig, new: TrainingConfig) -> list[str]:
    """Settings that a resumed run would have to keep but that differ, as readable lines; empty if it may go on."""
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    return [
        f"{field}: {before[field]} in the run, {after[field]} now"
        for field in before
        if field not in RESUME_MAY_CHANGE and before[field] != after[field]
    ]
