import numpy as np
import pytest
import torch
from scipy.signal import convolve2d, upfirdn

from models.gan.fir import conv2d_down, conv2d_up, downsample2d, filter2d, setup_filter, upsample2d

LOPSIDED = [0.7, -0.2, 0.4, 0.1, 0.3]  # neither even, nor symmetric: a flip or a shift shows
LONG = [0.1, -0.3, 0.2, 0.5, 0.9, 0.4, -0.2, 0.3, 0.05, -0.1, 0.2, 0.15]  # runs as two passes


@pytest.fixture
def picture() -> torch.Tensor:
    return torch.randn(2, 3, 8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def convolve_by_scipy(
    picture: np.ndarray, taps: np.ndarray, padding: tuple[int, int, int, int], up: int, down: int
) -> np.ndarray:
    """One channel (H, W), as the definition says it: zeros between, zeros around (or cropped), convolved, thinned."""
    left, right, top, bottom = padding
    spread = np.zeros((picture.shape[0] * up, picture.shape[1] * up))
    spread[::up, ::up] = picture
    spread = np.pad(spread, ((max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0))))
    spread = spread[max(-top, 0) : spread.shape[0] - max(-bottom, 0)]
    spread = spread[:, max(-left, 0) : spread.shape[1] - max(-right, 0)]
    return convolve2d(spread, np.outer(taps, taps), mode="valid")[::down, ::down]


@pytest.mark.parametrize("taps", [[1, 3, 3, 1], LOPSIDED, LONG, [1]])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (2, 3), (3, 2)])
@pytest.mark.parametrize("padding", [(7, 7, 7, 7), (6, 9, 8, 5), (9, -2, -1, 12)])
def test_filters_as_scipy(
    picture: torch.Tensor, taps: list[float], up: int, down: int, padding: tuple[int, int, int, int]
) -> None:
    kernel = setup_filter(taps).double()
    assert kernel.sum().item() == pytest.approx(1)
    filtered = filter2d(picture, kernel, padding, gain=2.5, up=up, down=down).numpy()
    for sample in range(2):
        for channel in range(3):
            expected = 2.5 * convolve_by_scipy(picture[sample, channel].numpy(), kernel.numpy(), padding, up, down)
            np.testing.assert_allclose(filtered[sample, channel], expected, atol=1e-12)


def test_doubling_is_upfirdn_and_keeps_centres(picture: torch.Tensor) -> None:
    taps = setup_filter()
    doubled = upsample2d(picture, taps)
    expected = upfirdn(taps.numpy() * 2, upfirdn(taps.numpy() * 2, picture.numpy(), up=2, axis=2), up=2, axis=3)
    np.testing.assert_allclose(
        doubled, expected[:, :, 1:17, 1:13], atol=1e-12
    )  # the full result begins a pixel earlier
    ramp = torch.arange(8.0, dtype=torch.float64).expand(1, 1, 8, 8)
    inner = upsample2d(ramp, taps)[0, 0, 8, 2:-2]
    assert torch.allclose(inner, (torch.arange(16, dtype=torch.float64)[2:-2] + 0.5) / 2 - 0.5)


