"""Digests: equal for what is the same, different for what is not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.digests import (
    content_digest,
    digest_bytes,
    digest_columns,
    digest_file,
    digest_json,
    digest_pixels,
    digest_rows,
)
from datasets.pictures import decode_picture
from datasets.schema import IDENTITY_COLUMNS, MANIFEST


def row(k: int) -> dict[str, Any]:
    return {
        "crop_id": f"p{k}#0",
        "post_id": f"p{k}",
        "blob": f"{k:064x}",
        "pixel_digest": f"{k + 1:064x}",
        "width": 256,
        "height": 256,
        "box_x": k,
        "box_y": 2 * k,
        "box_w": 64,
        "box_h": 64,
        "rating": "safe",
        "score": k,
        "tags": ["1girl", "顔"],
        "blur": k / 3,
        "source_path": f"{k}.png",
    }


def manifest(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=MANIFEST)


def test_files_and_bytes_are_plain_sha256(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    assert digest_bytes(data) == digest_file(tmp_path / "file") == expected


def test_json_digest_ignores_the_order_of_keys_but_not_of_lists() -> None:
    assert digest_json({"a": 1, "b": [1, 2]}) == digest_json({"b": [1, 2], "a": 1})
    assert digest_json({"a": [1, 2]}) != digest_json({"a": [2, 1]})
    assert digest_json({"a": 1}) != digest_json({"a": "1"})


def test_json_digest_refuses_what_json_has_no_word_for() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        digest_json({"a": float("nan")})


@pytest.mark.parametrize(("file_format", "options"), [("PNG", {}), ("PNG", {"compress_level": 9}), ("BMP", {})])
def test_lossless_copies_have_one_pixel_digest(
    file_format: str, options: dict[str, Any], quarters: np.ndarray, encode: Callable[..., bytes]
) -> None:
    copy = decode_picture(encode(quarters, file_format, **options)).rgb
    assert digest_pixels(copy) == digest_pixels(quarters)


def test_memory_layout_does_not_matter(quarters: np.ndarray) -> None:
    assert digest_pixels(np.asfortranarray(quarters)) == digest_pixels(quarters)
    assert digest_pixels(quarters[::-1][::-1]) == digest_pixels(quarters)


def test_turned_mirrored_and_reshaped_pictures_differ(quarters: np.ndarray) -> None:
    flat = np.full((4, 6, 3), 7, np.uint8)
    assert digest_pixels(flat) != digest_pixels(flat.transpose(1, 0, 2))
    variants = [quarters, quarters.transpose(1, 0, 2), quarters[:, ::-1], quarters[:, :, ::-1], quarters[:-1]]
    assert len({digest_pixels(picture) for picture in variants}) == len(variants)


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_other_arrays_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\(H, W, 3\)"):
        digest_pixels(wrong)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(order=st.permutations(range(6)), cuts=st.lists(st.integers(1, 5), max_size=3))
def test_content_digest_ignores_row_order_and_chunks(order: list[int], cuts: list[int]) -> None:
    expected = content_digest(manifest([row(k) for k in range(6)]))
    shuffled = manifest([row(k) for k in order])
    edges = sorted({0, 6, *cuts})
    pieces = [shuffled.slice(start, stop - start) for start, stop in pairwise(edges)]
    assert content_digest(pa.concat_tables(pieces)) == expected


def test_content_digest_ignores_other_columns_and_their_order() -> None:
    table = manifest([row(k) for k in range(3)])
    expected = content_digest(table)
    changed = [row(k) | {"blur": 0.5, "source_path": "elsewhere", "d_score": 1.0, "decision": "keep"} for k in range(3)]
    assert content_digest(manifest(changed)) == expected
    assert content_digest(table.select(table.column_names[::-1])) == expected
    assert content_digest(table.append_column("extra", pa.array([1, 2, 3]))) == expected


@pytest.mark.parametrize("column", IDENTITY_COLUMNS)
def test_content_digest_changes_with_each_identity_column(column: str) -> None:
    rows = [row(k) for k in range(3)]
    expected = content_digest(manifest(rows))
    value = rows[1].get(column)
    other = value + 1 if isinstance(value, int) else ["1girl"] if isinstance(value, list) else f"{value}x"
    digests = {
        content_digest(manifest([rows[0], rows[1] | {column: new}, rows[2]]))
        for new in (other, None)
        if new != value or new
    }
    assert expected not in digests


def test_content_digest_tells_null_from_empty_and_from_a_word() -> None:
    digests = {
        content_digest(manifest([row(0) | {"tags": tags}])) for tags in (None, [], [""], ["None"], ["a b"], ["a", "b"])
    }
    assert len(digests) == 6


def test_content_digest_is_pinned() -> None:
    """A change here makes every published version look changed: it must be meant."""
    assert content_digest(manifest([row(0)])) == "760e45872d42b04c330a69bb2511b12be54809c67afb3f6f27ecd0fd12ff4a0a"


def digest_plainly(table: pa.Table, columns: tuple[str, ...], order_by: str) -> str:
    """The definition of digest_rows, row by row."""
    hasher = hashlib.sha256(json.dumps(columns).encode())
    for row in table.select(list(columns)).sort_by(order_by).to_pylist():
        hasher.update(b"\n" + json.dumps([row[c] for c in columns], separators=(",", ":"), ensure_ascii=False).encode())
    return hasher.hexdigest()


ODD_TEXTS = st.one_of(
    st.sampled_from(
        ['"', "\\", '"],["', "],[", ",", "null", "\n", "\x00", "\x1f", "\x7f", "\x80", "\u2028", "😀", "顔", ""]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
)
ODD_FLOATS = st.one_of(st.sampled_from([-0.0, 1e16, 1e22, 1e-5, 1e-7, 5e-324, 0.1, 123456789.0, 1e300]), st.floats())
ODD_COLUMNS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "text": (pa.string(), ODD_TEXTS),
    "long_text": (pa.large_string(), ODD_TEXTS),
    "texts": (pa.list_(pa.string()), st.lists(st.none() | ODD_TEXTS, max_size=3)),
    "number": (pa.float64(), ODD_FLOATS),
    "short_number": (pa.float32(), st.floats(width=32)),
    "flag": (pa.bool_(), st.booleans()),
    "whole": (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "bits": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "numbers": (pa.list_(pa.int64()), st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=3)),
    "nothing": (pa.null(), st.none()),
    "pairs": (
        pa.struct([("x", pa.float64()), ("y", pa.string())]),
        st.fixed_dictionaries({"x": ODD_FLOATS, "y": ODD_TEXTS}),
    ),
}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data(), count=st.integers(0, 5), start=st.integers(0, 2))
def test_digest_of_rows_is_what_its_definition_says(data: st.DataObject, count: int, start: int) -> None:
    """Columns are encoded at once; the digest must be the one that the definition gives row by row."""
    columns: dict[str, pa.Array] = {"key": pa.array(range(count), pa.int64())}
    for name, (kind, values) in ODD_COLUMNS.items():
        drawn = data.draw(st.lists(st.none() | values, min_size=count, max_size=count), label=name)
        columns[name] = pa.array(drawn, kind)
    table = pa.table(columns).slice(start)
    assert digest_rows(table, tuple(columns), "key") == digest_plainly(table, tuple(columns), "key")


def test_the_content_of_a_null_list_is_not_in_the_digest() -> None:
    """Arrow allows a null list to have values behind it; they are nobody's."""
    hidden = pa.ListArray.from_arrays(pa.array([0, 2, 3]), pa.array(["a", "b", "c"]), mask=pa.array([True, False]))
    table = pa.table({"key": [0, 1], "tags": hidden})
    assert digest_rows(table, ("key", "tags"), "key") == digest_plainly(table, ("key", "tags"), "key")


