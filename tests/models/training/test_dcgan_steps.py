"""What one step of the DCGAN does: the plain one against a second writing of it, then its variants."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from models.training.algorithm import TrainingBatch
from models.training.config import DatasetRef, DCGANConfig, StyleGAN2Config, TrainingConfig
from models.training.dcgan import DCGAN
from models.training.snapshot import load_weights, weights_path
from models.training.trainer import train

CPU = torch.device("cpu")
COUNT = 8
DIGITS_LIKE = DCGANConfig(width=4, z_dim=8, kernel=5, dropout=0.4, optimiser="rmsprop", clip_weights=0.01)


def configure(algorithm: DCGANConfig) -> TrainingConfig:
    return TrainingConfig(algorithm=algorithm, resolution=16, batch=COUNT)


def draw_batch(index: int) -> TrainingBatch:
    """Batch `index` of an endless series of noise pictures, uint8 (8, 3, 16, 16)."""
    rng = torch.Generator().manual_seed(index)
    images = torch.randint(0, 256, (COUNT, 3, 16, 16), generator=rng, dtype=torch.uint8)
    return TrainingBatch(images=images, labels=None, first=0, total=COUNT, nimg=index * COUNT)


def begin(algorithm: DCGANConfig, seed: int = 1) -> tuple[DCGAN, torch.Generator]:
    rng = torch.Generator().manual_seed(seed)
    return DCGAN(configure(algorithm), CPU, rng), rng


def tensors(algorithm: DCGAN) -> dict[str, torch.Tensor]:
    """Copies of all that the networks hold."""
    return {
        f"{prefix}.{name}": tensor.clone()
        for prefix, network in algorithm.networks().items()
        for name, tensor in network.state_dict().items()
    }


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def plain_networks(rng: torch.Generator) -> tuple[nn.Sequential, nn.Sequential]:
    """The 16 px networks of width 4 and z 8, layer by layer, with DCGAN's initial weights."""
    generator = nn.Sequential(
        nn.ConvTranspose2d(8, 8, 4, 1, 0, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 4, 2, 1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 3, 4, 2, 1),
        nn.Tanh(),
    )
    discriminator = nn.Sequential(
        nn.Conv2d(3, 4, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4, 8, 4, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.LeakyReLU(0.2),
        nn.Conv2d(8, 1, 4, 1, 0),
    )
    for network in (generator, discriminator):
        for layer in network:
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
                mean = 1.0 if isinstance(layer, nn.BatchNorm2d) else 0.0
                layer.weight.data = torch.empty(layer.weight.shape).normal_(mean, 0.02, generator=rng)
                if layer.bias is not None:
                    layer.bias.data.zero_()
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return generator, discriminator


def draw_plain_labels(own: tuple[float, float], other: tuple[float, float], rng: torch.Generator) -> torch.Tensor:
    swapped, position = torch.rand(COUNT, generator=rng) < 0.03, torch.rand(COUNT, generator=rng)
    low, high = torch.where(swapped, other[0], own[0]), torch.where(swapped, other[1], own[1])
    return low + position * (high - low)


def test_without_the_variants_a_step_is_what_it_always_was() -> None:
    """Bit for bit, what is drawn from the generator included: a run that was begun long ago goes on unchanged."""
    algorithm, rng = begin(DCGANConfig(width=4, z_dim=8))
    plain_rng = torch.Generator().manual_seed(1)
    generator, discriminator = plain_networks(plain_rng)
    g_adam, d_adam = (
        torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=True)
        for network in (generator, discriminator)
    )
    norm = discriminator[3]
    assert isinstance(norm, nn.BatchNorm2d)
    for k in range(4):
        batch = draw_batch(k)
        algorithm.step(batch, rng)

        reals = batch.images.contiguous(memory_format=torch.channels_last).float().div_(127.5).sub_(1.0)
        latents = torch.randn(COUNT, 8, generator=plain_rng)
        real_labels = draw_plain_labels((0.7, 1.2), (0.0, 0.3), plain_rng)
        fake_labels = draw_plain_labels((0.0, 0.3), (0.7, 1.2), plain_rng)
        fakes = generator(latents[:, :, None, None])
        d_adam.zero_grad()
        binary_cross_entropy_with_logits(discriminator(reals).flatten(), real_labels).backward()
        norm.track_running_stats = False
        binary_cross_entropy_with_logits(discriminator(fakes.detach()).flatten(), fake_labels).backward()
        d_adam.step()
        g_adam.zero_grad()
        softplus(-discriminator(fakes).flatten()).mean().backward()
        g_adam.step()
        norm.track_running_stats = True

    expected = {f"G.layers.{name}": tensor for name, tensor in generator.state_dict().items()}
    expected |= {f"D.layers.{name}": tensor for name, tensor in discriminator.state_dict().items()}
    assert_same(tensors(algorithm), expected)
    assert torch.equal(rng.get_state(), plain_rng.get_state())


def test_a_config_written_before_the_variants_means_the_same() -> None:
    old = {"name": "dcgan", "z_dim": 200, "width": 64, "learning_rate": 2e-4, "betas": [0.5, 0.999]}
    old |= {"real_labels": [0.7, 1.2], "fake_labels": [0.0, 0.3], "label_swap": 0.03}
    assert DCGANConfig.model_validate(old) == DCGANConfig()


