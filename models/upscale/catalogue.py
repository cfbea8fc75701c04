"""The networks that Kaobako knows by name: what each does, which weights it needs, how it is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.upscale.combined import DenoiseFirst, NearestFirst
from models.upscale.cunet import build_cunet, build_upcunet
from models.upscale.esrgan import build_compact, build_rrdb
from models.upscale.ncnn_format import read_ncnn
from models.upscale.network import UpscaleNetwork
from models.upscale.resnet10 import build_resnet10, build_upresnet10
from models.upscale.upconv7 import build_upconv7, build_upconv7_chainer
from models.upscale.vgg7 import build_vgg7
from models.weights import read_weight

DEFAULT_NETWORK = "upconv7"
NOISE_LEVELS = ("none", "0", "1", "2", "3")  # how much JPEG noise is removed: nothing, little, ..., much


@dataclass(frozen=True)
class NetworkInfo:
    """One network of the table."""

    name: str
    scale: int  # how often it multiplies each side; 1: it only removes noise
    about: str  # a line for people
    licence: str  # of the weights, SPDX identifier
    weights: Mapping[str, tuple[str, ...]]  # names in `models.weights` by noise level; the levels that there are
    build: Callable[..., UpscaleNetwork]  # from an `NcnnGraph`, or from the bytes of each of the weights

    @property
    def noise_levels(self) -> tuple[str, ...]:
        return tuple(self.weights)

    @property
    def has_ncnn_files(self) -> bool:
        """Whether the weights are a ``.param`` and a ``.bin``, which the ncnn library can run as well."""
        return all(names[0].endswith(".param") for names in self.weights.values())


def _build_enlarging_vgg7(*contents: bytes) -> UpscaleNetwork:
    return _enlarge_by_steps([build_vgg7(content) for content in contents])


def _build_enlarging_resnet10(*contents: bytes) -> UpscaleNetwork:
    return _enlarge_by_steps([build_resnet10(content) for content in contents])


def _enlarge_by_steps(networks: Sequence[UpscaleNetwork]) -> UpscaleNetwork:
    """The last network sharpens what was enlarged; one before it removes noise."""
    *denoise, sharpen = networks
    return DenoiseFirst(denoise[0], NearestFirst(sharpen)) if denoise else NearestFirst(sharpen)


_TABLE = (
    NetworkInfo(
        name="upconv7",
        scale=2,
        about="waifu2x upconv_7 with nagadomi's weights: the fastest of its quality",
        licence="MIT",
        weights={
            "none": ("waifu2x-upconv7.param", "waifu2x-upconv7-scale.bin"),
            "0": ("waifu2x-upconv7.param", "waifu2x-upconv7-noise0-scale.bin"),
            "1": ("waifu2x-upconv7.param", "waifu2x-upconv7-noise1-scale.bin"),
            "2": ("waifu2x-upconv7.param", "waifu2x-upconv7-noise2-scale.bin"),
            "3": ("waifu2x-upconv7.param", "waifu2x-upconv7-noise3-scale.bin"),
        },
        build=build_upconv7,
    ),
    NetworkInfo(
        name="upconv7-chainer",
        scale=2,
        about="waifu2x upconv_7 as trained anew by tsurumeso, with a wider fifth layer",
        licence="MIT",
        weights={
            "none": ("waifu2x-upconv7-art-scale",),
            "0": ("waifu2x-upconv7-art-noise0-scale",),
            "1": ("waifu2x-upconv7-art-noise1-scale",),
            "2": ("waifu2x-upconv7-art-noise2-scale",),
            "3": ("waifu2x-upconv7-art-noise3-scale",),
        },
        build=build_upconv7_chainer,
    ),
    NetworkInfo(
        name="cunet",
        scale=2,
        about="waifu2x cascaded U-Nets: better and slower than upconv7",
        licence="MIT",
        weights={
            "none": ("waifu2x-cunet.param", "waifu2x-cunet-scale.bin"),
            "0": ("waifu2x-cunet.param", "waifu2x-cunet-noise0-scale.bin"),
            "1": ("waifu2x-cunet.param", "waifu2x-cunet-noise1-scale.bin"),
            "2": ("waifu2x-cunet.param", "waifu2x-cunet-noise2-scale.bin"),
            "3": ("waifu2x-cunet.param", "waifu2x-cunet-noise3-scale.bin"),
        },
        build=build_upcunet,
    ),
    NetworkInfo(
        name="cunet-denoise",
        scale=1,
        about="waifu2x cascaded U-Nets that remove noise and keep the size",
        licence="MIT",
        weights={
            "0": ("waifu2x-cunet-denoise.param", "waifu2x-cunet-noise0.bin"),
            "1": ("waifu2x-cunet-denoise.param", "waifu2x-cunet-noise1.bin"),
            "2": ("waifu2x-cunet-denoise.param", "waifu2x-cunet-noise2.bin"),
            "3": ("waifu2x-cunet-denoise.param", "waifu2x-cunet-noise3.bin"),
        },
        build=build_cunet,
    ),
    NetworkInfo(
        name="vgg7",
        scale=2,
        about="waifu2x vgg_7, the oldest: sharpens what was enlarged by repeating pixels; slow",
        licence="MIT",
        weights={
            "none": ("waifu2x-vgg7-scale",),
            "0": ("waifu2x-vgg7-noise0", "waifu2x-vgg7-scale"),
            "1": ("waifu2x-vgg7-noise1", "waifu2x-vgg7-scale"),
            "2": ("waifu2x-vgg7-noise2", "waifu2x-vgg7-scale"),
            "3": ("waifu2x-vgg7-noise3", "waifu2x-vgg7-scale"),
        },
        build=_build_enlarging_vgg7,
    ),
    NetworkInfo(
        name="vgg7-denoise",
        scale=1,
        about="waifu2x vgg_7 that removes noise and keeps the size",
        licence="MIT",
        weights={
            "0": ("waifu2x-vgg7-noise0",),
            "1": ("waifu2x-vgg7-noise1",),
            "2": ("waifu2x-vgg7-noise2",),
            "3": ("waifu2x-vgg7-noise3",),
        },
        build=build_vgg7,
    ),
    NetworkInfo(
        name="resnet10",
        scale=2,
        about="waifu2x-chainer ResNet10: sharpens what was enlarged by repeating pixels; slow",
        licence="MIT",
        weights={
            "none": ("waifu2x-resnet10-scale",),
            "0": ("waifu2x-resnet10-noise0", "waifu2x-resnet10-scale"),
            "1": ("waifu2x-resnet10-noise1", "waifu2x-resnet10-scale"),
            "2": ("waifu2x-resnet10-noise2", "waifu2x-resnet10-scale"),
            "3": ("waifu2x-resnet10-noise3", "waifu2x-resnet10-scale"),
        },
        build=_build_enlarging_resnet10,
    ),
    NetworkInfo(
        name="resnet10-denoise",
        scale=1,
        about="waifu2x-chainer ResNet10 that removes noise and keeps the size",
        licence="MIT",
        weights={
            "0": ("waifu2x-resnet10-noise0",),
            "1": ("waifu2x-resnet10-noise1",),
            "2": ("waifu2x-resnet10-noise2",),
            "3": ("waifu2x-resnet10-noise3",),
        },
        build=build_resnet10,
    ),
    NetworkInfo(
        name="upresnet10",
        scale=2,
        about="waifu2x-chainer UpResNet10: residual blocks with squeeze and excite",
        licence="MIT",
        weights={
            "none": ("waifu2x-upresnet10-scale",),
            "0": ("waifu2x-upresnet10-noise0-scale",),
            "1": ("waifu2x-upresnet10-noise1-scale",),
            "2": ("waifu2x-upresnet10-noise2-scale",),
            "3": ("waifu2x-upresnet10-noise3-scale",),
        },
        build=build_upresnet10,
    ),
    NetworkInfo(
        name="realesr-animevideov3",
        scale=2,
        about="Real-ESRGAN's small network for anime video, 2x: redraws, cleans what is compressed",
        licence="BSD-3-Clause",
        weights={"none": ("realesr-animevideov3-x2.param", "realesr-animevideov3.bin")},
        build=build_compact,
    ),
    NetworkInfo(
        name="realesr-animevideov3-x3",
        scale=3,
        about="the same, 3x",
        licence="BSD-3-Clause",
        weights={"none": ("realesr-animevideov3-x3.param", "realesr-animevideov3.bin")},
        build=build_compact,
    ),
    NetworkInfo(
        name="realesr-animevideov3-x4",
        scale=4,
        about="the same, 4x",
        licence="BSD-3-Clause",
        weights={"none": ("realesr-animevideov3-x4.param", "realesr-animevideov3.bin")},
        build=build_compact,
    ),
    NetworkInfo(
        name="realesrgan-x4plus-anime",
        scale=4,
        about="Real-ESRGAN's network for illustrations, 4x: redraws with hard lines; slowest",
        licence="BSD-3-Clause",
        weights={"none": ("realesrgan-x4plus-anime.param", "realesrgan-x4plus-anime.bin")},
        build=build_rrdb,
    ),
)

NETWORKS: dict[str, NetworkInfo] = {info.name: info for info in _TABLE}


def get_network(name: str) -> NetworkInfo:
    """The table's row; ValueError, with the names there are, for another name."""
    try:
        return NETWORKS[name]
    except KeyError:
        raise ValueError(f"no network is called {name!r}: choose one of {', '.join(NETWORKS)}") from None


