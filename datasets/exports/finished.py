"""Whether an export is there already: the same one, with every file that it had."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from datasets.exports.base import PROVENANCE, Exporter
from datasets.exports.plan import ExportPlan
from datasets.exports.preflight import Kind, Problem
from datasets.exports.staging import size_of

_SUFFIXES = (".png", ".jpg")


def find_missing(plan: ExportPlan, exporter: Exporter) -> list[str] | None:
    """Files of the finished export at plan.out that are gone or have another size; none of them means that it is whole.

    None when something else is there, or nothing. Bytes are not read: a changed file of the same size is not seen.
    """
    if exporter.suffix:
        return _look_into_zip(plan, exporter)
    try:
        said = json.loads((plan.out / exporter.provenance_name(plan)).read_bytes())
    except (OSError, ValueError):
        return None
    if not _is_said(said, plan, exporter) or not isinstance(said.get("sizes"), dict):
        return None
    missing = [name for name, size in said["sizes"].items() if size_of(plan.out / name) != size]
    for stem, size in exporter.picture_sizes(plan).items():
        found = [size_of(plan.out / f"{stem}{suffix}") for suffix in _SUFFIXES]
        if not any(one is not None and size in (None, one) for one in found):
            missing.append(stem)
    return missing


def _look_into_zip(plan: ExportPlan, exporter: Exporter) -> list[str] | None:
    try:
        with zipfile.ZipFile(plan.out) as archive:
            said = json.loads(archive.read(PROVENANCE))
            members = archive.infolist()
            if not _is_said(said, plan, exporter):
                return None
            missing = sorted({*exporter.member_names(plan)} - {member.filename for member in members})
            # bytes that are gone from the middle move what the directory says of the members before them
            if members[0].header_offset != 0:
                missing.append(members[0].filename)
            return missing
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _is_said(said: Any, plan: ExportPlan, exporter: Exporter) -> bool:
    export = plan.describe(exporter.settings(plan))
    return isinstance(said, dict) and {key: said.get(key) for key in export} == export


def missing_problem(out: Path, missing: list[str]) -> Problem:
    """That the export was there, and is not whole any more."""
    files = "1 file is" if len(missing) == 1 else f"{len(missing)} files are"
    detail = f"{out} is this export, but {files} missing or of another size, {missing[0]} first: move it away"
    return Problem(None, Kind.DESTINATION, detail)
