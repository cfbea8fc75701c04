"""StyleGAN2 (Karras et al. 2020, arXiv:1912.04958) and its smaller changes of StyleGAN2-ADA (arXiv:2006.06676)."""

from models.gan.initialisation import initialise
from models.gan.stylegan2.discriminator import Discriminator
from models.gan.stylegan2.generator import Generator

__all__ = ["Discriminator", "Generator", "initialise"]
