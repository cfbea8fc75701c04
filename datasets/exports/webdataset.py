"""WebDataset shards: tar files of key.png, key.json and, with classes, key.cls; an index that WIDS reads."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any, BinaryIO, cast

from datasets.atomic import write_atomically, write_text
from datasets.exports.base import (
    Exporter,
    HashingStream,
    Job,
    cut_shards,
    finish_folder,
    label_columns,
    metadata_rows,
    shard_settings,
    to_json,
)
from datasets.exports.card import CARD, LOAD, one_split, write_export_card
from datasets.exports.plan import ExportPlan
from datasets.exports.preflight import Header
from datasets.exports.reading import map_in_order, read_blob

INDEX = "index.json"
_OVERHEAD = 4 * 512 + 1536  # bytes around a picture: tar headers and padding, and its metadata


class WebDataset(Exporter):
    """A folder: `<dataset>-000000.tar` and up, index.json, README.md, kaobako.json. Blobs go in byte by byte."""

    def settings(self, plan: ExportPlan) -> dict[str, Any]:
        return shard_settings(plan)

    def estimate(self, plan: ExportPlan, headers: list[Header]) -> int:
        return sum(header.size + _OVERHEAD for header in headers) + plan.manifest.nbytes

    def write(self, job: Job) -> Path:
        plan, staging = job.plan, job.staging
        sizes = [header.size for header in job.headers]
        shards = cut_shards(sizes, plan.settings.shard_pictures, plan.settings.shard_bytes)
        staging.require_files({name: entry["filesize"] for name, entry in staging.files.items()})
        for number, rows in enumerate(shards):
            if rows.stop <= staging.done:
                continue
            name = f"{plan.version.name}-{number:06d}.tar"
            digest, size = write_shard(job, staging.content / name, rows)
            entry = {"nsamples": len(rows), "filesize": size, "sha256": digest}
            staging.checkpoint(rows.stop, {**staging.files, name: entry})
        listed = [{"url": name, **entry} for name, entry in sorted(staging.files.items())]
        index = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": plan.version.name, "shardlist": listed}
        write_text(staging.content / INDEX, to_json(index) + "\n")
        write_text(staging.content / CARD, write_export_card(plan, LOAD, one_split("*.tar")))
        return finish_folder(job, self, files=staging.files)


def write_shard(job: Job, path: Path, rows: range) -> tuple[str, int]:
    """Write one shard in one step; its SHA-256 and size. Headers say nothing of who wrote it, or when."""
    plan = job.plan
    result: list[Any] = []

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            hashing = HashingStream(stream)
            with tarfile.open(fileobj=cast(BinaryIO, hashing), mode="w", format=tarfile.USTAR_FORMAT) as shard:
                samples = zip(rows, map_in_order(lambda row: read_blob(plan, row), rows), strict=True)
                part = plan.manifest.slice(rows.start, len(rows))
                for (row, data), columns in zip(samples, metadata_rows(part), strict=True):
                    metadata = {**columns, **label_columns(plan.labels, row)}
                    _add(shard, plan.names[row] + job.headers[row].suffix, data)
                    _add(shard, plan.names[row] + ".json", to_json(metadata).encode())
                    if plan.labels is not None and plan.labels.kind == "classes":
                        _add(shard, plan.names[row] + ".cls", str(plan.labels.of(row)).encode())
                    job.tell(row + 1)
            result.extend((hashing.digest(), hashing.size))

    write_atomically(path, write)
    digest, size = result
    return digest, size


def _add(shard: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # mtime 0, uid 0, gid 0, no names
    member.size, member.mode = len(data), 0o644
    shard.addfile(member, io.BytesIO(data))
