"""Converting metadata: once, in pieces, however often it is killed, and never into a wrong table."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets import chunks
from datasets.errors import SourceError
from datasets.schema import POSTS
from datasets.sources.config import SourceConfig
from datasets.sources.danbooru import blocks, convert, rows
from datasets.sources.danbooru.convert import END, convert_files, file_folder, read_files
from datasets.sources.read import digest_posts, read_posts, read_source

Pack = Callable[[bytes], bytes]
ROOT = Path(__file__).parents[3]


# ---- the cache -------------------------------------------------------------------------------------------------------


def pieces_of(cache: Path) -> dict[str, int]:
    return {str(path.relative_to(cache)): path.stat().st_ino for path in sorted(cache.rglob("*.parquet"))}


def test_an_added_file_converts_only_itself(
    source: Callable[..., SourceConfig], tmp_path: Path, make_lines: Callable[..., list[bytes]]
) -> None:
    cache = tmp_path / "cache"
    config = source({"a.json": b"\n".join(make_lines(10)), "b.json": b"\n".join(make_lines(10, 11))})
    told: list[tuple[str, int, int]] = []
    read_source(config, cache=cache, told=lambda *said: told.append(said))
    before = pieces_of(cache)
    assert len(before) == 4
    assert {name for name, _, _ in told} == {"metadata/a.json", "metadata/b.json"}
    assert all(0 < done <= total for _, done, total in told)
    (config.root / "metadata" / "c.json").write_bytes(b"\n".join(make_lines(10, 21)))
    told.clear()
    assert len(read_source(config, cache=cache, told=lambda *said: told.append(said)).posts) == 30
    assert {name for name, _, _ in told} == {"metadata/c.json"}
    assert before.items() <= pieces_of(cache).items() and len(pieces_of(cache)) == 6


def test_no_setting_of_the_source_converts_anew(
    source: Callable[..., SourceConfig], tmp_path: Path, make_lines: Callable[..., list[bytes]]
) -> None:
    config = source({"a.json": b"\n".join(make_lines(10))})
    read_posts(config, cache=tmp_path / "cache")
    before = pieces_of(tmp_path / "cache")
    for changed in ({"rating_vintage": "s-is-sensitive"}, {"modulus": 10}, {"layout": "{md5}.{ext}"}, {"digits": 2}):
        table = read_posts(config.model_copy(update=changed), cache=tmp_path / "cache")
        assert table.equals(read_posts(config.model_copy(update=changed)))
    assert pieces_of(tmp_path / "cache") == before


def test_another_converter_converts_anew(
    source: Callable[..., SourceConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_lines: Callable[..., list[bytes]],
) -> None:
    config = source({"a.json": b"\n".join(make_lines(10))})
    read_posts(config, cache=tmp_path)
    path = config.root / "metadata" / "a.json"
    first = file_folder(tmp_path, path)
    monkeypatch.setattr(convert, "CONVERTER", convert.CONVERTER + 1)
    assert file_folder(tmp_path, path) != first


def test_a_damaged_or_deleted_piece_is_converted_again(
    source: Callable[..., SourceConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_lines: Callable[..., list[bytes]],
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 4000)
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 2000)
    cache = tmp_path / "cache"
    config = source({"a.json": b"\n".join(make_lines(60))})
    expected = read_posts(config, cache=cache)
    folder = file_folder(cache, config.root / "metadata" / "a.json")
    assert len(list(folder.iterdir())) > 3
    for name in ("000001.parquet", END):
        whole = (folder / name).read_bytes()
        for damage in (b"", whole[:-20], whole[:40] + bytes(60) + whole[100:], b"PAR1" + bytes(100) + b"PAR1"):
            (folder / name).write_bytes(damage)
            assert read_posts(config, cache=cache).equals(expected)
        (folder / name).unlink()
        assert read_posts(config, cache=cache).equals(expected)
    pq.write_table(pa.table({"x": [1]}), folder / "000000.parquet")
    assert read_posts(config, cache=cache).equals(expected)


def test_a_flipped_bit_in_a_note_never_makes_sensitive_safe(
    source: Callable[..., SourceConfig], tmp_path: Path, make_lines: Callable[..., list[bytes]]
) -> None:
    """The footer of Parquet has no checksum; it says whether s is safe. Every byte of the notes is damaged here."""
    cache = tmp_path / "cache"
    config = source({"a.json": make_lines(3)[0] + b'\n{"id": 2, "rating": "g", "file_ext": "png"}\n'})
    expected = read_posts(config, cache=cache)
    folder = file_folder(cache, config.root / "metadata" / "a.json")
    for name in ("000000.parquet", END):
        whole = (folder / name).read_bytes()
        begin = whole.index(b"kaobako")
        noise = random.Random(7)
        for place in [*range(begin, begin + 330), *noise.sample(range(begin + 330, len(whole)), 150)]:
            damaged = bytearray(whole)
            damaged[place] ^= 1 << noise.randrange(8)
            (folder / name).write_bytes(damaged)
            (found,) = read_files([("a.json", config.root / "metadata" / "a.json")], cache)
            assert (found.evidence.newer, found.problem, len(found.tables)) == (1, None, 1)
        (folder / name).write_bytes(whole[:begin] + b"kaobakO" + whole[begin + 7 :])
        assert read_posts(config, cache=cache).equals(expected)


def test_a_file_that_grows_while_it_is_read_is_not_kept(
    source: Callable[..., SourceConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_lines: Callable[..., list[bytes]],
) -> None:
    config = source({"a.json": b"\n".join(make_lines(10)) + b"\n"})
    path = config.root / "metadata" / "a.json"
    real = convert.convert_block

    def grow(*arguments: Any) -> None:
        real(*arguments)
        with path.open("ab") as stream:
            stream.write(make_lines(1, 99)[0])

    monkeypatch.setattr(convert, "convert_block", grow)
    with pytest.raises(SourceError, match=r"a\.json was changed"):
        read_posts(config, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob(END))
    monkeypatch.undo()
    assert "99" in read_posts(config, cache=tmp_path / "cache")["post_id"].to_pylist()


CHILD = """
import sys, time
from pathlib import Path
from datasets.sources.danbooru import blocks, convert, rows
blocks.BLOCK_BYTES, rows.MAX_LINE_BYTES = 20_000, 2_000
convert._WORTH_PROCESSES = 0 if sys.argv[3] == "2" else 1 << 60
def told(name, done, total):
    print(done, flush=True)
    time.sleep(0.05)
