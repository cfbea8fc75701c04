"""DCGAN (Radford et al. 2016, arXiv:1511.06434): 4x4 convolutions of stride 2, batch norm, tanh out.

Beyond the paper: any power of two from 16 pixels up (channels stop growing at 8 x width), and batch norm whose
statistics are fit for eval mode, one picture at a time (`without_running_statistics`, `set_standing_statistics`).

Variants, as in write-ups that train it on digits: 5x5 convolutions, dropout in the discriminator, and weights of the
discriminator kept within a bound (`clip_convolutions`).
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

MAX_WIDTH_MULTIPLE = 8  # the paper's 64 px networks reach 8 x width at 4x4; larger resolutions stay there


def channels_at(size: int, width: int, resolution: int) -> int:
    """Channels of the feature map of `size` x `size` pixels in a network of `resolution` and `width`.

    `width` at half the resolution, doubled with every halving, at most 8 x width.
    """
    return width * min(resolution // 2 // size, MAX_WIDTH_MULTIPLE)


def check_shape(resolution: int, kernel: int) -> None:
    """Raise ValueError unless `resolution` is a power of two of at least 16 pixels, and `kernel` 4 or 5."""
    if resolution < 16 or resolution & (resolution - 1):
        raise ValueError(f"resolution must be a power of two of at least 16 pixels, got {resolution}")
    if kernel not in (4, 5):
        raise ValueError(f"kernel must be 4 or 5 pixels a side, got {kernel}")


def halving(inputs: int, outputs: int, kernel: int, bias: bool) -> nn.Conv2d:
    """A convolution from (N, inputs, 2 s, 2 s) to (N, outputs, s, s), for any s; kernel: 4 or 5."""
    return nn.Conv2d(inputs, outputs, kernel_size=kernel, stride=2, padding=(kernel - 1) // 2, bias=bias)


def doubling(inputs: int, outputs: int, kernel: int, bias: bool) -> nn.ConvTranspose2d:
    """A transposed convolution from (N, inputs, s, s) to (N, outputs, 2 s, 2 s), for any s; kernel: 4 or 5.

    5x5 alone makes 2 (s - 1) + 5 - 2 * 2 = 2 s - 1 pixels a side: the output padding adds the last row and column.
    """
    return nn.ConvTranspose2d(
        inputs,
        outputs,
        kernel_size=kernel,
        stride=2,
        padding=(kernel - 1) // 2,
        output_padding=kernel % 2,
        bias=bias,
    )


class Generator(nn.Module):
    """Latents to pictures.

    Input: float32 (N, z_dim), independent standard normal values.
    Output: float32 (N, channels, resolution, resolution) in -1..1 (tanh).
    """

    def __init__(
        self,
        z_dim: int = 200,  # normal values per latent; the paper has 100 uniform ones
        width: int = 64,  # channels of the last hidden map; the 4x4 map has up to 8 times as many
        resolution: int = 64,  # output pixels a side, a power of two of at least 16
        channels: int = 3,  # output channels: 3 = RGB, 1 = grey
        kernel: int = 4,  # pixels a side of the convolutions that double; 4 has no uneven overlaps, 5 looks further
    ) -> None:
        super().__init__()
        check_shape(resolution, kernel)
        self.z_dim = z_dim
        self.width = width
        self.resolution = resolution
        self.channels = channels
        self.kernel = kernel

        features = channels_at(4, width, resolution)
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(z_dim, features, kernel_size=4, stride=1, padding=0, bias=False),
            nn.BatchNorm2d(features),
            nn.ReLU(inplace=True),
        ]
        size = 8
        while size < resolution:
            wider, features = features, channels_at(size, width, resolution)
            layers += [
                doubling(wider, features, kernel, bias=False),
                nn.BatchNorm2d(features),
                nn.ReLU(inplace=True),
            ]
            size *= 2
        layers += [doubling(features, channels, kernel, bias=True), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        images: torch.Tensor = self.layers(z[:, :, None, None])
        return images

    def extra_repr(self) -> str:
        return (
            f"z_dim={self.z_dim}, width={self.width}, resolution={self.resolution}, channels={self.channels}, "
            f"kernel={self.kernel}"
        )


class Discriminator(nn.Module):
    """Pictures to logits: the log odds that a picture is real.

    Input: float32 (N, channels, resolution, resolution) in -1..1. Output: float32 (N,).
    In eval mode batch norm uses its running statistics and nothing is dropped, so that a logit depends on its own
    picture only.
    """

    def __init__(
        self,
        width: int = 64,  # channels of the first map, at half the resolution
        resolution: int = 64,  # input pixels a side, a power of two of at least 16
        channels: int = 3,  # input channels: 3 = RGB, 1 = grey
        kernel: int = 4,  # pixels a side of the convolutions that halve
        dropout: float = 0.0,  # share of the values after each activation that training leaves out; the paper has none
    ) -> None:
        super().__init__()
        check_shape(resolution, kernel)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in 0..1 (1 excluded), got {dropout}")
        self.width = width
        self.resolution = resolution
        self.channels = channels
        self.kernel = kernel
        self.dropout = dropout

        features = width
        layers: list[nn.Module] = [
            halving(channels, features, kernel, bias=True),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        size = resolution // 4
        while size >= 4:
            narrower, features = features, channels_at(size, width, resolution)
            layers += [
                halving(narrower, features, kernel, bias=False),
                nn.BatchNorm2d(features),
                nn.LeakyReLU(0.2, inplace=True),
            ]
            size //= 2
        layers.append(nn.Conv2d(features, 1, kernel_size=4, stride=1, padding=0))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor, rng: torch.Generator | None = None) -> torch.Tensor:
        """rng: on the device of `images`; what to drop is drawn from it. ValueError if training needs it and has none.

        Not `nn.Dropout`: that draws from torch's global state, which no snapshot holds.
        """
        drops = self.training and self.dropout > 0
        if drops and rng is None:
            raise ValueError("dropout needs a generator in training mode: pass rng, or call eval() first")
        features = images
        for layer in self.layers:
            features = layer(features)
            if drops and isinstance(layer, nn.LeakyReLU):
                kept = torch.empty_like(features).bernoulli_(1 - self.dropout, generator=rng)
                features = features * kept.div_(1 - self.dropout)
        return features.flatten()

    def extra_repr(self) -> str:
        return (
            f"width={self.width}, resolution={self.resolution}, channels={self.channels}, kernel={self.kernel}, "
            f"dropout={self.dropout}"
        )


@torch.no_grad()
def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """DCGAN's start, from an explicit CPU generator: weights N(0, 0.02), batch-norm gains N(1, 0.02), biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.weight.copy_(torch.empty(module.weight.shape).normal_(0.0, 0.02, generator=generator))
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.copy_(torch.empty(module.weight.shape).normal_(1.0, 0.02, generator=generator))
        else:
            continue
        if module.bias is not None:
            module.bias.zero_()


@torch.no_grad()
def clip_convolutions(network: nn.Module, bound: float) -> None:
    """Clamp every convolution's weights to -bound..bound (bound > 0), as WGAN (Arjovsky et al. 2017, arXiv:1701.07875).

    Biases and batch norm keep their values. WGAN clips them, too, but a batch-norm gain of at most 0.01 would take
    the signal away, and a convolution before batch norm changes by its direction only: clipping evens out its weights.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.weight.clamp_(-bound, bound)


@contextmanager
def without_running_statistics(network: nn.Module) -> Iterator[None]:
    """Within, batch norm in training mode normalises by the batch as always, but leaves its running statistics alone.

    Reals and fakes pass the discriminator in separate batches (ganhacks, tip 4). The running statistics are there to
    score real pictures later, so they must follow the reals only, as batch norm treated reals in training.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@torch.no_grad()
def set_standing_statistics(network: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Set batch norm's running statistics to their plain mean over `batches` of inputs; ends in eval mode.

    Averaged weights never saw the running statistics of the trained ones. Brock et al. 2019 (BigGAN, arXiv:1809.11096,
    section 4.1) call these "standing statistics".
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a cumulative mean
    network.train()
    for batch in batches:
        network(batch)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
