"""Perceptual hashes, the exact search for near hashes, and who of the near stays."""

from models.hashing.hashes import PictureHashes, hash_picture, mirrored, perceptual_hash
from models.hashing.search import (
    find_near_pairs,
    find_near_pairs_within,
    hamming,
    visit_near_pairs,
    visit_near_pairs_within,
)
from models.hashing.walk import Confirm, Keepers, Likeness, find_keepers

__all__ = [
    "Confirm",
    "Keepers",
    "Likeness",
    "PictureHashes",
    "find_keepers",
    "find_near_pairs",
    "find_near_pairs_within",
    "hamming",
    "hash_picture",
    "mirrored",
    "perceptual_hash",
    "visit_near_pairs",
    "visit_near_pairs_within",
]
