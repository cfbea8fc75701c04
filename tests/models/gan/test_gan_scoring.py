from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from models.gan.dcgan import Discriminator, initialise
from models.gan.scoring import BATCH, DiscriminatorScorer, load_discriminator, tensors_digest
from models.training.config import DatasetRef, DeviceChoice, StyleGAN2Config, TrainingConfig
from models.training.run import RunError, RunFolder
from models.training.snapshot import weights_path
from models.training.trainer import train

Data = Callable[[int], Iterator[np.ndarray]]


@pytest.fixture(scope="module")
def scorer() -> DiscriminatorScorer:
    network = Discriminator(8, 32)
    rng = torch.Generator().manual_seed(0)
    initialise(network, rng)
    for _ in range(20):
        network(torch.rand(16, 3, 32, 32, generator=rng) * 2 - 1)
    return DiscriminatorScorer(network.eval(), 32, 32, 3, "0" * 64)


def pictures(count: int, size: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_a_score_does_not_depend_on_company_or_place(scorer: DiscriminatorScorer) -> None:
    some = pictures(BATCH + 9)
    together = scorer.score(some)
    assert np.array_equal(together, np.concatenate([scorer.score(some[k : k + 1]) for k in range(len(some))]))
    assert np.array_equal(together[::-1], scorer.score(some[::-1]))
    assert np.array_equal(together[5:12], scorer.score(some[5:12]))
    assert len(np.unique(together)) > BATCH


def test_scores_are_rounded_float64(scorer: DiscriminatorScorer) -> None:
    scores = scorer.score(pictures(3))
    assert scores.dtype == np.float64
    assert np.array_equal(scores, np.round(scores, 6))
    assert scorer.score(pictures(0)).shape == (0,)


def test_sizes_may_differ(scorer: DiscriminatorScorer) -> None:
    small, large = pictures(1, 20)[0], pictures(1, 90)[0]
    both = scorer.score([small, large])
    assert both[0] == scorer.score([small])[0]
    assert both[1] == scorer.score(large[None])[0]


@pytest.mark.parametrize(
    "bad", [np.zeros((1, 8, 8, 4), np.uint8), np.zeros((1, 8, 8, 3), np.float32), np.zeros((1, 8, 8), np.uint8)]
)
def test_other_arrays_are_refused(scorer: DiscriminatorScorer, bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected uint8 RGB"):
        scorer.score(bad)


def test_a_trained_discriminator_knows_its_reals(tiny_run: Path) -> None:
    from PIL import Image

    scorer = load_discriminator(tiny_run)
    grid = np.asarray(Image.open(RunFolder(tiny_run).reals_file))
    reals = grid.reshape(8, 16, 12, 16, 3).swapaxes(1, 2).reshape(-1, 16, 16, 3)
    noise = pictures(96, 16)
    assert np.mean(scorer.score(reals)[:, None] > scorer.score(noise)[None]) > 0.9


def test_the_digest_names_the_discriminators_tensors(tiny_run: Path) -> None:
    records = RunFolder(tiny_run).snapshot_records()
    newest = load_discriminator(tiny_run)
    assert newest.digest == load_discriminator(weights_path(records[-1])).digest
    assert newest.digest != load_discriminator(records[0]).digest
    tensors = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    assert tensors_digest(tensors) == tensors_digest(dict(reversed(tensors.items())))
    assert tensors_digest(tensors) != tensors_digest({**tensors, "a": torch.zeros(3, 2)})


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no config\.json"):
        load_discriminator(tmp_path)


def test_a_stylegan2_discriminator_scores_each_picture_for_itself(
    tmp_path: Path, disc_data: Data, disc_dataset: DatasetRef
) -> None:
    """Its minibatch standard deviation, which mixes the pictures of a batch, must be out of it."""
    config = TrainingConfig(
        algorithm=StyleGAN2Config(z_dim=8, w_dim=8, mapping_layers=1, channel_base=64, channel_max=8),
        resolution=16,
        kimg=0.032,
        batch=16,
        tick_kimg=0.032,
        device=DeviceChoice.CPU,
    )
    train(config, disc_data, disc_dataset, tmp_path)
    scorer = load_discriminator(tmp_path)
    pictures = list(next(disc_data(0)).transpose(0, 2, 3, 1))
    together = scorer.score(pictures)
    assert len(set(together)) == len(pictures)
    np.testing.assert_array_equal(together, [scorer.score([picture])[0] for picture in pictures])
    np.testing.assert_array_equal(together[::-1], scorer.score(pictures[::-1]))
