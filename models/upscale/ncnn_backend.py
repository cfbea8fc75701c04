"""Networks in ncnn: on a CPU several times as fast as torch. One thread per picture, several pictures at once.

ncnn's own threads are not used: two threads with a picture each get more done than one picture on two threads, and the
bits are the same. The interpreter lock is free while it computes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from models.upscale.fit import RGB
from models.upscale.network import UpscaleNetwork
from models.upscale.tiles import Planes, compute_picture

TILE_PIXELS = 384 * 384  # input pixels in one pass of a thread: 0.7 GB for upconv_7
GATED_PIXELS = 512 * 512  # the same where tiles are torch's, which is much slower: 2.7 GB for cunet

# Everything that would not be plain float32. Measured on upconv_7 and a CPU with AVX-512: bfloat16 storage is slower
# than float32 and up to 3/255 away from it; the float16 settings change nothing there, but would on an ARM CPU.
OFF = (
    *("use_vulkan_compute", "use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed"),
    *("use_bf16_storage", "use_int8_inference", "use_int8_packed", "use_int8_storage", "use_int8_arithmetic"),
)


class NcnnError(RuntimeError):
    """ncnn could not read or compute a network; the message says what to do."""


def ncnn_present() -> bool:
    """Whether the ncnn package is installed (it is not imported)."""
    return find_spec("ncnn") is not None


class NcnnBackend:
    """One network. Any number of threads may call it at a time; each result depends on its picture alone."""

    name = "ncnn"

    def __init__(
        self,
        network: UpscaleNetwork,
        param: bytes,
        weights: bytes,
        tta: bool = False,
        tile_pixels: int | None = None,
        fallback: Callable[[RGB, Callable[[], None]], RGB] | None = None,
    ) -> None:
        """
        Args:
            network: the same network in torch: its scale, margins and gates. It is not run.
            param: ncnn's text of layers, checked by the caller.
            weights: ncnn's weights, checked by the caller.
            tta: the mean of eight flips and rotations.
            tile_pixels: a picture with more pixels than this is done in tiles; None: by the network.
            fallback: enlarges a picture too large for one pass where tiles cannot: ncnn's gates see a tile only.

        Raises `NcnnError` when ncnn does not read the files.
        """
        growth = max(1, network.scale // 2) ** 2  # what a network of scale 4 makes at its end is four times as large
        most = (GATED_PIXELS if network.gates else TILE_PIXELS) // growth
        self.network = network
        self.tta = tta
        self.tile_pixels = most if tile_pixels is None else tile_pixels
        self._fallback = fallback
        self._net, self._input, self._output = _load_net(param, weights)

    def enlarge(self, rgb: RGB, stop: Callable[[], None] = lambda: None) -> RGB:
        """One picture: (H, W, 3) uint8 to (scale * H, scale * W, 3). ``stop`` is called between tiles and may raise."""
        if self.network.gates and rgb.shape[0] * rgb.shape[1] > self.tile_pixels:
            if self._fallback is None:
                raise NcnnError(
                    f"{rgb.shape[1]} x {rgb.shape[0]} pixels are too many for one pass, and a network with gates "
                    f"cannot be tiled by ncnn: use backend 'torch'"
                )
            return self._fallback(rgb, stop)
        return compute_picture(self.network, rgb, self._compute, self.tile_pixels, self.tta, stop)

    def _compute(self, padded: RGB) -> Planes:
        """(H, W, 3) uint8 to (3, H', W') float32. An extractor serves one call: threads share the weights only."""
        import ncnn

        planes = np.ascontiguousarray(padded.transpose(2, 0, 1), np.float32)
        planes /= np.float32(255)
        extractor = self._net.create_extractor()
        extractor.input(self._input, ncnn.Mat(planes))
        code, result = extractor.extract(self._output)
        if code != 0:
            raise NcnnError(f"ncnn could not compute {padded.shape[1]} x {padded.shape[0]} pixels (code {code})")
        return np.array(result)  # a copy: ncnn's memory goes with its matrix


def _load_net(param: bytes, weights: bytes) -> tuple[Any, str, str]:
    """The net and the names of its input and output.

    The weights go through a private folder for a moment: from memory ncnn would keep pointers to bytes that its binding
    has freed by then.
    """
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = 1
    for name in OFF:
        if hasattr(net.opt, name):
            setattr(net.opt, name, False)
    if net.load_param_mem(param.decode("ascii")) != 0:
        raise NcnnError("ncnn does not read the network's .param file: update the ncnn package, or use backend 'torch'")
    with tempfile.TemporaryDirectory(prefix="kaobako-ncnn-") as folder:
        path = Path(folder) / "weights.bin"
        path.write_bytes(weights)
        if net.load_model(os.fspath(path)) != 0:
            raise NcnnError(
                "ncnn does not read the network's .bin file: update the ncnn package, or use backend 'torch'"
            )
    inputs, outputs = net.input_names(), net.output_names()
    if len(inputs) != 1 or len(outputs) != 1:
        raise NcnnError(f"the network has inputs {inputs} and outputs {outputs}, but one of each is needed")
    return net, inputs[0], outputs[0]
