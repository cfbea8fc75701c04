"""Contact sheets: small enough for a page, and never a crash."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.sheets import (
    Cell,
    Section,
    describe_change,
    draw_sections,
    draw_sheet,
    encode_data_uri,
    load_thumbnail,
    save_sheet,
)


def read_uri(uri: str) -> Image.Image:
    head, body = uri.split(",", 1)
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(body, validate=True)))


@pytest.mark.parametrize("side", [64, 900, 2600])
def test_a_data_uri_is_below_150_kb_even_for_noise(side: int, draw_noise: Callable[..., np.ndarray]) -> None:
    uri = encode_data_uri(Image.fromarray(draw_noise(0, side)))
    assert len(uri) < 150_000
    image = read_uri(uri)
    image.load()
    assert image.width == image.height


def test_a_small_sheet_keeps_its_size_and_its_colours(quarters: np.ndarray) -> None:
    image = read_uri(encode_data_uri(Image.fromarray(quarters)))
    assert image.size == (48, 32)
    assert np.abs(np.asarray(image).astype(int)[4, 4] - quarters[4, 4]).max() < 12


def test_unreadable_pictures_are_blank_cells(tmp_path: Path, draw_noise: Callable[..., np.ndarray]) -> None:
    good = tmp_path / "good.png"
    Image.fromarray(draw_noise(0, 64)).save(good)
    files = {"empty": b"", "text": b"<html>", "cut": good.read_bytes()[:200], "bomb": bomb()}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    paths = [None, tmp_path / "absent", tmp_path, *(tmp_path / name for name in files)]
    cells = [Cell(good, ("good",)), *(Cell(path, ("blank", "why")) for path in paths)]
    sheet = draw_sheet(cells, columns=4)
    assert [load_thumbnail(path, 100) for path in paths] == [None] * len(paths)
    assert sheet.width == 4 * 118 + 6
    assert np.asarray(sheet)[20:100, 20:100].std() > 30  # the good one is there
    assert np.asarray(sheet)[10:50, 130:230].std() < 30


def bomb() -> bytes:
    data = bytearray()
    image = Image.new("1", (1, 1))
    buffer = io.BytesIO()
    image.save(buffer, "BMP")
    data += buffer.getvalue()
    data[18:26] = (60_000).to_bytes(4, "little") * 2
    return bytes(data)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_every_mode_has_a_thumbnail(tmp_path: Path, mode: str, quarters: np.ndarray) -> None:
    image = Image.fromarray(quarters)
    image = Image.fromarray(np.full((32, 48), 999, np.uint16)) if mode == "I;16" else image.convert(mode)
    image.save(tmp_path / "picture.tif")
    thumbnail = load_thumbnail(tmp_path / "picture.tif", 24)
    assert thumbnail is not None
    assert (thumbnail.mode, thumbnail.size) == ("RGB", (24, 16))


def test_tiny_pictures_are_doubled_large_ones_reduced(tmp_path: Path) -> None:
    for size in ((4, 4), (1, 3000)):
        Image.new("RGB", size).save(tmp_path / "picture.png")
        thumbnail = load_thumbnail(tmp_path / "picture.png", 100)
        assert thumbnail is not None
        assert thumbnail.size == ((8, 8) if size == (4, 4) else (1, 100))


@pytest.mark.parametrize("caption", ["x" * 500, "a\nb", "顔箱 ☆", "\x00", "", "…" * 50])
@pytest.mark.parametrize("side", [2, 112])
def test_any_caption_can_be_drawn(caption: str, side: int) -> None:
    sheet = draw_sheet([Cell(None, (caption, caption, "a third line is left out"))], side=side)
    assert sheet.height == side + 2 * 13 + 6 + 6


def test_a_caption_with_a_line_break_stays_in_its_line() -> None:
    broken, plain = (np.asarray(draw_sheet([Cell(None, (text, "why"))])) for text in ("a\nb", "a b"))
    assert np.array_equal(broken, plain)


def test_no_cells_make_an_empty_sheet(tmp_path: Path) -> None:
    save_sheet(draw_sheet([]), tmp_path / "sheets" / "none.jpg")
    assert Image.open(tmp_path / "sheets" / "none.jpg").format == "JPEG"


def test_a_thumbnail_is_never_decoded_by_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments, **named: pytest.fail("Ghostscript was run"))
    path = tmp_path / "evil.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    assert load_thumbnail(path, 64) is None


def test_no_damage_stops_a_thumbnail(tmp_path: Path) -> None:
    import io

    rng = np.random.default_rng(5)
    pixels = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"):
        buffer = io.BytesIO()
        pixels.save(buffer, format=kind)
        for position in rng.integers(0, buffer.tell(), 60):
            damaged = bytearray(buffer.getvalue())
            damaged[position] ^= 0xFF
            path = tmp_path / "damaged"
            path.write_bytes(bytes(damaged))
            thumbnail = load_thumbnail(path, 32)
            assert thumbnail is None or max(thumbnail.size) <= 32


def test_a_mirrored_cell_is_turned_round(tmp_path: Path, quarters: np.ndarray) -> None:
    Image.fromarray(quarters.repeat(2, axis=0)).save(tmp_path / "picture.png")
    path = tmp_path / "picture.png"
    plain, turned = (np.asarray(draw_sheet([Cell(path, mirrored=value)], side=48)) for value in (False, True))
    assert not np.array_equal(plain, turned)
    x0 = (plain.shape[1] - 36) // 2
    picture = plain[6:54, x0 : x0 + 36]
    assert np.array_equal(turned[6:54, x0 : x0 + 36], picture[:, ::-1])


def test_a_picture_is_turned_as_its_exif_says(tmp_path: Path, quarters: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(quarters).save(tmp_path / "picture.jpg", exif=exif, quality=95)
    thumbnail = load_thumbnail(tmp_path / "picture.jpg", 48)
    assert thumbnail is not None
    assert thumbnail.size == (32, 48)
    assert np.abs(np.asarray(thumbnail).astype(int)[4, 28] - quarters[4, 4]).max() < 20


def test_sections_have_headings_and_all_their_cells(tmp_path: Path, draw_noise: Callable[..., np.ndarray]) -> None:
    Image.fromarray(draw_noise(0, 112)).save(tmp_path / "noise.png")
    cell = Cell(tmp_path / "noise.png", describe_change("blur", 52.04, 60, 40))
    sheet = np.asarray(draw_sections([Section("would come in", [cell] * 9), Section("would drop", [cell] * 2)]))
    row = 112 + 2 * 13 + 6
    assert sheet.shape == (6 + 26 + 2 * row + 26 + row, 8 * 118 + 6, 3)
    for top, left, there in ((32, 6, True), (32 + row, 6, True), (32 + row, 124, False), (58 + 2 * row, 124, True)):
        assert (sheet[top : top + 112, left : left + 112].std() > 30) == there
    for top in (6, 32 + 2 * row):
        assert sheet[top : top + 26].min() < 120  # the heading
    assert sheet[32 + 112 : 32 + 112 + 26, 6:118].min() < 120  # the caption


def test_a_section_without_cells_says_so_and_a_long_heading_makes_room() -> None:
    empty = draw_sections([Section("would drop", [])])
    assert empty.height == 6 + 26 + 13 + 6
    wide = draw_sections([Section("would come in: 2 of 340, the nearest shown", [Cell(None)])])
    assert np.asarray(wide)[6:32, -6:].min() == 250  # it ends before the edge
    assert 118 + 6 < wide.width < 500
    assert draw_sections([Section("x" * 1000, [Cell(None)])]).width <= 950
    assert draw_sections([]).width > 0


def test_what_a_changed_threshold_is_called() -> None:
    assert describe_change("blur", 52.0401, 60, 40.0) == ("blur 52.04", "60 -> 40")
    assert describe_change("d_score", 0.12345, None, 0.5) == ("d_score 0.1235", "none -> 0.5")
