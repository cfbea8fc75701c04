"""Pictures side by side: cells of one size on a ground, whatever the pictures' shape and transparency."""

from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from models.gan.pictures import resize
from models.sampling.settings import Ground, SamplingError

MAX_PIXELS = 100_000_000  # of one figure: 300 MB, and what Pillow opens without a warning
CHECKS = (255, 204)  # greys of the checkerboard
CHECK = 8  # pixels a side of its squares
INK = 40  # grey of labels


def cell_size(height: int, width: int, longer: int | None) -> tuple[int, int]:
    """(rows, columns) of a cell for pictures of height x width, the longer side `longer` pixels; None: as they are."""
    if longer is None:
        return height, width
    scale = longer / max(height, width)
    return max(round(height * scale), 1), max(round(width * scale), 1)


def draw_ground(ground: Ground, height: int, width: int) -> np.ndarray:
    """uint8 (height, width, 1): the checkerboard begins with a light square at the top left."""
    if ground is not Ground.CHECKER:
        return np.full((height, width, 1), 255 if ground is Ground.WHITE else 0, np.uint8)
    y, x = np.mgrid[:height, :width] // CHECK
    return np.array(CHECKS, np.uint8)[(y + x) % 2][:, :, None]


def fit_cell(picture: np.ndarray, height: int, width: int, ground: Ground) -> np.ndarray:
    """uint8 (H, W, 1, 3 or 4) to uint8 (height, width, 1 or 3), transparent parts laid over the ground.

    Colours are weighted by their opacity when scaled, so that what an invisible pixel is painted with never shows.
    """
    if picture.shape[2] != 4:
        return resize(picture, width, height)
    alpha = picture[:, :, 3:]
    solid = np.rint(picture[:, :, :3].astype(np.float32) * (alpha.astype(np.float32) / 255)).astype(np.uint8)
    opacity = resize(alpha, width, height).astype(np.float32) / 255
    laid = resize(solid, width, height) + draw_ground(ground, height, width) * (1 - opacity)
    fitted: np.ndarray = np.rint(laid).clip(0, 255).astype(np.uint8)
    return fitted


def check_canvas(height: int, width: int) -> None:
    """Raise SamplingError if a figure of that size is more than MAX_PIXELS."""
    if height * width > MAX_PIXELS:
        raise SamplingError(
            f"the figure would have {width} x {height} pixels, more than {MAX_PIXELS / 1e6:.0f} million: "
            "take fewer seeds or smaller cells (--cell), or write single pictures (--no-grid --images)"
        )


def lay_grid(cells: Iterable[np.ndarray], count: int, columns: int, colour: int = 0) -> np.ndarray:
    """`count` equal cells, uint8 (h, w, C), row by row into one uint8 (rows * h, columns * w, C).

    Each cell is put in its place as it comes: there is never more than the figure and one cell. `colour` is the grey
    of the places that stay empty.
    """
    if columns < 1 or count < 1:
        raise ValueError(f"a grid needs at least one column and one picture, got {columns} and {count}")
    columns = min(columns, count)
    rows = -(-count // columns)
    figure: np.ndarray | None = None
    for k, cell in enumerate(cells):
        height, width, channels = cell.shape
        if figure is None:
            check_canvas(rows * height, columns * width)
            figure = np.full((rows * height, columns * width, channels), colour, np.uint8)
        y, x = k // columns * height, k % columns * width
        figure[y : y + height, x : x + width] = cell
    if figure is None:
        raise ValueError("a grid of no pictures")
    return figure


def draw_labels(size: tuple[int, int], labels: Iterable[tuple[float, float, str]], font_size: int) -> np.ndarray:
    """Dark text centred at (x, y) on white, uint8 (height, width, 1), `size` being (height, width)."""
    image = Image.new("L", (size[1], size[0]), 255)
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=font_size)
    for x, y, text in labels:
        pen.multiline_text((x, y), text, fill=INK, font=font, anchor="mm", align="center")
    return np.asarray(image)[:, :, None]
