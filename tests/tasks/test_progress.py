"""What people are told of something long: the plan once its pace is known, then lines at decent intervals."""

from __future__ import annotations

import pytest

from tasks.progress import ProgressLog, say_duration


class Told:
    """Lines, by a clock that the test sets."""

    def __init__(self, steps: bool = True) -> None:
        self.lines: list[str] = []
        self.now = 1000.0
        self.log = ProgressLog(self.lines.append, steps, lambda: self.now)

    def run(self, what: str, start: int, total: int, batch: int, pace: float) -> None:
        """`total - start` pictures in batches."""
        for done in range(start + batch, total + batch, batch):
            self.now += batch / pace
            self.log(what, min(done, total), total)


def test_the_plan_is_said_once_its_pace_is_known() -> None:
    told = Told(steps=False)
    told.log("reals", 0, 900)
    told.log("fakes", 0, 5000)
    told.log("reals", 500, 900)  # known, at once
    assert told.lines == []
    told.run("reals", 500, 900, 100, 10)
    assert told.lines == ["400 reals and 5000 fakes, about 9 minutes at 10 pictures/s"]
    told.run("fakes", 0, 5000, 128, 5)
    assert len(told.lines) == 1


def test_reals_that_are_all_known_say_nothing_about_the_pace() -> None:
    told = Told()
    told.log("reals", 0, 900)
    told.log("fakes", 0, 256)
    told.log("reals", 900, 900)
    told.run("fakes", 0, 256, 128, 10)
    assert told.lines == ["reals: 900 of 900", "256 fakes, about 26 seconds at 10 pictures/s", "fakes: 256 of 256"]


def test_lines_are_a_tenth_or_half_a_minute_apart() -> None:
    slow = Told()
    slow.run("fakes", 0, 5000, 100, 10)  # 500 seconds: a line for every half a minute
    assert slow.lines[:2] == ["fakes: 400 of 5000, about 8 minutes left", "fakes: 700 of 5000, about 7 minutes left"]
    assert len(slow.lines) == 17
    fast = Told()
    fast.run("fakes", 0, 1000, 10, 10)  # 100 seconds: one for every tenth
    assert len(fast.lines) == 10
    quick = Told()
    quick.run("files", 0, 1000, 1, 1000)
    assert quick.lines == ["files: 1000 of 1000"]


def test_the_same_thing_again_is_told_anew() -> None:
    told = Told()
    for _ in range(2):
        told.run("reals", 0, 40, 20, 10)
    assert told.lines == ["reals: 40 of 40", "reals: 40 of 40"]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "1 second"), (89, "89 seconds"), (95, "2 minutes"), (5400, "1.5 hours")]
)
def test_durations(seconds: float, said: str) -> None:
    assert say_duration(seconds) == said
