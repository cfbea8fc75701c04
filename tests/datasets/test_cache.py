"""The measurement cache: what was put in comes out, and a broken file costs time, not truth."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import datasets.cache
from datasets.cache import INPUT, MeasurementCache, first_of_each

SCHEMA = pa.schema(
    [pa.field(INPUT, pa.string(), nullable=False), ("value", pa.float64()), ("tags", pa.list_(pa.string()))]
)


@pytest.fixture
def cache(tmp_path: Path) -> MeasurementCache:
    return MeasurementCache(tmp_path / "cache" / "clean-1" / "key", SCHEMA)


def rows(*inputs: str, value: float = 0.0) -> pa.Table:
    return pa.Table.from_pylist([{INPUT: name, "value": value, "tags": [name]} for name in inputs], schema=SCHEMA)


def found(cache: MeasurementCache, *inputs: str) -> list[str]:
    names: list[str] = cache.lookup(pa.array(inputs, pa.string()))[INPUT].to_pylist()
    return names


def test_an_empty_cache_knows_nothing(cache: MeasurementCache) -> None:
    table = cache.lookup(pa.array(["a"], pa.string()))
    assert (len(table), table.schema) == (0, SCHEMA)


def test_lookup_gives_what_is_known_of_what_is_asked(cache: MeasurementCache) -> None:
    cache.add(rows("b", "a", value=1.5))
    cache.add(rows("d", "c"))
    assert found(cache, "d", "a", "x") == ["a", "d"]
    assert cache.lookup(pa.array(["a"], pa.string())).to_pylist() == [{INPUT: "a", "value": 1.5, "tags": ["a"]}]


def test_inputs_that_are_asked_twice_or_null_do_not_multiply_rows(cache: MeasurementCache) -> None:
    cache.add(rows("a", "b"))
    assert found(cache, "a", "a", None, "b") == ["a", "b"]  # type: ignore[arg-type]


def test_overlapping_files_give_one_row_per_input(cache: MeasurementCache) -> None:
    cache.add(rows("a", "b"))
    cache.add(rows("b", "c"))
    assert found(cache, "a", "b", "c") == ["a", "b", "c"]


def test_the_same_shard_again_is_the_same_file(cache: MeasurementCache) -> None:
    cache.add(rows("a", "b"))
    cache.add(rows("b", "a"))
    assert len(list(cache.folder.iterdir())) == 1


def test_nothing_to_add_makes_no_file(cache: MeasurementCache) -> None:
    cache.add(SCHEMA.empty_table())
    assert not cache.folder.exists()


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "bit", "other columns"])
def test_a_broken_file_counts_as_never_measured_and_is_removed(cache: MeasurementCache, damage: str) -> None:
    cache.add(rows("a", value=1.0))
    cache.add(rows("b", value=2.0))
    broken = next(p for p in cache.folder.iterdir() if pq.read_table(p)[INPUT].to_pylist() == ["a"])
    data = broken.read_bytes()
    if damage == "other columns":
        pq.write_table(pa.table({INPUT: [["a"]]}), broken)
    else:
        place = data.index(b"a", 4)  # in the first data page
        flipped = data[:place] + bytes([data[place] ^ 2]) + data[place + 1 :]
        broken.write_bytes({"empty": b"", "text": b"hello", "cut": data[:-20], "bit": flipped}[damage])
    assert found(cache, "a", "b", "c") == ["b"]
    assert not broken.exists()
    cache.add(rows("a", value=1.0))
    assert found(cache, "a", "b") == ["a", "b"]


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), pa.ArrowMemoryError("no memory")])
def test_a_file_that_cannot_be_read_just_now_is_an_error_and_not_thrown_away(
    cache: MeasurementCache, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Taken for never measured, a picture that was measured a moment ago would seem to have given nothing."""
    cache.add(rows("a"))

    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(pq, "ParquetFile", fail)
    with pytest.raises(type(error)):
        found(cache, "a")
    monkeypatch.undo()
    assert found(cache, "a") == ["a"]


