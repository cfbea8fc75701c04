import copy
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn

from models.gan.noise import SampleNoise
from models.gan.stylegan2 import Discriminator, Generator, initialise
from models.gan.stylegan2.mapping import MappingNetwork


def make(**changes: object) -> Generator:
    settings = {"z_dim": 16, "w_dim": 16, "c_dim": 0, "width": 32, "height": 32, "channel_base": 256, "channel_max": 24}
    generator = Generator(**{**settings, "mapping_layers": 2, **changes})  # type: ignore[arg-type]
    initialise(generator, torch.Generator().manual_seed(0))
    return generator.eval().requires_grad_(False)


def latents(count: int, seed: int = 1, width: int = 16) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def give_noise(generator: Generator, strength: float = 0.3) -> None:
    for layer in generator.synthesis.noise_layers():
        layer.noise_strength.fill_(strength)


def millions(network: nn.Module) -> float:
    return round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 2)


@pytest.mark.parametrize(
    ("resolution", "base", "layers", "g_millions", "d_millions", "num_ws"),
    [
        (64, 16384, 2, 22.24, 23.41, 10),
        (128, 16384, 2, 22.95, 23.88, 12),
        (256, 16384, 2, 23.19, 24.00, 14),
        (256, 16384, 8, 24.77, 24.00, 14),
        (256, 32768, 8, 30.03, 28.86, 14),
        (512, 32768, 2, 28.70, 28.98, 16),
        (512, 32768, 8, 30.28, 28.98, 16),
        (1024, 32768, 8, 30.37, 29.01, 18),
    ],
)
def test_parameters_are_as_many_as_in_the_published_models(
    resolution: int, base: int, layers: int, g_millions: float, d_millions: float, num_ws: int
) -> None:
    with torch.device("meta"):
        generator = Generator(512, 512, 0, resolution, resolution, 3, base, 512, layers)
        discriminator = Discriminator(0, resolution, resolution, 3, base, 512)
    assert (millions(generator), millions(discriminator)) == (g_millions, d_millions)
    assert generator.num_ws == num_ws


@pytest.mark.parametrize(("base", "expected"), [(32768, 95.2), (65536, 116.8)])
def test_parameters_of_the_extended_model(base: int, expected: float) -> None:
    with torch.device("meta"):
        generator = Generator(1024, 1024, 0, 512, 512, 3, base, 1024, 4, normalize_latent=False)
    assert round(millions(generator), 1) == expected


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("width", "height", "start"), [(32, 32, None), (24, 32, None), (32, 20, (5, 8)), (16, 8, (2, 4))]
)
def test_pictures_of_any_aspect_and_channels(
    channels: int, width: int, height: int, start: tuple[int, int] | None
) -> None:
    generator = make(width=width, height=height, channels=channels, start=start)
    pictures = generator(latents(2))
    assert pictures.shape == (2, channels, height, width)
    assert pictures.dtype == torch.float32
    assert torch.isfinite(pictures).all()


