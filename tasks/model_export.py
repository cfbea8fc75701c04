"""Export a trained model: its networks for other programs, a picture of what it makes, and the card that says so.

The folder appears at its place by one rename, complete, with `kaobako.json` that lists what is in it.
"""

from __future__ import annotations

import glob
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.errors import StoreError
from models.gan.pictures import to_uint8, write_png
from models.interchange.imported_run import read_origin
from models.interchange.model_card import CARD, UNKNOWN, CardFile, ModelFacts, check_licence, write_model_card
from models.interchange.onnx_export import LIMIT, OnnxCheck, check_onnx, export_onnx, load_in_float32, paint_with_torch
from models.interchange.own_export import is_own_export
from models.interchange.stylegan2_export import LayoutError, Network, check_layout, write_network
from models.sampling.generator import LoadedGenerator
from models.sampling.layout import cell_size, fit_cell, lay_grid
from models.sampling.settings import Ground
from models.training.atomic import sha256, write_text
from models.training.config import TrainingConfig
from models.training.metrics_file import read_metrics
from models.training.run import find_snapshot
from models.training.snapshot import SnapshotRecord, list_networks, load_weights, read_record, weights_path
from tasks.sample import find_home

RECORD = "kaobako.json"
KIND = "model export"
SAMPLES = "samples.png"
ONNX = "generator.onnx"
OLD = "old"  # where an older export lies while the new one takes its name
SEEDS = range(16)  # compared and shown
COLUMNS = 4
CELL = 256  # pixels of the longer side of a picture among the samples, at most
PAINTED = 4  # pictures that torch makes at once
NETWORKS: tuple[Network, ...] = ("G_ema", "G", "D")
USUAL: tuple[Network, ...] = ("G_ema", "D")
CONTENTS = {
    "G_ema": "the averaged generator, as published StyleGAN2",
    "G": "the generator of the last step, as published StyleGAN2",
    "D": "the discriminator, as published StyleGAN2",
}

Hear = Callable[[str], None]
"""Hears what is being made."""


class ModelFormat(StrEnum):
    """What other programs read."""

    SAFETENSORS = "safetensors"  # in the layout of the published StyleGAN2 networks
    ONNX = "onnx"


@dataclass(frozen=True)
class ModelExport:
    """What is asked for."""

    formats: Sequence[ModelFormat] = ()  # none: all that there are for the network
    networks: Sequence[str] = ()  # as safetensors: G_ema, G, D; none: G_ema and, where there is one, D
    licence: str = UNKNOWN  # SPDX identifier


@dataclass(frozen=True)
class ExportedModel:
    """What was written."""

    folder: Path
    nimg: int  # real pictures that the snapshot had seen
    files: list[CardFile]  # the card and the record left out
    check: OnnxCheck | None  # of the ONNX file


@dataclass(frozen=True)
class _Plan:
    """An export, checked before anything is computed."""

    source: Path  # of the snapshot
    home: Path  # the run's folder, or the snapshot's own
    record: SnapshotRecord
    formats: Sequence[ModelFormat]
    networks: Sequence[Network]
    licence: str

    @property
    def weights(self) -> Path:
        """The snapshot's tensors."""
        return weights_path(self.source)


