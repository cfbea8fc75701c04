"""Whether a generator learned pictures by heart: how many samples may come as near as the nearest reals, by chance.

The test needs no distribution of distances. Where samples and reals are alike, each order of them is as probable as any
other, so the number of samples that lie nearer than the j-th nearest real is beta-binomial (Wilks 1942, "Statistical
prediction with special reference to the problem of tolerance limits", Annals of Mathematical Statistics 13).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, lgamma, sqrt

import numpy as np

PERCENT = 1.0  # of the real pictures lie as near to a training picture as the threshold
ALARM = 0.0025  # probability that one distance accuses a generator that learned nothing by heart: .5 % for both
LEAST_REALS, LEAST_SAMPLES = 300, 100  # fewer give no verdict: the threshold would be a matter of one or two reals
_NEAR_COPY = 0.25  # of the reals' usual distance: a threshold below it was set by copies that were not found
_MANY = 0.1  # share of samples that are too near from which on the generator repeats its pictures


@dataclass(frozen=True)
class Memorisation:
    """How many samples lie as near to a training picture as the nearest reals do, by one kind of distance."""

    share: float  # of the samples that lie as near as the threshold
    threshold: float  # the distance that PERCENT of the reals do not exceed
    samples: int
    reals: int  # pictures that the threshold was taken from
    usual: float  # median distance of those
    expected: float  # share for a generator that learned nothing by heart
    error: float  # standard deviation of that share, over new samples and new reals
    limit: float  # share that it does not exceed, but with a probability of ALARM

    def verdict(self) -> str:
        """What it means, in a sentence."""
        said = (
            f"{self.share:.1%} of {self.samples} samples are as near to a training picture as the nearest "
            f"{PERCENT:g} % of {self.reals} real pictures ({self.expected:.1%} expected, up to {self.limit:.1%} by "
            "chance): "
        )
        if self.reals < LEAST_REALS or self.samples < LEAST_SAMPLES:
            return said + (
                f"no verdict, which takes {LEAST_REALS} real pictures and {LEAST_SAMPLES} samples; look at the nearest "
                "ones."
            )
        if self.share > self.limit and self.threshold > 0:
            if self.share < _MANY:
                return said + "some training pictures may have been learned by heart; look at the nearest ones."
            return said + "the generator repeats training pictures."
        if self.threshold <= _NEAR_COPY * self.usual:
            return said + (
                "no verdict, for these reals are nearly copies of training pictures, and hide copies that samples are. "
                "Name pictures that were not trained on, nor copies of them, by --held-out."
            )
        return said + "no sign of memorisation."


def judge_memorisation(samples: np.ndarray, reals: np.ndarray, leave_one_out: bool) -> Memorisation:
    """Compare the distances of samples with those of real pictures, each to its nearest training picture; float (N,).

    leave_one_out: the reals are training pictures, each compared with the others. Where two are each other's nearest,
    which is usual among the nearest ones, both have the same distance: they count as half as many.
    Raises ValueError where there are none of either.
    """
    if len(samples) == 0 or len(reals) == 0:
        raise ValueError(f"distances of samples and reals are needed, got {len(samples)} and {len(reals)}")
    rank = max(int(len(reals) * PERCENT / 100), 1)
    threshold = float(np.partition(reals, rank - 1)[rank - 1])
    weight = 0.5 if leave_one_out else 1.0
    nearer, farther = weight * rank, weight * (len(reals) + 1 - rank)
    expected = nearer / (nearer + farther)
    spread = (nearer + farther + len(samples)) / (len(samples) * (nearer + farther + 1))
    return Memorisation(
        share=float((samples <= threshold).mean()),
        threshold=threshold,
        samples=len(samples),
        reals=len(reals),
        usual=float(np.median(reals)),
        expected=expected,
        error=sqrt(expected * (1 - expected) * spread),
        limit=most_by_chance(len(samples), nearer, farther, ALARM) / len(samples),
    )


def most_by_chance(count: int, nearer: float, farther: float, level: float) -> int:
    """The smallest number that a beta-binomial one exceeds with a probability of at most `level`.

    count: how many are drawn. nearer, farther: the two parameters of the beta distribution; of R values that are drawn
    like them, so many as lie below the j-th smallest have j and R + 1 - j.
    """
    left = 1.0
    for number in range(count):
        chance = lgamma(count + 1) - lgamma(number + 1) - lgamma(count - number + 1)
        chance += lgamma(number + nearer) + lgamma(count - number + farther) - lgamma(count + nearer + farther)
        chance += lgamma(nearer + farther) - lgamma(nearer) - lgamma(farther)
        left -= exp(chance)
        if left <= level:
            return number
    return count


def most_suspicious(distances: Sequence[tuple[np.ndarray, Memorisation]], count: int) -> np.ndarray:
    """The samples that lie nearest to a training picture as measured by the thresholds, by whichever distance says so.

    distances: of the samples, (N,), with what was judged of them. Returns at most `count` numbers, nearest first.
    """
    ratios = [values / max(judged.threshold, 1e-12) for values, judged in distances]
    return np.argsort(np.minimum.reduce(ratios), kind="stable")[:count]
