"""Wavelet filters that augmentation resamples and filters with, and mirrored borders."""

import torch

# Low-pass (decomposition) filters of Daubechies' least asymmetric wavelets, as PyWavelets publishes them (dec_lo).
SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
SYM6 = (
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
    *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
    *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
)


def extend(images: torch.Tensor, margin: int, dim: int) -> torch.Tensor:
    """Mirror images at their first and last pixel along `dim`, `margin` pixels to each side (numpy.pad's "reflect").

    Of slices alone: its gradients are added up in a fixed order on any device, unlike those of torch's padding.
    """
    if images.shape[dim] < 2:
        raise ValueError(f"a picture of {images.shape[dim]} pixel cannot be mirrored at its border, it needs 2 or more")
    while margin > 0:
        size = images.shape[dim]
        part = min(margin, size - 1)
        before = images.narrow(dim, 1, part).flip(dim)
        after = images.narrow(dim, size - 1 - part, part).flip(dim)
        images = torch.cat((before, images, after), dim)
        margin -= part
    return images
