"""Looking for faces: how far a picture is reduced, and that boxes come back in its own pixels."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets.pictures import OpenPicture, open_picture
from models.faces.detector import Face, Landmark
from tasks import detection
from tasks.detection import Detector, FaceSearch


class SpotDetector:
    """Finds the dark pixels of a picture: their bounding box, with a landmark in its corner."""

    name = "spot"
    weights: tuple[str, ...] = ()

    def __init__(self, mode: str, min_size: int, folders: Sequence[Path], max_side: int) -> None:
        self.settings = (mode, min_size, max_side)

    def detect(self, rgb: np.ndarray) -> list[Face]:
        rows, columns = np.nonzero(rgb[:, :, 1] < 100)
        if not len(rows):
            return []
        x, y = int(columns.min()), int(rows.min())
        w, h = int(columns.max()) + 1 - x, int(rows.max()) + 1 - y
        return [Face(x, y, w, h, 0.5, self.name, (Landmark("chin", float(x), float(y)),))]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The settings of every detector that was built."""
    settings: list[tuple[Any, ...]] = []

    def load(*arguments: Any) -> SpotDetector:
        made = SpotDetector(*arguments)
        settings.append(made.settings)
        return made

    monkeypatch.setattr(detection, "load_detector", load)
    return settings


def spot(width: int, height: int, box: tuple[int, int, int, int]) -> bytes:
    picture = np.full((height, width, 3), 230, np.uint8)
    x, y, w, h = box
    picture[y : y + h, x : x + w] = 20
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("detector", "search_face", "size", "reduction"),
    [
        ("lbp", 32, (2000, 2000), 1),
        ("lbp", 144, (2000, 2000), 8),
        ("lbp", 143, (2000, 2000), 7),  # open_picture takes 4
        ("animeface", 156, (2000, 2000), 3),
        ("union", 104, (2000, 2000), 2),
        ("agreement", 52, (2000, 2000), 1),
        ("onnx", 96, (2000, 2000), 4),
        ("lbp", 24, (3000, 9000), 8),  # searched at 1024 pixels anyway
        ("lbp", 24, (1024, 9000), 3),  # a strip is searched at 341 across
        ("lbp", 24, (9000, 1024), 3),
        ("union", 24, (2048, 1500), 2),
        ("lbp", 2048, (2000, 300), 2),  # at least 128 pixels stay
        ("lbp", 2048, (90, 90), 1),
    ],
)
def test_reduction_by_the_smallest_face_or_the_size_of_the_search(
    built: list[Any], detector: str, search_face: int, size: tuple[int, int], reduction: int
) -> None:
    model = Path("x.onnx") if detector == "onnx" else None
    if model is not None:
        with pytest.raises(TypeError, match="model"):
            FaceSearch(Detector.ONNX, search_face, 1024, model=model)
        model = None
    assert FaceSearch(Detector(detector), search_face, 1024, model=model).choose_reduction(*size) == reduction


@pytest.mark.parametrize(("search_face", "reduction"), [(24, 1), (36, 2), (72, 4), (144, 8)])
def test_boxes_are_in_pixels_of_the_picture(built: list[Any], search_face: int, reduction: int) -> None:
    search = FaceSearch(Detector.LBP, search_face, 4096)
    picture = open_picture(spot(1203, 1101, (400, 320, 160, 240)), choose_reduction=search.choose_reduction)
    assert picture.reduction == reduction
    (face,) = search.find(picture)
    assert (face.x, face.y, face.w, face.h) == (400, 320, 160, 240)
    assert face.landmarks == (Landmark("chin", 400.0, 320.0),)
    assert built[-1] == ("lbp", round(search_face / reduction), 4096)


def test_a_box_at_the_far_edge_stays_within_the_picture(built: list[Any]) -> None:
    search = FaceSearch(Detector.LBP, 144, 4096)
    picture = open_picture(spot(1203, 1101, (1200, 1080, 3, 21)), choose_reduction=search.choose_reduction)
    (face,) = search.find(picture)
    assert face.x + face.w == 1203 and face.y + face.h == 1101


def test_a_detector_is_built_once_for_each_reduction_also_from_threads(built: list[Any]) -> None:
    search = FaceSearch(Detector.LBP, 144, 4096)
    assert len(built) == 1  # settings that cannot be used show at once
    pictures: list[OpenPicture] = [
        open_picture(spot(side, side, (side // 2, side // 2, 80, 80)), choose_reduction=search.choose_reduction)
        for side in (130, 600, 1200) * 4
    ]
    with ThreadPoolExecutor(4) as executor:
        found = list(executor.map(search.find, pictures))
    assert len(built) == 3
    assert found == [search.find(picture) for picture in pictures]


def test_a_reduced_picture_gives_the_faces_of_the_whole_one(draw_face: Callable[[], np.ndarray]) -> None:
    """With the real detector, on a drawn face."""
    large = Image.fromarray(draw_face()).resize((1600, 1600), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    large.save(buffer, "JPEG", quality=92)
    found = []
    for search_face in (40, 500):
        search = FaceSearch(Detector.ANIMEFACE, search_face, 1024)
        picture = open_picture(buffer.getvalue(), choose_reduction=search.choose_reduction)
        found.append((picture.reduction, search.find(picture)))
    assert [reduction for reduction, _ in found] == [1, 8]
    (one,), (other,) = (faces for _, faces in found)
    assert max(abs(one.x - other.x), abs(one.y - other.y), abs(one.w - other.w)) < 0.12 * one.w


@pytest.fixture
def draw_face() -> Callable[[], np.ndarray]:
    from models.faces.animeface import draw_test_face

    return draw_test_face
