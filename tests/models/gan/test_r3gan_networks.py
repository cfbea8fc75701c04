import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from models.gan.fir import downsample2d, upsample2d
from models.gan.initialisation import initialise
from models.gan.r3gan import Discriminator, Generator
from models.gan.r3gan.layers import GAIN, ResidualBlock, residual_gain, scale_labels
from models.training.config import R3GANConfig, TrainingConfig
from models.training.networks import build_discriminator, build_generator

SMALL: dict[str, Any] = {"channel_base": 512, "channel_max": 32, "blocks": 2}


def make_generator(side: int = 32, seed: int = 0, **changes: Any) -> Generator:
    settings: dict[str, Any] = {"z_dim": 8, "c_dim": 0, "width": side, "height": side} | SMALL | changes
    generator = Generator(**settings)
    initialise(generator, torch.Generator().manual_seed(seed))
    return generator


def make_discriminator(side: int = 32, seed: int = 0, **changes: Any) -> Discriminator:
    settings: dict[str, Any] = {"c_dim": 0, "width": side, "height": side} | SMALL | changes
    discriminator = Discriminator(**settings)
    initialise(discriminator, torch.Generator().manual_seed(seed))
    return discriminator


def stir(network: nn.Module, seed: int = 5) -> None:
    """Weights as after some training: the residual branches and the biases are no longer 0."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "reduce" in name or name.endswith("bias"):
                weight.copy_(torch.randn(weight.shape, generator=rng) * 0.1)


def draw(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def count(network: nn.Module) -> float:
    return sum(weight.numel() for weight in network.parameters()) / 1e6


@pytest.mark.parametrize(
    ("resolution", "blocks", "millions"),
    [  # counted in the authors' own classes, the last but one by extrapolation
        (32, 2, (20.73, 20.68)),
        (64, 2, (22.43, 22.38)),
        (256, 2, (23.06, 23.01)),
        (512, 2, (23.11, 23.06)),
        (128, 1, (11.67, 11.62)),
    ],
)
def test_parameter_counts_are_the_published_ones(resolution: int, blocks: int, millions: tuple[float, float]) -> None:
    config = TrainingConfig(algorithm=R3GANConfig(blocks=blocks), resolution=resolution)
    with torch.device("meta"):
        networks = build_generator(config), build_discriminator(config)
    assert [count(network) for network in networks] == pytest.approx(millions, abs=0.005)


def test_every_block_begins_as_the_identity() -> None:
    for network in (make_generator(), make_discriminator()):
        blocks = [module for module in network.modules() if isinstance(module, ResidualBlock)]
        assert len(blocks) == 8  # two at 4, 8, 16 and 32
        for block in blocks:
            x = draw(2, block.expand.weight.shape[1], 5, 4)
            assert torch.equal(block(x), x)


def test_the_generator_begins_as_its_skeleton() -> None:
    """Basis, resampling and 1x1 convolutions where the width changes: nothing else has a say yet."""
    generator = make_generator()
    z = draw(4, 8)
    x = generator.basis.basis * (z @ generator.basis.scale.weight.T)[:, :, None, None]
    for side in (8, 16, 32):
        if side == 32:  # from 32 channels to 16
            x = functional.conv2d(x, generator.stages[3].adapt.weight)  # type: ignore[union-attr]
        x = upsample2d(x, generator.taps)
    expected = functional.conv2d(x, generator.to_rgb.weight)
    assert torch.equal(generator(z), expected)
    stir(generator)
    assert not torch.allclose(generator(z), expected, atol=0.01)


def test_the_discriminator_begins_as_its_skeleton() -> None:
    discriminator = make_discriminator()
    images = draw(4, 3, 32, 32)
    x = functional.conv2d(images, discriminator.from_rgb.weight)
    for side in (32, 16, 8):
        x = downsample2d(x, discriminator.taps)
        if side == 32:
            x = functional.conv2d(x, discriminator.stages[3].adapt.weight)  # type: ignore[union-attr]
    depthwise = functional.conv2d(x, discriminator.verdict.weight[:, None], groups=32)[:, :, 0, 0]
    expected = (depthwise @ discriminator.verdict.dense.weight.T)[:, 0]
    torch.testing.assert_close(discriminator(images), expected)
    stir(discriminator)
    assert not torch.allclose(discriminator(images), expected, atol=0.01)


def test_a_block_has_the_papers_layers() -> None:
    block = ResidualBlock(128, residual_gain(8))
    assert residual_gain(8) == pytest.approx(math.sqrt(2 / 1.04) * 8 ** (-1 / 4))
    assert pytest.approx(math.sqrt(2 / 1.04)) == GAIN
    assert block.look.weight.shape == (256, 16, 3, 3) and block.look.groups == 16
    assert [name for name, _ in block.named_parameters() if "bias" in name] == ["expand.bias", "look.bias"]


OPEN = math.sqrt(2 / 1.04) * 6 ** (-1 / 4)  # gain of the layers of a block, of six in the networks below
DEVIATIONS = {  # of the first weights, layer by layer: 1 / sqrt(fan-in) but for what a comment says
    "G": {
        "label.weight": 1.0,  # a class picks a column: fan-in 1
        "basis.basis": 1.0,  # a map, no weights
        "basis.scale.weight": 1 / math.sqrt(48 + 32),  # latent and label
        "stages.0.blocks.1.expand.weight": OPEN / math.sqrt(256),
        "stages.0.blocks.1.look.weight": OPEN / math.sqrt(16 * 9),
        "stages.2.adapt.weight": 1 / math.sqrt(256),
        "stages.2.blocks.0.expand.weight": OPEN / math.sqrt(128),
        "to_rgb.weight": 1 / math.sqrt(128),
    },
    "D": {
        "from_rgb.weight": 1 / math.sqrt(3),
        "stages.2.blocks.0.expand.weight": OPEN / math.sqrt(128),
        "stages.2.adapt.weight": 1 / math.sqrt(128),
        "stages.0.blocks.1.expand.weight": OPEN / math.sqrt(256),
        "stages.0.blocks.1.look.weight": OPEN / math.sqrt(16 * 9),
        "verdict.weight": 1 / math.sqrt(4 * 3),  # each channel weighs the places of the smallest map
        "verdict.dense.weight": 1 / math.sqrt(256),
        "label.weight": 1 / math.sqrt(32),  # a class picks a column, of unit length
    },
}


@pytest.mark.parametrize(("name", "layer"), [(name, layer) for name, layers in DEVIATIONS.items() for layer in layers])
def test_the_first_weights_are_normal_and_as_large_as_told(wide: dict[str, nn.Module], name: str, layer: str) -> None:
    weight = wide[name].get_parameter(layer).detach().double().flatten()
    unit, count = weight / DEVIATIONS[name][layer], weight.numel()
    # five standard errors each, of the mean, of the standard deviation and of the fourth moment
    assert count >= 160
    assert unit.mean().item() == pytest.approx(0, abs=5 / math.sqrt(count))
    assert unit.std().item() == pytest.approx(1, abs=5 / math.sqrt(2 * count))
    assert unit.pow(4).mean().item() == pytest.approx(3, abs=5 * math.sqrt(96 / count))


def test_everything_else_begins_at_0(wide: dict[str, nn.Module]) -> None:
    """No layer is left out of the table above: what it does not name is another block's, alike, or 0."""
    drawn = {layer.split(".")[-2] for layers in DEVIATIONS.values() for layer in layers}
    for network in wide.values():
        for name, weight in network.named_parameters():
            if name.endswith((".bias", "reduce.weight")):
                assert weight.abs().max() == 0, name
            else:
                assert name.split(".")[-2] in drawn, name


