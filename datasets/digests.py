"""Digests: SHA-256 of bytes, files, pixels, settings and tables."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.chunks import sort_in_chunks, without_codes
from datasets.schema import IDENTITY_COLUMNS

_BATCH_ROWS = 20_000
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
_ESCAPED = r'["\\\x00-\x1f]'  # what a JSON string may not hold as it is


def digest_bytes(data: bytes) -> str:
    """SHA-256 of `data`, as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_json(value: Any) -> str:
    """SHA-256 of a JSON-able value in canonical form: sorted keys, no white space."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return digest_bytes(text.encode())


def digest_pixels(rgb: np.ndarray) -> str:
    """SHA-256 of a picture's size and decoded pixels.

    rgb: uint8 (H, W, 3). Files re-encoded without loss have equal digests; a picture and its transpose do not.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"expected uint8 pixels of shape (H, W, 3), got {rgb.dtype} {rgb.shape}")
    height, width = rgb.shape[:2]
    hasher = hashlib.sha256(f"rgb8 {width}x{height}\n".encode())
    hasher.update(np.ascontiguousarray(rgb).data)
    return hasher.hexdigest()


def digest_rows(table: pa.Table, columns: tuple[str, ...], order_by: str) -> str:
    """SHA-256 over the named columns, row by row in the order of one of them.

    Rows are canonical JSON, so that the digest depends on values alone, not on Arrow's chunks or encodings. Streams in
    batches: memory does not grow with the table.

    The definition, which published versions hold us to: the JSON list of the columns' names as `json.dumps` writes it,
    then for each row a line break and the JSON list of its values without white space, text as it is (not as ASCII).
    """
    hasher = hashlib.sha256(json.dumps(columns).encode())
    chosen = sort_in_chunks(table.select(list(columns)), [order_by])
    for batch in chosen.to_batches(max_chunksize=_BATCH_ROWS):
        lines = pc.binary_join_element_wise(*(encode_json(batch.column(name)) for name in columns), _text(","))
        hasher.update(_joined_bytes(pc.binary_join_element_wise(_text("\n["), lines, _text("]"), _text(""))))
    return hasher.hexdigest()


def digest_columns(table: pa.Table, columns: tuple[str, ...]) -> str:
    """SHA-256 over the named columns, in the table's own order of rows; several times as fast as digest_rows.

    It depends on names, types and values alone, not on Arrow's chunks, nor on whether values have codes: of each
    column, and of the values in lists, one hash covers the lengths (-1 for null) and one the bytes. Texts, whole
    numbers, flags and lists of them only: raises TypeError for others. The definition may change with the program; what
    names a content for ever is digest_rows'.
    """
    hasher = hashlib.sha256()
    for name in columns:
        hasher.update(f"\n{name} {without_codes(table.schema.field(name).type)}".encode())
        parts: dict[str, Any] = {}
        for chunk in table[name].chunks:
            for start in range(0, len(chunk), _BATCH_ROWS):  # values are taken out of their dictionary piece by piece
                _feed(chunk.slice(start, _BATCH_ROWS), "", parts)
        for part, found in sorted(parts.items()):
            hasher.update(part.encode() + found.digest())
    return hasher.hexdigest()


def _feed(values: pa.Array, part: str, parts: dict[str, Any]) -> None:
    """Add values to the hashes of a column. part: where in nested lists they stand."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        _feed(values.dictionary_decode(), part, parts)
        return
    if pa.types.is_list(kind):
        shape, content = pc.list_value_length(values), None
        _feed(values.flatten(), part + "/", parts)
    elif pa.types.is_string(kind):
        shape = pc.binary_length(values)
        content = _joined_bytes(values if values.null_count == 0 else values.drop_null())
    elif pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        shape = pc.if_else(values.is_valid(), 0, -1)
        content = pc.fill_null(values, 0 if pa.types.is_integer(kind) else False).cast(pa.int64()).to_numpy()
    else:
        raise TypeError(f"a digest of {kind} columns is not defined")
    lengths = pc.fill_null(shape.cast(pa.int32()), -1).to_numpy()
    parts.setdefault(f"{part} lengths", hashlib.sha256()).update(lengths.data)
    if content is not None:
        parts.setdefault(f"{part} values", hashlib.sha256()).update(content)


def encode_json(values: pa.Array) -> pa.Array:
    """Each value as JSON text (large_string), as `json.dumps` writes it without white space, text as it is.

    Whole numbers, flags, texts and lists of texts are written column by column, all else value by value.
    Raises TypeError for values that JSON has no word for.
    """
    kind = values.type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        encoded = values.cast(pa.large_string())
    elif _is_text(kind):
        encoded = _quote(values.cast(pa.large_string()))
    elif pa.types.is_list(kind) and _is_text(kind.value_type):
        texts = pc.fill_null(_quote(values.flatten().cast(pa.large_string())), _text("null"))
        lists = pa.LargeListArray.from_arrays(_offsets(values), texts)
        encoded = pc.binary_join_element_wise(_text("["), pc.binary_join(lists, _text(",")), _text("]"), _text(""))
        encoded = pc.if_else(values.is_valid(), encoded, pa.scalar(None, pa.large_string()))
    else:
        encoded = pa.array([_ENCODER.encode(value) for value in values.to_pylist()], pa.large_string())
    return pc.fill_null(encoded, _text("null"))


def _quote(texts: pa.Array) -> pa.Array:
    """Texts as JSON strings; null stays null. The few with a character that JSON escapes go one by one."""
    quoted = pc.binary_join_element_wise(_text('"'), texts, _text('"'), _text(""))
    special = pc.fill_null(pc.match_substring_regex(texts, _ESCAPED), False)
    if not pc.any(special).as_py():
        return quoted
    escaped = [_ENCODER.encode(text) for text in texts.filter(special).to_pylist()]
    return pc.replace_with_mask(quoted, special, pa.array(escaped, pa.large_string()))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _offsets(lists: pa.ListArray) -> pa.Array:
    """Where each list begins in `flatten()`, and where the last one ends; a null list holds nothing."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def _text(value: str) -> pa.Scalar:
    return pa.scalar(value, pa.large_string())


def _joined_bytes(texts: pa.Array) -> bytes | memoryview:
    """All texts of an array without nulls, one behind the other, without a copy."""
    _, offsets, data = texts.buffers()
    if data is None:
        return b""
    width = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    bounds = np.frombuffer(offsets, width)[texts.offset : texts.offset + len(texts) + 1]
    return memoryview(data)[int(bounds[0]) : int(bounds[-1])]


def content_digest(manifest: pa.Table) -> str:
    """The digest that names a version's content: its identity columns in crop_id order (DESIGN section 5)."""
    return digest_rows(manifest, IDENTITY_COLUMNS, order_by="crop_id")
