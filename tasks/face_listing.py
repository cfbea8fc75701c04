"""Detection alone: the faces of all pictures below a folder, as a table and as a contact sheet."""

from __future__ import annotations

import csv
import io
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from datasets.atomic import write_atomically, write_bytes
from datasets.errors import SourceError
from datasets.pictures import MAX_BYTES, SUFFIX_FORMATS, Defect, OpenPicture, UnreadablePictureError, open_picture
from datasets.sheets import Cell, draw_sheet, save_sheet
from datasets.sources.files import LINK_OUTSIDE, list_files, readable_name
from models.faces.detector import DetectorError, Face
from tasks.detection import FaceSearch

COLUMNS = ("image", "x", "y", "w", "h", "score", "detector")
MOST_CELLS = 60  # of a sheet: more are not looked at, and each is held in memory
SHEET_SUFFIXES = (".png", ".jpg", ".jpeg")
_CELL = 224  # pixels
_AHEAD = 4  # pictures per worker that may wait for their turn to be written
_INK = (230, 40, 40)


@dataclass(frozen=True)
class SearchedPicture:
    """What was found in one file."""

    name: str  # relative to the folder, "/" as separator
    faces: tuple[Face, ...]
    problem: str | None  # why it could not be read or searched
    cell: Image.Image | None  # a small copy with the boxes drawn in, where one was asked for


@dataclass(frozen=True)
class FaceListing:
    """What a search wrote."""

    pictures: int
    faces: int
    unreadable: dict[str, str]  # name -> why


def list_pictures(folder: Path) -> list[str]:
    """The picture files below a folder, sorted, relative to it; raises SourceError when there are none."""
    if not folder.is_dir():
        raise SourceError(f"the folder {folder} does not exist: name a folder of pictures")
    found = list_files(folder, suffixes=SUFFIX_FORMATS.keys())
    if not found.names:
        raise SourceError(f"no pictures ({', '.join(sorted(SUFFIX_FORMATS))}) below {folder}")
    return sorted(found.names)


def list_faces(
    folder: Path,
    search: FaceSearch,
    table: Path,
    sheet: Path | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FaceListing:
    """Search all pictures below a folder.

    Args:
        folder: is searched with the folders in it; links that leave it are not followed, and named as unreadable.
        search: how faces are looked for.
        table: CSV file to write, one row per face in order of file names and reading order: COLUMNS, in pixels from the
            top left of the upright picture. It appears when it is complete.
        sheet: picture to draw, PNG or JPEG by its name: up to MOST_CELLS pictures, evenly chosen, with their boxes.
        workers: threads. Decoding and searching let go of Python's lock.
        progress: is told (pictures done, pictures).

    Raises SourceError when there is no picture; OSError when something cannot be written.
    """
    names = list_pictures(folder)
    shown = set(names[:: -(-len(names) // MOST_CELLS)]) if sheet else set()
    unreadable: dict[str, str] = {}
    cells: list[tuple[str, Image.Image]] = []
    found = 0

    def write(temporary: Path) -> None:
        nonlocal found
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(COLUMNS)
            for done, picture in enumerate(search_pictures(folder, names, search, workers, shown), 1):
                name = readable_name(picture.name)
                for face in picture.faces:
                    writer.writerow([name, face.x, face.y, face.w, face.h, face.score, face.detector])
                found += len(picture.faces)
                if picture.problem is not None:
                    unreadable[name] = picture.problem
                if picture.cell is not None:
                    cells.append((name, picture.cell))
                progress(done, len(names))

    write_atomically(table, write)
    if sheet is not None:
        draw_cells(cells, sheet)
    return FaceListing(len(names), found, unreadable)


def search_pictures(
    folder: Path, names: Iterable[str], search: FaceSearch, workers: int = 1, shown: Iterable[str] = ()
) -> Iterator[SearchedPicture]:
    """Search files in several threads; results come in the order of the names, and few are held at a time.

    shown: names for which a small copy with boxes is drawn. OpenCV's own threads rest meanwhile: whole pictures side by
    side keep the cores busier.
    """
    drawn = frozenset(shown)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    waiting: deque[Future[SearchedPicture]] = deque()
    try:
        with ThreadPoolExecutor(workers, thread_name_prefix="faces") as executor:
            try:
                for name in names:
                    waiting.append(executor.submit(search_file, folder, name, search, name in drawn))
                    if len(waiting) >= _AHEAD * workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                executor.shutdown(wait=False, cancel_futures=True)
    finally:
        cv2.setNumThreads(threads)


def search_file(folder: Path, name: str, search: FaceSearch, drawn: bool = False) -> SearchedPicture:
    """The faces of one file; a file that gives no pixels, or cannot be searched, says why: the others go on."""
    try:
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            return SearchedPicture(name, (), LINK_OUTSIDE, None)
        if (size := path.stat().st_size) > MAX_BYTES:
            raise UnreadablePictureError(Defect.TOO_LARGE, f"{size} bytes, at most {MAX_BYTES} are read")
        picture = open_picture(path.read_bytes(), choose_reduction=search.choose_reduction)
        faces = search.find(picture)
        return SearchedPicture(name, tuple(faces), None, draw_boxes(picture, faces) if drawn else None)
    except (OSError, UnreadablePictureError, DetectorError) as error:
        return SearchedPicture(name, (), str(error), None)
    except MemoryError:
        return SearchedPicture(name, (), "the memory is full: try fewer --workers", None)


def draw_boxes(picture: OpenPicture, faces: Iterable[Face]) -> Image.Image:
    """A copy of a picture that fits a cell of the sheet, with the boxes of its faces."""
    height, width = picture.preview.shape[:2]
    factor = min(1.0, _CELL / max(width, height))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = Image.fromarray(np.asarray(cv2.resize(picture.preview, size, interpolation=cv2.INTER_AREA)))
    pen = ImageDraw.Draw(small)
    across, down = small.width / picture.width, small.height / picture.height
    for face in faces:
        corners = (face.x * across, face.y * down, (face.x + face.w) * across - 1, (face.y + face.h) * down - 1)
        left, top, right, bottom = corners
        pen.rectangle((left, top, max(left, right), max(top, bottom)), outline=_INK, width=2)
    return small


def draw_cells(cells: Iterable[tuple[str, Image.Image]], path: Path) -> None:
    """A contact sheet of named small pictures, as PNG or JPEG by the file's name. Raises OSError."""
    with tempfile.TemporaryDirectory() as folder:
        drawn = []
        for number, (name, picture) in enumerate(cells):
            file = Path(folder) / f"{number}.png"
            picture.save(file)
            drawn.append(Cell(file, (Path(name).name,)))
        sheet = draw_sheet(drawn, columns=6, side=_CELL)
    if path.suffix.lower() in (".jpg", ".jpeg"):
        save_sheet(sheet, path)
        return
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    write_bytes(path, buffer.getvalue())
