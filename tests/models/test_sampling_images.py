from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.sampling.images import LoadedGenerator, load_generator, sample, sample_grid, sample_images
from models.training.run import RunFolder
from models.training.snapshot import SnapshotError, load_weights, weights_path


@pytest.fixture(scope="module")
def generator(tiny_run: Path) -> LoadedGenerator:
    return load_generator(tiny_run)


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_averaged_weights_by_default(tiny_run: Path, generator: LoadedGenerator) -> None:
    record = RunFolder(tiny_run).snapshot_records()[-1]
    for prefix, loaded in (("G_ema", generator), ("G", load_generator(record, ema=False))):
        expected = load_weights(weights_path(record), prefix)["layers.0.weight"]
        assert torch.equal(loaded.network.state_dict()["layers.0.weight"], expected)
    assert generator.dataset.name == "discs"
    assert generator.nimg == 160


def test_a_seed_is_the_cell_of_that_number_in_the_runs_grid(tiny_run: Path, generator: LoadedGenerator) -> None:
    grid = read(RunFolder(tiny_run).fakes_file(160))
    cells = grid.reshape(8, 16, 12, 16, 3).swapaxes(1, 2).reshape(-1, 16, 16, 3)
    assert np.array_equal(cells[[17, 3, 95]], sample(generator, [17, 3, 95]))


def test_one_file_per_seed(tmp_path: Path, generator: LoadedGenerator) -> None:
    paths = sample_images(generator, [40, 2], tmp_path)
    assert [path.name for path in paths] == ["seed-00000040.png", "seed-00000002.png"]
    assert np.array_equal(read(paths[1]), sample(generator, [2])[0])


def test_grid_of_enlarged_cells(tmp_path: Path, generator: LoadedGenerator) -> None:
    path = sample_grid(generator, range(5), columns=3, path=tmp_path / "grid.png", cell=40)
    assert read(path).shape == (80, 120, 3)
    plain = sample_grid(generator, range(5), columns=3, path=tmp_path / "plain.png")
    assert np.array_equal(read(plain)[:16, 16:32], sample(generator, [1])[0])


def test_weights_that_do_not_fit_their_config(tiny_run: Path, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    source = weights_path(RunFolder(tiny_run).snapshot_records()[-1])
    tensors = load_file(source)
    tensors["G_ema.layers.0.weight"] = torch.zeros(1)
    with safe_open(source, framework="pt") as file:
        save_file(tensors, tmp_path / "changed.safetensors", metadata=file.metadata())
    with pytest.raises(SnapshotError, match="does not fit its own config"):
        load_generator(tmp_path / "changed.safetensors")