def test_halving_is_upfirdn_and_keeps_centres(picture: torch.Tensor) -> None:
    taps = setup_filter()
    halved = downsample2d(picture, taps)
    padded = np.pad(picture.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    expected = upfirdn(taps.numpy(), upfirdn(taps.numpy(), padded, axis=2), axis=3)[:, :, 3:-3, 3:-3][:, :, ::2, ::2]
    np.testing.assert_allclose(halved, expected, atol=1e-12)
    ramp = torch.arange(16.0, dtype=torch.float64).expand(1, 1, 16, 16)
    inner = downsample2d(ramp, taps)[0, 0, 4, 1:-1]
    assert torch.allclose(inner, torch.arange(1, 7, dtype=torch.float64) * 2 + 0.5)


def test_without_padding_the_size_stays(picture: torch.Tensor) -> None:
    for taps in ([1, 2, 1], [1, 3, 3, 1], LONG):
        assert filter2d(picture, setup_filter(taps)).shape == picture.shape
    centred = filter2d(picture, setup_filter([1, 2, 1]))
    assert torch.allclose(centred, picture_by_pooling(picture))


def picture_by_pooling(picture: torch.Tensor) -> torch.Tensor:
    """[1, 2, 1] is a mean over 2 pixels, twice, with zeros beyond the edges."""
    once = torch.nn.functional.avg_pool2d(picture, 2, stride=1, padding=1)
    return torch.nn.functional.avg_pool2d(once, 2, stride=1)


@pytest.mark.parametrize("kernel", [1, 3])
def test_convolution_that_doubles(picture: torch.Tensor, kernel: int) -> None:
    rng = torch.Generator().manual_seed(1)
    weight = torch.randn(3, 2, kernel, kernel, dtype=torch.float64, generator=rng)  # (in, out, k, k)
    taps = setup_filter().double()
    result = conv2d_up(picture, weight, taps).numpy()
    assert result.shape == (2, 2, 16, 12)
    begin = 2 + (kernel - 3) // 2  # where the full convolution has the first pixel
    for out in range(2):
        full = sum(
            convolve2d(convolve2d(spread_by_zeros(picture[0, i].numpy()), weight[i, out].numpy()), outer(taps) * 4)
            for i in range(3)
        )
        np.testing.assert_allclose(result[0, out], full[begin : begin + 16, begin : begin + 12], atol=1e-12)


def test_doubling_by_groups_is_doubling_one_by_one(picture: torch.Tensor) -> None:
    weight = torch.randn(6, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    taps = setup_filter().double()
    together = conv2d_up(picture.reshape(1, 6, 8, 6), weight, taps, groups=2)
    for k in range(2):
        assert torch.allclose(together[:, 4 * k : 4 * k + 4], conv2d_up(picture[k : k + 1], weight[3 * k :][:3], taps))


@pytest.mark.parametrize("kernel", [1, 3])
def test_convolution_that_halves(picture: torch.Tensor, kernel: int) -> None:
    rng = torch.Generator().manual_seed(1)
    weight = torch.randn(2, 3, kernel, kernel, dtype=torch.float64, generator=rng)
    taps = setup_filter().double()
    result = conv2d_down(picture, weight, taps).numpy()
    assert result.shape == (2, 2, 4, 3)
    side = kernel // 2 + 1
    for out in range(2):
        full = sum(
            convolve2d(
                convolve2d(np.pad(picture[0, i].numpy(), side), outer(taps), mode="valid"),
                weight[out, i].numpy()[::-1, ::-1],
                mode="valid",
            )
            for i in range(3)
        )
        np.testing.assert_allclose(result[0, out], full[::2, ::2], atol=1e-12)


def spread_by_zeros(picture: np.ndarray) -> np.ndarray:
    spread = np.zeros((picture.shape[0] * 2 - 1, picture.shape[1] * 2 - 1))
    spread[::2, ::2] = picture
    return spread


def outer(taps: torch.Tensor) -> np.ndarray:
    return np.outer(taps.numpy(), taps.numpy())


@pytest.mark.parametrize("taps", [[1, 3, 3, 1], LONG])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_differentiable_twice(taps: list[float], memory: torch.memory_format) -> None:
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=memory).requires_grad_()
    kernel = setup_filter(taps).double()
    for resample in (upsample2d, downsample2d):
        assert torch.autograd.gradcheck(lambda x, f=resample: f(x, kernel).square(), x)
        assert torch.autograd.gradgradcheck(lambda x, f=resample: f(x, kernel).pow(3), x)


def test_refusals(picture: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="sum other than 0"):
        setup_filter([1, -1])
    with pytest.raises(ValueError, match="sum other than 0"):
        setup_filter([])
    with pytest.raises(ValueError, match="leaves nothing of a 6x8 map"):
        filter2d(picture, setup_filter(), (0, -4, 0, 0))
