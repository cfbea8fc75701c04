"""Two pictures of one item side by side, as one file: a glance at the grid tells what became of it."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from datasets.atomic import write_atomically
from datasets.digests import digest_json

SMALLEST, LARGEST = 192, 512  # pixels of a cell's side
GAP, CAPTION = 4, 26
GROUND, INK = (38, 40, 46), (236, 236, 240)
_FORMAT = 1  # bump when the drawing below changes


def save_comparison(folder: Path, before: Path, after: Path, captions: tuple[str, str]) -> Path | None:
    """The file that shows two pictures side by side, drawn when it is not there yet.

    before, after: files named by the digest of their bytes (blobs), so that the same two give the same file.
    Returns None when one of them cannot be decoded.
    """
    from datasets.pictures import UnreadablePictureError, decode_picture  # OpenCV: the command line starts without it

    path = folder / f"{digest_json([_FORMAT, before.name, after.name, list(captions)])[:32]}.jpg"
    if not path.exists():
        try:
            pictures = [Image.fromarray(decode_picture(file.read_bytes()).rgb) for file in (before, after)]
        except (OSError, UnreadablePictureError):
            return None
        drawn = draw_comparison(pictures[0], pictures[1], captions)
        # full colour resolution: a change of pixels may be no more than a change of colour
        write_atomically(path, lambda temporary: drawn.save(temporary, format="JPEG", quality=95, subsampling=0))
    return path


def draw_comparison(before: Image.Image, after: Image.Image, captions: tuple[str, str]) -> Image.Image:
    """Two RGB pictures in square cells of SMALLEST to LARGEST pixels, each with a caption above: RGB.

    Both are enlarged or reduced by the same factor, so that a change of size is seen as one.
    """
    longest = max(*before.size, *after.size)
    cell = min(max(longest, SMALLEST), LARGEST)
    drawn = Image.new("RGB", (2 * cell + GAP, cell + CAPTION), GROUND)
    pen = ImageDraw.Draw(drawn)
    for index, (picture, caption) in enumerate(zip((before, after), captions, strict=True)):
        left = index * (cell + GAP)
        size = (max(1, round(picture.width * cell / longest)), max(1, round(picture.height * cell / longest)))
        # enlarged pixels stay squares: nothing is drawn that is not there
        resampling = Image.Resampling.LANCZOS if cell < longest else Image.Resampling.NEAREST
        drawn.paste(
            picture.convert("RGB").resize(size, resampling),
            (left + (cell - size[0]) // 2, CAPTION + (cell - size[1]) // 2),
        )
        pen.text((left + cell / 2, CAPTION / 2), caption, font=ImageFont.load_default(15), fill=INK, anchor="mm")
    return drawn
