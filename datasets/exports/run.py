"""An export from its plan to its final place: look, list what is wrong, write, publish."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from datasets.errors import LockedError
from datasets.exports.base import Exporter, Job
from datasets.exports.finished import find_missing, missing_problem
from datasets.exports.folder import PlainFolder
from datasets.exports.format import Format
from datasets.exports.hf_parquet import HuggingFaceParquet
from datasets.exports.imagefolder import ImageFolder
from datasets.exports.pictures import PictureFolder
from datasets.exports.plan import ExportError, ExportPlan
from datasets.exports.preflight import (
    Header,
    PreflightError,
    Problem,
    find_destination_problems,
    find_picture_problems,
    find_space_problems,
    read_headers,
)
from datasets.exports.staging import Staging, partial_folder, read_state
from datasets.exports.stylegan_zip import StyleGanZip
from datasets.exports.tfrecord import StyleGanRecords
from datasets.exports.webdataset import WebDataset
from datasets.lock import hold_lock

EXPORTERS: dict[Format, type[Exporter]] = {
    Format.STYLEGAN: StyleGanZip,
    Format.TFRECORD: StyleGanRecords,
    Format.WEBDATASET: WebDataset,
    Format.IMAGEFOLDER: ImageFolder,
    Format.PARQUET: HuggingFaceParquet,
    Format.FOLDER: PlainFolder,
}


def _ignore(done: int, total: int) -> None:
    del done, total


@dataclass(frozen=True)
class Preflight:
    """What a look at an export found.

    problems: everything that is wrong; empty means that it can be written. headers: one per row when nothing is wrong.
    bytes: what it will take on the disk, about. finished: it is there already, whole. resumed_from: pictures that an
    unfinished export of the same version and settings holds.
    """

    problems: list[Problem]
    headers: list[Header]
    bytes: int
    finished: bool
    resumed_from: int


@dataclass(frozen=True)
class Exported:
    """What an export did. pictures: in it. resumed_from: there before. linked: hard links, for formats of files."""

    pictures: int
    resumed_from: int
    linked: int | None
    already_there: bool


def check_export(
    plan: ExportPlan, progress: Callable[[int, int], None] = _ignore, verify: bool = False, reserved: int = 0
) -> Preflight:
    """Find everything that is wrong with an export, without writing. progress(done, total) per picture looked at.

    verify: read every blob whole, and list all that are damaged. Else only their beginnings and ends are looked at,
    and the first one that turns out damaged stops the writing. reserved: bytes that other exports will take before it.
    """
    exporter = EXPORTERS[plan.format]()
    export = plan.describe(exporter.settings(plan))
    missing = find_missing(plan, exporter)
    if missing == []:
        return Preflight([], [], 0, finished=True, resumed_from=len(plan))
    if missing:
        problems = [missing_problem(plan.out, missing)]
    else:
        problems = find_destination_problems(plan.out, exporter.suffix, export)
    looked = read_headers(plan, progress, verify)
    problems += find_picture_problems(plan, looked, exporter.for_trainer)
    headers = [header for header in looked if isinstance(header, Header)]
    needed = exporter.estimate(plan, headers)
    problems += find_space_problems(plan.out, needed, reserved)
    done = 0
    if not problems and (state := read_state(plan.out)) is not None:
        done = int(state["done"])
    return Preflight(problems, headers, needed, finished=False, resumed_from=done)


def export_version(
    plan: ExportPlan,
    progress: Callable[[int, int], None] = _ignore,
    checked: Preflight | None = None,
) -> Exported:
    """Write an export, or go on with a killed one; the same plan gives the same bytes.

    progress(done, total): pictures written. checked: from check_export, to look only once. Under plan.out there is
    nothing until everything is written and synced. Raises PreflightError, before anything is written, when something
    is wrong; ExportError for a blob that turns out damaged, or when another process writes there; OSError for a full
    disk. Mend it and call again: what was written stays in the hidden folder beside plan.out.
    """
    checked = checked if checked is not None else check_export(plan)
    if checked.problems:
        raise PreflightError(checked.problems)
    if checked.finished:
        return Exported(len(plan), len(plan), linked=None, already_there=True)
    exporter = EXPORTERS[plan.format]()
    folder = partial_folder(plan.out)
    with ExitStack() as stack:
        try:
            lease = stack.enter_context(hold_lock(folder / "lock.json", f"export {plan.version.reference}"))
        except LockedError as error:
            raise ExportError(
                f"another process is exporting to {plan.out}: wait for it to end, or choose another --out."
            ) from error
        staging = Staging(plan.out, plan.describe(exporter.settings(plan)))
        resumed_from = staging.done
        built = exporter.write(Job(plan, checked.headers, staging, progress))
        lease.ensure_held()
        staging.publish(built)
    shutil.rmtree(folder)
    linked = exporter.linked if isinstance(exporter, PictureFolder) else None
    return Exported(len(plan), resumed_from, linked, already_there=False)
