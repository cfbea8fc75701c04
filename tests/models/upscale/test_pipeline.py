"""Many pictures: order, bounded memory, errors at their place, and threads that end."""

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.upscale.fit import RGB
from models.upscale.network import UpscaleNetwork
from models.upscale.pipeline import Passage, Stop, StoppedError, run_batched, run_each
from models.upscale.plan import Picture, Target, plan_picture
from models.upscale.torch_backend import TorchBackend

Runner = Callable[..., Iterator[object]]


class Double(UpscaleNetwork):
    """Repeats every pixel; fails at pictures that begin with the value 13."""

    scale, margin, loss, context = 2, 1, 1, 1

    def __init__(self) -> None:
        super().__init__()
        self.repeat = nn.ConvTranspose2d(3, 3, 2, 2, groups=3, bias=False)
        nn.init.ones_(self.repeat.weight)
        self.batches = 0

    def forward(self, x: Tensor) -> Tensor:
        self.batches += 1
        if bool((x[:, 0, 0, 0] * 255).round().eq(13).any()):
            raise RuntimeError("thirteen")
        result: Tensor = self.repeat(x[:, :, 1:-1, 1:-1])
        return result


@pytest.fixture
def backend() -> TorchBackend:
    """Four pictures of 16 x 16 in a pass."""
    return TorchBackend(Double().eval(), torch.device("cpu"), pixels=4 * 256, tile_pixels=40 * 40)


@pytest.fixture(params=["each", "batched"])
def runner(request: pytest.FixtureRequest, backend: TorchBackend) -> Runner:
    """``runner(items, load, finish, **settings)``, by both ways."""

    def each(
        items: object, load: Callable[[object], Picture], finish: Callable[[object, object], object]
    ) -> Iterator[object]:
        def work(item: object, stop: Stop) -> object:
            try:
                passage = begin(load, backend)(item)
                for _ in range(passage.left):
                    passage.rgb = backend.enlarge(passage.rgb, stop)
                return finish(item, passage)
            except StoppedError:
                raise
            except ValueError as error:  # only what load raises: finish is not to be called twice
                return finish(item, error)

        return run_each(items, work, 2)  # type: ignore[arg-type]

    def batched(
        items: object,
        load: Callable[[object], Picture],
        finish: Callable[[object, object], object],
        **settings: int,
    ) -> Iterator[object]:
        return run_batched(items, begin(load, backend), finish, 2, **{"ahead": 8, **settings})  # type: ignore[arg-type]

    return each if request.param == "each" else batched


def begin(load: Callable[[object], Picture], backend: TorchBackend) -> Callable[[object], Passage]:
    def start(item: object) -> Passage:
        loaded = load(item)
        plan = plan_picture(loaded, "double", 2)
        return Passage(plan.begin(loaded.rgb), plan, backend if plan.applications else None, plan.applications)

    return start


def picture(number: int, side: int | None = None) -> RGB:
    """One colour; sides of 9 to 40 pixels, so that several buckets are at work."""
    side = side or 9 + 7 * number % 32
    return np.full((side, side, 3), 20 + number % 200, np.uint8)


def load(number: int) -> Picture:
    return Picture(picture(number), Target(scale=(1, 2, 4)[number % 3]))


def finish(number: int, result: Passage | Exception) -> tuple[int, object]:
    if isinstance(result, Exception):
        return number, str(result)
    assert np.unique(result.rgb).tolist() == [20 + number % 200]
    return number, result.rgb.shape[0]


def expected(number: int) -> tuple[int, int]:
    return number, (9 + 7 * number % 32) * (1, 2, 4)[number % 3]


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("upscale")}


def test_results_are_right_and_in_order(runner: Runner) -> None:
    delays = np.random.default_rng(0).random(40) * 0.004

    def late(number: int, result: Passage | Exception) -> tuple[int, object]:
        time.sleep(delays[number])
        return finish(number, result)

    assert list(runner(iter(range(40)), load, late)) == [expected(number) for number in range(40)]
    assert list(runner([], load, finish)) == []
    assert not threads()


