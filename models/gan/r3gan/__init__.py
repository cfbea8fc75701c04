"""R3GAN, a baseline GAN without tricks (Huang et al. 2024, "The GAN is dead; long live the GAN!", arXiv:2501.05441)."""

from models.gan.r3gan.discriminator import Discriminator
from models.gan.r3gan.generator import Generator

__all__ = ["Discriminator", "Generator"]
