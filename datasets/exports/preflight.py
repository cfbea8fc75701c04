"""Everything that would make an export wrong, found before a byte of it is written, and listed crop by crop."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from datasets.derived import find_derived
from datasets.digests import digest_file
from datasets.errors import StoreError
from datasets.exports.plan import ExportError, ExportPlan
from datasets.exports.reading import map_in_order
from datasets.exports.staging import explain_other, partial_folder, read_state
from datasets.labels import NO_CLASS, SEVERAL_CLASSES
from datasets.pictures import DECODER_ERRORS

_EXIF_ORIENTATION = 0x0112
_MARGIN = 64 * 1024**2  # bytes left free on the disk
# how a whole file ends: PNG's IEND chunk, JPEG's end of image
_ENDS = {"PNG": bytes.fromhex("0000000049454e44ae426082"), "JPEG": b"\xff\xd9"}
Value = TypeVar("Value")


class Kind(StrEnum):
    """What is wrong. The first ones concern the export as a whole, the others a picture."""

    EMPTY = "empty"
    DESTINATION = "destination"
    NO_SPACE = "no_space"
    UNUSED_LABEL = "unused_label"
    NOT_KEPT = "not_kept"
    MISSING_BLOB = "missing_blob"
    UNREADABLE_BLOB = "unreadable_blob"
    DAMAGED_BLOB = "damaged_blob"
    UNLIKE_MANIFEST = "unlike_manifest"
    WRONG_MODE = "wrong_mode"
    ROTATED = "rotated"
    NOT_SQUARE = "not_square"
    NOT_POWER_OF_TWO = "not_power_of_two"
    OTHER_SIZE = "other_size"
    DUPLICATE_NAME = "duplicate_name"
    NO_LABEL = "no_label"
    SEVERAL_LABELS = "several_labels"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. crop_id: None when it concerns the whole export."""

    crop_id: str | None
    kind: Kind
    detail: str


@dataclass(frozen=True, slots=True)
class Header:
    """What a blob's first bytes say, and its size on the disk. mode: Pillow's, RGB or L for what trainers read."""

    width: int
    height: int
    mode: str
    suffix: str  # .png or .jpg: what the bytes are, whatever the blob is called
    oriented: bool  # EXIF asks to turn or mirror it
    size: int


class PreflightError(ExportError):
    """An export that was refused; nothing of it was written."""

    def __init__(self, problems: list[Problem]) -> None:
        first = problems[0]
        who = f"{first.crop_id}: " if first.crop_id is not None else ""
        super().__init__(f"{count_problems(problems)}, nothing was written. {who}{first.detail}")
        self.problems = problems


def read_headers(
    plan: ExportPlan, progress: Callable[[int, int], None], verify: bool = False
) -> list[Header | Problem]:
    """One header, or what is wrong with the blob, per row. No pixel is decoded. progress(done, total) per row.

    verify: hold every blob against its digest, too, which reads them all.
    """
    found = []
    for header in map_in_order(lambda row: _read_header(plan, row, verify), range(len(plan))):
        found.append(header)
        progress(len(found), len(plan))
    return found


