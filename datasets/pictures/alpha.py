"""Transparency as a channel of its own, for who must give it back. Everybody else gets it laid over a background."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image

from datasets.pictures.checks import FORMATS
from datasets.pictures.colours import read_profile, to_eight_bits, to_srgb
from datasets.pictures.opening import turn_upright


def decode_alpha(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The colours of a picture beneath its transparency, and how opaque each pixel is.

    data: a file that `decode_picture` took, so that its limits and checks need not be made once more.
    Returns uint8 (H, W, 3) sRGB, not multiplied by anything, and uint8 (H, W), 0 clear to 255 opaque; both upright.
    Palettes and colours that a file calls transparent count as such a channel, too.
    """
    image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    image.load()
    profile_data = image.info.get("icc_profile")
    layers = to_eight_bits(turn_upright(image)).convert("RGBA")
    colours = layers.convert("RGB")
    return to_srgb(colours, read_profile(profile_data, "RGB")), np.asarray(layers.getchannel("A"))


def spread_colours(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Give every clear pixel the colour of the nearest one that is seen: uint8 (H, W, 3), an array of its own.

    What lies beneath clear pixels is arbitrary, black as a rule, and whatever mixes neighbours (a network, Lanczos, a
    game's filter) would draw it into the edge as a dark fringe. rgb: uint8 (H, W, 3). alpha: uint8 (H, W).
    A picture of which nothing is seen comes back as it was.
    """
    clear = (alpha == 0).astype(np.uint8)
    seen = clear == 0
    if seen.all() or not seen.any():
        return rgb.copy()
    _, nearest = cv2.distanceTransformWithLabels(clear, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    colours = np.zeros((int(nearest.max()) + 1, 3), np.uint8)
    colours[nearest[seen]] = rgb[seen]
    return np.asarray(colours[nearest])


def encode_png_with_alpha(rgb: np.ndarray, alpha: np.ndarray) -> bytes:
    """uint8 (H, W, 3) and (H, W) as the bytes of an RGBA PNG: the same for the same pixels with one Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(np.dstack([rgb, alpha])).save(buffer, "PNG")
    return buffer.getvalue()
