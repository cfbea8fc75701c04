import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.upscale.esrgan import CompactNet, CubicReduction, RRDBNet, build_compact, build_rrdb
from models.upscale.ncnn_format import NcnnFormatError, NcnnGraph, read_ncnn
from models.upscale.network import UpscaleNetwork

Files = Callable[..., tuple[bytes, bytes]]

PUBLISHED = [
    ("realesr-animevideov3", 2, 19),
    ("realesr-animevideov3-x3", 3, 19),
    ("realesr-animevideov3-x4", 4, 18),
    ("realesrgan-x4plus-anime", 4, 94),
]


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    """(1, 3, H, W): smooth colours with a hard edge."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 6, width // 6, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    smooth[height // 3 : height // 2, width // 4 :] = (250, 30, 60)
    return torch.from_numpy(smooth.transpose(2, 0, 1).astype(np.float32) / 255)[None]


def enlarge_with_ncnn(param: bytes, weights: bytes, x: Tensor, folder: Path) -> Tensor:
    import ncnn

    (folder / "net.param").write_bytes(param)
    (folder / "net.bin").write_bytes(weights)
    net = ncnn.Net()
    net.opt.use_vulkan_compute, net.opt.num_threads = False, 1
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, option, False)
    assert net.load_param(str(folder / "net.param")) == 0 and net.load_model(str(folder / "net.bin")) == 0
    extractor = net.create_extractor()
    array = np.ascontiguousarray(x[0].numpy())  # ncnn.Mat does not keep it alive
    extractor.input("data", ncnn.Mat(array))
    status, result = extractor.extract("output")
    assert status == 0
    return torch.from_numpy(np.array(result))[None]


@pytest.mark.parametrize(("name", "scale", "context"), PUBLISHED)
def test_equals_ncnn_with_the_same_files(
    name: str, scale: int, context: int, real_ncnn_files: Files, tmp_path: Path
) -> None:
    pytest.importorskip("ncnn")
    files = real_ncnn_files(name)
    rrdb = "x4plus" in name
    network: UpscaleNetwork = (build_rrdb if rrdb else build_compact)(read_ncnn(*files))
    assert (network.scale, network.context) == (scale, context)
    assert (network.margin, network.loss, network.multiple) == (0, 0, 1)
    assert not network.training and not any(p.requires_grad or p.dtype != torch.float32 for p in network.parameters())
    x = picture(30, 24) if rrdb else picture(42, 54)
    with torch.inference_mode():
        result = network(x)
    expected = enlarge_with_ncnn(*files, x, tmp_path)
    assert result.shape == expected.shape == (1, 3, scale * x.shape[2], scale * x.shape[3])
    difference = (result - expected).abs()
    assert float((difference <= 1 / 255).all(dim=1).float().mean()) >= 0.999
    assert float(difference.max()) < 0.1 / 255


def seeded(network: UpscaleNetwork) -> UpscaleNetwork:
    """Weights of one sign and no dead rectifiers, in float64: every path that exists carries something."""
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        values = torch.rand(parameter.shape, generator=generator) + 0.5
        parameter.data = values / max(1, values[0].numel()) if values.ndim > 1 else values * 0.1
    return network.double().eval().requires_grad_(False)


NETWORKS: dict[str, Any] = {
    "compact 4x": lambda: CompactNet(4, 2, 4),
    "compact 3x of 4x": lambda: CompactNet(4, 2, 4, 3),
    "compact 2x of 4x": lambda: CompactNet(4, 3, 4, 2),
    "compact 1x": lambda: CompactNet(4, 1, 1),
    "rrdb 4x": lambda: RRDBNet(4, 1, 3),
    "rrdb 1x": lambda: RRDBNet(4, 1, 3, doublings=0),
    "rrdb 2x": lambda: RRDBNet(4, 1, 3, doublings=1),
    "rrdb 8x": lambda: RRDBNet(3, 1, 2, doublings=3),
    "rrdb 2x folded": lambda: RRDBNet(4, 1, 3, unshuffle=2),
    "rrdb 1x folded": lambda: RRDBNet(3, 1, 2, unshuffle=4),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_context_is_exactly_what_a_result_depends_on(name: str) -> None:
    """Where the gradient of one cell of the result is not zero, in a column: the network's whole reach, no more."""
    network = seeded(NETWORKS[name]())
    cell = network.multiple
    height = 2 * network.context + 3 * cell
    middle = network.context // cell * cell + cell
    x = torch.full((1, 3, height // cell * cell, 4 * cell), 0.5, dtype=torch.float64, requires_grad=True)
    result = network(x)
    assert result.shape[2:] == (x.shape[2] * network.scale, x.shape[3] * network.scale)
    (gradient,) = torch.autograd.grad(result[:, :, middle * network.scale : (middle + cell) * network.scale].sum(), x)
    rows = gradient.abs().amax(dim=(0, 1, 3)).nonzero().flatten()
    assert (int(rows.min()), int(rows.max())) == (middle - network.context, middle + cell - 1 + network.context)


@pytest.mark.parametrize("name", ["compact 4x", "compact 3x of 4x", "compact 2x of 4x", "rrdb 4x", "rrdb 2x folded"])
def test_tiles_with_their_context_equal_the_whole(name: str) -> None:
    network = seeded(NETWORKS[name]())
    size, around, scale = 16, network.context, network.scale
    side = 4 * size
    assert around % network.multiple == 0
    x = torch.rand(1, 3, side, 24, generator=torch.Generator().manual_seed(2)).double()
    whole = network(x)
    for start in range(0, side, size):
        first, last = max(0, start - around), min(side, start + size + around)  # outer tiles end where the picture does
        tile = network(x[:, :, first:last])[:, :, scale * (start - first) :][:, :, : scale * size]
        torch.testing.assert_close(tile, whole[:, :, scale * start : scale * (start + size)], atol=1e-9, rtol=0)


@pytest.mark.parametrize("ratio", [Fraction(1, 2), Fraction(3, 4), Fraction(1, 4), Fraction(2, 3)])
def test_cubic_reduction_is_that_of_torch(ratio: Fraction) -> None:
    x = torch.rand(2, 3, 24, 36, generator=torch.Generator().manual_seed(3))
    expected = F.interpolate(x, size=(int(24 * ratio), int(36 * ratio)), mode="bicubic", align_corners=False)
    torch.testing.assert_close(CubicReduction(ratio)(x), expected, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        CubicReduction(1 / ratio)


def test_an_untrained_compact_network_is_the_nearest_enlargement() -> None:
    network = CompactNet(4, 1, 3)
    nn.init.zeros_(network.body[-1].weight)
    nn.init.zeros_(network.body[-1].bias)
    x = torch.rand(1, 3, 5, 7)
    assert torch.equal(network(x), x.repeat_interleave(3, dim=2).repeat_interleave(3, dim=3))


def test_impossible_factors_are_refused() -> None:
    with pytest.raises(ValueError, match="whole factor"):
        RRDBNet(4, 1, 2, doublings=1, unshuffle=4)


TINY_COMPACT = """7767517
{count} {blobs}
Input in 0 1 data
Split split 1 2 data data_0 data_1
Convolution first 1 1 data_1 a 0=2 1=3 4=1 5=1 6=54
PReLU rectify 1 1 a b 0=2
Convolution last 1 1 b c 0=12 1=3 4=1 5=1 6=216
PixelShuffle unfold 1 1 c d 0=2
Interp near 1 1 data_0 e 0=1 1=2.0 2=2.0
BinaryOp add 2 1 d e output
"""


def read_tiny(text: str) -> NcnnGraph:
    """The compact network above, all weights ones, after a change to its text."""
    rows = text.strip().splitlines()[2:]
    blobs = sum(int(row.split()[3]) for row in rows)
    weights = b""
    for row in rows:
        outputs, total = (int(found[1]) if (found := re.search(rf" {n}=(\d+)", row)) else 0 for n in (0, 6))
        if row.startswith("Convolution"):
            weights += bytes(4) + np.ones(total + outputs, "<f4").tobytes()
        if row.startswith("PReLU"):
            weights += np.ones(outputs, "<f4").tobytes()
    return read_ncnn(text.format(count=len(rows), blobs=blobs).encode(), weights)


def test_a_small_compact_graph_is_built_as_it_stands() -> None:
    network = build_compact(read_tiny(TINY_COMPACT))
    assert (network.scale, network.context) == (2, 2)
    # All weights one, away from the borders: 27 + 1 from the first, 9 * 2 * 28 + 1 from the last, and the pixel itself.
    assert float(network(torch.ones(1, 3, 9, 9))[0, 1, 9, 9]) == 9 * 2 * 28 + 1 + 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0=1 1=2.0 2=2.0", "0=2 1=2.0 2=2.0", "layer near"),
        ("unfold 1 1 c d 0=2", "unfold 1 1 c d 0=1", "layer unfold"),
        ("last 1 1 b c", "last 1 1 a c", "layer last"),
        ("0=2 1=3 4=1 5=1 6=54", "0=2 1=3 3=2 4=1 5=1 6=54", "layer first"),
        ("0=2 1=3 4=1 5=1 6=54", "0=2 1=3 4=1 5=1 6=54 9=1", "layer first"),
        ("add 2 1 d e output", "add 2 1 d e output 0=2", "layer add"),
        ("BinaryOp add 2 1 d e output\n", "", "the network ends"),
        ("d e output\n", "d e f\nReLU more 1 1 f output\n", "layer more"),
        ("PReLU rectify 1 1 a b 0=2", "ReLU rectify 1 1 a b", "layer rectify"),
        ("PReLU rectify 1 1 a b 0=2", "PReLU rectify 1 1 a b 0=1", "body.1.weight has the shape"),
        ("d e output\n", "d e f\nInterp down 1 1 f output 0=3 1=0.3 2=0.3\n", "scaled by"),
        ("d e output\n", "d e f\nInterp down 1 1 f output 0=3 3=9 4=9\n", "scaled by None"),
        ("d e output\n", "d e f\nInterp down 1 1 f output 0=2 1=0.5 2=0.5\n", "layer down"),
    ],
)
def test_graphs_of_another_structure_are_refused(old: str, new: str, message: str) -> None:
    assert old in TINY_COMPACT
    with pytest.raises(NcnnFormatError, match=re.escape(message)):
        build_compact(read_tiny(TINY_COMPACT.replace(old, new)))


def test_the_two_architectures_are_not_taken_for_each_other(real_ncnn_files: Files) -> None:
    compact = read_tiny(TINY_COMPACT)
    with pytest.raises(NcnnFormatError, match="not of this architecture"):
        build_rrdb(compact)
    graph = read_ncnn(*real_ncnn_files("realesrgan-x4plus-anime"))
    with pytest.raises(NcnnFormatError, match="not of this architecture"):
        build_compact(graph)
    scaled = next(k for k, layer in enumerate(graph.layers) if layer.kind == "Eltwise")
    one = graph.layers[scaled]
    swapped = type(one)(one.kind, one.name, one.inputs[::-1], one.outputs, one.params, one.weights)
    with pytest.raises(NcnnFormatError, match=re.escape(f"layer {one.name}")):
        build_rrdb(NcnnGraph((*graph.layers[:scaled], swapped, *graph.layers[scaled + 1 :])))
