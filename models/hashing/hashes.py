"""Perceptual hashes of pictures: 64 bits to find near copies by, 256 bits for a second look."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

RGB = npt.NDArray[np.uint8]

# hash side and the side of the picture that is transformed, as ImageHash's phash has them for hash_size 8 and 16
_SMALL, _LARGE = (8, 32), (16, 64)
# Grey levels by which half of the coefficients at least are off their median. Below, the picture is flat or a plain
# gradient: its bits are rounding noise, and change with any JPEG. Flat pictures with noise of 20 levels reach 1.5,
# the flattest of 1700 real portraits and faces 13.
_LEAST_SPREAD = 2.0


@dataclass(frozen=True)
class PictureHashes:
    """The hashes of a picture and of its mirror image. The first coefficient is in the highest bit, the first byte."""

    bits: int  # 64 bits, unsigned
    mirrored: int
    bits256: bytes  # 32 bytes
    mirrored256: bytes


def hash_picture(rgb: RGB) -> PictureHashes | None:
    """The perceptual hashes of a picture, uint8 (H, W, 3); None for a nearly uniform one, whose bits would be noise.

    As ImageHash's `phash` defines them: luma at 32 x 32 (64 x 64), two-dimensional DCT, the lowest 8 x 8 (16 x 16)
    coefficients against their median. Reduced by area averaging, which does not alias. Mirroring a picture turns the
    sign of every other column of its coefficients, so nothing is transformed twice.
    """
    grey = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
    small = _transform(grey, *_SMALL)
    if np.median(np.abs(small - np.median(small))) < _LEAST_SPREAD:
        return None
    large = _transform(grey, *_LARGE)
    return PictureHashes(
        bits=int.from_bytes(_compare(small), "big"),
        mirrored=int.from_bytes(_compare(_mirror(small)), "big"),
        bits256=_compare(large),
        mirrored256=_compare(_mirror(large)),
    )


def perceptual_hash(rgb: RGB) -> int | None:
    """The 64-bit hash alone of a picture, uint8 (H, W, 3), as an unsigned whole number; None as in hash_picture."""
    hashes = hash_picture(rgb)
    return None if hashes is None else hashes.bits


def mirrored(rgb: RGB) -> RGB:
    """The picture with left and right exchanged, contiguous."""
    return np.ascontiguousarray(rgb[:, ::-1])


def _transform(grey: npt.NDArray[np.uint8], low: int, side: int) -> npt.NDArray[np.float32]:
    """The lowest coefficients of the DCT: float32 (low, low), in grey levels times the side."""
    reduced = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.dct(reduced.astype(np.float32))[:low, :low], np.float32)


def _mirror(coefficients: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The coefficients of the mirrored picture."""
    turned = coefficients.copy()
    turned[:, 1::2] *= -1
    return turned


def _compare(coefficients: npt.NDArray[np.float32]) -> bytes:
    """Which coefficients are above their median, as bits."""
    return np.packbits(coefficients > np.median(coefficients)).tobytes()
