"""Contact sheets: many pictures at a glance, each with a line that says why it is there."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from datasets.atomic import write_bytes
from datasets.pictures import DECODER_ERRORS, FORMATS, MAX_PIXELS
from datasets.thumbnails import SIDE

_GROUND = (250, 250, 250)
_INK = (40, 40, 40)
_EMPTY = (226, 226, 230)
_LINE = 13  # pixels of one caption line
_HEADING = 26
_GAP = 6
_WIDEST = 950  # pixels that a heading may take where the pictures take less


@dataclass(frozen=True)
class Cell:
    """One picture of a sheet. path None, or a file that cannot be read, gives a blank with the caption."""

    path: Path | None
    caption: tuple[str, ...] = ()
    mirrored: bool = False  # draw the picture's mirror image


@dataclass(frozen=True)
class Section:
    """Cells under a heading."""

    title: str
    cells: Sequence[Cell]


def draw_sheet(cells: Sequence[Cell], columns: int = 8, side: int = SIDE) -> Image.Image:
    """Cells row by row, each scaled into side x side pixels, with up to two caption lines beneath."""
    return draw_sections([Section("", cells)], columns, side)


def draw_sections(sections: Sequence[Section], columns: int = 8, side: int = SIDE) -> Image.Image:
    """Sheets with headings, one beneath the other. A section without cells says "none" under its title."""
    font, heading = ImageFont.load_default(size=10), ImageFont.load_default(size=15)
    lines = min(2, max((len(cell.caption) for section in sections for cell in section.cells), default=0))
    columns = max(1, min(columns, max((len(section.cells) for section in sections), default=0)))
    width = columns * (side + _GAP) + _GAP
    titles = [_fit(section.title, max(width, _WIDEST) - 2 * _GAP, heading) for section in sections]
    width = max([width, *(math.ceil(heading.getlength(title)) + 2 * _GAP for title in titles)])
    height = side + lines * _LINE + _GAP
    heights = [_section_height(section, columns, height) for section in sections]
    sheet = Image.new("RGB", (width, sum(heights) + _GAP), _GROUND)
    pen = ImageDraw.Draw(sheet)
    top = _GAP
    for section, title, taken in zip(sections, titles, heights, strict=True):
        start = top + (_HEADING if title else 0)
        pen.text((_GAP, top + _HEADING / 2), title, fill=_INK, font=heading, anchor="lm")
        if title and not section.cells:
            pen.text((_GAP, start), "none", fill=_INK, font=font)
        for index, cell in enumerate(section.cells):
            x = _GAP + (index % columns) * (side + _GAP)
            y = start + (index // columns) * height
            _draw_cell(sheet, cell, (x, y), side)
            for number, text in enumerate(cell.caption[:lines]):
                pen.text((x, y + side + number * _LINE), _fit(text, side, font), fill=_INK, font=font)
        top += taken
    return sheet


def _section_height(section: Section, columns: int, row: int) -> int:
    if not section.cells:
        return _HEADING + _LINE + _GAP if section.title else row
    return (_HEADING if section.title else 0) + -(-len(section.cells) // columns) * row


def _draw_cell(sheet: Image.Image, cell: Cell, corner: tuple[int, int], side: int) -> None:
    x, y = corner
    picture = load_thumbnail(cell.path, side)
    if picture is None:
        pen = ImageDraw.Draw(sheet)
        pen.rectangle((x, y, x + side - 1, y + side - 1), fill=_EMPTY)
        font = ImageFont.load_default(size=10)
        pen.text((x + side / 2, y + side / 2), "no picture", fill=_INK, font=font, anchor="mm")
        return
    if cell.mirrored:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    sheet.paste(picture, (x + (side - picture.width) // 2, y + (side - picture.height) // 2))


def load_thumbnail(path: Path | None, side: int) -> Image.Image | None:
    """A picture reduced (or doubled, when tiny) to fit side x side; None when it cannot be read."""
    picture = None if path is None else reduce_picture(path, side)
    if picture is not None and max(picture.size) <= side // 2:
        return picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST)
    return picture


def reduce_picture(path: Path, side: int) -> Image.Image | None:
    """A file's picture as RGB, reduced to fit side x side, never enlarged; None when it cannot be read.

    It is turned as its EXIF says. Only the formats that curation reads are tried: Pillow knows others that run
    programs to decode.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                return None
            image.draft("RGB", (side * 2, side * 2))
            upright = ImageOps.exif_transpose(image)
            picture = upright.convert("RGBA").convert("RGB") if upright.mode == "P" else upright.convert("RGB")
    except (*DECODER_ERRORS, Image.DecompressionBombError):
        return None
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture


def describe_change(column: str, value: float, before: float | None, after: float | None) -> tuple[str, str]:
    """What a changed threshold means for an item, as a caption: `blur 52`, `60 -> 40`. None: no threshold."""
    old, new = ("none" if limit is None else f"{limit:.4g}" for limit in (before, after))
    return f"{column} {value:.4g}", f"{old} -> {new}"


def _fit(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    text = " ".join(text.split())  # a file's name may hold a line break, and a caption is one line
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-2].rstrip("…") + "…"
    return text


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Save as JPEG: a sheet is for looking at. Raises OSError; the file is whole or not there."""
    buffer = io.BytesIO()
    sheet.save(buffer, format="JPEG", quality=88)
    write_bytes(path, buffer.getvalue())


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