if __name__ == "__main__":
    path = Path(sys.argv[1])
    convert.convert_files([("a.json", path)], Path(sys.argv[2]), told, int(sys.argv[3]))
"""


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("pack", ["plain", "gz"])
def test_a_killed_conversion_goes_on_where_it_was(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pack: str,
    processes: int,
    make_lines: Callable[..., list[bytes]],
    packs: dict[str, Pack],
) -> None:
    path, cache, script = tmp_path / "a.json", tmp_path / "cache", tmp_path / "child.py"
    path.write_bytes(packs[pack](b"\n".join(make_lines(3000))))
    script.write_text(CHILD)
    command = [sys.executable, str(script), str(path), str(cache), str(processes)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, start_new_session=True) as child:
        assert child.stdout is not None
        for _ in range(8):
            child.stdout.readline()
        workers = [int(pid) for pid in list_children(child.pid)]
        assert len(workers) >= (2 if processes == 2 else 0)
        child.send_signal(signal.SIGKILL)
    left = {name: inode for name, inode in pieces_of(cache).items() if END not in name}
    assert 0 < len(left) < 30 and not list(cache.rglob(END))
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers):  # they must not outlive who started them
        assert time.monotonic() < deadline
        time.sleep(0.02)
    left = {name: inode for name, inode in pieces_of(cache).items() if END not in name}
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 20_000)
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 2_000)
    (found,) = read_files([("a.json", path)], cache)
    assert left.items() <= pieces_of(cache).items()  # not written again
    (expected,) = read_files([("a.json", path)], tmp_path / "fresh")
    assert pa.concat_tables(found.tables).equals(pa.concat_tables(expected.tables))
    assert sum(map(len, found.tables)) == 3000


def list_children(pid: int) -> list[str]:
    """The processes that a process has started."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_processes_and_one_process_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_lines: Callable[..., list[bytes]], packs: dict[str, Pack]
) -> None:
    monkeypatch.setattr(convert, "_WORTH_PROCESSES", 0)
    for name, pack in packs.items():
        (tmp_path / name).write_bytes(pack(b"\n".join(make_lines(200))))
    files = [(name, tmp_path / name) for name in packs]
    convert_files(files, tmp_path / "two", processes=2)
    convert_files(files, tmp_path / "one", processes=1)
    for two, one in zip(read_files(files, tmp_path / "two"), read_files(files, tmp_path / "one"), strict=True):
        assert pa.concat_tables(two.tables).equals(pa.concat_tables(one.tables))
        assert (two.evidence, two.where, two.problem) == (one.evidence, one.where, one.problem)


# ---- posts -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_blocks")
def test_the_same_posts_however_the_lines_are_split(
    source: Callable[..., SourceConfig], make_lines: Callable[..., list[bytes]]
) -> None:
    lines = make_lines(90)
    lines[10], lines[20], lines[50], lines[60] = b"broken", b"{}", b"broken", lines[0]
    whole = read_posts(source({"a.json": b"\n".join(lines)}))
    names = whole["post_id"].to_pylist()
    assert names == sorted(names) and len(set(names)) == 90
    assert sum(name.startswith("line-") for name in names) == 3 and "1~2" in names
    for cuts in ((1, 45), (10, 11), (20, 60)):
        parts = (lines[: cuts[0]], lines[cuts[0] : cuts[1]], lines[cuts[1] :])
        files = {f"{k}.json": b"\n".join(part) + b"\n" for k, part in enumerate(parts)}
        split = read_posts(source(files))
        assert split.drop_columns("problem_detail").equals(whole.drop_columns("problem_detail"))
        assert digest_posts(split) == digest_posts(whole)


