"""From a latent, a label or both to a style."""

import torch
from torch import nn

from models.gan.stylegan2.layers import EqualizedLinear, normalise_moment

RATE = 0.01  # learning-rate multiplier: the paper found higher ones unstable at this depth


class MappingNetwork(nn.Module):
    """Dense layers: z (N, z_dim) and c (N, c_dim) to w (N, w_dim), all float32.

    A label passes a layer of its own and is normalised, then stands beside z. Without z (z_dim = 0) the label alone is
    mapped: so the discriminator does it.
    """

    def __init__(
        self,
        z_dim: int,  # normal values per latent; 0: none
        c_dim: int,  # values per label; 0: unconditional
        w_dim: int,  # values per style, and the width of every layer
        layers: int = 8,  # dense layers; 8 in the paper, 2 do for small sets (ADA)
        normalize_latent: bool = True,  # scale z to unit second moment; the extended model does not
    ) -> None:
        super().__init__()
        if not z_dim and not c_dim:
            raise ValueError("nothing to map: z_dim and c_dim are both 0")
        if layers < 1:
            raise ValueError(f"a mapping needs at least one layer, got {layers}")
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.normalize_latent = normalize_latent
        self.label = EqualizedLinear(c_dim, w_dim) if c_dim else None
        inputs = z_dim + (w_dim if c_dim else 0)
        self.layers = nn.ModuleList(
            EqualizedLinear(w_dim if k else inputs, w_dim, activated=True, rate=RATE) for k in range(layers)
        )

    def forward(self, z: torch.Tensor | None, c: torch.Tensor | None = None) -> torch.Tensor:
        """Raises ValueError for latents or labels of another shape than the network was built for, or none at all."""
        parts = []
        if self.z_dim:
            z = _check("latents", z, self.z_dim)
            parts.append(normalise_moment(z) if self.normalize_latent else z)
        if self.label is not None:
            parts.append(normalise_moment(self.label(_check("labels", c, self.c_dim))))
        x = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        for layer in self.layers:
            x = layer(x)
        return x


def _check(kind: str, values: torch.Tensor | None, width: int) -> torch.Tensor:
    if values is None:
        raise ValueError(f"this network needs {kind} of shape (N, {width}), got none")
    if values.ndim != 2 or values.shape[1] != width:
        raise ValueError(f"this network needs {kind} of shape (N, {width}), got {tuple(values.shape)}")
    return values
