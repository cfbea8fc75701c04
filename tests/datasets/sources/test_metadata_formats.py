"""Metadata in every packing: what is sound in it is read, what is not is told, and nothing fills memory or disk."""

from __future__ import annotations

import io
import lzma
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from datasets.sources.config import Problem, SourceConfig
from datasets.sources.danbooru import blocks, rows, tar
from datasets.sources.danbooru.blocks import Cut, cut_file
from datasets.sources.read import digest_posts, read_posts

Pack = Callable[[bytes], bytes]
PACKINGS = ("plain", "gz", "xz", "bz2", "zst")


def make_tar(members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=form) as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return sink.getvalue()


def by_problem(table: pa.Table) -> dict[str, str]:
    """problem_detail -> problem of the rows that tell of a line or a file of metadata."""
    rows = table.filter(pa.compute.starts_with(table["post_id"], "line-")).to_pylist()
    return {row["problem_detail"]: row["problem"] for row in rows}


# ---- packings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_tar", [False, True])
@pytest.mark.parametrize("pack", PACKINGS)
@pytest.mark.usefixtures("small_blocks")
def test_every_packing_gives_the_same_posts(
    source: Callable[..., SourceConfig],
    pack: str,
    in_tar: bool,
    make_lines: Callable[..., list[bytes]],
    packs: dict[str, Pack],
) -> None:
    lines = make_lines(150)
    lines[40] = b"broken"
    lines[70] = lines[3]
    expected = read_posts(source({"posts.json": b"\n".join(lines)}))
    data = b"\n".join(lines)
    if in_tar:
        halves = b"\n".join(lines[:100]), b"\n".join(lines[100:]) + b"\n"
        data = make_tar({"metadata/a.json": halves[0], "metadata/b.json": halves[1]})
    found = read_posts(source({"posts.any": packs[pack](data)}))
    assert digest_posts(found) == digest_posts(expected)
    place = "metadata/posts.any/metadata/a.json:41" if in_tar else "metadata/posts.any:41"
    assert [detail.rpartition(": ")[0].startswith(place) for detail in by_problem(found)] == [True]
    assert len(found) == 150


@pytest.mark.parametrize("pack", [name for name in PACKINGS if name != "plain"])
def test_several_packed_parts_behind_each_other_are_one_file(
    source: Callable[..., SourceConfig], pack: str, make_lines: Callable[..., list[bytes]], packs: dict[str, Pack]
) -> None:
    parts = [b"\n".join(make_lines(20, first)) + b"\n" for first in (1, 21, 41)]
    packed = b"".join(packs[pack](part) for part in parts)
    assert len(read_posts(source({"posts.any": packed}))) == 60
    if pack == "zst":
        skipped = b"\x50\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"
        assert len(read_posts(source({"posts.any": skipped + packed + skipped}))) == 60
    if pack == "xz":
        assert len(read_posts(source({"posts.any": packed[:-8] + packed[-8:] + bytes(8)}))) == 60


