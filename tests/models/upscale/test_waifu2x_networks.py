"""waifu2x's networks against ncnn, against a float64 convolution written here, and in what they say of themselves."""

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from models.upscale.combined import DenoiseFirst, NearestFirst
from models.upscale.cunet import CUNet, UpCUNet, build_cunet, build_upcunet
from models.upscale.ncnn_format import NcnnFormatError, read_ncnn
from models.upscale.network import UpscaleNetwork
from models.upscale.resnet10 import ResNet10, UpResNet10, build_resnet10, build_upresnet10
from models.upscale.upconv7 import CHAINER_WIDTHS, UpConv7
from models.upscale.vgg7 import VGG7, build_vgg7

PORTRAITS = Path(__file__).parents[4] / "shared" / "data" / "portraits256"
RGB = np.ndarray  # (H, W, 3) uint8
Planes = np.ndarray  # (3, H, W)

BUILDERS: dict[str, Callable[[], UpscaleNetwork]] = {
    "upconv7": UpConv7,
    "upconv7-chainer": lambda: UpConv7(CHAINER_WIDTHS),
    "vgg7-denoise": VGG7,
    "vgg7": lambda: NearestFirst(VGG7()),
    "vgg7 with noise": lambda: DenoiseFirst(VGG7(), NearestFirst(VGG7())),
    "resnet10-denoise": ResNet10,
    "resnet10": lambda: NearestFirst(ResNet10()),
    "upresnet10": UpResNet10,
    "cunet-denoise": CUNet,
    "cunet": UpCUNet,
}
GATED = ("upresnet10", "cunet-denoise", "cunet")


@pytest.fixture(scope="module")
def untrained() -> Callable[[str], UpscaleNetwork]:
    """Networks with random weights, in float64: what does not depend on the values is tested without any file."""
    made: dict[str, UpscaleNetwork] = {}

    def make(name: str) -> UpscaleNetwork:
        if name not in made:
            torch.manual_seed(0)
            made[name] = BUILDERS[name]().eval().requires_grad_(False).double()
        for gate in made[name].gates:
            gate.mean = None
        return made[name]

    return make


def hold_gates(network: UpscaleNetwork) -> None:
    """Gates then see nothing of the picture, and what is left is local."""
    for gate in network.gates:
        gate.mean = torch.full((1, gate.squeeze.in_features), 0.1, dtype=torch.float64)


def picture(height: int, width: int, seed: int = 0) -> RGB:
    """A smooth coloured picture with a hard edge and a little noise in it."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(2, height // 6), max(2, width // 6), 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(int)
    smooth[height // 3 : height // 2, width // 4 :] = (250, 30, 60)
    return np.clip(smooth + rng.integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8)


def pad(network: UpscaleNetwork, rgb: RGB) -> Planes:
    """The picture with its margin, as planes of 0..1. Its sides must be multiples of the network's."""
    m = network.margin
    return np.pad(rgb, ((m, m), (m, m), (0, 0)), mode="edge").transpose(2, 0, 1) / 255.0


def forward(network: UpscaleNetwork, x: Planes) -> Planes:
    kind = next(network.parameters()).dtype
    with torch.inference_mode():
        return network(torch.from_numpy(np.ascontiguousarray(x))[None].to(kind))[0].numpy()


def to_bytes(planes: Planes) -> RGB:
    return np.rint(np.clip(planes, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)


def portraits(step: int) -> list[RGB]:
    paths = sorted(PORTRAITS.glob("*.jpg"))[::step]
    if not paths:
        pytest.skip(f"no pictures in {PORTRAITS}")
    read = [cv2.imread(str(path)) for path in paths]
    return [np.ascontiguousarray(bgr[..., ::-1]) for bgr in read if bgr is not None]


def psnr(a: RGB, b: RGB) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2)))


# --- equality with other implementations ---


