import math

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from models.gan.ada import AdaDraw, AdaPipeline
from models.gan.ada.geometry import from_corner, quarter_turns, rotations, scalings, translations
from models.gan.ada.resample import CENTRE, MARGIN, copy_pixels, downsample, find_copies, upsample, warp
from models.gan.ada.wavelets import SYM2, SYM6, extend


def one(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


def noise_picture(channels: int, height: int, width: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(height * width + channels)
    return torch.rand((1, channels, height, width), generator=rng, dtype=torch.float64) * 2 - 1


def smooth_picture(height: int, width: int) -> np.ndarray:
    """Cosines that a mirror at the border continues without a bend; no two quarters alike."""
    y, x = np.mgrid[:height, :width]
    y, x = np.pi * y / (height - 1), np.pi * x / (width - 1)
    return 0.5 * np.cos(x) + 0.3 * np.cos(2 * y) * np.cos(x) + 0.2 * np.cos(3 * y)


def still_draw(width: int, height: int, **changed: torch.Tensor) -> AdaDraw:
    """A draw for one picture that does nothing but what `changed` says."""
    draw = AdaPipeline("none").draw(1, 0.0, width, height, torch.Generator())
    return AdaDraw(**{**vars(draw), **changed})


MATRICES = [
    (translations(one(3.5), one(-2.0)), [[1, 0, 3.5], [0, 1, -2], [0, 0, 1]]),
    (scalings(one(2.0), one(-0.5)), [[2, 0, 0], [0, -0.5, 0], [0, 0, 1]]),
    # y points down, so that a counterclockwise turn takes the point to the right (1, 0) upwards
    (rotations(one(math.pi / 6)), [[math.sqrt(0.75), 0.5, 0], [-0.5, math.sqrt(0.75), 0], [0, 0, 1]]),
    (quarter_turns(torch.tensor([1])), [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]),
    (quarter_turns(torch.tensor([2])), [[-1, 0, 0], [0, -1, 0], [0, 0, 1]]),
    (quarter_turns(torch.tensor([3])), [[0, -1, 0], [1, 0, 0], [0, 0, 1]]),
    (from_corner(scalings(one(-1.0), one(1.0)), 8, 5), [[-1, 0, 7], [0, 1, 0], [0, 0, 1]]),
    (from_corner(quarter_turns(torch.tensor([1])), 6, 6), [[0, 1, 0], [-1, 0, 5], [0, 0, 1]]),
]


@pytest.mark.parametrize(("matrices", "known"), MATRICES)
def test_transforms_have_their_known_matrices(matrices: torch.Tensor, known: list[list[float]]) -> None:
    assert matrices.dtype == torch.float64
    np.testing.assert_allclose(matrices[0].numpy(), known, atol=1e-15)


def test_every_row_has_its_own_transform() -> None:
    angles = torch.tensor([0.0, 0.3, -2.0], dtype=torch.float64)
    turned = rotations(angles)
    assert torch.equal(turned[0], torch.eye(3, dtype=torch.float64))
    for k, angle in enumerate(angles.tolist()):
        assert torch.equal(turned[k], rotations(one(angle))[0])


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(12, 12), (12, 8), (9, 13)])
def test_mirroring_and_quarter_turns_are_those_of_numpy(channels: int, height: int, width: int) -> None:
    picture = noise_picture(channels, height, width)
    side = max(height, width)
    above, left = (side - height) // 2, (side - width) // 2
    pixels = picture[0].numpy()
    square = np.pad(pixels, ((0, 0), (above, above), (left, left)), mode="reflect")
    for quarters in range(4):
        for flipped in (False, True):
            mirrored = scalings(one(-1.0 if flipped else 1.0), one(1.0))
            blit = quarter_turns(torch.tensor([quarters])) @ mirrored
            known = np.rot90(np.flip(square, 2) if flipped else square, quarters, axes=(1, 2))
            known = known[:, above : above + height, left : left + width]
            changed = AdaPipeline("b").apply(picture, still_draw(width, height, blit=blit))
            np.testing.assert_array_equal(changed[0].numpy(), known)


@pytest.mark.parametrize(("right", "down"), [(0, 3), (-2, 0), (5, -4), (-11, 9)])
def test_whole_pixel_shifts_copy_and_mirror(right: int, down: int) -> None:
    picture = noise_picture(3, 12, 16)
    wide = np.pad(picture[0].numpy(), ((0, 0), (11, 11), (11, 11)), mode="reflect")
    known = wide[:, 11 - down : 23 - down, 11 - right : 27 - right]
    blit = translations(one(right), one(down))
    np.testing.assert_array_equal(copy_pixels(picture, blit)[0].numpy(), known)
    rolled = np.roll(picture[0].numpy(), (down, right), axis=(1, 2))
    rows, columns = slice(max(down, 0), 12 + min(down, 0)), slice(max(right, 0), 16 + min(right, 0))
    np.testing.assert_array_equal(known[:, rows, columns], rolled[:, rows, columns])


def test_only_whole_pixel_moves_are_copied() -> None:
    still = torch.eye(3, dtype=torch.float64)[None]
    quarter = quarter_turns(torch.tensor([1]))
    assert find_copies(quarter, still, 8, 12).tolist() == [True]
    assert find_copies(quarter, still, 8, 11).tolist() == [False]  # its centre lies between pixels
    assert find_copies(quarter, rotations(one(1e-9)), 8, 12).tolist() == [False]


