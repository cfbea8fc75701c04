import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.faces import animeface
from models.faces.animeface import WINDOW, AnimefaceDetector, draw_test_face
from models.faces.detector import RGB, DetectorError, Face, FaceDetector, iou
from models.faces.lbp import LBPDetector
from models.faces.load import load_detector

PORTRAITS = Path(__file__).parents[4] / "shared" / "data" / "portraits256"


def scene() -> RGB:
    """Two drawn faces, 192 and 120 pixels wide canvases, at known places in a 640 x 400 picture."""
    picture = np.full((400, 640, 3), (225, 235, 245), np.uint8)
    picture[20:212, 30:222] = draw_test_face(192)
    picture[240:360, 470:590] = draw_test_face(120)
    return picture


@pytest.fixture(scope="module")
def portraits() -> list[RGB]:
    """Real drawn heads of 256 pixels (third-party art, so beside the project, not in it)."""
    paths = sorted(PORTRAITS.glob("*.jpg"))[:20]
    if not paths:
        pytest.skip(f"no pictures in {PORTRAITS}")
    pictures = [cv2.imread(str(path)) for path in paths]
    return [np.asarray(picture[..., ::-1].copy(), np.uint8) for picture in pictures if picture is not None]


def test_animeface_finds_drawn_faces_where_they_are() -> None:
    faces = AnimefaceDetector(max_side=None).detect(scene())
    assert len(faces) == 2
    for face, canvas in zip(faces, (Face(30, 20, 192, 192, 1, ""), Face(470, 240, 120, 120, 1, "")), strict=True):
        assert iou(face, canvas) > 0.1
        assert canvas.x < face.x and face.x + face.w < canvas.x + canvas.w
        assert face.score > 0.9 and face.score == round(face.score, 6)
        points = {point.name: point for point in face.landmarks}
        assert list(points) == ["left_eye", "right_eye", "nose", "mouth", "chin"]
        assert points["right_eye"].x < points["nose"].x < points["left_eye"].x  # the character's own sides
        assert points["left_eye"].y < points["nose"].y < points["mouth"].y < points["chin"].y
        # The eyes are drawn at (194, 300) and (318, 300) of 512.
        assert points["right_eye"].x == pytest.approx(canvas.x + canvas.w * 194 / 512, abs=canvas.w * 0.05)
        assert points["left_eye"].x == pytest.approx(canvas.x + canvas.w * 318 / 512, abs=canvas.w * 0.05)
        assert points["left_eye"].y == pytest.approx(canvas.y + canvas.h * 300 / 512, abs=canvas.h * 0.05)


def test_boxes_of_a_reduced_copy_are_scaled_back() -> None:
    small = AnimefaceDetector(max_side=640).detect(scene())
    big = np.kron(scene(), np.ones((3, 3, 1), np.uint8))  # reducing it by 3 gives the scene itself
    faces = AnimefaceDetector(max_side=640).detect(big)
    assert [(3 * f.x, 3 * f.y, 3 * f.w, 3 * f.h, f.score) for f in small] == [
        (f.x, f.y, f.w, f.h, f.score) for f in faces
    ]
    assert [p.x for p in faces[0].landmarks] == [3 * p.x for p in small[0].landmarks]


def test_animeface_leaves_small_faces_out_without_touching_the_others() -> None:
    every = AnimefaceDetector(max_side=None).detect(scene())
    large = AnimefaceDetector(min_size=75, max_side=None).detect(scene())
    assert [face for face in every if face.w >= 75] == large and len(large) == 1


def test_animeface_takes_every_size_of_picture() -> None:
    detector = AnimefaceDetector()
    for height, width in ((1, 1), (2, 500), (500, 2), (31, 33), (42, 42), (43, 44)):
        assert detector.detect(np.full((height, width, 3), 128, np.uint8)) == []


def test_animeface_refuses_when_the_drawn_face_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(animeface, "draw_test_face", lambda: np.zeros((192, 192, 3), np.uint8))
    animeface._load_library.cache_clear()
    with pytest.raises(DetectorError, match="silently find nothing"):
        AnimefaceDetector()
    monkeypatch.undo()
    animeface._load_library.cache_clear()
    AnimefaceDetector()


def test_animeface_refuses_another_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(animeface.metadata, "version", lambda name: "9.9.9")
    animeface._load_library.cache_clear()
    with pytest.raises(DetectorError, match=r"pip install animeface==2\.0\.3"):
        AnimefaceDetector()
    animeface._load_library.cache_clear()


def test_smallest_window_stays_in_the_librarys_sequence() -> None:
    assert animeface._smallest_window(0) == WINDOW
    assert animeface._smallest_window(WINDOW) == WINDOW
    assert animeface._smallest_window(60) == pytest.approx(WINDOW * 1.095**4)


def test_both_detectors_find_real_faces_and_give_the_same_kind_of_box(cascade: str, portraits: list[RGB]) -> None:
    lbp, anime = LBPDetector.load(50), AnimefaceDetector(50)
    found = [(lbp.detect(picture), anime.detect(picture)) for picture in portraits]
    pairs = [(a[0], b[0]) for a, b in found if len(a) == len(b) == 1]
    assert len(pairs) >= 0.8 * len(portraits)
    assert all(0.5 <= a.score < 1 and a.detector == "lbp" and a.landmarks == () for a, _ in pairs)
    assert 0.9 < float(np.median([a.w / b.w for a, b in pairs])) < 1.1
    assert float(np.median([iou(a, b) for a, b in pairs])) > 0.8


def test_lbp_refuses_another_xml() -> None:
    with pytest.raises(DetectorError, match="cannot read"):
        LBPDetector(b"<?xml version='1.0'?><opencv_storage><cascade>nothing</cascade></opencv_storage>")


@pytest.mark.parametrize("mode", ["lbp", "animeface", "union", "agreement"])
def test_threads_find_the_same_faces(cascade: str, mode: str) -> None:
    detector: FaceDetector = load_detector(mode, 24)  # type: ignore[arg-type]
    pictures = [np.roll(scene(), shift, axis=1) for shift in range(0, 60, 15)]
    alone = [detector.detect(picture) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(detector.detect, pictures * 2)) == alone * 2
    if mode in ("animeface", "union"):
        assert all(alone)


def test_cache_key_names_what_was_learned(cascade: str) -> None:
    detector = load_detector("union")
    assert detector.name == "lbp+animeface"
    assert any("sha256:9376d30ac38d" in part for part in detector.weights)
    assert "animeface==2.0.3" in detector.weights


def test_unknown_mode_and_bad_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="union"):
        load_detector("yolo")  # type: ignore[arg-type]
    for bad in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            AnimefaceDetector().detect(bad)  # type: ignore[arg-type]


def test_missing_cascade_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delitem(os.environ, "KAOBAKO_WEIGHTS", raising=False)
    with pytest.raises(RuntimeError, match="kaobako weights fetch lbpcascade-animeface"):
        load_detector("lbp")
