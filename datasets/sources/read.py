"""Reading a source: the one door for all kinds."""

from __future__ import annotations

import logging
from pathlib import Path, PurePosixPath

import pyarrow as pa

from datasets.digests import digest_columns
from datasets.errors import SourceError
from datasets.sources import danbooru, folder
from datasets.sources.config import SourceConfig, SourceKind
from datasets.sources.danbooru.convert import Told
from datasets.sources.listing import SourceListing, SourceReading

_LISTERS = {SourceKind.DANBOORU: danbooru.list_source, SourceKind.FOLDER: folder.list_source}
_LOG = logging.getLogger(__name__)
_IDENTITY = (  # whatever the filter judges by
    "post_id",
    "source_path",
    "rating",
    "score",
    "favourites",
    "tags",
    "extension",
    "declared_width",
    "declared_height",
    "deleted",
    "banned",
    "parent_id",
    "created_at",
    "file_bytes",
    "problem",
)


def list_source(config: SourceConfig) -> SourceListing:
    """The files of a source: one look at the file system, no file is opened.

    Raises SourceError when there is nothing to read.
    """
    return _LISTERS[config.kind](config)


def stamp_source(config: SourceConfig) -> str:
    """The digest of a source's listing: equal to the last one's, there is nothing new. See SourceListing.stamp.

    Raises SourceError when there is nothing to read.
    """
    return list_source(config).stamp()


def read_source(
    config: SourceConfig, listing: SourceListing | None = None, cache: Path | None = None, told: Told | None = None
) -> SourceReading:
    """What the source says of its posts, and how its ratings were understood. Opens no picture; logs a warning of the
    vintage.

    listing: of this config, when the source was listed already: then it is not listed again, and what the table says of
    files fits the listing's stamp. cache: a folder where converted metadata is kept; it may be deleted at any time, and
    None keeps nothing. told(name, done, total): how many bytes of a metadata file were converted.
    Raises SourceError when there is nothing to read, OSError.
    """
    listing = listing or list_source(config)
    if config.kind is SourceKind.FOLDER:
        return SourceReading(folder.read_posts(listing), None)
    reading = danbooru.read_source(listing, cache, told)
    if reading.vintage is not None and (warning := reading.vintage.warning()) is not None:
        _LOG.warning(warning)
    return reading


def read_posts(config: SourceConfig, listing: SourceListing | None = None, cache: Path | None = None) -> pa.Table:
    """What the source says of its posts: a POSTS table in order of post_id. As read_source, which says more."""
    return read_source(config, listing, cache).posts


def digest_posts(posts: pa.Table) -> str:
    """The digest of what a source said, for a version's lineage."""
    return digest_columns(posts, _IDENTITY)


def locate(root: Path, source_path: str) -> Path:
    """The file of a post. Raises SourceError for a path that would leave the root."""
    relative = PurePosixPath(source_path)
    if relative.is_absolute() or ".." in relative.parts:
        raise SourceError(f"{source_path!r} leaves the source folder {root}")
    return root / relative
