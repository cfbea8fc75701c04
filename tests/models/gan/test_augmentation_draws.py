import math

import pytest
import torch

from models.gan.ada import PRESETS, AdaDraw, AdaPipeline, Strengths

COUNT = 4000


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def decode(draw: AdaDraw) -> dict[str, torch.Tensor]:
    """The single augmentations, read back from the composed matrices; 0 where one is off."""
    linear = draw.geometry[:, :2, :2]
    singular = torch.linalg.svdvals(linear)
    colour = draw.colour[:, :3, :3]
    grey = colour.sum((1, 2)) / 3  # what becomes of (1, 1, 1): the contrast, negative after a luma flip
    chroma = (torch.linalg.det(colour) / grey).abs().sqrt()  # contrast times saturation
    skew = (colour - colour.mT)[:, 1, 0]
    around = (colour.diagonal(dim1=1, dim2=2).sum(1) - grey) / chroma / 2  # cosine of the hue's turn
    values = {
        "mirror": (torch.linalg.det(draw.blit) < 0).double(),
        "right": draw.blit[:, 0, 2],
        "down": draw.blit[:, 1, 2],
        "scale": singular.prod(1).log2() / 2,
        "stretch": (singular[:, 0] / singular[:, 1]).log2() / 2,  # without its sign
        "turn": linear[:, 0, 1].abs() + linear[:, 1, 0].abs(),
        "fraction right": draw.geometry[:, 0, 2],
        "fraction down": draw.geometry[:, 1, 2],
        "brightness": draw.colour[:, :3, 3].mean(1) / grey,
        "contrast": grey.abs().log2(),
        "luma flip": (grey < 0).double(),
        "hue": torch.atan2(skew / chroma / (2 / math.sqrt(3)), around),
        "saturation": (chroma / grey.abs()).log2(),
        "filter": (draw.gains.log2().abs()).sum(1),
        "noise": draw.noise,
        "cutout": (~draw.cutout.isnan().any(1)).double(),
    }
    return {name: torch.where(value.abs() < 1e-7, 0.0, value) for name, value in values.items()}


def test_nothing_is_drawn_at_p_0_or_without_a_group() -> None:
    for preset, p in (("bgcfnc", 0.0), ("none", 1.0)):
        draw = AdaPipeline(preset).draw(50, p, 32, 24, generator())
        for matrices, size in ((draw.blit, 3), (draw.geometry, 3), (draw.colour, 4)):
            assert torch.equal(matrices, torch.eye(size, dtype=torch.float64).repeat(50, 1, 1))
        assert torch.equal(draw.gains, torch.ones(50, 4, dtype=torch.float64))
        assert not draw.noise.any()
        assert draw.cutout.isnan().all()


def test_the_generator_moves_on_alike_for_every_p_and_preset() -> None:
    states = []
    for preset in PRESETS:
        for p in (0.0, 0.37, 1.0):
            rng = generator()
            AdaPipeline(preset).draw(7, p, 64, 32, rng)
            states.append(rng.get_state())
    assert not torch.equal(states[0], generator().get_state())
    assert all(torch.equal(state, states[0]) for state in states)


def test_one_seed_gives_one_draw() -> None:
    one, same, other = (AdaPipeline("bgcfnc").draw(9, 0.8, 32, 32, generator(seed)) for seed in (4, 4, 5))
    for name, value in vars(one).items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(getattr(same, name), value, rtol=0, atol=0, equal_nan=True)
            assert not torch.equal(getattr(other, name), value)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_each_is_on_with_probability_p(p: float) -> None:
    chances = dict.fromkeys(decode(AdaPipeline("none").draw(1, 0, 32, 32, generator())), p)
    chances["mirror"] = chances["luma flip"] = p / 2  # a mirrored picture is as likely as the other
    for name in ("right", "down"):  # the shares that do not round to 0 of -8..8 pixels
        chances[name] = p * 15 / 16
    chances["filter"] = 1 - (1 - p) ** 4  # each of four bands
    decoded = decode(AdaPipeline("bgcfnc").draw(COUNT, p, 64, 64, generator(11)))
    for name, chance in chances.items():
        share = (decoded[name] != 0).double().mean().item()
        assert abs(share - chance) < 4.5 * math.sqrt(chance * (1 - chance) / COUNT), name


