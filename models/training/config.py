"""What a training is told. Imports no torch, so that a recipe can be checked before anything heavy is loaded."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.gan.levels import R3GAN_WIDTH_STEP, plan_levels

NOISE_GROUP = 4  # pictures whose synthesis noise is drawn together: micro-batches and processes hold whole groups

AugmentPipe = Literal["b", "g", "c", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc"]  # of `models.gan.ada.pipeline.PRESETS`
LabelRange = Annotated[tuple[float, float], Field(description="Lowest and highest target.")]


class DeviceChoice(StrEnum):
    """Where to compute: `auto` is the first CUDA device if there is one, otherwise the CPU."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Precision(StrEnum):
    """What the larger maps are computed in: `auto` is float32 on a CPU, and on a CUDA device float16, for R3GAN
    bfloat16."""

    AUTO = "auto"
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True)
class DatasetRef:
    """What a run was trained on: a published version, or a folder of pictures. Written beside all that it leaves."""

    name: str  # such as "faces", or a folder's name
    version: int  # such as 7 for faces@v7; 0 for a folder
    digest: str  # the version's content digest, or that of the folder's names and files; SHA-256 in hex
    count: int  # pictures

    def __str__(self) -> str:
        return f"{self.name}@v{self.version}" if self.version else self.name


class DCGANConfig(BaseModel):
    """The DCGAN of the paintings write-up (Radford et al. 2016; soft, sometimes swapped labels), and its variants."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["dcgan"] = Field("dcgan", description="Which algorithm this is.")
    z_dim: int = Field(200, ge=1, description="Normal values per latent.")
    width: int = Field(64, ge=1, description="Channels of the map at half the resolution; 8 times as many at 4x4.")
    kernel: Literal[4, 5] = Field(4, description="Side of the convolutions, in pixels.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of D's features that each step leaves out.")
    optimiser: Literal["adam", "rmsprop"] = Field("adam", description="How both networks are optimised.")
    learning_rate: float = Field(2e-4, gt=0, description="The optimiser's step size, the same for both networks.")
    betas: tuple[float, float] = Field((0.5, 0.999), description="Adam's decay of the first and second moments.")
    clip_weights: float = Field(
        0.0, ge=0, description="D's weights are kept within this of 0 (WGAN's clipping); 0: off."
    )
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


class StyleGAN2Config(BaseModel):
    """StyleGAN2 (Karras et al. 2020, arXiv:1912.04958) with adaptive augmentation (ADA, arXiv:2006.06676)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["stylegan2"] = Field("stylegan2", description="Which algorithm this is.")
    # ---- networks
    z_dim: int = Field(512, ge=1, description="Normal values per latent.")
    w_dim: int = Field(512, ge=1, description="Values per style.")
    mapping_layers: int = Field(8, ge=1, description="Dense layers from z to w.")
    normalize_latent: bool = Field(True, description="Scale z to unit second moment; the extended model does not.")
    channel_base: int = Field(32768, ge=16, description="A map of side r has channel_base / r channels, ...")
    channel_max: int = Field(512, ge=1, description="... but at most this many.")
    d_channel_base: int | None = Field(None, ge=16, description="The same of D; none: as of G.")
    d_channel_max: int | None = Field(None, ge=1, description="The same of D; none: as of G.")
    d_architecture: Literal["resnet", "orig"] = Field("resnet", description="D's blocks: residual, or plain (CIFAR).")
    mbstd_group: int = Field(4, ge=1, description="Pictures whose spread D sees together.")
    mbstd_features: int = Field(1, ge=0, description="Maps of that spread; 0 leaves it out.")
    half_resolutions: int = Field(4, ge=0, description="How many of the largest maps are computed in half precision.")
    conv_clamp: float | None = Field(
        256.0, gt=0, description="Limit of the outputs of convolutions, against overflow in half precision; none: off."
    )
    # ---- optimisation
    learning_rate: float = Field(0.002, gt=0, description="Adam's step size of G, and of D unless d_learning_rate.")
    d_learning_rate: float | None = Field(None, gt=0, description="Adam's step size of D; none: G's.")
    betas: tuple[float, float] = Field((0.0, 0.99), description="Adam's decay of the first and second moments.")
    r1_gamma: float = Field(10.0, ge=0, description="Weight of R1, the penalty on D's gradient at reals.")
    r1_interval: int = Field(16, ge=1, description="R1 is computed every so many steps, and weighted by as many.")
    path_weight: float = Field(2.0, ge=0, description="Weight of the path length penalty of G; 0: off.")
    path_interval: int = Field(4, ge=1, description="It is computed every so many steps, and weighted by as many.")
    path_decay: float = Field(0.01, gt=0, le=1, description="How fast the mean path length follows.")
    path_shrink: int = Field(2, ge=1, description="It is computed on the batch divided by this.")
    noise: bool = Field(
        True, description="Random detail in every map; off, G cannot pass speckles off as hair early on."
    )
    style_mixing: float = Field(0.9, ge=0, le=1, description="Share of fakes that are made of two styles.")
    w_mean_decay: float = Field(0.995, ge=0, lt=1, description="Decay of the running mean of w, for truncation.")
    # ---- augmentation
    augment: Literal["ada", "fixed", "diffaugment", "none"] = Field(
        "none", description="What D sees augmented: adaptively, at a fixed strength, lightly (DiffAugment), or nothing."
    )
    augment_pipe: Literal["none", AugmentPipe] = Field(
        "bgc", description="What ADA does: b = blit, g = geometry, c = colour; bg for anime."
    )
    augment_p: float = Field(0.0, ge=0, le=1, description="Strength: where ada starts, or what fixed keeps.")
    ada_target: float = Field(0.6, gt=0, lt=1, description="The mean sign of D on reals that ADA aims at.")
    ada_interval: int = Field(4, ge=1, description="ADA changes p every so many steps.")
    ada_kimg: float = Field(500.0, gt=0, description="Thousands of reals in which p can go from 0 to 1.")
    ada_cap: float = Field(0.8, gt=0, le=1, description="p never goes over this; reaching it is a warning.")
    # ---- transfer
    freeze_d: int = Field(0, ge=0, description="D's highest-resolution layers that are not trained (Freeze-D).")


