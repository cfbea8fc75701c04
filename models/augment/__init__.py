"""Augmentations: functions of pixels alone, each with a name that says everything about it.

A picture is uint8 (H, W, 3), sRGB; so is what becomes of it. Nothing here draws a random number.
"""
