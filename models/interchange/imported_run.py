"""An import as a run folder: to sample from, to rank by, to begin a training with.

It has what any run has, apart from a training state (there is none to go on from) and pictures of reals, and one file
more: origin.json, which says where the networks come from and what is known about them. config.json is written last:
before it, the folder is no run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import nn

from models.gan.latents import draw_latents, generate, picture_batch
from models.interchange.imported_model import ImportedModel
from models.interchange.inert_file import InertFile, read_inert
from models.interchange.labels import take_turns
from models.interchange.own_export import OwnExport, is_own_export, read_own_export
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
OWN_LICENCE = "said in the README.md of the export, where there is one"
KINDS = {"pickle": "StyleGAN2 of StyleGAN2-ADA's or StyleGAN3's repository", "torch": "StyleGAN2 of rosinality's"}
OWN_KIND = "StyleGAN2 exported by Kaobako"

ImportProgress = Callable[[str, int, int], None]
"""Hears what is being done ("read", "grid"), how much of it is done, and of how much."""

_LEAVINGS = (  # of a killed import, as paths in its folder; anything else there is somebody's
    r"\.lock|origin\.json|\.(origin|config)\.json\.part|snapshots|fakes|"
    r"snapshots/(snapshot-000000000\.(json|safetensors)|\.snapshot-000000000\.part)|"
    r"fakes/(fakes-000000000\.png|\.fakes-000000000\.png\.part)"
)


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


def import_model(path: Path, out: Path, progress: ImportProgress | None = None) -> ImportedRun:
    """Read a model file, or what `models export` wrote, into a new run folder; nothing in it is run.

    Raises ModelFileError for a file that cannot be imported, RunError for a folder that is in use or holds anything
    but what a killed import leaves.
    """
    hear = progress or (lambda what, done, total: None)
    folder = RunFolder(out)
    _check_place(folder)
    hear("read", 0, 1)
    model, origin = _read_model(path)
    hear("read", 1, 1)
    dataset = describe_dataset(model.training_set)
    with folder.claim():
        _check_place(folder)  # again: another import may have ended meanwhile
        folder.drop_debris()
        snapshot = save_snapshot(folder.snapshots, 0, model.config, dataset, model.networks, None)
        grid = _show_fakes(folder, model, hear)
        write_text(out / ORIGIN_FILE, json.dumps(asdict(origin), indent=2, ensure_ascii=False) + "\n")
        folder.write_config(model.config, dataset, torch.device("cpu"))  # last: only now is this a run
    return ImportedRun(out, snapshot, grid, model.config, origin)


def read_origin(run: Path) -> dict[str, Any] | None:
    """Where an imported run's networks come from, as `Origin`; None for a run that was trained here.

    Raises RunError for a file that cannot be read.
    """
    path = run / ORIGIN_FILE
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"cannot read where the imported networks come from, {path}: import them again") from error
    if not isinstance(said, dict):
        raise RunError(f"{path} does not say where the imported networks come from: import them again")
    return said


def _check_place(folder: RunFolder) -> None:
    """Raise RunError unless a run can be made here without touching anything of anybody's."""
    out = folder.path
    if folder.exists():
        raise RunError(f"{out} holds a run already: choose another folder for the import")
    if out.is_symlink() and not out.exists():
        raise RunError(f"{out} is a symbolic link to a place that does not exist: make that, or choose another folder")
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file: a run needs a folder")
    others = (path for path in out.rglob("*") if not _is_leaving(out, path))
    if found := next(others, None):  # not all of them: it may be somebody's home
        raise RunError(f"{out} holds other files ({found.relative_to(out)}): choose a new folder for the import")


def _is_leaving(out: Path, path: Path) -> bool:
    """Whether a killed import left this in its folder. It makes no links: what one points to is somebody's."""
    return not path.is_symlink() and bool(re.fullmatch(_LEAVINGS, path.relative_to(out).as_posix()))


def _read_model(path: Path) -> tuple[ImportedModel, Origin]:
    if is_own_export(path):
        export = read_own_export(path)
        model = export.build()
        return model, _describe(export, model, OWN_KIND, OWN_LICENCE)
    file = read_inert(path)
    model = import_rosinality(file) if file.kind == "torch" else import_published(file)
    return model, _describe(file, model, KINDS[file.kind], LICENCE)


def describe_dataset(training_set: Mapping[str, Any]) -> DatasetRef:
    """What a file says that its networks were trained on, as far as it says it: the last part of its path."""
    path = str(training_set.get("path") or training_set.get("dataset") or "").replace("\\", "/")
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


def _describe(file: InertFile | OwnExport, model: ImportedModel, kind: str, licence: str) -> Origin:
    return Origin(
        file=file.path.name.encode("utf-8", "replace").decode("utf-8"),
        sha256=file.sha256,
        bytes=file.size,
        kind=kind,
        networks=model.found,
        parameters={name: count_parameters(model.networks[name]) for name in model.found},
        training_set=model.training_set,
        licence=licence,
        notes=model.notes,
    )


def _show_fakes(folder: RunFolder, model: ImportedModel, hear: ImportProgress) -> Path:
    """The grid that every run has of its generator: cell k is seed k, untruncated, its class k where there are any."""
    config = model.config
    grids = Grids(config, folder)
    batch = picture_batch(config.height, config.width)
    parts = []
    for start in range(0, grids.cells, batch):
        hear("grid", start, grids.cells)
        seeds = range(start, min(start + batch, grids.cells))
        labels = take_turns(seeds, config.labels) if config.labels else None
        latents = draw_latents(seeds, config.algorithm.z_dim)
        parts.append(generate(model.networks["G_ema"], latents, labels, batch))
    hear("grid", grids.cells, grids.cells)
    grids.write_fakes(np.concatenate(parts), 0)
    assert grids.newest is not None
    return grids.newest