def test_quarter_turns_are_equally_likely() -> None:
    draw = AdaPipeline("b").draw(COUNT, 1.0, 64, 64, generator(2))
    unmirrored = draw.blit[torch.linalg.det(draw.blit) > 0]
    for cosine, sine in ((1, 0), (0, 1), (-1, 0), (0, -1)):
        share = ((unmirrored[:, 0, 0] == cosine) & (unmirrored[:, 0, 1] == sine)).double().mean().item()
        assert share == pytest.approx(0.25, abs=4.5 * math.sqrt(0.1875 / len(unmirrored)))


def test_strengths_are_the_papers() -> None:
    decoded = decode(AdaPipeline("bgcfnc").draw(COUNT, 1.0, 64, 32, generator(8)))
    normal = {
        "scale": 0.2,
        "fraction right": 0.125 * 64,
        "fraction down": 0.125 * 32,
        "brightness": 0.2,
        "contrast": 0.5,
        "saturation": 1.0,
    }
    for name, deviation in normal.items():
        assert decoded[name].std().item() == pytest.approx(deviation, rel=0.05), name
        assert abs(decoded[name].mean().item()) < 4.5 * deviation / math.sqrt(COUNT), name
    for name in ("stretch", "noise"):  # half-normal: root of the mean square is the deviation
        deviation = {"stretch": 0.2, "noise": 0.1}[name]
        assert decoded[name].square().mean().sqrt().item() == pytest.approx(deviation, rel=0.05), name
    for name, reach in (("right", 8), ("down", 4)):
        assert torch.equal(decoded[name], decoded[name].round())
        assert decoded[name].min().item() == -reach
        assert decoded[name].max().item() == reach
    assert decoded["hue"].std().item() == pytest.approx(math.pi / math.sqrt(3), rel=0.05)
    assert decoded["hue"].abs().max().item() > 3.1


def test_gains_keep_the_power_of_natural_pictures() -> None:
    power = torch.tensor([10, 1, 1, 1], dtype=torch.float64) / 13
    draw = AdaPipeline("bgcf").draw(COUNT, 0.1, 64, 64, generator(3))
    single = draw.gains[((draw.gains - draw.gains.roll(1, 1)).abs() > 1e-9).sum(1) == 2]  # one band at most differs
    assert len(single) > 500
    torch.testing.assert_close(single.square() @ power, torch.ones(len(single), dtype=torch.float64))


def test_what_is_on_stays_on_at_a_larger_p() -> None:
    low, high = (decode(AdaPipeline("bgcfnc").draw(600, p, 64, 64, generator(6))) for p in (0.3, 0.7))
    for name, value in low.items():
        on = value != 0
        assert 0 < on.sum() < (high[name] != 0).sum()
        assert (high[name][on] != 0).all(), name
        if name not in ("turn", "right", "down", "filter", "hue", "luma flip", "mirror"):
            torch.testing.assert_close(high[name][on], value[on], msg=name)


def test_multipliers_scale_p_and_stop_at_1() -> None:
    pipeline = AdaPipeline("bgc", colour=0.5, cutout=3.0)
    assert pipeline.strengths == Strengths(blit=1.0, geometry=1.0, colour=0.5, cutout=3.0)
    decoded = decode(pipeline.draw(COUNT, 0.4, 64, 64, generator(5)))
    for name, chance in (("contrast", 0.2), ("scale", 0.4), ("cutout", 1.0), ("noise", 0.0)):
        share = (decoded[name] != 0).double().mean().item()
        assert abs(share - chance) <= 4.5 * math.sqrt(chance * (1 - chance) / COUNT), name


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_parts_of_a_batch_are_augmented_as_the_whole(channels: int) -> None:
    pipeline = AdaPipeline("bgcfnc")
    images = torch.rand((12, channels, 16, 12), generator=generator()) * 2 - 1
    draw = pipeline.draw(12, 0.6, 12, 16, generator())
    whole = pipeline.apply(images, draw)
    assert (whole != images).flatten(1).any(1).all()
    assert torch.equal(whole, pipeline.apply(images, draw))
    for part in (slice(0, 4), slice(4, 5), slice(5, 12)):
        assert len(draw[part]) == part.stop - part.start
        torch.testing.assert_close(pipeline.apply(images[part], draw[part]), whole[part], rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("preset", "count", "channels", "fast"),
    [("bgc", 1, 1, False), ("bgc", 5, 3, True), ("bgcfnc", 1, 1, True), ("bgcfnc", 5, 4, True)],
)
def test_second_derivatives_of_the_pipeline(preset: str, count: int, channels: int, fast: bool) -> None:
    """Of a curved function of the augmented pictures, as a discriminator is: R1 needs these."""
    pipeline = AdaPipeline(preset)
    draw = pipeline.draw(count, 0.8 if count > 1 else 1.0, 9, 8, generator(7))
    on = decode(draw)
    assert all(on[name].any() for name in ("turn", "scale", "contrast", "hue"))
    images = torch.rand((count, channels, 8, 9), generator=generator(), dtype=torch.float64).requires_grad_()

    def judge(pictures: torch.Tensor) -> torch.Tensor:
        return pipeline.apply(pictures, draw).sin().flatten(1).sum(1)

    assert torch.autograd.gradcheck(judge, (images,), fast_mode=fast)
    assert torch.autograd.gradgradcheck(judge, (images,), fast_mode=fast)


