"""Which source, where it lies, and the words that all sources share."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator


class SourceKind(StrEnum):
    """Where posts come from."""

    DANBOORU = "danbooru"
    FOLDER = "folder"


class Rating(StrEnum):
    """A post's rating in words, because the letter `s` changed its meaning.

    Until 2021 Danbooru's `s` was *safe*; since 2022 it is *sensitive* and the safe ones are `g`, *general*.
    """

    SAFE = "safe"
    GENERAL = "general"
    SENSITIVE = "sensitive"
    QUESTIONABLE = "questionable"
    EXPLICIT = "explicit"
    UNRATED = "unrated"  # the source has no ratings, as a folder without metadata
    UNKNOWN = "unknown"  # the source has ratings, but this one is missing or not understood


# Of several ratings of one picture the last of these counts: doubt is stricter than safe, and milder than a plain word.
MILDEST_FIRST = (
    Rating.GENERAL,
    Rating.SAFE,
    Rating.UNRATED,
    Rating.UNKNOWN,
    Rating.SENSITIVE,
    Rating.QUESTIONABLE,
    Rating.EXPLICIT,
)


class RatingVintage(StrEnum):
    """Which meaning the rating letters have."""

    AUTO = "auto"
    S_IS_SAFE = "s-is-safe"
    S_IS_SENSITIVE = "s-is-sensitive"


class Problem(StrEnum):
    """Why a row of a source has no usable post; a ledger row at the filter stage."""

    BROKEN_ROW = "broken_row"
    NO_ID = "no_id"
    DUPLICATE_ID = "duplicate_id"
    UNSAFE_PATH = "unsafe_path"
    MISSING_FILE = "missing_file"
    NO_METADATA = "no_metadata"


_PLACEHOLDER = re.compile(r"\{(folder|id|ext|md5)(?:\[(\d{1,2}):(\d{1,2})\])?\}")
_LITERAL = re.compile(r"[A-Za-z0-9_./-]*")


def parse_layout(layout: str) -> list[tuple[str, str, tuple[int, int] | None]]:
    """A template of file names as (text before it, placeholder, part of it); the last one's placeholder is "".

    Raises ValueError for a template that could name anything but a file below its folder.
    """
    parts: list[tuple[str, str, tuple[int, int] | None]] = []
    end = 0
    for match in _PLACEHOLDER.finditer(layout):
        bounds = None if match[2] is None else (int(match[2]), int(match[3]))
        if bounds is not None and (match[1] != "md5" or bounds[0] >= bounds[1]):
            raise ValueError(f"layout: {match[0]} is no part of a name; only {{md5[0:2]}} and the like are")
        parts.append((layout[end : match.start()], match[1], bounds))
        end = match.end()
    parts.append((layout[end:], "", None))
    if not all(_LITERAL.fullmatch(text) for text, _, _ in parts):
        raise ValueError(
            f"{layout!r} may hold {{folder}}, {{id}}, {{ext}}, {{md5}}, {{md5[0:2]}}, letters, digits, _ . - and /"
        )
    if not any(field in ("id", "md5") and bounds is None for _, field, bounds in parts):
        raise ValueError(f"layout: {layout!r} names all posts alike: it needs {{id}} or {{md5}}")
    if any(name.startswith(".") or not name for name in layout.split("/")):
        raise ValueError(f"layout: {layout!r} must be a path below images, without hidden, empty or .. folders")
    return parts


class SourceConfig(BaseModel):
    """Where raw pictures and metadata come from. The source is only ever read."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        field_title_generator=lambda name, _: name,  # forms show the recipe's keys
    )

    kind: SourceKind = Field(
        SourceKind.DANBOORU,
        description="danbooru: JSON-lines metadata and original/NNNN/ID.ext; folder: any folder of pictures",
        json_schema_extra={"position": 0},
    )
    root: Path = Field(
        Path("demo/booru"),
        description="Folder of the source; a relative one counts from the working directory",
        json_schema_extra={"position": 1},
    )
    metadata: str = Field(
        "",
        description="danbooru: glob of the metadata files below root, also packed (default metadata/*); "
        "folder: a CSV or Parquet file below root with a column `path` (default: no metadata)",
        json_schema_extra={"position": 2},
    )
    images: str = Field(
        "original", description="danbooru: folder of the pictures below root", json_schema_extra={"position": 3}
    )
    layout: str = Field(
        "{folder}/{id}.{ext}",
        description="danbooru: where a post's picture lies below images, of {folder}, {id}, {ext} and {md5}; "
        "{id}.{ext} is a flat folder, {md5[0:2]}/{md5[2:4]}/{md5}.{ext} the site's own, {folder}/{id}.jpg JPEGs alone",
        json_schema_extra={"position": 4},
    )
    modulus: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="danbooru: {folder} = id modulo this",
        json_schema_extra={"position": 5},
    )
    digits: int = Field(
        4,
        ge=1,
        le=9,
        description="danbooru: {folder} has at least so many digits, with zeros in front",
        json_schema_extra={"position": 6},
    )
    rating_vintage: RatingVintage = Field(
        RatingVintage.AUTO,
        description="What the letter s means. auto: sensitive once a row says g, is of 2022 or later, or does not say "
        "when it was written",
        json_schema_extra={"position": 7},
    )
    recursive: bool = Field(True, description="folder: look into sub-folders", json_schema_extra={"position": 8})

    @field_validator("layout")
    @classmethod
    def _check_layout(cls, layout: str) -> str:
        """Nothing but a file below the folder of pictures can be named."""
        parse_layout(layout)
        return layout

    @field_validator("root")
    @classmethod
    def _expand_home(cls, root: Path) -> Path:
        """`--set source.root=~/pictures` reaches us with its tilde: a shell expands it at the start of a word only."""
        return root.expanduser()
