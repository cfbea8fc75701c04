"""Trainings by name: one table. Every setting that a row leaves out is the default in config.py. Imports no torch.

`AUTO` in a row is worked out by `resolve_preset`; whatever the caller changes wins over it. StyleGAN2's settings follow
from the picture's size and the batch, by the rules of the automatic configuration of StyleGAN2-ADA (Karras et al. 2020,
arXiv:2006.06676). R3GAN's schedules are as long as the training, and the half-life of its average is a `SchedulePart`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from models.training.config import R3GANConfig, StyleGAN2Config, TrainingConfig


class Auto(Enum):
    """The one value AUTO, which no setting has by itself."""

    AUTO = "worked out"


AUTO = Auto.AUTO
TRANSFER_ADA_KIMG = 100.0  # p follows five times as fast where D comes trained
MOST_PER_PROCESS = 32  # pictures of an automatic batch on one device, ...
MOST_PIXELS_PER_ROW = 4096  # ... or this over the resolution, if fewer, ...
MOST_IN_ALL = 64  # ... and this over all of them


@dataclass(frozen=True)
class SchedulePart:
    """A length in a row: one of so many equal parts of R3GAN's schedules."""

    parts: int


@dataclass(frozen=True)
class Preset:
    """A row of the table."""

    about: str  # what it is for, in a line
    config: Mapping[str, Any]  # fields of TrainingConfig, `algorithm` excepted; values may be AUTO or a SchedulePart
    algorithm: Mapping[str, Any]  # fields of the algorithm's config, its `name` among them; values may be AUTO


