"""Adaptive discriminator augmentation (ADA): Karras et al. 2020, arXiv:2006.06676, with the pipeline of appendix B."""

from models.gan.ada.controller import AdaController
from models.gan.ada.draw import AdaDraw, Strengths
from models.gan.ada.pipeline import PRESETS, AdaPipeline

__all__ = ["PRESETS", "AdaController", "AdaDraw", "AdaPipeline", "Strengths"]
