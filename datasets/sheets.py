"""Contact sheets: many pictures at a glance, each with a line that says why it is there."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from datasets.pictures import DECODER_ERRORS, FORMATS, MAX_PIXELS

_GROUND = (250, 250, 250)
_INK = (40, 40, 40)
_EMPTY = (226, 226, 230)
_LINE = 13  # pixels of one caption line
_GAP = 6


@dataclass(frozen=True)
class Cell:
    """One picture of a sheet. path None, or a file that cannot be read, gives a blank with the caption."""

    path: Path | None
    caption: tuple[str, ...] = ()


def draw_sheet(cells: Sequence[Cell], columns: int = 8, side: int = 112) -> Image.Image:
    """Cells row by row, each scaled into side x side pixels, with up to two caption lines beneath."""
    lines = min(2, max((len(cell.caption) for cell in cells), default=0))
    columns = max(1, min(columns, len(cells)))
    rows = max(1, -(-len(cells) // columns))
    height = side + lines * _LINE + _GAP
    sheet = Image.new("RGB", (columns * (side + _GAP) + _GAP, rows * height + _GAP), _GROUND)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=10)
    for index, cell in enumerate(cells):
        x = _GAP + (index % columns) * (side + _GAP)
        y = _GAP + (index // columns) * height
        picture = load_thumbnail(cell.path, side)
        if picture is None:
            pen.rectangle((x, y, x + side - 1, y + side - 1), fill=_EMPTY)
            pen.text((x + side / 2, y + side / 2), "no picture", fill=_INK, font=font, anchor="mm")
        else:
            sheet.paste(picture, (x + (side - picture.width) // 2, y + (side - picture.height) // 2))
        for number, text in enumerate(cell.caption[:lines]):
            pen.text((x, y + side + number * _LINE), _fit(text, side, font), fill=_INK, font=font)
    return sheet


def load_thumbnail(path: Path | None, side: int) -> Image.Image | None:
    """A picture reduced (or doubled, when tiny) to fit side x side; None when it cannot be read.

    Only the formats that curation reads are tried: Pillow knows others that run programs to decode.
    """
    if path is None:
        return None
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                return None
            image.draft("RGB", (side * 2, side * 2))
            picture = image.convert("RGBA").convert("RGB") if image.mode == "P" else image.convert("RGB")
    except (*DECODER_ERRORS, Image.DecompressionBombError):
        return None
    if max(picture.size) <= side // 2:
        picture = picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture


def _fit(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    text = " ".join(text.split())  # a file's name may hold a line break, and a caption is one line
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-2].rstrip("…") + "…"
    return text


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Save as JPEG: a sheet is for looking at."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, quality=88)


def encode_data_uri(sheet: Image.Image, limit: int = 110_000) -> str:
    """A sheet as a JPEG data URI of at most about `limit` bytes of picture, for a page that has no image server.

    Quality falls first, then size. (Base64 adds a third: 110 KB become 147 KB.)
    """
    for quality in (85, 70, 55, 40):
        buffer = io.BytesIO()
        sheet.save(buffer, format="JPEG", quality=quality)
        if buffer.tell() <= limit:
            return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    smaller = sheet.resize((max(1, sheet.width * 3 // 4), max(1, sheet.height * 3 // 4)), Image.Resampling.LANCZOS)
    return encode_data_uri(smaller, limit)