def _read_header(plan: ExportPlan, row: int, verify: bool) -> Header | Problem:
    crop_id, blob = plan.crop_ids[row], plan.blobs[row]
    try:
        path = plan.store.blobs.path(blob)
        size = path.stat().st_size
    except (StoreError, OSError) as error:
        return Problem(crop_id, Kind.MISSING_BLOB, str(error))
    try:
        with path.open("rb") as stream, Image.open(stream, formats=("PNG", "JPEG")) as image:
            # without the condition Pillow would decode a whole PNG in search of EXIF behind the pixels
            exif = image.getexif() if "exif" in image.info else {}
            oriented = exif.get(_EXIF_ORIENTATION, 1) not in (0, 1)
            end = _ENDS[str(image.format)]
            stream.seek(max(0, size - len(end)))
            whole = stream.read() == end
            suffix = ".png" if image.format == "PNG" else ".jpg"
            header = Header(image.width, image.height, image.mode, suffix, oriented, size)
        # bytes may follow a whole picture: only a file that is not what it is called is cut short
        if (verify or not whole) and (found := digest_file(path)) != blob:
            if whole:
                return Problem(crop_id, Kind.DAMAGED_BLOB, f"{path.name} has been changed: its bytes are {found}")
            return Problem(crop_id, Kind.UNREADABLE_BLOB, f"{path.name} is cut short, or its end was changed")
        return header
    except (*DECODER_ERRORS, Image.DecompressionBombError) as error:
        return Problem(crop_id, Kind.UNREADABLE_BLOB, f"{path.name} has no readable PNG or JPEG header: {error}")


def find_picture_problems(plan: ExportPlan, headers: list[Header | Problem], for_trainer: bool) -> list[Problem]:
    """What is wrong with pictures, names and labels, by kind and then in the order of the manifest.

    for_trainer: the format wants squares of one power of two, RGB or all grey.
    """
    problems = [header for header in headers if isinstance(header, Problem)]
    problems += _unlike_manifest(plan, headers)
    if for_trainer:
        problems += _unfit_for_trainer(plan, headers)
    problems += _not_kept(plan)
    problems += _duplicate_names(plan)
    problems += _label_problems(plan)
    if not len(plan):
        problems.append(Problem(None, Kind.EMPTY, f"{plan.version.reference} has no pictures"))
    order = {kind: place for place, kind in enumerate(Kind)}
    return sorted(problems, key=lambda problem: order[problem.kind])


def _sound(plan: ExportPlan, headers: list[Header | Problem]) -> Iterator[tuple[str, Header]]:
    for crop_id, header in zip(plan.crop_ids, headers, strict=True):
        if isinstance(header, Header):
            yield crop_id, header


def _unlike_manifest(plan: ExportPlan, headers: list[Header | Problem]) -> Iterator[Problem]:
    sizes = zip(plan.manifest["width"].to_pylist(), plan.manifest["height"].to_pylist(), strict=True)
    for crop_id, header, (width, height) in zip(plan.crop_ids, headers, sizes, strict=True):
        if isinstance(header, Header) and (header.width, header.height) != (width, height):
            detail = f"the file is {header.width}x{header.height}, the manifest says {width}x{height}"
            yield Problem(crop_id, Kind.UNLIKE_MANIFEST, detail)


def _unfit_for_trainer(plan: ExportPlan, headers: list[Header | Problem]) -> Iterator[Problem]:
    sound = list(_sound(plan, headers))
    size = most_common([(header.width, header.height) for _, header in sound])
    mode = most_common([header.mode for _, header in sound if header.mode in ("RGB", "L")])
    for crop_id, header in sound:
        said = f"{header.width}x{header.height}"
        if header.mode not in ("RGB", "L"):
            yield Problem(crop_id, Kind.WRONG_MODE, f"mode {header.mode}; trainers read RGB or L")
        elif header.mode != mode:
            yield Problem(crop_id, Kind.WRONG_MODE, f"mode {header.mode}; most pictures are {mode}")
        if header.oriented:
            yield Problem(crop_id, Kind.ROTATED, "EXIF asks to turn it; trainers do not look at EXIF")
        if header.width != header.height:
            yield Problem(crop_id, Kind.NOT_SQUARE, said)
        elif header.width < 4 or header.width & (header.width - 1):
            yield Problem(crop_id, Kind.NOT_POWER_OF_TWO, f"{said}; the side must be 4, 8, 16 ... pixels")
        if (header.width, header.height) != size and size is not None:
            yield Problem(crop_id, Kind.OTHER_SIZE, f"{said}; most pictures are {size[0]}x{size[1]}")


