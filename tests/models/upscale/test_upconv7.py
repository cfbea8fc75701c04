import io
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch

from models.upscale.ncnn_format import NcnnFormatError, NcnnGraph, read_ncnn
from models.upscale.network import UpscaleNetwork
from models.upscale.upconv7 import CHAINER_WIDTHS, WIDTHS, UpConv7, build_upconv7, build_upconv7_chainer

Planes = np.ndarray  # (3, H, W)


def convolve(x: Planes, w: np.ndarray, b: np.ndarray) -> Planes:
    """(C, H, W) and (O, C, 3, 3): a valid correlation, written out tap by tap."""
    height, width = x.shape[1] - 2, x.shape[2] - 2
    out = np.zeros((w.shape[0], height, width)) + b[:, None, None]
    for dy in range(3):
        for dx in range(3):
            out += np.tensordot(w[:, :, dy, dx], x[:, dy : dy + height, dx : dx + width], axes=1)
    return out


def reference(arrays: dict[str, np.ndarray], x: Planes) -> Planes:
    """upconv_7 in numpy float64, from the definition: every input pixel is spread over 4 x 4 output pixels."""
    for k in range(1, 7):
        x = convolve(x, arrays[f"conv{k}/W"].astype(float), arrays[f"conv{k}/b"].astype(float))
        x = np.where(x > 0, x, 0.1 * x)
    w = arrays["conv7/W"].astype(float)
    spread = np.zeros((3, 2 * x.shape[1] + 2, 2 * x.shape[2] + 2))
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            spread[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += np.tensordot(x[:, i, j], w, axes=1)
    return spread[:, 3:-3, 3:-3] + arrays.get("conv7/b", np.zeros(3)).astype(float)[:, None, None]


def forward(network: UpscaleNetwork, x: Planes) -> Planes:
    with torch.inference_mode():
        return network(torch.from_numpy(x.astype(np.float32))[None])[0].numpy()


@pytest.mark.parametrize("noise", ["none", "2"])
def test_chainer_weights_equal_an_independent_implementation(
    load_real: Callable[..., UpscaleNetwork], read_real: Callable[[str], bytes], noise: str
) -> None:
    network = load_real("upconv7-chainer", noise)
    name = "waifu2x-upconv7-art-scale" if noise == "none" else f"waifu2x-upconv7-art-noise{noise}-scale"
    with np.load(io.BytesIO(read_real(name)), allow_pickle=False) as arrays:
        stored = dict(arrays)
    x = np.random.default_rng(0).random((3, 21, 26))
    result = forward(network, x)
    assert result.shape == (3, 14, 24)
    np.testing.assert_allclose(result, reference(stored, x), atol=2e-5)


def test_nagadomi_weights_equal_an_independent_implementation(
    load_real: Callable[..., UpscaleNetwork], real_ncnn_files: Callable[..., tuple[bytes, bytes]]
) -> None:
    network = load_real("upconv7")
    stored = {}
    for k, layer in enumerate(read_ncnn(*real_ncnn_files("upconv7")).weighted, start=1):
        stored |= {f"conv{k}/W": layer.weights["weight"], f"conv{k}/b": layer.weights["bias"]}
    x = np.random.default_rng(0).random((3, 21, 26))
    np.testing.assert_allclose(forward(network, x), reference(stored, x), atol=2e-5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (16, 16), (33, 21)])
@pytest.mark.parametrize("widths", [WIDTHS, CHAINER_WIDTHS])
def test_every_size_is_doubled(height: int, width: int, widths: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = UpConv7(widths).eval()
    x = np.zeros((3, height + 2 * network.loss, width + 2 * network.loss))
    assert forward(network, x).shape == (3, 2 * height, 2 * width)


def test_weights_of_another_network_are_refused(
    read_real: Callable[[str], bytes], real_ncnn_files: Callable[..., tuple[bytes, bytes]]
) -> None:
    with pytest.raises(ValueError, match="of another network"):
        build_upconv7_chainer(read_real("waifu2x-vgg7-scale"))
    with pytest.raises(NcnnFormatError, match="the network has 7 layers with weights, the files have"):
        build_upconv7(read_ncnn(*real_ncnn_files("cunet")))
    graph = read_ncnn(*real_ncnn_files("upconv7"))
    last = graph.layers[-1]
    for number, value in ((3, 1), (4, 2)):
        changed = type(last)(
            last.kind, last.name, last.inputs, last.outputs, {**last.params, number: value}, last.weights
        )
        with pytest.raises(NcnnFormatError, match=r"conv7_layer.*is not enlarge"):
            build_upconv7(NcnnGraph((*graph.layers[:-1], changed)))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x93NUMPY"])
def test_what_is_no_archive_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="archive"):
        build_upconv7_chainer(content)


def test_archives_are_never_unpickled() -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return pytest.fail, ("unpickled",)

    file = io.BytesIO()
    np.savez(file, **{"conv1/W": np.array([Trap()], dtype=object)})
    with pytest.raises(ValueError, match="allow_pickle"):
        build_upconv7_chainer(file.getvalue())


def test_archives_must_be_complete_and_hold_nothing_else() -> None:
    whole = {}
    for k, (inputs, outputs) in enumerate(pairwise((3, *CHAINER_WIDTHS)), start=1):
        whole |= {f"conv{k}/W": np.ones((outputs, inputs, 3, 3), np.float32), f"conv{k}/b": np.ones(outputs)}
    whole["conv7/W"] = np.ones((CHAINER_WIDTHS[-1], 3, 4, 4), np.float32)

    def pack(arrays: dict[str, np.ndarray]) -> bytes:
        file = io.BytesIO()
        np.savez(file, **arrays)
        return file.getvalue()

    network = build_upconv7_chainer(pack(whole))
    assert all(bool((p == 1).all()) == (name != "enlarge.bias") for name, p in network.named_parameters())
    assert not network.enlarge.bias.any()  # the archive has none
    for wrong in (
        whole | {"conv8/W": np.ones(1, np.float32)},
        {name: values for name, values in whole.items() if name != "conv3/b"},
        {name: values for name, values in whole.items() if name != "conv7/W"},
        whole | {"conv3/b": np.ones(63, np.float32)},
    ):
        with pytest.raises(ValueError, match=r"conv8|conv3|convolutions\.2|enlarge\.weight"):
            build_upconv7_chainer(pack(wrong))
