import copy
import io
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

from models.gan.losses import relativistic_loss
from models.training.algorithm import TrainingBatch
from models.training.config import DCGANConfig, R3GANConfig, TrainingConfig
from models.training.distributed import Workers
from models.training.r3gan import R3GAN

CPU = torch.device("cpu")
SMALL = R3GANConfig(
    z_dim=8,
    channel_base=128,
    channel_max=8,
    blocks=1,
    label_features=6,
    schedule_kimg=0.1,
    learning_rate=2e-3,
    r1_gamma=0.5,
    augment_p=0.6,
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Faster for networks this small: several threads mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_config(batch: int = 12, micro: int | None = None, labels: int = 0, **changes: Any) -> TrainingConfig:
    return TrainingConfig(
        algorithm=SMALL.model_copy(update=changes), resolution=16, batch=batch, micro_batch=micro, labels=labels
    )


def make_algorithm(config: TrainingConfig, **others: Any) -> R3GAN:
    """With open residual branches, which at the start are 0 and would hide what is in them."""
    algorithm = R3GAN(config, CPU, torch.Generator().manual_seed(1), **others)
    rng = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for network in algorithm.networks().values():
            for name, weight in network.named_parameters():
                if "reduce" in name:
                    weight.copy_(torch.randn(weight.shape, generator=rng) * 0.1)
    return algorithm


def make_batch(
    config: TrainingConfig, first: int = 0, count: int | None = None, seed: int = 2, nimg: int = 50
) -> TrainingBatch:
    """Part of a batch of blotches that differ; the same whole batch whatever part is asked for."""
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (config.batch, config.channels, 4, 4), dtype=np.uint8).repeat(4, 2).repeat(4, 3)
    labels = np.eye(max(config.labels, 1), dtype=np.float32)[rng.integers(0, max(config.labels, 1), config.batch)]
    part = slice(first, config.batch if count is None else first + count)
    return TrainingBatch(
        images=torch.from_numpy(pictures[part].copy()),
        labels=torch.from_numpy(labels[part].copy()) if config.labels else None,
        first=first,
        total=config.batch,
        nimg=nimg,
    )


def collect_gradients(algorithm: R3GAN, name: str, batch: TrainingBatch) -> dict[str, torch.Tensor]:
    """The gradients that G's or D's phase hands to its optimiser, which then does nothing; by the weight's name."""
    algorithm._set_moment(batch.nimg)
    network = algorithm.networks()[name]
    found: dict[str, torch.Tensor] = {}

    def record(*_: object) -> None:
        for weight_name, weight in network.named_parameters():
            if weight.grad is not None:
                found[weight_name] = weight.grad.clone()
                weight.grad = None

    handle = algorithm.optimisers[name].register_step_pre_hook(record)
    phase = algorithm._train_generator if name == "G" else algorithm._train_discriminator
    phase(batch, torch.Generator().manual_seed(3))
    handle.remove()
    return found


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = gradient.abs().max().item()
        assert torch.allclose(found[name], gradient, rtol=1e-3, atol=1e-5 * scale + 1e-9), name


@pytest.mark.parametrize("name", ["G", "D"])
def test_micro_batches_add_up_to_the_batch(name: str) -> None:
    """No picture is coupled with another, so that parts may have any size, odd ones too."""
    config = make_config(labels=3)
    expected = collect_gradients(make_algorithm(config), name, make_batch(config))
    assert all(gradient.abs().sum() > 0 for gradient in expected.values())
    for micro in (3, 1):
        cut = make_config(labels=3, micro=micro)
        assert_close(collect_gradients(make_algorithm(cut), name, make_batch(cut)), expected)


@pytest.mark.parametrize("name", ["G", "D"])
def test_the_parts_of_two_processes_make_the_whole(name: str) -> None:
    config = make_config(labels=3)
    expected = collect_gradients(make_algorithm(config), name, make_batch(config))
    halves = [collect_gradients(make_algorithm(config), name, make_batch(config, first, 6)) for first in (0, 6)]
    assert_close({key: halves[0][key] + halves[1][key] for key in halves[0]}, expected)


def test_the_loss_is_that_of_pairs() -> None:
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 0.5])
    assert torch.allclose(relativistic_loss(real, fake), torch.tensor([1.5, -1.5]).sigmoid().log().neg())
    assert torch.allclose(relativistic_loss(fake, real), torch.tensor([-1.5, 1.5]).sigmoid().log().neg())
    assert torch.equal(relativistic_loss(real + 7, fake + 7), relativistic_loss(real, fake))


