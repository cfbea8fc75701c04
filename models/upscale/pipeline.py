"""Many pictures, in order: decoding, computing and encoding overlap, and memory does not grow with their number.

`run_each` gives every picture to one thread from decoding to encoding: right where the network itself runs on that
thread (ncnn). `run_batched` collects decoded pictures into batches for one computing thread: right for a GPU.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from models.upscale.fit import RGB
from models.upscale.plan import Plan
from models.upscale.torch_backend import MAX_BATCH, Bucket, Launched, TorchBackend

T = TypeVar("T")
R = TypeVar("R")
Stop = Callable[[], None]

HELD_PIXELS = 200_000_000  # decoded and enlarged pixels at a time: 600 MB
AHEAD = 8 * MAX_BATCH  # pictures that may be on their way before the first of them is finished
PATIENCE = 0.02  # seconds without a new picture after which a batch goes that is not full
LAUNCHED = 2  # batches on the device at a time: one computes while another is copied back


class StoppedError(BaseException):
    """The caller has gone: work ends here. No Exception, so that nobody takes it for a picture's fault."""


def run_each(items: Iterable[T], work: Callable[[T, Stop], R], workers: int) -> Iterator[R]:
    """``work(item, stop)`` for every item in threads; results in the items' order.

    At most four items per worker are begun before the oldest of them is done. An exception of ``work`` is raised at its
    place. When the caller stops (an exception, or the generator is closed) no item is begun any more, and this
    returns when the threads have ended: ``work`` calls ``stop`` at times, which then raises.
    """
    stopping = threading.Event()
    stop = _stopper(stopping)

    def guarded(item: T) -> R:
        stop()
        return work(item, stop)

    source = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="upscale")
    begun: deque[Future[R]] = deque()
    try:
        while True:
            for item in _take(source, 4 * workers - len(begun)):
                begun.append(pool.submit(guarded, item))
            if not begun:
                return
            yield begun.popleft().result()
    finally:
        stopping.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _stopper(stopping: threading.Event) -> Stop:
    def stop() -> None:
        if stopping.is_set():
            raise StoppedError

    return stop


def _take(source: Iterator[T], most: int) -> Iterator[T]:
    """Up to so many items: one at a time, so that each is at work before the next is asked for."""
    for _ in range(most):
        try:
            item = next(source)
        except StopIteration:
            return
        yield item


@dataclass
class Passage:
    """A picture between decoding and encoding."""

    rgb: RGB  # as it is now
    plan: Plan
    backend: TorchBackend | None  # None: the picture is not computed
    left: int  # how often it still goes through the network

    @property
    def pixels(self) -> int:
        """As it is now and as it comes out."""
        pixels = self.rgb.shape[0] * self.rgb.shape[1]
        return pixels if self.backend is None else pixels * (1 + self.backend.network.scale ** (2 * self.left))


@dataclass(eq=False)
class _Job(Generic[T, R]):
    """One item on its way."""

    number: int
    item: T
    state: Passage | Exception | None = None
    held: int = 0  # pixels
    done: Future[R] = field(default_factory=Future)


def run_batched(
    items: Iterable[T],
    begin: Callable[[T], Passage],
    end: Callable[[T, Passage | Exception], R],
    workers: int,
    ahead: int = AHEAD,
    held_pixels: int = HELD_PIXELS,
) -> Iterator[R]:
    """Every item decoded by ``begin``, computed in batches, given to ``end``; results in the items' order.

    Args:
        begin, end: run in ``workers`` threads each. An Exception of ``begin`` or of the network goes to ``end``; one of
            ``end`` is raised here, at its place.
        ahead: items that may be on their way before the first of them is done.
        held_pixels: decoded and enlarged pixels held at a time; exceeded by at most one picture per worker.

    Closing the generator, or an exception, ends all threads before this returns.
    """
    works: _Works[T, R] = _Works(begin, end, workers, held_pixels)
    source = iter(items)
    jobs: deque[_Job[T, R]] = deque()
    try:
        while True:
            for item in _take(source, ahead - len(jobs)):
                jobs.append(works.submit(item))
            if not jobs:
                return
            yield works.wait_for(jobs[0])
            jobs.popleft()
    finally:
        works.close()


