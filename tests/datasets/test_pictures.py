"""Pictures from outside: every defect by its name, every odd but good file to the right pixels."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageCms

from datasets.pictures import Defect, UnreadablePictureError, decode_picture, encode_png

Encode = Callable[..., bytes]


def defect_of(data: bytes) -> Defect:
    with pytest.raises(UnreadablePictureError) as caught:
        decode_picture(data)
    assert caught.value.detail
    return caught.value.defect


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, bits: int, kind: int, rows: bytes) -> bytes:
    """A PNG made by hand; rows: with the filter byte before each."""
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


# ---- defects ---------------------------------------------------------------------------------------------------------


def test_empty_file_is_zero_byte() -> None:
    assert defect_of(b"") is Defect.ZERO_BYTE


@pytest.mark.parametrize("data", [b"<html>404 Not Found</html>", b"\x00", b"%PDF-1.4", b"GIF", b"\xff\xd8"])
def test_what_is_no_picture_is_called_so(data: bytes) -> None:
    assert defect_of(data) is Defect.NOT_A_PICTURE


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_file_that_was_cut_in_its_middle_gives_no_pixels(
    file_format: str, quarters: np.ndarray, encode: Encode
) -> None:
    data = encode(quarters, file_format)
    assert decode_picture(data).rgb.shape == quarters.shape
    assert defect_of(data[: len(data) // 2]) is Defect.TRUNCATED or file_format in ("TIFF", "BMP", "GIF")


@pytest.mark.parametrize("left", [9, 20, 40])
def test_a_png_cut_in_its_header_is_truncated_not_an_unknown_format(
    left: int, quarters: np.ndarray, encode: Encode
) -> None:
    assert defect_of(encode(quarters, "PNG")[:left]) is Defect.TRUNCATED


def test_a_jpeg_is_truncated_although_its_thumbnail_has_an_end_marker(quarters: np.ndarray, encode: Encode) -> None:
    exif = Image.Exif()
    exif[0x927C] = encode(quarters, "JPEG")  # a whole JPEG, end marker included, inside the header
    data = encode(quarters, "JPEG", exif=exif)
    for length in range(len(data) - 2):
        assert defect_of(data[:length])


def test_wrong_checksum_of_image_data(draw_noise: Callable[..., np.ndarray], encode: Encode) -> None:
    data = bytearray(encode(draw_noise(0), "PNG", compress_level=0))
    place = data.index(b"IDAT") + 100
    data[place] ^= 1
    assert defect_of(bytes(data)) is Defect.BAD_CHECKSUM


def test_wrong_checksum_of_the_header(quarters: np.ndarray, encode: Encode) -> None:
    data = bytearray(encode(quarters, "PNG"))
    data[19] ^= 1  # the width's last byte
    assert defect_of(bytes(data)) is Defect.BAD_CHECKSUM


def test_bomb_is_refused_by_its_header() -> None:
    assert defect_of(png(50_000, 50_000, 8, 2, b"\0")) is Defect.BOMB


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_header_is_refused_where_pillow_would_only_warn() -> None:
    assert defect_of(png(11_000, 11_000, 8, 0, b"\0")) is Defect.BOMB


def test_honest_sizes_are_below_the_limit(monkeypatch: pytest.MonkeyPatch, quarters: np.ndarray) -> None:
    monkeypatch.setattr("datasets.pictures.checks.MAX_PIXELS", 32 * 48)
    assert decode_picture(encode_png(quarters)).rgb.shape == (32, 48, 3)
    monkeypatch.setattr("datasets.pictures.checks.MAX_PIXELS", 32 * 48 - 1)
    assert defect_of(encode_png(quarters)) is Defect.BOMB


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG"])
def test_animations(file_format: str, draw_noise: Callable[..., np.ndarray], encode: Encode) -> None:
    frames = [Image.fromarray(draw_noise(k)) for k in range(3)]
    data = encode(frames[0], file_format, save_all=True, append_images=frames[1:], duration=40)
    assert defect_of(data) is Defect.ANIMATED


def test_a_still_gif_is_no_animation(quarters: np.ndarray, encode: Encode) -> None:
    assert np.array_equal(decode_picture(encode(quarters, "GIF")).rgb, quarters)


def test_an_animation_whose_second_frame_is_broken_is_an_unreadable_picture(
    draw_noise: Callable[..., np.ndarray], encode: Encode
) -> None:
    frames = [Image.fromarray(draw_noise(k)) for k in range(3)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=40)
    second = data.rindex(b"\x2c", 0, len(data) // 2 + 40)  # an image descriptor
    for length in range(second, second + 12):
        assert defect_of(data[:length])


# ---- odd but good ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "GIF"])
def test_lossless_formats_give_their_pixels(file_format: str, quarters: np.ndarray, encode: Encode) -> None:
    picture = decode_picture(encode(quarters, file_format))
    assert np.array_equal(picture.rgb, quarters)
    assert picture.facts.format == file_format


def test_cmyk_jpeg(quarters: np.ndarray, encode: Encode) -> None:
    cmyk = np.array([[[0, 255, 255, 0], [255, 0, 255, 0]], [[255, 255, 0, 0], [0, 0, 0, 255]]], np.uint8)
    image = Image.fromarray(cmyk.repeat(16, axis=0).repeat(16, axis=1), mode="CMYK")
    picture = decode_picture(encode(image, "JPEG", quality=98))
    assert picture.facts.mode == "CMYK"
    corners = picture.rgb[[4, 4, -4, -4], [4, -4, 4, -4]].astype(int)
    assert np.abs(corners - [[255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0]]).max() < 8


def test_palette_with_a_transparent_colour(encode: Encode) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (4, 0, 8, 8))
    data = encode(image, "PNG", transparency=0)
    assert decode_picture(data).rgb[0, [0, 7]].tolist() == [[255, 255, 255], [200, 100, 50]]
    assert decode_picture(data, background=(1, 2, 3)).rgb[0, 0].tolist() == [1, 2, 3]


def test_half_transparent_pixels_lie_on_the_background(encode: Encode) -> None:
    image = Image.new("RGBA", (4, 4), (200, 0, 0, 128))
    assert np.abs(decode_picture(encode(image, "PNG")).rgb[0, 0].astype(int) - [227, 127, 127]).max() <= 1
    assert np.abs(decode_picture(encode(image, "PNG"), (0, 0, 0)).rgb[0, 0].astype(int) - [100, 0, 0]).max() <= 1


def test_the_colour_under_full_transparency_does_not_show(encode: Encode) -> None:
    image = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    assert (decode_picture(encode(image, "PNG")).rgb == 255).all()


def test_grey_with_alpha(encode: Encode) -> None:
    image = Image.merge("LA", (Image.new("L", (4, 4), 40), Image.linear_gradient("L").resize((4, 4))))
    image.putpixel((0, 0), (40, 0))
    image.putpixel((3, 3), (40, 255))
    rgb = decode_picture(encode(image, "PNG")).rgb
    assert (rgb[0, 0].tolist(), rgb[3, 3].tolist()) == ([255] * 3, [40] * 3)


def test_transparent_colour_of_an_rgb_png(quarters: np.ndarray, encode: Encode) -> None:
    rgb = decode_picture(encode(quarters, "PNG", transparency=(200, 30, 40))).rgb
    assert (rgb[0, 0].tolist(), rgb[0, -1].tolist()) == ([255, 255, 255], [20, 180, 60])


def test_transparent_grey_of_16_bits_is_that_grey_alone() -> None:
    """Its neighbours have the same eight bits, and stay."""
    row = b"\0" + np.array([32896, 32897, 32895, 0], ">u2").tobytes()
    data = png(4, 1, 16, 0, row)
    place = data.index(b"IDAT") - 4
    clear = data[:place] + chunk(b"tRNS", struct.pack(">H", 32896)) + data[place:]
    assert decode_picture(clear, background=(9, 8, 7)).rgb[0].tolist() == [[9, 8, 7], [128] * 3, [128] * 3, [0] * 3]
    assert decode_picture(clear).facts.alpha_share == pytest.approx(0.25)


def test_every_grey_of_16_bits_is_rounded_to_the_nearest(encode: Encode) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(64, 1024)
    wanted = (values.astype(np.int64) * 255 + 32767) // 65535
    for file_format in ("PNG", "TIFF"):
        assert np.array_equal(decode_picture(encode(Image.fromarray(values), file_format)).rgb[..., 1], wanted)


@pytest.mark.parametrize(
    ("values", "grey"),
    [
        ([0, 128, 255, -7], [0, 128, 255, 0]),
        ([0, 257, 32896, 65535], [0, 1, 128, 255]),
        ([0, 65535, 2**30, 2**31 - 1], [0, 0, 128, 255]),
    ],
)
def test_grey_of_32_bits_by_the_scale_that_its_brightest_value_needs(
    values: list[int], grey: list[int], encode: Encode
) -> None:
    data = encode(Image.fromarray(np.array([values], np.int32)), "TIFF")
    assert decode_picture(data).rgb[0, :, 0].tolist() == grey


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_what_is_no_number_is_black(encode: Encode) -> None:
    values = np.array([[np.nan, np.inf, -np.inf, 99.6, 300]], np.float32)
    data = encode(Image.fromarray(values), "TIFF")
    assert decode_picture(data).rgb[0, :, 0].tolist() == [0, 255, 0, 100, 255]


def test_a_large_grey_of_16_bits_takes_no_array_of_floats(encode: Encode) -> None:
    data = encode(Image.fromarray(np.full((2000, 2000), 32896, np.uint16)), "PNG")
    decode_picture(data)
    tracemalloc.start()
    assert decode_picture(data).rgb[1999, 1999, 2] == 128
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 7 * 4_000_000  # grey, RGB and a strip


def test_grey_of_16_bits_is_scaled_not_clipped(encode: Encode) -> None:
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    assert decode_picture(encode(Image.fromarray(values), "PNG")).rgb[0, :, 0].tolist() == [0, 1, 128, 255]
    assert decode_picture(encode(Image.fromarray(values), "TIFF")).rgb[0, :, 0].tolist() == [0, 1, 128, 255]


def test_rgb_of_16_bits() -> None:
    row = b"\0" + np.array([[65535, 32896, 0], [257, 514, 771]], ">u2").tobytes()
    assert decode_picture(png(2, 1, 16, 2, row)).rgb[0].tolist() == [[255, 128, 0], [1, 2, 3]]


def test_one_bit(encode: Encode) -> None:
    image = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert("1")
    rgb = decode_picture(encode(image, "PNG")).rgb
    assert rgb.tolist() == [[[0] * 3, [255] * 3], [[255] * 3, [0] * 3]]


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, file_format: str, quarters: np.ndarray, encode: Encode) -> None:
    stored = {
        1: quarters,
        2: quarters[:, ::-1],
        3: quarters[::-1, ::-1],
        4: quarters[::-1],
        5: quarters.transpose(1, 0, 2),
        6: np.rot90(quarters, 1),
        7: quarters[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(quarters, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 98, "subsampling": 0} if file_format == "JPEG" else {"lossless": True}
    data = encode(np.ascontiguousarray(stored), file_format, exif=exif, **(options if file_format != "PNG" else {}))
    picture = decode_picture(data)
    assert picture.rgb.shape == quarters.shape
    assert np.abs(picture.rgb.astype(int) - quarters).max() <= 10
    assert picture.facts.oriented == (orientation != 1)


def lab_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def swapped_profile() -> bytes:
    """An sRGB profile whose red and blue primaries have changed places: wrong colours unless it is applied."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return data.replace(b"rXYZ", b"tmpX").replace(b"bXYZ", b"rXYZ").replace(b"tmpX", b"bXYZ")


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA"])
def test_icc_profile_changes_colours(mode: str, quarters: np.ndarray, encode: Encode) -> None:
    image = Image.fromarray(quarters)
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    picture = decode_picture(encode(image, "PNG", icc_profile=swapped_profile()))
    assert picture.facts.icc
    assert np.abs(picture.rgb.astype(int) - quarters[:, :, ::-1]).max() <= 6


