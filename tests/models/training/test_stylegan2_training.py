import copy
import io
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from models.training.algorithm import TrainingBatch
from models.training.config import DCGANConfig, StyleGAN2Config, TrainingConfig
from models.training.distributed import ALONE, Workers
from models.training.stylegan2 import StyleGAN2
from models.training.updates import GRADIENT_LIMIT

CPU = torch.device("cpu")
SMALL = StyleGAN2Config(
    z_dim=8,
    w_dim=8,
    mapping_layers=1,
    channel_base=128,
    channel_max=8,
    path_interval=2,
    r1_interval=3,
    r1_gamma=0.5,
    augment="ada",
    augment_p=0.5,
    ada_kimg=0.5,
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Ten times faster for networks this small: several threads mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_config(batch: int = 16, micro: int | None = None, labels: int = 0, **changes: Any) -> TrainingConfig:
    algorithm = SMALL.model_copy(update=changes)
    return TrainingConfig(algorithm=algorithm, resolution=16, batch=batch, micro_batch=micro, labels=labels)


def make_algorithm(config: TrainingConfig, workers: Workers = ALONE) -> StyleGAN2:
    algorithm = StyleGAN2(config, CPU, torch.Generator().manual_seed(1), workers)
    with torch.no_grad():  # noise maps that do nothing, as at the start, would hide whose noise a picture got
        for name, weight in algorithm.generator.named_parameters():
            if name.endswith("noise_strength"):
                weight.fill_(0.3)
    return algorithm


def make_batch(config: TrainingConfig, first: int = 0, count: int | None = None, seed: int = 2) -> TrainingBatch:
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
        nimg=0,
    )


def collect_gradients(algorithm: StyleGAN2, phase: str, batch: TrainingBatch) -> dict[str, torch.Tensor]:
    """The gradients that a phase hands to its optimiser, which then does nothing; by the name of the weight."""
    name = "G" if phase in ("_train_generator", "_shorten_paths") else "D"
    network = algorithm.networks()[name]
    found: dict[str, torch.Tensor] = {}

    def record(optimiser: torch.optim.Optimizer, *_: object) -> None:
        for weight_name, weight in network.named_parameters():
            if weight.grad is not None:
                found[weight_name] = weight.grad.clone()
                weight.grad = None

    handle = algorithm.optimisers[name].register_step_pre_hook(record)
    getattr(algorithm, phase)(batch, torch.Generator().manual_seed(3))
    handle.remove()
    return found


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = gradient.abs().max().item()
        assert torch.allclose(found[name], gradient, rtol=1e-3, atol=1e-5 * scale + 1e-9), name


PHASES = ["_train_generator", "_shorten_paths", "_train_discriminator", "_penalise_gradients"]


@pytest.mark.parametrize("phase", PHASES)
def test_micro_batches_add_up_to_the_batch(phase: str) -> None:
    whole, cut = make_config(labels=3), make_config(labels=3, micro=4)
    expected = collect_gradients(make_algorithm(whole), phase, make_batch(whole))
    assert sum(gradient.abs().sum().item() for gradient in expected.values()) > 0
    assert_close(collect_gradients(make_algorithm(cut), phase, make_batch(cut)), expected)


@pytest.mark.parametrize("phase", PHASES)
def test_the_parts_of_two_processes_make_the_whole(phase: str) -> None:
    """Each computes its half with first and total; gradients of both, added, are the whole batch's."""
    config = make_config(labels=3)
    expected = collect_gradients(make_algorithm(config), phase, make_batch(config))
    halves = [collect_gradients(make_algorithm(config), phase, make_batch(config, first, 8)) for first in (0, 8)]
    assert_close({name: halves[0][name] + halves[1][name] for name in halves[0]}, expected)


@dataclass(frozen=True)
class Pair(Workers):
    """One of two processes, the other of which runs first and leaves what it would send."""

    world: int = 2
    sent: list[torch.Tensor] = field(default_factory=list)  # what this process handed out
    received: list[torch.Tensor] | None = None  # what the other did, if it has run

    def average(self, tensors: Iterable[torch.Tensor]) -> None:
        for tensor in tensors:
            tensor.copy_(self._exchange(tensor) / 2)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._exchange(tensor)

    def _exchange(self, tensor: torch.Tensor) -> torch.Tensor:
        self.sent.append(tensor.clone())
        return tensor + (torch.zeros_like(tensor) if self.received is None else self.received[len(self.sent) - 1])


@pytest.mark.parametrize("phase", PHASES)
def test_gradients_are_averaged_over_processes(phase: str) -> None:
    config = make_config()
    expected = collect_gradients(make_algorithm(config), phase, make_batch(config))
    first = Pair(rank=0)
    collect_gradients(make_algorithm(config, first), phase, make_batch(config, 0, 8))
    second = Pair(rank=1, received=first.sent)
    algorithm = make_algorithm(config, second)
    assert_close(collect_gradients(algorithm, phase, make_batch(config, 8, 8)), expected)


