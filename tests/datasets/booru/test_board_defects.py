"""Each planted kind is what its name says, as an independent reader (Pillow, zlib, json) sees it."""

import json
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, UnidentifiedImageError

from datasets.booru.board import BoardSummary
from datasets.booru.defects import KINDS

Find = Callable[[str], tuple[dict, Path | None]]


@pytest.fixture(scope="module")
def find(board: BoardSummary, truth: list[dict]) -> Find:
    """The truth of the first post of a kind, and its file."""

    def first(kind: str) -> tuple[dict, Path | None]:
        row = next(r for r in truth if r["kind"] == kind)
        return row, board.path / row["path"] if row["path"] else None

    return first


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def crop(row: dict, path: Path, which: int = 0) -> np.ndarray:
    face = row["faces"][which]
    x, y, w, h = (round(max(0.0, face[k])) for k in "xywh")
    return pixels(path)[y : y + h, x : x + w]


def chroma(rgb: np.ndarray) -> float:
    wide = rgb.astype(int)
    return float((wide.max(axis=2) - wide.min(axis=2)).mean())


def test_the_board_has_every_kind(truth: list[dict]) -> None:
    assert {row["kind"] for row in truth} == {"plain", *(kind.name for kind in KINDS)}


def test_byte_copy_is_equal(board: BoardSummary, truth: list[dict]) -> None:
    paths = {row["post_id"]: row["path"] for row in truth}
    for row in truth:
        if row["kind"] == "byte_copy":
            assert (board.path / row["path"]).read_bytes() == (board.path / paths[row["original"]]).read_bytes()


@pytest.mark.parametrize("kind", ["reencoded_copy", "resized_copy", "cropped_copy", "mirrored_copy"])
def test_near_copies_show_the_same_face(board: BoardSummary, truth: list[dict], find: Find, kind: str) -> None:
    row, path = find(kind)
    original = next(r for r in truth if r["post_id"] == row["original"])
    source = board.path / original["path"]
    assert path.read_bytes() != source.read_bytes()
    assert {f["face_id"] for f in row["faces"]} == {f["face_id"] for f in original["faces"]}
    same = next(k for k, f in enumerate(original["faces"]) if f["face_id"] == row["faces"][0]["face_id"])
    copy, first = crop(row, path), crop(original, source, same)
    copy = copy[:, ::-1] if kind == "mirrored_copy" else copy
    small = [cv2.resize(c, (48, 48), interpolation=cv2.INTER_AREA).astype(int) for c in (copy, first)]
    assert np.abs(small[0] - small[1]).mean() < 8


def test_greys_have_no_colour_and_sepia_one_hue(find: Find) -> None:
    row, path = find("grey")
    assert Image.open(path).mode == "L"
    row, path = find("rgb_grey")
    assert Image.open(path).mode == "RGB"
    assert chroma(pixels(path)) < 1.5
    row, path = find("sepia")
    toned = crop(row, path).astype(int)
    assert chroma(pixels(path)) > 15
    assert (toned[..., 0] >= toned[..., 2] - 2).mean() > 0.99