@pytest.fixture(scope="module")
def wide() -> dict[str, nn.Module]:
    """Networks of 16 x 12 pixels, five classes and three sizes of map: 256, 256 and 128 channels."""
    shape: dict[str, Any] = {"width": 12, "height": 16, "start": (4, 3), "c_dim": 5, "label_features": 32}
    shape |= {"channel_base": 2048, "channel_max": 256}
    return {"G": make_generator(**shape, z_dim=48), "D": make_discriminator(**shape)}


def test_values_are_of_a_sane_size_at_the_start() -> None:
    pictures = make_generator(64, blocks=1)(draw(32, 8))
    assert 0.2 < pictures.std().item() < 1.5
    assert abs(pictures.mean().item()) < 0.3
    logits = make_discriminator(64, blocks=1)(pictures.detach())
    assert 0.02 < logits.std().item() < 5


def test_a_block_keeps_the_size_of_a_signal_once_its_branch_is_open() -> None:
    """With a He-scaled last layer the branch adds less than the map itself has: sums of many stay in bounds."""
    block = ResidualBlock(128, residual_gain(1))
    initialise(block, torch.Generator().manual_seed(0))
    x = draw(4, 128, 16, 16)
    inner = functional.leaky_relu(block.look(functional.leaky_relu(block.expand(x), 0.2)), 0.2)
    assert inner.square().mean().item() == pytest.approx(1.0, rel=0.25)


