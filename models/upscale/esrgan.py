"""The ESRGAN family: RRDBNet (ESRGAN, Real-ESRGAN) and the compact network of Real-ESRGAN's fast models.

RRDBNet is made of "residual in residual dense blocks" (Wang et al., "ESRGAN", 2018, section 3.1), with nearest doubling
in its tail. With `unshuffle`, pixels are first folded into channels, as Real-ESRGAN (2021) does for its networks that
enlarge 2x or not at all. CompactNet is a plain row of convolutions at the size of the input, whose last one is unfolded
into pixels and added to the enlarged input.

Both pad with zeros inside, so the size stays (`loss` 0). They were trained so, and know a border by it: repeating the
edge first (`margin`) bends lines that run out of the picture and costs up to 0.8 dB near its border, while nothing gets
darker without it. Their margin is therefore 0. `context` is exact: counted from the depth, not from what is visible.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.upscale.ncnn_format import NcnnFormatError, NcnnGraph, NcnnLayer, Value
from models.upscale.network import UpscaleNetwork

SLOPE = 0.2  # of the leaky rectifiers of RRDBNet
RESIDUAL = 0.2  # what a dense block, and a group of three, adds to its input is scaled by this
DENSE = 5  # convolutions in a dense block
GROUP = 3  # dense blocks in a residual group
CUBIC = -0.75  # the free parameter of the cubic kernel, as ncnn, torch and OpenCV have it

Network = TypeVar("Network", bound=nn.Module)


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees all before it; the last one's result is added, scaled, to the input."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        for k in range(DENSE):
            outputs = growth if k < DENSE - 1 else features
            self.add_module(f"conv{k + 1}", nn.Conv2d(features + k * growth, outputs, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        *inner, last = self.children()
        seen = x
        for convolution in inner:
            seen = torch.cat((seen, F.leaky_relu(convolution(seen), SLOPE, inplace=True)), dim=1)
        result: Tensor = x + RESIDUAL * last(seen)
        return result


class ResidualGroup(nn.Module):
    """Three dense blocks, and the input again (RRDB)."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        for k in range(GROUP):
            self.add_module(f"rdb{k + 1}", DenseBlock(features, growth))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for block in self.children():
            y = block(y)
        return x + RESIDUAL * y


