"""An import as a run: sampled from, ranked by, begun with; and what is left when it is cut off."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.gan.pictures import to_uint8
from models.gan.scoring import load_discriminator
from models.interchange import imported_run
from models.interchange.description import describe_model
from models.interchange.imported_run import ORIGIN_FILE, describe_dataset, import_model, read_origin
from models.interchange.inert_pickle import ModelFileError
from models.sampling.generator import Code, load_generator
from models.training.config import DatasetRef, TrainingConfig
from models.training.grids import Grids
from models.training.networks import build_discriminator, build_generator
from models.training.run import RunError, RunFolder, find_snapshot
from models.training.snapshot import SnapshotError, check_snapshot, read_record, weights_path
from models.training.transfer import TransferError, transfer_weights


@pytest.fixture
def file(published: Any, tmp_path: Path) -> Path:
    """A snapshot of others with all three networks."""
    networks = {"G": published.generator(1), "D": published.discriminator(2), "G_ema": published.generator(3)}
    return published.snapshot(tmp_path / "network-snapshot-000100.pkl", **networks)


def test_the_run_says_where_it_comes_from(file: Path, tmp_path: Path) -> None:
    run = import_model(file, tmp_path / "run")
    config, dataset = RunFolder(run.folder).read_config()
    assert dataset == DatasetRef("portraits", 0, "unknown", 900)
    record = read_record(run.snapshot)
    assert (record.config, record.dataset, record.nimg, record.state_sha256) == (config, dataset, 0, None)
    assert read_record(weights_path(run.snapshot)).config == config
    said = json.loads((run.folder / ORIGIN_FILE).read_text(encoding="utf-8"))
    assert said["file"] == "network-snapshot-000100.pkl"
    assert said["networks"] == {"G_ema": "Generator", "G": "Generator", "D": "Discriminator"}
    assert said["training_set"]["max_size"] == 900
    assert "non-commercial" in said["licence"]
    assert run.grid.is_file()


def test_settings_that_are_none_survive_in_the_weights_file(published: Any, tmp_path: Path) -> None:
    """The header of the .safetensors alone must give the same network: no clamp is not the usual clamp."""
    file = published.snapshot(tmp_path / "x.pkl", G_ema=published.generator(1, clamp=None))
    run = import_model(file, tmp_path / "run")
    config = read_record(weights_path(run.snapshot)).config
    assert config == read_record(run.snapshot).config
    assert config.algorithm.model_dump()["conv_clamp"] is None


def test_its_generator_and_discriminator_are_used_as_any_run_s(file: Path, tmp_path: Path) -> None:
    run = import_model(file, tmp_path / "run")
    generator = load_generator(run.folder)
    latents = np.random.default_rng(0).standard_normal((2, 8), dtype=np.float32)
    codes = generator.codes(latents)
    pictures = list(generator.draw(Code(values, 0) for values in codes))
    with torch.inference_mode():
        network = generator.network
        expected = to_uint8(network(torch.from_numpy(latents), psi=0.7))
    assert (np.stack(pictures).astype(int) - expected).__abs__().max() <= 1  # the batch differs
    scores = load_discriminator(run.folder).score(np.stack(pictures))
    assert scores.shape == (2,)
    assert scores[0] != scores[1]


def test_classes_take_turns_in_the_grid(published: Any, tmp_path: Path) -> None:
    file = published.snapshot(tmp_path / "x.pkl", G_ema=published.generator(1, c_dim=3))
    run = import_model(file, tmp_path / "run")
    assert RunFolder(run.folder).read_config()[0].labels == 3
    assert run.grid.stat().st_size > 10_000


def test_a_training_begins_with_it(file: Path, tmp_path: Path) -> None:
    run = import_model(file, tmp_path / "run")
    networks = make_networks(RunFolder(run.folder).read_config()[0])
    report = transfer_weights(weights_path(run.snapshot), networks)
    assert all("(100% of the weights)" in line for line in report.lines())


def test_a_training_begins_with_a_generator_alone(published: Any, tmp_path: Path) -> None:
    file = published.snapshot(tmp_path / "x.pkl", G_ema=published.generator(1))
    run = import_model(file, tmp_path / "run")
    networks = make_networks(RunFolder(run.folder).read_config()[0])
    before = {name: tensor.clone() for name, tensor in networks["D"].state_dict().items()}
    report = transfer_weights(weights_path(run.snapshot), networks)
    assert report.lines()[1] == "D: the snapshot holds none, so it begins anew"
    assert all(torch.equal(tensor, before[name]) for name, tensor in networks["D"].state_dict().items())
    networks["D"].requires_grad_(False)
    with pytest.raises(TransferError, match="freeze_d would keep"):
        transfer_weights(weights_path(run.snapshot), networks)
    with pytest.raises(SnapshotError, match="no network D"):
        load_discriminator(run.folder)


def make_networks(config: TrainingConfig) -> dict[str, torch.nn.Module]:
    networks = {"G": build_generator(config), "D": build_discriminator(config), "G_ema": build_generator(config)}
    for network in networks.values():
        for tensor in network.state_dict().values():
            tensor.fill_(0.5)
    return networks


def test_nothing_can_be_resumed(file: Path, tmp_path: Path) -> None:
    run = import_model(file, tmp_path / "run")
    assert find_snapshot(run.folder) == run.snapshot
    with pytest.raises(SnapshotError, match="weights only: begin a new run with them by --transfer"):
        check_snapshot(run.snapshot, with_state=True)


def test_a_run_is_never_written_over(file: Path, tmp_path: Path) -> None:
    run = import_model(file, tmp_path / "run")
    before = run.snapshot.read_bytes()
    with pytest.raises(RunError, match="holds a run already"):
        import_model(file, run.folder)
    with pytest.raises(RunError, match="is a file"):
        import_model(file, file)
    assert run.snapshot.read_bytes() == before


@pytest.mark.parametrize(
    "name", ["notes.txt", "snapshots/holiday.part", "snapshots/snapshot-000000000.txt", "fakes/mine.png"]
)
def test_a_folder_with_anything_else_is_not_touched(file: Path, tmp_path: Path, name: str) -> None:
    mine = tmp_path / "run" / name
    mine.parent.mkdir(parents=True)
    mine.touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError, match=r"holds other files .*: choose a new folder"):
        import_model(file, tmp_path / "run")
    assert sorted(tmp_path.rglob("*")) == before


def test_links_are_not_followed_to_other_places(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(RunError, match="link is a symbolic link to a place that does not exist"):
        import_model(file, tmp_path / "link")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.part").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "snapshots").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match=r"holds other files \(snapshots\)"):
        import_model(file, tmp_path / "run")
    assert (tmp_path / "elsewhere" / "mine.part").is_file()


def test_it_says_how_far_it_is(file: Path, tmp_path: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    run = import_model(file, tmp_path / "run", lambda *said: heard.append(said))
    grids = Grids(run.config, RunFolder(tmp_path / "other"))
    assert heard[:2] == [("read", 0, 1), ("read", 1, 1)]
    assert [said[0] for said in heard[2:]] == ["grid"] * (len(heard) - 2)
    assert len(heard) > 4
    assert heard[-1] == ("grid", grids.cells, grids.cells)
    grids.write_fakes(grids.make_fakes(load_generator(run.folder).network), 0)
    assert grids.newest is not None
    pictures = [np.asarray(Image.open(path), np.int16) for path in (run.grid, grids.newest)]
    assert np.abs(pictures[0] - pictures[1]).max() <= 1  # weights that were read back lie elsewhere in memory


@pytest.mark.parametrize("content", ["{", "[1]", "\x80", "[" * 100_000])
def test_an_origin_that_cannot_be_read_is_one_sentence(file: Path, tmp_path: Path, content: str) -> None:
    run = import_model(file, tmp_path / "run")
    assert read_origin(tmp_path) is None
    (run.folder / ORIGIN_FILE).write_bytes(content.encode("latin1"))
    for ask in (lambda: read_origin(run.folder), lambda: describe_model(run.folder)):
        with pytest.raises(RunError, match="import them again"):
            ask()


def test_a_file_that_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(b"\x80\x04cos\nsystem\n(tR.")
    with pytest.raises(ModelFileError, match=r"os\.system"):
        import_model(tmp_path / "x.pkl", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_cut_off_half_way_it_is_no_run_and_can_be_done_again(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(imported_run, "_show_fakes", fail)
        import_model(file, tmp_path / "run")
    assert not RunFolder(tmp_path / "run").exists()
    run = import_model(file, tmp_path / "run")
    assert load_generator(run.folder).z_dim == 8


@pytest.mark.parametrize(
    ("said", "name", "count"),
    [
        ({"path": "C:\\data\\my set.zip", "max_size": 5}, "my-set", 5),
        ({"path": "../../etc/passwd", "max_size": -1}, "passwd", 0),
        ({"path": "/", "max_size": None}, "unknown", 0),
        ({}, "unknown", 0),
    ],
)
def test_the_name_of_the_data(said: dict[str, Any], name: str, count: int) -> None:
    assert describe_dataset(said) == DatasetRef(name, 0, "unknown", count)
