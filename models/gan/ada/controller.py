"""How strongly to augment: p follows how well D knows its reals (arXiv:2006.06676, section 3)."""

import math
from collections.abc import Mapping
from typing import Any

import torch


class AdaController:
    """Moves p so that the mean sign of D's logits of reals, the paper's r_t, stays at `target`.

    r_t is 0 while D tells reals as often wrong as right, and 1 once it knows every one. The paper bounds p at 0 alone,
    and users have met p = 34: here it stops at `cap`, because above about 0.8 the augmentations leak into the fakes.
    """

    def __init__(
        self,
        target: float = 0.6,  # mean sign to hold, the paper's choice
        interval: int = 4,  # updates between two changes of p
        kimg: float = 500.0,  # thousands of reals in which p can go from 0 to 1; 100 when a training is resumed
        cap: float = 0.8,  # p never goes over this
        p: float = 0.0,  # where it starts
    ) -> None:
        if not -1 < target < 1:
            raise ValueError(f"target must lie in -1..1, because it is a mean of signs; got {target}")
        if interval < 1 or not kimg > 0:
            raise ValueError(f"interval must be at least 1 and kimg over 0, got {interval} and {kimg}")
        if not 0 <= p <= cap <= 1:
            raise ValueError(f"p must lie in 0..cap and cap in 0..1, got p {p} and cap {cap}")
        self.target = target
        self.interval = interval
        self.kimg = kimg
        self.cap = cap
        self.p = p
        self.signal = 0.0  # r_t as measured when p was last decided on
        self._sum: float | torch.Tensor = 0.0
        self._count = 0
        self._updates = 0
        self._warned = False
        self._warning: str | None = None

    def update(self, sign_sum: float | torch.Tensor, count: int) -> float:
        """Add one step's reals, over all processes; returns p for the next step.

        sign_sum: sum of the signs of D's logits of `count` reals (as D saw them, augmented). A tensor may stay on its
        device: it is read every `interval` updates only, so that a GPU need not wait. If the signal is not a number,
        p stays.
        """
        if count < 1:
            raise ValueError(f"an update needs at least one real, got {count}")
        self._sum = self._sum + (sign_sum.detach().double() if isinstance(sign_sum, torch.Tensor) else sign_sum)
        self._count += count
        self._updates += 1
        if self._updates == self.interval:
            self._decide()
        return self.p

    def take_warning(self) -> str | None:
        """What to tell the user when p has reached the cap: once in a training, resumed or not; None at other times."""
        warning, self._warning = self._warning, None
        return warning

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers; with the same settings, what a resumed training goes on from exactly."""
        return {
            "p": self.p,
            "signal": self.signal,
            "sum": float(self._sum),
            "count": self._count,
            "updates": self._updates,
            "warned": self._warned,
            "warning": self._warning,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave. The cap is this controller's own."""
        self.p = min(float(state["p"]), self.cap)
        self.signal = float(state["signal"])
        self._sum = float(state["sum"])
        self._count = int(state["count"])
        self._updates = int(state["updates"])
        self._warned = bool(state["warned"])
        self._warning = state["warning"]

    def _decide(self) -> None:
        signal = float(self._sum) / self._count
        if math.isfinite(signal):
            self.signal = signal
            step = self._count / (self.kimg * 1000)
            if signal > self.target:
                self.p = min(self.p + step, self.cap)
            elif signal < self.target:
                self.p = max(self.p - step, 0.0)
            if self.p == self.cap and signal > self.target and not self._warned:
                self._warned = True
                self._warning = (
                    f"augmentation has reached its cap, p = {self.cap:g}, and D still knows its reals "
                    f"(signal {signal:.2f}, target {self.target:g}): it overfits. More pictures help, or a larger "
                    f"r1_gamma; a higher ada_cap lets augmentations leak into the fakes"
                )
        self._sum, self._count, self._updates = 0.0, 0, 0