def test_d_learns_from_the_published_objective() -> None:
    """Without augmentation, D's gradients are those of its loss with both penalties, written out."""
    config = make_config(augment="none", gamma_fall=1.0)
    batch, rng = make_batch(config), torch.Generator().manual_seed(3)
    found = collect_gradients(make_algorithm(config), "D", batch)

    algorithm = make_algorithm(config)
    fakes = algorithm.generator(torch.randn(12, 8, generator=rng)).detach().requires_grad_()
    reals = (batch.images.float() / 127.5 - 1).requires_grad_()
    d_real, d_fake = algorithm.discriminator(reals), algorithm.discriminator(fakes)
    slopes = [
        torch.autograd.grad(logits.sum(), images, create_graph=True)[0].flatten(1).norm(dim=1) ** 2
        for logits, images in ((d_real, reals), (d_fake, fakes))
    ]
    (softplus(d_fake - d_real).mean() + 0.5 / 2 * (slopes[0].mean() + slopes[1].mean())).backward()
    expected = {name: weight.grad for name, weight in algorithm.discriminator.named_parameters()}
    assert all(gradient is not None for gradient in expected.values())
    assert_close(found, {name: gradient for name, gradient in expected.items() if gradient is not None})


def test_g_learns_from_the_same_pairs_the_other_way_round() -> None:
    config = make_config(augment="none")
    batch, rng = make_batch(config), torch.Generator().manual_seed(3)
    found = collect_gradients(make_algorithm(config), "G", batch)

    algorithm = make_algorithm(config)
    fakes = algorithm.generator(torch.randn(12, 8, generator=rng))
    reals = batch.images.float() / 127.5 - 1
    softplus(algorithm.discriminator(reals) - algorithm.discriminator(fakes)).mean().backward()
    assert_close(found, {name: weight.grad for name, weight in algorithm.generator.named_parameters()})  # type: ignore[misc]


def test_the_penalties_are_of_the_pictures_before_their_augmentation() -> None:
    """A D that adds up all pixels has a slope of 1; an augmentation that doubles makes it 2 in each of 768."""
    config = make_config(augment="fixed")
    algorithm = make_algorithm(config)

    class Doubling:
        def draw(self, count: int, *_: object) -> torch.Tensor:
            return torch.zeros(count)

        def apply(self, images: torch.Tensor, draw: torch.Tensor) -> torch.Tensor:
            assert len(images) == len(draw)
            return 2 * images

    algorithm.augmentation = Doubling()
    algorithm._thaw_discriminator()
    weight = algorithm.trained["D"][0]
    algorithm.discriminator.forward = lambda images, c: images.sum(dim=(1, 2, 3)) + 0 * weight.sum()  # type: ignore[method-assign]
    algorithm._judge = algorithm.discriminator
    sums = algorithm._train_discriminator(make_batch(config), torch.Generator().manual_seed(3))
    assert sums["r1"].item() == sums["r2"].item() == 12 * 4 * 768


def run(algorithm: R3GAN, config: TrainingConfig, rng: torch.Generator, steps: range) -> dict[str, list[float]]:
    """Statistics by name, step by step."""
    found: dict[str, list[float]] = {}
    for step in steps:
        batch = make_batch(config, seed=step, nimg=step * config.batch)
        for name, value in algorithm.step(batch, rng).items():
            found.setdefault(name, []).append(value.item())
    return found


def test_a_resumed_training_equals_one_that_was_not_interrupted() -> None:
    """To the bit, in the middle of the schedules, through the format of snapshots."""
    config = make_config(batch=8, micro=4)
    rng = torch.Generator().manual_seed(5)
    straight = make_algorithm(config)
    run(straight, config, rng, range(7))
    end = rng.get_state()

    rng = torch.Generator().manual_seed(5)
    before = make_algorithm(config)
    run(before, config, rng, range(4))
    file = io.BytesIO()
    torch.save({"algorithm": before.state_dict(), "rng": rng.get_state()}, file)
    state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    after = make_algorithm(config)
    for name, network in after.networks().items():
        network.load_state_dict(before.networks()[name].state_dict())
    after.load_state_dict(state["algorithm"])
    rng = torch.Generator()
    rng.set_state(state["rng"])
    run(after, config, rng, range(4, 7))

    assert torch.equal(rng.get_state(), end)
    for name, network in straight.networks().items():
        for key, tensor in network.state_dict().items():
            assert torch.equal(after.networks()[name].state_dict()[key], tensor), key
    assert after.describe() == straight.describe()
    assert str(after.state_dict()["optimiser_D"]) == str(straight.state_dict()["optimiser_D"])


def test_statistics_and_figures_of_the_moment() -> None:
    config = make_config(channels=3)
    algorithm = make_algorithm(config)
    found = run(algorithm, config, torch.Generator().manual_seed(6), range(4))
    names = ["loss_G", "loss_D", "r1", "r2", "logit_real", "logit_fake", "sign_D_pair", "mended_G", "mended_D"]
    assert set(found) == set(names)
    assert all(len(values) == 4 and all(map(math.isfinite, values)) for values in found.values())
    assert all(-1 <= sign <= 1 for sign in found["sign_D_pair"])
    moment = algorithm.moment
    assert algorithm.describe() == {
        "learning_rate": moment.learning_rate, "beta2": moment.beta2, "gamma": moment.gamma, "ada_p": moment.augment_p
    }  # fmt: skip
    assert 0 < moment.augment_p < 0.6
    for optimiser in algorithm.optimisers.values():
        group = optimiser.param_groups[0]
        assert (group["lr"], group["betas"]) == (moment.learning_rate, (0.0, moment.beta2))
    assert algorithm.events() == []


