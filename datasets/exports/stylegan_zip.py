"""The zip that StyleGAN2-ADA and StyleGAN3 train on: stored members, PNG without compression, dataset.json."""

from __future__ import annotations

import csv
import io
import struct
import zlib
from pathlib import Path

import numpy as np

from datasets.exports.base import PROVENANCE, Exporter, Job, provenance, to_json
from datasets.exports.plan import ExportPlan
from datasets.exports.preflight import Header
from datasets.exports.reading import map_in_order, read_pixels
from datasets.exports.staging import sync_stream
from datasets.exports.stored_zip import StoredZip

DATASET_FILE = "dataset.json"
PICTURES_FILE = "kaobako-pictures.csv"
_OVERHEAD = 400  # bytes around a picture: PNG chunks, zip headers, its line in the lists


def picture_name(row: int) -> str:
    """`00012/img00012345.png`: what StyleGAN's own tool would call the row's picture."""
    number = f"{row:08d}"
    return f"{number[:5]}/img{number}.png"


def encode_plain_png(pixels: np.ndarray) -> bytes:
    """uint8 (H, W, 3 or 1) as PNG with compression level 0 and no row filter: large, and quicker to read than packed.

    Pillow would try every filter on every row, which takes eight times as long and makes no difference to the size.
    """
    height, width, channels = pixels.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # a filter byte of 0, and the row as it is
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">2I5B", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.data, 0)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    crc = zlib.crc32(data, zlib.crc32(kind))
    return b"".join((struct.pack(">I", len(data)), kind, data, struct.pack(">I", crc)))


class StyleGanZip(Exporter):
    """One zip: pictures, dataset.json, and two members that trainers pass over (their names end in no picture's)."""

    suffix = ".zip"
    for_trainer = True

    def member_names(self, plan: ExportPlan) -> list[str]:
        return [*(picture_name(row) for row in range(len(plan))), DATASET_FILE, PROVENANCE, PICTURES_FILE]

    def estimate(self, plan: ExportPlan, headers: list[Header]) -> int:
        return sum(h.width * h.height * len(h.mode) + h.height + _OVERHEAD for h in headers)

    def write(self, job: Job) -> Path:
        plan, staging = job.plan, job.staging
        name = plan.out.name
        side, channels = job.headers[0].width, len(job.headers[0].mode)
        with staging.open_growing(name) as stream:
            archive = StoredZip(stream)

            def encode(row: int) -> bytes:
                return encode_plain_png(read_pixels(plan, row, side, channels))

            rows = range(staging.done, len(plan))
            for row, data in zip(rows, map_in_order(encode, rows), strict=True):
                archive.add(picture_name(row), data)
                if staging.is_due(len(data)):
                    staging.checkpoint(row + 1, {name: sync_stream(stream)})
                job.tell(row + 1)
            archive.add(DATASET_FILE, _dataset_json(plan))
            archive.add(PROVENANCE, provenance(plan, self))
            archive.add(PICTURES_FILE, list_pictures(plan, [picture_name(row) for row in range(len(plan))]))
            archive.finish(f"kaobako {plan.version.reference} {plan.version.content_digest}".encode())
            sync_stream(stream)
        return staging.content / name


def _dataset_json(plan: ExportPlan) -> bytes:
    labels = plan.labels
    listed = None if labels is None else [[picture_name(row), labels.of(row)] for row in range(len(plan))]
    return to_json({"labels": listed}).encode()


def list_pictures(plan: ExportPlan, names: list[str], order: list[int] | None = None) -> bytes:
    """CSV of file (or record), crop_id, post_id and blob, for formats that do not carry metadata themselves.

    names: one per line. order: the row of each line; the manifest's own order when left out.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["picture", "crop_id", "post_id", "blob"])
    post_ids = plan.manifest["post_id"].to_pylist()
    for name, row in zip(names, order if order is not None else range(len(plan)), strict=True):
        writer.writerow([name, plan.crop_ids[row], post_ids[row], plan.blobs[row]])
    return text.getvalue().encode()
