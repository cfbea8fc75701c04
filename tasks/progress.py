"""How far something long is: told to whoever shows it, and said in lines, with what is planned."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

SHARE = 0.1  # of all pictures between two lines, ...
SECONDS = 30.0  # ... or so long, whichever comes first, ...
PAUSE = 5.0  # ... but never less than so long
FEW = 100  # steps, below which one is not as long as the next

Progress = Callable[[str, int, int], None]
"""Hears what is being done, how many pictures it is done for, and of how many. With 0 it hears of what is to come."""


def ignore_progress(what: str, done: int, total: int) -> None:
    """For callers that show none."""


@dataclass
class _Phase:
    total: int
    done: int = 0
    begun: float | None = None  # when the first pictures of it were done: known ones, or the first batch
    first: int = 0  # how many those were: they say nothing about the pace
    known: int = 0  # how many of them took no time: all, unless they were a batch like the next one
    said: float = 0.0  # when the newest line was
    said_done: int = 0


class ProgressLog:
    """Says what is planned once its pace is known, then how far each part of it is, and when it is done."""

    def __init__(
        self,
        say: Callable[[str], None],  # takes a line
        steps: bool = True,  # not only the plan
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._steps = steps
        self._clock = clock
        self._phases: dict[str, _Phase] = {}  # in the order in which they were heard of
        self._planned: set[str] = set()  # announced, and not yet said

    def __call__(self, what: str, done: int, total: int) -> None:
        phase = self._phases.get(what)
        if phase is None or total != phase.total or done < phase.done:
            phase = self._phases[what] = _Phase(total)
        if done == 0:
            self._planned.add(what)
            return
        now = self._clock()
        if phase.begun is None:
            phase.begun, phase.first, phase.known = now, done, done
            phase.said, phase.said_done = now, done
        elif phase.done == phase.first:
            phase.known = phase.first if phase.first > done - phase.first else 0
        phase.done = done
        pace = (done - phase.first) / (now - phase.begun) if done > phase.first and now > phase.begun else 0.0
        if pace and what in self._planned:
            self._say(self._plan(pace))
        if self._steps and self._is_due(phase, now):
            phase.said, phase.said_done = now, done
            self._say(_describe(what, phase, pace))

    def _plan(self, pace: float) -> str:
        """What is announced, and how long it takes if all of it goes at this pace."""
        parts = {name: self._phases[name].total - self._phases[name].known for name in self._planned}
        listed = [f"{parts[name]} {name}" for name in self._phases if parts.get(name)]
        self._planned.clear()
        return f"{' and '.join(listed)}, about {say_duration(sum(parts.values()) / pace)} at {pace:.3g} pictures/s"

    def _is_due(self, phase: _Phase, now: float) -> bool:
        if phase.done >= phase.total:
            return True
        waited = now - phase.said
        return waited >= SECONDS or (waited >= PAUSE and phase.done - phase.said_done >= SHARE * phase.total)


def _describe(what: str, phase: _Phase, pace: float) -> str:
    said = f"{what}: {phase.done} of {phase.total}"
    left = phase.total - phase.done
    timed = left and pace and phase.total >= FEW
    return f"{said}, about {say_duration(left / pace)} left" if timed else said


def say_duration(seconds: float) -> str:
    """A duration to one or two figures: "40 seconds", "12 minutes", "1.5 hours"."""
    if seconds < 90:
        whole = max(round(seconds), 1)
        return f"{whole} second{'s' if whole > 1 else ''}"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
