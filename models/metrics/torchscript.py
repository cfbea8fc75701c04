"""A user's feature network as a TorchScript file.

TorchScript is a program: torch interprets it, and it can do what torch's operators can, writing files among it. It is
run for the user who named it, like any program of theirs. A file that holds pickled Python instead is refused unread.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models.metrics.contract import Contract, demand_contract, describe
from models.metrics.extraction import ExtractorError, NetworkExtractor, Pictures, digest_definition, reproducible

OWN_PREPARATION = Contract(size=None, input="uint8")


def load_torchscript(path: Path, content: bytes, contract: Contract | None, device: torch.device) -> NetworkExtractor:
    """An extractor out of a TorchScript file's bytes. See `models.metrics.extractors.load_extractor`.

    A network whose `forward` has the keyword `return_features` is called with it, and without a contract it is given
    uint8 RGB (N, 3, H, W) from 0 to 255 to resize by itself: the published metric networks of the StyleGAN trainers.
    """
    network = _load(path, content, device)
    keywords = {argument.name for argument in network.forward.schema.arguments}
    known = "return_features" in keywords
    if contract is None and not known:
        raise demand_contract(path, "does not say what its input is")
    agreed = contract or OWN_PREPARATION
    digest = digest_definition(content, describe(agreed))

    def compute(pictures: Pictures) -> npt.NDArray[np.floating]:
        with reproducible(device):
            try:
                given = network(agreed.prepare(pictures, device), **({"return_features": True} if known else {}))
            except (RuntimeError, torch.jit.Error) as error:
                raise ExtractorError(f"{path.name} cannot be run: {_last_line(error)}") from error
            return agreed.channels_first(_choose(path, given, agreed.output).float().cpu().numpy())

    return NetworkExtractor(f"{path.stem}-{digest[:8]}", digest, compute)


def _load(path: Path, content: bytes, device: torch.device) -> Any:
    _require_archive(path, content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript as a whole: the files are there
            return torch.jit.load(io.BytesIO(content), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise ExtractorError(f"{path.name} cannot be loaded as TorchScript: {_last_line(error)}") from error


def _require_archive(path: Path, content: bytes) -> None:
    """Refuse what is no TorchScript archive; what `torch.save` wrote bears the same suffix."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name.partition("/")[2] for name in archive.namelist()}
    except zipfile.BadZipFile:
        members = set()
    if "constants.pkl" not in members or not any(name.startswith("code/") for name in members):
        raise ExtractorError(
            f"{path.name} is not TorchScript but, it seems, pickled Python, which is not opened here: "
            "save the network with torch.jit.trace(network, example).save(...), or export it as ONNX."
        )


def _choose(path: Path, given: object, output: str | int | None) -> torch.Tensor:
    if output is not None and isinstance(given, dict | list | tuple):
        try:
            given = given[output]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            raise ExtractorError(f"{path.name} has no output {output!r}.") from None
    if not isinstance(given, torch.Tensor):
        raise ExtractorError(
            f"{path.name} gives a {type(given).__name__} of outputs: name the features' in its contract's `output`."
        )
    return given


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