class RRDBNet(UpscaleNetwork):
    """(N, 3, H, W) RGB in 0..1 to (N, 3, scale * H, scale * W), not clipped.

    The names of its parts are those of the files that Real-ESRGAN publishes. Raises ValueError when doubling so often
    does not make up for the folding.
    """

    margin = loss = 0

    def __init__(
        self,
        features: int = 64,  # channels between the blocks
        blocks: int = 23,  # residual groups
        growth: int = 32,  # channels that each convolution of a dense block adds
        doublings: int = 2,  # how often the tail doubles the size
        unshuffle: int = 1,  # the input is folded: so many pixels, each way, become one with more channels
    ) -> None:
        super().__init__()
        if 2**doublings % unshuffle:
            raise ValueError(f"{doublings} doublings after folding by {unshuffle} do not give a whole factor")
        self.unshuffle, self.multiple = unshuffle, unshuffle
        self.scale = 2**doublings // unshuffle
        # A pixel per convolution before the tail; those of the tail, at 1, 2, 4, ... times the size, reach two in all.
        self.context = unshuffle * (1 + GROUP * DENSE * blocks + 1 + 2)
        self.conv_first = nn.Conv2d(3 * unshuffle**2, features, 3, padding=1)
        self.body = nn.Sequential(*(ResidualGroup(features, growth) for _ in range(blocks)))
        self.conv_body = nn.Conv2d(features, features, 3, padding=1)
        self.ups = [f"conv_up{k + 1}" for k in range(doublings)]
        for name in self.ups:
            self.add_module(name, nn.Conv2d(features, features, 3, padding=1))
        self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
        self.conv_last = nn.Conv2d(features, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv_first(F.pixel_unshuffle(x, self.unshuffle))
        y = first + self.conv_body(self.body(first))
        for name in self.ups:
            doubled = F.interpolate(y, scale_factor=2, mode="nearest")
            y = F.leaky_relu(self.get_submodule(name)(doubled), SLOPE, inplace=True)
        result: Tensor = self.conv_last(F.leaky_relu(self.conv_hr(y), SLOPE, inplace=True))
        return result


class CompactNet(UpscaleNetwork):
    """(N, 3, H, W) RGB in 0..1 to (N, 3, scale * H, scale * W), not clipped.

    Where `scale` is less than `factor`, the result is brought down by a cubic kernel without smoothing before it, as
    ncnn's bicubic Interp does it (the published files for 2x and 3x compute 4x and end so).
    """

    margin = loss = 0

    def __init__(
        self,
        features: int = 64,  # channels
        convolutions: int = 16,  # between the first and the last
        factor: int = 4,  # what the network itself enlarges by
        scale: int | None = None,  # what comes out in the end; None: the factor
    ) -> None:
        super().__init__()
        self.factor = factor
        self.scale = factor if scale is None else scale
        layers: list[nn.Module] = []
        for inputs in (3, *[features] * convolutions):
            layers += [nn.Conv2d(inputs, features, 3, padding=1), nn.PReLU(features)]
        self.body = nn.Sequential(*layers, nn.Conv2d(features, 3 * factor**2, 3, padding=1))
        self.reduce = None if self.scale == factor else CubicReduction(Fraction(self.scale, factor))
        reach = 0 if self.reduce is None else math.ceil(max(self.reduce.before, self.reduce.after) / factor)
        self.context = convolutions + 2 + reach

    def forward(self, x: Tensor) -> Tensor:
        # Each pixel, repeated over the channels that become its block of pixels: the nearest enlargement, folded.
        nearest = x.repeat_interleave(self.factor**2, dim=1)
        enlarged = F.pixel_shuffle(self.body(x) + nearest, self.factor)
        return enlarged if self.reduce is None else self.reduce(enlarged)


class CubicReduction(nn.Module):
    """(N, C, H, W) to (N, C, ratio * H, ratio * W) for a ratio of small whole numbers that goes into H and W.

    Four taps each way around the centre of the new pixel, edges repeated, nothing smoothed before. The taps repeat
    after as many new pixels as the ratio's numerator, so this is one strided convolution: the same for every tile.
    """

    kernel: Tensor

    def __init__(self, ratio: Fraction) -> None:
        super().__init__()
        if not 0 < ratio < 1:
            raise ValueError(f"the ratio must lie between 0 and 1, not {ratio}")
        self.phases, self.step = ratio.numerator, ratio.denominator
        centres = [(k + Fraction(1, 2)) / ratio - Fraction(1, 2) for k in range(self.phases)]
        self.before = 1 - math.floor(centres[0])  # old pixels that the taps reach to the left of their step
        self.after = math.floor(centres[-1]) + 2 - (self.step - 1)
        taps = torch.zeros(self.phases, self.before + self.step + self.after, dtype=torch.float64, device="cpu")
        for k, centre in enumerate(centres):
            for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
                taps[k, self.before + tap] = cubic_weight(abs(float(centre) - tap))
        outer = torch.einsum("py,qx->pqyx", taps, taps).flatten(0, 1)
        self.register_buffer("kernel", outer[:, None].float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        number, channels, height, width = x.shape
        single = x.reshape(number * channels, 1, height, width)
        padded = F.pad(single, (self.before, self.after, self.before, self.after), mode="replicate")
        folded = F.conv2d(padded, self.kernel, stride=self.step)
        reduced = F.pixel_shuffle(folded, self.phases)
        return reduced.reshape(number, channels, *reduced.shape[2:])


def cubic_weight(distance: float) -> float:
    """The weight of a pixel so far from the centre, in pixels (Keys 1981, with `CUBIC` as its parameter)."""
    t, a = abs(distance), CUBIC
    if t <= 1:
        return ((a + 2) * t - (a + 3)) * t * t + 1
    return ((a * t - 5 * a) * t + 8 * a) * t - 4 * a if t < 2 else 0.0


def compare_shapes(expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]) -> list[str]:
    """What keeps the tensors from having these names and shapes, a few words each; empty: they fit."""
    missing = sorted(expected.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - expected.keys())
    complaints = [f"missing: {name_some(missing)}"] if missing else []
    complaints += [f"not known: {name_some(unknown)}"] if unknown else []
    for name in sorted(expected.keys() & tensors.keys()):
        found = tuple(tensors[name].shape)
        if expected[name] != found:
            complaints.append(f"{name} has the shape {list(found)} instead of {list(expected[name])}")
    return complaints


def name_some(names: list[str], most: int = 8) -> str:
    """The first names, each cut to what a name can be, and how many more there are."""
    shown = ", ".join(name[:80] for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def build_compact(graph: NcnnGraph) -> CompactNet:
    """Real-ESRGAN's compact network from its ncnn files (realesr-animevideov3, 2x, 3x and 4x).

    Returns it in evaluation mode, float32, on the CPU, without gradients. Raises `NcnnFormatError`, naming the layer,
    where the graph computes anything else.
    """
    walk = _Walk(graph)
    picture = x = walk.take("Input", params=None).outputs[0]
    convolutions = 0
    x = walk.convolve("body.0", x)
    while walk.kind == "PReLU":
        layer = walk.take("PReLU", x, params=None)
        walk.tensors[f"body.{2 * convolutions + 1}.weight"] = torch.from_numpy(layer.weights["slope"])
        convolutions += 1
        x = walk.convolve(f"body.{2 * convolutions}", layer.outputs[0])
    features = walk.tensors["body.0.weight"].shape[0]
    factor = math.isqrt(walk.tensors[f"body.{2 * convolutions}.weight"].shape[0] // 3)
    x = walk.take("PixelShuffle", x, params={0: factor}).outputs[0]
    nearest = walk.enlarge(picture, factor)
    x = walk.take("BinaryOp", x, nearest, params={}).outputs[0]
    scale = factor
    if walk.kind == "Interp":
        found = walk.setting(1)
        scale = round(found * factor) if isinstance(found, float) else 0
        if not 0 < scale < factor or scale / factor != found:
            raise NcnnFormatError(
                f"the result is scaled by {found}, which does not make {factor}x a smaller whole factor"
            )
        x = walk.take("Interp", x, params={0: 3, 1: found, 2: found}).outputs[0]
    walk.finish()
    if convolutions < 1:
        raise NcnnFormatError("no convolution is followed by a PReLU: this is no compact network")
    with torch.device("meta"):  # without memory, which the weights bring along
        network = CompactNet(features, convolutions - 1, factor, scale)
    return _fill(network, walk.tensors)


def build_rrdb(graph: NcnnGraph) -> RRDBNet:
    """RRDBNet, any depth, 4x, from its ncnn files (realesrgan-x4plus-anime). Otherwise as `build_compact`."""
    walk = _Walk(graph)
    first = x = walk.convolve("conv_first", walk.take("Input", params=None).outputs[0])
    blocks = 0
    while walk.activated:  # the first convolution of a dense block is followed by a rectifier, conv_body is not
        entry = x
        for k in range(GROUP):
            x = walk.pass_dense_block(f"body.{blocks}.rdb{k + 1}", x)
        x = walk.add_scaled(x, entry)
        blocks += 1
    x = walk.convolve("conv_body", x)
    x = walk.take("BinaryOp", first, x, params={}).outputs[0]
    doublings = 0
    while walk.kind == "Interp":
        doublings += 1
        x = walk.convolve(f"conv_up{doublings}", walk.enlarge(x, 2), rectified=True)
    x = walk.convolve("conv_last", walk.convolve("conv_hr", x, rectified=True))
    walk.finish()
    if not blocks:
        raise NcnnFormatError("no dense block follows the first convolution: this is no RRDBNet")
    features, growth = (walk.tensors[f"{name}.weight"].shape[0] for name in ("conv_first", "body.0.rdb1.conv1"))
    with torch.device("meta"):
        network = RRDBNet(features, blocks, growth, doublings)
    return _fill(network, walk.tensors)


def _fill(network: Network, tensors: Mapping[str, Tensor]) -> Network:
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    complaints = compare_shapes(expected, tensors)
    if complaints:
        raise NcnnFormatError(f"the ncnn layers do not fit together: {'; '.join(complaints[:4])}")
    network.load_state_dict(dict(tensors), assign=True)
    return network.eval().requires_grad_(False)


class _Walk:
    """Goes through a graph layer by layer, and refuses at the first that is not what the architecture has there."""

    def __init__(self, graph: NcnnGraph) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._origin: dict[str, str] = {}  # of what Split has only copied
        for layer in graph.layers:
            if layer.kind == "Split":
                self._origin |= dict.fromkeys(layer.outputs, self._trace(layer.inputs[0]))
        self._layers = [layer for layer in graph.layers if layer.kind != "Split"]

    def _trace(self, blob: str) -> str:
        return self._origin.get(blob, blob)

    @property
    def kind(self) -> str:
        """Of the layer that comes next; empty at the end."""
        return self._layers[0].kind if self._layers else ""

    def setting(self, number: int) -> Value | None:
        return self._layers[0].params.get(number)

    @property
    def activated(self) -> bool:
        return self.kind == "Convolution" and self.setting(9) is not None

    def take(self, kind: str, *inputs: str, params: Mapping[int, Value] | None) -> NcnnLayer:
        """The next layer, if it is of this kind, takes these blobs and has exactly these settings (None: any)."""
        expected = (
            f"a {kind} of {', '.join(inputs) or 'nothing'}{'' if params is None else f' with settings {dict(params)}'}"
        )
        if not self._layers:
            raise NcnnFormatError(f"the network ends where {expected} should be: it is not of this architecture")
        layer = self._layers.pop(0)
        taken, wanted = ([self._trace(blob) for blob in blobs] for blobs in (layer.inputs, inputs))
        if kind == "BinaryOp":  # with the settings asked for here, it adds: the order does not matter
            taken, wanted = sorted(taken), sorted(wanted)
        settings_fit = params is None or dict(layer.params) == dict(params)
        if layer.kind != kind or taken != wanted or len(layer.outputs) != 1 or not settings_fit:
            raise NcnnFormatError(
                f"layer {layer.name} ({layer.kind} with settings {dict(layer.params)}) stands where {expected} "
                f"should be: the network is not of this architecture"
            )
        return layer

    def convolve(self, name: str, x: str, rectified: bool = False) -> str:
        """A 3 x 3 convolution with padding 1 and a bias, whose weights are kept as ``name``."""
        own = {number: self.setting(number) or 0 for number in (0, 6)} if self.kind == "Convolution" else {}
        expected: dict[int, Value] = {**own, 1: 3, 4: 1, 5: 1}
        if rectified:
            expected |= {9: 2, 10: (SLOPE,)}
        layer = self.take("Convolution", x, params=expected)
        for part in ("weight", "bias"):
            self.tensors[f"{name}.{part}"] = torch.from_numpy(layer.weights[part])
        return layer.outputs[0]

    def enlarge(self, x: str, factor: int) -> str:
        """The nearest enlargement."""
        return self.take("Interp", x, params={0: 1, 1: float(factor), 2: float(factor)}).outputs[0]

    def pass_dense_block(self, name: str, x: str) -> str:
        seen, joined = [x], x
        for k in range(DENSE - 1):
            seen.append(self.convolve(f"{name}.conv{k + 1}", joined, rectified=True))
            joined = self.take("Concat", *seen, params={}).outputs[0]
        return self.add_scaled(self.convolve(f"{name}.conv{DENSE}", joined), x)

    def add_scaled(self, x: str, onto: str) -> str:
        return self.take("Eltwise", x, onto, params={0: 1, 1: (RESIDUAL, 1.0)}).outputs[0]

    def finish(self) -> None:
        """Nothing may follow."""
        if self._layers:
            layer = self._layers[0]
            raise NcnnFormatError(f"layer {layer.name} ({layer.kind}) comes after the last of this architecture")
