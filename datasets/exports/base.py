"""What every format gives, and what several of them share."""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import pyarrow as pa

from datasets.atomic import write_bytes
from datasets.exports.plan import ExportPlan, Labels
from datasets.exports.preflight import Header
from datasets.exports.staging import Staging

PROVENANCE = "kaobako.json"


@dataclass(frozen=True)
class Job:
    """An export under way: its plan, the header of each row, where it grows, and whom to tell."""

    plan: ExportPlan
    headers: list[Header]
    staging: Staging
    progress: Callable[[int, int], None]

    def tell(self, done: int) -> None:
        self.progress(done, len(self.plan))


class Exporter(ABC):
    """A format.

    Attributes:
        suffix: of the single file that it is; empty when it is a folder.
        for_trainer: it wants squares of one power of two, RGB or all grey.
    """

    suffix: ClassVar[str] = ""
    for_trainer: ClassVar[bool] = False

    def settings(self, plan: ExportPlan) -> dict[str, Any]:
        """The settings that the export's bytes depend on."""
        del plan
        return {}

    def provenance_name(self, plan: ExportPlan) -> str:
        """The file of the export that says which version it is."""
        del plan
        return PROVENANCE

    def picture_sizes(self, plan: ExportPlan) -> dict[str, int | None]:
        """Pictures that are files of the export, by path without suffix; their bytes, None when not known."""
        del plan
        return {}

    def member_names(self, plan: ExportPlan) -> list[str]:
        """What a single file that is an archive holds."""
        del plan
        return []

    @abstractmethod
    def estimate(self, plan: ExportPlan, headers: list[Header]) -> int:
        """Bytes that the export will take on the disk, about."""

    @abstractmethod
    def write(self, job: Job) -> Path:
        """Fill job.staging, from job.staging.done on; returns what is to appear under the final name.

        Everything is synced when it returns. Raises ExportError for a damaged blob, OSError for a full disk.
        """


class HashingStream:
    """A binary stream that is written once, front to back, and knows its SHA-256 and length."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hasher = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._hasher.update(data)
        self.size += len(data)
        return self._stream.write(data)

    def tell(self) -> int:
        return self.size

    def digest(self) -> str:
        return self._hasher.hexdigest()


def to_json(value: Any) -> str:
    """Compact JSON on one line: readable text, no NaN."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def provenance(plan: ExportPlan, exporter: Exporter, **more: Any) -> bytes:
    """The content of kaobako.json: which version, in which format, with which settings."""
    said = {**plan.describe(exporter.settings(plan)), **more}
    return (json.dumps(said, indent=2, ensure_ascii=False) + "\n").encode()


def finish_folder(job: Job, exporter: Exporter, pictures: Collection[str] = (), **more: Any) -> Path:
    """Write the provenance of an export that is a folder, last; it knows the size of every other file.

    pictures: paths of files that need no mention, their sizes are those of the blobs.
    """
    content = job.staging.content
    unlisted = {*pictures, exporter.provenance_name(job.plan)}
    found = sorted(path for path in content.rglob("*") if path.is_file())
    sizes = {path.relative_to(content).as_posix(): path.stat().st_size for path in found}
    listed = {path: size for path, size in sizes.items() if path not in unlisted}
    write_bytes(content / exporter.provenance_name(job.plan), provenance(job.plan, exporter, sizes=listed, **more))
    return content


def metadata_rows(manifest: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows of a manifest in order, as JSON takes them: NaN and infinity are null."""
    for batch in manifest.to_batches(max_chunksize=5000):
        for row in batch.to_pylist():
            yield {name: _finite(value) for name, value in row.items()}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def label_columns(labels: Labels | None, row: int) -> dict[str, Any]:
    """`label`: the class's name, or `labels`: the names of the tags; for metadata that people read."""
    if labels is None:
        return {}
    if labels.kind == "classes":
        return {"label": labels.names[labels.of(row)]}  # type: ignore[index]
    return {"labels": [labels.names[index] for index in labels.indices(row)]}


def cut_shards(sizes: list[int], most_pictures: int, most_bytes: int) -> list[range]:
    """Rows of each shard: as many as fit, at least one, in order. sizes: bytes of each row's picture."""
    shards = []
    start, held = 0, 0
    for row, size in enumerate(sizes):
        if row > start and (row - start >= most_pictures or held + size > most_bytes):
            shards.append(range(start, row))
            start, held = row, 0
        held += size
    if sizes:
        shards.append(range(start, len(sizes)))
    return shards


def shard_settings(plan: ExportPlan) -> dict[str, Any]:
    """The settings of sharded formats."""
    return {"shard_pictures": plan.settings.shard_pictures, "shard_bytes": plan.settings.shard_bytes}