def export_model(source: Path, out: Path, wish: ModelExport = ModelExport(), hear: Hear | None = None) -> ExportedModel:
    """Write the model of a run folder or snapshot to the new folder `out`; an older export there is replaced.

    Raises RunError or SnapshotError if there is no model, LayoutError or OnnxError if it cannot be written so,
    CardError for a licence that is none, StoreError for a folder that holds other files.
    """
    tell = hear or (lambda what: None)
    plan = _plan(source, wish)
    out = out.expanduser().resolve()
    _bring_back(out)
    check_place(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    room = Path(tempfile.mkdtemp(prefix=_rooms_of(out), dir=out.parent))
    staging = room / "new"
    try:
        staging.mkdir()  # not the room itself, which is for its owner alone
        made = _write(plan, staging, tell)
        check_place(out)
        _move(staging, out, room / OLD)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        with suppress(OSError):
            room.rmdir()  # unless the older export is still there
    return ExportedModel(out, plan.record.nimg, *made)


def _plan(source: Path, wish: ModelExport) -> _Plan:
    check_licence(wish.licence)
    if is_own_export(source) or (source.is_file() and source.suffix not in (".json", ".safetensors")):
        raise StoreError(f"{source} is no run of ours: import it first, kaobako models import {source} --out RUN")
    path = find_snapshot(source)
    record = read_record(path)
    formats = list(dict.fromkeys(wish.formats)) or _find_formats(record.config)
    networks: list[Network] = []
    if ModelFormat.SAFETENSORS in formats:
        check_layout(record.config)
        networks = _find_networks(weights_path(path), wish.networks)
    elif wish.networks:
        raise StoreError("--networks chooses among the safetensors: add --format safetensors, or leave it out")
    return _Plan(path, find_home(path), record, formats, networks, wish.licence)


def _find_formats(config: TrainingConfig) -> list[ModelFormat]:
    try:
        check_layout(config)
    except LayoutError:
        return [ModelFormat.ONNX]
    return list(ModelFormat)


def _find_networks(weights: Path, wanted: Sequence[str]) -> list[Network]:
    there = list_networks(weights)
    missing = [name for name in wanted if name not in NETWORKS or name not in there]
    if missing:
        known = ", ".join(name for name in NETWORKS if name in there) or "none"
        raise StoreError(f"{weights.name} has no network {missing[0]!r} to export: it has {known}")
    return [name for name in NETWORKS if name in (wanted or USUAL) and name in there]


def check_place(out: Path) -> None:
    """Raise StoreError unless `out` is free: not there, empty, or an export that nobody touched since."""
    if not out.exists():
        return
    if not out.is_dir():
        raise StoreError(f"{out} is a file: choose a new folder")
    names = {path.name for path in out.iterdir()}
    if not names:
        return
    ours = _read_digests(out)
    others = sorted(names - set(ours) - {RECORD}) if ours else sorted(names)
    if others:
        raise StoreError(f"{out} holds other files ({', '.join(others[:5])}): choose a new folder")
    changed = sorted(name for name in names - {RECORD} if sha256(out / name) != ours[name])
    if changed:
        raise StoreError(f"{changed[0]} was changed since it was exported to {out}: keep it, and choose a new folder")


def _read_digests(folder: Path) -> dict[str, str]:
    """The files of an export by their SHA-256 then; empty for a folder that is none."""
    try:
        said = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return dict(said["files"]) if said["kind"] == KIND else {}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _write(plan: _Plan, folder: Path, tell: Hear) -> tuple[list[CardFile], OnnxCheck | None]:
    """All files of an export, the card and the record included."""
    digest = sha256(plan.weights)
    notes = _describe(plan.record, digest)
    contents: dict[str, str] = {}
    for network in plan.networks:
        tell(network)
        name = f"{network}.safetensors"
        write_network(network, load_weights(plan.weights, network), plan.record.config, folder / name, notes)
        contents[name] = CONTENTS[network]
    generator = load_in_float32(plan.source)
    tell("samples")
    pictures = _paint(generator)
    _write_samples(generator, pictures, folder / SAMPLES)
    check = None
    if ModelFormat.ONNX in plan.formats:
        tell("onnx")
        export_onnx(generator, folder / ONNX, notes)
        tell("check")
        check = check_onnx(folder / ONNX, generator, SEEDS, pictures)
        contents[ONNX] = "the averaged generator as ONNX, float32"
    contents[SAMPLES] = f"{len(SEEDS)} samples"
    files = [
        CardFile(name, (folder / name).stat().st_size, sha256(folder / name), what) for name, what in contents.items()
    ]
    card = write_model_card(_collect_facts(plan, generator, digest, files, check))
    write_text(folder / CARD, card)
    _write_record(plan, folder, digest, check)
    return files, check


def _describe(record: SnapshotRecord, digest: str) -> dict[str, str]:
    """What each file says about where it comes from."""
    return {
        "nimg": str(record.nimg),
        "dataset": str(record.dataset),
        "dataset_digest": record.dataset.digest,
        "weights_sha256": digest,
    }


def _paint(generator: LoadedGenerator) -> np.ndarray:
    """float32 (16, C, H, W)"""
    starts = range(0, len(SEEDS), PAINTED)
    return np.concatenate([paint_with_torch(generator, SEEDS[start : start + PAINTED]) for start in starts])


def _write_samples(generator: LoadedGenerator, pictures: np.ndarray, path: Path) -> None:
    longer = max(generator.height, generator.width)
    height, width = cell_size(generator.height, generator.width, min(longer, CELL))
    cells = (fit_cell(picture, height, width, Ground.CHECKER) for picture in to_uint8(torch.from_numpy(pictures)))
    write_png(path, lay_grid(cells, len(pictures), COLUMNS))


def _collect_facts(
    plan: _Plan, generator: LoadedGenerator, digest: str, files: Sequence[CardFile], check: OnnxCheck | None
) -> ModelFacts:
    record = plan.record
    return ModelFacts(
        name=plan.home.name,
        config=record.config,
        dataset=record.dataset,
        nimg=record.nimg,
        weights_sha256=digest,
        licence=plan.licence,
        psi=generator.default_psi if generator.has_styles else None,
        seeds=SEEDS,
        metrics=[line for line in read_metrics(plan.home) if _measures(line, record.nimg, digest)],
        origin=_choose_origin(read_origin(plan.home)),
        check=""
        if check is None
        else f"{check.runtime} differs from torch by at most {check.largest:.1e} on {check.pictures} pictures in -1..1",
        files=files,
    )


def _measures(line: Mapping[str, Any], nimg: int, digest: str) -> bool:
    """Whether a line of metrics.jsonl is about the averaged weights of this snapshot, as they were trained: of psi 1.

    A training that measures has not written them yet: it says after how many pictures it did.
    """
    measured = line.get("weights_sha256")
    same = measured == digest if measured else line.get("nimg") == nimg
    return same and line.get("ema") is True and line.get("psi", 1.0) == 1


def _choose_origin(origin: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the card tells of it."""
    if origin is None:
        return None
    return {key: origin[key] for key in ("file", "sha256", "kind", "licence") if origin.get(key)}


def _write_record(plan: _Plan, folder: Path, digest: str, check: OnnxCheck | None) -> None:
    record = {
        "kind": KIND,
        "format": 1,
        "run": plan.home.name,
        "nimg": plan.record.nimg,
        "weights_sha256": digest,
        "dataset": asdict(plan.record.dataset),
        "licence": plan.licence,
        "onnx": None if check is None else {**asdict(check), "limit": LIMIT},
        "files": {path.name: sha256(path) for path in sorted(folder.iterdir())},
    }
    write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")


def _move(staging: Path, out: Path, old: Path) -> None:
    """Give the finished folder its name. An older export lies in `old` meanwhile, and goes at the end."""
    if out.exists():
        out.rename(old)
    try:
        staging.rename(out)
    except BaseException:
        if old.exists() and not out.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _rooms_of(out: Path) -> str:
    """How the names of the folders begin in which exports to `out` are made, beside it."""
    return f".{out.name}.partial-"


def _bring_back(out: Path) -> None:
    """Give an older export its name again if the one that was to replace it was killed between taking and giving it."""
    if out.exists():
        return
    kept = [room / OLD for room in out.parent.glob(f"{glob.escape(_rooms_of(out))}*") if _read_digests(room / OLD)]
    if kept:
        newest = max(kept, key=lambda old: (old / RECORD).stat().st_mtime)
        newest.rename(out)
