"""Fills waifu2x's networks with the weights of the two formats in which they are published.

ncnn's files name no parts of a network, so there the layers that have weights are matched with the network's by order;
their kinds, strides and paddings must be the same. chainer's archives name every array. In both, nothing may be
missing, left over or of another shape.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from models.upscale.ncnn_format import NcnnFormatError, NcnnGraph, NcnnLayer

KINDS: dict[type[nn.Module], str] = {
    nn.Conv2d: "Convolution",
    nn.ConvTranspose2d: "Deconvolution",
    nn.Linear: "InnerProduct",
}


def fill_from_ncnn(network: nn.Module, graph: NcnnGraph) -> None:
    """Set all weights of a network whose parts were registered in the order in which they are computed.

    Raises `NcnnFormatError` where the graph is of another network.
    """
    parts = [(name, module) for name, module in network.named_modules() if type(module) in KINDS]
    layers = graph.weighted
    if len(parts) != len(layers):
        raise NcnnFormatError(f"the network has {len(parts)} layers with weights, the files have {len(layers)}")
    state: dict[str, Tensor] = {}
    for (name, module), layer in zip(parts, layers, strict=True):
        if KINDS[type(module)] != layer.kind or _geometry(module) != _stored_geometry(layer):
            raise NcnnFormatError(f"layer {layer.name} ({layer.kind} {dict(layer.params)}) is not {name}: {module}")
        state |= {f"{name}.{role}": torch.from_numpy(values) for role, values in layer.weights.items()}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:  # torch's message names every part that does not fit
        raise NcnnFormatError(f"the files are of another network: {error}") from error


def fill_from_chainer(network: nn.Module, content: bytes, names: Mapping[str, str]) -> None:
    """Set all weights of a network from the bytes of an ``.npz``.

    Args:
        network: its biases that the archive lacks are set to zero.
        content: the archive; arrays of Python objects are refused, nothing in it is run.
        names: what the archive calls each part that has weights: {"convolutions.0": "conv1", ...}.

    Raises ValueError where the archive is no such archive or of another network.
    """
    # As torch does, chainer keeps a convolution as (outputs, inputs, y, x) and a transposed one as (inputs, outputs,
    # y, x), and computes both without turning the kernel round.
    stored = _read_arrays(content)
    state: dict[str, Tensor] = {}
    for part, name in names.items():
        state[f"{part}.weight"] = stored.pop(f"{name}/W", torch.empty(0))
        bias = stored.pop(f"{name}/b", None)
        module = network.get_submodule(part)
        if bias is None and isinstance(module, nn.ConvTranspose2d):
            bias = torch.zeros(module.out_channels)
        if bias is not None:
            state[f"{part}.bias"] = bias
    if stored:
        raise ValueError(f"the archive holds arrays of another network: {', '.join(sorted(stored))}")
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"the archive is of another network: {error}") from error


def _read_arrays(content: bytes) -> dict[str, Tensor]:
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise ValueError("this is no .npz archive, or one that is cut off")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name].astype(np.float32, copy=False)) for name in arrays.files}
    except (zipfile.BadZipFile, EOFError, AttributeError) as error:  # the last: a member that is no array
        raise ValueError(f"the archive is damaged: {error}") from error


def _geometry(module: nn.Module) -> tuple[int, int]:
    """Stride and padding of a convolution, each the same in both directions; (1, 0) of anything else."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return int(module.stride[0]), int(module.padding[0])
    return 1, 0


def _stored_geometry(layer: NcnnLayer) -> tuple[object, object]:
    if layer.kind == "InnerProduct":
        return 1, 0
    return layer.params.get(3, 1), layer.params.get(4, 0)
