"""What is judged of distances: false alarms are as rare as they are said to be, and nothing is judged on too little."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.stats import betabinom

import models.metrics.memorisation
from models.metrics.memorisation import ALARM, Memorisation, judge_memorisation, most_by_chance, most_suspicious
from models.metrics.neighbours import find_nearest


@pytest.mark.parametrize(("count", "nearer", "farther"), [(100, 3, 298), (2000, 20, 1981), (500, 1.5, 149), (7, 1, 3)])
@pytest.mark.parametrize("level", [0.0025, 0.05])
def test_the_quantile_is_exact(count: int, nearer: float, farther: float, level: float) -> None:
    number = most_by_chance(count, nearer, farther, level)
    exceeded = betabinom.sf([number - 1, number], count, nearer, farther)
    assert exceeded[1] <= level < exceeded[0]


def count_alarms(trials: int, reals: int, samples: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often an honest generator is accused; distances of any distribution give the same."""
    monkeypatch.setattr(models.metrics.memorisation, "most_by_chance", cache(most_by_chance))
    rng = np.random.default_rng(reals)
    judged = (judge_memorisation(1 + rng.random(samples), 1 + rng.random(reals), False) for _ in range(trials))
    return sum("no sign" not in found.verdict() for found in judged)


@pytest.mark.parametrize(("reals", "samples"), [(300, 100), (300, 2000), (900, 500)])
def test_false_alarms_are_as_rare_as_is_said(reals: int, samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = 4000
    most = trials * ALARM + 4 * np.sqrt(trials * ALARM)
    assert count_alarms(trials, reals, samples, monkeypatch) <= most


def test_false_alarms_of_leaving_one_out_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two are each other's nearest, a distance comes twice: counted as two, it gives 2.4 % of false alarms."""
    monkeypatch.setattr(models.metrics.memorisation, "most_by_chance", cache(most_by_chance))
    rng = np.random.default_rng(0)
    groups = np.arange(300)
    alarms = np.zeros(2, int)
    trials = 400
    for _ in range(trials):
        training, fresh = (rng.normal(size=(count, 16)).astype(np.float32) for count in (300, 400))
        usual = find_nearest(training, training, np.asarray, None, groups, groups).distances
        near = find_nearest(fresh, training, np.asarray).distances
        alarms += [(found := judge_memorisation(near, usual, leave)).share > found.limit for leave in (True, False)]
    assert alarms[0] <= 0.015 * trials
    assert alarms[1] > alarms[0]


def test_expectation_and_error_are_those_of_an_honest_generator() -> None:
    rng = np.random.default_rng(3)
    judged = [judge_memorisation(rng.random(400), rng.random(600), False) for _ in range(3000)]
    shares = np.array([found.share for found in judged])
    assert shares.mean() == pytest.approx(judged[0].expected, rel=0.03)
    assert shares.std() == pytest.approx(judged[0].error, rel=0.05)


def spread(count: int) -> np.ndarray:
    return np.linspace(1.0, 2.0, count)


def test_copies_are_told_by_their_number() -> None:
    samples = spread(500)
    for copies, said in ((0, "no sign of memorisation"), (30, "some training pictures"), (500, "repeats training")):
        judged = judge_memorisation(np.where(np.arange(500) < copies, 0.1, samples + 0.02), spread(600), True)
        assert judged.share == copies / 500
        assert said in judged.verdict()


@pytest.mark.parametrize(("samples", "reals"), [(99, 300), (100, 299), (2000, 40)])
def test_too_few_give_figures_and_no_verdict(samples: int, reals: int) -> None:
    judged = judge_memorisation(np.zeros(samples), spread(reals), True)
    assert judged.share == 1
    assert "no verdict, which takes 300 real pictures and 100 samples" in judged.verdict()
    assert "repeats" in judge_memorisation(np.zeros(100), spread(300), True).verdict()


def test_reals_that_are_copies_themselves_give_no_verdict_but_an_accusation_stands() -> None:
    hidden = np.where(np.arange(600) < 12, 0.02, spread(600))
    judged = judge_memorisation(np.full(500, 0.1), hidden, True)
    assert judged.share == 0
    assert "no verdict, for these reals are nearly copies" in judged.verdict()
    assert "--held-out" in judged.verdict()
    assert "repeats" in judge_memorisation(np.full(500, 0.01), hidden, True).verdict()
    nothing = np.where(np.arange(600) < 12, 0.0, spread(600))
    assert "no verdict, for" in judge_memorisation(np.zeros(500), nothing, True).verdict()


def test_suspects_are_those_that_either_distance_accuses() -> None:
    features, pixels = np.array([0.9, 0.1, 5, 5]), np.array([50, 50, 2, 50.0])
    judged = [Memorisation(0.5, threshold, 4, 100, 20.0, 0.01, 0.01, 0.5) for threshold in (1.0, 10.0)]
    suspects = most_suspicious(list(zip((features, pixels), judged, strict=True)), 3)
    np.testing.assert_array_equal(suspects, [1, 2, 0])
    with pytest.raises(ValueError, match="distances of samples and reals"):
        judge_memorisation(features, np.empty(0), False)
