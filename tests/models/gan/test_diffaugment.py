import math

import numpy as np
import pytest
import torch

from models.gan.diffaugment import DiffAugment, DiffDraw


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand((6, 3, 16, 24), generator=generator(), dtype=torch.float64) * 2 - 1


def only(draw: DiffDraw, *names: str) -> DiffDraw:
    """The draw with everything but `names` off."""
    still = DiffAugment().draw(len(draw), 0.0, draw.width, draw.height, generator())
    return DiffDraw(**{**vars(still), **{name: getattr(draw, name) for name in names}})


def test_draws_keep_to_the_papers_ranges() -> None:
    draw = DiffAugment().draw(4000, 1.0, 24, 16, generator(2))
    for values, low, high in (
        (draw.brightness, -0.5, 0.5),
        (draw.saturation, 0.0, 2.0),
        (draw.contrast, 0.5, 1.5),
        (draw.cutout[:, 0], 0.0, 1.0),
        (draw.cutout[:, 1], 0.0, 1.0),
    ):
        assert low <= values.min() < low + 0.01
        assert high - 0.01 < values.max() <= high
        assert values.std().item() == pytest.approx((high - low) / math.sqrt(12), rel=0.05)
    assert draw.translation[:, 0].unique().tolist() == list(range(-3, 4))  # an eighth of 24 and of 16
    assert draw.translation[:, 1].unique().tolist() == list(range(-2, 3))
    shares = draw.translation[:, 1].add(2).bincount() / 4000
    assert shares.tolist() == pytest.approx([0.2] * 5, abs=4.5 * math.sqrt(0.16 / 4000))


def test_colour_is_the_papers_formula(images: torch.Tensor) -> None:
    draw = only(DiffAugment().draw(6, 1.0, 24, 16, generator(3)), "brightness", "saturation", "contrast")
    changed = DiffAugment().apply(images, draw).numpy()
    for k, picture in enumerate(images.numpy()):
        known = picture + draw.brightness[k].item()
        grey = known.mean(0)
        known = grey + (known - grey) * draw.saturation[k].item()
        known = known.mean() + (known - known.mean()) * draw.contrast[k].item()
        np.testing.assert_allclose(changed[k], known, atol=1e-12)


def test_translation_moves_and_uncovers_zeros(images: torch.Tensor) -> None:
    draw = only(DiffAugment().draw(6, 1.0, 24, 16, generator(3)), "translation")
    changed = DiffAugment().apply(images, draw).numpy()
    for k, (right, down) in enumerate(draw.translation.tolist()):
        wide = np.pad(images[k].numpy(), ((0, 0), (3, 3), (3, 3)))
        np.testing.assert_array_equal(changed[k], wide[:, 3 - down : 19 - down, 3 - right : 27 - right])


def test_cutout_is_half_of_each_side_clipped_at_the_border(images: torch.Tensor) -> None:
    drawn = only(DiffAugment().draw(6, 1.0, 24, 16, generator(3)), "cutout")
    centres = torch.tensor([[0.4, 0.6], [0.25, 0.75], [0.02, 0.5], [0.99, 0.99]], dtype=torch.float64)
    drawn = DiffDraw(**{**vars(drawn), "cutout": torch.cat((centres, drawn.cutout[4:]))})
    changed = DiffAugment().apply(images, drawn)
    for k, (x, y) in enumerate(drawn.cutout.tolist()):
        rows, columns = (
            [i for i in range(size) if abs((i + 0.5) / size - place) < 0.25] for size, place in ((16, y), (24, x))
        )
        known = images[k].clone()
        known[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = 0
        assert torch.equal(changed[k], known)
    for k in (0, 1):  # far enough from the border
        assert (changed[k] == 0).sum().item() == 3 * 8 * 12


def test_nothing_happens_at_p_0(images: torch.Tensor) -> None:
    draw = DiffAugment().draw(6, 0.0, 24, 16, generator())
    assert torch.equal(DiffAugment().apply(images, draw), images)


def test_each_of_the_five_is_on_with_probability_p() -> None:
    draw = DiffAugment().draw(4000, 0.3, 64, 64, generator(4))
    on = {
        "brightness": draw.brightness != 0,
        "saturation": draw.saturation != 1,
        "contrast": draw.contrast != 1,
        "cutout": ~draw.cutout.isnan().any(1),
    }
    for name, chosen in on.items():
        assert abs(chosen.double().mean().item() - 0.3) < 4.5 * math.sqrt(0.21 / 4000), name
    moved = draw.translation.any(1).double().mean().item()
    assert abs(moved - 0.3 * (1 - 1 / 17**2)) < 4.5 * math.sqrt(0.21 / 4000)


def test_the_generator_alone_decides() -> None:
    states = []
    for p in (0.0, 0.5, 1.0):
        rng = generator(9)
        DiffAugment().draw(5, p, 24, 16, rng)
        states.append(rng.get_state())
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])
    first, again, other = (DiffAugment().draw(5, 1.0, 24, 16, generator(seed)) for seed in (9, 9, 10))
    for name in ("brightness", "saturation", "contrast", "translation", "cutout"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_parts_of_a_batch_are_augmented_as_the_whole(channels: int) -> None:
    augment = DiffAugment()
    images = torch.rand((9, channels, 16, 12), generator=generator()) * 2 - 1
    draw = augment.draw(9, 0.7, 12, 16, generator(3))
    whole = augment.apply(images, draw)
    assert (whole != images).any()
    for part in (slice(0, 4), slice(4, 5), slice(5, 9)):
        assert torch.equal(augment.apply(images[part], draw[part]), whole[part])


def test_alpha_is_moved_but_not_coloured() -> None:
    images = torch.rand((4, 4, 16, 16), generator=generator())
    draw = DiffAugment().draw(4, 1.0, 16, 16, generator(3))
    changed = DiffAugment().apply(images, draw)
    moved = DiffAugment().apply(images, only(draw, "translation", "cutout"))
    assert torch.equal(changed[:, 3], moved[:, 3])
    assert not torch.equal(changed[:, :3], moved[:, :3])
    assert torch.equal(changed[:, :3], DiffAugment().apply(images[:, :3].contiguous(), draw))


def test_second_derivatives() -> None:
    draw = DiffAugment().draw(2, 1.0, 9, 8, generator(3))
    images = torch.randn((2, 3, 8, 9), generator=generator(), dtype=torch.float64, requires_grad=True)

    def judge(pictures: torch.Tensor) -> torch.Tensor:
        return DiffAugment().apply(pictures, draw).sin().flatten(1).sum(1)

    assert torch.autograd.gradcheck(judge, (images,))
    assert torch.autograd.gradgradcheck(judge, (images,), fast_mode=True)


def test_half_precision_keeps_its_type(images: torch.Tensor) -> None:
    draw = DiffAugment().draw(6, 1.0, 24, 16, generator(3))
    half = images.half()
    changed = DiffAugment().apply(half, draw)
    assert changed.dtype == torch.float16
    assert torch.equal(changed, DiffAugment().apply(half.float(), draw).half())


def test_wrong_arguments_are_told() -> None:
    augment = DiffAugment()
    with pytest.raises(ValueError, match=r"p must lie in 0\.\.1"):
        augment.draw(2, 1.5, 16, 16, generator())
    draw = augment.draw(2, 1.0, 16, 12, generator())
    with pytest.raises(ValueError, match="drawn for 2 pictures of 12 x 16"):
        augment.apply(torch.zeros(2, 3, 16, 12), draw)
    with pytest.raises(ValueError, match="1, 3 or 4 channels"):
        augment.apply(torch.zeros(2, 5, 12, 16), draw)