@pytest.mark.parametrize("profile", [b"no profile at all", lab_profile(), b"\0" * 200])
def test_an_unusable_profile_is_passed_over(profile: bytes, quarters: np.ndarray, encode: Encode) -> None:
    picture = decode_picture(encode(quarters, "PNG", icc_profile=profile))
    assert np.array_equal(picture.rgb, quarters)
    assert not picture.facts.icc


def test_the_bytes_say_the_format_not_a_name(quarters: np.ndarray, encode: Encode) -> None:
    assert decode_picture(encode(quarters, "WEBP", lossless=True)).facts.format == "WEBP"
    assert decode_picture(encode(quarters, "JPEG")).facts.format == "JPEG"


def test_first_page_of_a_tiff(quarters: np.ndarray, encode: Encode) -> None:
    data = encode(quarters, "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9))])
    assert np.array_equal(decode_picture(data).rgb, quarters)


def test_png_round_trip_is_exact_and_repeatable(draw_noise: Callable[..., np.ndarray]) -> None:
    pixels = draw_noise(3, 37)
    data = encode_png(pixels)
    assert np.array_equal(decode_picture(data).rgb, pixels)
    assert data == encode_png(pixels.copy(order="F"))


def test_a_view_into_a_picture_is_encoded_as_it_is_seen(quarters: np.ndarray) -> None:
    view = quarters[::-1, 8:40]
    assert np.array_equal(decode_picture(encode_png(view)).rgb, view)


def test_the_decoded_array_holds_no_file_open(quarters: np.ndarray) -> None:
    stream = io.BytesIO(encode_png(quarters))
    picture = decode_picture(stream.getvalue())
    assert picture.rgb.dtype == np.uint8
    assert picture.rgb.flags["C_CONTIGUOUS"]