@pytest.mark.parametrize("algorithm", [DIGITS_LIKE, DCGANConfig(width=4, z_dim=8, dropout=0.2)])
def test_resumed_equals_never_interrupted(algorithm: DCGANConfig) -> None:
    straight, straight_rng = begin(algorithm)
    for k in range(5):
        straight.step(draw_batch(k), straight_rng)

    first, rng = begin(algorithm)
    for k in range(2):
        first.step(draw_batch(k), rng)
    file = io.BytesIO()
    state = {"algorithm": first.state_dict(), "rng": rng.get_state()}
    torch.save(state | {"networks": {name: net.state_dict() for name, net in first.networks().items()}}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)

    torch.rand(3)  # the global generator stands elsewhere now
    second, rng = begin(algorithm, seed=99)
    for name, network in second.networks().items():
        network.load_state_dict(loaded["networks"][name])
    second.load_state_dict(loaded["algorithm"])
    rng.set_state(loaded["rng"])
    for k in range(2, 5):
        second.step(draw_batch(k), rng)
    assert_same(tensors(second), tensors(straight))
    assert torch.equal(rng.get_state(), straight_rng.get_state())


def test_a_run_of_all_variants_resumes_to_the_bit(
    tmp_path: Path,
    tiny_training: TrainingConfig,
    disc_data: Callable[[int], Iterator[np.ndarray]],
    disc_dataset: DatasetRef,
) -> None:
    config = tiny_training.model_copy(update={"algorithm": DIGITS_LIKE, "kimg": 0.096})
    straight = train(config, disc_data, disc_dataset, tmp_path / "straight")
    train(config.model_copy(update={"kimg": 0.048}), disc_data, disc_dataset, tmp_path / "parts")
    resumed = train(config, disc_data, disc_dataset, tmp_path / "parts", resume=True)
    for prefix in ("G", "D", "G_ema"):
        assert_same(
            load_weights(weights_path(resumed.snapshot), prefix), load_weights(weights_path(straight.snapshot), prefix)
        )


def test_every_step_draws_other_masks() -> None:
    algorithm, rng = begin(DIGITS_LIKE)
    losses = set()
    for _ in range(3):
        again, _ = begin(DIGITS_LIKE)  # the same weights and the same reals
        fixed = torch.Generator()
        fixed.set_state(rng.get_state())
        losses.add(again.step(draw_batch(0), fixed)["loss_D_real"].item())
        algorithm.step(draw_batch(0), rng)
    assert len(losses) == 3


def test_clipping_holds_after_every_step() -> None:
    algorithm, rng = begin(DIGITS_LIKE.model_copy(update={"dropout": 0.0}))
    free, free_rng = begin(DIGITS_LIKE.model_copy(update={"dropout": 0.0, "clip_weights": 0.0}))
    for k in range(4):
        algorithm.step(draw_batch(k), rng)
        free.step(draw_batch(k), free_rng)
        for name in ("D.layers.0.weight", "D.layers.2.weight", "D.layers.5.weight"):
            assert tensors(algorithm)[name].abs().max().item() == pytest.approx(0.01, rel=1e-6)
            assert tensors(free)[name].abs().max() > 0.02
    clipped = tensors(algorithm)
    assert clipped["G.layers.0.weight"].abs().max() > 0.02  # the generator is not clipped, nor is D's batch norm
    assert clipped["D.layers.3.weight"].abs().max() > 0.9


def test_rmsprop_steps_as_its_formula() -> None:
    """The first step has no history: v = 0.1 g^2, so that every weight moves by lr g / (sqrt(0.1) |g| + 1e-8)."""
    algorithm, rng = begin(DCGANConfig(width=4, z_dim=8, optimiser="rmsprop", learning_rate=1e-3))
    before = tensors(algorithm)
    algorithm.step(draw_batch(0), rng)
    after = tensors(algorithm)
    for name, parameter in algorithm.networks()["G"].named_parameters():
        assert parameter.grad is not None
        step = 1e-3 * parameter.grad / (0.1**0.5 * parameter.grad.abs() + 1e-8)
        torch.testing.assert_close(after[f"G.{name}"], before[f"G.{name}"] - step, rtol=1e-5, atol=1e-7)


def test_dropout_reaches_the_networks_of_a_run_and_scoring_is_free_of_it() -> None:
    algorithm, rng = begin(DIGITS_LIKE)
    algorithm.step(draw_batch(0), rng)
    discriminator = algorithm.networks()["D"]
    images = torch.rand(2, 3, 16, 16)
    with pytest.raises(ValueError, match="dropout needs a generator"):
        discriminator(images)
    discriminator.eval()
    assert torch.equal(discriminator(images), discriminator(images))
    assert torch.equal(discriminator(images)[:1], discriminator(images[:1]))


def test_the_config_of_another_algorithm_is_refused() -> None:
    config = TrainingConfig(algorithm=StyleGAN2Config(), resolution=16)
    with pytest.raises(ValueError, match="DCGAN cannot train stylegan2"):
        DCGAN(config, CPU, torch.Generator())


def test_there_is_nothing_to_describe() -> None:
    algorithm, _ = begin(DCGANConfig(width=4, z_dim=8))
    assert algorithm.describe() == {}
    assert algorithm.events() == []
