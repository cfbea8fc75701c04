"""A plain folder of pictures to train on: what is in it, whether all of it fits, and the digest that names it."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from datasets.digests import digest_bytes
from datasets.errors import SourceError
from datasets.pictures import MAX_BYTES, SUFFIX_FORMATS, UnreadablePictureError, decode_picture
from datasets.sources.files import list_files, readable_name

NAMED = 20  # unfit pictures that a message names
Report = Callable[[int, int], None]
"""report(done, total): told after every picture."""


@dataclass(frozen=True)
class PictureFolder:
    """The pictures of a folder by name; none of them is open."""

    root: Path
    names: tuple[str, ...]  # relative to the root, "/" as separator, in the order of their bytes
    outside: tuple[str, ...]  # links that leave the folder: left out

    @property
    def name(self) -> str:
        """What the dataset is called: the folder's name."""
        return readable_name(self.root.resolve().name) or "pictures"


@dataclass(frozen=True)
class CheckedFolder:
    """A folder all of whose pictures fit."""

    folder: PictureFolder
    digests: tuple[bytes, ...]  # SHA-256 of each file, in the order of the names
    digest: str  # SHA-256 in hex over names and digests


def list_folder(root: Path) -> PictureFolder:
    """The pictures below a folder, by their endings; hidden ones are left out. Raises SourceError if there is none."""
    if not root.is_dir():
        raise SourceError(f"there is no folder {root}. Give --data a folder of equal pictures.")
    found = list_files(root, suffixes=SUFFIX_FORMATS.keys())
    names = sorted((name for name in found.names if name not in found.outside), key=os.fsencode)
    if not names:
        kinds = ", ".join(sorted(SUFFIX_FORMATS))
        raise SourceError(f"no pictures ({kinds}) below {root}. Give --data a folder of equal pictures.")
    return PictureFolder(root, tuple(names), tuple(sorted(found.outside, key=os.fsencode)))


def check_folder(
    folder: PictureFolder, sides: tuple[int, int], workers: int, report: Report | None = None
) -> CheckedFolder:
    """Read every picture to its last byte, and see that each can be reduced to `sides` = (height, width).

    The digest is what `sha256sum -z` prints of the names in their order, hashed once more. workers: threads.
    Raises SourceError that names the unfit pictures, the first 20 of them, each with its reason.
    """
    digests: list[bytes] = []
    unfit: list[str] = []
    hasher = hashlib.sha256()
    with ThreadPoolExecutor(workers, thread_name_prefix="check") as pool:
        try:
            checked = _map_ahead(pool, partial(_check, folder.root, sides), folder.names, ahead=4 * workers)
            for name, (digest, reason) in zip(folder.names, checked, strict=True):
                digests.append(digest)
                hasher.update(digest.hex().encode() + b"  " + os.fsencode(name) + b"\0")
                if reason:
                    unfit.append(f"{readable_name(name)}: {reason}")
                if report is not None:
                    report(len(digests), len(folder.names))
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C need not wait for the rest
    if unfit:
        raise SourceError(_say_unfit(folder, sides, unfit))
    return CheckedFolder(folder, tuple(digests), hasher.hexdigest())


def read_picture_file(root: Path, name: str) -> bytes:
    """A picture's bytes. Raises SourceError for a file that is gone or too large to be read."""
    path = root / name
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise SourceError(f"{size} bytes; files over {MAX_BYTES} are not read")
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror or error}") from error


def _map_ahead(
    pool: ThreadPoolExecutor, check: Callable[[str], tuple[bytes, str]], names: Sequence[str], ahead: int
) -> Iterator[tuple[bytes, str]]:
    """What `check` says of each name, in their order. `pool.map` would begin a million of them at once."""
    begun: deque[Future[tuple[bytes, str]]] = deque()
    for name in names:
        begun.append(pool.submit(check, name))
        if len(begun) > ahead:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


def _check(root: Path, sides: tuple[int, int], name: str) -> tuple[bytes, str]:
    """The digest of a file, and why it cannot be trained on; "" when it can."""
    try:
        data = read_picture_file(root, name)
    except SourceError as error:
        return bytes(32), str(error)
    digest = bytes.fromhex(digest_bytes(data))
    try:
        rgb = decode_picture(data).rgb
    except UnreadablePictureError as error:
        return digest, str(error)
    return digest, _misfit(rgb.shape[1], rgb.shape[0], sides)


def _misfit(width: int, height: int, sides: tuple[int, int]) -> str:
    """Why a picture cannot be reduced to (height, width) = `sides` with its aspect kept exactly; "" when it can."""
    if width * sides[0] != height * sides[1]:
        return f"{width}x{height}: {'not square' if sides[0] == sides[1] else 'another aspect'}"
    return f"{width}x{height}: too small" if width < sides[1] else ""


def _say_unfit(folder: PictureFolder, sides: tuple[int, int], unfit: Sequence[str]) -> str:
    listed = "\n".join(f"  {line}" for line in unfit[:NAMED])
    more = f"\n  … and {len(unfit) - NAMED} more" if len(unfit) > NAMED else ""
    return (
        f"{len(unfit)} of {len(folder.names)} pictures of {folder.root} cannot be trained on at "
        f"{sides[1]}x{sides[0]}:\n{listed}{more}\n"
        "Take them out of the folder, mend them, or train at another --resolution: pictures are reduced, never "
        "enlarged or cut. `kaobako upscale` enlarges; `kaobako curate` cuts, cleans and makes a version."
    )
