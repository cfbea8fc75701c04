"""Opening a picture from outside: to the last byte, to upright sRGB pixels, or to a named defect.

Nothing here trusts a header: the size is checked before pixels are allocated, and a file whose data ends early or fails
its checksum is refused instead of being filled with grey.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

MAX_BYTES = 1_000_000_000  # of a file; larger ones are not read into memory
MAX_PIXELS = 120_000_000  # an honest scan is below 100 MP; a bomb promises billions
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow's own guard, for every frame that it opens
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
SUFFIX_FORMATS = {
    "jpg": "JPEG",
    "jpeg": "JPEG",
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
    """A picture that gives no pixels, with its defect and a sentence."""

    def __init__(self, defect: Defect, detail: str) -> None:
        super().__init__(f"{defect}: {detail}")
        self.defect = defect
        self.detail = detail


@dataclass(frozen=True)
class Picture:
    """Decoded pixels and what the file said of itself.

    rgb: uint8 (H, W, 3), sRGB, upright.
    """

    rgb: np.ndarray
    format: str  # JPEG, PNG, ...: what the bytes are, whatever the file is called
    mode: str  # Pillow's mode as stored: RGB, L, P, CMYK, RGBA, I;16, ...
    oriented: bool  # an EXIF orientation was applied
    icc: bool  # an ICC profile was applied


def decode_picture(data: bytes, background: tuple[int, int, int] = (255, 255, 255)) -> Picture:
    """Decode a whole file strictly.

    data: the file's bytes. background: sRGB laid under transparent pixels.
    Raises UnreadablePictureError for everything that does not decode completely, is animated, or promises more than
    MAX_PIXELS pixels.
    """
    if not data:
        raise UnreadablePictureError(Defect.ZERO_BYTE, "the file is empty")
    try:
        return _decode(data, background)
    except Image.DecompressionBombError as error:
        raise UnreadablePictureError(Defect.BOMB, str(error)) from error
    except UnidentifiedImageError as error:
        raise _explain_unidentified(data) from error
    except DECODER_ERRORS as error:
        raise UnreadablePictureError(_name_defect(error), str(error) or type(error).__name__) from error


def _decode(data: bytes, background: tuple[int, int, int]) -> Picture:
    _check_completeness(data)
    image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise UnreadablePictureError(Defect.BOMB, f"the header promises {image.width}x{image.height} pixels")
    # counting frames already reads the file, to its end for GIF and TIFF
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format in ("GIF", "WEBP", "PNG"):
        raise UnreadablePictureError(Defect.ANIMATED, f"{frames} frames")
    file_format, mode = str(image.format), image.mode
    image.load()
    upright = ImageOps.exif_transpose(image)
    oriented = upright.size != image.size or image.getexif().get(0x0112, 1) != 1
    rgb, applied = _to_srgb(upright, image.info.get("icc_profile"), background)
    return Picture(rgb=rgb, format=file_format, mode=mode, oriented=oriented, icc=applied)


def _explain_unidentified(data: bytes) -> UnreadablePictureError:
    """Why Pillow knows no format for these bytes: they are no picture, or the picture's header is broken."""
    kind = _claimed_format(data)
    if kind is None:
        return UnreadablePictureError(Defect.NOT_A_PICTURE, "no known picture format begins like this")
    return UnreadablePictureError(Defect.BROKEN, f"it begins like {kind}, but its header cannot be read")


def _claimed_format(data: bytes) -> str | None:
    """The format that a file's first bytes claim; None when they claim none (BMP's two letters tell too little)."""
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    return next((name for name, magic in _MAGIC.items() if data.startswith(magic)), None)


def _name_defect(error: Exception) -> Defect:
    text = str(error).lower()
    if "truncated" in text or "eof" in text or "end of file" in text:
        return Defect.TRUNCATED
    if "crc" in text or "checksum" in text:
        return Defect.BAD_CHECKSUM
    return Defect.BROKEN


def _check_completeness(data: bytes) -> None:
    """Refuse a file that ends early or fails its checksum, where the format allows to tell before decoding."""
    kind = _claimed_format(data)
    if kind == "PNG":
        _check_png(data)
    elif kind == "JPEG" and b"\xff\xd9" not in data:
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


def _to_srgb(image: Image.Image, profile: bytes | None, background: tuple[int, int, int]) -> tuple[np.ndarray, bool]:
    """Any mode to uint8 (H, W, 3) sRGB; says whether an ICC profile was applied."""
    image = _to_eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (*background, 255))
        image = Image.alpha_composite(ground, image).convert("RGB")
    elif image.mode == "P":
        image = image.convert("RGB")  # a profile speaks of colours, not of palette places
    applied = False
    if profile and image.mode in ("RGB", "CMYK", "L"):
        converted = _apply_profile(image, profile)
        applied = converted is not None
        image = converted if converted is not None else image
    if image.mode != "RGB":
        image = image.convert("RGB")
    return np.asarray(image, dtype=np.uint8), applied


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """16- and 32-bit grey to 8 bits by value, where Pillow's own conversion would clip it to white."""
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image).astype(np.float64)
        full = 65535.0 if image.mode.startswith("I;16") or values.max(initial=0) > 255 else 255.0
        return Image.fromarray(np.clip(np.rint(values * (255.0 / full)), 0, 255).astype(np.uint8))
    if image.mode == "F":
        return Image.fromarray(np.clip(np.rint(np.asarray(image)), 0, 255).astype(np.uint8))
    return image


def _apply_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Colours by an embedded ICC profile to sRGB; None when the profile is unusable (then the pixels count as sRGB)."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    return converted


def encode_png(rgb: np.ndarray) -> bytes:
    """uint8 (H, W, 3) as PNG bytes, lossless, at the fastest compression level (its bytes are the blob's name)."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