def _not_kept(plan: ExportPlan) -> Iterator[Problem]:
    """Pictures that a version lists without keeping them: an export has nothing to copy, or would copy the parent."""
    derived = int(find_derived(plan.manifest, plan.version.lineage).sum())
    if derived:
        detail = f"{derived} derived pictures are listed, but not kept: build with augment.materialise=true to export"
        yield Problem(None, Kind.NOT_KEPT, detail)


def most_common(values: list[Value]) -> Value | None:
    """The most frequent value, the first seen of equals; None of nothing."""
    return Counter(values).most_common(1)[0][0] if values else None


def _duplicate_names(plan: ExportPlan) -> Iterator[Problem]:
    """Names that a file system without upper and lower case would take for the same."""
    counts = Counter(name.lower() for name in plan.names)
    for crop_id, name in zip(plan.crop_ids, plan.names, strict=True):
        if counts[name.lower()] > 1:
            yield Problem(crop_id, Kind.DUPLICATE_NAME, f"{counts[name.lower()]} pictures would be called {name}")


def _label_problems(plan: ExportPlan) -> Iterator[Problem]:
    labels = plan.labels
    if labels is None:
        return
    if labels.kind == "classes":
        listed = ", ".join(labels.names)
        none = f"none of the tags {listed}" if labels.column is None else f"its {labels.column} is null"
        for crop_id, value in zip(plan.crop_ids, labels.values.tolist(), strict=True):
            if value == NO_CLASS:
                yield Problem(crop_id, Kind.NO_LABEL, none)
            elif value == SEVERAL_CLASSES:
                yield Problem(crop_id, Kind.SEVERAL_LABELS, f"more than one of the tags {listed}")
    for name in labels.unused:
        yield Problem(None, Kind.UNUSED_LABEL, f"no picture has the label {name!r}: is it spelled as in the tags?")


def find_destination_problems(out: Path, suffix: str, export: dict[str, Any]) -> list[Problem]:
    """Why an export cannot go to `out`: it is taken, cannot be written, or another export is unfinished there.

    suffix: that a single file must have; empty for folders. export: ExportPlan.describe().
    """
    found: list[str] = []
    if suffix and out.suffix != suffix:
        found.append(f"{out.name} must end in {suffix}: trainers tell archives from folders by it")
    if out.is_symlink() or out.exists():
        empty = not suffix and out.is_dir() and not out.is_symlink() and not any(out.iterdir())
        if not empty:
            found.append(f"{out} exists and holds something else. Move it away, or choose another --out.")
        elif os.path.ismount(out):
            found.append(f"{out} is a mount point. Choose a folder inside it.")
    parent = nearest_folder(out)
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        found.append(f"{parent} is not a folder that you may write to")
    try:
        state = read_state(out)
        if state is not None and state["export"] != export:
            found.append(explain_other(out, state))
    except ExportError as error:
        found.append(str(error))
    return [Problem(None, Kind.DESTINATION, text) for text in found]


def find_space_problems(out: Path, needed: int, reserved: int = 0) -> list[Problem]:
    """Whether `needed` bytes fit beside what is there; what an unfinished export holds already is counted.

    reserved: bytes of other exports that are to be written before this one.
    """
    parent = nearest_folder(out)
    if not parent.is_dir():
        return []
    there = sum(path.stat().st_blocks * 512 for path in partial_folder(out).rglob("*") if path.is_file())
    free = shutil.disk_usage(parent).free
    if needed - there + reserved + _MARGIN <= free:
        return []
    detail = (
        f"about {(needed + reserved) / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free on the disk of {parent}"
    )
    return [Problem(None, Kind.NO_SPACE, detail)]


def nearest_folder(out: Path) -> Path:
    """The closest existing ancestor of `out`."""
    return next(parent for parent in out.parents if parent.exists())


def count_problems(problems: list[Problem]) -> str:
    """`1 problem`, `2 problems`."""
    return f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
