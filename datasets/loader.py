"""The training reader: endless batches of a version's pictures, the same ones from any index on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from datasets.errors import StoreError
from datasets.pictures import UnreadablePictureError, decode_picture
from datasets.store import Store
from datasets.version import Version

_CACHE_BYTES = 2 * 1024**3  # decoded pictures are kept as long as they fit


class VersionReader:
    """A version's pictures as training wants them: squares of one resolution.

    Attributes:
        count: pictures in the version.
        resolution: side of a picture in pixels.
    """

    def __init__(
        self,
        store: Store,
        version: Version,
        resolution: int,
        resize: Callable[[np.ndarray, int, int], np.ndarray],
        mirror: bool = True,
        workers: int = 2,
    ) -> None:
        """resolution: pictures of another size are reduced to it, never enlarged.

        resize(rgb, width, height): how; the one that scoring uses, so that both see the same pixels.
        mirror: show half of the samples mirrored. Raises StoreError for a version that cannot be trained on.
        """
        manifest = version.manifest()
        self.count = len(manifest)
        self.resolution = resolution
        self.resize = resize
        self.mirror = mirror
        self.workers = workers
        self._check(version, manifest["width"].to_numpy(), manifest["height"].to_numpy())
        self._store = store
        self._blobs: list[str] = manifest["blob"].to_pylist()
        self._cache: dict[int, np.ndarray] = {}
        self._epoch: tuple[tuple[int, int], np.ndarray, np.ndarray] | None = None
        self._cached_at_most = _CACHE_BYTES // (3 * resolution * resolution)

    def _check(self, version: Version, widths: np.ndarray, heights: np.ndarray) -> None:
        if self.count == 0:
            raise StoreError(f"{version.reference} is empty: look at `kaobako versions show {version.reference}`.")
        wrong = int(np.count_nonzero((widths != heights) | (widths < self.resolution)))
        if wrong:
            raise StoreError(
                f"{wrong} of {self.count} pictures of {version.reference} are not squares of at least "
                f"{self.resolution} px. Build with upscale.size={self.resolution} or more, or train smaller."
            )

    def batches(self, batch: int, seed: int, start_index: int = 0) -> Iterator[np.ndarray]:
        """Batches from sample `start_index` on, for ever: uint8 (batch, 3, resolution, resolution), RGB, 0..255.

        Sample i is a function of (seed, i) alone: each epoch is a permutation of its own, so a resumed training sees
        what an undisturbed one would have seen. The next batch is decoded while the caller works on this one.
        """
        with ThreadPoolExecutor(self.workers, thread_name_prefix="loader") as pool:
            index = start_index
            pending = list(pool.map(self._sample, *self._draw(seed, index, batch)))
            while True:
                following = pool.map(self._sample, *self._draw(seed, index + batch, batch))
                yield np.stack(pending)
                index += batch
                pending = list(following)

    def _draw(self, seed: int, start: int, batch: int) -> tuple[list[int], list[bool]]:
        """Which picture each sample is, and whether it is mirrored."""
        samples = np.arange(start, start + batch)
        pictures = np.empty(batch, np.int64)
        flips = np.zeros(batch, dtype=bool)
        for epoch in np.unique(samples // self.count):
            inside = samples // self.count == epoch
            order, coins = self._shuffle(seed, int(epoch))
            places = samples[inside] % self.count
            pictures[inside] = order[places]
            flips[inside] = coins[places] & self.mirror
        return pictures.tolist(), flips.tolist()

    def _shuffle(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """An epoch's order of the pictures, and which of them are mirrored; the last one is remembered."""
        if self._epoch is None or self._epoch[0] != (seed, epoch):
            rng = np.random.Generator(np.random.Philox(key=[seed, epoch]))
            self._epoch = ((seed, epoch), rng.permutation(self.count), rng.random(self.count) < 0.5)
        return self._epoch[1], self._epoch[2]

    def _sample(self, picture: int, flip: bool) -> np.ndarray:
        pixels = self._cache.get(picture)
        if pixels is None:
            pixels = self._read(picture)
            if len(self._cache) < self._cached_at_most:
                self._cache[picture] = pixels
        return pixels[:, :, ::-1] if flip else pixels

    def _read(self, picture: int) -> np.ndarray:
        path = self._store.blobs.path(self._blobs[picture])
        try:
            rgb = decode_picture(path.read_bytes()).rgb
        except UnreadablePictureError as error:
            raise StoreError(
                f"{path} is damaged ({error}): run `kaobako versions verify`, then build again."
            ) from error
        if rgb.shape[0] != self.resolution:
            rgb = self.resize(rgb, self.resolution, self.resolution)
        return np.ascontiguousarray(rgb.transpose(2, 0, 1))
