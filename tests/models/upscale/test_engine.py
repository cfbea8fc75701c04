"""The whole: targets, methods, choices of backend and device, one picture and many."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.upscale import catalogue, engine, settings, torch_backend
from models.upscale.engine import Picture, Target, Upscaled, Upscaler, UpscaleSettings
from models.upscale.esrgan import CompactNet
from models.upscale.fit import RGB
from models.upscale.network import UpscaleNetwork
from models.upscale.plan import plan_picture
from models.weights import MissingWeightError

TORCH = UpscaleSettings(backend="torch", device="cpu", precision="float32", workers=2)


class Untrained(UpscaleNetwork):
    """As upconv_7, but small: sizes, methods and refusals do not depend on weights."""

    scale, margin, loss, context = 2, 2, 2, 2

    def __init__(self) -> None:
        super().__init__()
        self.first, self.enlarge = nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 3, 4, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.enlarge(F.leaky_relu(self.first(x), 0.1))
        return result


@pytest.fixture
def upscaler(monkeypatch: pytest.MonkeyPatch) -> Upscaler:
    torch.manual_seed(0)
    network = Untrained().eval().requires_grad_(False)
    monkeypatch.setattr(catalogue, "load_network", lambda name, noise, folders: network)
    return Upscaler(TORCH)


def gradient(height: int, width: int) -> RGB:
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * x // width, 255 * y // height, 0 * x + 90], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(
    ("side", "size", "method", "factor"),
    [
        (16, 32, "upconv7 x2", 2.0),
        (16, 48, "upconv7 x4 + lanczos", 3.0),
        (16, 64, "upconv7 x4", 4.0),
        (31, 32, "upconv7 x2 + lanczos", 1.0323),
        (32, 32, "none", 1.0),
        (50, 32, "lanczos-down", 0.64),
    ],
)
def test_size_is_exact_and_the_method_tells_the_way(
    upscaler: Upscaler, side: int, size: int, method: str, factor: float
) -> None:
    result = upscaler.upscale(gradient(side, side), Target(size=size))
    assert result.rgb.shape == (size, size, 3) and result.rgb.dtype == np.uint8
    assert result.rgb.flags.c_contiguous
    assert (result.method, result.factor) == (method, factor)


@pytest.mark.parametrize(
    ("target", "shape", "method", "factor"),
    [
        (Target(scale=2), (40, 62), "upconv7-noise1 x2", 2.0),
        (Target(scale=3), (60, 93), "upconv7-noise1 x4 + lanczos", 3.0),
        (Target(scale=1), (20, 31), "none", 1.0),
        (Target(scale=0.5), (10, 16), "lanczos-down", 0.5161),
        (Target(size=64, fit="keep"), (41, 64), "upconv7-noise1 x4 + lanczos", 2.0645),
        (Target(size=64, fit="letterbox"), (64, 64), "upconv7-noise1 x4 + lanczos + letterbox", 2.0645),
        (Target(size=40), (40, 40), "centre crop + upconv7-noise1 x2", 2.0),
    ],
)
def test_every_kind_of_target(
    upscaler: Upscaler, target: Target, shape: tuple[int, int], method: str, factor: float
) -> None:
    result = upscaler.upscale(gradient(20, 31), target, "1")
    assert (result.rgb.shape[:2], result.method, result.factor) == (shape, method, factor)


def test_large_enough_pictures_never_see_the_network(upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upscaler, "_backend", lambda noise: pytest.fail("the network was used"))
    same = gradient(32, 32)
    np.testing.assert_array_equal(upscaler.upscale(same, Target(size=32), "3").rgb, same)
    reduced = upscaler.upscale(gradient(96, 96), Target(size=32)).rgb
    assert int(np.abs(reduced.astype(int) - gradient(32, 32)).max()) <= 8
    stripes = np.zeros((120, 120, 3), np.uint8)
    stripes[:, ::2] = 255
    reduced = upscaler.upscale(stripes, Target(size=33)).rgb  # a filter that aliases would leave stripes
    assert int(np.abs(reduced.astype(int) - 127).max()) < 20


def test_crop_keeps_the_middle_and_letterbox_the_whole(upscaler: Upscaler) -> None:
    wide = gradient(32, 64)
    cropped = upscaler.upscale(wide, Target(size=32))
    np.testing.assert_array_equal(cropped.rgb, wide[:, 16:48])
    assert cropped.method == "centre crop"
    boxed = upscaler.upscale(wide, Target(size=64, fit="letterbox"))
    np.testing.assert_array_equal(boxed.rgb[16:48], wide)
    assert not boxed.rgb[:16].any() and not boxed.rgb[48:].any()
    assert boxed.method == "letterbox"


def test_a_network_that_only_removes_noise_is_applied_once() -> None:
    flat = Picture(gradient(30, 40), Target(scale=1), "1")
    plan = plan_picture(flat, "cunet-denoise-noise1", 1)
    assert (plan.applications, plan.height, plan.width, plan.method) == (1, 30, 40, "cunet-denoise-noise1")
    plan = plan_picture(Picture(flat.rgb, Target(size=20)), "cunet-denoise-noise1", 1)
    assert (plan.applications, plan.method) == (1, "centre crop + cunet-denoise-noise1 + lanczos")
    with pytest.raises(ValueError, match=r"only removes noise.*a network that enlarges"):
        plan_picture(Picture(flat.rgb, Target(scale=2)), "cunet-denoise-noise1", 1)


def test_absurd_targets_are_refused_before_any_work() -> None:
    for wrong in ({}, {"size": 8, "scale": 2.0}, {"size": 0}, {"size": 20_000}, {"scale": 0.0}, {"scale": 9.0}):
        with pytest.raises(ValueError, match=r"size|scale"):
            Target(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="letterbox"):
        Target(size=8, fit="stretch")  # type: ignore[arg-type]
    long = np.broadcast_to(np.uint8(0), (1, 3000, 3))
    with pytest.raises(ValueError, match=r"24000 x 8: at most .*smaller target"):
        plan_picture(Picture(long, Target(scale=8)), "upconv7", 2)
    assert plan_picture(Picture(long, Target(scale=5)), "upconv7", 2).width == 15_000
    for bad in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((0, 8, 3), np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            plan_picture(Picture(bad, Target(size=8)), "upconv7", 2)  # type: ignore[arg-type]


def test_settings_that_do_not_go_together_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong, message in (
        ({"network": "waifu3x"}, "waifu3x"),
        ({"backend": "onnx"}, "onnx"),
        ({"precision": "int8"}, "int8"),
        ({"device": "teapot"}, "teapot"),
        ({"speedup": "more"}, "more"),
        ({"workers": -1}, "workers"),
        ({"backend": "ncnn", "network": "vgg7", "device": "cpu"}, "vgg7 has no ncnn files"),
        ({"backend": "ncnn", "precision": "float16", "device": "cpu"}, "float32"),
        ({"speedup": "graphs", "device": "cpu"}, "CUDA"),
    ):
        with pytest.raises(ValueError, match=message):
            Upscaler(UpscaleSettings(**wrong))  # type: ignore[arg-type]
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="'auto'"):
            Upscaler(UpscaleSettings(device="cuda"))
    monkeypatch.setattr(settings, "ncnn_present", lambda: False)
    with pytest.raises(ValueError, match="pip install ncnn"):
        Upscaler(UpscaleSettings(backend="ncnn", device="cpu"))
    assert Upscaler(UpscaleSettings(device="cpu", precision="float32")).engine == "torch cpu float32"


def test_noise_levels_and_weights(upscaler: Upscaler) -> None:
    names = [name.split()[0] for name in upscaler.weights("1")]
    assert names == list(catalogue.weight_names("upconv7", "1"))
    assert all(len(name.split(" sha256:")[1]) == 64 for name in upscaler.weights())
    with pytest.raises(ValueError, match=r"'4'.*none, 0, 1, 2, 3"):
        upscaler.weights("4")
    with pytest.raises(ValueError, match="'4'"):
        upscaler.upscale(gradient(8, 8), Target(size=16), "4")


def all_of(upscaler: Upscaler, pictures: list[Picture]) -> list[Upscaled]:
    def finish(number: int, result: Upscaled | Exception) -> Upscaled:
        assert isinstance(result, Upscaled), result
        return result

    return list(upscaler.upscale_all(range(len(pictures)), lambda number: pictures[number], finish))


def mixed_pictures() -> list[Picture]:
    sides = [(20, 20), (33, 17), (20, 20), (64, 64), (9, 30), (31, 31), (20, 19), (1, 1)]
    targets = [Target(size=64), Target(scale=2), Target(size=48, fit="keep"), Target(size=50, fit="letterbox")]
    return [
        Picture(np.roll(gradient(*sides[k % 8]), k, 1), targets[k % 4], ("none", "1")[k // 3 % 2]) for k in range(24)
    ]


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("tta", [False, True])
def test_many_equal_one_by_one_in_any_order(
    upscaler: Upscaler, batched: bool, tta: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if batched:
        monkeypatch.setattr(torch_backend, "batch_pixels", lambda device: 4 * 32 * 32)
    upscaler = Upscaler(UpscaleSettings(backend="torch", device="cpu", precision="float32", workers=2, tta=tta))
    pictures = mixed_pictures()
    alone = [upscaler.upscale(p.rgb, p.target, p.noise) for p in pictures]
    for order in (list(range(24)), list(reversed(range(24))), [5, 3, 5, 20]):
        for place, result in zip(order, all_of(upscaler, [pictures[k] for k in order]), strict=True):
            np.testing.assert_array_equal(result.rgb, alone[place].rgb)
            assert (result.method, result.factor) == (alone[place].method, alone[place].factor)


@pytest.mark.parametrize("batched", [False, True])
def test_errors_reach_finish_with_their_item(
    upscaler: Upscaler, batched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if batched:
        monkeypatch.setattr(torch_backend, "batch_pixels", lambda device: 4 * 32 * 32)

    def load(number: int) -> Picture:
        if number == 1:
            raise OSError("unreadable")
        return Picture(gradient(8, 8), Target(size=16), "7" if number == 2 else "none")

    def finish(number: int, result: Upscaled | Exception) -> str:
        return f"{number} {result if isinstance(result, Exception) else result.method}"

    results = list(upscaler.upscale_all(range(4), load, finish))
    assert results[::3] == ["0 upconv7 x2", "3 upconv7 x2"]
    assert results[1] == "1 unreadable" and "'7'" in results[2]


def test_ncnn_is_taken_on_a_cpu_and_agrees_with_torch(load_real: Callable[..., UpscaleNetwork]) -> None:
    load_real("upconv7")
    if not settings.ncnn_present():
        pytest.skip("the package ncnn is not installed")
    in_ncnn = Upscaler(UpscaleSettings(device="cpu", workers=2))
    in_torch = Upscaler(TORCH)
    assert (in_ncnn.engine, in_torch.engine) == ("ncnn", "torch cpu float32")
    pictures = [Picture(np.roll(gradient(31, 20), k, 0), Target(scale=2)) for k in range(3)]
    for ours, theirs in zip(all_of(in_ncnn, pictures), all_of(in_torch, pictures), strict=True):
        assert ours.method == theirs.method == "upconv7 x2"
        assert int(np.abs(ours.rgb.astype(int) - theirs.rgb).max()) <= 2


def test_large_pictures_and_gates_go_to_torch(
    load_real: Callable[..., UpscaleNetwork], monkeypatch: pytest.MonkeyPatch
) -> None:
    load_real("cunet")
    if not settings.ncnn_present():
        pytest.skip("the package ncnn is not installed")
    rgb = gradient(40, 36)
    whole = Upscaler(UpscaleSettings(network="cunet", device="cpu"))
    expected = whole.upscale(rgb, Target(scale=2)).rgb
    backend = whole._backend("none")
    assert isinstance(backend, engine.NcnnBackend)
    backend.tile_pixels = 900
    assert int(np.abs(whole.upscale(rgb, Target(scale=2)).rgb.astype(int) - expected).max()) <= 2


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = CompactNet(features=8, convolutions=2, factor=2)
    path = tmp_path / "mine.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)
    upscaler = Upscaler(UpscaleSettings(model_file=path, device="cpu", precision="float32"))
    assert upscaler.engine == "torch cpu float32" and upscaler.scale == 2
    assert upscaler.weights()[0].startswith("mine.safetensors sha256:")
    result = upscaler.upscale(gradient(12, 9), Target(scale=2))
    assert (result.rgb.shape, result.method) == ((24, 18, 3), "mine x2")
    with pytest.raises(ValueError, match="noise level"):
        upscaler.upscale(gradient(12, 9), Target(scale=2), "1")


@pytest.mark.parametrize("batched", [False, True])
def test_missing_weights_are_no_pictures_fault(batched: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAOBAKO_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if batched:
        monkeypatch.setattr(torch_backend, "batch_pixels", lambda device: 4 * 32 * 32)
    upscaler = Upscaler(TORCH)
    with pytest.raises(MissingWeightError, match="kaobako weights fetch"):
        upscaler.prepare()
    pictures = [Picture(gradient(32, 32), Target(size=32)), Picture(gradient(8, 8), Target(size=32))]
    assert all_of(upscaler, pictures[:1])[0].method == "none"  # needs no weights
    with pytest.raises(MissingWeightError, match="kaobako weights fetch"):
        all_of(upscaler, pictures)
