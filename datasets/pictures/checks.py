"""What is wrong with a file from outside: limits, defects and completeness.

Nothing here trusts a header: the size is checked before pixels are allocated, and a file whose data ends early or fails
its checksum is refused instead of being filled with grey.

What no checksum guards cannot be told. These pass, with whatever the decoder makes of them: a JPEG that breaks off and
was closed with an end marker, and all other damage at which libjpeg only warns; a WebP, BMP or uncompressed TIFF of the
right length whose tail is zeros, as a download leaves it that reserves the file first.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from PIL import Image

MAX_BYTES = 1_000_000_000  # of a file; larger ones are not read into memory
MAX_PIXELS = 120_000_000  # an honest scan is below 100 MP; a bomb promises billions
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow's own guard, for every frame that it opens
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
SUFFIX_FORMATS = {
    "jpg": "JPEG",
    "jpeg": "JPEG",
    "jpe": "JPEG",
    "jfif": "JPEG",
    "png": "PNG",
    "webp": "WEBP",
    "gif": "GIF",
    "bmp": "BMP",
    "tif": "TIFF",
    "tiff": "TIFF",
}
_MAGIC = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "TIFF": (b"II*\0", b"MM\0*"),
}
_JPEG_END = b"\xff\xd9"
# what Pillow raises at bytes that were made or damaged to be wrong; a full memory is not among them, it is no defect
DECODER_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    RuntimeError,
    struct.error,
    zlib.error,
)


class Defect(StrEnum):
    """Why a file gives no pixels."""

    ZERO_BYTE = "zero_byte"
    NOT_A_PICTURE = "not_a_picture"
    BOMB = "decompression_bomb"
    TOO_LARGE = "file_too_large"
    TRUNCATED = "truncated"
    BAD_CHECKSUM = "bad_checksum"
    ANIMATED = "animated"
    BROKEN = "broken"
    UNREADABLE_FILE = "unreadable_file"


class UnreadablePictureError(Exception):
    """A picture that gives no pixels, with its defect, a sentence, and what its header said (names of MANIFEST)."""

    def __init__(self, defect: Defect, detail: str, said: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"{defect}: {detail}")
        self.defect = defect
        self.detail = detail
        self.said: dict[str, Any] = dict(said or {})


def explain_unidentified(data: bytes) -> UnreadablePictureError:
    """Why Pillow knows no format for these bytes: they are no picture, or the picture's header is broken."""
    kind = claimed_format(data)
    if kind is None:
        return UnreadablePictureError(Defect.NOT_A_PICTURE, "no known picture format begins like this")
    return UnreadablePictureError(Defect.BROKEN, f"it begins like {kind}, but its header cannot be read")


def claimed_format(data: bytes) -> str | None:
    """The format that a file's first bytes claim; None when they claim none (BMP's two letters tell too little)."""
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    return next((name for name, magic in _MAGIC.items() if data.startswith(magic)), None)


def name_defect(error: Exception) -> Defect:
    text = str(error).lower()
    if "truncated" in text or "eof" in text or "end of file" in text:
        return Defect.TRUNCATED
    if "crc" in text or "checksum" in text:
        return Defect.BAD_CHECKSUM
    return Defect.BROKEN


def check_completeness(data: bytes) -> None:
    """Refuse a file that ends early or fails its checksum, where the format allows to tell before decoding."""
    kind = claimed_format(data)
    if kind == "PNG":
        _check_png(data)
    elif kind == "JPEG" and not data.endswith(_JPEG_END) and _JPEG_END not in data:  # the end first: it is soon told
        # Pillow itself refuses a scan that ends early, but not one that lacks its last bytes
        raise UnreadablePictureError(Defect.TRUNCATED, "the JPEG has no end marker")
    elif kind == "WEBP" and struct.unpack_from("<I", data, 4)[0] + 8 > len(data):
        raise UnreadablePictureError(Defect.TRUNCATED, "the file is shorter than its header says")


def _check_png(data: bytes) -> None:
    """Walk the chunks: Pillow does not verify the CRC of image data, and stops reading when it has enough rows."""
    position = 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        (crc,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(data[position + 4 : end - 4]) != crc:
            name = data[position + 4 : position + 8].decode("latin-1")
            raise UnreadablePictureError(Defect.BAD_CHECKSUM, f"CRC of the PNG chunk {name} is wrong")
        if data[position + 4 : position + 8] == b"IEND":
            return
        position = end
    raise UnreadablePictureError(Defect.TRUNCATED, "the PNG ends before its last chunk")
