"""Lists of ids in text files, pinned by their content.

A recipe names a list by its file. What decides is the content, so a name is pinned as soon as it is read:
`good.txt` becomes `good.txt@sha256:3f9a…`, and that is what a version says it was made from. A pinned name is only good
for the very same content.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from datasets.errors import SourceError

MAX_BYTES = 512 * 1024 * 1024
_PINNED = re.compile(r"(?P<path>.+)@sha256:(?P<digest>[0-9a-f]{64})", re.DOTALL)


@dataclass(frozen=True)
class IdList:
    """The ids of a file: distinct and sorted.

    Attributes:
        name: the file's name with the digest of its content.
    """

    name: str
    ids: pa.StringArray


def pin_ids(name: str) -> str:
    """The name of an id list with the digest of its content: `good.txt@sha256:…`. Empty stays empty.

    Raises SourceError when the file cannot be read as a list of ids, or is another one than a pinned name says.
    """
    return read_ids(name).name if name else ""


def read_ids(name: str) -> IdList:
    """Read a list: one id per line, UTF-8; blank lines and lines that begin with `#` are skipped.

    name: a path, a relative one counts from the working directory; with or without a pin. Raises SourceError.
    """
    pinned = _PINNED.fullmatch(name)
    path = Path(pinned["path"] if pinned else name).expanduser()
    content = _read(path)
    digest = hashlib.sha256(content).hexdigest()
    if pinned and pinned["digest"] != digest:
        raise SourceError(
            f"the id list {path} is not the one that was named: its content has changed (sha256 "
            f"{pinned['digest'][:12]}… is {digest[:12]}… now). Bring the old file back, or name the list without "
            "@sha256:… to take the new one (`kaobako tune --against-file` compares without the version's own list)."
        )
    return IdList(f"{pinned['path'] if pinned else name}@sha256:{digest}", _parse(content, path))


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SourceError(f"the id list {path} is larger than {MAX_BYTES >> 20} MB: it is no list of ids")
        return path.read_bytes()
    except OSError as error:
        raise SourceError(
            f"the id list {path} cannot be read: {error.strerror}. It is a text file with one id per line; a relative "
            "path counts from the working directory."
        ) from error


def _parse(content: bytes, path: Path) -> pa.StringArray:
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise SourceError(f"the id list {path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    lines = pc.utf8_trim_whitespace(pc.split_pattern(pa.array([text], pa.string()), "\n").flatten())
    ids = pc.unique(lines.filter(pc.and_not(pc.not_equal(lines, ""), pc.starts_with(lines, "#"))))
    return ids.take(pc.sort_indices(ids))