PRESETS: Mapping[str, Preset] = {
    "stylegan2-ada": Preset(
        about="StyleGAN2 with adaptive augmentation, settings from the picture's size: start here with 500 to 50,000",
        config={"resolution": 256, "kimg": 5000, "batch": AUTO, "ema_half_life_kimg": AUTO},
        algorithm={
            "name": "stylegan2",
            "mapping_layers": 2,
            "channel_base": AUTO,
            "mbstd_group": AUTO,
            "learning_rate": AUTO,
            "r1_gamma": AUTO,
            "augment": "ada",
        },
    ),
    "stylegan2": Preset(
        about="StyleGAN2 as first published (configuration F), no augmentation: for 100,000 pictures and more",
        config={
            "resolution": 1024,
            "kimg": 25000,
            "batch": 32,
            "micro_batch": 4,
            "ema_half_life_kimg": 10,
            "ema_ramp_up": None,
        },
        algorithm={"name": "stylegan2", "learning_rate": 0.002, "r1_gamma": 10},
    ),
    "stylegan2-paper256": Preset(
        about="the ADA paper's 256 px: batch 64, half width, eight mapping layers",
        config={
            "resolution": 256,
            "kimg": 25000,
            "batch": 64,
            "micro_batch": 16,
            "ema_half_life_kimg": 20,
            "ema_ramp_up": None,
        },
        algorithm={
            "name": "stylegan2",
            "channel_base": 16384,
            "mbstd_group": 8,
            "learning_rate": 0.0025,
            "r1_gamma": 1,
            "augment": "ada",
        },
    ),
    "stylegan2-paper512": Preset(
        about="the ADA paper's 512 px: batch 64, full width, eight mapping layers",
        config={
            "resolution": 512,
            "kimg": 25000,
            "batch": 64,
            "micro_batch": 8,
            "ema_half_life_kimg": 20,
            "ema_ramp_up": None,
        },
        algorithm={
            "name": "stylegan2",
            "mbstd_group": 8,
            "learning_rate": 0.0025,
            "r1_gamma": 0.5,
            "augment": "ada",
        },
    ),
    "stylegan2-paper1024": Preset(
        about="the ADA paper's 1024 px: batch 32, full width, eight mapping layers",
        config={
            "resolution": 1024,
            "kimg": 25000,
            "batch": 32,
            "micro_batch": 4,
            "ema_half_life_kimg": 10,
            "ema_ramp_up": None,
        },
        algorithm={"name": "stylegan2", "learning_rate": 0.002, "r1_gamma": 2, "augment": "ada"},
    ),
    "stylegan2-cifar": Preset(
        about="tiny photographs of many kinds, 32 px: no path length, no style mixing, a plain discriminator",
        config={"resolution": 32, "kimg": 100_000, "batch": 64, "ema_half_life_kimg": 500},
        algorithm={
            "name": "stylegan2",
            "mapping_layers": 2,
            "d_architecture": "orig",
            "mbstd_group": 32,
            "learning_rate": 0.0025,
            "r1_gamma": 0.01,
            "path_weight": 0,
            "style_mixing": 0,
            "augment": "ada",
        },
    ),
    # The network that gwern's page and Aydao's fork of StyleGAN2 describe; they name leaving out path length and mixing
    # as what lets it use its size. R1 went from 10 to 5 in the course of that training; 5 is where it ended.
    "stylegan2-ext": Preset(
        about="the extended StyleGAN2 for anime, twice as wide: for a million pictures of all kinds of poses",
        config={
            "resolution": 512,
            "kimg": 25000,
            "batch": 32,
            "micro_batch": 8,
            "ema_half_life_kimg": 10,
            "mirror": False,
        },
        algorithm={
            "name": "stylegan2",
            "z_dim": 1024,
            "w_dim": 1024,
            "mapping_layers": 4,
            "normalize_latent": False,
            "channel_base": 65536,
            "channel_max": 1024,
            "d_channel_base": 32768,
            "d_channel_max": 512,
            "mbstd_group": 8,  # theirs was 32, a TPU's batch: 76 GB on one card
            "mbstd_features": 4,
            "learning_rate": 0.002,
            "r1_gamma": 5,
            "path_weight": 0,
            "style_mixing": 0,
        },
    ),
    "stylegan2-demo": Preset(
        # 17 to 22 s/kimg on one thread of a busy machine. On 900 portraits: blobs at 8 kimg,
        # heads at 12, faces with hair, eyes and mouth at 24; p rises to 0.06 while D is ahead and falls again.
        about="StyleGAN2-ADA at 32 px, narrow: faces in some minutes on two CPU cores",
        config={
            "resolution": 32,
            "kimg": 24,
            "batch": 16,
            "ema_half_life_kimg": 2,
            "tick_kimg": 1,
            "grid_ticks": 4,
            "snapshot_ticks": 12,
        },
        algorithm={
            "name": "stylegan2",
            "z_dim": 64,
            "w_dim": 64,
            "mapping_layers": 2,
            "channel_base": 1024,
            "channel_max": 64,
            "learning_rate": 0.0025,
            "r1_gamma": 0.1,
            "noise": False,  # tried: 24 kimg with it are faces under speckles
            "augment": "ada",
            "ada_kimg": 50,
        },
    ),
    "r3gan-64": Preset(
        # The paper's FFHQ-64, at its own length of 20,000 kimg: there the half-life ends at 500. micro_batch is for a
        # card of 16 GB (a step takes 11.5, by rehearsal); a larger one is the same training in fewer passes, for a
        # larger card: 64 take 22 GB, 128 take 44, all 256 take 87. r3gan-128: 32 take 25, 64 take 48. r3gan-256: 16
        # take 26, 32 take 51. r3gan-cifar: 256 take 35, all 512 take 70.
        about="R3GAN's published 64 px: relativistic loss, R1 and R2, no tricks; for 10,000 pictures and more",
        config={
            "resolution": 64,
            "kimg": 20_000,
            "batch": 256,
            "micro_batch": 32,
            "ema_half_life_kimg": SchedulePart(40),
            "ema_ramp_up": None,
        },
        algorithm={"name": "r3gan", "schedule_kimg": AUTO, "r1_gamma": 2},
    ),
    "r3gan-128": Preset(
        # Nobody has published one: gamma is interpolated between 64 and 256 px (pixels to the power of 1.56).
        about="R3GAN at 128 px, between its published 64 and 256: sweep --gamma first",
        config={
            "resolution": 128,
            "kimg": 20_000,
            "batch": 256,
            "micro_batch": 16,
            "ema_half_life_kimg": SchedulePart(40),
            "ema_ramp_up": None,
        },
        algorithm={"name": "r3gan", "schedule_kimg": AUTO, "r1_gamma": 17},
    ),
    "r3gan-256": Preset(
        about="R3GAN's published 256 px: 23 M weights in each network; wants several GPUs",
        config={
            "resolution": 256,
            "kimg": 20_000,
            "batch": 256,
            "micro_batch": 8,
            "ema_half_life_kimg": SchedulePart(40),
            "ema_ramp_up": None,
        },
        algorithm={"name": "r3gan", "schedule_kimg": AUTO, "r1_gamma": 150},
    ),
    "r3gan-cifar": Preset(
        about="R3GAN's published CIFAR-10: tiny photographs of many kinds, 32 px",
        config={
            "resolution": 32,
            "kimg": 20_000,
            "batch": 512,
            "micro_batch": 64,
            "ema_half_life_kimg": SchedulePart(4),
            "ema_ramp_up": None,
        },
        algorithm={"name": "r3gan", "schedule_kimg": AUTO, "r1_gamma": 0.05, "augment_p": 0.55},
    ),
    "r3gan-demo": Preset(
        # 19 to 22 s/kimg on one thread of a busy machine, 1.3 times stylegan2-demo's CPU time. On 900 portraits: heads
        # under hair at 8 kimg, faces at 12, eyes in about a third of them at 24. Steps count more than pictures at this
        # length: batch 32 (gamma 0.1) was noise at 8 kimg, batch 16 (gamma 1) curls at 12; gamma 0.5 was behind 2.
        about="R3GAN at 32 px, narrow: faces in some minutes on two CPU cores",
        config={
            "resolution": 32,
            "kimg": 24,
            "batch": 8,
            "ema_half_life_kimg": SchedulePart(12),
            "ema_ramp_up": None,
            "tick_kimg": 1,
            "grid_ticks": 4,
            "snapshot_ticks": 12,
        },
        algorithm={
            "name": "r3gan",
            "channel_base": 512,
            "channel_max": 64,
            "blocks": 1,
            "schedule_kimg": AUTO,
            "learning_rate": 1e-3,
            "r1_gamma": 2,
        },
    ),
    "dcgan-paintings-64": Preset(
        # 15 s/kimg on 2 CPU cores: it wants a GPU
        about="the paintings write-up's DCGAN: 64 px, z 200, Adam 0.0002 (0.5, 0.999)",
        config={},
        algorithm={"name": "dcgan"},
    ),
    "dcgan-paintings-256": Preset(
        # G 12.8 M and D 11.2 M weights (512 channels at 16 px and below). A step holds about 19 MB a picture beside
        # 0.6 GB: 64 pictures fit 4 GB. 0.6 s of CPU time a picture on one thread: it needs a GPU.
        about="the paintings write-up's DCGAN at 256 px: width 64, doubled per level up to 512",
        config={"resolution": 256, "kimg": 3000, "batch": 64},
        algorithm={"name": "dcgan", "width": 64},
    ),
    "dcgan-digits": Preset(
        # 28 px digits are padded to 32. About 3 s of CPU time per kimg on one thread; most are digits from 40 kimg on.
        # The bound of 0.01 leaves D at chance by 60 kimg; clip_weights = 0 is better after as many pictures. The
        # paintings' wide label ranges with dropout 0.4 learn more slowly, and so does a rate of 2e-4.
        about="the digits write-up's DCGAN: grey, 5x5 kernels, RMSprop, dropout and clipped weights; pad 28 px to 32",
        config={
            "resolution": 32,
            "channels": 1,
            "kimg": 42,
            "batch": 16,
            "mirror": False,
            "ema_half_life_kimg": 4,
            "ema_ramp_up": 0.1,
            "tick_kimg": 3,
            "grid_ticks": 2,
            "snapshot_ticks": 7,
        },
        algorithm={
            "name": "dcgan",
            "z_dim": 100,
            "width": 32,
            "kernel": 5,
            "dropout": 0.25,
            "optimiser": "rmsprop",
            "learning_rate": 5e-4,
            "clip_weights": 0.01,
            "real_labels": (0.9, 1.0),
            "fake_labels": (0.0, 0.1),
            "label_swap": 0.0,
        },
    ),
    "dcgan-demo": Preset(
        # About 1.8 s of CPU time per kimg on one thread: some two minutes on 2 idle cores, twice that on busy ones.
        # Faces with eyes, mouth and fringe; 64 px at width 16 costs 1.7 times as much per kimg and is still noise after
        # 28 kimg.
        about="a DCGAN at 32 px: faces in some minutes on two CPU cores",
        config={
            "resolution": 32,
            "kimg": 72,
            "batch": 16,
            "ema_half_life_kimg": 8,
            "ema_ramp_up": 0.12,
            "tick_kimg": 3,
            "grid_ticks": 2,
            "snapshot_ticks": 8,
        },
        algorithm={"name": "dcgan", "width": 32, "learning_rate": 3e-4, "betas": (0.5, 0.99)},
    ),
}


