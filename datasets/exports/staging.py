"""Where an export grows until it is whole: a hidden folder beside its final place, with a note of how far it is.

`.<name>.partial/content/` holds what was written, `.<name>.partial/.kaobako-export.json` says of which version and
settings it is, and how many pictures are surely on the disk. A killed export goes on there; one rename ends it.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO

from datasets.atomic import sync_folder, write_text
from datasets.exports.plan import ExportError

STATE_FILE = ".kaobako-export.json"
CONTENT = "content"
_HALF_WRITTEN = ".*.tmp"  # what a killed atomic write leaves; nothing of an export begins with a dot
CHECKPOINT_BYTES = 256 * 1024**2  # written between two syncs: what a kill can cost at most
CHECKPOINT_PICTURES = 2000


def partial_folder(out: Path) -> Path:
    """The hidden folder in which the export to `out` grows."""
    return out.with_name(f".{out.name}.partial")


def read_state(out: Path) -> dict[str, Any] | None:
    """The note of an unfinished export to `out`; None when there is none. Raises ExportError for a broken note.

    A note without the folder that it speaks of says nothing: what was written there is elsewhere, or gone.
    """
    path = partial_folder(out) / STATE_FILE
    if not (path.parent / CONTENT).is_dir():
        return None
    try:
        state = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} cannot be read ({error}). Delete {path.parent} and export again.") from error
    if not isinstance(state, dict) or not {"export", "done", "files"} <= state.keys():
        raise ExportError(f"{path} is no note of an export. Delete {path.parent} and export again.")
    return state


class Staging:
    """An export that is being written.

    Attributes:
        content: the folder that is filled; the export itself, or (for a single file) the folder around it.
        done: pictures that are surely written, in the order of the export.
        files: whatever the format must know of them: sizes of growing files, finished shards.
    """

    def __init__(self, out: Path, export: dict[str, Any]) -> None:
        """Begin, or go on, under the caller's lock. export: ExportPlan.describe().

        Raises ExportError when another export is unfinished here.
        """
        self.out = out
        self.folder = partial_folder(out)
        self.content = self.folder / CONTENT
        state = read_state(out)
        if state is not None and state["export"] != export:
            raise ExportError(explain_other(out, state))
        self.export = export
        self.done: int = state["done"] if state else 0
        self.files: dict[str, Any] = state["files"] if state else {}
        self._pictures = 0
        self._bytes = 0
        if state is None:
            if self.content.exists():
                shutil.rmtree(self.content)  # killed before its first note: nothing in it is known to be whole
            self.content.mkdir(parents=True)
            self.checkpoint(0, {})
        for leftover in self.content.rglob(_HALF_WRITTEN):
            leftover.unlink()

    def require_files(self, sizes: dict[str, int]) -> None:
        """See that what the note says is written is still here. sizes: bytes of each file, by its path in `content`.

        Raises ExportError when one is gone or has another size.
        """
        wrong = [name for name, size in sizes.items() if size_of(self.content / name) != size]
        if wrong:
            raise ExportError(
                f"{self.content} lacks {len(wrong)} of {len(sizes)} files that were there, or they were changed, "
                f"{wrong[0]} first. Delete {self.folder} and export again."
            )

    def checkpoint(self, done: int, files: dict[str, Any]) -> None:
        """Note that `done` pictures are on the disk. The caller has synced them."""
        self.done, self.files = done, files
        self._pictures = self._bytes = 0
        state = {"export": self.export, "done": done, "files": files}
        write_text(self.folder / STATE_FILE, json.dumps(state, indent=1, ensure_ascii=False) + "\n")

    def is_due(self, size: int) -> bool:
        """Count one more written picture of `size` bytes; whether it is time for a checkpoint."""
        self._pictures += 1
        self._bytes += size
        return self._bytes >= CHECKPOINT_BYTES or self._pictures >= CHECKPOINT_PICTURES

    def open_growing(self, name: str) -> BinaryIO:
        """A file that grows by appending, cut back to what the last checkpoint knows of it (`files[name]` bytes).

        Raises ExportError when it is shorter than that: it was changed since.
        """
        path = self.content / name
        size = int(self.files.get(name, 0))
        stream = path.open("r+b" if path.exists() else "w+b")
        if stream.seek(0, os.SEEK_END) < size:
            stream.close()
            raise ExportError(f"{path} lacks bytes that were there. Delete {self.folder} and export again.")
        stream.truncate(size)
        stream.seek(size)
        return stream

    def publish(self, built: Path) -> None:
        """Make `built` (the content folder, or a file in it) appear as `out`. What is left here is the caller's."""
        _sync_tree(built)
        if self.out.is_dir() and built.is_dir():
            self.out.rmdir()  # the preflight saw it empty; anything put there since makes this fail
        if self.out.exists():
            raise ExportError(f"{self.out} has come into being meanwhile: move it away and run the same export again.")
        # without its note a killed export starts over; with it, one that has moved away already would be gone on with
        (self.folder / STATE_FILE).unlink()
        sync_folder(self.folder)
        try:
            built.rename(self.out)
        except OSError:
            self.checkpoint(self.done, self.files)
            raise
        sync_folder(self.out.parent)


def size_of(path: Path) -> int | None:
    """The bytes of a plain file; None when there is none."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None


def explain_other(out: Path, state: dict[str, Any]) -> str:
    """That an unfinished export is in the way, and what to do."""
    export = state["export"]
    return (
        f"{partial_folder(out)} holds an unfinished export of {export.get('version')} as {export.get('format')} "
        f"with other settings ({state['done']} pictures done). Finish that one, delete the folder, or choose another "
        "--out."
    )


def sync_stream(stream: BinaryIO) -> int:
    """Bring a file's bytes to the disk; its size."""
    stream.flush()
    os.fsync(stream.fileno())
    return stream.tell()


def sync_files(paths: list[Path]) -> None:
    """Bring finished files, and the folders that name them, to the disk."""
    for path in paths:
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    for folder in sorted({path.parent for path in paths}):
        sync_folder(folder)


def _sync_tree(built: Path) -> None:
    """The folders of the export; its files were synced by their writers."""
    if built.is_dir():
        for folder, _, _ in os.walk(built):
            sync_folder(Path(folder))
