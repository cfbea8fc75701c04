"""Danbooru dumps and what looks like them: JSON lines of metadata of every vintage, and a folder of pictures.

Lines of JSON (`rows.py`), whatever they are packed in (`blocks.py`), are converted once (`convert.py`), and become
posts with the pictures' listing (`posts.py`). A row that is broken, lies outside the folder, or has no file stays in
the table with its problem, so that the ledger can name it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from datasets.errors import SourceError
from datasets.sources.config import RatingVintage, SourceConfig
from datasets.sources.danbooru.convert import Converted, Told, read_files
from datasets.sources.danbooru.fields import read_rating, read_whole
from datasets.sources.danbooru.posts import build_posts
from datasets.sources.files import list_files, stamp_file
from datasets.sources.listing import SourceListing, SourceReading, VintageReport

__all__ = ["list_source", "metadata_files", "read_rating", "read_source", "read_whole"]


def list_source(config: SourceConfig) -> SourceListing:
    """The files of a dump and of its metadata, none of them read. Raises SourceError when there is no metadata."""
    metadata = metadata_files(config)
    stamps = tuple((path.relative_to(config.root).as_posix(), stamp_file(path)) for path in metadata)
    return SourceListing(config, list_files(config.root / config.images), stamps)


def read_source(listing: SourceListing, cache: Path | None = None, told: Told | None = None) -> SourceReading:
    """All posts of a dump, and the vintage of its ratings.

    cache: where converted metadata is kept (None: nowhere); see convert.py. told(name, done, total): bytes of a
    metadata file that were converted. Raises SourceError, OSError.
    """
    if cache is None:
        with tempfile.TemporaryDirectory(prefix="kaobako-metadata-") as folder:
            return read_source(listing, Path(folder), told)
    config = listing.config
    files = [(name, config.root / name) for name, _ in listing.metadata]
    try:
        converted = read_files(files, cache, told)
    except FileNotFoundError as error:
        raise SourceError(f"{error.filename} is gone. Was the metadata moved meanwhile? Run this again.") from error
    vintage = report_vintage(config, converted)
    return SourceReading(build_posts(config, listing.pictures, converted, vintage.vintage), vintage)


def report_vintage(config: SourceConfig, converted: list[Converted]) -> VintageReport:
    """What `s` means: as stated, or sensitive as soon as any row of any file shows it, or leaves it open.

    The site renamed its ratings in January 2022. A slice of newer rows may hold no g, so the dates count too. In doubt,
    where a row that is rated s does not say when it was written, `s` is sensitive, which drops more than is wanted but
    lets nothing through.
    """
    newer = sum(file.evidence.newer for file in converted)
    undated = sum(file.evidence.undated for file in converted)
    first = next((f"{file.where}: {file.evidence.why}" for file in converted if file.where is not None), None)
    inferred = RatingVintage.S_IS_SENSITIVE if newer or undated else RatingVintage.S_IS_SAFE
    stated = config.rating_vintage is not RatingVintage.AUTO
    return VintageReport(
        vintage=config.rating_vintage if stated else inferred,
        stated=stated,
        inferred=inferred,
        letters=sum(file.evidence.letters for file in converted),
        newer=newer,
        undated=undated,
        first=first,
    )


def metadata_files(config: SourceConfig) -> list[Path]:
    """The metadata files, by name. Raises SourceError when there are none."""
    pattern = config.metadata or "metadata/*"
    if not config.root.is_dir():
        raise SourceError(
            f"the source folder {config.root} does not exist. Set source.root to your dump, "
            "or draw a demo board with `kaobako booru demo/booru`."
        )
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise SourceError(f"source.metadata must be a glob below {config.root}, not {pattern!r}")
    paths = sorted(p for p in config.root.glob(pattern) if p.is_file() and not p.name.startswith("."))
    if not paths:
        raise SourceError(
            f"no metadata files match {pattern!r} below {config.root}. Set source.metadata to a glob that does, "
            "or source.kind=folder for pictures without metadata."
        )
    return paths
