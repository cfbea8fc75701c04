"""Parquet shards with the pictures inside, as Hugging Face's `load_dataset` and viewer read them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from datasets.atomic import write_atomically, write_text
from datasets.exports.base import Exporter, Job, cut_shards, finish_folder, shard_settings
from datasets.exports.card import CARD, LOAD, one_split, write_export_card
from datasets.exports.plan import ExportPlan, Labels
from datasets.exports.preflight import Header
from datasets.exports.reading import map_in_order, read_blob

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_ROW_GROUP = 100  # pictures: what the hub's viewer reads at once, and what is in memory here
_OVERHEAD = 600  # bytes of metadata for a picture
_VALUE = "Value"


class HuggingFaceParquet(Exporter):
    """A folder: data/train-00000-of-0000N.parquet, README.md, kaobako.json."""

    def settings(self, plan: ExportPlan) -> dict[str, Any]:
        return shard_settings(plan)

    def estimate(self, plan: ExportPlan, headers: list[Header]) -> int:
        return sum(header.size + _OVERHEAD for header in headers) + plan.manifest.nbytes

    def write(self, job: Job) -> Path:
        plan, staging = job.plan, job.staging
        sizes = [header.size for header in job.headers]
        shards = cut_shards(sizes, plan.settings.shard_pictures, plan.settings.shard_bytes)
        schema = make_schema(plan)
        staging.require_files({name: entry["bytes"] for name, entry in staging.files.items()})
        for number, rows in enumerate(shards):
            if rows.stop <= staging.done:
                continue
            name = f"data/train-{number:05d}-of-{len(shards):05d}.parquet"
            entry = _write_shard(job, staging.content / name, rows, schema)
            staging.checkpoint(rows.stop, {**staging.files, name: entry})
        write_text(staging.content / CARD, write_export_card(plan, LOAD, one_split("data/train-*")))
        return finish_folder(job, self, files=staging.files)


def make_schema(plan: ExportPlan) -> pa.Schema:
    """`image`, the manifest's columns, and `label` or `labels`; with the note that tells Hugging Face their kinds."""
    fields = [pa.field("image", IMAGE), *(pa.field(f.name, f.type) for f in plan.manifest.schema)]
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    features |= {f.name: describe_type(f.type) for f in plan.manifest.schema}
    if plan.labels is not None:
        one = {"names": list(plan.labels.names), "_type": "ClassLabel"}
        is_class = plan.labels.kind == "classes"
        fields.append(pa.field("label", pa.int64()) if is_class else pa.field("labels", pa.list_(pa.int64())))
        features[fields[-1].name] = one if is_class else {"feature": one, "_type": "Sequence"}
    note = {"huggingface": json.dumps({"info": {"features": features}}, ensure_ascii=False)}
    return pa.schema(fields, metadata={**note, "kaobako": json.dumps(plan.describe({}), ensure_ascii=False)})


def describe_type(column: pa.DataType) -> Any:
    """An Arrow type in the words of Hugging Face's features."""
    if pa.types.is_list(column):
        if pa.types.is_struct(column.value_type):
            return [describe_type(column.value_type)]  # "Sequence" of a struct would mean a struct of lists
        return {"feature": describe_type(column.value_type), "_type": "Sequence"}
    if pa.types.is_struct(column):
        return {field.name: describe_type(field.type) for field in column}
    names = {pa.bool_(): "bool", pa.float32(): "float32", pa.float64(): "float64"}  # Arrow says bool, float, double
    return {"dtype": names.get(column, str(column)), "_type": _VALUE}


def _write_shard(job: Job, path: Path, rows: range, schema: pa.Schema) -> dict[str, Any]:
    result: dict[str, Any] = {}
    columns = [name for name in schema.names if name != "image"]

    def write(temporary: Path) -> None:
        # pictures are packed already, and neither a dictionary nor a smallest and largest one of them is of use
        compression = dict.fromkeys(leaf_names(schema), "zstd") | {"image.bytes": "NONE"}
        options = {"use_dictionary": columns, "write_statistics": columns, "write_page_checksum": True}
        with pq.ParquetWriter(temporary, schema, compression=compression, **options) as writer:
            for table in _row_groups(job, rows, schema):
                writer.write_table(table, row_group_size=_ROW_GROUP)
        with temporary.open("rb") as stream:
            result["sha256"] = hashlib.file_digest(stream, "sha256").hexdigest()
        result.update(rows=len(rows), bytes=temporary.stat().st_size)

    write_atomically(path, write)
    return result


def leaf_names(schema: pa.Schema) -> list[str]:
    """The Parquet columns of a schema, by path."""
    return [path for field in schema for path in _leaves(field.type, field.name)]


def _leaves(column: pa.DataType, path: str) -> Iterator[str]:
    if pa.types.is_list(column):
        yield from _leaves(column.value_type, f"{path}.list.element")
    elif pa.types.is_struct(column):
        for field in column:
            yield from _leaves(field.type, f"{path}.{field.name}")
    else:
        yield path


def _row_groups(job: Job, rows: range, schema: pa.Schema) -> Iterator[pa.Table]:
    """The shard's rows, a few pictures at a time."""
    plan = job.plan
    pictures = map_in_order(lambda row: read_blob(plan, row), rows)
    for start in range(rows.start, rows.stop, _ROW_GROUP):
        group = range(start, min(start + _ROW_GROUP, rows.stop))
        images = []
        for row in group:
            images.append({"bytes": next(pictures), "path": plan.names[row] + job.headers[row].suffix})
            job.tell(row + 1)
        part = plan.manifest.slice(group.start, len(group))
        arrays = [pa.array(images, IMAGE), *part.columns, *_label_arrays(plan.labels, group)]
        yield pa.Table.from_arrays(arrays, schema=schema)


def _label_arrays(labels: Labels | None, rows: range) -> list[pa.Array]:
    if labels is None:
        return []
    if labels.kind == "classes":
        return [pa.array([labels.of(row) for row in rows], pa.int64())]
    return [pa.array([labels.indices(row) for row in rows], pa.list_(pa.int64()))]
