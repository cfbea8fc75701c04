import numpy as np
import pytest
import torch

from models.gan.dcgan import Generator, initialise, set_standing_statistics
from models.gan.latents import BATCH, draw_latents, generate, parse_seeds, picture_batch


@pytest.fixture(scope="module")
def generator() -> Generator:
    network = Generator(16, 8, 32)
    initialise(network, torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(1)
    set_standing_statistics(network, [torch.randn(64, 16, generator=rng)])
    return network


def test_a_latent_depends_on_its_seed_alone() -> None:
    together = draw_latents([5, 9, 0], 200)
    assert np.array_equal(together[1], draw_latents([9], 200)[0])
    assert together.dtype == np.float32
    many = draw_latents(range(200), 200)
    assert many.mean() == pytest.approx(0, abs=0.02)
    assert many.std() == pytest.approx(1, abs=0.02)
    with pytest.raises(ValueError, match="0 or more"):
        draw_latents([-1], 200)


def test_a_seed_gives_the_same_picture_in_any_company_and_place(generator: Generator) -> None:
    alone = {seed: generate(generator, draw_latents([seed], 16))[0] for seed in (0, 7, 39)}
    together = generate(generator, draw_latents(range(40), 16))
    reversed_ = generate(generator, draw_latents(range(39, -1, -1), 16))
    for seed, picture in alone.items():
        assert np.array_equal(picture, together[seed])
        assert np.array_equal(picture, reversed_[39 - seed])
    assert len(np.unique(together.reshape(40, -1), axis=0)) == 40


def test_training_mode_is_refused(generator: Generator) -> None:
    generator.train()
    try:
        with pytest.raises(ValueError, match="eval mode"):
            generate(generator, draw_latents([0], 16))
    finally:
        generator.eval()


def test_no_latents_no_picture(generator: Generator) -> None:
    with pytest.raises(ValueError, match="no latents"):
        generate(generator, draw_latents([], 16))


def test_calls_have_one_size_whatever_is_asked_for() -> None:
    sizes: list[tuple[int, ...]] = []

    class Recorder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            sizes.append((len(z), *c.shape))
            return (z.sum(dim=1) * c[:, 0] * self.scale)[:, None, None, None].expand(-1, 3, 2, 2)

    latents, labels = np.full((10, 2), 0.25, np.float32), np.linspace(-1, 1, 10, dtype=np.float32)[:, None]
    made = generate(Recorder().eval(), latents, labels, batch=4)
    assert sizes == [(4, 4, 1)] * 3
    assert made[:, 0, 0, 0] == pytest.approx(np.rint((labels[:, 0] * 0.5 + 1) * 127.5), abs=1)


@pytest.mark.parametrize(("size", "batch"), [((16, 16), 32), ((128, 128), 32), ((256, 256), 8), ((512, 384), 2)])
def test_large_pictures_go_in_smaller_batches(size: tuple[int, int], batch: int) -> None:
    assert picture_batch(*size) == batch
    assert picture_batch(4096, 4096) == 1
    assert picture_batch(1, 1) == BATCH


@pytest.mark.parametrize(
    ("text", "seeds"), [("0-3", [0, 1, 2, 3]), ("7", [7]), ("1, 5,7-9", [1, 5, 7, 8, 9]), ([3, 1], [3, 1])]
)
def test_seeds_as_people_write_them(text: str | list[int], seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "3-1", "1-", "-4", "1,,2", "1.5"])
def test_seeds_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ValueError, match="cannot read seeds"):
        parse_seeds(text)
