"""The pictures of a published version, as training wants them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from PIL import Image

from datasets.derived import Derive, find_derived
from datasets.digests import digest_bytes, digest_json
from datasets.errors import StoreError
from datasets.loader.reader import (
    CACHE_BYTES,
    NAMED,
    PREFETCH,
    PictureReader,
    Resize,
    check_settings,
    to_grey,
    to_sides,
)
from datasets.pictures import DECODER_ERRORS, UnreadablePictureError, decode_picture
from datasets.store import Store
from datasets.version import Version


class VersionReader(PictureReader):
    """A version's pictures, all of one size; in the order of its manifest."""

    def __init__(
        self,
        store: Store,
        version: Version,
        resolution: int | tuple[int, int],
        resize: Resize,
        mirror: bool = True,
        *,
        channels: Literal[1, 3] = 3,
        labels: np.ndarray | None = None,
        derive: Derive | None = None,
        workers: int | None = None,
        prefetch: int = PREFETCH,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """resolution: side of a square, or (height, width); larger pictures of that aspect are reduced, none grows.

        resize(rgb, width, height): how; the one that scoring uses, so that both see the same pixels.
        channels: 3 = RGB, 1 = grey (BT.601). labels: one row per picture in the manifest's order, such as `tag_labels`
        gives. derive: makes the pictures that the version lists without keeping them; a version without such needs
        none. The rest is described by PictureReader.
        Raises StoreError for a version that cannot be trained on, LabelError for pictures without one class,
        ValueError for labels of another length and for settings that make no sense.
        """
        check_settings(workers, prefetch, cache_bytes)
        manifest = version.sound_manifest()
        self._reference = version.reference
        self._crop_ids: pa.Array = manifest["crop_id"].combine_chunks()  # Arrow's strings take half of Python's room
        self._sides = to_sides(resolution)
        self._check_sizes(manifest)
        super().__init__(
            len(manifest),
            (channels, *self._sides),
            mirror=mirror,
            labels=labels,
            workers=workers,
            prefetch=prefetch,
            cache_bytes=cache_bytes,
        )
        self.resize = resize
        self._store = store
        self._derive = derive
        self._derived = find_derived(manifest, version.lineage)
        self._augmentations: pa.Array = manifest["augmentation"].combine_chunks()
        self._parents: pa.Array = manifest["parent_crop"].combine_chunks()
        if derive is None and self._derived.any():
            raise StoreError(
                f"{self._derived.sum()} pictures of {self._reference} are listed, but not kept: a reader must be given "
                "a way to derive them. Build with augment.materialise=true to keep them."
            )
        self._widths = manifest["width"].to_numpy()
        self._blobs: pa.Array = manifest["blob"].combine_chunks()
        self._sound = np.zeros(self.count, np.bool_)  # blobs whose bytes were held against their names

    @property
    def _said(self) -> str:
        return self._reference

    def _name(self, picture: int) -> str:
        return str(self._crop_ids[picture].as_py())

    def identify(self, picture: int) -> str:
        blob: str = self._blobs[picture].as_py()
        return digest_json([blob, self._augmentations[picture].as_py()]) if self._derived[picture] else blob

    def origin(self, picture: int) -> str:
        return self._parents[picture].as_py() or self._name(picture)

    def _check_sizes(self, manifest: pa.Table) -> None:
        if len(manifest) == 0:
            raise StoreError(f"{self._reference} is empty: look at `kaobako versions show {self._reference}`.")
        height, width = self._sides
        widths, heights = (manifest[name].to_numpy().astype(np.float64) for name in ("width", "height"))
        wrong = np.flatnonzero((widths * height != heights * width) | (widths < width))
        if not len(wrong):
            return
        named = manifest.select(["crop_id", "width", "height"]).take(wrong[:NAMED]).to_pylist()
        some = ", ".join(f"{row['crop_id']}: {row['width']}x{row['height']}" for row in named)
        wanted, advice = (
            f"squares of at least {width} px",
            f"Build with upscale.size={width} or more, or train smaller.",
        )
        if height != width:
            wanted = f"of the aspect of {width}x{height} and at least of that size"
            advice = "Train at the aspect that the pictures have, or smaller."
        raise StoreError(
            f"{len(wrong)} of {len(manifest)} pictures of {self._reference} are not {wanted} "
            f"({some}{', …' if len(wrong) > NAMED else ''}). {advice}"
        )

    def _read(self, picture: int) -> np.ndarray:
        crop_id, width, blob = self._name(picture), int(self._widths[picture]), self._blobs[picture].as_py()
        height = width * self.height // self.width
        try:
            path = self._find(crop_id, blob)
            data = path.read_bytes()
            if not self._sound[picture] and (found := digest_bytes(data)) != blob:
                raise StoreError(self._advise(crop_id, f"the blob {path} is damaged (its bytes are {found} now)"))
            self._sound[picture] = True
            rgb = decode_blob(data, (width, height))
        except OSError as error:
            raise StoreError(f"{crop_id} of {self._reference}: the blob {blob} cannot be read: {error}") from error
        except UnreadablePictureError as error:
            raise StoreError(self._advise(crop_id, f"the blob {path} is damaged ({error})")) from error
        if rgb.shape != (height, width, 3):
            size = f"{rgb.shape[1]}x{rgb.shape[0]}"
            raise StoreError(self._advise(crop_id, f"the blob {path} is {size}, the manifest says {width}x{height}"))
        if self._derived[picture] and self._derive is not None:
            rgb = self._derive(self._augmentations[picture].as_py(), rgb)
        if width != self.width:
            rgb = self.resize(rgb, self.width, self.height)
        planes = rgb.transpose(2, 0, 1)
        return planes if self.channels == 3 else to_grey(planes)

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


def decode_blob(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """The pixels that `decode_picture` gives, uint8 (H, W, 3), sooner for a blob that is as we write them.

    That is a PNG of `size` = (width, height) RGB pixels and nothing else, whose bytes were held against its name:
    checksums, colour profiles and turns need no thought. Anything else goes the strict way.
    Raises UnreadablePictureError.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.size == size and image.mode == "RGB" and getattr(image, "n_frames", 1) == 1:
                image.load()
                if not image.info:  # complete only now: a chunk may follow the pixels
                    return np.asarray(image)
    except (*DECODER_ERRORS, Image.DecompressionBombError):
        pass  # the strict way finds the same and names it
    return decode_picture(data).rgb