TRANSFORMS = {
    "shift": translations(one(2.3), one(-1.6)),
    "far shift": translations(one(-25.25), one(30.5)),
    "enlarge": scalings(one(1.4), one(1.4)),
    "shrink": scalings(one(0.8), one(0.8)),
    "stretch": scalings(one(1.25), one(0.8)),
    "turn": rotations(one(0.7)),
    "all": translations(one(1.7), one(3.1)) @ rotations(one(-2.2)) @ scalings(one(-1.1), one(0.9)),
}


@pytest.mark.parametrize(("height", "width"), [(32, 32), (32, 24), (24, 36)])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_resampling_agrees_with_cubic_splines(name: str, height: int, width: int) -> None:
    picture = smooth_picture(height, width)
    inverse = np.linalg.inv(TRANSFORMS[name][0].numpy())
    y, x = np.mgrid[:height, :width]
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    across = inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2] + (width - 1) / 2
    down = inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2] + (height - 1) / 2
    known = map_coordinates(picture, [down, across], order=3, mode="mirror")
    changed = warp(torch.from_numpy(picture)[None, None], TRANSFORMS[name])[0, 0].numpy()
    assert np.abs(changed - known).max() < 0.003
    assert np.abs(picture - known).max() > 0.2  # so an identity would not pass


def test_slopes_are_resampled_exactly() -> None:
    """Away from the border a plane stays a plane, so a picture's place is off by nothing at all."""
    y, x = np.mgrid[:48, :48] - 23.5
    picture = torch.from_numpy(0.03 * x - 0.05 * y + 0.2)[None, None]
    for name in ("shift", "enlarge", "shrink", "stretch", "turn", "all"):
        inverse = np.linalg.inv(TRANSFORMS[name][0].numpy())
        across = inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]
        down = inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]
        inside = (np.maximum(np.abs(across), np.abs(down)) < 13) & (np.maximum(np.abs(x), np.abs(y)) < 17)
        assert inside.sum() > 300
        changed = warp(picture, TRANSFORMS[name])[0, 0].numpy()
        np.testing.assert_allclose(changed[inside], (0.03 * across - 0.05 * down + 0.2)[inside], atol=1e-9)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_the_identity_is_the_identity_to_the_last_bit(channels: int, dtype: torch.dtype) -> None:
    picture = noise_picture(channels, 9, 14).to(dtype)
    assert AdaPipeline("bgcfnc").apply(picture, still_draw(14, 9)) is picture or dtype == torch.float16
    assert torch.equal(AdaPipeline("bgcfnc").apply(picture, still_draw(14, 9)), picture)
    # and beside a picture that is changed
    both = torch.cat((picture, picture))
    draw = still_draw(14, 9)
    mixed = AdaDraw(
        **{k: torch.cat((v, v)) if isinstance(v, torch.Tensor) else v for k, v in vars(draw).items()}
        | {"geometry": torch.cat((draw.geometry, rotations(one(1.0))))}
    )
    changed = AdaPipeline("bg").apply(both, mixed)
    assert changed.dtype == dtype
    assert torch.equal(changed[0], picture[0])
    assert not torch.equal(changed[1], picture[0])


def test_channels_move_together() -> None:
    picture = noise_picture(1, 16, 12)
    changed = warp(picture.repeat(1, 4, 1, 1), TRANSFORMS["all"])
    for channel in range(4):
        assert torch.equal(changed[:, channel : channel + 1], warp(picture, TRANSFORMS["all"]))


@pytest.mark.parametrize("taps", [SYM2, SYM6])
def test_wavelet_taps_are_orthonormal(taps: tuple[float, ...]) -> None:
    h = np.array(taps)
    assert h.sum() == pytest.approx(math.sqrt(2), abs=1e-10)
    for shift in range(len(h) // 2):
        assert h[2 * shift :] @ h[: len(h) - 2 * shift] == pytest.approx(float(shift == 0), abs=1e-10)
    # as many vanishing moments as half the taps: what makes it Daubechies' and not another orthonormal filter
    k, signs = np.arange(len(h)) - len(h) / 2, (-1.0) ** np.arange(len(h))
    for power in range(len(h) // 2):
        assert (signs * h * k**power).sum() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dim", [2, 3])
def test_downsampling_undoes_upsampling(dim: int) -> None:
    picture = noise_picture(2, 11, 8)
    samples = upsample(picture, dim)
    assert samples.shape[dim] == 2 * picture.shape[dim] + 2 * MARGIN
    torch.testing.assert_close(downsample(samples, dim), picture, atol=1e-10, rtol=0)


def test_upsampling_meets_quadratics() -> None:
    x = torch.arange(30, dtype=torch.float64)
    samples = upsample((0.01 * x * x - 0.2 * x + 0.5).expand(1, 1, 2, 30), 3)[0, 0, 0]
    places = (torch.arange(len(samples), dtype=torch.float64) - CENTRE) / 2
    inside = (places > 4) & (places < 25)
    torch.testing.assert_close(
        samples[inside], (0.01 * places * places - 0.2 * places + 0.5)[inside], atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("margin", [1, 4, 5, 17])
@pytest.mark.parametrize("dim", [2, 3])
def test_borders_are_mirrored_as_numpy_does(margin: int, dim: int) -> None:
    picture = noise_picture(2, 5, 7)
    pads = [(margin, margin) if k == dim else (0, 0) for k in range(4)]
    np.testing.assert_array_equal(extend(picture, margin, dim).numpy(), np.pad(picture.numpy(), pads, mode="reflect"))


def test_one_pixel_cannot_be_mirrored() -> None:
    with pytest.raises(ValueError, match="cannot be mirrored"):
        extend(torch.zeros(1, 1, 1, 4), 2, 2)