@pytest.mark.parametrize(
    ("name", "noise"),
    [("upconv7", noise) for noise in ("none", "0", "1", "2", "3")]
    + [("cunet", noise) for noise in ("none", "0", "3")]
    + [("cunet-denoise", noise) for noise in ("0", "1", "3")],
)
def test_equals_ncnn(
    name: str,
    noise: str,
    load_real: Callable[..., UpscaleNetwork],
    real_ncnn_files: Callable[..., tuple[bytes, bytes]],
    tmp_path: Path,
) -> None:
    ncnn = pytest.importorskip("ncnn")
    network = load_real(name, noise)
    param, weights = real_ncnn_files(name, noise)
    (tmp_path / "n.param").write_bytes(param)
    (tmp_path / "n.bin").write_bytes(weights)
    net = ncnn.Net()
    net.opt.num_threads = 1
    assert net.load_param(str(tmp_path / "n.param")) == 0 and net.load_model(str(tmp_path / "n.bin")) == 0
    x = np.ascontiguousarray(pad(network, picture(32, 40)), np.float32)  # ncnn reads it in place
    extractor = net.create_extractor()
    extractor.input("Input1", ncnn.Mat(x))
    expected, result = to_bytes(np.array(extractor.extract("Eltwise4")[1])), to_bytes(forward(network, x))
    assert result.shape == expected.shape == (32 * network.scale, 40 * network.scale, 3)
    difference = np.abs(result.astype(int) - expected)
    assert (difference <= 1).mean() >= 0.999 and difference.max() <= 2, (difference.max(), (difference > 1).mean())


Arrays = dict[str, np.ndarray]


def convolve(x: Planes, arrays: Arrays, name: str) -> Planes:
    """A valid 3 x 3 correlation in float64, written out tap by tap."""
    w, b = arrays[f"{name}/W"].astype(float), arrays[f"{name}/b"].astype(float)
    height, width = x.shape[1] - 2, x.shape[2] - 2
    out = np.zeros((w.shape[0], height, width)) + b[:, None, None]
    for dy in range(3):
        for dx in range(3):
            out += np.tensordot(w[:, :, dy, dx], x[:, dy : dy + height, dx : dx + width], axes=1)
    return out


