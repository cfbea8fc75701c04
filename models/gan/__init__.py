"""Generative adversarial networks: architectures, losses, and what is read off a trained one."""
