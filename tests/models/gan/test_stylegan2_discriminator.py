import pytest
import torch

from models.gan.stylegan2 import Discriminator, initialise
from models.gan.stylegan2.discriminator import spread_features
from models.gan.stylegan2.layers import EqualizedConv2d


def make(**changes: object) -> Discriminator:
    settings = {"c_dim": 0, "width": 32, "height": 32, "channel_base": 256, "channel_max": 24}
    discriminator = Discriminator(**{**settings, **changes})  # type: ignore[arg-type]
    initialise(discriminator, torch.Generator().manual_seed(0))
    return discriminator


def pictures(count: int, *shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, *(shape or (3, 32, 32)), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("architecture", ["resnet", "orig"])
@pytest.mark.parametrize(("width", "height", "start"), [(32, 32, None), (24, 32, None), (32, 20, (5, 8))])
def test_logits_of_any_aspect_and_channels(
    channels: int, architecture: str, width: int, height: int, start: tuple[int, int] | None
) -> None:
    discriminator = make(width=width, height=height, channels=channels, start=start, architecture=architecture)
    logits = discriminator(pictures(4, channels, height, width))
    assert logits.shape == (4,)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
    assert len(logits.unique()) == 4
    assert (discriminator.levels[0].skip is None) == (architecture == "orig")


def test_the_start_keeps_unit_variance() -> None:
    """What is constant over a map keeps its power in every layer; white noise loses some to the low-pass filters."""
    discriminator = make(width=64, height=64, channel_base=4096, channel_max=64, mbstd_features=0)
    for layer in discriminator.layers():
        flat = pictures(64, layer.weight.shape[1], 1, 1)
        with torch.no_grad():
            inner = layer(flat.expand(-1, -1, 16, 16), discriminator.taps)[:, :, 4, 4]
        expected = 1.04 if layer.activated else 1.0  # the leaky ReLU's (1 + .2^2) / 2, times 2
        assert inner.square().mean().item() == pytest.approx(expected, rel=0.35)
    x = torch.randn(64, 1024, generator=torch.Generator().manual_seed(1))
    assert discriminator.out(discriminator.dense(x)).std().item() == pytest.approx(1, rel=0.35)


@pytest.mark.parametrize("architecture", ["resnet", "orig"])
def test_a_smooth_picture_keeps_its_power(architecture: str) -> None:
    discriminator = make(
        width=64, height=64, channel_base=4096, channel_max=64, mbstd_features=0, architecture=architecture
    )
    moments: list[float] = []
    for level in discriminator.levels:
        level.register_forward_hook(lambda module, inputs, output: moments.append(output.square().mean().item()))
    with torch.no_grad():
        discriminator(pictures(16, 3, 1, 1).expand(-1, -1, 64, 64).contiguous())
    assert all(0.1 < moment < 2 for moment in moments), moments  # zeros beyond the edges cost the small maps some


def test_spread_is_the_deviation_within_contiguous_groups() -> None:
    x = pictures(6, 4, 3, 2).double()
    spread = spread_features(x, 3, 2)
    assert spread.shape == (6, 2, 3, 2)
    for group in range(2):
        for band in range(2):
            part = x[3 * group : 3 * group + 3, 2 * band : 2 * band + 2]
            deviation = (part.var(dim=0, unbiased=False) + 1e-8).sqrt().mean()
            assert torch.allclose(spread[3 * group : 3 * group + 3, band], deviation.expand(3, 3, 2))


@pytest.mark.parametrize(("count", "group", "size"), [(6, 4, 3), (7, 4, 1), (8, 4, 4), (2, 4, 2), (12, 8, 6)])
def test_groups_are_the_largest_that_fit(count: int, group: int, size: int) -> None:
    x = pictures(count, 4, 2, 2)
    spread = spread_features(x, group, 1)
    assert torch.equal(spread, spread_features(x, size, 1))
    assert len(spread[:, 0, 0, 0].unique()) == (count // size if size > 1 else 1)


@pytest.mark.parametrize(("group", "features"), [(4, 1), (2, 4), (4, 0)])
def test_a_batch_cut_into_parts_has_the_same_logits_and_gradients(group: int, features: int) -> None:
    discriminator = make(mbstd_group=group, mbstd_features=features).double()
    x = pictures(8).double()
    parameters = list(discriminator.parameters())
    whole = discriminator(x)
    gradients = torch.autograd.grad(whole.square().sum(), parameters)
    parts = [discriminator(part) for part in x.split(4)]
    sums = [torch.autograd.grad(part.square().sum(), parameters) for part in parts]
    assert torch.allclose(torch.cat(parts), whole, rtol=0, atol=1e-12)
    for gradient, *halves in zip(gradients, *sums, strict=True):
        assert torch.allclose(sum(halves), gradient, rtol=1e-9, atol=1e-12)


def test_logits_of_single_pictures() -> None:
    discriminator = make().double()
    x = pictures(4).double()
    together = discriminator(x)
    discriminator.mbstd_group = 1
    alone = torch.cat([discriminator(x[k : k + 1]) for k in range(4)])
    assert torch.allclose(discriminator(x), alone, rtol=0, atol=1e-12)
    assert not torch.allclose(together, alone, atol=1e-4)


def test_labels_are_held_against_the_picture() -> None:
    discriminator = make(c_dim=3)
    x = pictures(1).expand(3, -1, -1, -1)
    logits = discriminator(x, torch.eye(3))
    assert len(logits.unique()) == 3
    assert logits.abs().max() < 5
    features = discriminator.out.weight.shape[0]
    assert features == 24
    with pytest.raises(ValueError, match=r"needs labels of shape \(N, 3\), got none"):
        discriminator(x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_float32(dtype: torch.dtype) -> None:
    discriminator = make(channel_base=1024, channel_max=64, half_resolutions=2)
    x = pictures(8)
    expected = discriminator(x)
    discriminator.half_dtype = dtype
    seen: list[tuple[int, torch.dtype]] = []
    for layer in discriminator.modules():
        if isinstance(layer, EqualizedConv2d):
            layer.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0].shape[-1], output.dtype)))
    logits = discriminator(x)
    assert logits.dtype == torch.float32
    assert 0 < (logits - expected).abs().max() < 0.05 * expected.std() + 0.02
    assert {size for size, kind in seen if kind == dtype} == {16, 32}
    assert {size for size, kind in seen if kind == torch.float32} == {4, 8}
    gradients = torch.autograd.grad(logits.sum(), list(discriminator.parameters()))
    assert all(gradient.dtype == torch.float32 and torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("architecture", ["resnet", "orig"])
def test_r1_has_exact_gradients(architecture: str) -> None:
    """Its gradient with respect to weights differentiates a gradient: against finite differences, in float64."""
    discriminator = make(width=8, height=8, channel_base=24, architecture=architecture, mbstd_group=2).double()
    x = pictures(2, 3, 8, 8).double().requires_grad_()
    names = ["from_rgb.weight", "levels.0.halve.weight", "last_conv.weight", "dense.bias"]
    names += ["levels.0.skip.weight"] if architecture == "resnet" else []

    def penalty(*values: torch.Tensor) -> torch.Tensor:
        logits = torch.func.functional_call(discriminator, dict(zip(names, values, strict=True)), (x,))
        (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        return gradient.square().sum(dim=(1, 2, 3))

    values = [discriminator.get_parameter(name).detach().clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(penalty, values, eps=1e-7, atol=1e-4, fast_mode=True)


def test_freeze_d_counts_from_the_picture() -> None:
    discriminator = make()
    assert len(discriminator.layers()) == 1 + 3 * 3
    discriminator.freeze(3)
    frozen = {name for name, parameter in discriminator.named_parameters() if not parameter.requires_grad}
    assert frozen == {
        "from_rgb.weight",
        "from_rgb.bias",
        "levels.2.plain.weight",
        "levels.2.plain.bias",
        "levels.2.halve.weight",
        "levels.2.halve.bias",
    }
    x = pictures(4).requires_grad_()
    discriminator(x).sum().backward()
    assert x.grad is not None and x.grad.any()  # gradients still reach the picture, hence the generator
    discriminator.freeze(0)
    assert all(parameter.requires_grad for parameter in discriminator.parameters())
    with pytest.raises(ValueError, match="10 layers that can be frozen, got 11"):
        discriminator.freeze(11)


def test_channels_last_gives_the_same_logits() -> None:
    discriminator = make().double()
    x = pictures(4).double()
    expected = discriminator(x)
    discriminator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert torch.allclose(discriminator(x.contiguous(memory_format=torch.channels_last)), expected, atol=1e-12)


def test_names_of_low_levels_are_the_same_at_every_resolution() -> None:
    small = {name: value.shape for name, value in make().state_dict().items()}
    large = {name: value.shape for name, value in make(width=64, height=64).state_dict().items()}
    assert small["levels.0.halve.weight"] == (24, 24, 3, 3)
    differing = {name for name in small if small[name] != large[name]}
    assert differing <= {"from_rgb.weight", "from_rgb.bias"}
    assert {name.split(".")[1] for name in large.keys() - small.keys()} == {"3"}


def test_state_dict_round_trip() -> None:
    discriminator, other = make(c_dim=2), make(c_dim=2)
    initialise(other, torch.Generator().manual_seed(9))
    labels = torch.eye(2)[[0, 1, 0, 1]]
    assert not torch.equal(other(pictures(4), labels), discriminator(pictures(4), labels))
    other.load_state_dict(discriminator.state_dict())
    assert torch.equal(other(pictures(4), labels), discriminator(pictures(4), labels))


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"needs pictures \(N, 3, 32, 32\), got \(2, 3, 16, 32\)"):
        make()(pictures(2, 3, 16, 32))
    with pytest.raises(ValueError, match="mbstd_features must divide 24 channels, got 7"):
        make(mbstd_features=7)
    with pytest.raises(ValueError, match="architecture must be"):
        make(architecture="skip")
