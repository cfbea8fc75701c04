"""The coarse search finds what the plain one finds, once, and at its place."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from models.faces.animeface import draw_test_face
from models.faces.lbp_search import NEIGHBOURS, search_cascade
from models.weights import read_weight


@pytest.fixture(scope="module")
def classifier(cascade: str) -> cv2.CascadeClassifier:
    made = cv2.CascadeClassifier()
    xml = read_weight(cascade, ()).decode("ascii")
    storage = cv2.FileStorage(xml, cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
    assert made.read(storage.getFirstTopLevelNode())
    return made


def scene(*places: tuple[int, int, int]) -> np.ndarray:
    """Drawn faces of (x, y, side) on a grey ground: uint8 (600, 900)."""
    picture = np.full((600, 900), 215, np.uint8)
    for x, y, side in places:
        face = cv2.cvtColor(draw_test_face(side), cv2.COLOR_RGB2GRAY)
        picture[y : y + side, x : x + side] = face
    return picture


PLACES = ((20, 30, 70), (150, 40, 160), (400, 60, 420))


@pytest.mark.parametrize("smallest", [24.0, 30.5])
def test_faces_of_all_sizes_are_found_once_and_in_place(classifier: cv2.CascadeClassifier, smallest: float) -> None:
    found = search_cascade(classifier, scene(*PLACES), smallest)
    assert len(found) == 3
    for (x, y, w, h), hits in found:
        assert hits >= NEIGHBOURS
        owners = [
            (px, py, side)
            for px, py, side in PLACES
            if px < x + w / 2 < px + side and py < y + h / 2 < py + side and 0.3 * side < w < 1.1 * side
        ]
        assert len(owners) == 1


def test_nothing_below_the_smallest_box_is_found(classifier: cv2.CascadeClassifier) -> None:
    boxes = [box for box, _ in search_cascade(classifier, scene(*PLACES), 100.0)]
    assert boxes and min(box[2] for box in boxes) >= 70  # the second look may begin at .7 of a candidate
    x, y, side = PLACES[0]
    assert not any(x < box[0] + box[2] / 2 < x + side and y < box[1] + box[3] / 2 < y + side for box in boxes)


@pytest.mark.parametrize("shape", [(1, 1), (10, 500), (24, 24), (23, 400)])
def test_a_picture_too_small_for_a_face_holds_none(classifier: cv2.CascadeClassifier, shape: tuple[int, int]) -> None:
    assert search_cascade(classifier, np.full(shape, 128, np.uint8), 24.0) == []


def test_the_answer_is_always_the_same(classifier: cv2.CascadeClassifier) -> None:
    assert search_cascade(classifier, scene(*PLACES), 24.0) == search_cascade(classifier, scene(*PLACES), 24.0)