def spread(x: Planes, w: np.ndarray) -> Planes:
    """A transposed 4 x 4 convolution of stride 2: every pixel is spread over 4 x 4; three pixels a side fall away."""
    out = np.zeros((w.shape[1], 2 * x.shape[1] + 2, 2 * x.shape[2] + 2))
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            out[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += np.tensordot(x[:, i, j], w.astype(float), axes=1)
    return out[:, 3:-3, 3:-3]


def leaky(x: Planes) -> Planes:
    return np.where(x > 0, x, 0.1 * x)


def vgg7_reference(arrays: Arrays, x: Planes) -> Planes:
    for k in range(1, 7):
        x = leaky(convolve(x, arrays, f"conv{k}"))
    return convolve(x, arrays, "conv7")


def resnet10_reference(arrays: Arrays, x: Planes) -> Planes:
    """Both residual networks: the archive says whether blocks have gates and the end is transposed."""
    x = first = leaky(convolve(x, arrays, "conv_pre"))
    for k in range(1, 6):
        change = leaky(convolve(leaky(convolve(x, arrays, f"res{k}/conv1")), arrays, f"res{k}/conv2"))
        if f"res{k}/fc1/W" in arrays:
            w = {part: arrays[f"res{k}/{part}"].astype(float) for part in ("fc1/W", "fc1/b", "fc2/W", "fc2/b")}
            squeezed = np.maximum(w["fc1/W"] @ change.mean(axis=(1, 2)) + w["fc1/b"], 0)
            change = change / (1 + np.exp(-(w["fc2/W"] @ squeezed + w["fc2/b"])))[:, None, None]
        x = change + x[:, 2:-2, 2:-2]
    x = leaky(convolve(x, arrays, "conv_bridge")) + first[:, 11:-11, 11:-11]
    if "conv_post/b" not in arrays:
        return spread(x, arrays["conv_post/W"])
    return convolve(x, arrays, "conv_post")


def enlarge_reference(keep: Callable[[Arrays, Planes], Planes], lost: int) -> Callable[[Arrays, Planes], Planes]:
    """Every pixel repeated 2 x 2 times before; of a result that lost an odd number, one pixel less a side."""

    def run(arrays: Arrays, x: Planes) -> Planes:
        result = keep(arrays, x.repeat(2, axis=1).repeat(2, axis=2))
        return result[:, 1:-1, 1:-1] if lost % 2 else result

    return run


@pytest.mark.parametrize(
    ("name", "noise", "steps"),
    [
        ("vgg7-denoise", "1", [("waifu2x-vgg7-noise1", vgg7_reference)]),
        ("vgg7", "none", [("waifu2x-vgg7-scale", enlarge_reference(vgg7_reference, 7))]),
        (
            "vgg7",
            "3",
            [("waifu2x-vgg7-noise3", vgg7_reference), ("waifu2x-vgg7-scale", enlarge_reference(vgg7_reference, 7))],
        ),
        ("resnet10-denoise", "0", [("waifu2x-resnet10-noise0", resnet10_reference)]),
        ("resnet10", "none", [("waifu2x-resnet10-scale", enlarge_reference(resnet10_reference, 13))]),
        (
            "resnet10",
            "2",
            [
                ("waifu2x-resnet10-noise2", resnet10_reference),
                ("waifu2x-resnet10-scale", enlarge_reference(resnet10_reference, 13)),
            ],
        ),
        ("upresnet10", "none", [("waifu2x-upresnet10-scale", resnet10_reference)]),
        ("upresnet10", "3", [("waifu2x-upresnet10-noise3-scale", resnet10_reference)]),
    ],
)
def test_equals_an_independent_implementation(
    name: str,
    noise: str,
    steps: list[tuple[str, Callable[[Arrays, Planes], Planes]]],
    load_real: Callable[..., UpscaleNetwork],
    read_real: Callable[[str], bytes],
) -> None:
    network = load_real(name, noise)
    x = expected = pad(network, picture(3, 4))
    for weight, run in steps:
        with np.load(io.BytesIO(read_real(weight)), allow_pickle=False) as stored:
            expected = run(dict(stored), np.clip(expected, 0, 1))
    result = forward(network, x)
    assert result.shape == expected.shape == (3, 3 * network.scale, 4 * network.scale)
    np.testing.assert_allclose(result, expected, atol=2e-5)


# --- quality: a wrong skip, order or activation shows at once ---


@pytest.mark.parametrize("name", ["upconv7", "upconv7-chainer", "cunet", "vgg7", "resnet10", "upresnet10"])
def test_is_clearly_better_than_bicubic(name: str, load_real: Callable[..., UpscaleNetwork]) -> None:
    network = load_real(name)
    gains = []
    for rgb in portraits(300):
        original = rgb[64:192, 64:192]
        small = cv2.resize(original, (64, 64), interpolation=cv2.INTER_AREA)
        bicubic = cv2.resize(small, (128, 128), interpolation=cv2.INTER_CUBIC)
        gains.append(psnr(to_bytes(forward(network, pad(network, small))), original) - psnr(bicubic, original))
    assert np.mean(gains) > 3.5 and min(gains) > 1, gains


@pytest.mark.parametrize("name", ["cunet-denoise", "vgg7-denoise", "resnet10-denoise"])
def test_removes_what_jpeg_adds(name: str, load_real: Callable[..., UpscaleNetwork]) -> None:
    gains: dict[str, list[float]] = {"0": [], "3": []}
    for rgb in portraits(300):
        original = np.ascontiguousarray(rgb[64:160, 64:160])
        coded = cv2.imdecode(cv2.imencode(".jpg", original, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], cv2.IMREAD_COLOR)
        assert coded is not None
        for noise, collected in gains.items():
            network = load_real(name, noise)
            collected.append(psnr(to_bytes(forward(network, pad(network, coded))), original) - psnr(coded, original))
    assert np.mean(gains["0"]) > 0.2 and np.mean(gains["3"]) > np.mean(gains["0"]) + 1, gains


# --- what a network says of itself ---


@pytest.mark.parametrize("name", BUILDERS)
def test_loses_what_it_says(name: str, untrained: Callable[[str], UpscaleNetwork]) -> None:
    network = untrained(name)
    for rows, columns in ((1, 1), (3, 8)):
        inner = rows * network.multiple, columns * network.multiple
        x = torch.zeros(2, 3, inner[0] + 2 * network.loss, inner[1] + 2 * network.loss, dtype=torch.float64)
        assert network(x).shape == (2, 3, network.scale * inner[0], network.scale * inner[1])
    assert network.margin == network.loss == network.context
    assert bool(network.gates) == (name in GATED)


@pytest.mark.parametrize("name", BUILDERS)
def test_sees_exactly_its_context(name: str, untrained: Callable[[str], UpscaleNetwork]) -> None:
    """A pixel that is no number makes all that depends on it no number."""
    network = untrained(name)
    hold_gates(network)
    context, loss, step, scale = network.context, network.loss, network.multiple, network.scale
    first = 2 * step  # the area: one step, inside a picture that is larger by two steps each side
    side = 5 * step + 2 * loss
    before, behind = first + loss - context, first + step + loss + context  # input pixels that the area may see

    def poisoned(seen: Callable[[Tensor], None]) -> Tensor:
        x = torch.rand(1, 3, side, side, dtype=torch.float64)
        seen(x)
        area = slice(scale * first, scale * (first + step))
        return network(x)[0, :, area, area].isnan()

    def outside(x: Tensor) -> None:
        kept = x[:, :, before:behind, before:behind].clone()
        x[:] = torch.nan
        x[:, :, before:behind, before:behind] = kept

    def first_corner(x: Tensor) -> None:
        x[0, 1, before, before] = torch.nan

    def last_corner(x: Tensor) -> None:
        x[0, 1, behind - 1, behind - 1] = torch.nan

    assert before > 0 and behind < side
    assert not poisoned(outside).any()
    assert poisoned(first_corner)[:, 0, 0].all()
    assert poisoned(last_corner)[:, -1, -1].all()


def run_in_tiles(network: UpscaleNetwork, x: Tensor, tile: tuple[int, int]) -> Tensor:
    """Tiles of so many steps of inner pixels, each computed with what the network loses around it."""
    step, lost, scale = network.multiple, 2 * network.loss, network.scale
    height, width = x.shape[2] - lost, x.shape[3] - lost
    result = torch.full((1, 3, scale * height, scale * width), torch.nan, dtype=x.dtype)
    rows, columns = (count * step for count in tile)
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            bottom, right = min(top + rows, height), min(left + columns, width)
            part = network(x[:, :, top : bottom + lost, left : right + lost])
            result[:, :, scale * top : scale * bottom, scale * left : scale * right] = part
    return result


@pytest.mark.parametrize("name", BUILDERS)
def test_tiles_equal_the_whole(name: str, untrained: Callable[[str], UpscaleNetwork]) -> None:
    network = untrained(name)
    sides = (7 * network.multiple + 2 * network.loss, 9 * network.multiple + 2 * network.loss)
    x = torch.rand(1, 3, *sides, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    means: list[Tensor] = []
    handles = [gate.register_forward_pre_hook(lambda _, i: means.append(i[0].mean((2, 3)))) for gate in network.gates]
    whole = network(x)
    for handle in handles:
        handle.remove()
    if network.gates:
        assert not torch.allclose(run_in_tiles(network, x, (3, 4)), whole, rtol=0, atol=1e-9)
    for gate, mean in zip(network.gates, means, strict=True):  # also: in the order in which they are computed
        gate.mean = mean
    torch.testing.assert_close(run_in_tiles(network, x, (3, 4)), whole, rtol=0, atol=1e-12)


def test_noise_is_clipped_before_enlarging(untrained: Callable[[str], UpscaleNetwork]) -> None:
    network = untrained("vgg7 with noise")
    assert isinstance(network, DenoiseFirst)
    x = 50 * torch.rand(1, 3, 30, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) - 25
    clean = network.denoise(x)
    assert clean.min() < 0 or clean.max() > 1
    torch.testing.assert_close(network(x), network.enlarge(clean.clip(0, 1)), rtol=0, atol=0)


def test_networks_that_do_not_fit_together_are_refused() -> None:
    for wrong in (UpConv7(), CUNet()):
        with pytest.raises(ValueError, match="does not keep the size"):
            NearestFirst(wrong)
        with pytest.raises(ValueError, match="cannot follow"):
            DenoiseFirst(wrong, UpConv7())
    with pytest.raises(ValueError, match="cannot follow"):
        DenoiseFirst(VGG7(), UpCUNet())


def test_weights_of_another_network_are_refused(
    read_real: Callable[[str], bytes], real_ncnn_files: Callable[..., tuple[bytes, bytes]]
) -> None:
    upscaling, denoising = (read_ncnn(*real_ncnn_files(name, "0")) for name in ("cunet", "cunet-denoise"))
    with pytest.raises(NcnnFormatError, match=r"is not make\.last"):
        build_cunet(upscaling)
    with pytest.raises(NcnnFormatError, match=r"is not make\.last"):
        build_upcunet(denoising)
    gated, plain = read_real("waifu2x-upresnet10-scale"), read_real("waifu2x-resnet10-scale")
    for build, content in (
        (build_vgg7, plain),
        (build_resnet10, gated),
        (build_upresnet10, plain),
        (build_resnet10, plain[:-100]),
    ):
        with pytest.raises(ValueError, match="archive"):
            build(content)
