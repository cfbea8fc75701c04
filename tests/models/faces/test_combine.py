from dataclasses import replace

import pytest

from models.faces.combine import CombinedDetector, match_faces
from models.faces.detector import RGB, Face, Landmark, in_reading_order, iou


class Fixed:
    """A detector that answers what it was given."""

    def __init__(self, name: str, faces: list[Face]) -> None:
        self.name = name
        self.weights = (f"{name} 1",)
        self.faces = faces

    def detect(self, rgb: RGB) -> list[Face]:
        return self.faces


LANDMARKS = (Landmark("nose", 52.0, 60.0),)
A1 = Face(10, 10, 100, 100, 0.9, "a")
A2 = Face(300, 10, 50, 50, 0.6, "a")
B1 = Face(20, 15, 100, 100, 0.8, "b", LANDMARKS)
B2 = Face(500, 400, 80, 80, 0.7, "b", LANDMARKS)


def test_union_keeps_every_face_once() -> None:
    both = CombinedDetector(Fixed("a", [A1, A2]), Fixed("b", [B1, B2]), "union")
    merged = both.merge([A1, A2], [B1, B2])
    assert merged == [A2, Face(20, 15, 100, 100, 0.9, "a+b", LANDMARKS), B2]
    assert both.name == "a+b" and both.weights == ("a 1", "b 1")


def test_agreement_keeps_only_what_both_found() -> None:
    both = CombinedDetector(Fixed("a", [A1, A2]), Fixed("b", [B1, B2]), "agreement")
    assert both.merge([A1, A2], [B1, B2]) == [Face(20, 15, 100, 100, 0.9, "a+b", LANDMARKS)]
    assert both.merge([A2], [B2]) == []


def test_matching_is_one_to_one_and_takes_the_best_overlap_first() -> None:
    near, far = Face(12, 10, 100, 100, 0.5, "b"), Face(40, 10, 100, 100, 0.9, "b")
    assert [(i, j) for i, j, _ in match_faces([A1], [far, near], 0.3)] == [(0, 1)]
    pairs = match_faces([A1, replace(A1, x=45)], [far, near], 0.3)
    assert sorted((i, j) for i, j, _ in pairs) == [(0, 1), (1, 0)]


def test_iou_of_known_boxes() -> None:
    assert iou(A1, A1) == 1.0
    assert iou(A1, replace(A1, x=60)) == pytest.approx(50 / 150)
    assert iou(A1, replace(A1, x=110)) == 0.0


def test_reading_order_goes_down_then_right_by_the_centre() -> None:
    top_right = Face(200, 0, 20, 20, 1.0, "a")
    big_left = Face(0, 0, 100, 100, 1.0, "a")
    low_left = Face(0, 200, 20, 20, 1.0, "a")
    low_right = Face(90, 200, 20, 20, 1.0, "a")
    expected = [top_right, big_left, low_left, low_right]
    assert in_reading_order(reversed(expected)) == expected
