import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.faces import animeface, animeface_networks
from models.faces.animeface import AnimefaceDetector, draw_test_face
from models.faces.confirm import SIDE, ConfirmedDetector, cut_piece
from models.faces.detector import RGB, DetectorError, Face, FaceDetector, iou, limit_side, reduce_to_grey
from models.faces.lbp import LBPDetector
from models.faces.load import load_detector

PORTRAITS = Path(__file__).parents[4] / "shared" / "data" / "portraits256"


def scene() -> RGB:
    """Two drawn faces, 192 and 120 pixels wide canvases, at known places in a 640 x 400 picture."""
    picture = np.full((400, 640, 3), (225, 235, 245), np.uint8)
    picture[20:212, 30:222] = draw_test_face(192)
    picture[240:360, 470:590] = draw_test_face(120)
    return picture


def boxes_of(faces: list[Face]) -> list[tuple[int, int, int, int]]:
    return [(f.x, f.y, f.w, f.h) for f in faces]


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
    assert [f.score for f in faces] == [f.score for f in small]
    assert np.abs(3 * np.array(boxes_of(small)) - np.array(boxes_of(faces))).max() <= 3  # rounding
    assert [p.x for p in faces[0].landmarks] == pytest.approx([3 * p.x for p in small[0].landmarks], abs=0.3)


@pytest.mark.parametrize("mode", ["animeface", "union"])
def test_a_face_in_a_long_strip_is_found_as_in_a_short_one(cascade: str, mode: str) -> None:
    face = draw_test_face(400)
    found = []
    for length in (1200, 6000):
        strip = np.full((length, 400, 3), (225, 235, 245), np.uint8)
        strip[500:900] = face
        detector = load_detector(mode, 24, max_side=512)  # type: ignore[arg-type]
        (face_found,) = detector.detect(strip)
        found.append(face_found)
    assert iou(found[0], found[1]) > 0.9


@pytest.mark.parametrize(
    ("size", "side"),
    [((800, 800), 600), ((800, 2400), 600), ((2400, 800), 600), ((800, 4800), 1200), ((8000, 1), 1.6e6)],
)
def test_the_longest_side_grows_with_the_length_of_a_strip(size: tuple[int, int], side: float) -> None:
    assert limit_side(*size, 600) == pytest.approx(side)


def test_a_bar_on_the_size_leaves_small_faces_out_and_finds_the_large_ones_in_a_smaller_copy() -> None:
    every = AnimefaceDetector(max_side=None).detect(scene())
    large = AnimefaceDetector(min_size=70, max_side=None).detect(scene())
    assert len(large) == 1 and iou(large[0], every[0]) > 0.85
    assert [f.w for f in every] == sorted((f.w for f in every), reverse=True) and every[1].w < 70
    big = np.kron(scene(), np.ones((6, 6, 1), np.uint8))
    faces = AnimefaceDetector(min_size=400, max_side=None).detect(big)
    assert len(faces) == 1 and iou(faces[0], Face(*(6 * v for v in boxes_of(every)[0]), 1, "")) > 0.8


@pytest.mark.parametrize("mode", ["lbp", "animeface", "union", "agreement"])
def test_grey_is_enough(cascade: str, portraits: list[RGB], mode: str) -> None:
    detector = load_detector(mode, 24)  # type: ignore[arg-type]
    for picture in portraits[:4]:
        grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
        assert detector.detect(grey) == detector.detect(picture)


def test_animeface_finds_a_face_as_large_as_the_picture() -> None:
    head = draw_test_face(256)[70:230, 50:206]  # the C library's windows end at three quarters of the picture
    faces = AnimefaceDetector().detect(np.ascontiguousarray(head))
    assert len(faces) == 1 and faces[0].w > 0.6 * head.shape[1]


def test_evidence_is_the_bar_and_the_score() -> None:
    face = AnimefaceDetector(max_side=None, evidence=0.5).detect(scene())[0]
    evidence = 0.5 / (2 * (1 - face.score))
    assert evidence > 3
    assert AnimefaceDetector(max_side=None, evidence=evidence - 0.01).detect(scene())[0].score == pytest.approx(
        0.5, abs=0.01
    )
    assert face.x not in [f.x for f in AnimefaceDetector(max_side=None, evidence=evidence + 0.01).detect(scene())]


def test_animeface_takes_every_size_of_picture() -> None:
    detector = AnimefaceDetector()
    for height, width in ((1, 1), (2, 500), (500, 2), (31, 33), (42, 42), (43, 44)):
        assert detector.detect(np.full((height, width, 3), 128, np.uint8)) == []


def test_animeface_refuses_when_the_drawn_face_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(animeface, "draw_test_face", lambda: np.zeros((192, 192, 3), np.uint8))
    animeface._tested_networks.cache_clear()
    with pytest.raises(DetectorError, match="silently find nothing"):
        AnimefaceDetector()
    monkeypatch.undo()
    animeface._tested_networks.cache_clear()
    AnimefaceDetector()


def test_animeface_refuses_another_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(animeface_networks.metadata, "version", lambda name: "9.9.9")
    animeface_networks.load_networks.cache_clear()
    with pytest.raises(DetectorError, match=r"pip install animeface==2\.0\.3"):
        animeface_networks.load_networks()
    monkeypatch.undo()
    animeface_networks.load_networks.cache_clear()


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


