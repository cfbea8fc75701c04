import math

import pytest
import torch
from torch.nn import functional

from models.gan.fir import conv2d_up, setup_filter
from models.gan.initialisation import initialise
from models.gan.levels import plan_levels
from models.gan.stylegan2.layers import EqualizedConv2d, EqualizedLinear, modulated_conv2d

RNG_SEED = 3


def normal(*shape: int, dtype: torch.dtype = torch.float64, seed: int = RNG_SEED) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def modulate_one_by_one(
    x: torch.Tensor, weight: torch.Tensor, style: torch.Tensor, demodulate: bool, taps: torch.Tensor | None
) -> torch.Tensor:
    """Equations 1 and 3 of Karras et al. 2020, picture by picture and output channel by output channel."""
    pictures = []
    for picture, scales in zip(x, style, strict=True):
        own = torch.stack([torch.stack([k * s for k, s in zip(row, scales, strict=True)]) for row in weight])
        if demodulate:
            own = torch.stack([row / math.sqrt(row.pow(2).sum().item() + 1e-8) for row in own])
        if taps is None:
            pictures.append(functional.conv2d(picture[None], own, padding=own.shape[-1] // 2)[0])
        else:
            pictures.append(conv2d_up(picture[None], own.transpose(0, 1), taps)[0])
    return torch.stack(pictures)


@pytest.mark.parametrize("form", ["fused", "grouped"])
@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("kernel", [1, 3])
def test_modulated_convolution_is_the_one_of_each_picture(form: str, demodulate: bool, up: bool, kernel: int) -> None:
    x, weight = normal(3, 5, 6, 4), normal(7, 5, kernel, kernel, seed=4)
    style, bias = normal(3, 5, seed=5), normal(7, seed=6)
    taps = setup_filter().double() if up else None
    result = modulated_conv2d(x, weight, style, bias, demodulate=demodulate, up_taps=taps, gain=1.5, form=form)
    expected = 1.5 * modulate_one_by_one(x, weight, style, demodulate, taps) + bias[:, None, None]
    assert torch.allclose(result, expected, rtol=0, atol=1e-12)
    without = modulated_conv2d(x, weight, style, demodulate=demodulate, up_taps=taps, gain=1.5, form=form)
    assert torch.allclose(without, expected - bias[:, None, None], rtol=0, atol=1e-12)


@pytest.mark.parametrize("up", [False, True])
def test_both_forms_have_the_same_gradients_of_first_and_second_order(up: bool) -> None:
    taps = setup_filter().double() if up else None
    results = []
    for form in ("fused", "grouped"):
        x, weight = normal(2, 3, 4, 4).requires_grad_(), normal(4, 3, 3, 3, seed=4).requires_grad_()
        style, bias = normal(2, 3, seed=5).requires_grad_(), normal(4, seed=6).requires_grad_()
        y = modulated_conv2d(x, weight, style, bias, up_taps=taps, form=form)
        first = torch.autograd.grad(y.pow(3).sum(), [x, weight, style, bias], create_graph=True)
        penalty = sum(g.square().sum() for g in first)
        second = torch.autograd.grad(penalty, [x, weight, style, bias])
        results.append([*first, *second])
    for fused, grouped in zip(*results, strict=True):
        assert torch.allclose(fused, grouped, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", ["fused", "grouped"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_survives_weights_and_styles_of_any_size(form: str, dtype: torch.dtype) -> None:
    x, weight, style = normal(2, 64, 8, 8), normal(16, 64, 3, 3, seed=4) * 1e5, normal(2, 64, seed=5) * 1e4
    style[0] *= 1e-6
    expected = modulated_conv2d(x, weight, style)
    leaves = [weight.float().requires_grad_(), style.float().requires_grad_()]
    result = modulated_conv2d(x.to(dtype), leaves[0], leaves[1], form=form)
    assert result.dtype == dtype
    assert (result - expected).abs().max() < 16 * torch.finfo(dtype).eps
    gradients = torch.autograd.grad(result.float().pow(3).mean(), leaves)
    exact = [weight.requires_grad_(), style.requires_grad_()]
    expected_gradients = torch.autograd.grad(modulated_conv2d(x, *exact).pow(3).mean(), exact)
    for gradient, exact_one in zip(gradients, expected_gradients, strict=True):
        assert functional.cosine_similarity(gradient.double().flatten(), exact_one.flatten(), dim=0) > 0.999


def test_equalised_layers_scale_at_run_time() -> None:
    dense = EqualizedLinear(400, 300, activated=True, rate=0.01, bias_start=0.5)
    initialise(dense, torch.Generator().manual_seed(0))
    assert dense.weight.std().item() == pytest.approx(100, rel=0.02)
    assert torch.allclose(dense(torch.zeros(1, 400)), torch.full((1, 300), 0.5 * math.sqrt(2)))
    dense.bias.data.zero_()
    x = normal(500, 400, dtype=torch.float32)
    expected = functional.leaky_relu(x @ (dense.weight.T * 0.01 / 20), 0.2) * math.sqrt(2)
    assert torch.allclose(dense(x), expected, atol=1e-5)
    assert dense(x).square().mean().item() == pytest.approx(1.04, rel=0.03)  # (1 + .2^2) / 2 of 2


@pytest.mark.parametrize("halving", [False, True])
def test_equalised_convolution(halving: bool) -> None:
    layer = EqualizedConv2d(8, 16, 3, halving=halving, clamp=0.5)
    initialise(layer, torch.Generator().manual_seed(0))
    layer.bias.data.fill_(0.1)  # type: ignore[union-attr]
    x = normal(2, 8, 6, 6, dtype=torch.float32)
    unit = layer(x, setup_filter())
    assert unit.shape == ((2, 16, 3, 3) if halving else (2, 16, 6, 6))
    assert unit.abs().max().item() == pytest.approx(0.5)
    assert torch.allclose(layer(x, setup_filter(), gain=0.25), unit * 0.25, atol=1e-6)  # the limit is scaled as well
    if halving:
        with pytest.raises(ValueError, match="taps"):
            layer(x)
    else:
        plain = functional.conv2d(x, layer.weight / math.sqrt(72), torch.full((16,), 0.1), padding=1)
        assert torch.allclose(unit, (functional.leaky_relu(plain, 0.2) * math.sqrt(2)).clamp(-0.5, 0.5), atol=1e-6)


def test_levels() -> None:
    levels = plan_levels(384, 512, 32768, 512, half_resolutions=4)
    assert [level.size for level in levels] == [(4 << k, 3 << k) for k in range(8)]
    assert [level.channels for level in levels] == [512, 512, 512, 512, 512, 256, 128, 64]
    assert [level.half for level in levels] == [False] * 4 + [True] * 4
    small = plan_levels(16, 16, 1024, 512, half_resolutions=9)
    assert [level.half for level in small] == [False, True, True]  # never below 8 pixels
    assert [level.half for level in plan_levels(16, 16, 1024, 512, half_resolutions=0)] == [False] * 3
    wide = plan_levels(256, 160, 32768, 512, start=(5, 8))
    assert (wide[0].size, len(wide), wide[-1].channels) == ((5, 8), 6, 128)


@pytest.mark.parametrize(
    ("width", "height", "start"), [(48, 48, None), (64, 62, None), (64, 64, (4, 3)), (4, 4, None), (64, 1, None)]
)
def test_sizes_that_no_doubling_reaches(width: int, height: int, start: tuple[int, int] | None) -> None:
    with pytest.raises(ValueError, match="no doubling"):
        plan_levels(width, height, 1024, 512, start)
