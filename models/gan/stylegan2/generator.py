"""The whole generator: mapping, mean style and truncation, synthesis."""

import torch
from torch import nn

from models.gan.levels import plan_levels
from models.gan.stylegan2.layers import Form
from models.gan.stylegan2.mapping import MappingNetwork
from models.gan.stylegan2.synthesis import Noise, SynthesisNetwork


class Generator(nn.Module):
    """Latents to pictures.

    Input: float32 (N, z_dim), independent standard normal values, and float32 (N, c_dim) labels when conditional.
    Output: float32 (N, channels, height, width), about -1..1 and not clamped.
    Weights are undefined until `initialise` or `load_state_dict` sets them.
    """

    w_mean: torch.Tensor

    def __init__(
        self,
        z_dim: int,  # normal values per latent
        w_dim: int,  # values per style
        c_dim: int,  # values per label; 0: unconditional
        width: int,  # of the picture, in pixels: doublings of `start`
        height: int,
        channels: int = 3,  # of the picture: 1 grey, 3 RGB, 4 RGBA
        channel_base: int = 32768,  # a map of longer side r has channel_base / r channels, ...
        channel_max: int = 512,  # ... but at most this many
        mapping_layers: int = 8,  # dense layers from z to w
        start: tuple[int, int] | None = None,  # (rows, columns) of the smallest map; None: the longer side is 4
        half_resolutions: int = 4,  # how many of the largest maps follow half_dtype
        conv_clamp: float | None = 256.0,  # limit of all outputs of convolutions
        normalize_latent: bool = True,  # scale z to unit second moment; the extended model does not
    ) -> None:
        super().__init__()
        levels = plan_levels(width, height, channel_base, channel_max, start, half_resolutions)
        self.z_dim = z_dim
        self.w_dim = w_dim
        self.c_dim = c_dim
        self.width = width
        self.height = height
        self.channels = channels
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, mapping_layers, normalize_latent)
        self.synthesis = SynthesisNetwork(levels, w_dim, channels, conv_clamp)
        self.register_buffer("w_mean", torch.zeros(w_dim))

    @property
    def num_ws(self) -> int:
        """Styles that a picture takes."""
        return self.synthesis.num_ws

    @property
    def half_dtype(self) -> torch.dtype | None:
        """What the larger maps are computed in: torch.float16, torch.bfloat16, or None for float32."""
        return self.synthesis.half_dtype

    @half_dtype.setter
    def half_dtype(self, dtype: torch.dtype | None) -> None:
        self.synthesis.half_dtype = dtype

    def forward(
        self,
        z: torch.Tensor,
        c: torch.Tensor | None = None,
        psi: float = 1.0,
        cutoff: int | None = None,
        noise: Noise = "const",
        form: Form = "fused",
    ) -> torch.Tensor:
        ws = self.truncate(self.broadcast(self.mapping(z, c)), psi, cutoff)
        pictures: torch.Tensor = self.synthesis(ws, noise, form)
        return pictures

    def broadcast(self, w: torch.Tensor) -> torch.Tensor:
        """(N, w_dim) to (N, num_ws, w_dim), a view: the same style everywhere."""
        return w[:, None].expand(-1, self.num_ws, -1)

    def truncate(self, ws: torch.Tensor, psi: float, cutoff: int | None = None) -> torch.Tensor:
        """Move ws (N, num_ws, w_dim) towards the mean style: psi 1 leaves them, 0 gives the mean, beyond 1 exaggerates.

        cutoff: only the first so many of a picture's styles (the coarse ones) are moved; None: all.
        """
        if psi == 1:
            return ws
        moved = self.w_mean.lerp(ws, psi)
        return moved if cutoff is None else torch.cat([moved[:, :cutoff], ws[:, cutoff:]], dim=1)

    def mix(self, w1: torch.Tensor, w2: torch.Tensor, cutoffs: torch.Tensor) -> torch.Tensor:
        """Styles of two latents in one picture: (N, num_ws, w_dim), row k's first cutoffs[k] from w1, the rest from w2.

        Style mixing regularisation (Karras et al. 2019, arXiv:1812.04948, section 3.1). w1, w2: (N, w_dim); cutoffs:
        integers (N,), num_ws or more for a row that is not mixed.
        """
        first = torch.arange(self.num_ws, device=w1.device) < cutoffs.to(w1.device)[:, None]  # (N, num_ws)
        return torch.where(first[:, :, None], w1[:, None], w2[:, None])

    @torch.no_grad()
    def track_mean(self, w: torch.Tensor, decay: float = 0.995) -> None:
        """Let the mean style follow the mean of w (N, w_dim), one batch of a training."""
        self.w_mean.lerp_(w.detach().mean(dim=0).to(self.w_mean.dtype), 1 - decay)

    def draw_weights(self, rng: torch.Generator) -> None:
        self.w_mean.zero_()

    def extra_repr(self) -> str:
        return f"z_dim={self.z_dim}, w_dim={self.w_dim}, c_dim={self.c_dim}, {self.width}x{self.height}"
