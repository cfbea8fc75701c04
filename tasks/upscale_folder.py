"""Enlarging alone: every picture below a folder, or one file, without a store or a recipe.

What is done to one picture is in tasks/upscale_picture.py, what is remembered in tasks/upscale_ledger.py, and where
results go in tasks/upscale_names.py.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2

from datasets.atomic import make_folder, write_bytes
from datasets.errors import LockedError, SourceError
from datasets.leases import describe_holder
from datasets.lock import hold_lock, read_holder
from datasets.pictures import UnreadablePictureError
from datasets.sources.files import LINK_OUTSIDE
from models.upscale.plan import Picture, Upscaled
from tasks.upscale_ledger import (
    LEDGER_FILE,
    LOCK_FILE,
    SETTINGS_FILE,
    Ledger,
    Row,
    claim_folder,
    is_finished,
    read_ledger,
    remove_leftovers,
)
from tasks.upscale_names import check_apart, choose_outputs, list_pictures, printable_name
from tasks.upscale_picture import Enlarger, Format, Job, Order, SkippedError, encode_result, load_picture

Progress = Callable[[int, int], None]  # pictures done in this run, pictures to do

SUFFIXES: dict[Format, str] = {"png": ".png", "jpeg": ".jpg"}
_FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # of writing: no other picture would fare better
# What one picture may raise: its own defects, a full memory, what a network or a codec says of it.
_OF_ONE_PICTURE = (OSError, UnreadablePictureError, MemoryError, ValueError, RuntimeError, cv2.error)


@dataclass
class Summary:
    """What a run did."""

    out: Path
    engine: str
    pictures: int  # found
    done_before: int = 0  # finished by an earlier run
    written: int = 0
    unchanged: int = 0  # of those written: they had the wanted size already
    skipped: dict[str, str] = field(default_factory=dict)  # name -> why, in this run
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def pictures_per_second(self) -> float:
        return self.written / self.seconds if self.seconds else 0.0

    def count(self, row: Row) -> None:
        name = printable_name(row.name)
        if row.error is not None:
            self.failed[name] = row.error
        elif row.skipped is not None:
            self.skipped[name] = row.skipped
        else:
            self.written += 1
            self.unchanged += row.method == "none"


def upscale_folder(
    source: Path,
    out: Path,
    enlarger: Enlarger,
    order: Order,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> Summary:
    """Enlarge all pictures below a folder into another one, keeping names and sub-folders.

    Args:
        source: is searched with the folders in it and never written to; links that leave it are not followed, and named
            as skipped.
        out: gets the pictures, `upscale.json` (the settings, written first) and `upscale.jsonl` (a `Row` per picture).
        enlarger: models.upscale.engine.Upscaler.
        order: see `Order`. With a scale every picture is enlarged; with a size a larger one is reduced by Lanczos, and
            one that has the size already keeps its pixels (and its bytes, where they are of the wanted format).
        overwrite: begin anew where another run has been.
        progress: is told after each picture.

    A second run goes on where the first ended: what was finished, and whose source and result have not changed, is not
    opened again. A picture that cannot be read, enlarged or written is named with its reason, and stops nothing.

    Raises SourceError for folders that cannot be used so, LockedError while another run fills `out`,
    models.weights.WeightError, and OSError when nothing more can be written (a full disk).
    """
    check_apart(source, out)
    names, outside = list_pictures(source)
    outputs = choose_outputs(names, SUFFIXES[order.format])
    settings = describe_order(order, enlarger)
    make_folder(out)
    lock = out / LOCK_FILE
    try:
        with hold_lock(lock, "kaobako upscale"):
            claim_folder(out, settings, overwrite)
            remove_leftovers(out, {*outputs.values(), SETTINGS_FILE})
            summary = Summary(out, enlarger.engine, len(names) + len(outside))
            summary.skipped |= {printable_name(name): LINK_OUTSIDE for name in outside}
            todo = _find_unfinished(source, out, outputs)
            summary.done_before = len(names) - len(todo)
            jobs = (_make_job(source, name, outputs[name]) for name in todo)
            with Ledger(out / LEDGER_FILE) as ledger:
                _run(jobs, len(todo), out, enlarger, order, summary, progress, ledger)
            return summary
    except LockedError as error:
        holder = read_holder(lock)
        who = describe_holder(holder) if holder else "another process"
        raise LockedError(f"{out} is being filled by {who}: wait until it ends, or name another folder") from error


def upscale_file(source: Path, output: Path, enlarger: Enlarger, order: Order, overwrite: bool = False) -> Summary:
    """Enlarge one picture into one file; arguments and errors as `upscale_folder`. No ledger is written."""
    if not source.is_file():
        raise SourceError(f"{source} does not exist: name a picture, or a folder of pictures")
    if output.exists():
        if output.samefile(source):
            raise SourceError(f"{output} is the picture itself, and sources are never written to: name another file")
        if not overwrite:
            raise SourceError(f"{output} is there already: --overwrite replaces it, or name another file")
    describe_order(order, enlarger)  # missing weights are said at once
    make_folder(output.parent)
    job = _make_job(source.parent, source.name, output.name)
    summary = Summary(output, enlarger.engine, 1)
    _run([job], 1, output.parent, enlarger, order, summary)
    return summary


def describe_order(order: Order, enlarger: Enlarger) -> dict[str, Any]:
    """What the pixels of the results follow from, as JSON holds it; where they are computed is no part of it.

    Raises WeightError when weights are missing or damaged, for any noise level that a picture could be given.
    """
    return {
        "network": order.network,
        "noise": order.noise,
        "tta": order.tta,
        "size": order.target.size,
        "scale": order.target.scale,
        "fit": order.target.fit if order.target.size is not None else None,
        "format": order.format,
        "quality": order.quality if order.format == "jpeg" else None,
        "min_native_scale": order.min_native_scale,
        "weights": {level: list(enlarger.weights(level)) for level in order.used_levels()},
    }


def _find_unfinished(source: Path, out: Path, outputs: dict[str, str]) -> list[str]:
    """The pictures that are still to be done; one that vanished meanwhile is: it gets its row then."""
    before = read_ledger(out / LEDGER_FILE)
    unfinished = []
    for name, output in outputs.items():
        size, mtime_ns = _look(source / name)
        if not is_finished(before.get(name), output, size, mtime_ns, out):
            unfinished.append(name)
    return unfinished


def _look(path: Path) -> tuple[int, int]:
    """Size in bytes and modification time in ns; of what is not there, nothing: reading it will say why."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _make_job(source: Path, name: str, output: str) -> Job:
    """Looks at the file before it is read: should it change meanwhile, the next run will see that."""
    size, mtime_ns = _look(source / name)
    return Job(name, source / name, output, size, mtime_ns)


