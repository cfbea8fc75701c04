"""R3GAN in the training loop: runs, what is read from them, and weights that one takes over from another."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.gan.scoring import load_discriminator
from models.sampling.generator import Code, load_generator
from models.sampling.settings import SamplingError, SamplingSettings
from models.training.config import DatasetRef, DeviceChoice, R3GANConfig, TrainingConfig
from models.training.r3gan import R3GAN
from models.training.run import RunFolder
from models.training.schedules import average_half_life
from models.training.snapshot import load_weights, save_snapshot, weights_path
from models.training.trainer import train
from models.training.transfer import transfer_digest, transfer_weights

Data = Callable[[int], Iterator[np.ndarray]]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Faster for networks this small: several threads mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny(labels: int = 0, **changes: Any) -> TrainingConfig:
    settings = {"kimg": 0.16, "tick_kimg": 0.032, "grid_ticks": 2, "snapshot_ticks": 2} | changes
    return TrainingConfig(
        algorithm=R3GANConfig(
            z_dim=8,
            channel_base=256,
            channel_max=16,
            blocks=1,
            label_features=6,
            schedule_kimg=0.1,
            learning_rate=2e-3,
            r1_gamma=0.5,
            augment_p=0.6,
        ),
        resolution=16,
        batch=16,
        labels=labels,
        ema_half_life_kimg=0.05,
        ema_ramp_up=None,
        device=DeviceChoice.CPU,
        **settings,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, disc_data: Data, disc_dataset: DatasetRef) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "r3gan"
    train(tiny(), disc_data, disc_dataset, folder)
    return folder


def tensors(record: Path) -> dict[str, torch.Tensor]:
    return {f"{p}.{k}": v for p in ("G", "G_ema", "D") for k, v in load_weights(weights_path(record), p).items()}


def test_a_run_resumed_after_a_part_equals_the_whole(
    tmp_path: Path, trained: Path, disc_data: Data, disc_dataset: DatasetRef
) -> None:
    """A run that was to be shorter goes on as the longer one: its schedule has a length of its own."""
    train(tiny(kimg=0.096), disc_data, disc_dataset, tmp_path)
    result = train(tiny(), disc_data, disc_dataset, tmp_path, resume=True)
    whole = tensors(RunFolder(trained).snapshot_records()[-1])
    found = tensors(result.snapshot)
    assert [name for name in whole if not torch.equal(whole[name], found[name])] == []
    assert result.stats["sign_D_pair"] == list(RunFolder(trained).read_stats())[-1]["sign_D_pair"]


def test_the_average_follows_its_schedule(trained: Path) -> None:
    """At the start it is the network itself; later it lags behind."""
    line = list(RunFolder(trained).read_stats())[-1]
    assert {"logit_gap", "diversity", "gamma", "ada_p"} <= line.keys()
    assert average_half_life(tiny(), 0) == 0
    newest = tensors(RunFolder(trained).snapshot_records()[-1])
    assert not torch.equal(newest["G.to_rgb.weight"], newest["G_ema.to_rgb.weight"])


def test_a_transfer_keeps_the_average_that_it_takes_over(
    tmp_path: Path, trained: Path, disc_data: Data, disc_dataset: DatasetRef
) -> None:
    """One step of 16 pictures at the whole half-life of 50: 0.5 ** (16 / 50) of the old average is left."""
    config = tiny(kimg=0.016, transfer=transfer_digest(trained))
    result = train(config, disc_data, disc_dataset, tmp_path, transfer=trained)
    old, new = tensors(RunFolder(trained).snapshot_records()[-1]), tensors(result.snapshot)
    kept = 0.5 ** (16 / 50)
    for name in (name.removeprefix("G.") for name in new if name.startswith("G.")):
        expected = kept * old[f"G_ema.{name}"] + (1 - kept) * new[f"G.{name}"]
        torch.testing.assert_close(new[f"G_ema.{name}"], expected)
    assert not torch.allclose(new["G_ema.to_rgb.weight"], new["G.to_rgb.weight"])


def test_scores_do_not_depend_on_company(trained: Path, disc_data: Data) -> None:
    """Bit for bit, without anything having to be switched off: no statistic couples the pictures of a batch."""
    scorer = load_discriminator(trained)
    pictures = list(next(disc_data(0)).transpose(0, 2, 3, 1))
    together = scorer.score(pictures)
    assert len(set(together)) == len(pictures)
    np.testing.assert_array_equal(together, [scorer.score([picture])[0] for picture in pictures])
    np.testing.assert_array_equal(together[::-1], scorer.score(pictures[::-1]))


def test_samples_come_without_styles(trained: Path) -> None:
    generator = load_generator(trained)
    assert not generator.has_styles and generator.default_psi == 1.0
    latents = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    codes = generator.codes(latents)
    pictures = list(generator.draw(Code(row, 0) for row in codes))
    assert [picture.shape for picture in pictures] == [(16, 16, 3)] * 3
    assert np.array_equal(next(generator.draw([Code(codes[1], 5)])), pictures[1])
    with pytest.raises(SamplingError, match=r"truncation.*r3gan"):
        generator.codes(latents, SamplingSettings(psi=0.7))
    with pytest.raises(SamplingError, match="without labels"):
        generator.codes(latents, SamplingSettings(label=(1.0,)))


def test_a_conditional_training_makes_pictures_of_labels(
    tmp_path: Path, disc_data: Data, disc_dataset: DatasetRef
) -> None:
    class Labelled:
        def __init__(self, images: np.ndarray) -> None:
            red = images[:, 0, 8, 8] > images[:, 2, 8, 8]
            self.images, self.labels = images, np.stack([red, ~red], axis=1).astype(np.float32)

    def data(start: int) -> Iterator[Labelled]:
        return (Labelled(images) for images in disc_data(start))

    train(tiny(labels=2, kimg=0.064), data, disc_dataset, tmp_path)
    generator = load_generator(tmp_path)
    latents = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    both = [generator.codes(latents, SamplingSettings(label=generator.class_label(k))) for k in (0, 1)]
    assert both[0].shape == (2, 10) and np.array_equal(both[0][:, 8:], [[1, 0], [1, 0]])
    pictures = [np.stack(list(generator.draw(Code(row, 0) for row in codes))) for codes in both]
    direct = generator.network(torch.from_numpy(latents), torch.eye(2)[[1, 1]])
    assert not np.array_equal(*pictures)
    assert np.abs(pictures[1] - np.clip(direct.permute(0, 2, 3, 1).numpy() * 127.5 + 127.5, 0, 255)).max() < 0.51
    with pytest.raises(SamplingError, match="--class 0 to 1"):
        generator.codes(latents)


def test_low_stages_carry_over_to_a_larger_resolution(tmp_path: Path) -> None:
    equally_wide = tiny().model_copy(update={"algorithm": tiny().algorithm.model_copy(update={"channel_max": 8})})

    def networks(resolution: int, seed: int) -> dict[str, torch.nn.Module]:
        config = equally_wide.model_copy(update={"resolution": resolution})
        algorithm = R3GAN(config, torch.device("cpu"), torch.Generator().manual_seed(seed))
        return {**algorithm.networks(), "G_ema": copy.deepcopy(algorithm.generator)}

    dataset = DatasetRef("discs", 1, "0" * 64, 9)
    path = save_snapshot(tmp_path, 16, equally_wide, dataset, networks(16, 1), {})
    report = {part.network: part for part in transfer_weights(weights_path(path), networks(32, 2)).networks}
    assert all(part.reshaped == () and part.unused == () for part in report.values())  # 8 channels throughout
    assert all(name.startswith("stages.3.") for part in report.values() for name in part.missing)
