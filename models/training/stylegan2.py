"""StyleGAN2 training (Karras et al. 2020, arXiv:1912.04958) with adaptive augmentation (ADA, arXiv:2006.06676).

A step is up to four phases, each with its own fakes, draws and optimiser step:

1. G against D: non-saturating logistic loss (Goodfellow et al. 2014), styles mixed, the mean of w tracked;
2. every `path_interval` steps, G's path lengths;
3. D on fakes and on reals, all augmented;
4. every `r1_interval` steps, R1 on D at the reals, through the augmentation.

A penalty computed every k steps is weighted by k, and its network's Adam runs with c = k / (k + 1): learning rate * c
and betas ** c (arXiv:1912.04958, appendix B), so that k + 1 updates do what k without the penalty would.

Every phase draws for the whole batch over all processes and computes its own part of it in micro-batches, whose
gradients add up: neither the number of micro-batches nor that of processes changes more than rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import softplus

from models.gan.ada import AdaController, AdaPipeline
from models.gan.diffaugment import DiffAugment
from models.gan.noise import GROUP, SampleNoise
from models.gan.penalties import gradient_penalty, path_lengths, path_penalty
from models.gan.stylegan2 import Discriminator, Generator
from models.training.config import StyleGAN2Config, TrainingConfig
from models.training.distributed import ALONE, Workers
from models.training.networks import build_discriminator, build_generator
from models.training.updates import PartwiseUpdates

if TYPE_CHECKING:
    from models.training.algorithm import TrainingBatch

SEEDS = 2**62  # noise seeds are drawn below this


@dataclass(frozen=True)
class StyleDraw:
    """What the fakes of one phase are made of, for the whole batch; small tensors on the CPU."""

    latents: torch.Tensor  # float32 (total, z_dim)
    others: torch.Tensor  # float32 (total, z_dim): the second style of mixed fakes
    cutoffs: torch.Tensor  # int64 (total,): how many layers take the first style; num_ws where nothing is mixed
    seed: int  # of the noise maps


class StyleGAN2(PartwiseUpdates):
    """The algorithm of a training: networks, optimisers, augmentation, and what they need to go on exactly."""

    def __init__(
        self, config: TrainingConfig, device: torch.device, rng: torch.Generator, workers: Workers = ALONE
    ) -> None:
        if not isinstance(config.algorithm, StyleGAN2Config):
            raise TypeError(f"this config is for {config.algorithm.name}, not for stylegan2")
        self.config: StyleGAN2Config = config.algorithm
        generator, discriminator = build_generator(config), build_discriminator(config)
        if not isinstance(generator, Generator) or not isinstance(discriminator, Discriminator):
            raise TypeError("the networks of a stylegan2 config are not StyleGAN2's")
        self.generator, self.discriminator = generator, discriminator
        discriminator.freeze(self.config.freeze_d)
        super().__init__(config, device, rng, workers, generator, discriminator)
        self.optimisers = {name: self._build_optimiser(name) for name in self.trained}
        self.steps = 0
        self.path_mean = torch.zeros((), device=device)  # running mean of path lengths
        self.augmentation = _build_augmentation(self.config)
        self.controller = _build_controller(self.config)
        # Both share their weights with the networks. What has a penalty never runs compiled: compiled graphs have no
        # second derivative.
        self._paint: Callable[..., torch.Tensor] = generator.synthesis.paint
        self._judge: Callable[..., torch.Tensor] = discriminator
        if config.compile:
            self._paint, self._judge = (
                torch.compile(self._paint, dynamic=False),
                torch.compile(discriminator, dynamic=False),
            )

    # ---- what the loop asks for

    def step(self, batch: TrainingBatch, rng: torch.Generator) -> dict[str, torch.Tensor]:
        """One step of each phase that is due. Statistics are means over the whole batch, the same in every process;
        `path_length` and `r1` come with the steps that compute them only; `mended_G` and `mended_D` count updates whose
        gradients were not finite and were mended."""
        self._begin_step()
        sums = self._train_generator(batch, rng)
        counts = {}
        if self._path_due():
            counts["path_length"] = self._path_count(batch)
            sums |= self._shorten_paths(batch, rng)
        sums |= self._train_discriminator(batch, rng)
        if self._r1_due():
            sums |= self._penalise_gradients(batch, rng)
        self.steps += 1

        totals = self._add_up(sums)
        if self.controller is not None:
            self.controller.update(totals["sign_D_real"], batch.total)
        means = {name: total / counts.get(name, batch.total) for name, total in totals.items()}
        return means | self._mended_counts()

    def describe(self) -> dict[str, float]:
        if self.augmentation is None or self.config.augment == "diffaugment":
            return {}
        return {"ada_p": self.augment_p}

    def events(self) -> list[str]:
        warning = self.controller.take_warning() if self.controller is not None else None
        return [] if warning is None else [warning]

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "path_mean": self.path_mean.clone(),
            "controller": self.controller.state_dict() if self.controller is not None else {},
            **self._optimiser_states(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]
        self.path_mean.copy_(state["path_mean"])
        if self.controller is not None:
            self.controller.load_state_dict(state["controller"])
        self._load_optimisers(state)

    # ---- phases: each returns sums over this process's pictures

    def _train_generator(self, batch: TrainingBatch, rng: torch.Generator) -> dict[str, torch.Tensor]:
        """Make D take fakes for real."""
        styles = self._draw_styles(batch.total, rng)
        augmentation = self._draw_augmentation(batch.total, rng)
        self.discriminator.requires_grad_(False)
        loss_sum, w_sum = self._zero(), torch.zeros_like(self.generator.w_mean)
        for start, stop in self._parts(batch.first, batch.first + len(batch.images)):
            labels = self._labels(batch, range(start, stop))
            ws, w = self._styles(styles, start, stop, labels)
            fakes = self._paint(ws, self._noise_maps(styles.seed, start, stop), "fused")
            logits = self._judge(self._augment(fakes, augmentation, start, stop), labels)
            losses = softplus(-logits)
            (losses.sum() * self._share(batch.total)).backward()
            loss_sum += losses.detach().sum()
            w_sum += w.detach().sum(dim=0)
        self._update("G")
        self._track_mean(w_sum, batch)
        return {"loss_G": loss_sum}

    def _shorten_paths(self, batch: TrainingBatch, rng: torch.Generator) -> dict[str, torch.Tensor]:
        """Pull the path lengths of a part of the batch to their running mean, which moves afterwards."""
        config, count = self.config, self._path_count(batch)
        styles = self._draw_styles(count, rng)
        picture_seed = _draw_seed(rng)
        length_sum = self._zero()
        size = (self.settings.channels, self.settings.height, self.settings.width)
        for start, stop in self._parts(*self._path_part(batch), self._path_micro_batch()):
            # sample k takes the label of a picture that this process holds, whatever the number of processes
            labels = self._labels(batch, [k * batch.total // count for k in range(start, stop)])
            ws, _ = self._styles(styles, start, stop, labels)
            fakes = self.generator.synthesis.paint(ws, self._noise_maps(styles.seed, start, stop), "fused")
            noise = self._noise(picture_seed, start, stop).draw(size)
            lengths = path_lengths(fakes, ws, noise)
            penalty = path_penalty(lengths, self.path_mean).sum() * (config.path_weight * config.path_interval)
            (penalty * self._share(count)).backward()
            length_sum += lengths.detach().sum()
        self._update("G")
        mean = self.workers.sum(length_sum) / count
        self.path_mean.lerp_(_finite_or(mean, self.path_mean), config.path_decay)
        return {"path_length": length_sum}

    def _train_discriminator(self, batch: TrainingBatch, rng: torch.Generator) -> dict[str, torch.Tensor]:
        """Tell reals from fakes; both are augmented, or the fakes would learn to look so."""
        styles = self._draw_styles(batch.total, rng)
        for_fakes, for_reals = (self._draw_augmentation(batch.total, rng) for _ in range(2))
        self._thaw_discriminator()
        sums = {name: self._zero() for name in ("loss_D", "sign_D_real", "sign_D_fake", "logit_real", "logit_fake")}
        w_sum = torch.zeros_like(self.generator.w_mean)
        for start, stop in self._parts(batch.first, batch.first + len(batch.images)):
            labels = self._labels(batch, range(start, stop))
            with torch.no_grad():
                ws, w = self._styles(styles, start, stop, labels)
                w_sum += w.sum(dim=0)
                fakes = self._paint(ws, self._noise_maps(styles.seed, start, stop), "fused")
                seen_fakes = self._augment(fakes, for_fakes, start, stop)
                seen_reals = self._augment(self._reals(batch, start, stop), for_reals, start, stop)
            for kind, seen, side in (("fake", seen_fakes, 1), ("real", seen_reals, -1)):
                logits = self._judge(seen, labels)
                losses = softplus(side * logits)
                (losses.sum() * self._share(batch.total)).backward()
                sums["loss_D"] += losses.detach().sum()
                sums[f"sign_D_{kind}"] += logits.detach().sign().sum()
                sums[f"logit_{kind}"] += logits.detach().sum()
        self._update("D")
        self._track_mean(w_sum, batch)
        return sums

    def _penalise_gradients(self, batch: TrainingBatch, rng: torch.Generator) -> dict[str, torch.Tensor]:
        """Flatten D at the reals: their gradient is taken before the augmentation, and through it."""
        augmentation = self._draw_augmentation(batch.total, rng)
        weight = self.config.r1_gamma / 2 * self.config.r1_interval
        self._thaw_discriminator()
        norm_sum = self._zero()
        for start, stop in self._parts(batch.first, batch.first + len(batch.images)):
            reals = self._reals(batch, start, stop).requires_grad_()
            seen = self._augment(reals, augmentation, start, stop)
            norms = gradient_penalty(self.discriminator(seen, self._labels(batch, range(start, stop))), reals)
            (norms.sum() * (weight * self._share(batch.total))).backward()
            norm_sum += norms.detach().sum()
        self._update("D")
        return {"r1": norm_sum}

    # ---- what phases are made of

    @property
    def augment_p(self) -> float:
        """How strongly D's pictures are augmented at this moment, 0..1."""
        if self.controller is not None:
            return self.controller.p
        return 1.0 if self.config.augment == "diffaugment" else self.config.augment_p

    def _draw_styles(self, total: int, rng: torch.Generator) -> StyleDraw:
        layers = self.generator.num_ws
        latents, others = (torch.randn(total, self.config.z_dim, generator=rng) for _ in range(2))
        mixed = torch.rand(total, generator=rng) < self.config.style_mixing
        cutoffs = torch.randint(1, layers, (total,), generator=rng)
        return StyleDraw(latents, others, torch.where(mixed, cutoffs, layers), _draw_seed(rng))

    def _styles(
        self, draw: StyleDraw, start: int, stop: int, labels: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """ws (N, num_ws, w_dim) of the samples start..stop - 1, and w (N, w_dim) of their first latents."""
        w: torch.Tensor = self.generator.mapping(draw.latents[start:stop].to(self.device, non_blocking=True), labels)
        if self.config.style_mixing == 0:
            return self.generator.broadcast(w), w
        other = self.generator.mapping(draw.others[start:stop].to(self.device, non_blocking=True), labels)
        return self.generator.mix(w, other, draw.cutoffs[start:stop]), w

    def _noise(self, seed: int, start: int, stop: int) -> SampleNoise:
        return SampleNoise(seed, start, stop - start, self.device)

    def _noise_maps(self, seed: int, start: int, stop: int) -> list[torch.Tensor | None]:
        if not self.config.noise:  # its strengths stay 0, as they began: fixed noise changes no picture either
            return self.generator.synthesis.draw_noise("none", stop - start)
        return self.generator.synthesis.draw_noise(self._noise(seed, start, stop), stop - start)

    def _path_micro_batch(self) -> int | None:
        """Samples whose path lengths are computed at once, in whole groups of shared noise; None: all."""
        whole = self.settings.micro_batch
        if whole is None or self.config.path_shrink == 1:
            return whole
        return max(whole // self.config.path_shrink // GROUP, 1) * GROUP

    def _path_due(self) -> bool:
        return self.config.path_weight > 0 and self.steps % self.config.path_interval == 0

    def _r1_due(self) -> bool:
        return self.config.r1_gamma > 0 and self.steps % self.config.r1_interval == 0

    def _path_count(self, batch: TrainingBatch) -> int:
        """Samples whose path lengths are computed, over all processes: at least one in each."""
        return max(batch.total // self.config.path_shrink, self.workers.world)

    def _path_part(self, batch: TrainingBatch) -> tuple[int, int]:
        """The first of them that is this process's, and the end: the same share as of the batch."""
        count, total = self._path_count(batch), batch.total
        return -(-batch.first * count // total), -(-(batch.first + len(batch.images)) * count // total)

    def _track_mean(self, w_sum: torch.Tensor, batch: TrainingBatch) -> None:
        """Move the mean of w by that of a phase's fakes, over all processes."""
        mean = self.workers.sum(w_sum) / batch.total
        self.generator.track_mean(_finite_or(mean, self.generator.w_mean)[None], self.config.w_mean_decay)

    def _build_optimiser(self, name: str) -> torch.optim.Adam:
        config = self.config
        rate = config.learning_rate if name == "G" else config.d_learning_rate or config.learning_rate
        penalised = config.path_weight > 0 if name == "G" else config.r1_gamma > 0
        interval = config.path_interval if name == "G" else config.r1_interval
        c = interval / (interval + 1) if penalised else 1.0
        return self._build_adam(name, rate * c, (config.betas[0] ** c, config.betas[1] ** c))


def _build_augmentation(config: StyleGAN2Config) -> AdaPipeline | DiffAugment | None:
    if config.augment == "none":
        return None
    return DiffAugment() if config.augment == "diffaugment" else AdaPipeline(config.augment_pipe)


def _build_controller(config: StyleGAN2Config) -> AdaController | None:
    if config.augment != "ada":
        return None
    return AdaController(config.ada_target, config.ada_interval, config.ada_kimg, config.ada_cap, config.augment_p)


def _draw_seed(rng: torch.Generator) -> int:
    return int(torch.randint(SEEDS, (), generator=rng))


def _finite_or(new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """`new` where it is finite: one overflow must not spoil a running mean for good."""
    return torch.where(torch.isfinite(new), new, old)
