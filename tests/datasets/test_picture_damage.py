"""Whatever happens to a file, decoding it gives pixels or an UnreadablePictureError, and nothing else."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.pictures import UnreadablePictureError, decode_picture

SETTINGS = settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FRAMES = [
    Image.fromarray(np.random.default_rng(k).integers(0, 256, (20, 24, 3), dtype=np.uint8).repeat(2, 0))
    for k in (0, 1, 2)
]
EXIF = Image.Exif()
EXIF[0x0112] = 6


def save(file_format: str, image: Image.Image = FRAMES[0], **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=file_format, **options)
    return buffer.getvalue()


def save_all(file_format: str) -> bytes:
    return save(file_format, save_all=True, append_images=FRAMES[1:], duration=40)


FILES = {
    "png": save("PNG", exif=EXIF),
    "png-palette": save("PNG", FRAMES[0].quantize(16), transparency=3),
    "jpeg": save("JPEG", exif=EXIF),
    "jpeg-progressive": save("JPEG", progressive=True),
    "jpeg-cmyk": save("JPEG", FRAMES[0].convert("CMYK")),
    "webp": save("WEBP", exif=EXIF),
    "gif": save("GIF"),
    "gif-animated": save_all("GIF"),
    "apng": save_all("PNG"),
    "webp-animated": save_all("WEBP"),
    "bmp": save("BMP"),
    "tiff": save("TIFF", compression="tiff_lzw"),
    "tiff-pages": save_all("TIFF"),
}


@pytest.fixture(autouse=True)
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged header may promise a picture just below the limit: keep the memory for it small."""
    monkeypatch.setattr("datasets.pictures.checks.MAX_PIXELS", 200_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)


def try_to_decode(data: bytes) -> np.ndarray | None:
    try:
        return decode_picture(data).rgb
    except UnreadablePictureError as error:
        assert error.detail
        return None


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", FILES)
@SETTINGS
@given(data=st.data())
def test_any_damage(name: str, data: st.DataObject) -> None:
    damaged = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(1, 3), "changes")):
        place = data.draw(st.one_of(st.integers(0, min(160, len(damaged) - 1)), st.integers(0, len(damaged) - 1)))
        damaged[place] = data.draw(st.integers(0, 255))
    rgb = try_to_decode(bytes(damaged[: data.draw(st.integers(0, len(damaged)), "length")]))
    whole = try_to_decode(bytes(damaged))
    for pixels in (rgb, whole):
        assert pixels is None or (pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3)


@pytest.mark.parametrize("name", ["png", "png-palette"])
def test_no_prefix_of_a_png_is_taken_for_the_picture(name: str) -> None:
    for length in range(len(FILES[name])):
        assert try_to_decode(FILES[name][:length]) is None, length


@pytest.mark.parametrize("name", ["jpeg", "jpeg-progressive", "jpeg-cmyk"])
def test_no_prefix_of_a_jpeg_is_taken_for_the_picture(name: str) -> None:
    for length in range(len(FILES[name]) - 1):
        assert try_to_decode(FILES[name][:length]) is None, length


@SETTINGS
@given(place=st.integers(8, len(FILES["png"]) - 1), bit=st.integers(0, 7))
def test_no_flipped_bit_of_a_png_goes_unnoticed(place: int, bit: int) -> None:
    damaged = bytearray(FILES["png"])
    damaged[place] ^= 1 << bit
    assert try_to_decode(bytes(damaged)) is None
