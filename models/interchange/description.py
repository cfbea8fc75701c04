"""What is in a model file, or in a snapshot of ours, for people: classes, sizes, settings, tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from models.interchange.imported_model import ImportedModel
from models.interchange.imported_run import KINDS, OWN_KIND, read_origin
from models.interchange.inert_file import InertFile, read_inert
from models.interchange.inert_pickle import ModelFileError, Record, plain
from models.interchange.own_export import is_own_export, read_own_export
from models.interchange.published_networks import read_network, read_training_set
from models.interchange.rosinality import KEYS, import_rosinality
from models.interchange.stylegan2_import import import_published
from models.training.run import find_snapshot
from models.training.snapshot import list_networks, load_weights, read_record, weights_path

OF_NETWORKS = (  # settings that a file says something about; the others are of a training
    *("resolution", "channels", "labels", "z_dim", "w_dim", "mapping_layers", "channel_base", "channel_max"),
    *("d_channel_base", "d_channel_max", "d_architecture", "mbstd_group", "mbstd_features"),
    *("half_resolutions", "conv_clamp"),
)


@dataclass(frozen=True)
class NetworkDescription:
    """One network."""

    name: str  # such as "G_ema"
    kind: str  # its class, or our algorithm
    tensors: dict[str, list[int]]  # name -> shape
    values: int  # numbers in all of them, buffers included
    modules: dict[str, str] = field(default_factory=dict)  # of a file: dotted name -> class
    source_length: int = 0  # characters of source text that the file brings along for them; never run


@dataclass(frozen=True)
class ModelDescription:
    """A file of others, or a snapshot of ours."""

    path: str
    kind: str
    bytes: int
    sha256: str | None
    networks: list[NetworkDescription]
    settings: dict[str, Any]  # as our config names them; empty where it cannot be imported
    about: dict[str, Any]  # what it says of its data, or where it comes from
    asks_for: dict[str, bool] = field(default_factory=dict)  # names in a pickle -> whether they are on the list
    problem: str | None = None  # why it cannot be imported
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Plain containers."""
        return asdict(self)


def describe_model(path: Path) -> ModelDescription:
    """A run folder, a snapshot (`.json` or `.safetensors`), an export, or a file of others; nothing in it is run.

    Raises ModelFileError for a file that is missing or too large, RunError or SnapshotError for a run or snapshot
    that cannot be read.
    """
    if is_own_export(path):
        return _describe_export(path)
    if path.is_dir() or path.suffix in (".json", ".safetensors"):
        return _describe_snapshot(find_snapshot(path))
    return _describe_file(read_inert(path))


def _describe_snapshot(path: Path) -> ModelDescription:
    record, weights = read_record(path), weights_path(path)
    networks = []
    for name in list_networks(weights):
        networks.append(_describe_tensors(name, record.config.algorithm.name, load_weights(weights, name)))
    config = record.config.model_dump(mode="json")
    about: dict[str, Any] = {"dataset": asdict(record.dataset), "nimg": record.nimg}
    origin = read_origin(path.absolute().parent.parent)
    if origin is not None:
        about["origin"] = origin
    return ModelDescription(
        path=str(path),
        kind="snapshot of Kaobako",
        bytes=weights.stat().st_size,
        sha256=record.weights_sha256,
        networks=networks,
        settings={**config.pop("algorithm"), **config},
        about=about,
    )


def _try(build: Callable[[], ImportedModel]) -> tuple[str | None, dict[str, Any], list[str]]:
    """Why there is no model, its settings, and what a person should know."""
    try:
        model = build()
    except ModelFileError as error:
        return str(error), {}, []
    config = model.config.model_dump(mode="json")
    known = {**config["algorithm"], **config}
    settings = {key: known[key] for key in OF_NETWORKS if known[key] is not None or key == "conv_clamp"}
    return None, settings, model.notes


def _describe_export(path: Path) -> ModelDescription:
    export = read_own_export(path)
    problem, settings, notes = _try(export.build)
    networks = [_describe_tensors(name, found.record.name, found.tensors) for name, found in export.networks.items()]
    return ModelDescription(
        path=str(path),
        kind=OWN_KIND,
        bytes=export.size,
        sha256=export.sha256,
        networks=networks,
        settings=settings,
        about=export.training_set,
        problem=problem,
        notes=notes,
    )


def _describe_file(file: InertFile) -> ModelDescription:
    problem, settings, notes = _try(lambda: (import_rosinality if file.kind == "torch" else import_published)(file))
    content = file.content if isinstance(file.content, dict) else {}
    return ModelDescription(
        path=str(file.path),
        kind=KINDS[file.kind] if problem is None else "file that cannot be imported",
        bytes=file.size,
        sha256=file.sha256,
        networks=_find_networks(content),
        settings=settings,
        about=read_training_set(content),
        asks_for={plain(name): allowed for name, allowed in file.asked.items()},
        problem=problem,
        notes=notes,
    )


def _find_networks(content: Mapping[Any, Any]) -> list[NetworkDescription]:
    """Whatever looks like a network, of any kind, that can be walked through."""
    found = []
    for name, value in content.items():
        if isinstance(value, Record) and isinstance(value.state, dict):
            try:
                network = read_network(plain(name), value)
            except ModelFileError:  # its description is what the problem says
                continue
            described = _describe_tensors(network.name, plain(value.name), network.tensors)
            modules = {path: plain(module.name) for path, module in network.modules.items() if path}
            length = sum(module.source_length for module in network.modules.values())
            found.append(NetworkDescription(**{**vars(described), "modules": modules, "source_length": length}))
        elif name in KEYS and isinstance(value, dict):
            tensors = {plain(key): tensor for key, tensor in value.items() if isinstance(tensor, Tensor)}
            found.append(_describe_tensors(plain(name), "state dict", tensors))
    return found


def _describe_tensors(name: str, kind: str, tensors: Mapping[str, Tensor]) -> NetworkDescription:
    return NetworkDescription(
        name=name,
        kind=kind,
        tensors={key: list(tensor.shape) for key, tensor in tensors.items()},
        values=sum(tensor.numel() for tensor in tensors.values()),
    )
