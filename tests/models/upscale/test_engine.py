import numpy as np
import pytest
import torch

from models.upscale import engine
from models.upscale.engine import TooSmallError, Upscaler
from models.upscale.upconv7 import UpConv7

NAME = "waifu2x-upconv7-art-scale"


@pytest.fixture
def upscaler(monkeypatch: pytest.MonkeyPatch) -> Upscaler:
    """With random weights: sizes, methods and refusals do not depend on them."""
    torch.manual_seed(0)
    untrained = UpConv7().eval().requires_grad_(False)
    monkeypatch.setattr(engine, "load_upconv7", lambda noise, device, folders: untrained)
    return Upscaler()


def gradient(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * x // width, 255 * y // height, 0 * x + 90], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(
    ("side", "size", "method"),
    [
        (16, 32, f"{NAME} x2"),
        (16, 48, f"{NAME} x4 + lanczos"),
        (16, 64, f"{NAME} x4"),
        (31, 32, f"{NAME} x2 + lanczos"),
        (32, 32, "none"),
        (50, 32, "lanczos-down"),
    ],
)
def test_size_is_exact_and_the_method_tells_the_way(upscaler: Upscaler, side: int, size: int, method: str) -> None:
    fitted = upscaler.upscale_to(gradient(side, side), size)
    assert fitted.rgb.shape == (size, size, 3) and fitted.rgb.dtype == np.uint8
    assert fitted.method == method


def test_large_enough_pictures_never_see_the_network(upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "upscale2x", lambda *_: pytest.fail("the network was used"))
    same = gradient(32, 32)
    np.testing.assert_array_equal(upscaler.upscale_to(same, 32).rgb, same)
    reduced = upscaler.upscale_to(gradient(96, 96), 32).rgb
    assert int(np.abs(reduced.astype(int) - gradient(32, 32)).max()) <= 8


def test_reducing_does_not_alias(upscaler: Upscaler) -> None:
    stripes = np.zeros((120, 120, 3), np.uint8)
    stripes[:, ::2] = 255
    reduced = upscaler.upscale_to(stripes, 33).rgb
    assert int(np.abs(reduced.astype(int) - 127).max()) < 20


def test_crop_keeps_the_middle_and_letterbox_the_whole(upscaler: Upscaler) -> None:
    wide = gradient(32, 64)
    cropped = upscaler.upscale_to(wide, 32)
    np.testing.assert_array_equal(cropped.rgb, wide[:, 16:48])
    assert cropped.method == "centre crop"
    upscaler.fit = "letterbox"
    boxed = upscaler.upscale_to(wide, 64)
    np.testing.assert_array_equal(boxed.rgb[16:48], wide)
    assert not boxed.rgb[:16].any() and not boxed.rgb[48:].any()
    assert boxed.method == "letterbox"
    assert upscaler.upscale_to(gradient(20, 31), 64).rgb.shape == (64, 64, 3)


def test_too_small_is_refused_with_the_way_out(upscaler: Upscaler) -> None:
    with pytest.raises(TooSmallError, match="max_factor"):
        upscaler.upscale_to(gradient(15, 15), 64)
    assert upscaler.upscale_to(gradient(16, 16), 64).rgb.shape == (64, 64, 3)


def test_result_does_not_depend_on_what_came_before(upscaler: Upscaler) -> None:
    first = upscaler.upscale_to(gradient(20, 20), 64).rgb.tobytes()
    upscaler.upscale_to(gradient(33, 33)[::-1].copy(), 64)
    assert upscaler.upscale_to(gradient(20, 20), 64).rgb.tobytes() == first


def test_bad_settings_are_refused(upscaler: Upscaler) -> None:
    with pytest.raises(ValueError, match="max_factor"):
        Upscaler(max_factor=0.5)
    with pytest.raises(ValueError, match="letterbox"):
        Upscaler(fit="stretch")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="uint8"):
        upscaler.upscale_to(np.zeros((8, 8), np.uint8), 16)
    with pytest.raises(ValueError, match="size"):
        upscaler.upscale_to(gradient(8, 8), 0)
    assert upscaler.weights == (f"{NAME} sha256:a10cd2f4e8bc28940b43e80a2df4c01f990a67be7020860743b74e1935caaec6",)
