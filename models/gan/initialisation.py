"""How networks get their first weights."""

import torch
from torch import nn


@torch.no_grad()
def initialise(network: nn.Module, rng: torch.Generator) -> None:
    """Give a network its start: every layer with `draw_weights` takes its values from the CPU generator, in order."""
    for module in network.modules():
        draw = getattr(module, "draw_weights", None)
        if draw is not None:
            draw(rng)