def test_the_start_keeps_unit_variance() -> None:
    """What is constant over a map keeps its power in every layer; white noise loses some to the low-pass filters."""
    generator = make(width=64, height=64, channel_base=4096, channel_max=64, z_dim=64, w_dim=64, mapping_layers=8)
    w = generator.mapping(latents(64, width=64))
    assert 0.6 < w.square().mean().item() < 1.6
    for layer in generator.synthesis.noise_layers():
        rows, columns = layer.noise.shape
        halved = 2 if layer.doubling else 1
        flat = latents(64, width=layer.weight.shape[1])[:, :, None, None]
        x = flat.expand(-1, -1, rows // halved, columns // halved)
        inner = layer(x, w, generator.synthesis.taps, None, "fused")[:, :, rows // 2, columns // 2]
        assert 0.8 < inner.square().mean().item() < 1.3  # 1.04: the leaky ReLU's (1 + .2^2) / 2, times 2


def test_the_picture_at_the_start_is_of_the_order_of_1() -> None:
    generator = make(width=64, height=64, channel_base=4096, channel_max=64, z_dim=64, w_dim=64, mapping_layers=8)
    moments: list[float] = []

    def note(module: nn.Module, inputs: Sequence[torch.Tensor], output: torch.Tensor) -> None:
        moments.append(output.square().mean().item())

    for layer in generator.synthesis.noise_layers():
        layer.register_forward_hook(note)
    pictures = generator(latents(8, width=64))
    assert len(moments) == 9
    assert all(0.05 < moment < 2 for moment in moments), moments
    assert 0.5 < pictures.std().item() < 3


def test_initialisation_depends_on_its_generator_alone() -> None:
    first = make(c_dim=3)
    torch.randn(5)
    second = make(c_dim=3)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
        assert torch.isfinite(value).all(), name
    weights = [p for n, p in first.named_parameters() if n.endswith("weight")]
    assert len({round(p.flatten()[0].item(), 6) for p in weights}) == len(weights)
    assert not first.w_mean.any()


def test_state_dict_round_trip_and_a_network_made_without_memory() -> None:
    generator = make(c_dim=2)
    give_noise(generator)
    generator.w_mean.copy_(latents(1)[0])
    labels = torch.eye(2)
    with torch.device("meta"):
        other = Generator(16, 16, 2, 32, 32, channel_base=256, channel_max=24, mapping_layers=2)
    other = other.to_empty(device="cpu")
    initialise(other, torch.Generator().manual_seed(9))
    other.load_state_dict({name: value.clone() for name, value in generator.state_dict().items()})
    assert torch.equal(other(latents(2), labels, psi=0.7), generator(latents(2), labels, psi=0.7))
    assert not [name for name in generator.state_dict() if "taps" in name]


def test_noise_starts_without_effect_and_then_has_one() -> None:
    generator = make()
    ws = generator.broadcast(generator.mapping(latents(4)))
    plain = generator.synthesis(ws, "none")
    assert torch.equal(generator.synthesis(ws, "const"), plain)
    assert torch.equal(generator.synthesis(ws, SampleNoise(1, 0, 4)), plain)
    give_noise(generator)
    fixed, drawn = generator.synthesis(ws, "const"), generator.synthesis(ws, SampleNoise(1, 0, 4))
    assert torch.equal(generator.synthesis(ws, "none"), plain)
    assert torch.equal(fixed, generator.synthesis(ws, "const"))
    assert torch.equal(drawn, generator.synthesis(ws, SampleNoise(1, 0, 4)))
    for one, two in ((plain, fixed), (fixed, drawn), (drawn, generator.synthesis(ws, SampleNoise(2, 0, 4)))):
        assert (one - two).abs().mean() > 0.01
    maps = [layer.noise[None, None] for layer in generator.synthesis.noise_layers()]
    assert torch.equal(generator.synthesis(ws, maps), fixed)


def test_a_batch_cut_into_parts_has_the_same_noise() -> None:
    generator = make().double()
    give_noise(generator)
    ws = generator.broadcast(generator.mapping(latents(8).double()))
    whole = generator.synthesis(ws, SampleNoise(5, 0, 8))
    parts = [generator.synthesis(ws[k : k + 4], SampleNoise(5, k, 4)) for k in (0, 4)]
    assert torch.allclose(torch.cat(parts), whole, rtol=0, atol=1e-12)


def test_a_picture_does_not_depend_on_its_company() -> None:
    generator = make(c_dim=3)
    give_noise(generator)
    labels = torch.eye(3)[torch.tensor([0, 1, 2, 0])]
    first, second = latents(4), latents(4, seed=2)
    second[2], other = first[2], generator(first, labels)
    assert torch.equal(generator(second, labels)[2], other[2])
    assert not torch.equal(generator(second, labels)[1], other[1])


@pytest.mark.parametrize("noise", ["const", "none"])
def test_both_forms_make_the_same_picture(noise: str) -> None:
    generator = make().double()
    give_noise(generator)
    z = latents(3).double()
    assert torch.allclose(generator(z, noise=noise, form="grouped"), generator(z, noise=noise), rtol=0, atol=1e-9)


@pytest.mark.parametrize("form", ["fused", "grouped"])
def test_bfloat16_is_near_float32(form: str) -> None:
    generator = make(channel_max=64, channel_base=1024)
    give_noise(generator)
    z = latents(4)
    expected = generator(z)
    generator.half_dtype = torch.bfloat16
    assert copy.deepcopy(generator).half_dtype == torch.bfloat16  # so does the average keep it
    pictures = generator(z, form=form)
    assert pictures.dtype == torch.float32
    error = (pictures - expected).abs()
    assert 0 < error.mean() < 0.02 * expected.std()
    assert error.max() < 0.1 * expected.std()
    generator.half_dtype = None
    assert torch.equal(generator(z), expected)


def test_only_the_levels_told_so_are_in_half_precision() -> None:
    generator = make(half_resolutions=2)
    generator.half_dtype = torch.bfloat16
    seen: list[tuple[int, torch.dtype]] = []

    def note(module: nn.Module, inputs: Sequence[torch.Tensor], output: torch.Tensor) -> None:
        seen.append((output.shape[-1], output.dtype))

    for layer in generator.synthesis.noise_layers():
        layer.register_forward_hook(note)
    generator(latents(1))
    assert {size for size, dtype in seen if dtype == torch.bfloat16} == {16, 32}
    assert {size for size, dtype in seen if dtype == torch.float32} == {4, 8}


def test_truncation() -> None:
    generator = make()
    for _ in range(2000):
        generator.track_mean(generator.mapping(latents(8, seed=_)), 0.99)
    mean = generator.mapping(latents(20000)).mean(dim=0)
    assert (generator.w_mean - mean).norm() < 0.1 * mean.norm()
    z = latents(4)
    at_zero = generator(z, psi=0)
    assert torch.equal(at_zero[0], at_zero[3])
    spreads = [generator(z, psi=psi).std(dim=0).mean().item() for psi in (0.0, 0.3, 0.6, 1.0, 1.3)]
    assert spreads == sorted(spreads)
    assert spreads[0] == 0 < spreads[1]
    ws = generator.broadcast(generator.mapping(z))
    assert generator.truncate(ws, 1.0) is ws
    cut = generator.truncate(ws, 0.5, cutoff=3)
    assert torch.allclose(cut[:, :3], (ws[:, :3] + generator.w_mean) / 2, atol=1e-6)
    assert torch.equal(cut[:, 3:], ws[:, 3:])
    assert torch.equal(generator(z, psi=0.5, cutoff=3), generator.synthesis(cut))


def test_mixing() -> None:
    generator = make()
    w1, w2 = generator.mapping(latents(4)), generator.mapping(latents(4, seed=2))
    ws = generator.mix(w1, w2, torch.tensor([0, 3, generator.num_ws, generator.num_ws + 5]))
    assert ws.shape == (4, 8, 16)
    assert torch.equal(ws[0], generator.broadcast(w2)[0])
    assert torch.equal(ws[1, :3], w1[1].expand(3, -1))
    assert torch.equal(ws[1, 3:], w2[1].expand(5, -1))
    assert torch.equal(ws[2:], generator.broadcast(w1)[2:])


def test_each_style_reaches_its_own_part_of_the_picture() -> None:
    generator = make()
    ws = generator.broadcast(generator.mapping(latents(1))).clone().requires_grad_()
    pictures = generator.synthesis(ws)
    (gradient,) = torch.autograd.grad(pictures.square().sum(), ws)
    assert (gradient.abs().amax(dim=2) > 0).all()
    changed = ws.detach().clone()
    changed[:, -1] += 1  # the last style is the last level's RGB alone: linear in it
    twice = ws.detach().clone()
    twice[:, -1] += 2
    step, double_step = (generator.synthesis(w) - pictures for w in (changed, twice))
    assert step.abs().max() > 0.01
    assert torch.allclose(double_step, 2 * step, atol=1e-4)


@pytest.mark.parametrize("normalize", [True, False])
def test_latents_are_normalised_or_not(normalize: bool) -> None:
    mapping = MappingNetwork(16, 0, 24, 4, normalize)
    initialise(mapping, torch.Generator().manual_seed(0))
    w, larger = mapping(latents(4)), mapping(latents(4) * 3)
    assert w.shape == (4, 24)
    assert torch.allclose(w, larger, atol=1e-4) == normalize
    if not normalize:
        assert torch.allclose(larger, w * 3, atol=1e-4)  # biases are 0 at the start: the network is homogeneous


def test_labels_matter_and_are_asked_for() -> None:
    generator = make(c_dim=3)
    z = latents(1).expand(3, -1)
    pictures = generator(z, torch.eye(3))
    assert (pictures[0] - pictures[1]).abs().mean() > 0.01
    with pytest.raises(ValueError, match=r"needs labels of shape \(N, 3\), got none"):
        generator(z)
    with pytest.raises(ValueError, match=r"needs labels of shape \(N, 3\), got \(3, 2\)"):
        generator(z, torch.eye(3)[:, :2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: g(torch.zeros(2, 5)), "needs latents"),
        (lambda g: g.synthesis(torch.zeros(2, 3, 16)), r"ws must be \(N, 8, 16\)"),
        (lambda g: g(latents(2), noise=SampleNoise(0, 0, 3)), "noise for 3 pictures"),
        (lambda g: g(latents(2), noise="random"), "noise must be"),
        (lambda g: g(latents(2), noise=[torch.zeros(1, 1, 4, 4)]), "need 7 maps"),
        (lambda g: MappingNetwork(0, 0, 4), "nothing to map"),
        (lambda g: MappingNetwork(4, 0, 4, 0), "at least one layer"),
    ],
)
def test_refusals(call: Callable[[Generator], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(make())


@pytest.mark.parametrize("form", ["fused", "grouped"])
def test_the_path_length_has_exact_gradients(form: str) -> None:
    """Its gradient with respect to weights differentiates a gradient: against finite differences, in float64."""
    generator = make(width=8, height=8, channel_base=24, z_dim=4, w_dim=4).double()
    give_noise(generator)
    w = torch.randn(2, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    names = ["levels.1.grow.weight", "levels.1.grow.style.weight", "levels.0.refine.noise_strength", "constant"]

    def path_length(*values: torch.Tensor) -> torch.Tensor:
        ws = generator.broadcast(w).clone().requires_grad_()
        pictures = torch.func.functional_call(
            generator.synthesis, dict(zip(names, values, strict=True)), (ws,), {"form": form}
        )
        (gradient,) = torch.autograd.grad((pictures * y).sum(), ws, create_graph=True)
        return gradient.square().sum(dim=2).mean(dim=1).sqrt()

    values = [generator.synthesis.get_parameter(name).clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(path_length, values, eps=1e-7, atol=1e-4, fast_mode=True)


def test_a_pass_without_draws_compiles_to_the_same_graph() -> None:
    generator = make()
    ws = generator.broadcast(generator.mapping(latents(2)))
    maps = generator.synthesis.draw_noise(SampleNoise(0, 0, 2), 2)
    expected = generator.synthesis.paint(ws, maps, "fused")
    compiled = torch.compile(generator.synthesis.paint, backend="eager", fullgraph=True)  # raises if the graph breaks
    assert torch.equal(compiled(ws, maps, "fused"), expected)
