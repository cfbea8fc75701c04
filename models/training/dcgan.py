"""DCGAN training as in the paintings write-up: Adam, soft labels, some swapped, reals and fakes in separate batches.

Variants by `DCGANConfig`: RMSprop, dropout in D, D's convolution weights clipped after each of its steps.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from models.gan.dcgan import clip_convolutions, initialise, set_standing_statistics, without_running_statistics
from models.gan.losses import discriminator_loss, draw_labels, generator_loss
from models.gan.pictures import to_input
from models.training.algorithm import TrainingBatch
from models.training.config import DCGANConfig, TrainingConfig
from models.training.networks import build_discriminator, build_generator

RMSPROP_DECAY = 0.9  # of the mean square, as in Hinton's lecture; 0.99 would begin with 10 x the learning rate, not 3 x
STANDING_BATCHES = 8
STANDING_BATCH = 64
STANDING_SEED = 0


class DCGAN:
    """One step: D on a batch of reals and one of fakes, its optimiser's step; then G against the new D, likewise.

    Raises ValueError for the config of another algorithm.
    """

    def __init__(self, config: TrainingConfig, device: torch.device, rng: torch.Generator) -> None:
        if not isinstance(config.algorithm, DCGANConfig):
            raise ValueError(f"DCGAN cannot train {config.algorithm.name}: build_algorithm picks the class that can")
        self.config = config.algorithm
        self.device = device
        self.generator = build_generator(config)
        self.discriminator = build_discriminator(config)
        for network in (self.generator, self.discriminator):
            initialise(network, rng)
            # 10 to 40 % faster than NCHW on a CPU, and what tensor cores want
            network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimisers = {name: build_optimiser(network, self.config) for name, network in self.networks().items()}

    def networks(self) -> Mapping[str, nn.Module]:
        return {"G": self.generator, "D": self.discriminator}

    def step(self, batch: TrainingBatch, rng: torch.Generator) -> dict[str, torch.Tensor]:
        config, count = self.config, len(batch.images)
        reals = to_input(batch.images, self.device)
        latents = torch.randn(count, config.z_dim, generator=rng).to(self.device)
        real_labels = draw_labels(count, config.real_labels, config.fake_labels, config.label_swap, rng)
        fake_labels = draw_labels(count, config.fake_labels, config.real_labels, config.label_swap, rng)
        masks = self._draw_mask_generator(rng)
        fakes = self.generator(latents)

        self.optimisers["D"].zero_grad()
        real_logits = self.discriminator(reals, masks)
        real_loss = discriminator_loss(real_logits, real_labels.to(self.device))
        real_loss.backward()
        with without_running_statistics(self.discriminator):
            fake_logits = self.discriminator(fakes.detach(), masks)
        fake_loss = discriminator_loss(fake_logits, fake_labels.to(self.device))
        fake_loss.backward()
        self.optimisers["D"].step()
        if config.clip_weights:
            clip_convolutions(self.discriminator, config.clip_weights)

        self.optimisers["G"].zero_grad()
        self.discriminator.requires_grad_(False)
        with without_running_statistics(self.discriminator):
            loss = generator_loss(self.discriminator(fakes, masks))
        loss.backward()
        self.discriminator.requires_grad_(True)
        self.optimisers["G"].step()

        return {
            "loss_G": loss.detach(),
            "loss_D_real": real_loss.detach(),
            "loss_D_fake": fake_loss.detach(),
            "sign_D_real": real_logits.detach().sign().mean(),
            "sign_D_fake": fake_logits.detach().sign().mean(),
            "logit_real": real_logits.detach().mean(),
            "logit_fake": fake_logits.detach().mean(),
            "accuracy_D_real": (real_logits.detach() > 0).float().mean(),
            "accuracy_D_fake": (fake_logits.detach() <= 0).float().mean(),
        }

    def _draw_mask_generator(self, rng: torch.Generator) -> torch.Generator | None:
        """What D's dropout draws from in one step: on D's device, for the masks are as large as the maps they cover.

        None without dropout, and then nothing is drawn from `rng`: runs from before dropout was there go on as they
        would have.
        """
        if not self.config.dropout:
            return None
        seed = int(torch.randint(2**63 - 1, (), generator=rng))
        return torch.Generator(self.device).manual_seed(seed)

    def settle_average(self, average: nn.Module) -> None:
        rng = torch.Generator().manual_seed(STANDING_SEED)
        set_standing_statistics(
            average,
            (
                torch.randn(STANDING_BATCH, self.config.z_dim, generator=rng).to(self.device)
                for _ in range(STANDING_BATCHES)
            ),
        )

    def state_dict(self) -> dict[str, Any]:
        return {f"optimiser_{name}": optimiser.state_dict() for name, optimiser in self.optimisers.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state[f"optimiser_{name}"])

    def describe(self) -> dict[str, float]:
        return {}

    def events(self) -> list[str]:
        return []


def build_optimiser(network: nn.Module, config: DCGANConfig) -> torch.optim.Optimizer:
    """The optimiser of `network` that `config` names, with empty state."""
    if config.optimiser == "rmsprop":
        return torch.optim.RMSprop(network.parameters(), lr=config.learning_rate, alpha=RMSPROP_DECAY)
    return torch.optim.Adam(network.parameters(), lr=config.learning_rate, betas=config.betas, fused=True)
