"""The measurement cache: what was put in comes out, and a broken file costs time, not truth."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

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


def test_a_file_that_cannot_be_opened_just_now_is_not_thrown_away(
    cache: MeasurementCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.add(rows("a"))

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(pq, "read_table", fail)
    assert found(cache, "a") == []
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
