import colorsys
import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from models.gan.ada.bands import RADIUS, amplify, band_filters
from models.gan.ada.colour import brightnesses, contrasts, hue_turns, luma_flips, recolour, saturations
from models.gan.ada.corruption import add_noise, cut_out
from models.gan.ada.wavelets import SYM2


@pytest.fixture
def picture() -> torch.Tensor:
    return torch.rand((2, 4, 5, 6), generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 2 - 1


def pair(first: float, second: float) -> torch.Tensor:
    return torch.tensor([first, second], dtype=torch.float64)


def check(changed: torch.Tensor, known: torch.Tensor, picture: torch.Tensor) -> None:
    torch.testing.assert_close(changed[:, :3], known, atol=1e-12, rtol=0)
    assert torch.equal(changed[:, 3:], picture[:, 3:])  # alpha


def test_brightness_is_added(picture: torch.Tensor) -> None:
    known = picture[:, :3] + pair(0.3, -0.7)[:, None, None, None]
    check(recolour(picture, brightnesses(pair(0.3, -0.7))), known, picture)


def test_contrast_multiplies_about_middle_grey(picture: torch.Tensor) -> None:
    known = picture[:, :3] * pair(0.25, 3.0)[:, None, None, None]
    check(recolour(picture, contrasts(pair(0.25, 3.0))), known, picture)


def test_luma_flip_mirrors_grey_and_keeps_the_hue(picture: torch.Tensor) -> None:
    grey = picture[:1, :3].mean(1, keepdim=True)
    known = torch.cat((picture[:1, :3] - 2 * grey, picture[1:, :3]))
    changed = recolour(picture, luma_flips(torch.tensor([True, False])))
    check(changed, known, picture)
    assert torch.equal(luma_flips(torch.tensor([False]))[0], torch.eye(4, dtype=torch.float64))


def test_saturation_multiplies_about_the_grey_axis(picture: torch.Tensor) -> None:
    grey = picture[:, :3].mean(1, keepdim=True)
    known = grey + (picture[:, :3] - grey) * pair(0.0, 2.5)[:, None, None, None]
    check(recolour(picture, saturations(pair(0.0, 2.5))), known, picture)


def test_hue_turns_about_the_grey_axis(picture: torch.Tensor) -> None:
    axis = np.ones(3) / math.sqrt(3)
    known = []
    for sample, angle in enumerate((0.8, -2.9)):
        colours = picture[sample, :3].flatten(1).T.numpy()
        turned = Rotation.from_rotvec(angle * axis).apply(colours)
        known.append(torch.from_numpy(turned.T.copy()).view(3, 5, 6))
    check(recolour(picture, hue_turns(pair(0.8, -2.9))), torch.stack(known), picture)


def test_a_third_of_a_turn_takes_red_to_green_to_blue() -> None:
    for start in range(3):
        colour = [float(k == start) for k in range(3)]
        pixel = torch.tensor(colour, dtype=torch.float64).view(1, 3, 1, 1)
        turned = recolour(pixel, hue_turns(torch.tensor([2 * math.pi / 3], dtype=torch.float64))).flatten().tolist()
        known = colorsys.hsv_to_rgb(colorsys.rgb_to_hsv(*colour)[0] + 1 / 3, 1, 1)
        assert turned == pytest.approx(known, abs=1e-12)


@pytest.mark.parametrize(
    "matrices", [brightnesses(pair(0, 0)), contrasts(pair(1, 1)), hue_turns(pair(0, 0)), saturations(pair(1, 1))]
)
def test_no_change_is_the_identity_to_the_last_bit(matrices: torch.Tensor) -> None:
    assert torch.equal(matrices, torch.eye(4, dtype=torch.float64).repeat(2, 1, 1))


def test_grey_pictures_are_coloured_as_equal_channels(picture: torch.Tensor) -> None:
    grey = picture[:, :1]
    bright, contrast = brightnesses(pair(0.2, -0.4)), contrasts(pair(0.5, 2.0))
    matrices = saturations(pair(3, 0.1)) @ hue_turns(pair(1, 2)) @ luma_flips(torch.tensor([True, False]))
    changed = recolour(grey, matrices @ contrast @ bright)
    torch.testing.assert_close(changed[0], -(grey[0] + 0.2) * 0.5)
    torch.testing.assert_close(changed[1], (grey[1] - 0.4) * 2.0)
    torch.testing.assert_close(changed, recolour(grey.repeat(1, 3, 1, 1), matrices @ contrast @ bright)[:, 1:2])


def test_bands_add_up_and_halve_the_spectrum() -> None:
    bands = band_filters().numpy()
    impulse = np.zeros(2 * RADIUS + 1)
    impulse[RADIUS] = 1
    np.testing.assert_allclose(bands.sum(0), impulse, atol=1e-12)
    np.testing.assert_allclose(bands, bands[:, ::-1], atol=1e-12)
    # Each band against the product of its half-band responses |H|^2 / 2.
    turns = np.linspace(0, math.pi, 65)
    half = [np.abs(np.exp(-1j * np.outer(turns * step, np.arange(4))) @ SYM2) ** 2 / 2 for step in (1, 2, 4)]
    lows = [half[0] * half[1] * half[2], half[0] * half[1], half[0], np.ones(65)]
    known = [lows[0], *(lows[k] - lows[k - 1] for k in (1, 2, 3))]
    places = np.arange(-RADIUS, RADIUS + 1)
    np.testing.assert_allclose(np.exp(-1j * np.outer(turns, places)) @ bands.T, np.array(known).T, atol=1e-12)


def test_filtering_is_the_convolution_with_mirrored_borders(picture: torch.Tensor) -> None:
    gains = torch.tensor([[1.0, 0.5, 2.0, 3.0], [2.0, 2.0, 2.0, 2.0]], dtype=torch.float64)
    changed = amplify(picture, gains)
    torch.testing.assert_close(changed[1, :3], 4 * picture[1, :3])  # along rows and along columns
    assert torch.equal(changed[:, 3], picture[:, 3])
    taps = gains[0].numpy() @ band_filters().numpy()
    wide = np.pad(picture[0, 0].numpy(), RADIUS, mode="reflect")
    rows = np.stack([np.convolve(row, taps, mode="valid") for row in wide])
    known = np.stack([np.convolve(column, taps, mode="valid") for column in rows.T]).T
    np.testing.assert_allclose(changed[0, 0].numpy(), known, atol=1e-12)


def test_noise_has_its_deviation_and_its_own_seed() -> None:
    still = torch.zeros(3, 4, 64, 64)
    noisy = add_noise(still, torch.tensor([0.1, 0.3, 0.1]), torch.tensor([5, 6, 5]))
    assert not noisy[:, 3].any()
    assert noisy[:, :3].std((1, 2, 3)).tolist() == pytest.approx([0.1, 0.3, 0.1], rel=0.03)
    assert torch.equal(noisy[0], noisy[2])
    assert not torch.equal(noisy[0] * 3, noisy[1])


def test_cutout_takes_half_of_each_side() -> None:
    pictures = torch.ones(2, 4, 16, 24)
    cut = cut_out(pictures, torch.tensor([[0.5, 0.4], [0.0, 0.97]]))
    known = torch.ones_like(pictures)
    known[0, :, 2:10, 6:18] = 0  # rows within 4 of 6.4, columns within 6 of 12
    known[1, :, 12:, :6] = 0  # rows within 4 of 15.52, columns within 6 of 0
    assert torch.equal(cut, known)
