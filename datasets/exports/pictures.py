"""Blobs as plain files in a folder: hard links to the store where the file system allows it, else copies."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from datasets.errors import StoreError
from datasets.exports.base import Exporter, Job
from datasets.exports.plan import ExportPlan
from datasets.exports.preflight import Header, nearest_folder
from datasets.exports.reading import map_in_order, read_blob
from datasets.exports.staging import sync_files

# what os.link says where there are no links, or no more of them: another file system, FAT, a quota of links, a policy
_NO_LINKS = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
_BLOCK = 4096


class PictureFolder(Exporter):
    """What formats of plain files share; `linked` says of the last write how many pictures are links."""

    def __init__(self) -> None:
        self.linked = 0

    def stem(self, plan: ExportPlan, row: int) -> str:
        """The path of a row's picture inside the export, without its suffix."""
        return plan.names[row]

    def picture_sizes(self, plan: ExportPlan) -> dict[str, int | None]:
        return {self.stem(plan, row): _blob_size(plan, row) for row in range(len(plan))}

    def estimate(self, plan: ExportPlan, headers: list[Header]) -> int:
        rows = 1000 * len(headers) + plan.manifest.nbytes  # tags are of any length
        if plan.settings.link and can_link(plan):
            return rows
        return rows + sum(-(-header.size // _BLOCK) * _BLOCK for header in headers)

    def write_pictures(self, job: Job) -> list[str]:
        """Put all pictures into the staging folder; their paths inside it, row by row."""
        plan, staging = job.plan, job.staging
        places = [self.stem(plan, row) + header.suffix for row, header in enumerate(job.headers)]
        staging.require_files({places[row]: job.headers[row].size for row in range(staging.done)})
        for folder in sorted({(staging.content / place).parent for place in places}):
            folder.mkdir(parents=True, exist_ok=True)
        self.linked = 0

        def put(row: int) -> bool:
            return _put(plan, row, staging.content / places[row])

        since: list[Path] = []
        rows = range(staging.done, len(plan))
        for row, is_link in zip(rows, map_in_order(put, rows), strict=True):
            self.linked += is_link
            since.append(staging.content / places[row])
            if staging.is_due(job.headers[row].size):
                sync_files(since)
                staging.checkpoint(row + 1, {})
                since.clear()
            job.tell(row + 1)
        sync_files(since)
        staging.checkpoint(len(plan), {})
        return places


def _put(plan: ExportPlan, row: int, path: Path) -> bool:
    """Link or write one picture, whose bytes were checked; whether it is a link."""
    data = read_blob(plan, row)
    path.unlink(missing_ok=True)  # a killed export may have left part of it
    if plan.settings.link:
        try:
            os.link(plan.store.blobs.path(plan.blobs[row]), path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
        else:
            return True
    path.write_bytes(data)
    return False


def _blob_size(plan: ExportPlan, row: int) -> int | None:
    try:
        return plan.store.blobs.path(plan.blobs[row]).stat().st_size
    except (StoreError, OSError):
        return None  # a store may lose what an export still has


def can_link(plan: ExportPlan) -> bool:
    """Whether links are possible at all: the store and the destination lie on the same file system."""
    blobs = plan.store.blobs.folder
    return blobs.exists() and blobs.stat().st_dev == nearest_folder(plan.out).stat().st_dev
