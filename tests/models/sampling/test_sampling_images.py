from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.sampling.generator import Code, LoadedGenerator, load_generator
from models.sampling.images import sample, sample_grid, sample_images
from models.sampling.settings import Noise, SamplingError, SamplingSettings
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
    assert (generator.height, generator.width, generator.channels, generator.z_dim) == (16, 16, 3, 8)


def test_a_seed_is_the_cell_of_that_number_in_the_runs_grid(tiny_run: Path, generator: LoadedGenerator) -> None:
    grid = read(RunFolder(tiny_run).fakes_file(160))
    cells = grid.reshape(8, 16, 12, 16, 3).swapaxes(1, 2).reshape(-1, 16, 16, 3)
    assert np.array_equal(cells[[17, 3, 95]], list(sample(generator, [17, 3, 95])))


def test_one_file_per_seed_written_as_it_comes(tmp_path: Path, generator: LoadedGenerator) -> None:
    seen: list[tuple[int, int, int]] = []

    def watch(done: int, total: int) -> None:
        seen.append((done, total, len(list(tmp_path.iterdir()))))

    seeds = [40, 2, *range(100, 140)]
    paths = sample_images(generator, seeds, tmp_path, progress=watch)
    assert [path.name for path in paths[:2]] == ["seed-00000040.png", "seed-00000002.png"]
    assert np.array_equal(read(paths[1]), next(sample(generator, [2])))
    assert seen == [(k, 42, k) for k in range(1, 43)]


def test_codes_are_taken_only_as_needed(generator: LoadedGenerator) -> None:
    taken = count()

    def endless() -> Iterator[Code]:
        while True:
            yield Code(np.full(8, next(taken), np.float32), 0)

    assert len(list(islice(generator.draw(endless()), 3))) == 3
    assert next(taken) == generator.batch == 32


def test_grid_of_enlarged_cells(tmp_path: Path, generator: LoadedGenerator) -> None:
    path = sample_grid(generator, range(5), columns=3, path=tmp_path / "grid.png", cell=40)
    assert read(path).shape == (80, 120, 3)
    plain = sample_grid(generator, range(5), columns=3, path=tmp_path / "plain.png")
    assert np.array_equal(read(plain)[:16, 16:32], next(sample(generator, [1])))
    assert not read(plain)[16:, 32:].any()
    few = sample_grid(generator, [1], columns=8, path=tmp_path / "few.png")
    assert read(few).shape == (16, 16, 3)


def test_a_grid_too_large_to_open_is_refused_before_any_work(tmp_path: Path, generator: LoadedGenerator) -> None:
    with pytest.raises(SamplingError, match="fewer seeds or smaller cells"):
        sample_grid(generator, range(10_000), columns=8, path=tmp_path / "grid.png", cell=512)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (SamplingSettings(psi=0.7), "--trunc"),
        (SamplingSettings(layers=2), "--trunc"),
        (SamplingSettings(noise=Noise.RANDOM), "noise = random"),
    ],
)
def test_a_dcgan_says_why_it_has_no_styles(generator: LoadedGenerator, settings: SamplingSettings, named: str) -> None:
    with pytest.raises(SamplingError, match=rf"{named}.*needs a network with styles.*This dcgan"):
        next(sample(generator, [0], settings))
    assert np.array_equal(next(sample(generator, [0], SamplingSettings(psi=1.0))), next(sample(generator, [0])))


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


def test_transparent_pictures(tmp_path: Path, new_styles: Callable[..., LoadedGenerator]) -> None:
    generator = new_styles(channels=4, aspect=(4, 3))
    path = sample_images(generator, [3], tmp_path)[0]
    with Image.open(path) as image:
        assert (image.mode, image.size) == ("RGBA", (24, 32))
    assert np.array_equal(read(path), next(sample(generator, [3])))
    assert read(path)[:, :, 3].min() < 255
    grid = sample_grid(generator, range(3), columns=2, path=tmp_path / "grid.png")
    assert read(grid).shape == (64, 48, 3)