class _Works(Generic[T, R]):
    """The threads of `run_batched`."""

    def __init__(
        self, begin: Callable[[T], Passage], end: Callable[[T, Passage | Exception], R], workers: int, held_pixels: int
    ) -> None:
        self._begin = begin
        self._end = end
        self._most_held = held_pixels
        self._held = 0
        self._loading = 0
        self._numbers = 0
        self._oldest = 0  # number of the item that the caller waits for
        self._feeding = True  # whether the caller may still bring items before it waits
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._stop = _stopper(self._stopping)
        self._ready: queue.SimpleQueue[_Job[T, R]] = queue.SimpleQueue()
        self._waiting: dict[tuple[TorchBackend, Bucket], list[_Job[T, R]]] = {}  # by backend and bucket
        self._launched: deque[tuple[list[_Job[T, R]], Launched]] = deque()
        self._loaders = ThreadPoolExecutor(workers, thread_name_prefix="upscale-load")
        self._finishers = ThreadPoolExecutor(workers, thread_name_prefix="upscale-finish")
        self._computer = ThreadPoolExecutor(1, thread_name_prefix="upscale-compute")
        self._computing = self._computer.submit(self._compute)

    def submit(self, item: T) -> _Job[T, R]:
        job: _Job[T, R] = _Job(self._numbers, item)
        self._numbers += 1
        with self._changed:
            self._loading += 1
        self._loaders.submit(self._load, job)
        return job

    def wait_for(self, job: _Job[T, R]) -> R:
        with self._changed:
            self._feeding = False
            self._oldest = job.number
            self._changed.notify_all()
        ends: list[Future[Any]] = [job.done, self._computing]
        wait(ends, return_when=FIRST_COMPLETED)
        with self._changed:
            self._feeding = True
        if not job.done.done():
            self._computing.result()  # it never ends by itself, so it has failed: raise that
        return job.done.result()

    def close(self) -> None:
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        for pool in (self._loaders, self._computer, self._finishers):
            pool.shutdown(wait=True, cancel_futures=True)

    def _load(self, job: _Job[T, R]) -> None:
        with self._changed:
            # the item that the caller waits for is never held up, so there is always one that goes on
            while self._held >= self._most_held and job.number != self._oldest and not self._stopping.is_set():
                self._changed.wait()
        self._stop()
        try:
            job.state = self._begin(job.item)
        except Exception as error:  # noqa: BLE001  # whatever it is: `end` makes a row of it
            job.state = error
        with self._changed:
            if isinstance(job.state, Passage):
                job.held = job.state.pixels
                self._held += job.held
        self._pass_on(job)
        with self._changed:
            self._loading -= 1

    def _pass_on(self, job: _Job[T, R]) -> None:
        if isinstance(job.state, Passage) and job.state.left > 0:
            self._ready.put(job)
        else:
            self._finishers.submit(self._finish, job)

    def _finish(self, job: _Job[T, R]) -> None:
        try:
            self._stop()
            assert job.state is not None
            job.done.set_result(self._end(job.item, job.state))
        except BaseException as error:  # noqa: BLE001  # raised where the caller waits for this item
            job.done.set_exception(error)
        finally:
            job.state = None
            with self._changed:
                self._held -= job.held
                self._changed.notify_all()

    def _compute(self) -> None:
        """Batches, as they fill up; one that is not full when nothing else comes."""
        while not self._stopping.is_set():
            if self._sort_in():
                continue
            if self._launched:
                self._collect()
            elif self._waiting:
                self._launch(min(self._waiting, key=lambda key: min(job.number for job in self._waiting[key])))

    def _sort_in(self) -> bool:
        """A loaded picture goes to its bucket, a full bucket to the device. False: nothing came."""
        hurried = bool(self._launched) or (bool(self._waiting) and self._stalled())
        try:
            job = self._ready.get(timeout=0 if hurried else PATIENCE)
        except queue.Empty:
            return False
        state = job.state
        assert isinstance(state, Passage) and state.backend is not None
        bucket = state.backend.bucket(*state.rgb.shape[:2])
        if bucket is None:
            self._enlarge_alone(job, state.backend, state.rgb)
            return True
        key = (state.backend, bucket)
        self._waiting.setdefault(key, []).append(job)
        if len(self._waiting[key]) == bucket.batch:
            self._launch(key)
        return True

    def _stalled(self) -> bool:
        """Whether nothing can come before a batch has gone: the caller waits, and all that it brought is here."""
        with self._changed:
            return self._loading == 0 and not self._feeding

    def _launch(self, key: tuple[TorchBackend, Bucket]) -> None:
        jobs = self._waiting.pop(key)
        while len(self._launched) >= LAUNCHED:
            self._collect()
        try:
            self._launched.append((jobs, _start(jobs, key)))
        except Exception:  # noqa: BLE001  # one by one each picture has its own result, or its own error
            for job in jobs:
                try:
                    self._launched.append(([job], _start([job], key)))
                except Exception as error:  # noqa: BLE001
                    self._advance(job, error)

    def _collect(self) -> None:
        jobs, launched = self._launched.popleft()
        try:
            results = launched.collect()
        except Exception as error:  # noqa: BLE001  # the device has failed
            results = [error for _ in jobs]
        for job, result in zip(jobs, results, strict=True):
            self._advance(job, result)

    def _enlarge_alone(self, job: _Job[T, R], backend: TorchBackend, rgb: RGB) -> None:
        try:
            result: RGB | Exception = backend.enlarge_in_tiles(rgb, backend.tile_pixels, self._stop)
        except Exception as error:  # noqa: BLE001  # this picture's only
            result = error
        self._advance(job, result)

    def _advance(self, job: _Job[T, R], result: RGB | Exception) -> None:
        if isinstance(result, Exception):
            job.state = result
        else:
            assert isinstance(job.state, Passage)
            job.state.rgb = result
            job.state.left -= 1
        self._pass_on(job)


def _start(jobs: list[_Job[T, R]], key: tuple[TorchBackend, Bucket]) -> Launched:
    backend, bucket = key
    return backend.launch([job.state.rgb for job in jobs if isinstance(job.state, Passage)], bucket)
