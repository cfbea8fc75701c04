import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.training.config import DatasetRef, TrainingConfig
from models.training.run import RunError, RunFolder, find_snapshot
from models.training.snapshot import (
    SnapshotError,
    check_snapshot,
    load_state,
    load_weights,
    read_record,
    save_snapshot,
    state_path,
    weights_path,
)


class Exploit:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.target,)


@pytest.fixture
def copied(tiny_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_run, tmp_path / "run")
    return RunFolder(tmp_path / "run").snapshot_records()[-1]


def test_the_tensor_file_alone_says_what_it_is(
    copied: Path, tmp_path: Path, tiny_training: TrainingConfig, disc_dataset: DatasetRef
) -> None:
    alone = tmp_path / "somewhere.safetensors"
    shutil.copy(weights_path(copied), alone)
    record = read_record(alone)
    assert (record.config, record.dataset, record.nimg) == (tiny_training, disc_dataset, 160)
    assert load_weights(alone, "D")["layers.0.weight"].shape == (4, 3, 4, 4)
    with pytest.raises(SnapshotError, match="no network mapping"):
        load_weights(alone, "mapping")


@pytest.mark.parametrize("part", ["weights", "state"])
def test_one_changed_byte_is_found(copied: Path, part: str) -> None:
    path = weights_path(copied) if part == "weights" else state_path(copied)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(SnapshotError, match="damaged"):
        check_snapshot(copied, with_state=True)


def test_a_missing_part_is_named(copied: Path) -> None:
    weights_path(copied).unlink()
    with pytest.raises(SnapshotError, match=r"lacks snapshot-000000160\.safetensors"):
        find_snapshot(copied)


def test_a_malicious_state_runs_nothing(copied: Path, tmp_path: Path) -> None:
    target = tmp_path / "executed"
    for content in (pickle.dumps(Exploit(target), protocol=2), None):
        if content is None:
            torch.save({"rng": Exploit(target)}, state_path(copied))
        else:
            state_path(copied).write_bytes(content)
        with pytest.raises(SnapshotError, match="training state"):
            load_state(copied)
    assert not target.exists()


def test_files_of_other_programs_are_refused(tmp_path: Path) -> None:
    stranger = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(1)}, stranger)
    with pytest.raises(SnapshotError, match="another program"):
        read_record(stranger)
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(SnapshotError, match="cannot read"):
        read_record(tmp_path / "broken.safetensors")
    (tmp_path / "record.json").write_text('{"format": 2}')
    with pytest.raises(SnapshotError, match="not a snapshot record"):
        read_record(tmp_path / "record.json")
    with pytest.raises(RunError, match="neither a run folder nor a snapshot"):
        find_snapshot(tmp_path / "network.pkl")


def test_killed_half_way_there_is_no_record(
    tmp_path: Path, tiny_training: TrainingConfig, disc_dataset: DatasetRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    network = torch.nn.Linear(2, 2)
    save_snapshot(tmp_path, 16, tiny_training, disc_dataset, {"G": network}, {})
    monkeypatch.setattr(torch, "save", killed)
    for nimg in (16, 32):  # the same moment again, and a new one
        with pytest.raises(KeyboardInterrupt):
            save_snapshot(tmp_path, nimg, tiny_training, disc_dataset, {"G": network}, {})
    assert list(tmp_path.glob("*.json")) == []


def test_a_run_without_snapshots_says_so(copied: Path) -> None:
    shutil.rmtree(copied.parent)
    with pytest.raises(RunError, match="no usable snapshot yet"):
        find_snapshot(copied.parent.parent)
