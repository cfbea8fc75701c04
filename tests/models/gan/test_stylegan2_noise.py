import pytest
import torch

from models.gan.noise import SampleNoise


@pytest.mark.parametrize("parts", [[(0, 4), (4, 4), (8, 4)], [(0, 8), (8, 4)], [(0, 3), (3, 6), (9, 3)], [(5, 2)]])
def test_noise_is_the_same_however_a_batch_is_cut(parts: list[tuple[int, int]]) -> None:
    whole = SampleNoise(7, 0, 12)
    expected = [whole.draw((1, 5, 3)), whole.draw((2,))]
    for first, count in parts:
        part = SampleNoise(7, first, count)
        for values in expected:
            assert torch.equal(part.draw(values.shape[1:]), values[first : first + count])


def test_pictures_groups_calls_and_seeds_share_nothing() -> None:
    noise = SampleNoise(7, 0, 12)
    values = torch.cat([noise.draw((64,)), noise.draw((64,)), SampleNoise(8, 0, 12).draw((64,))])
    correlation = torch.corrcoef(values) - torch.eye(36)
    assert correlation.abs().max() < 0.6  # 64 values: 5 standard deviations
    assert values.mean().item() == pytest.approx(0, abs=0.1)
    assert values.std().item() == pytest.approx(1, abs=0.05)


def test_large_seeds_and_refusals() -> None:
    assert not torch.equal(SampleNoise(2**62, 0, 1).draw((4,)), SampleNoise(0, 0, 1).draw((4,)))
    for seed, first, count in [(-1, 0, 1), (0, -1, 1), (0, 0, 0)]:
        with pytest.raises(ValueError, match="at least one picture"):
            SampleNoise(seed, first, count)
