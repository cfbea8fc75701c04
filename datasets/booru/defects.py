"""What is planted among the plain posts: one small function per kind, and one table with the outcome each deserves.

A function takes a `Draft` (a drawn picture that would have been a plain post) and returns it spoiled: other pixels,
other bytes, other metadata. Boxes of the true faces follow whatever moves them.
"""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from PIL import Image, ImageCms

from datasets.booru.canvas import Pixels
from datasets.booru.palette import EYES, HAIR
from datasets.booru.scene import Face

Outcome = Literal["keep", "drop"]
Subject = Literal["people", "still", "decoy", "copy"]


@dataclass(frozen=True)
class Draft:
    """A post before it is written. `data` None means that no file is written, `in_metadata` False that no row is."""

    pixels: Pixels
    faces: tuple[Face, ...]
    backdrop: Pixels
    data: bytes | None
    ext: str
    width: int
    height: int
    general: frozenset[str] = frozenset()
    meta: frozenset[str] = frozenset()
    bait: bool = False  # the bytes lie outside original/, where only a path that escapes finds them
    in_metadata: bool = True
    broken_line: bool = False
    rating: str | None = None
    deleted: bool = False
    banned: bool = False


Spoiler = Callable[[Draft, np.random.Generator], Draft]


# ---- encoding --------------------------------------------------------------------------------------------------------


def jpeg(pixels: Pixels, quality: int = 92, sharp_colour: bool = False, **options: object) -> bytes:
    """RGB (or grey) pixels as a JPEG file."""
    return saved(Image.fromarray(pixels), "JPEG", quality=quality, subsampling=0 if sharp_colour else 2, **options)