def weight_names(name: str, noise: str = "none") -> tuple[str, ...]:
    """The registered weights of a network at a noise level. ValueError, with the choices, where there is none."""
    info = get_network(name)
    try:
        return info.weights[noise]
    except KeyError:
        others = [other.name for other in _TABLE if noise in other.weights]
        way_out = f"; {noise!r} is known to {', '.join(others)}" if others else ""
        raise ValueError(
            f"{name} has no noise level {noise!r}: choose one of {', '.join(info.noise_levels)}{way_out}"
        ) from None


def load_network(name: str, noise: str = "none", folders: Sequence[Path] = ()) -> UpscaleNetwork:
    """A network with its registered weights: evaluation mode, float32, on the CPU, without gradients.

    Args:
        folders: where weights are looked for besides the user's own folder.

    Raises ValueError for an unknown name or noise level, and `models.weights.WeightError` when a file is missing or
    damaged.
    """
    contents = [read_weight(weight, folders) for weight in weight_names(name, noise)]
    info = get_network(name)
    network = info.build(read_ncnn(*contents)) if info.has_ncnn_files else info.build(*contents)
    return network.eval().requires_grad_(False)


def ncnn_files(name: str, noise: str = "none", folders: Sequence[Path] = ()) -> tuple[bytes, bytes] | None:
    """The checked bytes of a network's ``.param`` and ``.bin``; None where there are none. Errors as `load_network`."""
    names = weight_names(name, noise)
    if not get_network(name).has_ncnn_files:
        return None
    param, weights = (read_weight(weight, folders) for weight in names)
    return param, weights
