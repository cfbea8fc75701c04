"""Files of metadata as blocks of whole lines, whatever they are packed in, in bounded memory.

A plain file is cut by looking only for the line ends, so that its blocks can be read anywhere, at once. Packed files
(.gz, .xz, .zst, .bz2, tar archives, and tar archives in these) are told by their first bytes, not by their names, and
unpacked in one way through. How a file is cut depends on its bytes alone.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from datasets.sources.danbooru import rows
from datasets.sources.danbooru.tar import BLOCK as TAR_BLOCK
from datasets.sources.danbooru.tar import CutShortError, Read, is_tar, list_members

BLOCK_BYTES = 32 << 20  # of lines that are converted at once; above MAX_LINE_BYTES
_CHUNK = 1 << 18
_XZ_MEMORY = 1 << 28  # bytes that xz may ask for; its highest usual setting (-9) takes 65 MB
# Text of this kind packs about tenfold. Beyond these, an archive is taken for a bomb.
_USUAL_RATIO = 8
_MAX_RATIO = 250
_HARMLESS = 1 << 30  # bytes that anything may unpack to


@dataclass(frozen=True)
class Part:
    """Lines of a block that lie in the same file: from `first`, counted in the block from 0, on."""

    first: int
    member: str | None = None  # of a tar archive
    number: int = 1  # of the first line, in the file or the member


@dataclass(frozen=True)
class Block:
    """Whole lines of a file: where they lie, or the lines themselves."""

    index: int
    path: Path
    start: int = 0
    length: int = 0
    data: bytes | None = None  # of a packed file
    parts: tuple[Part, ...] = ()  # empty: of a plain file, whose lines nobody has counted yet

    def read(self) -> bytes:
        """The lines. Raises OSError."""
        if self.data is not None:
            return self.data
        with self.path.open("rb") as stream:
            stream.seek(self.start)
            return stream.read(self.length)


@dataclass
class Cut:
    """How far a file is cut, and why its end was not reached."""

    done: int = 0  # bytes of the file
    problem: str | None = None


def cut_file(path: Path, cut: Cut, wanted: Callable[[int], bool] = lambda index: True) -> Iterator[Block]:
    """The blocks of a file. cut: is kept up to date. wanted: blocks of other indices are left out.

    A file that is packed and damaged ends before the damage, at a line's end; cut.problem then says so.
    Raises OSError.
    """
    with path.open("rb") as stream:
        head = stream.read(TAR_BLOCK)
        stream.seek(0)
        unpack = _find_unpacker(head)
        if unpack is None and not is_tar(head):
            blocks: Iterator[Block] = _cut_plain(path, stream, cut)
        else:
            blocks = _cut_packed(path, stream, unpack, cut)
        for block in blocks:
            if wanted(block.index):
                yield block


def estimate_text(path: Path) -> int:
    """About how many bytes of lines a file holds. Raises OSError."""
    with path.open("rb") as stream:
        packed = _find_unpacker(stream.read(TAR_BLOCK)) is not None
    return path.stat().st_size * (_USUAL_RATIO if packed else 1)


def _cut_plain(path: Path, stream: BinaryIO, cut: Cut) -> Iterator[Block]:
    """Spans that end at line ends. Of a line beyond MAX_LINE_BYTES only the beginning lies in one."""
    size = stream.seek(0, 2)
    start = index = 0
    while start < size:
        end, resume = _find_line_end(stream, min(start + BLOCK_BYTES, size), size)
        cut.done = resume
        yield Block(index, path, start, end - start)
        start, index = resume, index + 1


def _find_line_end(stream: BinaryIO, position: int, size: int) -> tuple[int, int]:
    """Where the line ends in which the byte before `position` lies, and where the next one begins."""
    stream.seek(position - 1)
    here = position - 1
    while chunk := stream.read(_CHUNK):
        if (found := chunk.find(b"\n")) >= 0:
            resume = here + found + 1
            return min(resume, position + rows.MAX_LINE_BYTES + 1), resume
        here += len(chunk)
    return min(size, position + rows.MAX_LINE_BYTES + 1), size


def _find_unpacker(head: bytes) -> Callable[[BinaryIO], Read] | None:
    """How a file that begins like this is unpacked; None for one that is not packed."""
    for magic, unpack in _UNPACKERS.items():
        if head.startswith(magic):
            return unpack
    return None


def _unpack_gzip(stream: BinaryIO) -> Read:
    return gzip.GzipFile(fileobj=stream, mode="rb").read1


def _unpack_xz(stream: BinaryIO) -> Read:
    return _Xz(stream).read


def _unpack_bzip2(stream: BinaryIO) -> Read:
    return bz2.BZ2File(stream).read1


def _unpack_zstd(stream: BinaryIO) -> Read:
    """By Arrow, which reads several frames, and frames to be skipped, as one file."""
    unpacked = pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd")
    read: Read = unpacked.read
    return read


_UNPACKERS: dict[bytes, Callable[[BinaryIO], Read]] = {
    b"\x1f\x8b": _unpack_gzip,
    b"\xfd7zXZ\x00": _unpack_xz,
    b"BZh": _unpack_bzip2,
    b"\x28\xb5\x2f\xfd": _unpack_zstd,
    b"\x50\x2a\x4d\x18": _unpack_zstd,  # a frame to be skipped, as some packers write first
}


class _Xz:
    """Unpacks xz streams, one behind the other, as one file; unlike Python's LZMAFile with a limit on memory."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._one = lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY)

    def read(self, count: int) -> bytes:
        """At most `count` bytes. Raises EOFError, lzma.LZMAError."""
        while True:
            packed = b""
            if self._one.eof:
                packed = self._one.unused_data.lstrip(b"\0")  # streams are padded with zeros
                while not packed:
                    if not (more := self._stream.read(_CHUNK)):
                        return b""
                    packed = more.lstrip(b"\0")
                self._one = lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY)
            elif self._one.needs_input and not (packed := self._stream.read(_CHUNK)):
                raise EOFError("the xz stream is not complete")
            if data := self._one.decompress(packed, count):
                return data