def test_digest_of_rows_refuses_what_json_has_no_word_for() -> None:
    with pytest.raises(TypeError, match="JSON serializable"):
        digest_rows(pa.table({"key": [0], "data": [b"bytes"]}), ("key", "data"), "key")


def test_rows_larger_than_a_batch_are_all_in_the_digest() -> None:
    count = 20_001
    table = pa.table({"key": pa.array(range(count)), "value": pa.array([0] * count)})
    last = table.set_column(1, "value", pa.array([0] * (count - 1) + [1]))
    assert digest_rows(table, ("key", "value"), "key") != digest_rows(last, ("key", "value"), "key")


# ---- digests of columns ----------------------------------------------------------------------------------------------

COLUMNS = ("name", "tags", "score", "gone")


def make_posts(rows: list[tuple[object, ...]]) -> pa.Table:
    kinds = (pa.string(), pa.list_(pa.string()), pa.int32(), pa.bool_())
    schema = pa.schema(list(zip(COLUMNS, kinds, strict=True)))
    return pa.Table.from_pylist([dict(zip(COLUMNS, row, strict=True)) for row in rows], schema=schema)


POST_ROWS = st.lists(
    st.tuples(
        st.none() | st.text(max_size=4),
        st.none() | st.lists(st.none() | st.text(max_size=3), max_size=3),
        st.none() | st.integers(-(2**31), 2**31 - 1),
        st.none() | st.booleans(),
    ),
    max_size=6,
)