@pytest.mark.parametrize("in_tar", [False, True])
@pytest.mark.parametrize("pack", [name for name in PACKINGS if name != "plain"])
@pytest.mark.usefixtures("small_blocks")
def test_a_truncated_archive_keeps_the_rows_before_and_says_so(
    source: Callable[..., SourceConfig],
    pack: str,
    in_tar: bool,
    make_lines: Callable[..., list[bytes]],
    packs: dict[str, Pack],
) -> None:
    data = b"\n".join(make_lines(4000)) + b"\n"
    packed = packs[pack](make_tar({"a.json": data}) if in_tar else data)
    found = read_posts(source({"posts.any": packed[: len(packed) * 2 // 3]}))
    sound = found.filter(pa.compute.equal(found["problem"], "missing_file"))
    assert 0 < len(sound) < 4000 or pack == "bz2"  # bzip2 packs it all in one
    assert sorted(sound["post_id"].to_pylist(), key=int) == [str(k) for k in range(1, len(sound) + 1)]
    assert len(found) == len(sound) + 1  # and the half line behind them is no broken row
    ((detail, problem),) = by_problem(found).items()
    assert problem == Problem.BROKEN_ROW
    assert detail.startswith("metadata/posts.any: ") and "ends early" in detail


@pytest.mark.parametrize("pack", ["gz", "xz", "bz2"])  # zstd has a checksum only where its writer asked for it
def test_a_damaged_packing_is_told(
    source: Callable[..., SourceConfig], pack: str, make_lines: Callable[..., list[bytes]], packs: dict[str, Pack]
) -> None:
    packed = bytearray(packs[pack](b"\n".join(make_lines(50))))
    packed[len(packed) // 2] ^= 0x55
    assert any("is damaged" in detail for detail in by_problem(read_posts(source({"posts.any": bytes(packed)}))))


@pytest.mark.parametrize("pack", PACKINGS)
def test_an_empty_file_holds_no_posts(source: Callable[..., SourceConfig], pack: str, packs: dict[str, Pack]) -> None:
    assert len(read_posts(source({"posts.any": packs[pack](b"")}))) == 0


@pytest.mark.parametrize("cut", [512 + 100, 512 + 40_000, -1024, -1])
def test_a_truncated_tar_is_told(
    source: Callable[..., SourceConfig], cut: int, make_lines: Callable[..., list[bytes]]
) -> None:
    archive = make_tar({"a.json": b"\n".join(make_lines(200)) + b"\n", "b.json": b"\n".join(make_lines(200, 201))})
    end = archive.rstrip(b"\0")
    archive = archive[: len(end) + (-len(end)) % 512 + 1024]  # without the filling behind the end
    found = read_posts(source({"posts.tar": archive[:cut] if cut > 0 else archive[: len(archive) + cut]}))
    assert len(by_problem(found)) == (1 if cut != -1 else 0)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_in_a_tar_go_nowhere(
    source: Callable[..., SourceConfig], tmp_path: Path, form: int, make_lines: Callable[..., list[bytes]]
) -> None:
    one = [line + b"\n" for line in make_lines(6)]
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=form) as archive:
        names = [
            "../../escape.json",
            "/etc/absolute.json",
            "a" * 80 + "/" + "b" * 99,
            "新.json",
            ".hidden",
            "x/._y.json",
        ]
        for name, line in zip(names, one, strict=True):
            entry = tarfile.TarInfo(name)
            entry.size = len(line)
            archive.addfile(entry, io.BytesIO(line))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE):
            entry = tarfile.TarInfo("link")
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
        broken = tarfile.TarInfo("../last.json")
        broken.size = 7
        archive.addfile(broken, io.BytesIO(b"broken\n"))
    before = sorted(path for path in tmp_path.rglob("*") if "dump" not in path.parts)
    config = source({"posts.tar": sink.getvalue()})
    found = read_posts(config)
    assert [name for name in found["post_id"].to_pylist() if name.isdigit()] == ["1", "2", "3", "4"]
    assert list(by_problem(found)) == ["metadata/posts.tar/../last.json:1: Expecting value: line 1 column 1 (char 0)"]
    assert sorted(path for path in tmp_path.rglob("*") if "dump" not in path.parts) == before
    assert sorted(path.name for path in config.root.rglob("*")) == ["metadata", "posts.tar"]


def test_a_tar_whose_headers_lie_is_told_and_fills_no_memory(
    source: Callable[..., SourceConfig], make_lines: Callable[..., list[bytes]]
) -> None:
    line = make_lines(1)[0] + b"\n"
    for kind, size in ((b"x", 1 << 40), (b"L", 1 << 40), (b"0", 1 << 40), (b"0", (1 << 63) + 5)):
        sound = make_tar({"a.json": line}, tarfile.USTAR_FORMAT)[:1024]
        header = bytearray(make_tar({"b.json": line}, tarfile.USTAR_FORMAT)[:512])
        header[124:136] = b"\x80" + size.to_bytes(11, "big")
        header[156:157] = kind
        header[148:156] = b" " * 8
        header[148:156] = f"{sum(header):06o}\0 ".encode()
        found = read_posts(source({"posts.tar": sound + bytes(header) + line * 100}))
        assert "1" in found["post_id"].to_pylist()
        assert any("tar archive" in detail for detail in by_problem(found))


@pytest.mark.usefixtures("small_blocks")
def test_a_bomb_of_one_endless_line_is_one_broken_row(
    source: Callable[..., SourceConfig], make_lines: Callable[..., list[bytes]], packs: dict[str, Pack]
) -> None:
    first, last = make_lines(2)
    bomb = b"\n".join([first, b"x" * 300_000, last]) + b"\n"
    for pack in packs.values():
        found = read_posts(source({"posts.any": pack(bomb)}))
        assert by_problem(found) == {"metadata/posts.any:2: the line is longer than 2000 bytes": Problem.BROKEN_ROW}
        assert len(found) == 3


@pytest.mark.parametrize("pack", ["gz", "xz", "bz2", "zst"])
def test_what_unpacks_without_end_is_given_up(
    source: Callable[..., SourceConfig],
    monkeypatch: pytest.MonkeyPatch,
    pack: str,
    make_lines: Callable[..., list[bytes]],
    packs: dict[str, Pack],
) -> None:
    monkeypatch.setattr(blocks, "_HARMLESS", 1 << 20)
    data = b"\n".join(make_lines(5)) + b"\n" + bytes(40 << 20)
    found = read_posts(source({"posts.any": packs[pack](data)}))
    assert [name for name in found["post_id"].to_pylist() if name.isdigit()] == ["1", "2", "3", "4", "5"]
    assert any("unpacks to more than" in detail for detail in by_problem(found))


def test_an_xz_that_asks_for_too_much_memory_is_told(
    source: Callable[..., SourceConfig], monkeypatch: pytest.MonkeyPatch, make_lines: Callable[..., list[bytes]]
) -> None:
    monkeypatch.setattr(blocks, "_XZ_MEMORY", 1 << 20)
    assert "emory" in next(iter(by_problem(read_posts(source({"posts.xz": lzma.compress(make_lines(1)[0])})))))


# ---- blocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", PACKINGS)
@pytest.mark.parametrize("size", [16, 33, 100, 1000])
def test_blocks_hold_every_line_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: str, size: int, packs: dict[str, Pack]
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 12)
    noise = random.Random(size)
    lines = [b"x" * noise.choice((0, 0, 1, 5, 11, 12, 13, 14, 40, 300)) for _ in range(200)]
    lines.append(b"last")
    path = tmp_path / "lines"
    path.write_bytes(packs[pack](b"\n".join(lines)))
    found = list(cut_file(path, Cut()))
    assert [block.index for block in found] == list(range(len(found)))
    if pack == "plain":
        assert all(len(block.read()) <= size + 13 for block in found)
    texts = [text for block in found for text in block.read().removesuffix(b"\n").split(b"\n")]
    assert [text[:13] for text in texts] == [line[:13] for line in lines]


def test_a_tar_is_known_by_its_header() -> None:
    archive = make_tar({"a.json": b"{}"})
    assert tar.is_tar(archive[:512])
    assert not tar.is_tar(archive[:511])
    assert not tar.is_tar(bytes(512))
    assert not tar.is_tar(b"{" * 512)