def test_a_3x3_convolution_looks_within_its_group() -> None:
    block = ResidualBlock(16, 1.0)  # 32 channels inside: two groups
    initialise(block, torch.Generator().manual_seed(0))
    y = draw(1, 32, 4, 4)
    other = y.clone()
    other[:, 16:] += 1
    changed = (block.look(y) - block.look(other)).abs().amax(dim=(0, 2, 3)) > 0
    assert changed.tolist() == [False] * 16 + [True] * 16


def test_logits_do_not_depend_on_company() -> None:
    discriminator = make_discriminator(16).eval()
    stir(discriminator)
    images = draw(6, 3, 16, 16)
    others = draw(6, 3, 16, 16, seed=9)
    others[2] = images[2]
    assert discriminator(images)[2] == discriminator(others)[2]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_shapes_grey_colour_and_alpha_not_square(channels: int) -> None:
    settings = {"width": 24, "height": 32, "start": (4, 3), "channels": channels}
    generator, discriminator = make_generator(**settings), make_discriminator(**settings)
    pictures = generator(draw(2, 8))
    assert pictures.shape == (2, channels, 32, 24) and pictures.dtype == torch.float32
    assert discriminator(pictures).shape == (2,)


def test_labels_matter_in_both_networks() -> None:
    generator, discriminator = make_generator(16, c_dim=3), make_discriminator(16, c_dim=3)
    stir(generator)
    z, one, two = draw(4, 8), torch.eye(3)[[0, 0, 1, 2]], torch.eye(3)[[0, 0, 2, 1]]
    first, second = generator(z, one), generator(z, two)
    same = [torch.equal(a, b) for a, b in zip(first, second, strict=True)]
    assert same == [True, True, False, False]
    logits = discriminator(first, one), discriminator(first, two)
    assert torch.equal(logits[0][:2], logits[1][:2]) and not torch.isclose(*logits)[2:].any()
    # the embedding's rows have about unit length
    assert discriminator.label is not None
    assert discriminator.label.weight.norm(dim=0).mean().item() == pytest.approx(1.0, rel=0.2)


def test_many_tags_weigh_as_much_as_one() -> None:
    """A class stays as it is, to the bit; a sum of columns is made as long as one; no two labels become the same."""
    classes = torch.eye(64)
    assert torch.equal(scale_labels(classes, 64), classes)
    assert torch.equal(scale_labels(0.5 * classes, 64), 0.5 * classes)
    assert torch.equal(scale_labels(torch.zeros(2, 64), 64), torch.zeros(2, 64))
    generator, discriminator = make_generator(16, c_dim=64), make_discriminator(16, c_dim=64)
    assert generator.label is not None and discriminator.label is not None
    for ones in (1, 4, 16, 64):
        tags = torch.stack([torch.randperm(64, generator=torch.Generator().manual_seed(k)) < ones for k in range(40)])
        scaled = scale_labels(tags.float(), 64)
        assert generator.label(scaled).std().item() == pytest.approx(1, rel=0.15)
        assert discriminator.label(scaled).norm(dim=1).mean().item() == pytest.approx(1, rel=0.15)
    ages = scale_labels(torch.tensor([[35.0, 0.0], [36.0, 0.0], [0.8, 0.8], [1.0, 1.0], [-1.0, 1.0]]), 2)
    assert len(ages.unique(dim=0)) == 5


