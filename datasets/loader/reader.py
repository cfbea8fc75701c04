"""What all training readers share: the order, threads that decode ahead, the cache, mirroring, labels."""

from __future__ import annotations

import itertools
import os
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from datasets.labels import LabelError
from datasets.loader.order import SampleOrder

CACHE_BYTES = 2 * 1024**3  # the usual room for decoded pictures: 10,922 of 256 px
PREFETCH = 4  # batches begun ahead: enough to bridge a grid or a snapshot of the trainer, small beside a cache
_MOST_WORKERS = 16  # beyond, workers wait for each other's Python rather than for decoding
NAMED = 3  # examples in a message
BT_601 = np.array([0.299, 0.587, 0.114])  # as Pillow's "L", and as the discriminator's scoring reads grey

Resize = Callable[[np.ndarray, int, int], np.ndarray]
"""resize(picture, width, height): uint8 (H, W, C) to uint8 (height, width, C)."""


@dataclass(frozen=True)
class Batch:
    """What a conditional training takes."""

    images: np.ndarray  # uint8 (batch, channels, height, width), 0..255
    labels: np.ndarray  # (batch, ...), the rows of the reader's labels that belong to the images


class PictureReader(ABC):
    """Equal pictures, shuffled anew in every epoch, for ever.

    A subclass says how many there are and how picture k is read; it must be done with its own preparations before it
    calls this class's `__init__`, which names pictures in its errors.

    Attributes:
        count: pictures there are.
        channels, height, width: of every picture that is given.
        workers: threads that decode; Pillow lets go of Python's lock while it does.
        prefetch: batches that are begun ahead of the one that the caller works on.
    """

    def __init__(
        self,
        count: int,
        shape: tuple[int, int, int],
        *,
        mirror: bool,
        labels: np.ndarray | None,
        workers: int | None,
        prefetch: int,
        cache_bytes: int,
    ) -> None:
        """shape: (channels, height, width) of what is given.

        mirror: show half of the samples mirrored. labels: one row per picture in the reader's order; none: every label
        is empty. Negative whole numbers are refused: they stand for "no class" and "several". workers: none is one per
        core. prefetch: 0 decodes a batch only when it is asked for. cache_bytes: room for decoded pictures, 0 for none;
        the first pictures that fit are kept. None of these three changes a sample.
        Raises LabelError for pictures without one class, ValueError for labels of another length and for settings that
        make no sense.
        """
        self.count = count
        self.channels, self.height, self.width = shape
        self.mirror = mirror
        self.workers = usable_cores() if workers is None else workers
        self.prefetch = prefetch
        self._labels = np.empty((count, 0), np.float32) if labels is None else np.asarray(labels)
        if len(self._labels) != count:
            raise ValueError(f"{len(self._labels)} labels for the {count} pictures of {self._said}")
        self._check_labels()
        slots = min(count, cache_bytes // (self.channels * self.height * self.width))
        self._cache = np.empty((slots, *shape), np.uint8)  # memory is taken as pictures come in
        self._cached = np.zeros(slots, np.bool_)

    @property
    @abstractmethod
    def _said(self) -> str:
        """The dataset as messages name it."""

    @abstractmethod
    def _name(self, picture: int) -> str:
        """A picture as messages name it."""

    @abstractmethod
    def _read(self, picture: int) -> np.ndarray:
        """Decode picture 0..count-1: uint8 (channels, height, width). Called by several threads at once."""

    @abstractmethod
    def identify(self, picture: int) -> str:
        """What picture 0..count-1 is made of, as SHA-256 in hex: two of one digest have the same pixels at any size."""

    def origin(self, picture: int) -> str:
        """What picture 0..count-1 was derived from: equal for a picture and all that were made of it."""
        return self.identify(picture)

    def _check_labels(self) -> None:
        if not np.issubdtype(self._labels.dtype, np.signedinteger):
            return
        wrong = np.flatnonzero((self._labels < 0).reshape(self.count, -1).any(axis=1))
        if len(wrong):
            some = ", ".join(self._name(int(picture)) for picture in wrong[:NAMED])
            raise LabelError(
                f"{len(wrong)} of {self.count} pictures of {self._said} have a negative label ({some}"
                f"{', …' if len(wrong) > NAMED else ''}): -1 is no class, -2 is several. Tag each with exactly one "
                "of the classes, or leave them out of the dataset."
            )

    def batches(
        self, batch: int, seed: int, start_index: int = 0, rank: int = 0, world: int = 1
    ) -> Generator[np.ndarray, None, None]:
        """The images of `labelled_batches`: uint8 (batch / world, channels, height, width), 0..255."""
        with closing(self.labelled_batches(batch, seed, start_index, rank, world)) as pairs:
            for pair in pairs:
                yield pair.images

    def labelled_batches(
        self, batch: int, seed: int, start_index: int = 0, rank: int = 0, world: int = 1
    ) -> Generator[Batch, None, None]:
        """Batches from sample `start_index` on, for ever; each array is the caller's own.

        Sample i is a function of (seed, i) alone, so a resumed training sees what an undisturbed one would have seen.
        rank, world: of `world` processes that share every batch, process `rank` is given its part: the parts of all,
        one after the other, are the batch. The next batches are decoded while the caller works on this one. Closing
        the generator ends its threads.
        Raises StoreError or SourceError for a picture that is gone or damaged, when its batch is due, and ValueError
        for a batch that the processes cannot share evenly.
        """
        if batch < 1 or start_index < 0:
            raise ValueError(f"batch must be at least 1 and start_index at least 0, got {batch} and {start_index}")
        if not 0 <= rank < world:
            raise ValueError(f"rank must be 0 to world - 1, got {rank} of {world}")
        if batch % world:
            raise ValueError(f"a batch of {batch} cannot be shared by {world} processes: choose a multiple")
        part = batch // world
        order = SampleOrder(self.count, seed)
        stop = threading.Event()
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="reader")
        begun: deque[tuple[Batch, list[Future[None]]]] = deque()
        try:
            for start in itertools.count(start_index + rank * part, batch):
                begun.append(self._begin(pool, stop, *order.draw(start, part)))
                if len(begun) > self.prefetch:
                    ready, filled = begun.popleft()
                    for task in filled:
                        task.result()
                    yield ready
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def pictures(self, chosen: Sequence[int]) -> Generator[np.ndarray, None, None]:
        """Pictures 0..count-1 by number, in the order given, never mirrored: uint8 (height, width, channels) each.

        Decoded ahead by the reader's threads, which closing the generator ends. Raises StoreError or SourceError for a
        picture that is gone or damaged.
        """
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="reader")
        begun: deque[Future[np.ndarray]] = deque()
        try:
            for picture in chosen:
                begun.append(pool.submit(self._pixels, int(picture)))
                if len(begun) > 4 * self.workers:
                    yield begun.popleft().result().transpose(1, 2, 0)
            while begun:
                yield begun.popleft().result().transpose(1, 2, 0)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _begin(
        self, pool: ThreadPoolExecutor, stop: threading.Event, pictures: np.ndarray, coins: np.ndarray
    ) -> tuple[Batch, list[Future[None]]]:
        """A batch that is being filled, one part per worker, and the parts."""
        images = np.empty((len(pictures), self.channels, self.height, self.width), np.uint8)
        flips = coins & self.mirror
        length = -(-len(pictures) // self.workers)
        parts = [
            pool.submit(self._fill, images[a : a + length], pictures[a : a + length], flips[a : a + length], stop)
            for a in range(0, len(pictures), length)
        ]
        return Batch(images, self._labels[pictures]), parts

    def _fill(self, images: np.ndarray, pictures: np.ndarray, flips: np.ndarray, stop: threading.Event) -> None:
        for image, picture, flip in zip(images, pictures.tolist(), flips.tolist(), strict=True):
            if stop.is_set():
                return
            pixels = self._pixels(picture)
            image[...] = pixels[:, :, ::-1] if flip else pixels

    def _pixels(self, picture: int) -> np.ndarray:
        """A view of the picture's pixels, uint8 (channels, height, width)."""
        if picture >= len(self._cache):
            return self._read(picture)
        slot: np.ndarray = self._cache[picture]
        if not self._cached[picture]:
            # two threads may fill a slot at once: with the same bytes, and only then is it marked
            slot[...] = self._read(picture)
            self._cached[picture] = True
        return slot


def check_settings(workers: int | None, prefetch: int, cache_bytes: int) -> None:
    """Raise ValueError for settings of a reader that make no sense; before anything is opened."""
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if min(prefetch, cache_bytes) < 0:
        raise ValueError(f"prefetch and cache_bytes must be at least 0, got {prefetch} and {cache_bytes}")


def to_sides(resolution: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width): of a square by its side, or as given."""
    return (resolution, resolution) if isinstance(resolution, int) else resolution


def to_grey(planes: np.ndarray) -> np.ndarray:
    """RGB, uint8 (3, H, W), to its luma by ITU-R BT.601, rounded to nearest: uint8 (1, H, W)."""
    return np.round(np.tensordot(BT_601, planes, axes=1)).astype(np.uint8)[None]


def usable_cores() -> int:
    """The cores that this process may use, up to the number of workers that still helps."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST_WORKERS)
