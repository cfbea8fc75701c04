"""The pictures of a plain folder, as training wants them."""

from __future__ import annotations

from typing import Literal

import numpy as np

from datasets.digests import digest_bytes
from datasets.errors import SourceError
from datasets.loader.reader import (
    CACHE_BYTES,
    PREFETCH,
    PictureReader,
    Resize,
    check_settings,
    to_grey,
    to_sides,
    usable_cores,
)
from datasets.picture_folder import PictureFolder, Report, check_folder, read_picture_file
from datasets.pictures import decode_picture
from datasets.pictures.alpha import decode_alpha, spread_colours
from datasets.sources.files import readable_name


class FolderReader(PictureReader):
    """A folder's pictures, all of one size; in the order of their names.

    Attributes:
        digest: SHA-256 in hex over the names and the files; see `check_folder`.
    """

    def __init__(
        self,
        folder: PictureFolder,
        resolution: int | tuple[int, int],
        resize: Resize,
        mirror: bool = True,
        *,
        channels: Literal[1, 3, 4] = 3,
        labels: np.ndarray | None = None,
        workers: int | None = None,
        prefetch: int = PREFETCH,
        cache_bytes: int = CACHE_BYTES,
        report: Report | None = None,
    ) -> None:
        """resolution: side of a square, or (height, width); larger pictures of that aspect are reduced, none grows.

        Every picture is read and decoded once before anything else, so that no training stops at a broken one.
        channels: 3 = RGB and 1 = grey (BT.601), transparency laid over white; 4 = RGBA, not multiplied, clear pixels
        having the colour of the nearest one that is seen. labels: one row per picture in the folder's order.
        report: told how far that reading is. The rest is described by PictureReader.
        Raises SourceError that names all pictures that are unfit, LabelError for pictures without one class,
        ValueError for labels of another length and for settings that make no sense.
        """
        check_settings(workers, prefetch, cache_bytes)
        self._folder = folder
        sides = to_sides(resolution)
        super().__init__(
            len(folder.names),
            (channels, *sides),
            mirror=mirror,
            labels=labels,
            workers=workers,
            prefetch=prefetch,
            cache_bytes=cache_bytes,
        )
        self.resize = resize
        checked = check_folder(folder, sides, usable_cores() if workers is None else workers, report)
        self.digest = checked.digest
        self._digests = checked.digests

    @property
    def _said(self) -> str:
        return str(self._folder.root)

    def _name(self, picture: int) -> str:
        return readable_name(self._folder.names[picture])

    def identify(self, picture: int) -> str:
        return self._digests[picture].hex()

    def _read(self, picture: int) -> np.ndarray:
        name = self._folder.names[picture]
        try:
            data = read_picture_file(self._folder.root, name)
        except SourceError as error:
            raise SourceError(f"{self._name(picture)} of {self._said} {error}. Put it back, and resume.") from error
        if bytes.fromhex(digest_bytes(data)) != self._digests[picture]:
            raise SourceError(
                f"{self._name(picture)} of {self._said} was changed while it was trained on. Put it back as it was, "
                "and resume; or start a new run on the changed pictures."
            )
        return self._planes(data)

    def _planes(self, data: bytes) -> np.ndarray:
        """The pixels of a file that was found to be sound: uint8 (channels, height, width)."""
        if self.channels == 4:
            rgb, alpha = decode_alpha(data)
            layers = (self._fit(spread_colours(rgb, alpha)), self._fit(alpha[:, :, None]))
            return np.concatenate(layers, axis=2).transpose(2, 0, 1)
        planes = self._fit(decode_picture(data).rgb).transpose(2, 0, 1)
        return planes if self.channels == 3 else to_grey(planes)

    def _fit(self, picture: np.ndarray) -> np.ndarray:
        return picture if picture.shape[1] == self.width else self.resize(picture, self.width, self.height)
