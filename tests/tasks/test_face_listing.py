"""Detection alone: every picture below a folder, in order, whatever lies there."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.errors import SourceError
from models.faces.detector import Face
from tasks import detection, face_listing
from tasks.detection import Detector, FaceSearch
from tasks.face_listing import COLUMNS, list_faces, list_pictures, search_pictures


class CornerDetector:
    """One face in every picture that is not square, two where it is wider than high."""

    name = "corner"
    weights: tuple[str, ...] = ()

    def detect(self, rgb: np.ndarray) -> list[Face]:
        height, width = rgb.shape[:2]
        faces = [Face(1, 2, 30, 31, 0.75, self.name), Face(40, 2, 20, 20, 0.5, self.name)]
        return faces[: (width != height) + (width > height)]


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> FaceSearch:
    monkeypatch.setattr(detection, "load_detector", lambda *arguments: CornerDetector())
    return FaceSearch(Detector.LBP, 24, 1024)


@pytest.fixture
def folder(tmp_path: Path, draw: Callable[..., np.ndarray]) -> Path:
    place = tmp_path / "pictures"
    (place / "sub" / "deep").mkdir(parents=True)
    sizes = {"b.png": (120, 80), "a.jpg": (80, 120), "sub/one, two.png": (90, 90), "sub/deep/c.webp": (100, 70)}
    for seed, (name, size) in enumerate(sizes.items()):
        Image.fromarray(draw(seed, *size)).save(place / name)
    (place / "notes.txt").write_text("no picture")
    (place / "empty.png").write_bytes(b"")
    (place / "sub" / "cut.jpg").write_bytes((place / "a.jpg").read_bytes()[:900])
    return place


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


@pytest.mark.parametrize("workers", [1, 3])
def test_all_pictures_below_a_folder_in_order(folder: Path, search: FaceSearch, tmp_path: Path, workers: int) -> None:
    told: list[tuple[int, int]] = []
    table = tmp_path / "out" / "faces.csv"
    listing = list_faces(folder, search, table, workers=workers, progress=lambda *step: told.append(step))
    assert rows_of(table) == [
        list(COLUMNS),
        ["a.jpg", "1", "2", "30", "31", "0.75", "corner"],
        ["b.png", "1", "2", "30", "31", "0.75", "corner"],
        ["b.png", "40", "2", "20", "20", "0.5", "corner"],
        ["sub/deep/c.webp", "1", "2", "30", "31", "0.75", "corner"],
        ["sub/deep/c.webp", "40", "2", "20", "20", "0.5", "corner"],
    ]
    assert (listing.pictures, listing.faces) == (6, 5)
    assert sorted(listing.unreadable) == ["empty.png", "sub/cut.jpg"]
    assert "zero_byte" in listing.unreadable["empty.png"] and "truncated" in listing.unreadable["sub/cut.jpg"]
    assert told == [(k, 6) for k in range(1, 7)]


def test_names_with_commas_and_line_breaks_come_back(folder: Path, search: FaceSearch, tmp_path: Path) -> None:
    odd = 'odd, "name"\nbroken.png'
    (folder / "b.png").rename(folder / odd)
    list_faces(folder, search, tmp_path / "faces.csv")
    assert odd in {row[0] for row in rows_of(tmp_path / "faces.csv")}


def test_links_that_leave_the_folder_are_named_and_not_read(folder: Path, search: FaceSearch, tmp_path: Path) -> None:
    outside = tmp_path / "secret.png"
    outside.write_bytes((folder / "b.png").read_bytes())
    (folder / "link.png").symlink_to(outside)
    listing = list_faces(folder, search, tmp_path / "faces.csv")
    assert "leaves the source folder" in listing.unreadable["link.png"]
    assert "link.png" not in {row[0] for row in rows_of(tmp_path / "faces.csv")}


def test_a_table_is_there_completely_or_not_at_all(
    folder: Path, search: FaceSearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "faces.csv"
    table.write_text("the old one")

    def fail(self: CornerDetector, rgb: np.ndarray) -> list[Face]:
        raise KeyboardInterrupt

    monkeypatch.setattr(CornerDetector, "detect", fail)
    with pytest.raises(KeyboardInterrupt):
        list_faces(folder, search, table, workers=2)
    assert table.read_text() == "the old one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces.csv", "pictures"]


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_the_sheet_shows_the_boxes(folder: Path, search: FaceSearch, tmp_path: Path, ending: str) -> None:
    sheet = tmp_path / f"faces.{ending}"
    list_faces(folder, search, tmp_path / "faces.csv", sheet)
    with Image.open(sheet) as image:
        assert image.format == {"png": "PNG", "jpg": "JPEG"}[ending]
        pixels = np.asarray(image.convert("RGB")).astype(int)
    red = (pixels[:, :, 0] > 180) & (pixels[:, :, 1] < 90) & (pixels[:, :, 2] < 90)
    assert red.sum() > 5 * 4 * 20 * 0.8  # five boxes of four sides


def test_few_pictures_are_held_and_opencv_keeps_its_threads(
    folder: Path, search: FaceSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[str] = []
    original = face_listing.search_file

    def note(*arguments: object) -> object:
        searched.append(str(arguments[1]))
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(face_listing, "search_file", note)
    before = cv2.getNumThreads()
    results = search_pictures(folder, ["a.jpg", "b.png"] * 40, search, workers=2)
    first = next(results)
    assert first.name == "a.jpg"
    assert len(searched) <= 2 * 4 + 1
    results.close()  # type: ignore[attr-defined]
    assert cv2.getNumThreads() == before
    assert len(searched) <= 2 * 4 + 1


def test_a_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        list_pictures(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="no pictures"):
        list_pictures(tmp_path)
