"""The training reader: endless batches of a version's pictures, the same ones from any index on."""

from __future__ import annotations

import io
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from datasets.derived import Derive, find_derived
from datasets.digests import digest_bytes
from datasets.errors import StoreError
from datasets.labels import LabelError
from datasets.pictures import DECODER_ERRORS, UnreadablePictureError, decode_picture
from datasets.store import Store
from datasets.version import Version

CACHE_BYTES = 2 * 1024**3  # the usual room for decoded pictures: 10,922 of 256 px
PREFETCH = 4  # batches begun ahead: enough to bridge a grid or a snapshot of the trainer, small beside a cache
_MOST_WORKERS = 16  # beyond, workers wait for each other's Python rather than for decoding
_NAMED = 3  # examples in a message


@dataclass(frozen=True)
class Batch:
    """What a conditional training takes."""

    images: np.ndarray  # uint8 (batch, 3, resolution, resolution), RGB, 0..255
    labels: np.ndarray  # (batch, ...), the rows of the reader's labels that belong to the images


class SampleOrder:
    """Which picture sample i is, and whether it is mirrored: a function of (seed, i) alone.

    Each epoch is a permutation of its own, drawn from a generator that is keyed by seed and epoch.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self._epoch = -1  # the last one drawn is remembered
        self._order = np.empty(0, np.int64)
        self._coins = np.empty(0, np.bool_)

    def draw(self, start: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Samples start .. start + batch - 1: int64 pictures in 0..count-1, and bool mirror coins."""
        samples = np.arange(start, start + batch)
        epochs, places = np.divmod(samples, self.count)
        pictures = np.empty(batch, np.int64)
        coins = np.empty(batch, np.bool_)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            inside = epochs == epoch
            self._shuffle(epoch)
            pictures[inside] = self._order[places[inside]]
            coins[inside] = self._coins[places[inside]]
        return pictures, coins

    def _shuffle(self, epoch: int) -> None:
        if epoch != self._epoch:
            rng = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
            self._order, self._coins = rng.permutation(self.count), rng.random(self.count) < 0.5
            self._epoch = epoch


