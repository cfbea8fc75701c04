import pytest
import torch
from torch import nn

from models.gan.dcgan import (
    Discriminator,
    Generator,
    clip_convolutions,
    doubling,
    halving,
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


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("kernel", [4, 5])
@pytest.mark.parametrize("resolution", [32, 64])
def test_every_level_doubles_and_halves_exactly(resolution: int, kernel: int) -> None:
    generator = Generator(8, 2, resolution, 1, kernel)
    discriminator = Discriminator(2, resolution, 1, kernel, dropout=0.4)
    sides: list[int] = []
    for layer in [*generator.layers, *discriminator.layers]:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.register_forward_hook(lambda module, inputs, output: sides.append(output.shape[-1]))
    images = generator(torch.randn(2, 8))
    assert images.shape == (2, 1, resolution, resolution)
    assert discriminator(images, torch.Generator()).shape == (2,)
    rising = [2**k for k in range(2, resolution.bit_length())]
    assert sides == [*rising, *rising[-2::-1], 1]


@pytest.mark.parametrize(
    ("resolution", "kernel", "in_generator", "in_discriminator"),
    [  # 64 px, in G: 200 * 512 * 16 + (512 * 256 + 256 * 128 + 128 * 64 + 64 * 3) * kernel**2 + 2 * 960 + 3, ...
        (64, 4, 4_395_907, 2_765_633),
        (64, 5, 5_945_923, 4_315_649),
        (256, 4, 12_786_563, 11_156_289),  # two levels more, of 512 * 512 * 16 each
    ],
)
def test_parameter_counts_at_full_width(resolution: int, kernel: int, in_generator: int, in_discriminator: int) -> None:
    with torch.device("meta"):
        generator = Generator(resolution=resolution, kernel=kernel)
        discriminator = Discriminator(resolution=resolution, kernel=kernel)
        images = generator(torch.empty(2, 200))
    assert images.shape == (2, 3, resolution, resolution)
    assert discriminator(images).shape == (2,)
    assert count_parameters(generator) == in_generator
    assert count_parameters(discriminator) == in_discriminator


@pytest.mark.parametrize("kernel", [4, 5])
def test_doubling_is_the_transpose_of_halving(kernel: int) -> None:
    """<halve(x), y> = <x, double(y)> for the same weights: neither is shifted against the other."""
    halve, double = halving(3, 2, kernel, bias=False).double(), doubling(2, 3, kernel, bias=False).double()
    double.weight = halve.weight
    large, small = torch.randn(1, 3, 12, 12, dtype=torch.float64), torch.randn(1, 2, 6, 6, dtype=torch.float64)
    assert (halve(large) * small).sum().item() == pytest.approx((large * double(small)).sum().item())


@pytest.mark.parametrize("kernel", [3, 6])
def test_other_kernels_are_refused(kernel: int) -> None:
    with pytest.raises(ValueError, match="kernel must be 4 or 5"):
        Generator(kernel=kernel)
    with pytest.raises(ValueError, match="kernel must be 4 or 5"):
        Discriminator(kernel=kernel)


def test_dropout_leaves_out_its_share_and_keeps_the_mean() -> None:
    discriminator = Discriminator(16, 32, 1, dropout=0.3)
    before: list[torch.Tensor] = []
    after: list[torch.Tensor] = []
    discriminator.layers[1].register_forward_hook(lambda module, inputs, output: before.append(output))
    discriminator.layers[2].register_forward_pre_hook(lambda module, inputs: after.append(inputs[0]))
    discriminator(torch.rand(8, 1, 32, 32), torch.Generator().manual_seed(0))
    kept = after[0] != 0
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.02)
    torch.testing.assert_close(after[0][kept], before[0][kept] / 0.7)
    assert kept[0, 0].float().std() > 0  # values are left out one by one, not whole maps


def test_what_is_dropped_depends_on_the_generator_alone() -> None:
    discriminator, images = Discriminator(4, 16, dropout=0.5), torch.rand(4, 3, 16, 16)
    first = discriminator(images, torch.Generator().manual_seed(1))
    global_state = torch.get_rng_state()
    again = discriminator(images, torch.Generator().manual_seed(1))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), global_state)
    assert not torch.equal(first, discriminator(images, torch.Generator().manual_seed(2)))
    with pytest.raises(ValueError, match="dropout needs a generator"):
        discriminator(images)


def test_eval_mode_drops_nothing() -> None:
    discriminator, plain = Discriminator(4, 16, dropout=0.5), Discriminator(4, 16)
    plain.load_state_dict(discriminator.state_dict())  # the same names: dropout has no tensors
    images = torch.rand(4, 3, 16, 16)
    rng = torch.Generator().manual_seed(1)
    assert torch.equal(discriminator.eval()(images), plain.eval()(images))
    assert torch.equal(discriminator(images, rng), discriminator(images))
    assert torch.equal(rng.get_state(), torch.Generator().manual_seed(1).get_state())


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_a_dropout_that_is_no_share_is_refused(dropout: float) -> None:
    with pytest.raises(ValueError, match="dropout must lie in"):
        Discriminator(dropout=dropout)


def test_clipping_takes_convolutions_only() -> None:
    discriminator = Discriminator(4, 16)
    before = {name: tensor.clone() for name, tensor in discriminator.state_dict().items()}
    clip_convolutions(discriminator, 0.05)
    clipped = {"layers.0.weight", "layers.2.weight", "layers.5.weight"}
    for name, tensor in discriminator.state_dict().items():
        assert torch.equal(tensor, before[name].clamp(-0.05, 0.05) if name in clipped else before[name])
    assert before["layers.0.weight"].abs().max() > 0.05
    assert before["layers.3.weight"].abs().max() > 0.05  # batch norm's gains


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