def test_both_networks_scale_their_labels() -> None:
    generator, discriminator = make_generator(16, c_dim=4), make_discriminator(16, c_dim=4)
    four, z = torch.ones(2, 4), draw(2, 8)
    joined = torch.cat([z, four / 2 @ generator.label.weight.T], dim=1)  # type: ignore[union-attr]
    seen: list[torch.Tensor] = []
    generator.basis.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    pictures = generator(z, four)
    torch.testing.assert_close(seen[0], joined)
    each = torch.stack([discriminator(pictures, torch.eye(4)[[k, k]]) for k in range(4)])
    torch.testing.assert_close(discriminator(pictures, four), each.sum(dim=0) / 2)  # linear but for the scale


@pytest.mark.parametrize("c", [None, torch.zeros(2, 4), torch.zeros(3)])
def test_missing_or_wrong_labels_are_named(c: torch.Tensor | None) -> None:
    with pytest.raises(ValueError, match=r"labels of shape \(N, 3\)"):
        make_generator(16, c_dim=3)(draw(2, 8), c)
    with pytest.raises(ValueError, match=r"labels of shape \(N, 3\)"):
        make_discriminator(16, c_dim=3)(draw(2, 3, 16, 16), c)


def test_wrong_inputs_are_named() -> None:
    with pytest.raises(ValueError, match=r"latents of shape \(N, 8\)"):
        make_generator(16)(draw(2, 9))
    with pytest.raises(ValueError, match=r"pictures \(N, 3, 16, 16\)"):
        make_discriminator(16)(draw(2, 3, 32, 32))
    with pytest.raises(ValueError, match="multiple of 8 channels, got 12"):
        make_generator(16, channel_max=12)


def test_names_and_shapes_agree_between_resolutions() -> None:
    for make in (make_generator, make_discriminator):
        small, large = make(32).state_dict(), make(64).state_dict()
        assert {name for name in large if name not in small} == {name for name in large if name.startswith("stages.4.")}
        different = {name for name in small if small[name].shape != large[name].shape}
        assert different == {"to_rgb.weight" if make is make_generator else "from_rgb.weight"}


@pytest.mark.parametrize("make", [make_generator, make_discriminator])
def test_half_precision_is_close_and_gives_float32(make: Any) -> None:
    network = make(32, half_resolutions=2)
    stir(network)
    inputs = draw(4, 8) if make is make_generator else draw(4, 3, 32, 32)
    exact = network(inputs)
    seen: list[torch.dtype] = []
    for stage in network.stages:
        stage.register_forward_hook(lambda *a: seen.append(a[2].dtype))
    network.half_dtype = torch.bfloat16
    rough = network(inputs)
    assert rough.dtype == torch.float32
    assert seen.count(torch.bfloat16) == 2 and len(seen) == 4
    assert 0 < (rough - exact).abs().max() < 0.05 * exact.abs().max()


def test_second_derivatives_are_those_of_finite_differences() -> None:
    """Of the squared gradient with respect to the picture: what R1 and R2 hand to the optimiser."""
    discriminator = make_discriminator(16, channel_max=8, blocks=1).double()
    stir(discriminator)
    images = draw(2, 3, 16, 16).double().requires_grad_()

    def penalty() -> torch.Tensor:
        (gradient,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
        return gradient.square().sum()

    penalty().backward()
    rng = torch.Generator().manual_seed(3)
    for name, weight in discriminator.named_parameters():
        direction = torch.randn(weight.shape, generator=rng, dtype=torch.float64)
        step = 1e-5
        with torch.no_grad():
            weight.add_(direction, alpha=step)
        above = penalty().item()
        with torch.no_grad():
            weight.sub_(direction, alpha=2 * step)
        below = penalty().item()
        with torch.no_grad():
            weight.add_(direction, alpha=step)
        # the last bias-like parameters may have none: the penalty does not see them
        expected = 0.0 if weight.grad is None else (weight.grad * direction).sum().item()
        assert (above - below) / (2 * step) == pytest.approx(expected, rel=1e-4, abs=1e-6), name


def test_the_same_seed_gives_the_same_network() -> None:
    a, b, other = (make_generator(16, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["basis.basis"], other["basis.basis"])