class _Unpacked:
    """Unpacked bytes, with the packer's complaints as CutShortError, and no more of them than is sensible."""

    def __init__(self, stream: BinaryIO, unpack: Callable[[BinaryIO], Read] | None, cut: Cut) -> None:
        self._stream = stream
        self._read: Read = stream.read if unpack is None else unpack(stream)
        self._cut = cut
        self._given = 0

    def read(self, count: int) -> bytes:
        try:
            data = self._read(min(count, _CHUNK))
        except (EOFError, lzma.LZMAError, zlib.error, pa.ArrowException, OSError) as error:
            if getattr(error, "errno", None) is not None:  # the disk's complaint, not the packer's
                raise
            if "memory" in str(error).lower():
                raise CutShortError(
                    f"unpacking asks for too much memory ({error}): pack it with a smaller window"
                ) from error
            raise CutShortError(f"the archive ends early, or is damaged: {error}. Get the file anew") from error
        self._given += len(data)
        self._cut.done = self._stream.tell()
        if self._given > max(_HARMLESS, _MAX_RATIO * self._cut.done):
            raise CutShortError(f"it unpacks to more than {_MAX_RATIO} times its size: this is no metadata")
        return data


def _cut_packed(path: Path, stream: BinaryIO, unpack: Callable[[BinaryIO], Read] | None, cut: Cut) -> Iterator[Block]:
    unpacked = _Unpacked(stream, unpack, cut)
    cutter = _Cutter(path)
    try:
        for member, read in _list_texts(unpacked.read):
            yield from cutter.cut(member, read)
    except CutShortError as error:
        cut.problem = f"{error}. The rows before are kept"
        cutter.forget_half_line()
    yield from cutter.flush()


def _list_texts(read: Read) -> Iterator[tuple[str | None, Read]]:
    """The files in what was unpacked: those of a tar archive, or the one that it is."""
    head = b""
    while len(head) < TAR_BLOCK and (more := read(TAR_BLOCK - len(head))):
        head += more

    def read_all(count: int) -> bytes:
        nonlocal head
        if head:
            given, head = head[:count], head[count:]
            return given
        return read(count)

    if is_tar(head):
        yield from list_members(read_all)
    else:
        yield None, read_all


@dataclass
class _Cutter:
    """Gathers lines, of several members if they are small, until there is a block of them."""

    path: Path
    index: int = 0
    buffer: bytearray = field(default_factory=bytearray)
    parts: list[Part] = field(default_factory=list)

    def cut(self, member: str | None, read: Read) -> Iterator[Block]:
        """The blocks that fill up with the lines of this file."""
        self.parts.append(Part(self.buffer.count(b"\n"), member))
        while True:
            if len(self.buffer) >= BLOCK_BYTES:
                if end := self.buffer.rfind(b"\n") + 1:
                    yield self._take(end)
                else:
                    self._skip_line(read)
            elif data := read(BLOCK_BYTES - len(self.buffer)):
                self.buffer += data
            else:
                break
        if self.buffer and not self.buffer.endswith(b"\n"):
            self.buffer += b"\n"

    def flush(self) -> Iterator[Block]:
        if self.buffer:
            yield self._take(len(self.buffer))

    def forget_half_line(self) -> None:
        """The file ended in the middle of this line."""
        del self.buffer[self.buffer.rfind(b"\n") + 1 :]

    def _skip_line(self, read: Read) -> None:
        """Keep only so much of an endless line that it can be told to be one."""
        del self.buffer[rows.MAX_LINE_BYTES + 1 :]
        rest = b""
        while data := read(_CHUNK):
            _, end, rest = data.partition(b"\n")
            if end:
                break
        self.buffer += b"\n" + rest

    def _take(self, end: int) -> Block:
        data = bytes(memoryview(self.buffer)[:end])
        del self.buffer[:end]
        block = Block(self.index, self.path, data=data, parts=tuple(self.parts))
        last = self.parts[-1]
        lines = data.count(b"\n")
        self.parts = [Part(0, last.member, last.number + lines - last.first)]
        self.index += 1
        return block