def test_half_written_files_are_not_read(cache: MeasurementCache) -> None:
    cache.add(rows("a"))
    whole = next(cache.folder.iterdir())
    whole.with_name(f".{whole.name}.12345678.tmp").write_bytes(b"PAR1")
    assert found(cache, "a") == ["a"]


def test_threads_add_at_once(cache: MeasurementCache) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda k: cache.add(rows(f"{k:03d}", f"{k + 1:03d}")), range(40)))
    assert found(cache, *[f"{k:03d}" for k in range(50)]) == [f"{k:03d}" for k in range(41)]


def test_the_first_column_must_be_the_input(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="first column"):
        MeasurementCache(tmp_path, pa.schema([("value", pa.float64())]))


def test_first_of_each_keeps_the_first_row() -> None:
    table = pa.table({"key": ["b", "a", "b", "a"], "value": [1, 2, 3, 4]})
    assert first_of_each(table, "key").to_pylist() == [{"key": "a", "value": 2}, {"key": "b", "value": 1}]


# ---- merging ---------------------------------------------------------------------------------------------------------


def names(count: int, start: int = 0) -> list[str]:
    return [f"{k:05d}" for k in range(start, start + count)]


def fill(cache: MeasurementCache, files: int, each: int = 3) -> list[str]:
    """Files of `each` rows; row k's value is k."""
    inputs = names(files * each)
    for start in range(0, len(inputs), each):
        part = inputs[start : start + each]
        cache.add(pa.Table.from_pylist([{INPUT: n, "value": float(n), "tags": [n]} for n in part], schema=SCHEMA))
    return inputs


def files_of(cache: MeasurementCache) -> list[Path]:
    return sorted(cache.folder.glob("[!.]*.parquet"))


def test_merging_changes_no_look_up(cache: MeasurementCache) -> None:
    inputs = fill(cache, 20)
    before = cache.lookup(pa.array(inputs, pa.string()))
    assert cache.compact(max_files=19) == 20
    assert len(files_of(cache)) == 1
    assert cache.lookup(pa.array(inputs, pa.string())) == before
    assert pq.read_table(files_of(cache)[0])[INPUT].to_pylist() == inputs
    assert before["value"].to_pylist() == [float(name) for name in inputs]


def test_few_files_are_left_alone(cache: MeasurementCache) -> None:
    fill(cache, 20)
    before = files_of(cache)
    assert cache.compact(max_files=20) == 0
    assert files_of(cache) == before


def test_merged_files_are_bounded_and_full_ones_are_left_alone(cache: MeasurementCache) -> None:
    inputs = fill(cache, 20, each=4)
    cache.compact(max_files=2, max_rows=10)
    lengths = [pq.read_metadata(path).num_rows for path in files_of(cache)]
    assert (max(lengths), sum(lengths)) == (8, 80)
    full = {path: path.stat().st_ino for path in files_of(cache)}
    cache.add(rows("x"))
    cache.add(rows("y"))
    cache.add(rows("z"))
    assert cache.compact(max_files=2, max_rows=10) == 3
    assert {path: path.stat().st_ino for path in full} == full
    assert found(cache, *inputs, "x", "y", "z") == [*inputs, "x", "y", "z"]


def test_the_newest_row_counts_before_and_after_merging(cache: MeasurementCache) -> None:
    """As when a blob was lost, and measuring again with another library made another one."""
    cache.add(rows("a", "b", value=1.0))
    cache.add(rows("a", "c", value=2.0))
    os.utime(cache.folder / files_of(cache)[0].name, ns=(1, 1))
    values = dict(zip(*(cache.lookup(pa.array(["a"]))[n].to_pylist() for n in (INPUT, "value")), strict=True))
    assert cache.compact(max_files=1) == 2
    assert cache.lookup(pa.array(["a"]))["value"].to_pylist() == [values["a"]]
    cache.add(rows("a", value=3.0))
    assert cache.lookup(pa.array(["a"]))["value"].to_pylist() == [3.0]
    cache.compact(max_files=1)
    assert cache.lookup(pa.array(["a", "b", "c"]))["value"].to_pylist() == [3.0, 1.0, 2.0]


