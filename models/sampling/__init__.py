"""Pictures and films out of a trained generator."""