def test_running_means_and_statistics_are_of_the_whole_batch() -> None:
    """path_interval 2: the second phase comes with the first step. What both processes end with is compared."""
    config = make_config(augment="none")
    rng = torch.Generator().manual_seed(4)
    alone = make_algorithm(config)
    alone._train_generator(make_batch(config), copy.deepcopy(rng).manual_seed(4))
    first = Pair(rank=0)
    make_algorithm(config, first)._train_generator(make_batch(config, 0, 8), rng.manual_seed(4))
    second = make_algorithm(config, Pair(rank=1, received=first.sent))
    second._train_generator(make_batch(config, 8, 8), rng.manual_seed(4))
    assert alone.generator.w_mean.abs().sum() > 0
    torch.testing.assert_close(second.generator.w_mean, alone.generator.w_mean)


def run(algorithm: StyleGAN2, config: TrainingConfig, rng: torch.Generator, steps: range) -> dict[str, list[float]]:
    """Statistics by name, of the steps that gave them."""
    found: dict[str, list[float]] = {}
    for step in steps:
        for name, value in algorithm.step(make_batch(config, seed=step), rng).items():
            found.setdefault(name, []).append(value.item())
    return found


def test_a_resumed_training_equals_one_that_was_not_interrupted() -> None:
    """To the bit, with all phases on both sides, between two changes of p, and through the format of snapshots."""
    config = make_config(batch=8, micro=4, ada_interval=3)
    rng = torch.Generator().manual_seed(5)
    straight = make_algorithm(config)
    run(straight, config, rng, range(7))
    end = rng.get_state()

    rng = torch.Generator().manual_seed(5)
    before = make_algorithm(config)
    run(before, config, rng, range(4))
    assert before.controller is not None
    assert before.controller.p != 0.5  # has been changed once, and will be again
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
    assert torch.equal(after.path_mean, straight.path_mean)
    assert after.describe() == straight.describe()
    assert str(after.state_dict()["optimiser_D"]) == str(straight.state_dict()["optimiser_D"])


def test_statistics_come_with_the_phases_that_make_them() -> None:
    config = make_config()
    found = run(make_algorithm(config), config, torch.Generator().manual_seed(6), range(6))
    assert {name: len(values) for name, values in found.items()} == {
        **dict.fromkeys(("loss_G", "loss_D", "sign_D_real", "sign_D_fake", "logit_real", "logit_fake"), 6),
        **dict.fromkeys(("mended_G", "mended_D"), 6),
        "path_length": 3,
        "r1": 2,
    }
    assert all(math.isfinite(value) for values in found.values() for value in values)
    assert all(-1 <= sign <= 1 for sign in found["sign_D_real"])
    assert found["mended_G"] == [0.0] * 6
    # D separates what is so different within a few steps, or at least does not get worse
    assert found["loss_D"][-1] < found["loss_D"][0]


def test_penalties_that_are_off_cost_neither_passes_nor_learning_rate() -> None:
    config = make_config(path_weight=0.0, r1_gamma=0.0, style_mixing=0.0, augment="none")
    algorithm = make_algorithm(config)
    found = run(algorithm, config, torch.Generator().manual_seed(6), range(1))
    assert not {"path_length", "r1"} & found.keys()
    assert [o.param_groups[0]["lr"] for o in algorithm.optimisers.values()] == [0.002, 0.002]
    assert algorithm.describe() == {}
    assert algorithm.events() == []


def test_adam_makes_up_for_lazy_penalties() -> None:
    algorithm = make_algorithm(make_config(path_interval=4, r1_interval=16, d_learning_rate=0.001))
    generator, discriminator = (algorithm.optimisers[name].param_groups[0] for name in "GD")
    assert generator["lr"] == pytest.approx(0.002 * 4 / 5)
    assert generator["betas"] == pytest.approx((0.0, 0.99 ** (4 / 5)))
    assert discriminator["lr"] == pytest.approx(0.001 * 16 / 17)
    assert discriminator["betas"] == pytest.approx((0.0, 0.99 ** (16 / 17)))


def test_gradients_that_are_not_finite_are_mended_and_counted() -> None:
    config = make_config()
    algorithm = make_algorithm(config)
    weights = algorithm.trained["D"]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    weights[0].grad.view(-1)[:3] = torch.tensor([math.nan, math.inf, -math.inf])  # type: ignore[union-attr]
    seen: list[torch.Tensor] = []
    algorithm.optimisers["D"].register_step_pre_hook(
        lambda *_: seen.append(weights[0].grad.reshape(-1)[:3].clone())  # type: ignore[union-attr]
    )
    algorithm._update("D")
    assert seen[0].tolist() == [0.0, GRADIENT_LIMIT, -GRADIENT_LIMIT]
    assert algorithm.mended["D"] == 1
    assert algorithm.mended["G"] == 0
    assert all(torch.isfinite(weight).all() for weight in weights)