def test_batches_are_shared_and_everything_is_flushed(backend: TorchBackend) -> None:
    def small(number: int) -> Picture:
        return Picture(picture(number, 16), Target(scale=2))

    results = list(run_batched(range(18), begin(small, backend), finish, 2, ahead=32))  # type: ignore[arg-type]
    assert results == [(number, 32) for number in range(18)]
    assert backend.network.batches <= 7  # 18 / 4, and at most two that nobody joined in time
    assert backend.bucket(16, 16) == (16, 16, 4)


def test_only_so_many_are_on_their_way(runner: Runner) -> None:
    loaded: list[int] = []

    def count(number: int) -> Picture:
        loaded.append(number)
        return load(number)

    results = runner(iter(range(1000)), count, finish)
    for taken in range(1, 30):
        next(results)
        time.sleep(0.002)
        assert len(loaded) <= taken + 8
    results.close()
    assert len(loaded) < 60 and not threads()


def test_pixels_held_are_bounded(backend: TorchBackend) -> None:
    held: set[int] = set()
    most = []
    lock = threading.Lock()

    def count(number: int) -> Picture:
        with lock:
            held.add(number)
            most.append(len(held))
        return Picture(picture(number, 16), Target(scale=2))

    def release(number: int, result: Passage | Exception) -> int:
        with lock:
            held.remove(number)
        return number

    # 16 x 16 in and 32 x 32 out are 1280 pixels; two threads may each be one too far, and one goes on in any case
    results = run_batched(range(60), begin(count, backend), release, 2, ahead=50, held_pixels=4 * 1280)  # type: ignore[arg-type]
    assert list(results) == list(range(60))
    assert max(most) <= 4 + 2 + 1


def test_a_bad_picture_is_given_to_finish(runner: Runner) -> None:
    def load_most(number: int) -> Picture:
        if number % 5 == 2:
            raise ValueError(f"bad {number}")
        return load(number)

    results = list(runner(range(20), load_most, finish))
    assert results == [(n, f"bad {n}") if n % 5 == 2 else expected(n) for n in range(20)]


def test_a_failure_in_the_network_hits_its_picture_only(backend: TorchBackend) -> None:
    def load_thirteen(number: int) -> Picture:
        rgb = picture(number, 16)
        rgb[0, 0] = 13 if number == 5 else rgb[0, 0]
        return Picture(rgb, Target(scale=2))

    results = list(run_batched(range(9), begin(load_thirteen, backend), finish, 2, ahead=9))  # type: ignore[arg-type]
    assert results == [(n, "thirteen" if n == 5 else 32) for n in range(9)]


def test_what_finish_raises_is_raised_at_its_place(runner: Runner) -> None:
    def fail(number: int, result: Passage | Exception) -> tuple[int, object]:
        if number == 6:
            raise OSError("disk full")
        return finish(number, result)

    got = []
    with pytest.raises(OSError, match="disk full"):
        for result in runner(range(50), load, fail):
            got.append(result)
    assert got == [expected(number) for number in range(6)]
    assert not threads()


def test_what_items_raise_is_raised(runner: Runner) -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise KeyError("no more")

    with pytest.raises(KeyError):
        list(runner(items(), load, finish))
    assert not threads()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_caller_leaves_no_thread(runner: Runner, error: type[BaseException]) -> None:
    finished = []

    def slow(number: int, result: Passage | Exception) -> int:
        time.sleep(0.01)
        finished.append(number)
        return number

    start = time.monotonic()
    results = runner(iter(range(100_000)), load, slow)
    with pytest.raises(error):
        try:
            for result in results:
                if result == 3:
                    raise error
        finally:
            results.close()
    assert time.monotonic() - start < 5 and not threads()
    done = len(finished)
    time.sleep(0.03)
    assert len(finished) == done < 50


def test_a_generator_never_started_starts_nothing(runner: Runner) -> None:
    results = runner(range(5), lambda number: pytest.fail("loaded"), finish)
    results.close()
    assert not threads()


def test_a_failing_scheduler_is_not_waited_for(backend: TorchBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(height: int, width: int) -> None:
        raise MemoryError("scheduler")

    monkeypatch.setattr(backend, "bucket", break_down)
    with pytest.raises(MemoryError, match="scheduler"):
        list(run_batched(range(3), begin(load, backend), finish, 2))  # type: ignore[arg-type]
    assert not threads()
