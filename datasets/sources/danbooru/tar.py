"""The regular files of a tar archive, read from a stream in one way through. Nothing is ever written to a disk.

Of the archive's own words only the sizes are believed, and only within bounds: Python's tarfile would read a header of
any size into memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

BLOCK = 512  # bytes: headers, and the padding of files
_MAX_HEADER_BYTES = 1 << 20  # of a long name or a table of attributes
_REGULAR = (b"0", b"\0", b"7")
_CHUNK = 1 << 18

Read = Callable[[int], bytes]  # read(n): at most n bytes, b"" at the end


class CutShortError(Exception):
    """A file ends before it should, or is damaged from here on; what came before is sound."""


def is_tar(head: bytes) -> bool:
    """Whether a file that begins with these (at least 512) bytes is a tar archive: its header's sum is right."""
    return len(head) >= BLOCK and any(head[:100]) and _sum_is_right(head[:BLOCK])


def list_members(read: Read) -> Iterator[tuple[str, Read]]:
    """Name and content of each regular file. A content must be read, as far as wanted, before the next is asked for.

    Hidden files are left out. Raises CutShortError.
    """
    long_name = long_size = None
    while True:
        header = read_fully(read, BLOCK)
        if len(header) == BLOCK and not any(header):
            while read(_CHUNK):  # so that a damaged packing is noticed behind the archive's end, too
                pass
            return
        if len(header) < BLOCK or not _sum_is_right(header):
            raise CutShortError("the tar archive ends early, or is damaged")
        kind = header[156:157]
        size = _number(header[124:136])
        if kind in (b"L", b"x", b"g", b"K"):
            words = _read_words(read, size)
            if kind == b"L":
                long_name = words.rstrip(b"\0")
            elif kind == b"x":
                found = dict(_attributes(words))
                long_name = found.get(b"path", long_name)
                long_size = _decimal(found[b"size"]) if b"size" in found else None
            continue
        if long_size is not None:
            size = long_size
        name = (long_name or _short_name(header)).decode("utf-8", "backslashreplace")
        member = _Member(read, size)
        if kind in _REGULAR and not name.rpartition("/")[2].startswith(".") and not name.endswith("/"):
            yield name, member.read
        member.skip()
        long_name = long_size = None


class _Member:
    """The content of one file in the archive."""

    def __init__(self, read: Read, size: int) -> None:
        self._read = read
        self._left = size
        self._padding = -size % BLOCK

    def read(self, count: int) -> bytes:
        """At most `count` bytes; b"" at the end. Raises CutShortError."""
        if not self._left:
            return b""
        data = self._read(min(count, self._left))
        if not data:
            raise CutShortError("the tar archive ends in the middle of a file")
        self._left -= len(data)
        return data

    def skip(self) -> None:
        """Go to the end of the file's last block."""
        while self.read(_CHUNK):
            pass
        read_fully(self._read, self._padding)


def read_fully(read: Read, count: int) -> bytes:
    """`count` bytes, or as many as there are."""
    parts = []
    while count and (part := read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _read_words(read: Read, size: int) -> bytes:
    if size > _MAX_HEADER_BYTES:
        raise CutShortError(f"the tar archive has a header of {size} bytes")
    words = read_fully(read, size)
    read_fully(read, -size % BLOCK)
    return words


def _sum_is_right(header: bytes) -> bool:
    """The header's bytes sum up to what it says, its own field counted as blanks."""
    try:
        said = int(header[148:156].strip(b" \0") or b"-1", 8)
    except ValueError:
        return False
    return said == sum(header) - sum(header[148:156]) + 8 * ord(" ")


def _number(field: bytes) -> int:
    """A size: octal digits, or big-endian with the top bit set for 8 GB and more. Raises CutShortError."""
    try:
        size = int.from_bytes(field[1:], "big") if field[0] == 0x80 else int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        size = -1
    return _within_bounds(size)


def _decimal(digits: bytes) -> int:
    return _within_bounds(int(digits) if digits.isdigit() and len(digits) < 20 else -1)


def _within_bounds(size: int) -> int:
    if not 0 <= size < 1 << 62:
        raise CutShortError("the tar archive has a file of impossible size")
    return size


def _attributes(words: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and values of an extended header: records of "length name=value\\n". Raises CutShortError."""
    while words:
        length, _, _ = words.partition(b" ")
        end = int(length) if length.isdigit() and len(length) < 10 else 0
        name, _, value = words[len(length) + 1 : max(end - 1, 0)].partition(b"=")
        if end <= len(length) + 1 or not name:
            raise CutShortError("the tar archive has a damaged header")
        yield name, value
        words = words[end:]


def _short_name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:262] == b"ustar" else b""
    return prefix + b"/" + name if prefix else name
