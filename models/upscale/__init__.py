"""Enlarging pictures with waifu2x, and fitting them to an exact size."""