def test_the_gradient_of_r1_has_its_closed_form() -> None:
    """bg is A x; with w (A x)^2 / 2 as D's logit the penalty |A' w A x|^2 has the gradient 2 (A' w A)^2 x."""
    pipeline = AdaPipeline("bg")
    draw = pipeline.draw(1, 1.0, 10, 8, generator(7))
    unit = torch.eye(80, dtype=torch.float64).view(80, 1, 8, 10)
    columns = torch.cat([pipeline.apply(picture[None], draw) for picture in unit])
    matrix = columns.view(80, 80).T
    images = torch.randn((1, 1, 8, 10), generator=generator(), dtype=torch.float64, requires_grad=True)
    weights = torch.randn(80, generator=generator(2), dtype=torch.float64)
    logit = (pipeline.apply(images, draw).flatten().square() * weights).sum() / 2
    (gradient,) = torch.autograd.grad(logit, images, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), images)
    form = matrix.T @ torch.diag(weights) @ matrix
    torch.testing.assert_close(gradient.flatten(), form @ images.flatten())
    torch.testing.assert_close(second.flatten(), 2 * form @ form @ images.flatten())


def test_copies_pass_on_exact_gradients() -> None:
    pipeline = AdaPipeline("b")
    draw = pipeline.draw(6, 1.0, 8, 8, generator(3))
    images = torch.randn((6, 1, 8, 8), generator=generator(), dtype=torch.float64, requires_grad=True)
    weights = torch.randn((6, 1, 8, 8), generator=generator(9), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((pipeline.apply(images, draw) * weights).sum(), images)
    torch.testing.assert_close(gradient.sum((1, 2, 3)), weights.sum((1, 2, 3)))  # every value is shared out once
    assert torch.autograd.gradcheck(lambda x: pipeline.apply(x, draw).sin(), (images,), fast_mode=True)


def test_half_precision_and_autocast_lose_nothing_on_the_way() -> None:
    pipeline = AdaPipeline("bgcf")
    images = torch.rand((4, 3, 16, 16), generator=generator()) * 2 - 1
    draw = pipeline.draw(4, 1.0, 16, 16, generator())
    half = images.bfloat16()
    changed = pipeline.apply(half, draw)
    assert changed.dtype == torch.bfloat16
    assert torch.equal(changed, pipeline.apply(half.float(), draw).bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(pipeline.apply(images, draw), pipeline.apply(images.clone(), draw))
        inside = pipeline.apply(images, draw)
    assert torch.equal(inside, pipeline.apply(images, draw))


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(ValueError, match="no augmentation called 'bgx'"):
        AdaPipeline("bgx")
    with pytest.raises(ValueError, match="multiplier of colour"):
        AdaPipeline("bgc", colour=-0.1)
    pipeline = AdaPipeline("bgc")
    for p in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"p must lie in 0\.\.1"):
            pipeline.draw(2, p, 16, 16, generator())
    with pytest.raises(ValueError, match="8 pixels"):
        pipeline.draw(2, 0.5, 7, 16, generator())
    draw = pipeline.draw(2, 0.5, 16, 12, generator())
    for shape in ((3, 3, 12, 16), (2, 3, 16, 12)):
        with pytest.raises(ValueError, match="drawn for 2 pictures of 12 x 16"):
            pipeline.apply(torch.zeros(shape), draw)
    with pytest.raises(ValueError, match="1, 3 or 4 channels"):
        pipeline.apply(torch.zeros(2, 2, 12, 16), draw)
