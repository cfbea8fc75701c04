"""Where a post's file lies: the settings' template, filled in with what was checked of the metadata."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.sources.config import SourceConfig, parse_layout


def needs_md5(config: SourceConfig) -> bool:
    """Whether files are named by what only the metadata says of their content."""
    return any(field == "md5" for _, field, _ in parse_layout(config.layout))


def name_files(config: SourceConfig, ids: np.ndarray, extensions: pa.Array, md5: pa.Array) -> pa.Array:
    """Paths below the folder of pictures, "/" as separator: string (N,), null where a part is not known.

    ids: int64 (N,), not negative. extensions: [a-z0-9]{1,5} or null. md5: [0-9a-f]{32} or null.
    """
    numbers = pa.array(ids)
    parts: list[pa.Array | pa.Scalar] = []
    for literal, field, bounds in parse_layout(config.layout):
        if literal:
            parts.append(pa.scalar(literal))
        if field == "id":
            parts.append(numbers.cast(pa.string()))
        elif field == "folder":
            folders = pa.array(ids % config.modulus).cast(pa.string())
            parts.append(pc.utf8_lpad(folders, config.digits, "0"))
        elif field == "ext":
            parts.append(extensions)
        elif field == "md5":
            parts.append(md5 if bounds is None else pc.utf8_slice_codeunits(md5, *bounds))
    return pc.binary_join_element_wise(*parts, "")
