"""Draw docs/cropping.jpg: what each crop recipe takes of a picture of the demo board.

python benchmarks/cropping_picture.py OUT.jpg [--seed 5]
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datasets.booru.board import draw_board
from datasets.pictures import OpenPicture, UnreadablePictureError, open_picture
from models.faces.detector import Face
from models.faces.geometry import (
    FACE,
    PORTRAIT,
    CropRecipe,
    Square,
    cut_square,
    measure_roll,
    place_square,
    place_whole_square,
)
from tasks.detection import Detector, FaceSearch

_CELL = 230
_LINE = 22
_COLOURS = {"face": (220, 40, 40), "portrait": (30, 90, 220), "align": (20, 150, 60), "square": (200, 120, 0)}


def choose_face(folder: Path, posts: int, seed: int) -> tuple[OpenPicture, Face, float]:
    """The clearest tilted face of a board whose portrait does not fill the picture."""
    draw_board(folder, posts, seed)
    search = FaceSearch(Detector.ANIMEFACE, 60, 1024)
    best: tuple[float, OpenPicture, Face, float] | None = None
    for path in sorted((folder / "original").rglob("*.*")):
        try:
            picture = open_picture(path.read_bytes())
        except UnreadablePictureError:
            continue
        if picture.rgb().std(axis=2).mean() < 15:
            continue  # planted grey ones
        for face in search.find(picture):
            roll = measure_roll(face.landmarks) or 0.0
            fits = 3.2 * face.w < min(picture.width, picture.height) < 8 * face.w
            if fits and picture.width < picture.height and 7 < abs(roll) < 30 and (not best or face.score > best[0]):
                best = (face.score, picture, face, roll)
    if best is None:
        raise SystemExit("no such face on this board: try another --seed")
    return best[1], best[2], best[3]


def outline(square: Square) -> list[tuple[float, float]]:
    """The corners of a square in the picture, turned about its centre."""
    turn, half = np.radians(square.roll), square.side / 2
    cos, sin = float(np.cos(turn)), float(np.sin(turn))
    corners = [(-half, -half), (half, -half), (half, half), (-half, half), (-half, -half)]
    x, y = square.x + half, square.y + half
    return [(x + u * cos - v * sin, y + u * sin + v * cos) for u, v in corners]


def draw(picture: OpenPicture, face: Face, roll: float) -> Image.Image:
    """The picture with the squares drawn in, and beside it what is cut out."""
    size = (picture.width, picture.height)
    wide = CropRecipe(up=2.2, down=2.2, side=2.2, edge="pad", colour=(150, 190, 230))
    mirrored = CropRecipe(up=2.2, down=2.2, side=2.2, edge="reflect")
    squares: list[tuple[str, str, Square, CropRecipe]] = [
        ("face", "", place_square(face, size, FACE), FACE),
        ("portrait", "", place_square(face, size, PORTRAIT), PORTRAIT),
        ("align", f" ({roll:+.0f} degrees)", place_square(face, size, FACE, roll), FACE),
        ("square", ", at the top", place_whole_square(size, "top"), FACE),
        ("edge = reflect", ", reaching out", place_square(face, size, mirrored), mirrored),
        ("edge = pad", ", reaching out", place_square(face, size, wide), wide),
    ]
    whole = Image.fromarray(picture.rgb())
    pen = ImageDraw.Draw(whole)
    for name, _, square, _ in squares:
        if name in _COLOURS:
            pen.line(outline(square), fill=_COLOURS[name], width=max(3, picture.height // 200))
    height = 2 * (_CELL + _LINE)
    whole.thumbnail((height, height - _LINE), Image.Resampling.LANCZOS)
    sheet = Image.new("RGB", (whole.width + 8 + 3 * (_CELL + 8), height + 8), "white")
    sheet.paste(whole, (4, 4))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for number, (name, note, square, recipe) in enumerate(squares):
        pixels = cut_square(lambda box: picture.cut(box.x, box.y, box.w, box.h), square, size, recipe)
        x = whole.width + 12 + number % 3 * (_CELL + 8)
        y = 4 + number // 3 * (_CELL + _LINE)
        sheet.paste(Image.fromarray(pixels).resize((_CELL, _CELL), Image.Resampling.LANCZOS), (x, y))
        pen.text((x + 2, y + _CELL + 2), name + note, fill=_COLOURS.get(name, (40, 40, 40)), font=font)
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--posts", type=int, default=150)
    parser.add_argument("--seed", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sheet = draw(*choose_face(Path(name) / "board", arguments.posts, arguments.seed))
    sheet.save(arguments.out, quality=88)


if __name__ == "__main__":
    main()
