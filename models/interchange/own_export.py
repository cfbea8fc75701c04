"""What `kaobako models export` wrote, back again: networks in the published layout as safetensors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from models.interchange.imported_model import ImportedModel
from models.interchange.inert_file import MAX_FILE_BYTES
from models.interchange.inert_pickle import ModelFileError, Record, plain
from models.interchange.published_networks import NETWORKS, PublishedNetwork
from models.interchange.stylegan2_export import FORMAT
from models.interchange.stylegan2_import import import_networks
from models.training.atomic import sha256

TOLD = ("dataset", "dataset_digest", "nimg", "weights_sha256")  # of the header: where the networks come from


@dataclass(frozen=True)
class OwnExport:
    """An export, or one file of it."""

    path: Path
    sha256: str  # of the generator's file
    size: int  # bytes of all
    networks: dict[str, PublishedNetwork]
    training_set: dict[str, Any]

    def build(self) -> ImportedModel:
        """Its networks as ours; ModelFileError, naming what is wrong, if they are not what an export holds."""
        try:
            return import_networks(self.networks, self.training_set)
        except ModelFileError as error:
            raise ModelFileError(f"{self.path} cannot be imported: {error}") from error


def is_own_export(path: Path) -> bool:
    """Whether this is a file that an export wrote, or a folder with such files."""
    return any(_read_header(file).get("format") == FORMAT for file in _find_files(path))


def read_own_export(path: Path) -> OwnExport:
    """The networks of a folder, or of one of its files. Raises ModelFileError for one without a generator."""
    found = {_read_header(file).get("network", ""): file for file in _find_files(path)}
    files = {name: found[name] for name in NETWORKS if name in found}
    generator = files.get("G_ema") or files.get("G")
    if generator is None:
        held = ", ".join(plain(name) for name in found) or "no network"
        raise ModelFileError(f"{path} holds {held}, and a run needs G_ema.safetensors or G.safetensors")
    size = sum(file.stat().st_size for file in files.values())
    if size > MAX_FILE_BYTES:
        raise ModelFileError(f"{path} has {size:,} bytes, and at most {MAX_FILE_BYTES >> 30} GiB are read")
    header = _read_header(generator)
    networks = {name: _read_network(name, file) for name, file in files.items()}
    training_set = {key: plain(header[key]) for key in TOLD if key in header}
    return OwnExport(path, sha256(generator), size, networks, training_set)


def _find_files(path: Path) -> list[Path]:
    if path.is_dir():
        return [file for file in (path / f"{name}.safetensors" for name in NETWORKS) if file.is_file()]
    return [path] if path.is_file() and path.suffix == ".safetensors" else []


def _read_header(file: Path) -> dict[str, str]:
    try:
        with safe_open(file, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ModelFileError(f"cannot read {file}: {error}") from error


def _read_network(name: str, file: Path) -> PublishedNetwork:
    tensors: dict[str, Tensor] = {}
    with safe_open(file, framework="pt") as opened:
        for key in list(opened.keys()):
            tensors[plain(key)] = opened.get_tensor(key)
            if tensors[plain(key)].numel() == 0:
                raise ModelFileError(f"{file}: {plain(key)} is empty")
    try:
        arguments = json.loads(_read_header(file).get("init_kwargs", "null"))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{file}: the init_kwargs of its header are no JSON") from error
    record = Record("Discriminator" if name == "D" else "Generator", state={"_init_kwargs": arguments})
    return PublishedNetwork(name, record, tensors, {"": record})