class R3GANConfig(BaseModel):
    """R3GAN (Huang et al. 2024, arXiv:2501.05441): a relativistic pairing loss, R1 and R2 at every step, no tricks.

    Five settings follow a cosine over `schedule_kimg` and stay at its end: the learning rate, Adam's beta2, the weight
    of the penalties, the augmentation, and the half-life of the average (from 0 to `ema_half_life_kimg`; where weights
    were taken over it is whole from the start).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["r3gan"] = Field("r3gan", description="Which algorithm this is.")
    # ---- networks
    z_dim: int = Field(64, ge=1, description="Normal values per latent.")
    channel_base: int = Field(24576, ge=16, description="A map of side r has channel_base / r channels, ...")
    channel_max: int = Field(768, ge=1, description="... but at most this many; always a multiple of 8.")
    blocks: int = Field(2, ge=1, description="Residual blocks per size of map.")
    label_features: int = Field(64, ge=1, description="Values that a label is embedded in.")
    half_resolutions: int = Field(4, ge=0, description="How many of the largest maps are computed in half precision.")
    # ---- optimisation; "at the end" is that of the schedule
    schedule_kimg: float = Field(
        20_000.0, gt=0, description="Length of the schedules; the presets': that of the training when it begins."
    )
    learning_rate: float = Field(2e-4, gt=0, description="Adam's step size of both networks at the start.")
    learning_rate_fall: float = Field(0.25, gt=0, le=1, description="What is left of it at the end, as a share.")
    beta2: float = Field(0.9, ge=0, lt=1, description="Adam's decay of the second moments at the start.")
    beta2_end: float = Field(0.99, ge=0, lt=1, description="The same at the end.")
    r1_gamma: float = Field(2.0, ge=0, description="Weight of R1 and of R2 at the start; computed at every step.")
    gamma_fall: float = Field(0.1, gt=0, le=1, description="What is left of it at the end, as a share.")
    # ---- augmentation
    augment: Literal["scheduled", "fixed", "none"] = Field(
        "scheduled", description="What D sees augmented: from 0 up to augment_p, at augment_p all along, or nothing."
    )
    augment_pipe: AugmentPipe = Field(
        "bgc", description="What it does: b = blit, g = geometry, c = colour, half as often; cutout comes with all."
    )
    augment_p: float = Field(0.3, ge=0, le=1, description="Strength, at the end of the schedule or all along.")


class TrainingConfig(BaseModel):
    """One training. Lengths are in kimg, thousands of real pictures shown to the discriminator."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    algorithm: DCGANConfig | StyleGAN2Config | R3GANConfig = Field(
        DCGANConfig(), discriminator="name", description="Networks, losses and optimisers."
    )
    resolution: int = Field(
        64, description="The longer side in pixels: the longer side of `aspect` times a power of two."
    )
    aspect: tuple[int, int] = Field(
        (4, 4), description="(rows, columns) of the smallest map; (3, 4) makes pictures of 384 x 512, 4 by 4 squares."
    )
    channels: Literal[1, 3, 4] = Field(3, description="3 = RGB, 1 = grey, 4 = RGBA.")
    labels: int = Field(0, ge=0, description="Values per label of a conditional training; 0: unconditional.")
    kimg: float = Field(1500.0, gt=0, description="How long to train.")
    batch: int = Field(64, ge=2, description="Pictures per step, over all processes.")
    micro_batch: int | None = Field(
        None, ge=1, description="Pictures computed at once; a batch is added up of as many as it takes. None: all."
    )
    precision: Precision = Field(Precision.AUTO, description="What the larger maps are computed in.")
    compile: bool = Field(False, description="Compile the passes without penalties (torch.compile).")
    transfer: str | None = Field(None, description="SHA-256 of the snapshot whose weights this training began with.")
    ema_half_life_kimg: float = Field(
        10.0,
        ge=0,
        description="Half-life of the average of the generator's weights; 0 follows them at once. R3GAN: at the end.",
    )
    ema_ramp_up: float | None = Field(
        0.05, gt=0, description="Early on the half-life is at most this share of the pictures seen so far; none: off."
    )
    tick_kimg: float = Field(4.0, gt=0, description="One line of statistics, and one progress report, every so often.")
    grid_ticks: int = Field(5, ge=1, description="A grid of fakes every so many ticks.")
    snapshot_ticks: int = Field(25, ge=1, description="A snapshot every so many ticks, and one at the end.")
    metrics_kimg: float = Field(
        0.0,
        ge=0,
        description="Figures of quality at the first tick after every so many kimg, and at the end; 0: never.",
    )
    metrics_extractor: str = Field("hed-vgg4", description="What they are measured in: a name, or a network's file.")
    seed: int = Field(0, ge=0, lt=2**63, description="Of the initial weights, the latents and the labels.")
    mirror: bool = Field(
        True, description="Half of the real pictures were shown mirrored; the reader of the data does it."
    )
    device: DeviceChoice = Field(DeviceChoice.AUTO, description="Where to compute.")

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        sides = self.aspect
        doublings = self.resolution // max(sides)
        if min(sides) < 2 or max(sides) > 8 or max(sides) * doublings != self.resolution or doublings & (doublings - 1):
            raise ValueError(
                f"resolution must be {max(sides)} (the longer side of aspect, 2 to 8) times a power of two, "
                f"got {self.resolution}"
            )
        if self.resolution < 16:
            raise ValueError(f"resolution must be at least 16 pixels, got {self.resolution}")
        if self.tick_images < self.batch:
            raise ValueError(f"tick_kimg must be at least one batch ({self.batch / 1000}), got {self.tick_kimg}")
        return self

    @model_validator(mode="after")
    def _check_algorithm(self) -> Self:
        part = self.micro_batch
        if part is not None and self.batch % part:
            raise ValueError(f"micro_batch must divide the batch of {self.batch}, got {part}")
        if isinstance(self.algorithm, DCGANConfig):
            wrong = []
            if self.aspect != (4, 4):
                wrong.append("aspect must be (4, 4)")
            if self.channels == 4:
                wrong.append("channels must be 1 or 3")
            if self.labels:
                wrong.append("labels must be 0")
            if part is not None:
                wrong.append("micro_batch must be none: batch norm needs the whole batch")
            if wrong:
                raise ValueError("the DCGAN cannot be trained so: " + "; ".join(wrong) + ". StyleGAN2 can.")
        elif part is not None and self.part_step is not None:
            group = self.part_step
            if part % group:
                raise ValueError(
                    f"micro_batch must be a multiple of {group} (of the groups that share chance), got {part}"
                )
        if isinstance(self.algorithm, R3GANConfig):
            self._check_r3gan(self.algorithm)
        return self

    def _check_r3gan(self, algorithm: R3GANConfig) -> None:
        if self.precision is Precision.FLOAT16:
            raise ValueError("R3GAN's maps have no bound, float16 would overflow: use precision auto or bfloat16")
        for level in plan_levels(self.width, self.height, algorithm.channel_base, algorithm.channel_max, self.aspect):
            if level.channels % R3GAN_WIDTH_STEP:
                raise ValueError(
                    f"R3GAN needs a multiple of {R3GAN_WIDTH_STEP} channels in every map, but that of side "
                    f"{max(level.size)} would have {level.channels}: change channel_base or channel_max"
                )

    @property
    def part_step(self) -> int | None:
        """What micro_batch must be a multiple of: the pictures that share chance. None: the batch cannot be cut."""
        if isinstance(self.algorithm, DCGANConfig):
            return None
        if isinstance(self.algorithm, R3GANConfig):
            return 1
        return math.lcm(NOISE_GROUP, self.algorithm.mbstd_group if self.algorithm.mbstd_features else 1)

    @property
    def gpu_precision(self) -> Precision:
        """What precision `auto` is on a CUDA device: StyleGAN2's maps are clamped for float16, R3GAN's are not."""
        return Precision.BFLOAT16 if isinstance(self.algorithm, R3GANConfig) else Precision.FLOAT16

    @property
    def height(self) -> int:
        """Rows of a picture."""
        return self.aspect[0] * self.resolution // max(self.aspect)

    @property
    def width(self) -> int:
        """Columns of a picture."""
        return self.aspect[1] * self.resolution // max(self.aspect)

    @property
    def total_images(self) -> int:
        """Real pictures until the end; the last batch may go over by less than a batch."""
        return max(round(self.kimg * 1000), 1)

    @property
    def tick_images(self) -> int:
        """Real pictures per tick."""
        return max(round(self.tick_kimg * 1000), 1)


RESUME_MAY_CHANGE = frozenset(
    {
        "kimg", "tick_kimg", "grid_ticks", "snapshot_ticks", "metrics_kimg", "metrics_extractor", "device", "compile",
    }
)  # fmt: skip


def differences(old: TrainingConfig, new: TrainingConfig) -> list[str]:
    """Settings that a resumed run would have to keep but that differ, as readable lines; empty if it may go on."""
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    return [
        f"{field}: {before[field]} in the run, {after[field]} now"
        for field in before
        if field not in RESUME_MAY_CHANGE and before[field] != after[field]
    ]
