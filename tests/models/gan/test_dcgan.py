import pytest
import torch
from torch import nn

from models.gan.dcgan import (
    Discriminator,
    Generator,
    initialise,
    set_standing_statistics,
    without_running_statistics,
)


def test_shapes_are_those_of_the_write_up() -> None:
    generator, discriminator = Generator(), Discriminator()
    images = generator(torch.randn(2, 200))
    assert images.shape == (2, 3, 64, 64)
    assert images.abs().max() <= 1
    assert discriminator(images).shape == (2,)
    kernels = [m for m in generator.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [k.out_channels for k in kernels] == [512, 256, 128, 64, 3]
    assert all(k.kernel_size == (4, 4) for k in kernels)
    assert all((k.stride, k.padding) == ((2, 2), (1, 1)) for k in kernels[1:])


@pytest.mark.parametrize(("resolution", "channels"), [(16, 1), (128, 3), (256, 3)])
def test_other_resolutions(resolution: int, channels: int) -> None:
    generator, discriminator = Generator(8, 2, resolution, channels), Discriminator(2, resolution, channels)
    images = generator(torch.randn(2, 8))
    assert images.shape == (2, channels, resolution, resolution)
    assert discriminator(images).shape == (2,)
    assert max(m.num_features for m in generator.modules() if isinstance(m, nn.BatchNorm2d)) <= 8 * 2


@pytest.mark.parametrize("resolution", [8, 48, 0, 100])
def test_resolutions_that_no_stack_of_halvings_reaches(resolution: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Generator(resolution=resolution)
    with pytest.raises(ValueError, match="power of two"):
        Discriminator(resolution=resolution)


def test_initialisation_depends_on_its_generator_alone() -> None:
    first, second = Generator(20, 8), Generator(20, 8)
    initialise(first, torch.Generator().manual_seed(3))
    torch.randn(7)
    initialise(second, torch.Generator().manual_seed(3))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    state = first.state_dict()
    assert state["layers.3.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert state["layers.1.weight"].mean().item() == pytest.approx(1.0, abs=0.02)


def test_running_statistics_follow_the_reals_only() -> None:
    discriminator = Discriminator(4, 16)
    reals, fakes = torch.rand(8, 3, 16, 16), -torch.rand(8, 3, 16, 16)
    with without_running_statistics(discriminator):
        unrecorded = discriminator(fakes)
    norm = discriminator.layers[3]
    assert isinstance(norm, nn.BatchNorm2d)
    before = norm.state_dict()["running_mean"].clone()
    assert not before.any()
    assert torch.equal(unrecorded, discriminator(fakes))  # training mode: same batch statistics either way
    after_fakes = norm.state_dict()["running_mean"].clone()
    discriminator(reals)
    assert not torch.equal(after_fakes, norm.state_dict()["running_mean"])


def test_standing_statistics_make_eval_mode_look_like_training_mode() -> None:
    generator = Generator(8, 8, 16)
    initialise(generator, torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(1)
    latents = torch.randn(512, 8, generator=rng)
    expected = generator(latents)
    stale = (generator.eval()(latents) - expected).abs().mean()
    set_standing_statistics(generator, latents.split(128))
    settled = (generator(latents) - expected).abs().mean()
    assert not generator.training
    assert settled < 0.05 * stale
    assert [m.momentum for m in generator.modules() if isinstance(m, nn.BatchNorm2d)] == [0.1, 0.1]
