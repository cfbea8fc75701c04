"""The store: where blobs, measurements, decisions, versions and runs lie (DESIGN section 5)."""

from __future__ import annotations

import re
from pathlib import Path

from datasets.blobs import BlobFolder
from datasets.errors import StoreError
from datasets.thumbnails import ThumbnailFolder

DATASET_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,126}")
VERSION_FOLDER = re.compile(r"v(\d{4,})")
_REFERENCE = re.compile(r"(?P<name>[^@]+)(?:@v?(?P<number>\d+))?")


class Store:
    """A folder with everything that Kaobako keeps. Paths inside it are relative, so it can be moved."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).expanduser()
        self.blobs = BlobFolder(self.root / "blobs")

    @property
    def thumbnails(self) -> ThumbnailFolder:
        return ThumbnailFolder(self.root / "thumbnails")

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def metadata_cache(self) -> Path:
        """Converted metadata of sources; like all of the cache, it may be deleted at any time."""
        return self.cache / "metadata-1"

    @property
    def decisions(self) -> Path:
        return self.root / "decisions"

    @property
    def weights(self) -> Path:
        return self.root / "weights"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def run(self, name: str) -> Path:
        """The folder of a training. Raises StoreError for a name that is not a plain word."""
        if not RUN_NAME.fullmatch(name):
            raise StoreError(f"{name!r} is not the id of a run: use letters, digits, -, _ and ., not a path")
        return self.runs / name

    def dataset(self, name: str) -> Path:
        """The folder of a dataset's versions. Raises StoreError for a name that is not a plain word."""
        if not DATASET_NAME.fullmatch(name):
            raise StoreError(
                f"{name!r} is not a dataset name: use lower-case letters, digits, - and _, not - or _ first"
            )
        return self.root / "datasets" / name

    def dataset_names(self) -> list[str]:
        folder = self.root / "datasets"
        return sorted(p.name for p in folder.iterdir() if DATASET_NAME.fullmatch(p.name)) if folder.exists() else []

    def version_numbers(self, name: str) -> list[int]:
        """The published versions of a dataset, ascending."""
        folder = self.dataset(name)
        if not folder.exists():
            return []
        numbers = [int(m[1]) for p in folder.iterdir() if (m := VERSION_FOLDER.fullmatch(p.name))]
        return sorted(numbers)

    def version_folder(self, name: str, number: int) -> Path:
        return self.dataset(name) / f"v{number:04d}"

    def resolve(self, reference: str) -> tuple[str, int]:
        """`faces@v7`, `faces@7`, or `faces` (its newest version) as a name and a number that exist.

        Raises StoreError that lists what there is.
        """
        match = _REFERENCE.fullmatch(reference)
        name = match["name"] if match else reference
        numbers = self.version_numbers(name)
        if not numbers:
            known = ", ".join(self.dataset_names()) or "none"
            raise StoreError(
                f"no dataset {name!r} in the store {self.root} (datasets there: {known}). "
                "Name the store with --store or KAOBAKO_STORE, or build one with `kaobako curate RECIPE`."
            )
        number = int(match["number"]) if match and match["number"] else numbers[-1]
        if number not in numbers:
            raise StoreError(f"{name} has no version {number}; there are " + ", ".join(f"v{n}" for n in numbers))
        return name, number
