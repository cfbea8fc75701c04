"""The collapse watch: whether the generator still makes different pictures, and whether D has won.

A GAN that collapses makes the same few pictures for all latents, often for a long time before anybody looks at a grid.
Diversity is the mean distance between fakes of fixed seeds, as a share of that between reals: pictures are reduced to
16 x 16 pixels, and the distance of two is the root of their mean squared difference. 1 is as different as the reals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

SIDE = 16  # pixels that distances are taken at: layout and colour count, strands of hair do not
FALL = 0.5  # of the highest diversity so far, at most 1: below, the pictures have become alike
ENOUGH = 0.3  # diversity that must have been reached before: a generator begins with pictures that are all alike
CERTAIN = 0.95  # D's mean sign on reals and, negated, on fakes: above in both, D is never wrong
# The same of the sign of D(real) - D(fake): where D is right about 97.5 % of each kind, which is what CERTAIN means, it
# is about 99.7 % of all pairs (two normal distributions of equal spread).
CERTAIN_PAIRS = 0.994
PATIENCE = 3  # looks in a row


def measure_spread(pictures: Sequence[np.ndarray] | np.ndarray) -> float:
    """Mean distance between all pairs of pictures, uint8 (H, W, C) each, in levels of 0..255; at least two."""
    if len(pictures) < 2:
        raise ValueError(f"distances need at least two pictures, got {len(pictures)}")
    small = np.stack([_reduce(picture) for picture in pictures])
    squares = (small**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None] - 2 * small @ small.T, 0)
    above = np.triu_indices(len(small), k=1)
    return float(np.sqrt(distances[above] / small.shape[1]).mean())


def _reduce(picture: np.ndarray) -> np.ndarray:
    size = (min(SIDE, picture.shape[1]), min(SIDE, picture.shape[0]))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.float64).reshape(-1)


@dataclass
class CollapseWatch:
    """Looks at the grid of fakes and at D's figures; says in a sentence when something has gone wrong, once each time.

    Attributes:
        diversity: of the last look, 1 = as different as the reals.
    """

    reals_spread: float  # `measure_spread` of real pictures
    diversity: float = 0.0
    highest: float = 0.0
    _alike: bool = field(default=False, repr=False)
    _certain: int = field(default=0, repr=False)

    def look(self, fakes: Sequence[np.ndarray] | np.ndarray) -> list[str]:
        """Warnings after a grid of fakes of fixed seeds, uint8 (H, W, C) each."""
        self.diversity = measure_spread(fakes) / max(self.reals_spread, 1e-6)
        # untrained networks may paint wilder pictures than the reals are: coming down to those is no fall
        self.highest = max(self.highest, min(self.diversity, 1.0))
        alike = self.highest >= ENOUGH and self.diversity < FALL * self.highest
        fell, self._alike = alike and not self._alike, alike
        if not fell:
            return []
        return [
            f"the pictures have become alike: their diversity fell to {self.diversity:.2f} of that of the reals, from "
            f"{self.highest:.2f}. Look at the grids; go back to an earlier snapshot, with more augmentation, a lower "
            "learning rate or a larger r1_gamma"
        ]

    def judge(self, stats: Mapping[str, float]) -> list[str]:
        """Warnings after a tick's statistics, where the algorithm has D's mean signs.

        Those are sign_D_real and sign_D_fake, or, of a D that was trained in differences only and whose logits have no
        zero, sign_D_pair: of a real's logit minus a fake's.
        """
        real, fake, pair = (stats.get(f"sign_D_{kind}") for kind in ("real", "fake", "pair"))
        if pair is not None:
            certain, seen = pair > CERTAIN_PAIRS, f"mean sign {pair:.3f} on real minus fake"
        elif real is not None and fake is not None:
            certain, seen = min(real, -fake) > CERTAIN, f"mean sign {real:.2f} on reals, {fake:.2f} on fakes"
        else:
            return []
        self._certain = self._certain + 1 if certain else 0
        if self._certain != PATIENCE:
            return []
        return [
            f"D is certain of everything ({seen}): it has learned the reals by heart, and G learns nothing more. "
            "Use augmentation, more pictures, or a larger r1_gamma"
        ]

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, for a resumed run."""
        return {
            "reals_spread": self.reals_spread,
            "diversity": self.diversity,
            "highest": self.highest,
            "alike": self._alike,
            "certain": self._certain,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.reals_spread, self.diversity, self.highest = state["reals_spread"], state["diversity"], state["highest"]
        self._alike, self._certain = state["alike"], state["certain"]
