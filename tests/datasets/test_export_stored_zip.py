"""The growing zip: what zipfile reads back, ZIP64 records, and going on after a cut."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from datasets.exports.plan import ExportError
from datasets.exports.stored_zip import StoredZip


def test_zipfile_reads_it() -> None:
    stream = io.BytesIO()
    archive = StoredZip(stream)
    for number in range(5):
        archive.add(f"00000/{number}.bin", bytes([number]) * number * 100)
    archive.finish(b"a comment")
    with zipfile.ZipFile(stream) as read:
        assert read.testzip() is None
        assert read.comment == b"a comment"
        assert read.namelist() == [f"00000/{number}.bin" for number in range(5)]
        assert read.read("00000/3.bin") == b"\3" * 300
        assert {info.compress_type for info in read.infolist()} == {zipfile.ZIP_STORED}
        assert {info.date_time for info in read.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_it_goes_on_after_its_last_whole_member() -> None:
    whole, cut = io.BytesIO(), io.BytesIO()
    archive = StoredZip(whole)
    for name in ("a", "b", "c"):
        archive.add(name, name.encode() * 50)
    archive.finish(b"")

    first = StoredZip(cut)
    first.add("a", b"a" * 50)
    again = StoredZip(cut)
    assert [member.name for member in again.members] == ["a"]
    again.add("b", b"b" * 50)
    again.add("c", b"c" * 50)
    again.finish(b"")
    assert cut.getvalue() == whole.getvalue()


@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: b"XX" + data[2:], lambda data: data + b"\0"])
def test_a_damaged_beginning_is_refused(spoil: object) -> None:
    stream = io.BytesIO()
    StoredZip(stream).add("a", b"a" * 50)
    spoiled = io.BytesIO(spoil(stream.getvalue()))  # type: ignore[operator]
    spoiled.seek(0, io.SEEK_END)
    with pytest.raises(ExportError, match="damaged"):
        StoredZip(spoiled)


def test_more_members_than_sixteen_bits_count() -> None:
    stream = io.BytesIO()
    archive = StoredZip(stream)
    for number in range(65_536):
        archive.add(f"{number}", b"")
    archive.finish(b"end")
    with zipfile.ZipFile(stream) as read:
        assert len(read.namelist()) == 65_536
        assert read.comment == b"end"


def test_members_beyond_four_gibibytes(tmp_path: Path) -> None:
    path = tmp_path / "large.zip"
    with path.open("w+b") as stream:
        archive = StoredZip(stream)
        archive.add("near", b"near")
        stream.seek(5 * 1024**3)  # a hole takes no room on the disk
        archive.add("far", b"far away")
        archive.finish(b"")
    with zipfile.ZipFile(path) as read:
        assert read.read("near") == b"near"
        assert read.read("far") == b"far away"
        assert read.getinfo("far").header_offset == 5 * 1024**3
