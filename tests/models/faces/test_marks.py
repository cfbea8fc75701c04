import pytest

from models.faces.detector import Face, share_inside
from models.faces.geometry import Box
from models.faces.marks import Marks, count_faces_in, mark_faces


def face(x: int, y: int, w: int, h: int) -> Face:
    return Face(x, y, w, h, 0.9, "test")


def test_a_face_at_any_border_is_cut_and_one_away_from_it_is_not() -> None:
    size = (400, 300)
    touching = [face(0, 100, 100, 100), face(150, 0, 100, 100), face(300, 100, 100, 100), face(150, 200, 100, 100)]
    assert mark_faces(touching, size) == [Marks(cut=True, inside=False)] * 4
    assert mark_faces([face(3, 3, 100, 100), face(297, 197, 100, 100)], size) == [Marks(False, False)] * 2


def test_the_border_is_as_wide_as_rounding_in_a_reduced_copy() -> None:
    assert mark_faces([face(10, 300, 500, 500)], (2000, 2000))[0].cut  # 2 % of 500
    assert not mark_faces([face(11, 300, 500, 500)], (2000, 2000))[0].cut
    assert not mark_faces([face(1, 300, 40, 40)], (2000, 2000))[0].cut  # a pixel is more than 2 % of 40


def test_only_a_smaller_face_within_a_larger_one_is_inside() -> None:
    large, small, beside = face(50, 50, 200, 200), face(100, 100, 50, 50), face(260, 60, 50, 50)
    marks = mark_faces([large, small, beside], (500, 500))
    assert [m.inside for m in marks] == [False, True, False]
    half = face(225, 100, 50, 50)  # half of it
    assert not mark_faces([large, half], (500, 500))[1].inside
    assert mark_faces([large, face(213, 100, 50, 50)], (500, 500))[1].inside is False  # .74
    assert mark_faces([large, face(212, 100, 50, 50)], (500, 500))[1].inside is True  # .76


def test_equal_boxes_do_not_hold_each_other() -> None:
    assert [m.inside for m in mark_faces([face(50, 50, 80, 80)] * 2, (500, 500))] == [False, False]


def test_marks_of_no_faces_and_of_no_picture() -> None:
    assert mark_faces([], (10, 10)) == []
    with pytest.raises(ValueError, match="empty"):
        mark_faces([face(0, 0, 5, 5)], (0, 10))


def test_faces_are_counted_by_their_centres() -> None:
    faces = [face(10, 10, 20, 20), face(90, 10, 20, 20), face(80, 10, 20, 20), face(200, 200, 50, 50)]
    assert count_faces_in(Box(0, 0, 100, 100), faces) == 2  # the centre of the second, 100, lies just outside
    assert count_faces_in(Box(100, 0, 100, 100), faces) == 1
    assert count_faces_in(Box(0, 0, 300, 300), faces) == 4
    assert count_faces_in(Box(0, 0, 300, 300), []) == 0
    odd = [face(0, 0, 5, 5)]  # centre at 2.5
    assert count_faces_in(Box(2, 2, 1, 1), odd) == 1 and count_faces_in(Box(3, 2, 2, 2), odd) == 0


def test_share_inside_of_known_boxes() -> None:
    assert share_inside(face(0, 0, 10, 10), face(5, 0, 100, 100)) == 0.5
    assert share_inside(face(0, 0, 10, 10), face(20, 0, 100, 100)) == 0.0
