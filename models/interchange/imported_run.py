"""An import as a run folder: to sample from, to rank by, to begin a training with.

It has what any run has, apart from a training state (there is none to go on from) and pictures of reals, and one file
more: origin.json, which says where the networks come from and what is known about them. config.json is written last:
before it, the folder is no run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import nn

from models.interchange.imported_model import ImportedModel
from models.interchange.inert_file import InertFile, read_inert
from models.interchange.rosinality import import_rosinality
from models.interchange.stylegan2_import import import_published
from models.training.atomic import write_text
from models.training.config import DatasetRef, TrainingConfig
from models.training.grids import Grids
from models.training.run import RunError, RunFolder
from models.training.snapshot import save_snapshot

ORIGIN_FILE = "origin.json"
UNKNOWN = "unknown"  # digest of an imported run's pictures: nobody here has seen them
LICENCE = (
    "not said in the file. NVIDIA's own models and those trained with its code are for non-commercial use; ask whoever "
    "gave you the file"
)
KINDS = {"pickle": "StyleGAN2 of StyleGAN2-ADA's or StyleGAN3's repository", "torch": "StyleGAN2 of rosinality's"}


@dataclass(frozen=True)
class Origin:
    """Where a run's networks come from."""

    file: str  # name of the file, without its folder
    sha256: str  # of the file
    bytes: int  # of the file
    kind: str  # whose format it is
    networks: dict[str, str]  # in the file -> their class there
    parameters: dict[str, int]  # trained numbers of each network
    training_set: dict[str, Any]  # what the file says of its pictures; nobody has checked it
    licence: str
    notes: list[str]  # what was made up for the file, or is missing


@dataclass(frozen=True)
class ImportedRun:
    """What an import has left."""

    folder: Path
    snapshot: Path  # its record
    grid: Path  # a picture of the networks' pictures
    config: TrainingConfig  # of a training that would make such networks
    origin: Origin


def import_model(path: Path, out: Path) -> ImportedRun:
    """Read a model file, without running anything in it, into a new run folder.

    Raises ModelFileError for a file that cannot be imported, RunError for a folder that holds a run or is in use.
    """
    folder = RunFolder(out)
    if folder.exists():
        raise RunError(f"{out} holds a run already: choose another folder for the import")
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file: a run needs a folder")
    file = read_inert(path)
    model = import_rosinality(file) if file.kind == "torch" else import_published(file)
    origin = _describe(file, model)
    dataset = describe_dataset(model.training_set)
    with folder.claim():
        folder.drop_debris()
        snapshot = save_snapshot(folder.snapshots, 0, model.config, dataset, model.networks, None)
        grid = _show_fakes(folder, model)
        write_text(out / ORIGIN_FILE, json.dumps(asdict(origin), indent=2, ensure_ascii=False) + "\n")
        folder.write_config(model.config, dataset, torch.device("cpu"))  # last: only now is this a run
    return ImportedRun(out, snapshot, grid, model.config, origin)


def describe_dataset(training_set: Mapping[str, Any]) -> DatasetRef:
    """What a file says that its networks were trained on, as far as it says it: the last part of its path."""
    path = str(training_set.get("path") or "").replace("\\", "/")
    name = re.sub(r"[^\w.+-]+", "-", PurePosixPath(path).stem).strip("-.")[:80]
    count = training_set.get("max_size")
    return DatasetRef(
        name=name or UNKNOWN,
        version=0,
        digest=UNKNOWN,
        count=count if isinstance(count, int) and count > 0 else 0,
    )


def count_parameters(network: nn.Module) -> int:
    """Trained numbers of a network: buffers excluded."""
    return sum(weight.numel() for weight in network.parameters())


def _describe(file: InertFile, model: ImportedModel) -> Origin:
    return Origin(
        file=file.path.name.encode("utf-8", "replace").decode("utf-8"),
        sha256=file.sha256,
        bytes=file.size,
        kind=KINDS[file.kind],
        networks=model.found,
        parameters={name: count_parameters(model.networks[name]) for name in model.found},
        training_set=model.training_set,
        licence=LICENCE,
        notes=model.notes,
    )


def _show_fakes(folder: RunFolder, model: ImportedModel) -> Path:
    """The grid that every run has of its generator: cell k is seed k, untruncated, its class k where there are any."""
    grids = Grids(model.config, folder)
    labels = model.config.labels
    if labels:
        grids.labels = np.eye(labels, dtype=np.float32)[np.arange(grids.cells) % labels]
    grids.write_fakes(grids.make_fakes(model.networks["G_ema"]), 0)
    assert grids.newest is not None
    return grids.newest
