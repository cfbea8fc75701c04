"""DCGAN training as in the paintings write-up: Adam, soft labels, some swapped, reals and fakes in separate batches."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from models.gan.dcgan import initialise, set_standing_statistics, without_running_statistics
from models.gan.losses import discriminator_loss, draw_labels, generator_loss
from models.training.config import TrainingConfig
from models.training.networks import build_discriminator, build_generator

STANDING_BATCHES = 8
STANDING_BATCH = 64
STANDING_SEED = 0


class DCGAN:
    """One step: D on a batch of reals and one of fakes, an Adam step; then G against the new D, an Adam step."""

    def __init__(self, config: TrainingConfig, device: torch.device, rng: torch.Generator) -> None:
        self.config = config.algorithm
        self.device = device
        self.generator = build_generator(config)
        self.discriminator = build_discriminator(config)
        for network in (self.generator, self.discriminator):
            initialise(network, rng)
            # 10 to 40 % faster than NCHW on a CPU, and what tensor cores want
            network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimisers = {
            name: torch.optim.Adam(
                network.parameters(), lr=self.config.learning_rate, betas=self.config.betas, fused=True
            )
            for name, network in self.networks().items()
        }

    def networks(self) -> Mapping[str, nn.Module]:
        return {"G": self.generator, "D": self.discriminator}

    def step(self, reals: torch.Tensor, rng: torch.Generator) -> dict[str, torch.Tensor]:
        config, count = self.config, len(reals)
        latents = torch.randn(count, config.z_dim, generator=rng).to(self.device)
        real_labels = draw_labels(count, config.real_labels, config.fake_labels, config.label_swap, rng)
        fake_labels = draw_labels(count, config.fake_labels, config.real_labels, config.label_swap, rng)
        fakes = self.generator(latents)

        self.optimisers["D"].zero_grad()
        real_logits = self.discriminator(reals)
        real_loss = discriminator_loss(real_logits, real_labels.to(self.device))
        real_loss.backward()
        with without_running_statistics(self.discriminator):
            fake_logits = self.discriminator(fakes.detach())
        fake_loss = discriminator_loss(fake_logits, fake_labels.to(self.device))
        fake_loss.backward()
        self.optimisers["D"].step()

        self.optimisers["G"].zero_grad()
        self.discriminator.requires_grad_(False)
        with without_running_statistics(self.discriminator):
            loss = generator_loss(self.discriminator(fakes))
        loss.backward()
        self.discriminator.requires_grad_(True)
        self.optimisers["G"].step()

        return {
            "loss_G": loss.detach(),
            "loss_D_real": real_loss.detach(),
            "loss_D_fake": fake_loss.detach(),
            "sign_D_real": real_logits.detach().sign().mean(),
            "accuracy_D_real": (real_logits.detach() > 0).float().mean(),
            "accuracy_D_fake": (fake_logits.detach() <= 0).float().mean(),
        }

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
