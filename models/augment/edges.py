"""Blur and sharpening that look where the edges are."""

from __future__ import annotations

import math

import cv2
import numpy as np

from models.augment.colours import RGB, round_pixels

_FULL_EDGE = 64.0  # a step of so many levels between neighbours counts as an edge altogether


def edge_strength(rgb: RGB, sigma: float = 1.0) -> np.ndarray:
    """How much each pixel lies on an edge: float32 (H, W), 0..1. sigma: of the blur before, in pixels.

    The slope of the smoothed luma, in levels per pixel, against a fixed scale: what one part of a picture gets does
    not depend on the others.
    """
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    smooth = cv2.GaussianBlur(luma, (0, 0), sigma)
    across = cv2.Scharr(smooth, cv2.CV_32F, 1, 0)
    down = cv2.Scharr(smooth, cv2.CV_32F, 0, 1)
    # Scharr's weights are 16 on each side, two pixels apart; a step that was blurred by sigma is sqrt(2 pi) sigma wide
    scale = math.sqrt(2 * math.pi) * sigma / (32.0 * _FULL_EDGE)
    return np.minimum(np.hypot(across, down) * np.float32(scale), np.float32(1.0))


def blur_adaptively(rgb: RGB, radius: int, sigma: float) -> RGB:
    """ImageMagick's `-adaptive-blur RADIUSxSIGMA`: surfaces are blurred, edges less the stronger they are."""
    strength = edge_strength(rgb)[..., None]
    return round_pixels(rgb * strength + _blur(rgb, radius, sigma) * (1.0 - strength))


def sharpen_adaptively(rgb: RGB, radius: int, sigma: float) -> RGB:
    """ImageMagick's `-adaptive-sharpen RADIUSxSIGMA`: edges are sharpened, the stronger the more; surfaces stay."""
    strength = edge_strength(rgb)[..., None]
    return round_pixels(rgb + strength * (rgb - _blur(rgb, radius, sigma)))


def _blur(rgb: RGB, radius: int, sigma: float) -> np.ndarray:
    """float32 (H, W, 3), by a Gaussian of 2 * radius + 1 pixels."""
    if radius < 1 or not sigma > 0:
        raise ValueError(f"a blur needs a radius of at least 1 and a sigma above 0, got {radius} and {sigma}")
    side = 2 * radius + 1
    blurred: np.ndarray = cv2.GaussianBlur(rgb.astype(np.float32), (side, side), sigma)
    return blurred
