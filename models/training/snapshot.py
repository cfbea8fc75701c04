"""Snapshots: the weights at one moment of a run, as safetensors, and what a resumed run needs beside them.

Three files of one name: `.safetensors` (tensors "G.…", "G_ema.…", "D.…"; its header holds the record below, so that
the file alone can be loaded), `.state.pt` (optimisers, counters, generators; for `torch.load(weights_only=True)`), and,
last, `.json` (the record with the digests of the other two). A snapshot exists when its `.json` does.
Nothing in any of them is code, and loading runs none.
"""

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise

from models.training.atomic import publish, sha256
from models.training.config import DatasetRef, TrainingConfig

RECORD_KEY = "kaobako"


class SnapshotError(Exception):
    """A snapshot that cannot be used; the message says which, why, and what to do."""


class SnapshotRecord(BaseModel):
    """What a snapshot says about itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    nimg: int  # real pictures seen
    config: TrainingConfig
    dataset: DatasetRef
    diversity: float | None = None  # of the fakes at that moment, 1 = as different as the reals (models.training.watch)
    weights_sha256: str | None = None  # of the .safetensors; None in that file's own header
    state_sha256: str | None = None  # of the .state.pt; None: there never was one, as in an imported run


def snapshot_path(folder: Path, nimg: int) -> Path:
    """Where the record of the snapshot after `nimg` pictures lies."""
    return folder / f"snapshot-{nimg:09d}.json"


def weights_path(record: Path) -> Path:
    """The tensors that belong to a record."""
    return record.with_suffix(".safetensors")


def state_path(record: Path) -> Path:
    """The training state that belongs to a record; removed from all but the newest snapshots of a run."""
    return record.with_suffix(".state.pt")


def save_snapshot(
    folder: Path,  # the run's snapshots/
    nimg: int,  # real pictures seen
    config: TrainingConfig,
    dataset: DatasetRef,
    networks: Mapping[str, torch.nn.Module],  # by prefix: "G", "G_ema", "D"
    state: Mapping[str, Any] | None,  # plain containers of tensors, numbers and strings; None: nothing to resume from
    diversity: float | None = None,  # of the fakes, where it was measured
) -> Path:
    """Write one snapshot and return the path of its record. Killed half way, it leaves no record."""
    path = snapshot_path(folder, nimg)
    record = SnapshotRecord(nimg=nimg, config=config, dataset=dataset, diversity=diversity)
    tensors = {
        f"{prefix}.{name}": tensor.detach().cpu().contiguous()
        for prefix, network in networks.items()
        for name, tensor in network.state_dict().items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # the same moment again, after a resume: no record while its files are replaced

    # settings that are none must be said: their default may be another
    metadata = {RECORD_KEY: record.model_dump_json(exclude={"weights_sha256", "state_sha256"})}
    temporary = folder / f".{path.stem}.part"
    try:
        temporary.write_bytes(serialise(tensors, metadata=metadata))  # save_file would let its owner alone read it
        weights_sha256 = publish(temporary, weights_path(path))
        state_sha256 = None
        if state is not None:
            buffer = io.BytesIO()  # torch.save into a file would hide a full disk behind an error of its own
            torch.save(dict(state), buffer)
            temporary.write_bytes(buffer.getbuffer())
            state_sha256 = publish(temporary, state_path(path))
        complete = record.model_copy(update={"weights_sha256": weights_sha256, "state_sha256": state_sha256})
        temporary.write_text(complete.model_dump_json(indent=2) + "\n", encoding="utf-8")
        publish(temporary, path)
    except OSError:  # a full disk must not stay full of half a snapshot
        for file in (temporary, weights_path(path), state_path(path)):
            file.unlink(missing_ok=True)
        raise
    return path


def read_record(path: Path) -> SnapshotRecord:
    """The record of a snapshot, from its `.json`, or from the header of its `.safetensors` when given that file.

    Raises SnapshotError if the file is missing, is not a snapshot, or is of a newer format.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                text = (file.metadata() or {}).get(RECORD_KEY)
            if text is None:
                raise SnapshotError(f"{path} has no Kaobako header: it was written by another program")
        else:
            text = path.read_text(encoding="utf-8")
        return SnapshotRecord.model_validate_json(text)
    except (OSError, UnicodeDecodeError, SafetensorError) as error:
        raise SnapshotError(f"cannot read snapshot {path}: {error}") from error
    except ValidationError as error:
        raise SnapshotError(f"{path} is not a snapshot record that this version reads: {error}") from error


def check_snapshot(path: Path, with_state: bool) -> SnapshotRecord:
    """The record at `path` (`.json`), after its files were found and their digests verified; else SnapshotError."""
    record = read_record(path)
    expected = {weights_path(path): record.weights_sha256}
    if with_state:
        if record.state_sha256 is None:
            raise SnapshotError(f"snapshot {path.stem} has weights only: begin a new run with them by --transfer")
        expected[state_path(path)] = record.state_sha256
    for file, digest in expected.items():
        if not file.is_file():
            raise SnapshotError(f"snapshot {path.stem} lacks {file.name}: use another snapshot of the run")
        if sha256(file) != digest:
            raise SnapshotError(f"{file.name} is not what its record says (damaged or changed): use another snapshot")
    return record


def list_networks(path: Path) -> list[str]:
    """The networks in a `.safetensors`, by their prefix, sorted: "D", "G", "G_ema"; SnapshotError if unreadable."""
    try:
        with safe_open(path, framework="pt") as file:
            return sorted({name.partition(".")[0] for name in list(file.keys())})
    except (OSError, SafetensorError) as error:
        raise SnapshotError(f"cannot read {path}: {error}") from error


def load_weights(path: Path, prefix: str) -> dict[str, torch.Tensor]:
    """The tensors of one network ("G", "G_ema" or "D") out of a `.safetensors`, on the CPU, by their own names."""
    start = prefix + "."
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in list(file.keys()) if name.startswith(start)]
            tensors = {name.removeprefix(start): file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise SnapshotError(f"cannot read {path}: {error}") from error
    if not tensors:
        raise SnapshotError(f"{path} holds no network {prefix}")
    return tensors


def load_state(path: Path) -> dict[str, Any]:
    """The training state of the snapshot whose record is `path`; unpickles tensors and plain containers only."""
    try:
        state: dict[str, Any] = torch.load(state_path(path), map_location="cpu", weights_only=True)
    except (OSError, pickle.UnpicklingError, RuntimeError) as error:
        raise SnapshotError(f"cannot read the training state of {path.stem}: {error}") from error
    return state