def test_few_colours_and_blur(find: Find) -> None:
    row, path = find("few_colours")
    assert len(np.unique(crop(row, path).reshape(-1, 3), axis=0)) <= 16
    assert Image.open(path).mode == "RGB"
    sharpness = {}
    for kind in ("blurred", "plain"):
        row, path = find(kind)
        face = cv2.resize(crop(row, path), (256, 256), interpolation=cv2.INTER_AREA)
        sharpness[kind] = cv2.Laplacian(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var()
    assert sharpness["blurred"] < 0.2 * sharpness["plain"]


def test_tiny(find: Find) -> None:
    row, path = find("tiny")
    assert max(Image.open(path).size) <= 250
    assert 14 <= max(face["w"] for face in row["faces"]) <= 32


def test_truncated_and_empty_and_page_cannot_be_read(find: Find) -> None:
    with pytest.raises(OSError, match="truncated"):
        pixels(find("truncated")[1])
    assert find("zero_byte")[1].stat().st_size == 0
    for kind in ("zero_byte", "not_an_image"):
        with pytest.raises(UnidentifiedImageError):
            pixels(find(kind)[1])


def test_crc_error_is_in_the_pixels_only(find: Find) -> None:
    data = find("crc_error")[1].read_bytes()
    bad, place = [], 8
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        name, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        (claimed,) = struct.unpack(">I", data[place + 8 + length : place + 12 + length])
        if zlib.crc32(name + body) != claimed:
            bad.append(name)
        place += 12 + length
    assert bad == [b"IDAT"]


def test_bomb_is_small_and_promises_much(find: Find, rows: dict[str, dict]) -> None:
    row, path = find("decompression_bomb")
    assert path.stat().st_size < 2000
    with pytest.raises(Image.DecompressionBombError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.open(path)
    assert rows[row["post_id"]]["image_width"] < 2000


@pytest.mark.parametrize(
    ("kind", "form", "mode"),
    [
        ("wrong_extension", "PNG", "RGB"),
        ("cmyk", "JPEG", "CMYK"),
        ("palette", "PNG", "P"),
        ("alpha", "PNG", "RGBA"),
        ("animated_gif", "GIF", "P"),
        ("heavy_jpeg", "JPEG", "RGB"),
        ("icc_tagged", "JPEG", "RGB"),
    ],
)
def test_format_and_mode(find: Find, kind: str, form: str, mode: str) -> None:
    with Image.open(find(kind)[1]) as image:
        assert (image.format, image.mode) == (form, mode)
        assert getattr(image, "n_frames", 1) == (3 if kind == "animated_gif" else 1)
        assert ("icc_profile" in image.info) == (kind == "icc_tagged")


def test_wrong_extension_says_jpg(find: Find, rows: dict[str, dict]) -> None:
    row, path = find("wrong_extension")
    assert path.suffix == ".jpg"
    assert rows[row["post_id"]]["file_ext"] == "jpg"


def test_alpha_is_opaque_on_faces_and_clear_elsewhere(find: Find) -> None:
    row, path = find("alpha")
    cover = np.asarray(Image.open(path))[..., 3]
    face = row["faces"][0]
    assert cover[round(face["y"] + face["h"] / 2), round(face["x"] + face["w"] / 2)] == 255
    assert (cover == 0).mean() > 0.1


def test_sixteen_bit(find: Find) -> None:
    data = find("sixteen_bit")[1].read_bytes()
    assert data[24] == 16  # bit depth in IHDR


def test_exif_rotated_needs_its_orientation(find: Find) -> None:
    row, path = find("exif_rotated")
    with Image.open(path) as image:
        assert image.getexif()[0x0112] in (3, 6, 8)
        assert ImageOps.exif_transpose(image).size == (row["width"], row["height"])


def test_ratings_and_flags(find: Find, rows: dict[str, dict]) -> None:
    assert rows[find("explicit")[0]["post_id"]]["rating"] == "e"
    assert rows[find("questionable")[0]["post_id"]]["rating"] == "q"
    assert rows[find("plain")[0]["post_id"]]["rating"] == "s"
    assert rows[find("deleted")[0]["post_id"]]["is_deleted"] is True
    assert rows[find("banned")[0]["post_id"]]["is_banned"] is True


def test_rows_and_files_that_lack_each_other(board: BoardSummary, find: Find, rows: dict[str, dict]) -> None:
    row, path = find("missing_file")
    assert path is None
    assert row["post_id"] in rows
    assert not list((board.path / "original").rglob(f"{row['post_id']}.*"))
    for kind in ("orphan_file", "broken_json"):
        row, path = find(kind)
        assert path.exists()
        assert row["post_id"] not in rows
    lines = [line for p in (board.path / "metadata").iterdir() for line in p.read_text().splitlines()]
    broken = [line for line in lines if not _is_json(line)]
    assert len(broken) == 1
    assert find("broken_json")[0]["post_id"] in broken[0]


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def test_path_escape_leads_to_the_bait(board: BoardSummary, find: Find, rows: dict[str, dict]) -> None:
    row, bait = find("path_escape")
    naive = (
        f"{board.path}/original/{int(row['post_id']) % 1000:04d}/{row['post_id']}.{rows[row['post_id']]['file_ext']}"
    )
    assert ".." in naive
    assert Path(naive.replace(f"{row['post_id']}./../", "")).resolve() == bait.resolve()
    assert bait.exists()


def test_pictures_without_people_have_no_faces(find: Find) -> None:
    for kind in ("no_face", "fools_detector"):
        row, path = find(kind)
        assert row["faces"] == []
        assert pixels(path).std() > 5
