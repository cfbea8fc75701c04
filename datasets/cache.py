"""The measurement cache: what was found out about an input by looking at pixels, kept for ever.

One folder per (stage, stage version, settings and weights that the measurement reads); in it, Parquet files of rows,
one row per input digest. Files are only ever added, each in one step, so readers and writers need no lock: a
measurement is a function of its key, so two writers of one key write the same row.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datasets.atomic import write_parquet
from datasets.digests import digest_json

INPUT = "input"  # the column that holds the input's digest


class MeasurementCache:
    """`<store>/cache/<stage>-<version>/<key>/*.parquet`: rows of one kind of measurement."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        """schema: the columns of a row; the first must be `input` (string)."""
        if schema.names[0] != INPUT:
            raise ValueError(f"a measurement's first column is {INPUT!r}, not {schema.names[0]!r}")
        self.folder = folder
        self.schema = schema

    def lookup(self, inputs: pa.Array | pa.ChunkedArray) -> pa.Table:
        """The cached rows of these inputs, one row each, in order of input; inputs never measured are absent.

        A file that cannot be read counts as never measured; it is removed when its content is broken, and left alone
        when only the reading failed (no rights, too many open files).
        """
        wanted = pa.chunked_array(inputs) if isinstance(inputs, list) else inputs
        tables = [self.schema.empty_table()]
        for path in sorted(self.folder.glob("[!.]*.parquet")):
            try:
                rows = pq.read_table(path, schema=self.schema, page_checksum_verification=True)
            except (pa.ArrowException, OSError) as error:
                if getattr(error, "errno", None) is None:  # Arrow's own complaint of the bytes has no errno
                    path.unlink(missing_ok=True)
                continue
            tables.append(rows)
        # one look-up over all files: building the set of wanted inputs costs more than reading a file
        cached = pa.concat_tables(tables)
        return first_of_each(cached.filter(pc.is_in(cached[INPUT], value_set=wanted)), INPUT)

    def add(self, rows: pa.Table) -> None:
        """Keep rows. The file is named by its inputs, so that measuring the same shard again overwrites it."""
        if len(rows) == 0:
            return
        name = digest_json(sorted(rows[INPUT].to_pylist()))[:32]
        write_parquet(self.folder / f"{name}.parquet", rows.cast(self.schema))


def first_of_each(table: pa.Table, column: str) -> pa.Table:
    """The first row for each value of `column`, sorted by it."""
    if len(table) == 0:
        return table
    positions = pa.table({column: table[column], "position": pa.array(range(len(table)))})
    first = positions.group_by(column).aggregate([("position", "min")]).sort_by(column)
    return table.take(first["position_min"])