@given(POST_ROWS, POST_ROWS, st.integers(1, 4))
def test_columns_have_equal_digests_exactly_when_their_values_are_equal(
    left: list[tuple[object, ...]], right: list[tuple[object, ...]], size: int
) -> None:
    one, other = make_posts(left), make_posts(right)
    assert (digest_columns(one, COLUMNS) == digest_columns(other, COLUMNS)) == (left == right)
    both = make_posts([*left, *right])
    sliced = pa.concat_tables([both.slice(start, size) for start in range(0, len(both), size)] or [both])
    assert digest_columns(sliced, COLUMNS) == digest_columns(both.combine_chunks(), COLUMNS)


@given(POST_ROWS, st.integers(1, 4), st.randoms(use_true_random=False))
def test_columns_with_codes_have_the_digest_of_their_values(
    rows: list[tuple[object, ...]], size: int, random: Random
) -> None:
    plain = make_posts(rows)
    chunks = []
    for start in range(0, len(plain), size):
        lists = plain["tags"].slice(start, size).combine_chunks()
        words = sorted({*lists.flatten().drop_null().to_pylist(), "said by nobody"}, key=lambda _: random.random())
        codes = pc.index_in(lists.flatten(), value_set=pa.array(words), skip_nulls=True)
        values = pa.DictionaryArray.from_arrays(codes, pa.array(words))
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_pylist()
        offsets = pa.array([0, *accumulate(lengths)], pa.int32())
        chunks.append(pa.ListArray.from_arrays(offsets, values, mask=lists.is_null()))
    kind = pa.list_(pa.dictionary(pa.int32(), pa.string()))
    coded = plain.set_column(1, pa.field("tags", kind), pa.chunked_array(chunks, kind))
    assert coded.to_pylist() == plain.to_pylist()
    assert digest_columns(coded, COLUMNS) == digest_columns(plain, COLUMNS)
    assert digest_columns(coded.slice(1), COLUMNS) == digest_columns(plain.slice(1), COLUMNS)


def test_the_digest_of_columns_is_pinned() -> None:
    """A change here makes every source look changed to the next build."""
    table = make_posts([("a", ["1girl", None, "顔"], 3, True), (None, None, None, None), ("", [], -1, False)])
    assert digest_columns(table, COLUMNS) == "b60a1770edc63ad746ce985434ab6c4aee063cd6a62f9aaba21ca5da6c1a1683"


def test_a_column_of_fractions_has_no_digest_by_columns() -> None:
    with pytest.raises(TypeError, match="double"):
        digest_columns(pa.table({"x": [0.5]}), ("x",))
