"""What a training will need, found without doing it: parameters, and the most memory that its tensors take at once.

The training's own steps are rehearsed on torch's meta device, where tensors have a shape but no values: a dispatch mode
sees every tensor that an operation makes and when the last user lets go of it, weights, gradients, optimiser state, the
average and both penalties with their second derivatives included. Nothing is estimated but what an operation needs
inside itself.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import softplus
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from models.gan.noise import SampleNoise
from models.training.algorithm import TrainingBatch
from models.training.config import DCGANConfig, DeviceChoice, Precision, R3GANConfig, StyleGAN2Config, TrainingConfig
from models.training.ema import ExponentialMovingAverage
from models.training.networks import build_discriminator, build_generator
from models.training.r3gan import R3GAN
from models.training.stylegan2 import StyleGAN2

META = torch.device("meta")

# What a process on a CPU takes beside its tensors, fitted to measured peaks of trainings at 32 and 64 px (all within
# 10 %): oneDNN's compiled kernels and threads, and what it and the C library's heap hold on to of short-lived tensors.
CPU_FIXED = 0.11e9  # bytes
CPU_HEAP = 1.6  # times the tensors that come and go


@dataclass(frozen=True)
class ConfigSummary:
    """What a config means in numbers."""

    generator_parameters: int
    discriminator_parameters: int
    kept_gb: float  # between steps: weights, optimiser state, the average; GB are 10^9 bytes
    tensors_gb: float  # all tensors at the most, in one process
    peak_gb: float  # that, and on a CPU what its libraries' buffers and heap add; on a GPU torch's context comes on top
    at_once: int  # pictures computed together
    part_step: int | None  # what micro_batch must be a multiple of; None: the batch cannot be cut

    def lines(self) -> list[str]:
        """For people."""
        lines = [
            f"generator      {self.generator_parameters / 1e6:.2f} M parameters",
            f"discriminator  {self.discriminator_parameters / 1e6:.2f} M parameters",
            f"memory         about {self.peak_gb:.2f} GB while training with {self.at_once} pictures at once, "
            f"{self.kept_gb:.2f} GB of it kept between steps",
        ]
        if self.part_step is not None and self.at_once > self.part_step:
            lines.append("               less with a smaller micro_batch, which changes nothing else")
        return lines


def describe_config(config: TrainingConfig, world: int = 1) -> ConfigSummary:
    """Sizes of what `config` trains, for each of `world` processes.

    Takes about a second; computes nothing and needs little memory. Memory is that of the precision that the config's
    device will use (`auto`: of a GPU if there is one here).
    """
    with META:
        generator, discriminator = build_generator(config), build_discriminator(config)
    rehearse = _rehearse_dcgan if isinstance(config.algorithm, DCGANConfig) else _rehearse_parts
    kept, peak = _measure(rehearse, config, world)
    each = max(config.batch // world, 1)
    on_gpu = _computes_on_gpu(config)
    return ConfigSummary(
        generator_parameters=_count(generator),
        discriminator_parameters=_count(discriminator),
        kept_gb=kept / 1e9,
        tensors_gb=peak / 1e9,
        peak_gb=peak / 1e9 if on_gpu else (CPU_FIXED + kept + CPU_HEAP * (peak - kept)) / 1e9,
        at_once=min(config.micro_batch or each, each),
        part_step=config.part_step,
    )


class Allocations(TorchDispatchMode):
    """Within, counts the bytes of the tensors on the meta device that are alive, and the most there were at once."""

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_iter(result):
            if isinstance(leaf, torch.Tensor) and leaf.device.type == "meta":
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        """Storages, not tensors: a view costs nothing. A storage keeps its object, so its id stays its own."""
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return

        def release(_: object) -> None:
            self._known.pop(key, None)
            self.live -= size

        self._known[key] = weakref.ref(storage, release)
        self.live += size
        self.peak = max(self.peak, self.live)


class _NoNoise(SampleNoise):
    """Noise of the right shape, without values."""

    def draw(self, shape: Any) -> torch.Tensor:
        return torch.empty((self.count, *shape), device=META)


class _RehearsedStyleGAN2(StyleGAN2):
    """The training itself, with the one thing replaced that the meta device cannot do."""

    def _noise(self, seed: int, start: int, stop: int) -> SampleNoise:
        return _NoNoise(seed, start, stop - start)


def _measure(rehearse: Callable[[TrainingConfig, int], Any], config: TrainingConfig, world: int) -> tuple[int, int]:
    """Bytes (between steps, at the most)."""
    with Allocations() as allocations:
        kept = rehearse(config, world)  # holds what a training holds
        between = allocations.live
        del kept
    return between, allocations.peak


def _rehearse_parts(config: TrainingConfig, world: int) -> Any:
    """A step in which every phase is due, augmented as strongly as can be; of two micro-batches at the most."""
    each = max(config.batch // world, 1)
    total = min(each, 2 * config.micro_batch) if config.micro_batch else each
    rehearsed = config.model_copy(
        update={
            "algorithm": _busiest(config),
            "precision": _resolve_for_meta(config),
            "compile": False,
        }
    )
    rng = torch.Generator().manual_seed(0)
    kind = R3GAN if isinstance(config.algorithm, R3GANConfig) else _RehearsedStyleGAN2
    algorithm = kind(rehearsed, META, rng)
    average = ExponentialMovingAverage(algorithm.generator, 1000.0, None)
    batch = TrainingBatch(
        images=torch.zeros(total, config.channels, config.height, config.width, dtype=torch.uint8),
        labels=torch.zeros(total, config.labels) if config.labels else None,
        first=0,
        total=total,
        nimg=0,
    )
    for optimiser in algorithm.optimisers.values():  # their state is there from the first step on
        for weight in optimiser.param_groups[0]["params"]:
            weight.grad = torch.zeros_like(weight)
        optimiser.step()
        optimiser.zero_grad()
    algorithm.step(batch, rng)
    average.update(algorithm.generator, total, total)
    return algorithm, average


def _busiest(config: TrainingConfig) -> StyleGAN2Config | R3GANConfig:
    """The settings of the step that needs most."""
    algorithm = config.algorithm
    assert not isinstance(algorithm, DCGANConfig)
    if isinstance(algorithm, R3GANConfig):
        return algorithm.model_copy(update={"augment": "fixed"} if algorithm.augment == "scheduled" else {})
    changes: dict[str, Any] = {"path_interval": 1, "r1_interval": 1}
    if algorithm.augment == "ada":
        changes |= {"augment": "fixed", "augment_p": algorithm.ada_cap}
    return algorithm.model_copy(update=changes)


def _computes_on_gpu(config: TrainingConfig) -> bool:
    return config.device is DeviceChoice.CUDA or (config.device is DeviceChoice.AUTO and torch.cuda.is_available())


def _resolve_for_meta(config: TrainingConfig) -> Precision:
    """The precision on the device that will compute; bfloat16 stands for float16, which takes as much."""
    if config.precision is Precision.AUTO:
        return Precision.BFLOAT16 if _computes_on_gpu(config) else Precision.FLOAT32
    return Precision.BFLOAT16 if config.precision is Precision.FLOAT16 else config.precision


def _rehearse_dcgan(config: TrainingConfig, world: int) -> Any:
    """The passes of two steps, as optimisers have no state in the first: D on reals and on fakes, then G through D."""
    assert isinstance(config.algorithm, DCGANConfig)
    with META:
        networks = {"G": build_generator(config), "D": build_discriminator(config)}
    kind = torch.optim.RMSprop if config.algorithm.optimiser == "rmsprop" else torch.optim.Adam
    optimisers = {name: kind(network.parameters()) for name, network in networks.items()}
    average = ExponentialMovingAverage(networks["G"], 1000.0, None)
    count = config.batch // world
    for _ in range(2):
        reals = torch.empty(count, config.channels, config.height, config.width, device=META)
        fakes = networks["G"](torch.empty(count, config.algorithm.z_dim, device=META))
        optimisers["D"].zero_grad()
        for seen in (reals, fakes.detach()):
            softplus(networks["D"](seen)).mean().backward()
        optimisers["D"].step()
        optimisers["G"].zero_grad()
        networks["D"].requires_grad_(False)
        softplus(networks["D"](fakes)).mean().backward()
        networks["D"].requires_grad_(True)
        optimisers["G"].step()
        del reals, fakes
    return networks, optimisers, average


def _count(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())
