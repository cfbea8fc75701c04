"""The door for every picture from outside."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from datasets.jpeg_quality import estimate_quality
from datasets.pictures import checks
from datasets.pictures.checks import DECODER_ERRORS, Defect, UnreadablePictureError
from datasets.pictures.colours import Profile, flatten, read_profile, to_srgb

Image.MAX_IMAGE_PIXELS = checks.MAX_PIXELS  # Pillow's own guard, for every frame that it opens
REDUCTIONS = (1, 2, 4, 8)  # what a JPEG decoder can do while it decodes
_ORIENTATION = 0x0112  # EXIF
_BITS_PER_SAMPLE = 258  # TIFF
_SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange width and height
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FRAMED_FORMATS = ("GIF", "WEBP", "PNG")  # more than one frame is an animation; in a TIFF they are pages
_MODE_BITS = {"1": 1, "I;16": 16, "I;16L": 16, "I;16B": 16, "I;16N": 16, "I": 32, "F": 32}

Background = tuple[int, int, int]
ChooseReduction = Callable[[int, int], int]


@dataclass(frozen=True)
class PictureFacts:
    """What a file says of itself, and what was done to its pixels to make them upright sRGB."""

    format: str  # JPEG, PNG, ...: what the bytes are, whatever the file is called
    mode: str  # Pillow's mode as stored: RGB, L, P, CMYK, RGBA, I;16, ...
    bits: int  # per channel as stored; a palette's colours have 8
    frames: int  # pages of a TIFF; pictures of several frames of other formats are not opened
    alpha_share: float = 0.0  # transparency, 0 to 1, averaged over the pixels
    jpeg_quality: float | None = None  # 1 to 100, estimated from the quantisation tables; None when it is no JPEG
    oriented: bool = False  # an EXIF orientation was applied
    icc: bool = False  # an ICC profile was applied

    def as_columns(self) -> dict[str, Any]:
        """The facts by their columns in the tables: `format` is called true_format there."""
        values = asdict(self)
        return {"true_format": values.pop("format"), **values}


@dataclass(frozen=True)
class Picture:
    """A whole picture: rgb uint8 (H, W, 3), sRGB, upright, transparency laid over the background."""

    rgb: np.ndarray
    facts: PictureFacts


class OpenPicture(ABC):
    """A picture that was read to its last byte, of which no more is decoded in full colour than is asked for.

    A JPEG of grey or RGB that is to be looked at in a reduced copy is decoded reduced: its entropy-coded data is read
    to the end, so the file is judged as strictly as by decoding it all, at a third of the cost. In full it is decoded
    when the first piece is cut out of it, and then once. Every other picture is decoded in full when it is opened.
    Which way a file goes depends on its bytes and on the reduction alone; pieces have the same pixels on both.

    Attributes:
        facts: PictureFacts.
        width, height: pixels, upright.
        reduction: of the preview: 1, 2, 4 or 8.
        preview: uint8 (h, w, 3) sRGB, upright, each side the picture's divided by the reduction and rounded up.
    """

    def __init__(self, facts: PictureFacts, size: tuple[int, int], reduction: int, preview: np.ndarray) -> None:
        self.facts = facts
        self.width, self.height = size
        self.reduction = reduction
        self.preview = preview

    def cut(self, x: int, y: int, w: int, h: int) -> np.ndarray:
        """A piece in full colour: uint8 (h, w, 3), an array of its own.

        x, y, w, h: pixels from the top left. Raises ValueError for a piece that is empty or leaves the picture.
        """
        if x < 0 or y < 0 or w < 1 or h < 1 or x + w > self.width or y + h > self.height:
            raise ValueError(f"({x}, {y}, {w}, {h}) does not lie within {self.width} x {self.height} pixels")
        return self._piece(x, y, w, h)

    def rgb(self) -> np.ndarray:
        """The whole picture in full colour: uint8 (H, W, 3)."""
        return self._piece(0, 0, self.width, self.height)

    def expect(self, bottom: int) -> None:  # noqa: B027 - what is decoded whole has nothing to save
        """Say that no piece will reach below the first `bottom` rows, so that no more need be decoded.

        It changes no pixel: a piece that does reach further has the picture decoded once more.
        """

    @abstractmethod
    def _piece(self, x: int, y: int, w: int, h: int) -> np.ndarray:
        """A piece that lies within the picture: uint8 (h, w, 3), an array of its own."""


class _Decoded(OpenPicture):
    """A picture that is in memory as it should be seen."""

    def __init__(self, facts: PictureFacts, rgb: np.ndarray, reduction: int) -> None:
        height, width = rgb.shape[:2]
        super().__init__(facts, (width, height), reduction, _reduce(rgb, reduction))
        self._rgb = rgb

    def _piece(self, x: int, y: int, w: int, h: int) -> np.ndarray:
        return self._rgb[y : y + h, x : x + w].copy()

    def rgb(self) -> np.ndarray:
        return self._rgb


class _ReducedJpeg(OpenPicture):
    """A JPEG of which only the preview is decoded so far."""

    def __init__(self, data: bytes, image: Image.Image, facts: PictureFacts, reduction: int) -> None:
        size = _upright_size(image)
        self._data = data
        self._whole: Image.Image | None = None
        self._bottom = 0  # rows that are to be decoded, unless a piece needs more
        image.draft(image.mode, (max(1, image.width // reduction), max(1, image.height // reduction)))
        upright, self._profile = _load_upright(image)
        facts = replace(facts, icc=self._profile is not None)
        super().__init__(facts, size, reduction, to_srgb(upright, self._profile))

    def expect(self, bottom: int) -> None:
        self._bottom = min(max(bottom, 0), self.height)

    def _piece(self, x: int, y: int, w: int, h: int) -> np.ndarray:
        if self._whole is None or self._whole.height < y + h:
            self._whole = self._decode(max(self._bottom, y + h))
        return to_srgb(self._whole.crop((x, y, x + w, y + h)), self._profile)

    def _decode(self, bottom: int) -> Image.Image:
        """The first rows in full colour; all of a picture that must be turned."""
        image = Image.open(io.BytesIO(self._data), formats=("JPEG",))
        if bottom < self.height and not self.facts.oriented:
            _load_rows(image, bottom)
            return image
        return _load_upright(image)[0]


def open_picture(
    data: bytes,
    background: Background = (255, 255, 255),
    choose_reduction: ChooseReduction = lambda width, height: 1,
) -> OpenPicture:
    """Open a whole file strictly.

    Args:
        data: the file's bytes.
        background: sRGB laid under transparent pixels.
        choose_reduction: (width, height) -> by how much the preview may be reduced; the next lower of REDUCTIONS is
            taken, and none that leaves no pixel. Asked before anything is decoded.

    Raises UnreadablePictureError for everything that does not decode completely, is animated, or promises more than
    MAX_PIXELS pixels; `cut` and `rgb` of what this returns raise none.
    """
    if not data:
        raise UnreadablePictureError(Defect.ZERO_BYTE, "the file is empty")
    said: dict[str, Any] = {}
    try:
        return _open(data, background, choose_reduction, said)
    except Image.DecompressionBombError as error:
        raise UnreadablePictureError(Defect.BOMB, str(error), said) from error
    except UnidentifiedImageError as error:
        raise checks.explain_unidentified(data) from error
    except DECODER_ERRORS as error:
        detail = str(error) or type(error).__name__
        raise UnreadablePictureError(checks.name_defect(error), detail, said) from error


def decode_picture(data: bytes, background: Background = (255, 255, 255)) -> Picture:
    """Decode a whole file strictly: `open_picture` for who wants every pixel."""
    picture = open_picture(data, background)
    return Picture(rgb=picture.rgb(), facts=picture.facts)


def _open(data: bytes, background: Background, choose_reduction: ChooseReduction, said: dict[str, Any]) -> OpenPicture:
    checks.check_completeness(data)
    image: Image.Image = Image.open(io.BytesIO(data), formats=checks.FORMATS)
    if image.width * image.height > checks.MAX_PIXELS:
        raise UnreadablePictureError(Defect.BOMB, f"the header promises {image.width}x{image.height} pixels")
    facts = _read_header(image, data)
    said |= {"true_format": facts.format, "mode": facts.mode, "bits": facts.bits, "frames": facts.frames}
    if facts.frames > 1 and facts.format in _FRAMED_FORMATS:
        raise UnreadablePictureError(Defect.ANIMATED, f"{facts.frames} frames", said)
    wanted = choose_reduction(*_upright_size(image))
    reduction = max(step for step in REDUCTIONS if step <= max(1, min(wanted, *image.size)))
    if reduction > 1 and image.format == "JPEG" and image.mode in ("RGB", "L"):
        return _ReducedJpeg(data, image, facts, reduction)
    image.load()
    profile_data = image.info.get("icc_profile")
    opaque, alpha_share = flatten(turn_upright(image), background)
    profile = read_profile(profile_data, opaque.mode)
    facts = replace(facts, alpha_share=alpha_share, icc=profile is not None)
    return _Decoded(facts, to_srgb(opaque, profile), reduction)


def _read_header(image: Image.Image, data: bytes) -> PictureFacts:
    """The facts that need no pixel. Counting frames reads the file, to its end for GIF and TIFF."""
    frames = getattr(image, "n_frames", 1)
    known = "JPEG" if image.format == "MPO" else str(image.format)  # a JPEG with more pictures behind it
    if known != "JPEG":
        return PictureFacts(known, image.mode, _count_bits(image, data), frames, oriented=_orientation(image) != 1)
    quality = estimate_quality(getattr(image, "quantization", {}))
    return PictureFacts(known, image.mode, 8, 1, jpeg_quality=quality, oriented=_orientation(image) != 1)


def _count_bits(image: Image.Image, data: bytes) -> int:
    """Bits per channel as stored: Pillow's mode does not tell 16-bit colour from 8-bit colour."""
    if image.format == "PNG" and image.mode != "P":
        return data[24]  # of IHDR, which is the first chunk
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return int(max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))))
    return _MODE_BITS.get(image.mode, 8)


