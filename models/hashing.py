"""Perceptual hashes, and the exact search for pairs of near hashes."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

RGB = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]

_HASH_SIDE = 8
_DCT_SIDE = 32
_MAX_BUCKET_PAIRS = 4_000_000  # candidate pairs verified at once: bounds memory


def perceptual_hash(rgb: RGB) -> int:
    """The 64-bit DCT hash of a picture, uint8 (H, W, 3), as an unsigned whole number.

    As ImageHash's `phash` defines it: luma at 32 x 32, two-dimensional DCT, the lowest 8 x 8 coefficients against their
    median, first coefficient in the highest bit. Reduced by area averaging, which does not alias.
    """
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_DCT_SIDE, _DCT_SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:_HASH_SIDE, :_HASH_SIDE]
    bits = (low > np.median(low)).ravel()
    return int(np.packbits(bits).view(">u8")[0])


def mirrored(rgb: RGB) -> RGB:
    """The picture with left and right exchanged, contiguous."""
    return np.ascontiguousarray(rgb[:, ::-1])


def hamming(a: Hashes, b: Hashes) -> npt.NDArray[np.uint8]:
    """Differing bits of two arrays of 64-bit hashes, elementwise."""
    return np.bitwise_count(a ^ b)


def find_near_pairs(left: Hashes, right: Hashes, radius: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """All (i, j) with hamming(left[i], right[j]) <= radius: exact, without comparing all pairs.

    Pigeonhole: split 64 bits into radius + 1 parts; two hashes within the radius agree in at least one part, so only
    hashes that share a part are compared. Returns sorted index arrays (i by i, then j). 0 <= radius <= 15.
    """
    if not 0 <= radius <= 15:
        raise ValueError(f"radius must be 0 to 15 bits, not {radius}")
    found: list[npt.NDArray[np.int64]] = []
    for mask in _part_masks(radius + 1):
        found.extend(_pairs_in_buckets(left, right, mask, radius))
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    keys = np.unique(np.concatenate(found))
    return keys // len(right), keys % len(right)


def _part_masks(parts: int) -> list[np.uint64]:
    edges = [round(64 * k / parts) for k in range(parts + 1)]
    return [np.uint64(((1 << high) - 1) ^ ((1 << low) - 1)) for low, high in pairwise(edges)]


def _pairs_in_buckets(left: Hashes, right: Hashes, mask: np.uint64, radius: int) -> list[npt.NDArray[np.int64]]:
    """Pairs within the radius that agree in the masked bits, as keys i * len(right) + j."""
    order = np.argsort(right & mask, kind="stable")
    parts = (right & mask)[order]
    low = np.searchsorted(parts, left & mask, "left")
    sizes = np.searchsorted(parts, left & mask, "right") - low
    total = np.concatenate([[0], np.cumsum(sizes)])
    found = []
    start = 0
    while start < len(left):
        stop = max(start + 1, int(np.searchsorted(total, total[start] + _MAX_BUCKET_PAIRS, "right")) - 1)
        rows = np.repeat(np.arange(start, stop), sizes[start:stop])
        offsets = np.arange(len(rows)) - np.repeat(total[start:stop] - total[start], sizes[start:stop])
        columns = order[np.repeat(low[start:stop], sizes[start:stop]) + offsets]
        near = hamming(left[rows], right[columns]) <= radius
        found.append(rows[near] * len(right) + columns[near])
        start = stop
    return found
