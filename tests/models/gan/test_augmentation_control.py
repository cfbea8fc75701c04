import json
import math

import pytest
import torch

from models.gan.ada import AdaController

BATCH = 50


def feed(controller: AdaController, signal: float, updates: int) -> list[float]:
    return [controller.update(signal * BATCH, BATCH) for _ in range(updates)]


@pytest.mark.parametrize(("signal", "direction"), [(0.9, 1), (0.61, 1), (0.6, 0), (0.59, -1), (-1.0, -1)])
def test_p_follows_the_sign_of_signal_minus_target(signal: float, direction: int) -> None:
    controller = AdaController(target=0.6, interval=4, kimg=500, p=0.3)
    steps = feed(controller, signal, 8)
    step = BATCH * 4 / 500_000
    assert steps[:3] == [0.3, 0.3, 0.3]  # decided on every fourth update only
    assert steps[3:7] == pytest.approx([0.3 + direction * step] * 4, abs=1e-12)
    assert steps[7] == pytest.approx(0.3 + 2 * direction * step, abs=1e-12)
    assert controller.signal == pytest.approx(signal)


def test_p_goes_from_0_to_1_in_kimg_thousand_reals() -> None:
    controller = AdaController(interval=2, kimg=1, cap=1.0)
    values = feed(controller, 1.0, 20)
    assert values[-2] < 0.96
    assert values[-1] == pytest.approx(1.0, abs=1e-9)


def test_the_mean_is_over_all_reals_of_an_interval() -> None:
    controller = AdaController(target=0.6, interval=2, kimg=1, p=0.4)
    controller.update(10, 10)  # every real known, but they are few
    controller.update(torch.tensor(9.0), 30)
    assert controller.signal == pytest.approx(19 / 40)
    assert controller.p == pytest.approx(0.4 - 40 / 1000)


def test_p_stays_between_0_and_the_cap_and_warns_once() -> None:
    controller = AdaController(interval=1, kimg=1, cap=0.8)
    assert feed(controller, -1.0, 3) == [0.0, 0.0, 0.0]
    values = feed(controller, 1.0, 30)
    assert values[14] < 0.8
    assert values[16:] == [0.8] * 14
    warning = controller.take_warning()
    assert warning is not None
    assert "p = 0.8" in warning
    assert controller.take_warning() is None
    feed(controller, -1.0, 5)
    assert controller.p < 0.8
    feed(controller, 1.0, 10)
    assert controller.p == 0.8
    assert controller.take_warning() is None


def test_no_warning_before_the_cap() -> None:
    controller = AdaController(interval=1, kimg=1, cap=0.8)
    feed(controller, 1.0, 15)
    assert 0.7 < controller.p < 0.8
    assert controller.take_warning() is None


@pytest.mark.parametrize("signal", [math.nan, math.inf])
def test_a_signal_that_is_no_number_leaves_p(signal: float) -> None:
    controller = AdaController(interval=2, kimg=1, p=0.5)
    feed(controller, signal, 2)
    assert controller.p == 0.5
    assert feed(controller, 1.0, 2)[-1] > 0.5  # and is forgotten


@pytest.mark.parametrize("stop", range(1, 41, 3))
def test_a_resumed_controller_goes_on_as_if_nothing_had_been(stop: int) -> None:
    rng = torch.Generator().manual_seed(2)
    signals = (torch.rand(60, generator=rng) * 0.8 + 0.35).tolist()

    def start() -> AdaController:
        return AdaController(interval=4, kimg=2, cap=0.6, p=0.1)

    undisturbed, stopped = start(), start()
    known = [(undisturbed.update(signal * BATCH, BATCH), undisturbed.take_warning()) for signal in signals]
    assert sum(warning is not None for _, warning in known) == 1
    values = [(stopped.update(signal * BATCH, BATCH), stopped.take_warning()) for signal in signals[:stop]]
    resumed = start()
    resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    values += [(resumed.update(signal * BATCH, BATCH), resumed.take_warning()) for signal in signals[stop:]]
    assert values == known
    assert resumed.state_dict() == undisturbed.state_dict()


def test_a_warning_not_yet_taken_survives() -> None:
    controller = AdaController(interval=1, kimg=1, cap=0.1)
    feed(controller, 1.0, 5)
    resumed = AdaController(interval=1, kimg=1, cap=0.1)
    resumed.load_state_dict(controller.state_dict())
    warning = controller.take_warning()
    assert warning is not None
    assert resumed.take_warning() == warning
    assert resumed.take_warning() is None


def test_a_lower_cap_holds_after_resuming() -> None:
    controller = AdaController(p=0.7)
    lower = AdaController(cap=0.5)
    lower.load_state_dict(controller.state_dict())
    assert lower.p == 0.5


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(ValueError, match="target"):
        AdaController(target=1.0)
    with pytest.raises(ValueError, match="interval"):
        AdaController(interval=0)
    with pytest.raises(ValueError, match="kimg"):
        AdaController(kimg=0)
    with pytest.raises(ValueError, match="cap"):
        AdaController(p=0.9, cap=0.8)
    with pytest.raises(ValueError, match="at least one real"):
        AdaController().update(0.0, 0)