def _orientation(image: Image.Image) -> int:
    """1 to 8, as EXIF numbers them; 1 for anything else, and where the EXIF cannot be read: the pixels are sound."""
    if image.format == "PNG" and "exif" not in image.info:
        image.load()  # it may stand behind the pixels. Apart from the rest: what is wrong with pixels must be raised
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except DECODER_ERRORS:
        return 1
    return int(value) if value in _TURNS else 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    return image.size[::-1] if _orientation(image) in _SIDEWAYS else image.size


def turn_upright(image: Image.Image) -> Image.Image:
    """Not by Pillow's `exif_transpose`: that writes the EXIF anew, and what cannot be written would end the picture."""
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _load_upright(image: Image.Image) -> tuple[Image.Image, Profile | None]:
    """Decode a JPEG of RGB or L: the upright picture and its usable colour profile."""
    image.load()
    return turn_upright(image), read_profile(image.info.get("icc_profile"), image.mode)


def _reduce(rgb: np.ndarray, reduction: int) -> np.ndarray:
    """uint8 (H, W, 3) -> (H / reduction, W / reduction, 3), rounded up: the mean over each square."""
    if reduction == 1:
        return rgb
    height, width = rgb.shape[:2]
    # whole squares: the last ones are filled up by repeating the edge, as a JPEG's are
    right, bottom = -width % reduction, -height % reduction
    whole = cv2.copyMakeBorder(rgb, 0, bottom, 0, right, cv2.BORDER_REPLICATE) if right or bottom else rgb
    size = (whole.shape[1] // reduction, whole.shape[0] // reduction)
    return np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _load_rows(image: ImageFile.ImageFile, bottom: int) -> None:
    """Decode only the first rows of a JPEG that is known to be whole; its height is theirs from then on."""
    (tile,) = image.tile
    image.tile = [tile._replace(extents=(0, 0, image.width, bottom))]
    image._size = (image.width, bottom)  # there is no public way to say it
    try:
        image.load()
    except OSError:
        # libjpeg is asked to finish before its last row, and complains; by then all rows asked for are there
        if image.tile:
            raise