def test_a_line_put_in_renames_no_other(
    source: Callable[..., SourceConfig], make_lines: Callable[..., list[bytes]]
) -> None:
    lines = [*make_lines(5), b"broken", b'{"rating": "s"}', b"broken", b"broken too"]
    before = by_name(read_posts(source({"a.json": b"\n".join(lines)})))
    after = by_name(read_posts(source({"a.json": b"\n".join([make_lines(1, 77)[0], b"new", *lines])})))
    assert before.items() <= after.items()
    assert len(after) == len(before) + 2


def by_name(table: pa.Table) -> dict[str, str | None]:
    return dict(zip(table["post_id"].to_pylist(), table["problem"].to_pylist(), strict=True))


def test_posts_stay_in_chunks_of_bounded_size(
    source: Callable[..., SourceConfig], monkeypatch: pytest.MonkeyPatch, make_lines: Callable[..., list[bytes]]
) -> None:
    config = source({f"{k}.json": b"\n".join(make_lines(100, 1 + 100 * k)) for k in range(3)})
    expected = read_posts(config)
    assert expected["tags"].num_chunks == 1
    joined = {row["post_id"]: row for row in expected.to_pylist()}
    for rows_most, bytes_most in ((7, 1 << 28), (1 << 17, 2000), (1 << 17, 10)):
        monkeypatch.setattr(chunks, "CHUNK_ROWS", rows_most)
        monkeypatch.setattr(chunks, "CHUNK_BYTES", bytes_most)
        found = read_posts(config)
        assert found.schema == POSTS
        assert found["post_id"].to_pylist() == sorted(joined)
        assert all(row == joined[row["post_id"]] for row in found.to_pylist())
        assert found["tags"].num_chunks > 3
        for chunk in found.to_batches():
            texts = [str(value) for row in chunk.to_pylist() for value in row.values() if isinstance(value, str)]
            texts += [tag for tags in chunk["tags"].to_pylist() for tag in tags]
            assert len(chunk) <= rows_most
            assert len(chunk) == 1 or sum(len(text.encode()) for text in texts) <= bytes_most
        assert chunks.sort_in_chunks(found, ["post_id"]) is found
        assert chunks.sort_in_chunks(found, ["score", "post_id"]).equals(
            expected.sort_by([("score", "ascending"), ("post_id", "ascending")])
        )


def test_rows_with_codes_are_gathered_with_one_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables bring dictionaries of their own; too much text for one dictionary goes the way of plain text."""
    kind = POSTS.field("tags").type
    lists = [[["b", "a"], None], [], [[], ["c", "a"], ["é"]], [["a", "b"]], [["c", None]]]
    tables = [pa.table({"tags": pa.array(rows, kind), "n": pa.array(range(len(rows)), pa.int64())}) for rows in lists]
    flat = [(tags, number) for rows in lists for number, tags in enumerate(rows)]
    for most, joined in ((1 << 17, 1 << 30), (2, 1 << 30), (2, 1), (4, 1)):
        monkeypatch.setattr(chunks, "CHUNK_ROWS", most)
        monkeypatch.setattr(chunks, "JOINED_BYTES", joined)
        for order in ([6, 0, 3, 2, 5, 1, 4], list(range(7)), [4, 5, 6], [5, 4]):
            found = [chunks.gather(list(tables), np.array(order))]
            with monkeypatch.context() as patch:
                patch.setattr(chunks, "_share_dictionaries", chunks._decode)
                found.append(chunks.gather(list(tables), np.array(order)))
            for table in found:
                assert table.schema.field("tags").type == kind
                rows = [(row["tags"], row["n"]) for row in table.to_pylist()]
                assert rows == [flat[place] for place in order]
                assert max(len(chunk) for chunk in table["tags"].chunks) <= most
            dictionaries = [chunk.values.dictionary.to_pylist() for chunk in found[0]["tags"].chunks]
            assert dictionaries == [["b", "a", "c", "é"]] * len(dictionaries)


def test_gathering_takes_the_tables_over() -> None:
    tables = [pa.table({"n": [1, 2]}), pa.table({"n": [3]})]
    assert chunks.gather(tables, np.array([2, 0, 1]))["n"].to_pylist() == [3, 1, 2]
    assert tables == []


def test_tags_are_read_with_codes_and_are_the_same(
    source: Callable[..., SourceConfig], tmp_path: Path, make_lines: Callable[..., list[bytes]]
) -> None:
    config = source({f"{k}.json": b"\n".join(make_lines(20, 1 + 20 * k, k)) for k in range(3)})
    cache = tmp_path / "cache"
    posts = read_posts(config, cache=cache)
    assert posts.schema == POSTS
    pieces = [pq.read_table(path) for path in cache.rglob("0*.parquet")]
    assert all(piece.schema.field("tags").type == pa.list_(pa.string()) for piece in pieces)
    kept = {str(row["id"]): row["tags"] for piece in pieces for row in piece.to_pylist()}
    assert {row["post_id"]: row["tags"] for row in posts.to_pylist()} == kept
