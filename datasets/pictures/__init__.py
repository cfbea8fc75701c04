"""Pictures from outside, opened strictly: to the last byte, to upright sRGB pixels, or to a named defect.

opening.py   the door: open_picture (decodes no more than is looked at) and decode_picture (the whole picture)
checks.py    what is wrong with a file: limits, defects, completeness
colours.py   any mode and profile to 8-bit sRGB
encoding.py  pixels to the bytes of a blob
"""

from datasets.pictures.checks import (
    DECODER_ERRORS,
    FORMATS,
    MAX_BYTES,
    MAX_PIXELS,
    SUFFIX_FORMATS,
    Defect,
    UnreadablePictureError,
)
from datasets.pictures.encoding import encode_jpeg, encode_png
from datasets.pictures.opening import OpenPicture, Picture, PictureFacts, decode_picture, open_picture

__all__ = [
    "DECODER_ERRORS",
    "FORMATS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "SUFFIX_FORMATS",
    "Defect",
    "OpenPicture",
    "Picture",
    "PictureFacts",
    "UnreadablePictureError",
    "decode_picture",
    "encode_jpeg",
    "encode_png",
    "open_picture",
]