def test_agreement_is_animeface_confirmed_by_the_cascade(cascade: str, portraits: list[RGB]) -> None:
    agreement, finder = load_detector("agreement", 24), AnimefaceDetector(24)
    assert agreement.name == "lbp+animeface" and len(agreement.weights) == 2
    both = [(agreement.detect(picture), finder.detect(picture)) for picture in portraits]
    assert sum(len(found) for found, _ in both) >= 0.9 * len(portraits)
    for found, proposed in both:
        assert {(f.x, f.y, f.w, f.score, f.landmarks) for f in found} <= {
            (f.x, f.y, f.w, f.score, f.landmarks) for f in proposed
        }
        assert all(face.detector == "lbp+animeface" for face in found)


def test_the_cascade_does_not_confirm_what_is_no_face_and_confirms_a_tilted_one(
    cascade: str, portraits: list[RGB]
) -> None:
    confirmed = ConfirmedDetector(AnimefaceDetector(), LBPDetector.load())
    upright = next(picture for picture in portraits if len(LBPDetector.load().detect(picture)) == 1)
    face = LBPDetector.load().detect(upright)[0]
    noise = np.random.default_rng(1).integers(0, 256, upright.shape[:2], dtype=np.uint8)
    grey = np.asarray(cv2.cvtColor(upright, cv2.COLOR_RGB2GRAY), np.uint8)
    assert confirmed._confirms(grey, 1.0, face) and not confirmed._confirms(noise, 1.0, face)
    turn = cv2.getRotationMatrix2D((face.x + face.w / 2, face.y + face.h / 2), 25, 1.0)
    tilted = np.asarray(cv2.warpAffine(grey, turn, grey.shape[::-1], borderMode=cv2.BORDER_REPLICATE), np.uint8)
    assert confirmed._confirms(tilted, 1.0, face)


def test_a_piece_holds_the_face_in_its_middle_at_one_size() -> None:
    grey = np.zeros((400, 600), np.uint8)
    grey[100:200, 300:400] = 200
    piece = cut_piece(grey, 1.0, Face(300, 100, 100, 100, 1.0, "test"))
    assert piece.shape == (115, 115)
    inner = np.argwhere(piece > 100)
    assert np.abs(inner.min(axis=0) - (115 - SIDE) / 2).max() <= 1.5
    assert np.abs(inner.max(axis=0) - (115 + SIDE) / 2).max() <= 1.5
    corner = cut_piece(grey[100:, 300:], 1.0, Face(0, 0, 100, 100, 1.0, "test"))  # at the border of the picture
    assert corner.shape == (115, 115) and corner[:50, :50].min() == 200  # repeated outwards
    half = cv2.resize(grey, (300, 200), interpolation=cv2.INTER_AREA)
    again = cut_piece(np.asarray(half, np.uint8), 0.5, Face(300, 100, 100, 100, 1.0, "test"))
    assert np.abs(again.astype(int) - piece).mean() < 8


def test_cache_key_names_what_was_learned(cascade: str) -> None:
    detector = load_detector("union")
    assert detector.name == "lbp+animeface"
    assert any("sha256:9376d30ac38d" in part for part in detector.weights)
    assert "animeface==2.0.3" in detector.weights


def test_unknown_mode_and_bad_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="union"):
        load_detector("yolo")  # type: ignore[arg-type]
    for bad in (np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4))):
        with pytest.raises(ValueError, match="uint8"):
            AnimefaceDetector().detect(bad)  # type: ignore[arg-type]
    for mode in ("onnx", "lbp"):
        with pytest.raises(DetectorError, match="network"):
            load_detector(mode, model=None if mode == "onnx" else Path("face.onnx"))  # type: ignore[arg-type]


def test_missing_cascade_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delitem(os.environ, "KAOBAKO_WEIGHTS", raising=False)
    with pytest.raises(RuntimeError, match="kaobako weights fetch lbpcascade-animeface"):
        load_detector("lbp")


def test_pictures_are_reduced_never_enlarged() -> None:
    picture = np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3)
    assert [reduce_to_grey(picture, side, factor)[1] for side, factor in ((None, 1.0), (None, 3.0), (600, 1.0))] == [
        1.0
    ] * 3
    grey, factor = reduce_to_grey(picture, 30, 0.9)
    assert grey.shape == (20, 30) and factor == 0.5 and grey.dtype == np.uint8
    assert reduce_to_grey(picture, None, 0.25)[0].shape == (10, 15)
    assert reduce_to_grey(picture, None, 1e-9)[0].shape == (1, 1)


def test_lbp_searches_a_smaller_copy_for_larger_faces(cascade: str, portraits: list[RGB]) -> None:
    found = 0
    for picture in portraits:
        big = np.kron(picture, np.ones((4, 4, 1), np.uint8))
        small_faces = LBPDetector.load(60).detect(picture)
        faces = LBPDetector.load(240).detect(big)  # the same bar in the enlarged picture
        assert all(face.w >= 236 for face in faces)
        found += (
            len(small_faces) == len(faces) == 1
            and iou(faces[0], Face(*(4 * v for v in boxes_of(small_faces)[0]), 1, "")) > 0.8
        )
    assert found >= 0.8 * len(portraits)