def test_d_does_not_change_in_gs_phase_nor_g_in_ds() -> None:
    config = make_config()
    algorithm = make_algorithm(config)
    before = {name: copy.deepcopy(network.state_dict()) for name, network in algorithm.networks().items()}

    def changed(name: str) -> bool:
        state = algorithm.networks()[name].state_dict()
        return any(not torch.equal(state[key], before[name][key]) for key in state)

    algorithm._train_generator(make_batch(config), torch.Generator().manual_seed(1))
    assert (changed("G"), changed("D")) == (True, False)
    before["G"] = copy.deepcopy(algorithm.generator.state_dict())
    algorithm._train_discriminator(make_batch(config), torch.Generator().manual_seed(1))
    assert (changed("G"), changed("D")) == (False, True)


def test_fakes_and_reals_are_augmented_by_chance_of_their_own() -> None:
    """And in D's phase by other chance than in G's, with other latents: four draws of the whole batch, two of z."""
    config = make_config(batch=8, micro=4)
    algorithm = make_algorithm(config)
    seen: dict[str, list[torch.Tensor]] = {"fakes": [], "reals": []}

    class Recording:
        def draw(self, count: int, p: float, width: int, height: int, rng: torch.Generator) -> torch.Tensor:
            return torch.rand(count, generator=rng)

        def apply(self, images: torch.Tensor, draw: torch.Tensor) -> torch.Tensor:
            seen["reals" if any(torch.equal(images, part) for part in reals.split(4)) else "fakes"].append(draw)
            return images

    batch = make_batch(config)
    reals = batch.images.float() / 127.5 - 1
    algorithm.augmentation = Recording()
    latents: list[torch.Tensor] = []
    algorithm.generator.register_forward_pre_hook(lambda module, inputs: latents.append(inputs[0]))
    algorithm.step(batch, torch.Generator().manual_seed(3))
    assert [len(draws) for draws in seen.values()] == [4, 4]  # two phases in two parts
    assert len(torch.cat(seen["fakes"] + seen["reals"]).unique()) == 4 * 8
    assert len(latents) == 4 and len(torch.cat(latents).unique(dim=0)) == 2 * 8


def test_only_passes_without_penalties_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def pretend(network: torch.nn.Module, **_: object) -> Callable[..., torch.Tensor]:
        name = "G" if "basis.basis" in network.state_dict() else "D"

        def compiled(*arguments: object) -> torch.Tensor:
            calls.append(name)
            logits: torch.Tensor = network(*arguments)
            return logits

        return compiled

    monkeypatch.setattr(torch, "compile", pretend)
    config = make_config()
    compiled = make_algorithm(config.model_copy(update={"compile": True}))
    values = compiled.step(make_batch(config), torch.Generator().manual_seed(1))
    assert calls == ["G", "D", "D", "G"]  # G's phase with both kinds of pictures; D's only has fakes painted so
    plain = make_algorithm(config).step(make_batch(config), torch.Generator().manual_seed(1))
    assert {name: value.item() for name, value in values.items()} == {name: v.item() for name, v in plain.items()}


@pytest.mark.parametrize(("pipe", "colour"), [("bgc", 0.5), ("bg", 0.0)])
def test_the_augmentation_is_the_papers(pipe: str, colour: float) -> None:
    augmentation = make_algorithm(make_config(augment_pipe=pipe)).augmentation
    strengths = augmentation.strengths
    assert (strengths.blit, strengths.geometry, strengths.colour, strengths.cutout) == (1.0, 1.0, colour, 1.0)
    assert (strengths.filter, strengths.noise) == (0.0, 0.0)
    assert make_algorithm(make_config(augment="none")).augmentation is None


def test_other_shapes_of_pictures_train_in_half_precision() -> None:
    config = TrainingConfig(algorithm=SMALL, resolution=16, aspect=(4, 3), channels=4, batch=4, precision="bfloat16")
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 4, 16, 12), dtype=np.uint8))
    algorithm = make_algorithm(config)
    assert algorithm.generator.half_dtype is torch.bfloat16
    values = algorithm.step(TrainingBatch(images, None, 0, 4, 60), torch.Generator().manual_seed(1))
    assert all(torch.isfinite(value) for value in values.values())
    assert values["mended_D"] == values["mended_G"] == 0


def test_another_algorithms_config_is_refused() -> None:
    with pytest.raises(TypeError, match="dcgan"):
        R3GAN(TrainingConfig(algorithm=DCGANConfig()), CPU, torch.Generator(), Workers())
