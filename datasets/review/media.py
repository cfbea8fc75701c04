"""Which picture file stands for an item on the review's screen.

FiftyOne shows files, by absolute path. A dropped item may have no crop of its own (it fell out before there was one),
a source file that is no picture, or nothing at all; it must be seen all the same, with its reason.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from datasets.atomic import write_atomically
from datasets.digests import digest_bytes
from datasets.errors import StoreError

# What browsers draw. TIFF is not among them.
SHOWABLE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_SHOWN_PIXELS = 60_000_000  # a browser that has to decode more in a grid stops answering
PLACEHOLDER_SIZE = 256
ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 lie on their side


class Showing(StrEnum):
    """What the file on the screen is of its item."""

    PUBLISHED = "published"  # the image as it is in the version
    PARENT = "parent"  # what the image is made of: it is listed, and made when training reads it
    CROP = "crop"  # the crop before upscaling
    SOURCE = "source"  # the whole source picture
    BOTH = "before and after"  # the two pictures side by side
    NOTHING = "nothing"  # a drawn placeholder


@dataclass(frozen=True)
class Media:
    """A file to show. width, height: pixels as seen (EXIF orientation applied); None when nobody has looked."""

    path: Path
    showing: Showing
    width: int | None
    height: int | None


class MediaFinder:
    """Finds the best file for an item: published image, else crop, else source picture, else a placeholder."""

    def __init__(self, blob_path: Callable[[str], Path], source_root: Path | None, placeholder_folder: Path) -> None:
        """
        blob_path: digest -> file, raising StoreError when it is missing (`datasets.blobs.BlobFolder.path`).
        source_root: where `source_path` is relative to; None when the source is not on this machine.
        placeholder_folder: where placeholders are drawn, one per reason; made when needed.
        """
        self.blob_path = blob_path
        self.source_root = source_root.resolve() if source_root else None
        self.placeholder_folder = placeholder_folder.absolute()

    def find(self, row: Mapping[str, Any]) -> Media:
        """The file for a row of a manifest or a ledger. Its `derived`, if any, says that a sample is not kept."""
        for column, showing, size in (
            ("blob", Showing.PUBLISHED, ("width", "height")),
            ("crop_blob", Showing.CROP, ("box_w", "box_h")),
        ):
            path = self.find_blob(row.get(column))
            if path is not None and showing is Showing.PUBLISHED and row.get("derived"):
                return Media(path, Showing.PARENT, *(read_size(path) or (None, None)))
            if path is not None:
                return Media(path, showing, row.get(size[0]), row.get(size[1]))
        source = self.find_source(row.get("source_path"))
        if source is not None:
            return source
        return self.show_reason(row.get("reason") or "its blob is missing")

    def find_blob(self, digest: str | None) -> Path | None:
        """The file of a blob; None when there is none."""
        if not digest:
            return None
        try:
            return self.blob_path(digest).absolute()
        except StoreError:  # collected as garbage: the next choice is shown, and `showing` tells
            return None

    def find_source(self, source_path: str | None) -> Media | None:
        """The source picture, if the source is here, it has it, and a browser can show it."""
        if not source_path or self.source_root is None:
            return None
        try:
            path = (self.source_root / source_path).resolve()
            # the App's server hands out any file that it is told of: stay within the source, links followed
            if not path.is_relative_to(self.source_root) or not path.is_file():
                return None
        except (OSError, ValueError, RuntimeError):  # a name that no file system takes, a loop of links
            return None
        size = read_size(path)
        return Media(path, Showing.SOURCE, *size) if size else None

    def show_reason(self, reason: str) -> Media:
        """A placeholder that says why there is no picture."""
        path = self.placeholder_folder / f"{digest_bytes(reason.encode())[:16]}.png"
        if not path.exists():
            image = draw_placeholder(reason)
            write_atomically(path, lambda temporary: image.save(temporary, format="PNG"))
        return Media(path, Showing.NOTHING, PLACEHOLDER_SIZE, PLACEHOLDER_SIZE)


def draw_placeholder(reason: str) -> Image.Image:
    """A grey tile that says "no picture" and why: RGB, PLACEHOLDER_SIZE squared."""
    size = PLACEHOLDER_SIZE
    image = Image.new("RGB", (size, size), (58, 60, 66))
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((10, 10, size - 11, size - 11), radius=14, outline=(104, 107, 116), width=2)
    draw.line((96, 52, 160, 116), fill=(150, 153, 162), width=4)
    draw.rounded_rectangle((92, 56, 164, 112), radius=6, outline=(150, 153, 162), width=4)
    words = reason.replace("_", " ").encode("ascii", "replace").decode()
    draw.text((size / 2, 146), "no picture", font=ImageFont.load_default(24), fill=(236, 236, 240), anchor="mm")
    lines = _wrap(words, ImageFont.load_default(18), size - 44)[:3]
    draw.multiline_text(
        (size / 2, 170),
        "\n".join(lines),
        font=ImageFont.load_default(18),
        fill=(228, 166, 86),
        anchor="ma",
        align="center",
    )
    return image


def _wrap(text: str, font: Any, width: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def read_size(path: Path) -> tuple[int, int] | None:
    """Size as seen of a picture that a browser can show, from its header alone; None for anything else."""
    try:
        with Image.open(path, formats=SHOWABLE_FORMATS) as image:
            width, height = image.size
            sideways = image.getexif().get(ORIENTATION, 1) >= 5
    except (OSError, SyntaxError, ValueError, TypeError, struct.error, Image.DecompressionBombError):
        return None
    if width * height > MAX_SHOWN_PIXELS:
        return None
    return (height, width) if sideways else (width, height)
