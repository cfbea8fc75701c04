"""Which source, where it lies, and the words that all sources share."""

from __future__ import annotations

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
        description="danbooru: glob of the metadata files below root (default metadata/*); "
        "folder: a CSV or Parquet file below root with a column `path` (default: no metadata)",
        json_schema_extra={"position": 2},
    )
    images: str = Field(
        "original", description="danbooru: folder of the pictures below root", json_schema_extra={"position": 3}
    )
    modulus: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="danbooru: folder = id modulo this, in four digits",
        json_schema_extra={"position": 4},
    )
    rating_vintage: RatingVintage = Field(
        RatingVintage.AUTO,
        description="What the letter s means. auto: sensitive once a row says g or is of 2022 or later",
        json_schema_extra={"position": 5},
    )
    recursive: bool = Field(True, description="folder: look into sub-folders", json_schema_extra={"position": 6})

    @field_validator("root")
    @classmethod
    def _expand_home(cls, root: Path) -> Path:
        """`--set source.root=~/pictures` reaches us with its tilde: a shell expands it at the start of a word only."""
        return root.expanduser()
