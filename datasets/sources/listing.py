"""Listing a source: what lies there, before anything is read. It says whether there is anything new."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from datasets.digests import digest_json
from datasets.sources.config import RatingVintage, SourceConfig
from datasets.sources.files import FileList


@dataclass(frozen=True, slots=True)
class SourceListing:
    """The files of a source at one moment."""

    config: SourceConfig
    pictures: FileList  # for danbooru below config.images, for a folder below config.root
    metadata: tuple[tuple[str, str], ...]  # (path relative to config.root, stamp) of each file that holds metadata

    def stamp(self) -> str:
        """One digest that changes whenever the posts or the bytes of a picture could.

        It covers the settings of the source, and name and stamp of every picture and every file of metadata. Reading
        none of them, it costs one look at each file's entry in the file system. Equal stamps mean an equal source;
        another stamp need not mean another content, as when a file was only touched.
        """
        hasher = hashlib.sha256(digest_json(self.config.model_dump(mode="json")).encode())
        pictures = self.pictures
        outside = sorted(pictures.outside)
        # a name cannot hold a zero byte, so the joined texts are equal only when all of their parts are
        for part in (pictures.names, pictures.stamps, outside, [text for row in self.metadata for text in row]):
            hasher.update(f"\n{len(part)}\n".encode())
            hasher.update(os.fsencode("\0".join(part)))
        return hasher.hexdigest()


@dataclass(frozen=True, slots=True)
class VintageReport:
    """What the rating letter s was taken for, and why."""

    vintage: RatingVintage  # in force: never AUTO
    stated: bool  # by the settings
    inferred: RatingVintage  # what the rows say
    letters: int  # rows that are rated s
    newer: int  # rows that show that s is sensitive
    undated: int  # other rows that are rated s, and do not say when they were written
    first: str | None  # the first of the newer: where it stands, and what shows it

    def describe(self) -> dict[str, Any]:
        """The same as JSON values, for a version's lineage."""
        return {**asdict(self), "vintage": str(self.vintage), "inferred": str(self.inferred)}

    def explain(self) -> list[str]:
        """Sentences for people: what s was read as and why, and the warning; none where no row is rated s."""
        if not self.letters:
            return []
        if self.stated:
            because = "source.rating_vintage says so"
        else:
            because = self.first or ("in doubt" if self.undated else "no row shows otherwise")
        meaning = "safe" if self.vintage == RatingVintage.S_IS_SAFE else "sensitive"
        said = f"The rating s was read as {meaning}, in {self.letters} rows ({because})."
        warning = self.warning()
        return [said] if warning is None else [said, warning]

    def warning(self) -> str | None:
        """A sentence, when the settings let rows pass as safe that the rows themselves call sensitive, or when s is
        sensitive for the only reason that rows do not say when they were written."""
        if not self.letters:
            return None
        if self.vintage == RatingVintage.S_IS_SAFE and self.newer:
            return (
                f"source.rating_vintage says that s is safe, but {self.newer} rows show that it is sensitive "
                f"(the first: {self.first}). {self.letters} rows are rated s. Set source.rating_vintage=auto."
            )
        if not self.stated and self.undated and not self.newer:
            return (
                f"{self.undated} of {self.letters} rows that are rated s do not say when they were written, so s is "
                "taken for sensitive. If the dump is of 2021 or older, state source.rating_vintage=s-is-safe."
            )
        return None


@dataclass(frozen=True, slots=True)
class SourceReading:
    """What a source says."""

    posts: pa.Table  # schema POSTS, in order of post_id, in chunks that are not to be joined: see gather
    vintage: VintageReport | None  # None: the source has no rating letters
