"""metrics.jsonl in a run's folder: figures of quality, one line each, oldest first.

The training writes into it (`--metrics-every`), and so does `kaobako metrics`, at the same time if it must be. A line
says what was measured, how, and of which weights; measuring the same again replaces it.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.training.atomic import write_text

METRICS_FILE = "metrics.jsonl"

# What makes two lines the same measurement; what came out, when, how fast and on which machine does not.
SETTINGS = (
    "name", "figure", "metrics_version", "extractor_sha256", "reference_digest", "height", "width", "channels", "fakes",
    "reals", "seeds", "psi", "noise", "ema", "subset", "labels_digest", "nimg", "weights_sha256", "held_out_digest",
)  # fmt: skip


class MetricsFileError(Exception):
    """A metrics.jsonl that cannot be read; the message says where, and what to do."""


def measured_settings(line: Mapping[str, Any]) -> str:
    """What tells one measurement from another, as JSON."""
    return json.dumps([line.get(name) for name in SETTINGS])


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """All lines of a run's folder, oldest first; none where nothing was measured. An unfinished last line is left out.

    Raises MetricsFileError for a line that is no JSON object, and for a file that is no text.
    """
    path = run / METRICS_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise MetricsFileError(f"{path} is no text in UTF-8: move it away, and measure again") from error
    lines = []
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        try:
            found = json.loads(line)
        except ValueError as error:
            if not line.endswith("\n"):
                break  # cut off by a crash
            raise MetricsFileError(f"{path}, line {number} is no JSON ({error}): delete that line") from error
        if not isinstance(found, dict):
            raise MetricsFileError(f"{path}, line {number} is no JSON object: delete that line")
        lines.append(found)
    return lines


def record_metrics(run: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Add lines; an old line of the same measurement goes. Raises ValueError for NaN and infinities: JSON has none."""
    with _holding(run):
        renewed = {measured_settings(line) for line in lines}
        kept = [line for line in read_metrics(run) if measured_settings(line) not in renewed]
        _write(run, [*kept, *lines])


def forget_metrics(run: Path, nimg: int) -> None:
    """Drop what was measured after `nimg` pictures: a resumed training makes those weights anew."""
    if (run / METRICS_FILE).is_file():
        with _holding(run):
            _write(run, [line for line in read_metrics(run) if not _is_later(line.get("nimg"), nimg)])


def _is_later(measured: object, nimg: int) -> bool:
    """Whether a line says that it was measured after more pictures; others' lines may say nothing."""
    return isinstance(measured, int | float) and measured > nimg


def _write(run: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    write_text(run / METRICS_FILE, "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))


@contextmanager
def _holding(run: Path) -> Iterator[None]:
    """One writer at a time: the file is small, and written as a whole."""
    with (run / ".metrics.lock").open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
