"""Reading a source: the one door for all kinds."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pyarrow as pa

from datasets.digests import digest_rows
from datasets.errors import SourceError
from datasets.sources import danbooru, folder
from datasets.sources.config import SourceConfig, SourceKind
from datasets.sources.listing import SourceListing

_LISTERS = {SourceKind.DANBOORU: danbooru.list_source, SourceKind.FOLDER: folder.list_source}
_READERS = {SourceKind.DANBOORU: danbooru.read_posts, SourceKind.FOLDER: folder.read_posts}
_IDENTITY = (
    "post_id",
    "source_path",
    "rating",
    "score",
    "tags",
    "extension",
    "deleted",
    "banned",
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


def read_posts(config: SourceConfig, listing: SourceListing | None = None) -> pa.Table:
    """What the source says of its posts: a POSTS table in order of post_id. Opens no picture.

    listing: of this config, when the source was listed already: then it is not listed again, and what the table says of
    files fits the listing's stamp. Raises SourceError when there is nothing to read.
    """
    return _READERS[config.kind](listing or list_source(config))


def digest_posts(posts: pa.Table) -> str:
    """The digest of what a source said, for a version's lineage."""
    return digest_rows(posts, _IDENTITY, order_by="post_id")


def locate(root: Path, source_path: str) -> Path:
    """The file of a post. Raises SourceError for a path that would leave the root."""
    relative = PurePosixPath(source_path)
    if relative.is_absolute() or ".." in relative.parts:
        raise SourceError(f"{source_path!r} leaves the source folder {root}")
    return root / relative
