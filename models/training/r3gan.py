"""R3GAN training (Huang et al. 2024, arXiv:2501.05441). A step has two phases, each with its own latents and draws:

1. G: its fakes are to be above reals, pair by pair, in D's eyes;
2. D: reals are to be above fakes, pair by pair, and D is to be flat at both: R1 and R2, at every step, of the gradient
   with respect to the pictures before their augmentation, and through it.

The paper's G step has a batch of reals of its own. The loop reads one batch per step, and G comes first: its reals are
pictures that D has not seen since its last update, as in the paper; only then does D learn from the same ones, against
other fakes and other augmentations. So nothing of a batch has to be kept for the next step, or for a resume. Fakes take
the labels of the reals that they are paired with.

Learning rate, beta2, gamma and augmentation follow `models.training.schedules`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from models.gan.ada import AdaPipeline
from models.gan.losses import relativistic_loss
from models.gan.penalties import gradient_penalty
from models.gan.r3gan import Discriminator, Generator
from models.training.config import R3GANConfig, TrainingConfig
from models.training.distributed import ALONE, Workers
from models.training.networks import build_discriminator, build_generator
from models.training.schedules import r3gan_moment
from models.training.updates import PartwiseUpdates

if TYPE_CHECKING:
    from models.training.algorithm import TrainingBatch

COLOUR = 0.5  # multipliers of p (the paper's appendix): colours change half as often, ...
CUTOUT = 1.0  # ... and a square is cut out as often as anything else


class R3GAN(PartwiseUpdates):
    """The algorithm of a training: networks, optimisers, augmentation, and what they need to go on exactly."""

    def __init__(
        self, config: TrainingConfig, device: torch.device, rng: torch.Generator, workers: Workers = ALONE
    ) -> None:
        if not isinstance(config.algorithm, R3GANConfig):
            raise TypeError(f"this config is for {config.algorithm.name}, not for r3gan")
        self.config: R3GANConfig = config.algorithm
        generator, discriminator = build_generator(config), build_discriminator(config)
        if not isinstance(generator, Generator) or not isinstance(discriminator, Discriminator):
            raise TypeError("the networks of an r3gan config are not R3GAN's")
        self.generator, self.discriminator = generator, discriminator
        super().__init__(config, device, rng, workers, generator, discriminator)
        self.moment = r3gan_moment(self.config, 0)  # of the last step
        betas = (0.0, self.moment.beta2)
        self.optimisers = {name: self._build_adam(name, self.moment.learning_rate, betas) for name in self.trained}
        self.augmentation = _build_augmentation(self.config)
        # Both share their weights with the networks. D runs compiled in G's phase alone: in its own it has penalties,
        # and compiled graphs have no second derivative.
        self._paint: Callable[..., torch.Tensor] = generator
        self._judge: Callable[..., torch.Tensor] = discriminator
        if config.compile:
            self._paint = torch.compile(generator, dynamic=False)
            self._judge = torch.compile(discriminator, dynamic=False)

    # ---- what the loop asks for

    def step(self, batch: TrainingBatch, rng: torch.Generator) -> dict[str, torch.Tensor]:
        """G's phase, then D's. Statistics are means over the whole batch, the same in every process; `sign_D_pair` is
        the mean sign of D(real) - D(fake); the logits themselves are defined up to a constant only."""
        self._begin_step()
        self._set_moment(batch.nimg)
        totals = self._add_up(self._train_generator(batch, rng) | self._train_discriminator(batch, rng))
        return {name: total / batch.total for name, total in totals.items()} | self._mended_counts()

    def describe(self) -> dict[str, float]:
        moment = self.moment
        figures = {"learning_rate": moment.learning_rate, "beta2": moment.beta2, "gamma": moment.gamma}
        return figures if self.augmentation is None else figures | {"ada_p": moment.augment_p}

    def events(self) -> list[str]:
        return []

    def state_dict(self) -> dict[str, Any]:
        return self._optimiser_states()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._load_optimisers(state)

    # ---- phases: each returns sums over this process's pictures

    def _train_generator(self, batch: TrainingBatch, rng: torch.Generator) -> dict[str, torch.Tensor]:
        latents = self._draw_latents(batch.total, rng)
        for_fakes, for_reals = (self._draw_augmentation(batch.total, rng) for _ in range(2))
        self.discriminator.requires_grad_(False)
        loss_sum = self._zero()
        for start, stop in self._parts(batch.first, batch.first + len(batch.images)):
            labels = self._labels(batch, range(start, stop))
            fakes = self._paint(self._to_device(latents[start:stop]), labels)
            fake_logits = self._judge(self._augment(fakes, for_fakes, start, stop), labels)
            with torch.no_grad():
                seen_reals = self._augment(self._reals(batch, start, stop), for_reals, start, stop)
                real_logits = self._judge(seen_reals, labels)
            losses = relativistic_loss(fake_logits, real_logits)
            (losses.sum() * self._share(batch.total)).backward()
            loss_sum += losses.detach().sum()
        self._update("G")
        return {"loss_G": loss_sum}

    def _train_discriminator(self, batch: TrainingBatch, rng: torch.Generator) -> dict[str, torch.Tensor]:
        latents = self._draw_latents(batch.total, rng)
        for_fakes, for_reals = (self._draw_augmentation(batch.total, rng) for _ in range(2))
        self._thaw_discriminator()
        sums = {name: self._zero() for name in ("loss_D", "r1", "r2", "logit_real", "logit_fake", "sign_D_pair")}
        for start, stop in self._parts(batch.first, batch.first + len(batch.images)):
            labels = self._labels(batch, range(start, stop))
            with torch.no_grad():
                fakes = self._paint(self._to_device(latents[start:stop]), labels).detach()
            fakes.requires_grad_()
            reals = self._reals(batch, start, stop).requires_grad_()
            # never compiled: their gradients are differentiated once more
            fake_logits = self.discriminator(self._augment(fakes, for_fakes, start, stop), labels)
            real_logits = self.discriminator(self._augment(reals, for_reals, start, stop), labels)
            losses = relativistic_loss(real_logits, fake_logits)
            r1, r2 = gradient_penalty(real_logits, reals), gradient_penalty(fake_logits, fakes)
            whole = losses + self.moment.gamma / 2 * (r1 + r2)
            (whole.sum() * self._share(batch.total)).backward()
            found = (losses, r1, r2, real_logits, fake_logits, (real_logits - fake_logits).sign())
            for name, values in zip(sums, found, strict=True):
                sums[name] += values.detach().sum()
        self._update("D")
        return sums

    # ---- what phases are made of

    @property
    def augment_p(self) -> float:
        return self.moment.augment_p

    def _set_moment(self, nimg: int) -> None:
        self.moment = r3gan_moment(self.config, nimg)
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"], group["betas"] = self.moment.learning_rate, (0.0, self.moment.beta2)

    def _draw_latents(self, total: int, rng: torch.Generator) -> torch.Tensor:
        """Of the whole batch, float32 (total, z_dim), on the CPU."""
        return torch.randn(total, self.config.z_dim, generator=rng)

    def _to_device(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.to(self.device, non_blocking=True)


def _build_augmentation(config: R3GANConfig) -> AdaPipeline | None:
    if config.augment == "none":
        return None
    colour = COLOUR if "c" in config.augment_pipe else None
    return AdaPipeline(config.augment_pipe, colour=colour, cutout=CUTOUT)