def test_ada_moves_with_the_sign_of_d_and_says_when_it_is_capped() -> None:
    config = make_config(augment_p=0.0, ada_kimg=0.1, ada_interval=1, ada_cap=0.3)
    algorithm = make_algorithm(config)
    with torch.no_grad():  # a D that takes everything for real
        algorithm.discriminator.out.bias.fill_(50.0)
    run(algorithm, config, torch.Generator().manual_seed(7), range(1))
    assert algorithm.describe() == {"ada_p": pytest.approx(16 / 100)}
    assert algorithm.events() == []
    run(algorithm, config, torch.Generator().manual_seed(7), range(2))
    assert algorithm.describe() == {"ada_p": 0.3}
    warnings = algorithm.events()
    assert len(warnings) == 1
    assert "0.3" in warnings[0]
    assert algorithm.events() == []


@pytest.mark.parametrize(("augment", "described"), [("fixed", {"ada_p": 0.25}), ("diffaugment", {})])
def test_other_augmentations_stay_as_they_are(augment: str, described: dict[str, float]) -> None:
    config = make_config(augment=augment, augment_p=0.25)
    algorithm = make_algorithm(config)
    found = run(algorithm, config, torch.Generator().manual_seed(8), range(5))
    assert algorithm.describe() == described
    assert all(math.isfinite(value) for values in found.values() for value in values)


def test_only_passes_without_penalties_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def pretend(function: Callable[..., torch.Tensor], **_: object) -> Callable[..., torch.Tensor]:
        name = "D" if isinstance(function, torch.nn.Module) else "G"

        def compiled(*arguments: object) -> torch.Tensor:
            calls.append(name)
            return function(*arguments)

        return compiled

    monkeypatch.setattr(torch, "compile", pretend)
    config = make_config().model_copy(update={"compile": True})
    algorithm = make_algorithm(config)
    assert algorithm._path_due()
    assert algorithm._r1_due()
    with_compiling = algorithm.step(make_batch(config), torch.Generator().manual_seed(1))
    assert calls == ["G", "D", "G", "D", "D"]  # G's phase; D's: fakes, then both kinds judged
    assert set(algorithm.state_dict()) == set(make_algorithm(make_config()).state_dict())
    without = make_algorithm(make_config()).step(make_batch(config), torch.Generator().manual_seed(1))
    assert {name: value.item() for name, value in with_compiling.items()} == pytest.approx(
        {name: value.item() for name, value in without.items()}
    )


def test_frozen_layers_of_d_stay() -> None:
    config = make_config(freeze_d=3)
    algorithm = make_algorithm(config)
    before = copy.deepcopy(algorithm.discriminator.state_dict())
    run(algorithm, config, torch.Generator().manual_seed(9), range(4))
    layers = algorithm.discriminator.layers()
    frozen = {id(weight) for layer in layers[:3] for weight in layer.parameters()}
    for name, weight in algorithm.discriminator.named_parameters():
        assert torch.equal(weight, before[name]) == (id(weight) in frozen), name


def test_other_shapes_of_pictures_train() -> None:
    algorithm = SMALL.model_copy(update={"mbstd_group": 2})
    config = TrainingConfig(
        algorithm=algorithm, resolution=16, aspect=(4, 3), channels=4, batch=4, precision="bfloat16"
    )
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (4, 4, 16, 12), dtype=np.uint8))
    values = make_algorithm(config).step(TrainingBatch(images, None, 0, 4, 0), torch.Generator().manual_seed(1))
    assert {"r1", "path_length"} <= values.keys()
    assert all(torch.isfinite(value) for value in values.values())


def test_half_precision_learns_about_the_same() -> None:
    """bfloat16 has 8 bits of mantissa: gradients agree in direction."""
    full = make_config()
    half = TrainingConfig.model_validate({**full.model_dump(), "precision": "bfloat16"})
    expected = collect_gradients(make_algorithm(full), "_train_generator", make_batch(full))
    found = collect_gradients(make_algorithm(half), "_train_generator", make_batch(half))
    a, b = (torch.cat([grads[name].flatten() for name in expected]) for grads in (expected, found))
    assert 0.9 < torch.cosine_similarity(a, b, dim=0).item() < 1 - 1e-7


def test_a_config_of_another_algorithm_is_refused() -> None:
    with pytest.raises(TypeError, match="dcgan"):
        StyleGAN2(TrainingConfig(algorithm=DCGANConfig()), CPU, torch.Generator())


def test_without_noise_its_strengths_stay_as_they_are() -> None:
    config = make_config(noise=False)
    algorithm = make_algorithm(config)
    before = {name: weight.clone() for name, weight in algorithm.generator.named_parameters()}
    run(algorithm, config, torch.Generator().manual_seed(3), range(2))
    moved = {name for name, weight in algorithm.generator.named_parameters() if not torch.equal(weight, before[name])}
    assert moved and not any("noise_strength" in name for name in moved)