def preset_names() -> list[str]:
    """The presets there are, in the table's order."""
    return list(PRESETS)


def resolve_preset(name: str, changes: Mapping[str, Any] | None = None, world: int = 1) -> TrainingConfig:
    """The complete configuration of a preset, with some of it changed, for `world` processes.

    changes: fields of TrainingConfig by name; "algorithm" holds fields of the algorithm's config, merged with the
    preset's. What is given wins over what the preset works out, and the rest is worked out from it: a larger batch
    gives a smaller gamma, a shorter R3GAN a shorter schedule. The result holds numbers alone, so that a run that goes
    on for longer keeps the schedule that it began with. A training that starts from a snapshot ("transfer") has no
    ramp of the average and a faster ADA.

    Raises ValueError for an unknown preset and for a batch that cannot be shared out; pydantic's ValidationError (a
    ValueError too) for settings that do not go together.
    """
    preset = PRESETS.get(name)
    if preset is None:
        raise ValueError(f"there is no preset {name!r}: choose one of {', '.join(PRESETS)}")
    if world < 1:
        raise ValueError(f"world must be at least one process, got {world}")
    changes = dict(changes or {})
    algorithm = {**preset.algorithm, **changes.pop("algorithm", {})}
    config = {**preset.config, **changes}
    if changes.get("transfer"):
        config.setdefault("ema_ramp_up", None)
        if algorithm.get("augment") == "ada":
            algorithm.setdefault("ada_kimg", TRANSFER_ADA_KIMG)
    if "schedule_kimg" in preset.algorithm:
        config, algorithm = _lay_out_schedule(config, algorithm)
    elif AUTO in (*config.values(), *algorithm.values()):
        rules = _work_out(config, world)
        config, algorithm = _fill(config, rules), _fill(algorithm, rules)
    resolved = TrainingConfig.model_validate({**config, "algorithm": algorithm})
    if resolved.batch % world:
        raise ValueError(f"a batch of {resolved.batch} cannot be shared out to {world} processes: make it a multiple")
    return resolved