def _run(
    jobs: Iterable[Job],
    total: int,
    out: Path,
    enlarger: Enlarger,
    order: Order,
    summary: Summary,
    progress: Progress = lambda done, total: None,
    ledger: Ledger | None = None,
) -> None:
    """Put the jobs through the enlarger, and write down what became of each, in their order."""
    begun = time.monotonic()

    def load(job: Job) -> Picture:
        return load_picture(job, order)

    def finish(job: Job, result: Upscaled | Exception) -> Row:
        try:
            return _finish(job, result, out, enlarger, order)
        finally:
            job.forget()

    rows = enlarger.upscale_all(jobs, load, finish)
    try:
        for done, row in enumerate(rows, 1):
            if ledger is not None:
                ledger.append(row)
            summary.count(row)
            progress(done, total)
    finally:
        if (close := getattr(rows, "close", None)) is not None:
            close()  # now, not when somebody collects it: its threads would go on
        summary.seconds = time.monotonic() - begun


def _finish(job: Job, result: Upscaled | Exception, out: Path, enlarger: Enlarger, order: Order) -> Row:
    """Encode and write a result. What is wrong with this picture alone is said in its row; anything else is raised."""
    row = Row(job.name, None, job.size, job.mtime_ns, noise=job.noise, engine=enlarger.engine)
    if isinstance(result, SkippedError):
        return replace(row, skipped=str(result))
    try:
        if isinstance(result, Exception):
            raise result
        data = encode_result(job, result, order, enlarger)
    except _OF_ONE_PICTURE as error:
        return replace(row, error=_say(error))
    try:
        _write(out, job.output, data)
    except OSError as error:
        if error.errno in _FATAL:
            raise
        return replace(row, error=_say(error))
    height, width = result.rgb.shape[:2]
    return replace(
        row,
        output=job.output,
        output_bytes=len(data),
        width=width,
        height=height,
        factor=result.factor,
        method=result.method,
    )


def _write(out: Path, output: str, data: bytes) -> None:
    """Write a result in one step. Raises OSError, also where a link would lead it out of the output folder."""
    path = out / output
    if not path.parent.resolve().is_relative_to(out.resolve()):
        raise OSError(f"{path.parent} leads out of {out}: remove the link, results are written below it only")
    write_bytes(path, data)


def _say(error: Exception) -> str:
    """What went wrong, on one line."""
    if isinstance(error, MemoryError):
        return "the memory is full: try fewer --workers, or a smaller --scale"
    return " ".join(str(error).split()) or type(error).__name__
