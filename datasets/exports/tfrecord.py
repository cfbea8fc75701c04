"""Multi-resolution TFRecords of StyleGAN and StyleGAN2, written without TensorFlow.

One file per resolution, from the pictures' own down to 4x4; each record is a tf.train.Example with `shape` (int64
channels, height, width) and `data` (uint8 in that order). Pictures are shuffled once, as the trainers expect of a file
that they read from front to back.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np

from datasets.exports.base import PROVENANCE, Exporter, Job, finish_folder
from datasets.exports.crc32c import masked_crc32c
from datasets.exports.plan import ExportPlan
from datasets.exports.preflight import Header
from datasets.exports.reading import map_in_order, read_pixels
from datasets.exports.staging import Staging, sync_files, sync_stream
from datasets.exports.stylegan_zip import list_pictures

SHUFFLE_SEED = 123  # numpy's RandomState, as in the trainers' own tool: the same set in the same order
SMALLEST_LOG2 = 2
_RECORD_OVERHEAD = 80  # bytes: framing, field names and shape


def shuffled(count: int) -> list[int]:
    """The row of each record."""
    order = np.arange(count)
    np.random.RandomState(SHUFFLE_SEED).shuffle(order)
    rows: list[int] = order.tolist()
    return rows


def halvings(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """A picture at every resolution down to 4x4, largest first: uint8 (C, S, S).

    pixels: uint8 (C, S, S), S a power of two. Each level is the mean of 2x2 of the level above in floating point, so
    that rounding does not add up; values are rounded (half to even) and clipped only where they are stored.
    """
    level = pixels.astype(np.float32)
    while True:
        yield np.rint(level).clip(0, 255).astype(np.uint8)
        if level.shape[1] <= 1 << SMALLEST_LOG2:
            return
        level = (level[:, 0::2, 0::2] + level[:, 0::2, 1::2] + level[:, 1::2, 0::2] + level[:, 1::2, 1::2]) * 0.25


def encode_example(pixels: np.ndarray) -> bytes:
    """A tf.train.Example of `shape` and `data`. pixels: uint8 (C, H, W)."""
    numbers = b"".join(_varint(length) for length in pixels.shape)
    shape = _field(3, _field(1, numbers))  # Feature.int64_list, Int64List.value packed
    data = _field(1, _field(1, pixels.tobytes()))  # Feature.bytes_list, BytesList.value
    entries = (_field(1, name) + _field(2, feature) for name, feature in ((b"shape", shape), (b"data", data)))
    return _field(1, b"".join(_field(1, entry) for entry in entries))  # Example.features, Features.feature


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return bytes([number << 3 | 2]) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def frame_record(payload: bytes) -> bytes:
    """A payload as it stands in a TFRecord file: length, its checksum, payload, its checksum."""
    length = struct.pack("<Q", len(payload))
    return b"".join(
        (length, struct.pack("<I", masked_crc32c(length)), payload, struct.pack("<I", masked_crc32c(payload)))
    )


class StyleGanRecords(Exporter):
    """A folder: `<dataset>-r02.tfrecords` and up, labels if there are any, and two files that trainers pass over."""

    for_trainer = True

    def provenance_name(self, plan: ExportPlan) -> str:
        return f"{plan.version.name}-{PROVENANCE}"

    def estimate(self, plan: ExportPlan, headers: list[Header]) -> int:
        levels = headers[0].width.bit_length() if headers else 0
        return sum(h.width * h.height * len(h.mode) * 4 // 3 + levels * _RECORD_OVERHEAD for h in headers)

    def write(self, job: Job) -> Path:
        plan, staging = job.plan, job.staging
        order = shuffled(len(plan))
        side, channels = job.headers[0].width, len(job.headers[0].mode)
        levels = range(side.bit_length() - 1, SMALLEST_LOG2 - 1, -1)
        names = [f"{plan.version.name}-r{level:02d}.tfrecords" for level in levels]

        def encode(row: int) -> list[bytes]:
            pixels = np.ascontiguousarray(read_pixels(plan, row, side, channels).transpose(2, 0, 1))
            return [frame_record(encode_example(level)) for level in halvings(pixels)]

        with ExitStack() as stack:
            streams = {name: stack.enter_context(staging.open_growing(name)) for name in names}
            rest = order[staging.done :]
            for done, records in enumerate(map_in_order(encode, rest), staging.done + 1):
                for stream, record in zip(streams.values(), records, strict=True):
                    stream.write(record)
                if staging.is_due(sum(map(len, records))):
                    _checkpoint(staging, done, streams)
                job.tell(done)
            _checkpoint(staging, len(plan), streams)
        _write_extras(plan, staging.content, order)
        return finish_folder(job, self)


def _write_extras(plan: ExportPlan, folder: Path, order: list[int]) -> None:
    name = plan.version.name
    written = [folder / f"{name}-kaobako-pictures.csv"]
    written[0].write_bytes(list_pictures(plan, [str(place) for place in range(len(order))], order))
    if plan.labels is not None:
        written.append(folder / f"{name}-rxx.labels")
        with written[-1].open("wb") as stream:  # an .npy file by another name
            np.save(stream, plan.labels.vectors()[order], allow_pickle=False)
    sync_files(written)


def _checkpoint(staging: Staging, done: int, streams: dict[str, BinaryIO]) -> None:
    staging.checkpoint(done, {name: sync_stream(stream) for name, stream in streams.items()})
