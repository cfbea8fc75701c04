"""A ZIP of stored members that grows by appending and can be taken up again after a kill.

Python's zipfile keeps its directory in memory until the end and cannot go on without it. Here every member's own header
says all that the directory needs, so an archive without one is read back by stepping from header to header. Times are
fixed, so equal members give equal archives.
"""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO, NamedTuple

from datasets.exports.plan import ExportError

LIMIT_16 = 0xFFFF  # entries; beyond, and at the limit, ZIP64 records are written
LIMIT_32 = 0xFFFFFFFF  # bytes
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_DATE = (0 << 9) | (1 << 5) | 1  # 1 January 1980, midnight: the format's first moment
_UNIX = 3 << 8
_MODE = 0o100644 << 16
_PLAIN, _ZIP64 = 20, 45  # version needed to extract


class Member(NamedTuple):
    """A stored member: ASCII name, CRC-32 and length of its bytes, where its header begins."""

    name: str
    crc: int
    size: int
    offset: int


class StoredZip:
    """An archive that is being written to a binary stream, at its end."""

    def __init__(self, stream: BinaryIO) -> None:
        """stream: readable, writable; what it holds up to its position are whole members.

        Raises ExportError when they are not.
        """
        self._stream = stream
        end = stream.tell()
        self.members = _walk(stream, end)
        stream.seek(end)

    def add(self, name: str, data: bytes) -> None:
        """Append a member. name: ASCII, "/" between folders. data: shorter than 4 GiB."""
        if len(data) >= LIMIT_32:
            raise ExportError(f"{name} has {len(data)} bytes: a stored member may have 4 GiB at most")
        member = Member(name, zlib.crc32(data), len(data), self._stream.tell())
        path = name.encode("ascii")
        self._stream.write(
            _LOCAL.pack(b"PK\3\4", _PLAIN, 0, 0, 0, _DATE, member.crc, len(data), len(data), len(path), 0)
        )
        self._stream.write(path)
        self._stream.write(data)
        self.members.append(member)

    def finish(self, comment: bytes) -> None:
        """Write the directory. comment: at most 65535 bytes."""
        start = self._stream.tell()
        for member in self.members:
            self._stream.write(_central_entry(member))
        size, count = self._stream.tell() - start, len(self.members)
        if count >= LIMIT_16 or size >= LIMIT_32 or start >= LIMIT_32:
            at = self._stream.tell()
            record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, _UNIX | _ZIP64, _ZIP64, 0, 0, count, count, size, start)
            self._stream.write(record + struct.pack("<4sIQI", b"PK\6\7", 0, at, 1))
        counts = (min(count, LIMIT_16), min(count, LIMIT_16))
        places = (min(size, LIMIT_32), min(start, LIMIT_32))
        self._stream.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, *counts, *places, len(comment)) + comment)


def _central_entry(member: Member) -> bytes:
    far = member.offset >= LIMIT_32
    extra = struct.pack("<2HQ", 1, 8, member.offset) if far else b""
    needed = _ZIP64 if far else _PLAIN
    name = member.name.encode("ascii")
    fields = (needed, 0, 0, 0, _DATE, member.crc, member.size, member.size, len(name), len(extra), 0, 0, 0, _MODE)
    entry = _CENTRAL.pack(b"PK\1\2", _UNIX | needed, *fields, LIMIT_32 if far else member.offset)
    return entry + name + extra


def _walk(stream: BinaryIO, end: int) -> list[Member]:
    """The members in the first `end` bytes, by their own headers."""
    members = []
    offset = 0
    while offset < end:
        stream.seek(offset)
        header = stream.read(_LOCAL.size)
        if len(header) < _LOCAL.size or header[:4] != b"PK\3\4":
            raise ExportError(f"the unfinished zip is damaged at byte {offset}. Delete it and export again.")
        crc, size, _, name_length, extra_length = _LOCAL.unpack(header)[6:]
        name = stream.read(name_length).decode("ascii", errors="replace")
        members.append(Member(name, crc, size, offset))
        offset += _LOCAL.size + name_length + extra_length + size
    if offset != end:
        raise ExportError(f"the unfinished zip is damaged: its last member ends at {offset}, not {end}. Delete it.")
    return members