def png(pixels: Pixels) -> bytes:
    """RGB, RGBA, grey or 16-bit pixels as a PNG file, compressed for speed."""
    order = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    stored = cv2.cvtColor(pixels, order[pixels.shape[2]]) if pixels.ndim == 3 else pixels
    done, data = cv2.imencode(".png", stored, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise ValueError(f"OpenCV could not encode pixels of shape {pixels.shape} as PNG")
    return data.tobytes()


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _redrawn(draft: Draft, pixels: Pixels, rng: np.random.Generator, sharp: bool = False) -> Draft:
    """The draft with other RGB pixels of any size, as a good JPEG or (with `sharp`) a PNG."""
    data = png(pixels) if sharp else jpeg(pixels, int(rng.integers(90, 96)))
    return replace(
        draft, pixels=pixels, data=data, ext="png" if sharp else "jpg", width=pixels.shape[1], height=pixels.shape[0]
    )


def _scaled(draft: Draft, factor: float, rng: np.random.Generator) -> Draft:
    pixels = cv2.resize(draft.pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    fx, fy = pixels.shape[1] / draft.width, pixels.shape[0] / draft.height
    faces = tuple(replace(f, x=f.x * fx, y=f.y * fy, side=f.side * (fx + fy) / 2) for f in draft.faces)
    return _redrawn(replace(draft, faces=faces), pixels, rng)


# ---- copies ----------------------------------------------------------------------------------------------------------


def byte_copy(draft: Draft, rng: np.random.Generator) -> Draft:
    return draft


def reencoded_copy(draft: Draft, rng: np.random.Generator) -> Draft:
    quality = int(rng.integers(72, 88))
    return replace(draft, data=jpeg(draft.pixels, quality), ext="jpg")


def resized_copy(draft: Draft, rng: np.random.Generator) -> Draft:
    return _scaled(draft, float(rng.uniform(0.6, 0.9)), rng)


def cropped_copy(draft: Draft, rng: np.random.Generator) -> Draft:
    """One to three hundredths cut off each side."""
    left, right = (int(draft.width * v) for v in rng.uniform(0.01, 0.03, 2))
    top, bottom = (int(draft.height * v) for v in rng.uniform(0.01, 0.03, 2))
    pixels = np.ascontiguousarray(draft.pixels[top : draft.height - bottom, left : draft.width - right])
    faces = tuple(replace(f, x=f.x - left, y=f.y - top) for f in draft.faces)
    return _redrawn(replace(draft, faces=faces), pixels, rng)


def mirrored_copy(draft: Draft, rng: np.random.Generator) -> Draft:
    pixels = np.ascontiguousarray(draft.pixels[:, ::-1])
    faces = tuple(
        replace(f, x=draft.width - f.x - f.side, person=replace(f.person, roll=-f.person.roll, turn=-f.person.turn))
        for f in reversed(draft.faces)
    )
    return _redrawn(replace(draft, faces=faces), pixels, rng)


# ---- colour and sharpness --------------------------------------------------------------------------------------------


def _grey_tags(draft: Draft, rng: np.random.Generator) -> Draft:
    """Half of the grey posts are tagged so: real tags are incomplete."""
    tags = frozenset({"monochrome", "greyscale"}) if rng.random() < 0.5 else frozenset()
    colours = {t for t in draft.general if t.endswith(("_hair", "_eyes")) and t.split("_")[0] in _COLOUR_WORDS}
    return replace(draft, general=draft.general - colours | tags)


_COLOUR_WORDS = frozenset(HAIR) | frozenset(EYES)


def _luma(draft: Draft) -> Pixels:
    return cv2.cvtColor(draft.pixels, cv2.COLOR_RGB2GRAY)


def grey(draft: Draft, rng: np.random.Generator) -> Draft:
    """One channel in the file."""
    luma = _luma(draft)
    data, ext = (png(luma), "png") if rng.random() < 0.5 else (saved(Image.fromarray(luma), "JPEG", quality=92), "jpg")
    return replace(_grey_tags(draft, rng), pixels=cv2.merge([luma, luma, luma]), data=data, ext=ext)


def rgb_grey(draft: Draft, rng: np.random.Generator) -> Draft:
    """Three equal channels, through a JPEG that subsamples colour."""
    luma = _luma(draft)
    return _redrawn(_grey_tags(draft, rng), cv2.merge([luma, luma, luma]), rng)


def sepia(draft: Draft, rng: np.random.Generator) -> Draft:
    """Brown ink: a luma scale from dark brown to cream."""
    ink, paper = np.array([48, 28, 14]), np.array([255, 240, 210])
    ramp = np.round(ink + (paper - ink) * (np.arange(256)[:, None] / 255) ** 0.9).astype(np.uint8)
    spoiled = _redrawn(_grey_tags(draft, rng), ramp[_luma(draft)], rng)
    return replace(spoiled, general=spoiled.general - {"greyscale"} | ({"sepia"} if rng.random() < 0.4 else set()))


def few_colours(draft: Draft, rng: np.random.Generator) -> Draft:
    """Eight to sixteen colours, undithered, in a plain RGB PNG."""
    image = Image.fromarray(draft.pixels).quantize(int(rng.integers(8, 17)), dither=Image.Dither.NONE)
    return _redrawn(draft, np.asarray(image.convert("RGB")), rng, sharp=True)


def blurred(draft: Draft, rng: np.random.Generator) -> Draft:
    """Out of focus by a tenth of a face."""
    sigma = min(f.side for f in draft.faces) * float(rng.uniform(0.05, 0.08))
    return _redrawn(draft, cv2.GaussianBlur(draft.pixels, (0, 0), sigma), rng)


def tiny(draft: Draft, rng: np.random.Generator) -> Draft:
    """A thumbnail: the largest face has 16 to 30 pixels."""
    return _scaled(draft, float(rng.uniform(16, 30)) / max(f.side for f in draft.faces), rng)


def heavy_jpeg(draft: Draft, rng: np.random.Generator) -> Draft:
    return replace(draft, data=jpeg(draft.pixels, int(rng.integers(12, 24))), ext="jpg")


# ---- broken files ----------------------------------------------------------------------------------------------------


def truncated(draft: Draft, rng: np.random.Generator) -> Draft:
    data = jpeg(draft.pixels)
    return replace(draft, data=data[: int(len(data) * rng.uniform(0.3, 0.7))], ext="jpg")


def zero_byte(draft: Draft, rng: np.random.Generator) -> Draft:
    return replace(draft, data=b"")


def crc_error(draft: Draft, rng: np.random.Generator) -> Draft:
    """A PNG whose first IDAT chunk does not have the checksum it claims."""
    data = bytearray(png(draft.pixels))
    start = data.index(b"IDAT")
    (length,) = struct.unpack(">I", data[start - 4 : start])
    for k in range(4):
        data[start + 4 + length + k] ^= 0xA5
    return replace(draft, data=bytes(data), ext="png")


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def decompression_bomb(draft: Draft, rng: np.random.Generator) -> Draft:
    """A few hundred bytes that promise 50000 x 50000 pixels; the metadata says nothing of it."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(bytes(200_000), 9)) + _chunk(b"IEND", b"")
    return replace(draft, data=data, ext="png")


def not_an_image(draft: Draft, rng: np.random.Generator) -> Draft:
    """An error page saved as a picture."""
    page = f"<html><body><h1>503 Service Unavailable</h1><p>request {int(rng.integers(2**31))}</p></body></html>\n"
    return replace(draft, data=page.encode(), ext="jpg")


# ---- odd but good files ----------------------------------------------------------------------------------------------


def wrong_extension(draft: Draft, rng: np.random.Generator) -> Draft:
    return replace(draft, data=png(draft.pixels), ext="jpg")


def cmyk(draft: Draft, rng: np.random.Generator) -> Draft:
    return replace(draft, data=saved(Image.fromarray(draft.pixels).convert("CMYK"), "JPEG", quality=92), ext="jpg")


def palette(draft: Draft, rng: np.random.Generator) -> Draft:
    """256 colours, dithered."""
    image = Image.fromarray(draft.pixels).quantize(256, dither=Image.Dither.FLOYDSTEINBERG)
    return replace(draft, data=saved(image, "PNG", compress_level=2), ext="png")


def alpha(draft: Draft, rng: np.random.Generator) -> Draft:
    """The people cut out, on a transparent ground whose hidden colour is black."""
    differs = (cv2.absdiff(draft.pixels, draft.backdrop).max(axis=2) > 6).astype(np.uint8) * 255
    outlines, _ = cv2.findContours(differs, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cover = np.zeros(differs.shape, np.uint8)
    cv2.drawContours(cover, [c for c in outlines if cv2.contourArea(c) > 30], -1, 255, -1, cv2.LINE_AA)
    pixels = cv2.bitwise_and(draft.pixels, cv2.merge([cover, cover, cover]))
    tags = (draft.general - {"sky", "cloud", "outdoors", "indoors"}) | {"transparent_background"}
    return replace(draft, data=png(np.dstack([pixels, cover])), ext="png", general=tags)


def sixteen_bit(draft: Draft, rng: np.random.Generator) -> Draft:
    return replace(draft, data=png((draft.pixels.astype(np.uint16) * 257).astype(np.uint16)), ext="png")


def exif_rotated(draft: Draft, rng: np.random.Generator) -> Draft:
    """Stored on its side or upside down, with the EXIF orientation that turns it up again."""
    orientation, turns = ((6, 1), (8, 3), (3, 2))[int(rng.integers(3))]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(np.rot90(draft.pixels, turns))
    return replace(draft, data=jpeg(stored, exif=exif.tobytes()), ext="jpg")


def icc_tagged(draft: Draft, rng: np.random.Generator) -> Draft:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = struct.pack(
        ">6H", 2016, 7, 26, 12, 0, 0
    )  # its date of creation is now: not byte for byte the same
    profile[84:100] = bytes(16)  # nor is the digest over it
    return replace(draft, data=jpeg(draft.pixels, icc_profile=bytes(profile)), ext="jpg")


def animated_gif(draft: Draft, rng: np.random.Generator) -> Draft:
    """Three frames in which the picture sways a little."""
    factor = min(1.0, 480 / max(draft.width, draft.height))
    small = _scaled(draft, factor, rng)
    frames = [Image.fromarray(np.roll(small.pixels, dx, axis=1)).quantize(64) for dx in (0, 3, 6)]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=200, loop=0)
    return replace(small, data=data, ext="gif", meta=draft.meta | {"animated", "animated_gif"})


# ---- metadata --------------------------------------------------------------------------------------------------------


def unchanged(draft: Draft, rng: np.random.Generator) -> Draft:
    """The subject itself is what is planted."""
    return draft


def explicit(draft: Draft, rng: np.random.Generator) -> Draft:
    """Only the rating: the drawing is as decent as the others."""
    return replace(draft, rating="e")


def questionable(draft: Draft, rng: np.random.Generator) -> Draft:
    return replace(draft, rating="q")


def deleted(draft: Draft, rng: np.random.Generator) -> Draft:
    return replace(draft, deleted=True)


def banned(draft: Draft, rng: np.random.Generator) -> Draft:
    return replace(draft, banned=True)


def missing_file(draft: Draft, rng: np.random.Generator) -> Draft:
    return replace(draft, data=None)


def orphan_file(draft: Draft, rng: np.random.Generator) -> Draft:
    return replace(draft, in_metadata=False)


def broken_json(draft: Draft, rng: np.random.Generator) -> Draft:
    return replace(draft, broken_line=True)


def path_escape(draft: Draft, rng: np.random.Generator) -> Draft:
    """A `../` in file_ext that leads to a good picture outside original/: if it is ever read, the reader escaped."""
    return replace(draft, bait=True)


@dataclass(frozen=True)
class Kind:
    """One planted kind: of what it is made, how, and what should become of it, at which stage at the latest."""

    name: str
    subject: Subject
    spoil: Spoiler
    expected: Outcome
    stage: str | None = None


PLAIN = Kind("plain", "people", unchanged, "keep")

KINDS: tuple[Kind, ...] = (
    Kind("byte_copy", "copy", byte_copy, "drop", "dedup"),
    Kind("grey", "people", grey, "drop", "clean"),
    Kind("truncated", "people", truncated, "drop", "crop"),
    Kind("wrong_extension", "people", wrong_extension, "keep"),
    Kind("explicit", "people", explicit, "drop", "filter"),
    Kind("no_face", "still", unchanged, "drop", "crop"),
    Kind("reencoded_copy", "copy", reencoded_copy, "drop", "dedup"),
    Kind("sepia", "people", sepia, "drop", "clean"),
    Kind("zero_byte", "people", zero_byte, "drop", "crop"),
    Kind("exif_rotated", "people", exif_rotated, "keep"),
    Kind("deleted", "people", deleted, "drop", "filter"),
    Kind("fools_detector", "decoy", unchanged, "drop", "crop"),
    Kind("resized_copy", "copy", resized_copy, "drop", "dedup"),
    Kind("blurred", "people", blurred, "drop", "clean"),
    Kind("crc_error", "people", crc_error, "drop", "crop"),
    Kind("cmyk", "people", cmyk, "keep"),
    Kind("path_escape", "people", path_escape, "drop", "filter"),
    Kind("missing_file", "people", missing_file, "drop", "filter"),
    Kind("mirrored_copy", "copy", mirrored_copy, "drop", "dedup"),
    Kind("rgb_grey", "people", rgb_grey, "drop", "clean"),
    Kind("decompression_bomb", "people", decompression_bomb, "drop", "crop"),
    Kind("alpha", "people", alpha, "keep"),
    Kind("broken_json", "people", broken_json, "drop", "filter"),
    Kind("orphan_file", "people", orphan_file, "drop", "filter"),
    Kind("cropped_copy", "copy", cropped_copy, "drop", "dedup"),
    Kind("few_colours", "people", few_colours, "drop", "clean"),
    Kind("tiny", "people", tiny, "drop", "crop"),
    Kind("palette", "people", palette, "keep"),
    Kind("questionable", "people", questionable, "drop", "filter"),
    Kind("animated_gif", "people", animated_gif, "drop", "filter"),
    Kind("sixteen_bit", "people", sixteen_bit, "keep"),
    Kind("banned", "people", banned, "drop", "filter"),
    Kind("icc_tagged", "people", icc_tagged, "keep"),
    Kind("not_an_image", "people", not_an_image, "drop", "crop"),
    Kind("heavy_jpeg", "people", heavy_jpeg, "keep"),
)
BY_NAME: dict[str, Kind] = {kind.name: kind for kind in (PLAIN, *KINDS)}