class VersionReader:
    """A version's pictures as training wants them: squares of one resolution.

    Attributes:
        count: pictures in the version.
        resolution: side of a picture in pixels.
        workers: threads that decode; Pillow lets go of Python's lock while it does.
        prefetch: batches that are begun ahead of the one that the caller works on.
    """

    def __init__(
        self,
        store: Store,
        version: Version,
        resolution: int,
        resize: Callable[[np.ndarray, int, int], np.ndarray],
        mirror: bool = True,
        *,
        labels: np.ndarray | None = None,
        derive: Derive | None = None,
        workers: int | None = None,
        prefetch: int = PREFETCH,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """resolution: pictures of another size are reduced to it, never enlarged.

        resize(rgb, width, height): how; the one that scoring uses, so that both see the same pixels.
        mirror: show half of the samples mirrored. labels: one row per picture in the manifest's order, such as
        `tag_labels` gives; left out, every label is empty. Negative whole numbers are refused: they stand for "no
        class" and "several". derive: makes the pictures that the version lists without keeping them; a version without
        such needs none. workers: none is one per core. prefetch: 0 decodes a
        batch only when it is asked for. cache_bytes: room for decoded pictures, 0 for none; the first pictures of the
        manifest that fit are kept. None of these three changes a sample.
        Raises StoreError for a version that cannot be trained on, LabelError for pictures without one class,
        ValueError for labels of another length and for settings that make no sense.
        """
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        if min(prefetch, cache_bytes) < 0:
            raise ValueError(f"prefetch and cache_bytes must be at least 0, got {prefetch} and {cache_bytes}")
        manifest = version.sound_manifest()
        self.count = len(manifest)
        self.resolution = resolution
        self.resize = resize
        self.mirror = mirror
        self.workers = usable_cores() if workers is None else workers
        self.prefetch = prefetch
        self._reference = version.reference
        self._check_sizes(manifest)
        self._labels = np.empty((self.count, 0), np.float32) if labels is None else np.asarray(labels)
        if len(self._labels) != self.count:
            raise ValueError(f"{len(self._labels)} labels for the {self.count} pictures of {self._reference}")
        self._check_labels(manifest)
        self._store = store
        self._derive = derive
        self._derived = find_derived(manifest, version.lineage)
        self._augmentations: pa.Array = manifest["augmentation"].combine_chunks()
        if derive is None and self._derived.any():
            raise StoreError(
                f"{self._derived.sum()} pictures of {self._reference} are listed, but not kept: a reader must be given "
                "a way to derive them. Build with augment.materialise=true to keep them."
            )
        self._sides = manifest["width"].to_numpy()
        self._blobs: pa.Array = manifest["blob"].combine_chunks()  # Arrow's strings take half of Python's room
        self._crop_ids: pa.Array = manifest["crop_id"].combine_chunks()
        self._sound = np.zeros(self.count, np.bool_)  # blobs whose bytes were held against their names
        slots = min(self.count, cache_bytes // (3 * resolution * resolution))
        self._cache = np.empty((slots, 3, resolution, resolution), np.uint8)  # memory is taken as pictures come in
        self._cached = np.zeros(slots, np.bool_)

    def _check_sizes(self, manifest: pa.Table) -> None:
        if self.count == 0:
            raise StoreError(f"{self._reference} is empty: look at `kaobako versions show {self._reference}`.")
        widths, heights = manifest["width"].to_numpy(), manifest["height"].to_numpy()
        wrong = np.flatnonzero((widths != heights) | (widths < self.resolution))
        if len(wrong):
            named = manifest.select(["crop_id", "width", "height"]).take(wrong[:_NAMED]).to_pylist()
            some = ", ".join(f"{row['crop_id']}: {row['width']}x{row['height']}" for row in named)
            raise StoreError(
                f"{len(wrong)} of {self.count} pictures of {self._reference} are not squares of at least "
                f"{self.resolution} px ({some}{', …' if len(wrong) > _NAMED else ''}). "
                f"Build with upscale.size={self.resolution} or more, or train smaller."
            )

    def _check_labels(self, manifest: pa.Table) -> None:
        if not np.issubdtype(self._labels.dtype, np.signedinteger):
            return
        wrong = np.flatnonzero((self._labels < 0).reshape(self.count, -1).any(axis=1))
        if len(wrong):
            some = ", ".join(manifest["crop_id"].take(wrong[:_NAMED]).to_pylist())
            raise LabelError(
                f"{len(wrong)} of {self.count} pictures of {self._reference} have a negative label ({some}"
                f"{', …' if len(wrong) > _NAMED else ''}): -1 is no class, -2 is several. Tag each with exactly one "
                "of the classes, or leave them out of the dataset."
            )

    def batches(self, batch: int, seed: int, start_index: int = 0) -> Generator[np.ndarray, None, None]:
        """The images of `labelled_batches`: uint8 (batch, 3, resolution, resolution), RGB, 0..255."""
        with closing(self.labelled_batches(batch, seed, start_index)) as pairs:
            for pair in pairs:
                yield pair.images

    def labelled_batches(self, batch: int, seed: int, start_index: int = 0) -> Generator[Batch, None, None]:
        """Batches from sample `start_index` on, for ever; each array is the caller's own.

        Sample i is a function of (seed, i) alone, so a resumed training sees what an undisturbed one would have seen.
        The next batches are decoded while the caller works on this one. Closing the generator ends its threads.
        Raises StoreError for a blob that is gone or damaged, when its batch is due.
        """
        if batch < 1 or start_index < 0:
            raise ValueError(f"batch must be at least 1 and start_index at least 0, got {batch} and {start_index}")
        order = SampleOrder(self.count, seed)
        stop = threading.Event()
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="reader")
        begun: deque[tuple[Batch, list[Future[None]]]] = deque()
        try:
            for start in itertools.count(start_index, batch):
                begun.append(self._begin(pool, stop, *order.draw(start, batch)))
                if len(begun) > self.prefetch:
                    ready, parts = begun.popleft()
                    for part in parts:
                        part.result()
                    yield ready
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _begin(
        self, pool: ThreadPoolExecutor, stop: threading.Event, pictures: np.ndarray, coins: np.ndarray
    ) -> tuple[Batch, list[Future[None]]]:
        """A batch that is being filled, one part per worker, and the parts."""
        images = np.empty((len(pictures), 3, self.resolution, self.resolution), np.uint8)
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
        """A view of the picture's pixels, uint8 (3, resolution, resolution)."""
        if picture >= len(self._cache):
            return self._read(picture)
        slot: np.ndarray = self._cache[picture]
        if not self._cached[picture]:
            # two threads may fill a slot at once: with the same bytes, and only then is it marked
            slot[...] = self._read(picture)
            self._cached[picture] = True
        return slot

    def _read(self, picture: int) -> np.ndarray:
        crop_id, side, blob = self._crop_ids[picture].as_py(), int(self._sides[picture]), self._blobs[picture].as_py()
        try:
            path = self._find(crop_id, blob)
            data = path.read_bytes()
            if not self._sound[picture] and (found := digest_bytes(data)) != blob:
                raise StoreError(self._advise(crop_id, f"the blob {path} is damaged (its bytes are {found} now)"))
            self._sound[picture] = True
            rgb = decode_blob(data, side)
        except OSError as error:
            raise StoreError(f"{crop_id} of {self._reference}: the blob {blob} cannot be read: {error}") from error
        except UnreadablePictureError as error:
            raise StoreError(self._advise(crop_id, f"the blob {path} is damaged ({error})")) from error
        if rgb.shape != (side, side, 3):
            size = f"{rgb.shape[1]}x{rgb.shape[0]}"
            raise StoreError(self._advise(crop_id, f"the blob {path} is {size}, the manifest says {side}x{side}"))
        if self._derived[picture] and self._derive is not None:
            rgb = self._derive(self._augmentations[picture].as_py(), rgb)
        if side != self.resolution:
            rgb = self.resize(rgb, self.resolution, self.resolution)
        return rgb.transpose(2, 0, 1)

    def _find(self, crop_id: str, blob: str) -> Path:
        try:
            return self._store.blobs.path(blob)
        except StoreError as error:
            raise StoreError(f"{crop_id} of {self._reference}: {error}") from error

    def _advise(self, crop_id: str, found: str) -> str:
        return (
            f"{crop_id} of {self._reference}: {found}. Delete it and run the build again: it is made anew. "
            f"`kaobako versions verify {self._reference}` looks for others."
        )


def decode_blob(data: bytes, side: int) -> np.ndarray:
    """The pixels that `decode_picture` gives, uint8 (H, W, 3), sooner for a blob that is as we write them.

    That is a PNG of side x side RGB pixels and nothing else, whose bytes were held against its name: checksums, colour
    profiles and turns need no thought. Anything else goes the strict way. Raises UnreadablePictureError.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.size == (side, side) and image.mode == "RGB" and getattr(image, "n_frames", 1) == 1:
                image.load()
                if not image.info:  # complete only now: a chunk may follow the pixels
                    return np.asarray(image)
    except (*DECODER_ERRORS, Image.DecompressionBombError):
        pass  # the strict way finds the same and names it
    return decode_picture(data).rgb


def usable_cores() -> int:
    """The cores that this process may use, up to the number of workers that still helps."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST_WORKERS)
