"""Updates of two networks by gradients that are added up over parts of a batch, and averaged over processes.

All chance is drawn for the whole batch over all processes; each process computes its own part of it, in micro-batches.
So neither the number of micro-batches nor that of processes changes more than rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from models.gan.initialisation import initialise
from models.gan.pictures import to_input
from models.training.config import TrainingConfig
from models.training.distributed import Workers
from models.training.networks import resolve_precision

if TYPE_CHECKING:
    from models.training.algorithm import TrainingBatch

GRADIENT_LIMIT = 1e5  # what an infinite gradient becomes; a NaN becomes 0


class PartwiseUpdates:
    """What algorithms share whose networks compute a batch in parts: all but the phases and the optimisers' settings.

    A subclass sets `optimisers`, by network, and `augmentation` after this constructor, and has `augment_p`.
    """

    optimisers: Mapping[str, torch.optim.Adam]
    augmentation: Any  # what D sees changed: `draw` and `apply` as AdaPipeline and DiffAugment have them; None: nothing

    def __init__(
        self,
        config: TrainingConfig,
        device: torch.device,
        rng: torch.Generator,  # the first weights are drawn from it, G's before D's
        workers: Workers,
        generator: nn.Module,
        discriminator: nn.Module,
    ) -> None:
        self.settings = config
        self.device = device
        self.workers = workers
        self._networks = {"G": generator, "D": discriminator}
        for network in self._networks.values():
            initialise(network, rng)
            half = resolve_precision(config.precision, device, config.gpu_precision)
            network.half_dtype = half  # type: ignore[assignment]
            network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.trained = {
            name: [weight for weight in network.parameters() if weight.requires_grad]
            for name, network in self._networks.items()
        }
        self.mended = {name: self._zero() for name in self.trained}  # updates of this step with gradients not finite

    # ---- what the loop asks for

    def networks(self) -> Mapping[str, nn.Module]:
        return self._networks

    def settle_average(self, average: nn.Module) -> None:
        """Nothing to do: no statistic but StyleGAN2's mean of w, which is copied with the other buffers."""

    @property
    def augment_p(self) -> float:
        """How strongly D's pictures are augmented at this moment, 0..1."""
        raise NotImplementedError

    # ---- what phases are made of

    def _zero(self) -> torch.Tensor:
        return torch.zeros((), device=self.device)

    def _begin_step(self) -> None:
        self.mended = {name: self._zero() for name in self.trained}

    def _add_up(self, sums: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Sums over this process's pictures to sums over all: one small exchange for all of them."""
        stacked = self.workers.sum(torch.stack(list(sums.values())))
        return dict(zip(sums, stacked, strict=True))

    def _mended_counts(self) -> dict[str, torch.Tensor]:
        return {f"mended_{name}": count for name, count in self.mended.items()}

    def _parts(self, first: int, end: int, size: int | None = None) -> Iterator[tuple[int, int]]:
        """Micro-batches of the samples first..end - 1; size: of each, None as the config says."""
        size = size or self.settings.micro_batch or end - first
        for start in range(first, end, max(size, 1)):
            yield start, min(start + size, end)

    def _share(self, total: int) -> float:
        """Weight of a picture's loss: its gradients are averaged over processes, which makes it 1 / total."""
        return self.workers.world / total

    def _reals(self, batch: TrainingBatch, start: int, stop: int) -> torch.Tensor:
        return to_input(batch.images[start - batch.first : stop - batch.first], self.device)

    def _labels(self, batch: TrainingBatch, samples: range | list[int]) -> torch.Tensor | None:
        """Labels of samples by their number in the whole batch; fakes take those of the reals, hence their shares."""
        if batch.labels is None:
            return None
        return batch.labels[[sample - batch.first for sample in samples]].to(self.device)

    def _draw_augmentation(self, total: int, rng: torch.Generator) -> Any:
        if self.augmentation is None:
            return None
        return self.augmentation.draw(total, self.augment_p, self.settings.width, self.settings.height, rng)

    def _augment(self, images: torch.Tensor, draw: Any, start: int, stop: int) -> torch.Tensor:
        if self.augmentation is None:
            return images
        # one layout, whatever was drawn: compiled networks would be compiled once more for another
        changed: torch.Tensor = self.augmentation.apply(images, draw[start:stop])
        return changed.contiguous(memory_format=torch.channels_last)

    def _thaw_discriminator(self) -> None:
        for weight in self.trained["D"]:
            weight.requires_grad_(True)

    def _update(self, name: str) -> None:
        """Average a network's gradients over processes, mend those that are not finite, and step."""
        gradients = [weight.grad for weight in self.trained[name] if weight.grad is not None]
        self.workers.average(gradients)
        largest = nn.utils.get_total_norm(gradients, float("inf"))  # NaN if any is
        for gradient in gradients:
            gradient.nan_to_num_(nan=0.0, posinf=GRADIENT_LIMIT, neginf=-GRADIENT_LIMIT)
        self.optimisers[name].step()
        self.optimisers[name].zero_grad(set_to_none=True)
        self.mended[name] = self.mended[name] + (~torch.isfinite(largest)).to(torch.float32)

    def _build_adam(self, name: str, rate: float, betas: tuple[float, float]) -> torch.optim.Adam:
        fused = self.device.type in ("cpu", "cuda")
        return torch.optim.Adam(self.trained[name], lr=rate, betas=betas, eps=1e-8, fused=fused)

    # ---- what a resumed run needs

    def _optimiser_states(self) -> dict[str, Any]:
        return {f"optimiser_{name}": optimiser.state_dict() for name, optimiser in self.optimisers.items()}

    def _load_optimisers(self, state: Mapping[str, Any]) -> None:
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state[f"optimiser_{name}"])