def _lay_out_schedule(config: Mapping[str, Any], algorithm: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """R3GAN's settings with its lengths in kimg. They are checked first, so that a wrong one is named as such."""
    own = {} if algorithm["schedule_kimg"] is AUTO else {"schedule_kimg": algorithm["schedule_kimg"]}
    lengths = TrainingConfig.model_validate({"kimg": config["kimg"], "algorithm": {"name": "r3gan", **own}})
    assert isinstance(lengths.algorithm, R3GANConfig)
    whole = lengths.algorithm.schedule_kimg if own else lengths.kimg
    parts = {field: whole / value.parts for field, value in config.items() if isinstance(value, SchedulePart)}
    return {**config, **parts}, {**algorithm, "schedule_kimg": whole}


def _work_out(config: Mapping[str, Any], world: int) -> dict[str, Any]:
    """What AUTO stands for, by field. The sizes are checked first, so that a wrong one is named as such."""
    given = {field: config[field] for field in ("resolution", "aspect", "batch") if config.get(field, AUTO) is not AUTO}
    sizes = TrainingConfig.model_validate({**given, "tick_kimg": 1e6, "algorithm": StyleGAN2Config()})
    batch = sizes.batch if "batch" in given else automatic_batch(sizes.resolution, world)
    return {
        "batch": batch,
        "ema_half_life_kimg": batch * 10 / 32,
        "channel_base": 32768 if sizes.resolution >= 512 else 16384,
        "mbstd_group": min(max(batch // world, 1), 4),
        "learning_rate": 0.002 if sizes.resolution >= 1024 else 0.0025,
        "r1_gamma": 0.0002 * sizes.width * sizes.height / batch,
    }


def _fill(settings: Mapping[str, Any], rules: Mapping[str, Any]) -> dict[str, Any]:
    return {field: rules[field] if value is AUTO else value for field, value in settings.items()}


def automatic_batch(resolution: int, world: int = 1) -> int:
    """Pictures per step over `world` processes: min(4096 / resolution, 32) on each, at most 64 in all, at least one."""
    each = min(MOST_PIXELS_PER_ROW // resolution, MOST_PER_PROCESS, MOST_IN_ALL // world)
    return max(each, 1) * world