def test_broken_files_do_not_stop_a_merge(cache: MeasurementCache) -> None:
    fill(cache, 5)
    files_of(cache)[2].write_bytes(b"PAR1 not really")
    assert cache.compact(max_files=2) == 4
    assert len(found(cache, *names(15))) == 12


def test_a_failing_merge_loses_nothing(cache: MeasurementCache, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = fill(cache, 5)

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        cache.compact(max_files=2)
    monkeypatch.undo()
    assert len(files_of(cache)) == 5
    assert found(cache, *inputs) == inputs
    assert list(cache.folder.glob(".*")) == []


@pytest.mark.parametrize("moment", range(10))
def test_a_merge_in_the_middle_of_a_look_up(
    cache: MeasurementCache, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Five files are listed; before the n-th of the ten that are opened, somebody else merges them all."""
    inputs = fill(cache, 5)
    real, opened = pq.ParquetFile, 0

    def open_file(path: Path, **options: Any) -> Any:
        nonlocal opened
        opened += 1
        if opened == moment + 1:
            monkeypatch.setattr(pq, "ParquetFile", real)
            assert cache.compact(max_files=2) == 5
        return real(path, **options)

    monkeypatch.setattr(pq, "ParquetFile", open_file)
    assert found(cache, *inputs) == inputs
    assert opened == moment + 1


def test_a_listing_that_misses_both_sides_of_a_merge_is_repeated(
    cache: MeasurementCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = fill(cache, 5)
    real = cache._list_files
    listings: list[Callable[[], list[Path]]] = [list, real, real]
    monkeypatch.setattr(cache, "_list_files", lambda: listings.pop(0)())
    assert found(cache, *inputs) == inputs


MERGER = """
import sys
from pathlib import Path
import pyarrow as pa
from datasets.cache import INPUT, MeasurementCache
columns = [pa.field(INPUT, pa.string(), nullable=False), ("value", pa.float64()), ("tags", pa.list_(pa.string()))]
schema = pa.schema(columns)
cache = MeasurementCache(Path(sys.argv[1]), schema)
print("ready", flush=True)
for turn in range(int(sys.argv[2])):
    for k in range(6):
        cache.add(pa.Table.from_pylist([{INPUT: f"{sys.argv[3]}{turn}-{k}", "value": 0.0}], schema=schema))
    cache.compact(max_files=2, max_rows=40)
"""


def start_merger(cache: MeasurementCache, turns: int, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", MERGER, str(cache.folder), str(turns), name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_processes_merge_at_once_while_another_looks_up(cache: MeasurementCache) -> None:
    inputs = fill(cache, 12)
    mergers = [start_merger(cache, 15, name) for name in "ab"]
    looked = 0
    while any(merger.poll() is None for merger in mergers):
        assert found(cache, *inputs) == inputs
        looked += 1
    assert [merger.wait() for merger in mergers] == [0, 0]
    assert looked > 3
    everything = [f"{name}{turn}-{k}" for name in "ab" for turn in range(15) for k in range(6)]
    assert found(cache, *inputs, *everything) == sorted([*inputs, *everything])


def test_a_killed_merge_loses_nothing(cache: MeasurementCache) -> None:
    inputs = fill(cache, 12)
    rng = random.Random(5)
    for kill in range(3):
        merger = start_merger(cache, 10_000, f"{kill}x")
        time.sleep(rng.uniform(0.0, 0.25))
        merger.kill()
        merger.wait()
        assert found(cache, *inputs) == inputs
    cache.compact(max_files=1)
    assert found(cache, *inputs) == inputs


def test_a_look_up_opens_only_files_with_wanted_rows_whole(
    cache: MeasurementCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(cache, 6)
    real, whole = datasets.cache.MeasurementCache._read, []

    def read(self: MeasurementCache, path: Path, columns: list[str] | None = None) -> pa.Table:
        if columns is None:
            whole.append(path)
        return real(self, path, columns)

    monkeypatch.setattr(MeasurementCache, "_read", read)
    assert found(cache, "00004", "00005") == ["00004", "00005"]
    assert len(whole) == 1
