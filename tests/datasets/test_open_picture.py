"""A picture that is decoded no further than it is looked at: the same pixels, the same strictness, fewer decodes."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from datasets.pictures import (
    Defect,
    PictureFacts,
    UnreadablePictureError,
    decode_picture,
    encode_png,
    open_picture,
)

Encode = Callable[..., bytes]


def draw(width: int = 203, height: int = 149, seed: int = 0) -> np.ndarray:
    """uint8 (height, width, 3): soft blots, so that a JPEG keeps them, with sizes that are multiples of nothing."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))


def swapped_profile() -> bytes:
    """An sRGB profile whose red and blue primaries have changed places."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return data.replace(b"rXYZ", b"tmpX").replace(b"bXYZ", b"rXYZ").replace(b"tmpX", b"bXYZ")


def save(file_format: str = "JPEG", picture: Image.Image | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (picture or Image.fromarray(draw())).save(buffer, format=file_format, **options)
    return buffer.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


GREY = Image.fromarray(draw()).convert("L")
FILES = {
    "jpeg": save(quality=92),
    "jpeg 4:4:4": save(quality=92, subsampling=0),
    "jpeg progressive": save(progressive=True),
    "jpeg grey": save(picture=GREY),
    "jpeg with a profile": save(icc_profile=swapped_profile()),
    "jpeg with an unusable profile": save(icc_profile=b"no profile"),
    "jpeg restart markers": save(restart_marker_rows=1),
    "jpeg cmyk": save(picture=Image.fromarray(draw()).convert("CMYK")),
    "png": save("PNG"),
    "png alpha": save("PNG", picture=Image.fromarray(np.dstack([draw(), draw(seed=1)[:, :, 0]]), "RGBA")),
    "webp": save("WEBP"),
    # of whole blocks: those of a turned picture would begin with a part of one
    **{f"jpeg turned {k}": save(picture=Image.fromarray(draw(208, 152)), exif=turned(k)) for k in range(2, 9)},
    "png turned": save("PNG", picture=Image.fromarray(draw(208, 152)), exif=turned(6)),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
def test_pieces_have_the_pixels_of_the_whole_picture_whatever_was_reduced(name: str, reduction: int) -> None:
    whole = decode_picture(FILES[name])
    picture = open_picture(FILES[name], choose_reduction=lambda width, height: reduction)
    assert (picture.height, picture.width) == whole.rgb.shape[:2]
    for x, y, w, h in ((0, 0, 17, 31), (40, 23, 64, 64), (picture.width - 9, picture.height - 5, 9, 5)):
        piece = picture.cut(x, y, w, h)
        assert np.array_equal(piece, whole.rgb[y : y + h, x : x + w])
        assert piece.flags["C_CONTIGUOUS"] and piece.flags["OWNDATA"]
    assert np.array_equal(picture.rgb(), whole.rgb)
    assert picture.facts == whole.facts


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_the_preview_is_the_picture_made_smaller(name: str, reduction: int) -> None:
    whole = decode_picture(FILES[name]).rgb
    picture = open_picture(FILES[name], choose_reduction=lambda width, height: reduction)
    height, width = whole.shape[:2]
    assert picture.reduction == reduction
    assert picture.preview.shape == (-(-height // reduction), -(-width // reduction), 3)
    rows, columns = height // reduction, width // reduction  # whole squares
    means = whole[: rows * reduction, : columns * reduction].reshape(rows, reduction, columns, reduction, 3)
    apart = np.abs(picture.preview[:rows, :columns].astype(float) - means.mean(axis=(1, 3)))
    assert apart.mean() < 1.5


@pytest.mark.parametrize(("wanted", "taken"), [(-3, 1), (0, 1), (1, 1), (3, 2), (7, 4), (8, 8), (900, 8)])
def test_a_reduction_that_no_decoder_knows_is_rounded_down(wanted: int, taken: int) -> None:
    asked = []

    def choose(width: int, height: int) -> int:
        asked.append((width, height))
        return wanted

    assert open_picture(FILES["jpeg turned 6"], choose_reduction=choose).reduction == taken
    assert asked == [(152, 208)]


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_a_tiny_picture_is_reduced_to_no_less_than_a_pixel(file_format: str) -> None:
    data = save(file_format, picture=Image.new("RGB", (5, 3), (9, 99, 199)))
    picture = open_picture(data, choose_reduction=lambda *size: 8)
    assert (picture.reduction, picture.preview.shape) == (2, (2, 3, 3))
    assert picture.cut(4, 2, 1, 1).shape == (1, 1, 3)


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (-1, 0, 5, 5), (200, 0, 4, 5), (0, 149, 5, 1)])
def test_a_piece_that_is_not_in_the_picture_is_refused(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="does not lie within"):
        open_picture(FILES["jpeg"], choose_reduction=lambda *size: 4).cut(*box)


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The sizes at which Pillow was asked to decode, one entry per decode."""
    sizes: list[tuple[int, int]] = []
    original = ImageFile.ImageFile.load

    def note(self: ImageFile.ImageFile) -> Any:
        if self.tile:
            sizes.append(self.size)
        return original(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", note)
    return sizes


def test_full_colour_is_decoded_when_a_piece_is_cut_and_as_far_as_it_reaches(decodes: list[tuple[int, int]]) -> None:
    picture = open_picture(FILES["jpeg"], choose_reduction=lambda *size: 8)
    assert decodes == [(26, 19)]
    for place in range(3):
        picture.cut(place, place, 30, 30)
    assert decodes == [(26, 19), (203, 30), (203, 31), (203, 32)]


def test_full_colour_is_decoded_once_when_it_is_known_how_far(decodes: list[tuple[int, int]]) -> None:
    picture = open_picture(FILES["jpeg"], choose_reduction=lambda *size: 8)
    picture.expect(90)
    for place in range(3):
        picture.cut(place, place, 30, 30)
    assert decodes == [(26, 19), (203, 90)]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("bottom", [-5, 0, 1, 7, 8, 60, 148, 149, 5000])
def test_only_the_rows_that_are_expected_are_decoded_and_no_pixel_changes(
    name: str, bottom: int, decodes: list[tuple[int, int]]
) -> None:
    whole = decode_picture(FILES[name]).rgb
    decodes.clear()
    picture = open_picture(FILES[name], choose_reduction=lambda *size: 2)
    picture.expect(bottom)
    rows = min(max(bottom, 1), picture.height)
    for top in sorted({0, rows // 2, rows - 1}):
        assert np.array_equal(picture.cut(3, top, 90, rows - top), whole[top:rows, 3:93])
    full = [size for size in decodes if size[0] > 150]
    assert len(full) == 1
    if name.startswith("jpeg") and "turned" not in name and "cmyk" not in name:
        assert full == [(203, rows)]


def test_a_piece_below_the_expected_rows_is_right_all_the_same(decodes: list[tuple[int, int]]) -> None:
    picture = open_picture(FILES["jpeg"], choose_reduction=lambda *size: 8)
    picture.expect(40)
    picture.cut(0, 0, 20, 30)
    assert np.array_equal(picture.cut(5, 90, 20, 30), decode_picture(FILES["jpeg"]).rgb[90:120, 5:25])
    assert decodes[:3] == [(26, 19), (203, 40), (203, 120)]
    assert np.array_equal(picture.rgb(), decode_picture(FILES["jpeg"]).rgb)


@pytest.mark.parametrize(("name", "reduction"), [("jpeg", 1), ("png", 8), ("jpeg cmyk", 8), ("webp", 4)])
def test_what_cannot_be_reduced_while_decoding_is_decoded_once(
    name: str, reduction: int, decodes: list[tuple[int, int]]
) -> None:
    picture = open_picture(FILES[name], choose_reduction=lambda *size: reduction)
    picture.cut(0, 0, 9, 9)
    assert len(decodes) == 1


def outcome(data: bytes, reduction: int) -> tuple[Defect, str] | None:
    try:
        open_picture(data, choose_reduction=lambda *size: reduction)
    except UnreadablePictureError as error:
        return error.defect, error.detail
    return None


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("jpeg") and "turned" not in name])
@pytest.mark.parametrize("reduction", [2, 8])
def test_a_file_that_ends_early_is_found_without_decoding_it_in_full(name: str, reduction: int) -> None:
    data = FILES[name]
    for length in [*range(1, len(data) - 1, 37), *range(len(data) - 40, len(data) - 1)]:
        assert outcome(data[:length], reduction) is not None, length
        assert outcome(data[:length], reduction) == outcome(data[:length], 1), length


@pytest.mark.parametrize("name", ["jpeg", "jpeg progressive", "jpeg grey", "jpeg restart markers"])
def test_damage_is_judged_alike_on_both_ways(name: str) -> None:
    random = np.random.default_rng(5)
    refused = 0
    for _ in range(300):
        damaged = bytearray(FILES[name])
        for place in random.integers(2, len(damaged), random.integers(1, 4)):
            damaged[place] ^= 1 << int(random.integers(8))
        strict = outcome(bytes(damaged), 1)
        assert outcome(bytes(damaged), 8) == strict
        refused += strict is not None
    assert 5 < refused < 300  # damage of both kinds was tried


def test_a_damaged_file_that_decodes_gives_the_pixels_of_the_strict_way() -> None:
    random = np.random.default_rng(6)
    equal = 0
    for _ in range(60):
        damaged = bytearray(FILES["jpeg"])
        damaged[int(random.integers(len(damaged) // 2, len(damaged) - 2))] ^= 1 << int(random.integers(8))
        if outcome(bytes(damaged), 4) is None:
            picture = open_picture(bytes(damaged), choose_reduction=lambda *size: 4)
            assert np.array_equal(picture.cut(0, 0, 203, 149), decode_picture(bytes(damaged)).rgb)
            equal += 1
    assert equal > 20


# ---- EXIF that says nothing ------------------------------------------------------------------------------------------


def with_chunk(name: bytes, content: bytes, behind: bool) -> bytes:
    """A PNG with a chunk of text or EXIF, before or behind its pixels."""
    data = save("PNG")
    place = data.index(b"IEND" if behind else b"IDAT") - 4
    body = name + content
    return data[:place] + struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body)) + data[place:]


JUNK = {
    "png garbage": save("PNG", exif=b"Exif\0\0GARBAGE"),
    "png zeros": with_chunk(b"eXIf", bytes(30), behind=False),
    "png zeros behind": with_chunk(b"eXIf", bytes(30), behind=True),
    "png raw profile": with_chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 9\nno hexadecimal", behind=False),
    "png raw profile behind": with_chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 9\nno hexadecimal", behind=True),
    "webp garbage": save("WEBP", lossless=True, exif=b"Exif\0\0GARBAGE"),
    "webp zeros": save("WEBP", lossless=True, exif=bytes(30)),
    "png 9": save("PNG", exif=turned(9)),
    "png 0": save("PNG", exif=turned(0)),
    "webp 700": save("WEBP", lossless=True, exif=turned(700)),
}


@pytest.mark.parametrize("name", JUNK)
def test_a_sound_picture_with_unreadable_exif_is_upright(name: str) -> None:
    picture = open_picture(JUNK[name])
    assert not picture.facts.oriented
    assert np.array_equal(picture.rgb(), draw())


@pytest.mark.parametrize("exif", [b"Exif\0\0GARBAGE", b"Exif\0\0" + bytes(30)], ids=["garbage", "zeros"])
@pytest.mark.parametrize("reduction", [1, 4])
def test_a_sound_jpeg_with_unreadable_exif_is_upright(exif: bytes, reduction: int) -> None:
    picture = open_picture(save(quality=92, exif=exif), choose_reduction=lambda *size: reduction)
    assert not picture.facts.oriented
    assert np.array_equal(picture.rgb(), decode_picture(FILES["jpeg"]).rgb)


@pytest.mark.parametrize("name", ["png zeros behind", "png raw profile"])
@pytest.mark.parametrize("damage", ["short", "garbled"])
def test_broken_pixels_are_found_beside_unreadable_exif(name: str, damage: str) -> None:
    """The EXIF is asked for first, and with it the pixels before it are decoded: their error must not get lost."""
    data = JUNK[name]
    place = data.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", data, place)
    pixels = data[place + 8 : place + 8 + length]
    if damage == "short":
        pixels = zlib.compress(zlib.decompress(pixels)[: 149 * 300])
    else:
        pixels = pixels[: length // 2] + b"\xff" * (length - length // 2)
    body = b"IDAT" + pixels
    broken = struct.pack(">I", len(pixels)) + body + struct.pack(">I", zlib.crc32(body))
    assert outcome(data[:place] + broken + data[place + 12 + length :], 1) is not None


# ---- facts -----------------------------------------------------------------------------------------------------------


def facts_of(data: bytes) -> PictureFacts:
    return open_picture(data).facts


@pytest.mark.parametrize(
    ("data", "mode", "bits"),
    [
        (save("PNG"), "RGB", 8),
        (save("PNG", picture=Image.fromarray(np.array([[0, 65535]], np.uint16))), "I;16", 16),
        (save("TIFF", picture=Image.fromarray(np.array([[0, 65535]], np.uint16))), "I;16", 16),
        (save("TIFF"), "RGB", 8),
        (save("PNG", picture=Image.new("1", (9, 9))), "1", 1),
        (save("PNG", picture=Image.fromarray(draw()).quantize(4)), "P", 8),
        (save("GIF", picture=GREY), "P", 8),
        (save(picture=GREY), "L", 8),
    ],
)
def test_mode_and_bits_are_those_of_the_file(data: bytes, mode: str, bits: int) -> None:
    assert (facts_of(data).mode, facts_of(data).bits) == (mode, bits)


def test_bits_of_16_bit_colour_which_pillow_opens_as_8() -> None:
    buffer = cv2.imencode(".png", draw().astype(np.uint16) * 257)[1].tobytes()
    assert (facts_of(buffer).mode, facts_of(buffer).bits) == ("RGB", 16)


def test_transparency_is_averaged_over_the_pixels() -> None:
    alpha = np.full((10, 10), 255, np.uint8)
    alpha[:5] = 0
    alpha[5:, :5] = 51
    data = save("PNG", picture=Image.fromarray(np.dstack([draw(10, 10), alpha]), "RGBA"))
    assert facts_of(data).alpha_share == pytest.approx(0.5 + 0.25 * 0.8)
    assert facts_of(save("PNG")).alpha_share == 0


def test_quality_is_estimated_for_jpegs_alone() -> None:
    assert [facts_of(save(quality=quality)).jpeg_quality for quality in (50, 75, 95)] == pytest.approx(
        [50, 75, 95], abs=1
    )
    assert facts_of(save("PNG")).jpeg_quality is None


def test_facts_as_columns_are_named_as_in_the_tables() -> None:
    columns = facts_of(FILES["jpeg turned 6"]).as_columns()
    assert columns["true_format"] == "JPEG"
    assert columns["oriented"] is True
    assert "format" not in columns


def test_pages_and_frames() -> None:
    pages = save("TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9))])
    assert facts_of(pages).frames == 2
    animation = save("GIF", picture=GREY, save_all=True, append_images=[Image.new("L", GREY.size)], duration=40)
    with pytest.raises(UnreadablePictureError) as caught:
        open_picture(animation)
    assert caught.value.defect is Defect.ANIMATED
    assert caught.value.said == {"true_format": "GIF", "mode": "P", "bits": 8, "frames": 2}


def test_a_file_that_breaks_off_still_says_what_its_header_says() -> None:
    data = FILES["jpeg"]
    with pytest.raises(UnreadablePictureError) as caught:
        open_picture(data[: len(data) // 2] + b"\xff\xd9"[:1])
    assert caught.value.said == {}  # not even opened: it has no end marker
    exif = Image.Exif()
    exif[0x927C] = save(picture=Image.new("RGB", (8, 8)))  # a JPEG with an end marker of its own, in the header
    data = save(exif=exif)
    with pytest.raises(UnreadablePictureError) as caught:
        open_picture(data[: len(data) * 3 // 4], choose_reduction=lambda *size: 4)
    assert caught.value.defect is Defect.TRUNCATED
    assert caught.value.said["true_format"] == "JPEG"


# ---- blobs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 700, 3), (700, 1, 3), (149, 203, 3)])
def test_blobs_of_any_shape_come_back_exactly(shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(decode_picture(encode_png(pixels)).rgb, pixels)
    assert encode_png(pixels) == encode_png(np.asfortranarray(pixels))


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_picture_becomes_no_blob(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        encode_png(bad)
