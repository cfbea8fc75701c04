"""StyleGAN2: truncation, mixing, noise and labels."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.gan.latents import draw_latents
from models.sampling.figures import GAP, mixing_figure, parse_layers, psi_sweep
from models.sampling.generator import Code, LoadedGenerator, load_generator
from models.sampling.images import sample
from models.sampling.settings import Noise, SamplingError, SamplingSettings, parse_label, parse_psis
from models.training.config import Precision, StyleGAN2Config
from models.training.snapshot import save_snapshot

MakeStyles = Callable[..., LoadedGenerator]


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def pictures(generator: LoadedGenerator, seeds: list[int], **settings: object) -> np.ndarray:
    return np.stack(list(sample(generator, seeds, SamplingSettings(**settings))))  # type: ignore[arg-type]


@pytest.mark.parametrize("noise", [Noise.CONST, Noise.RANDOM])
def test_a_seed_gives_the_same_picture_in_any_company(styles: LoadedGenerator, noise: Noise) -> None:
    together = pictures(styles, list(range(40)), noise=noise)
    backwards = pictures(styles, list(range(39, -1, -1)), noise=noise)
    assert np.array_equal(together, backwards[::-1])
    for seed in (0, 13, 39):
        assert np.array_equal(pictures(styles, [seed], noise=noise)[0], together[seed])
    assert len(np.unique(together.reshape(40, -1), axis=0)) == 40


def test_large_pictures_go_in_small_batches_of_one_size(new_styles: MakeStyles) -> None:
    generator = new_styles(resolution=256, channel_base=512)
    assert generator.batch == 8
    together = pictures(generator, list(range(9)))
    assert np.array_equal(pictures(generator, [8])[0], together[8])
    assert np.array_equal(pictures(generator, [5])[0], together[5])


def test_a_snapshot_is_loaded_with_its_mean_style(styles: LoadedGenerator, tmp_path: Path) -> None:
    record = save_snapshot(tmp_path, 0, styles.config, styles.dataset, {"G_ema": styles.network}, {})
    loaded = load_generator(record)
    assert loaded.has_styles
    assert loaded.default_psi == 0.7
    assert np.array_equal(pictures(loaded, [1, 2]), pictures(styles, [1, 2]))


@pytest.mark.parametrize(
    ("precision", "expected"),
    [(Precision.AUTO, None), (Precision.BFLOAT16, torch.bfloat16), (Precision.FLOAT16, None)],
)
def test_maps_are_computed_as_in_training_where_the_device_can(
    styles: LoadedGenerator, tmp_path: Path, precision: Precision, expected: torch.dtype | None
) -> None:
    config = styles.config.model_copy(update={"precision": precision})
    record = save_snapshot(tmp_path, 0, config, styles.dataset, {"G_ema": styles.network}, {})
    assert load_generator(record, device="cpu").network.half_dtype is expected


def test_psi_zero_is_one_picture_and_one_is_no_truncation(styles: LoadedGenerator) -> None:
    means = pictures(styles, [0, 1, 2], psi=0.0)
    assert np.array_equal(means[0], means[1])
    assert np.array_equal(means[0], means[2])
    z = torch.from_numpy(np.concatenate([draw_latents([5], 16), np.zeros((31, 16), np.float32)]))
    with torch.inference_mode():
        plain = styles.network(z)[0].clamp(-1, 1).add(1).mul(127.5).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(pictures(styles, [5], psi=1.0)[0], plain)
    assert np.array_equal(pictures(styles, [5])[0], pictures(styles, [5], psi=0.7)[0])


def test_pictures_go_away_from_the_mean_with_psi(styles: LoadedGenerator) -> None:
    mean = pictures(styles, [0], psi=0.0).astype(float)
    psis = (0.0, 0.25, 0.5, 0.75, 1.0)
    seeds = list(range(24))
    distances = [np.abs(pictures(styles, seeds, psi=psi) - mean).mean() for psi in psis]
    assert distances == sorted(distances)
    assert distances[0] == 0 < distances[1]
    codes = [styles.codes(draw_latents(seeds, 16), SamplingSettings(psi=psi)) for psi in (*psis, -1.0)]
    reach = [np.linalg.norm(code - codes[0], axis=-1) for code in codes]
    assert all((near < far).all() for near, far in pairwise(reach[:5]))
    np.testing.assert_allclose(codes[0] - codes[5], codes[4] - codes[0], atol=1e-5)  # -1 is the opposite of 1


def test_the_cutoff_leaves_later_layers_alone(styles: LoadedGenerator) -> None:
    latents = draw_latents([3, 4], 16)
    whole = styles.codes(latents, SamplingSettings(psi=1.0))
    moved = styles.codes(latents, SamplingSettings(psi=0.3))
    part = styles.codes(latents, SamplingSettings(psi=0.3, layers=3))
    assert np.array_equal(part[:, :3], moved[:, :3])
    assert np.array_equal(part[:, 3:], whole[:, 3:])
    assert not np.array_equal(part[:, :3], whole[:, :3])
    for layers in (0, 9):
        with pytest.raises(SamplingError, match="1 to 8"):
            styles.codes(latents, SamplingSettings(layers=layers))


def test_the_psi_sweep_has_a_seed_in_each_row_and_a_psi_in_each_column(styles: LoadedGenerator, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = psi_sweep(styles, [4, 123], [-1, 0, 1], tmp_path / "a.png", progress=lambda *at: seen.append(at))
    figure = read(path)
    top, left = figure.shape[0] - 2 * 32, figure.shape[1] - 3 * 32
    assert (top > 0, left > 0) == (True, True)
    assert (figure[:top] < 128).any()  # labels
    assert (figure[:, :left] < 128).any()
    for row, seed in enumerate((4, 123)):
        for column, psi in enumerate((-1.0, 0.0, 1.0)):
            y, x = top + 32 * row, left + 32 * column
            assert np.array_equal(figure[y : y + 32, x : x + 32], pictures(styles, [seed], psi=psi)[0])
    assert seen[-1] == (6, 6)
    again = psi_sweep(styles, [4, 123], [-1, 0, 1], tmp_path / "b.png")
    assert path.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("noise", [Noise.CONST, Noise.RANDOM])
def test_a_mixing_figure(styles: LoadedGenerator, tmp_path: Path, noise: Noise) -> None:
    settings = SamplingSettings(psi=0.6, noise=noise)
    rows, columns = [3, 9], [7, 9, 3]
    figure = read(mixing_figure(styles, rows, columns, range(3), tmp_path / "m.png", settings=settings))
    assert figure.shape == (3 * 32 + GAP, 4 * 32 + GAP, 3)

    def cell(row: int, column: int) -> np.ndarray:
        y, x = row * 32 + GAP * (row > 0), column * 32 + GAP * (column > 0)
        return figure[y : y + 32, x : x + 32]

    for row, seed in enumerate(rows, start=1):
        assert np.array_equal(cell(row, 0), pictures(styles, [seed], psi=0.6, noise=noise)[0])
    for column, seed in enumerate(columns, start=1):
        assert np.array_equal(cell(0, column), pictures(styles, [seed], psi=0.6, noise=noise)[0])
    assert np.array_equal(cell(1, 3), cell(1, 0))  # a seed mixed with itself
    assert np.array_equal(cell(2, 2), cell(2, 0))
    # the first three styles of the column, all others of the row
    down, across = styles.codes(draw_latents([3, 7], 16), settings)
    mixed = np.concatenate([across[:3], down[3:]])
    assert np.array_equal(cell(1, 1), next(styles.draw([Code(mixed, 3)], noise)))
    assert not np.array_equal(cell(1, 1), cell(1, 0))


def test_truncation_reaches_the_mixing_figure(styles: LoadedGenerator, tmp_path: Path) -> None:
    figure = read(mixing_figure(styles, [1, 2], [3], range(8), tmp_path / "m.png", settings=SamplingSettings(psi=0.0)))
    assert np.array_equal(figure[32 + GAP : 64 + GAP, :32], figure[:32, 32 + GAP :])


def test_layers_as_people_name_them(new_styles: MakeStyles) -> None:
    sizes = [4, 8, 8, 16, 16, 32, 32, 64, 64, 64]
    assert parse_layers("coarse", sizes) == range(3)
    assert parse_layers("middle", sizes) == range(3, 7)
    assert parse_layers("fine", sizes) == range(7, 10)
    assert parse_layers("2-5", sizes) == range(2, 6)
    assert parse_layers("9", sizes) == range(9, 10)
    for text in ("5-2", "10", "0-10"):
        with pytest.raises(SamplingError, match="0 to 9"):
            parse_layers(text, sizes)
    for text in ("course", "-3", ""):
        with pytest.raises(SamplingError, match="cannot read layers"):
            parse_layers(text, sizes)
    tall = new_styles(aspect=(4, 3))
    assert tall.layer_sizes == [4, 8, 8, 16, 16, 32, 32, 32]
    with pytest.raises(SamplingError, match="no fine layers"):
        parse_layers("fine", tall.layer_sizes)


def test_layer_sizes_are_those_of_the_network(new_styles: MakeStyles) -> None:
    generator = new_styles(aspect=(4, 3))
    maps = [max(layer.noise.shape) for layer in generator.network.synthesis.noise_layers()]  # type: ignore[union-attr, operator]
    assert generator.layer_sizes[: len(maps)] == maps


def test_noise_none_const_and_random_differ(styles: LoadedGenerator) -> None:
    made = [pictures(styles, [0, 1], noise=noise) for noise in Noise]
    assert not np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])
    same_style = [Code(styles.codes(draw_latents([0], 16))[0], seed) for seed in (0, 1)]
    const = list(styles.draw(same_style, Noise.CONST))
    random = list(styles.draw(same_style, Noise.RANDOM))
    assert np.array_equal(const[0], const[1])
    assert not np.array_equal(random[0], random[1])


def test_labels_of_a_conditional_network(styles: LoadedGenerator, new_styles: MakeStyles) -> None:
    generator = new_styles(labels=3)
    first, second = (pictures(generator, [5], label=generator.class_label(k))[0] for k in (0, 1))
    assert not np.array_equal(first, second)
    assert np.array_equal(pictures(generator, [5], label=(0.0, 1.0, 0.0))[0], second)
    assert generator.class_label(0, 2) == (1.0, 0.0, 1.0)
    assert parse_label("0, 1,.5") == (0.0, 1.0, 0.5)
    with pytest.raises(SamplingError, match="--class 0 to 2"):
        pictures(generator, [5])
    with pytest.raises(SamplingError, match="0 to 2, got 3"):
        generator.class_label(3)
    with pytest.raises(SamplingError, match="3 values, got 2"):
        pictures(generator, [5], label=(1.0, 0.0))
    with pytest.raises(SamplingError, match="without labels"):
        pictures(styles, [5], label=(1.0,))
    with pytest.raises(SamplingError, match="without labels"):
        styles.class_label(0)


def test_numbers_that_cannot_be_read() -> None:
    assert parse_psis("-1, 0,.5") == [-1, 0, 0.5]
    with pytest.raises(SamplingError, match="cannot read psis"):
        parse_psis("0;1")
    with pytest.raises(SamplingError, match="cannot read label"):
        parse_label("red")


def test_psi_must_be_a_number(styles: LoadedGenerator) -> None:
    assert isinstance(styles.config.algorithm, StyleGAN2Config)
    with pytest.raises(SamplingError, match="finite"):
        pictures(styles, [0], psi=float("nan"))


def test_a_dcgan_has_no_figures(tiny_run: Path, tmp_path: Path) -> None:
    generator = load_generator(tiny_run)
    with pytest.raises(SamplingError, match="--psi-sweep"):
        psi_sweep(generator, [0], [0, 1], tmp_path / "a.png")
    with pytest.raises(SamplingError, match=r"--mix.*no w that could be"):
        mixing_figure(generator, [0], [1], range(2), tmp_path / "b.png")
    assert list(tmp_path.iterdir()) == []
