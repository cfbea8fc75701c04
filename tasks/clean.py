"""Clean: what is wrong with a crop, found in one decode."""

from __future__ import annotations

from dataclasses import asdict
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from datasets.cache import INPUT
from models.quality import measure_quality
from tasks.pictures import open_blobs
from tasks.shards import ShardRef, ShardResult, measure_shard, shard_task
from tasks.stage import Facts, Shard, Stage, StageParams, Verdicts

STAGE_VERSION = 1

FACTS = pa.schema(
    [
        pa.field(INPUT, pa.string(), nullable=False),
        ("blur", pa.float64()),
        ("contrast", pa.float64()),
        ("colours", pa.int32()),
        ("saturation", pa.float64()),
        ("tint_residual", pa.float64()),
    ]
)
_GREY_SATURATION = 6.0  # mean chroma below which a toned picture is called grey, not sepia


class CleanParams(StageParams):
    """What a crop must measure to stay."""

    measured: ClassVar[frozenset[str]] = frozenset()

    min_side: int = Field(48, ge=1, description="Shortest side of a crop in pixels")
    min_tint_residual: float = Field(
        2.5, ge=0, description="Colour that brightness does not explain; grey, RGB-coded grey and sepia are near 0"
    )
    min_colours: int = Field(
        64, ge=0, description="Fewest distinct colours; the StyleGAN guide's 257 would drop sound palette pictures"
    )
    min_blur: float = Field(60.0, ge=0, description="Least variance of the Laplacian at 256 px; lower is blurrier")
    min_contrast: float = Field(8.0, ge=0, description="Least standard deviation of brightness, 0 to 127")


def measure(crops: Shard, params: CleanParams) -> Facts:
    """Quality of each crop: one row of FACTS per distinct pixel digest."""
    rows = [{INPUT: digest, **asdict(measure_quality(rgb))} for digest, rgb in open_blobs(crops, "crop_blob")]
    return Facts(pa.Table.from_pylist(rows, schema=FACTS), opened=len(rows))


def decide(crops: pa.Table, params: CleanParams) -> pa.Table:
    """Verdicts on crops by their quality; the first broken rule is the reason."""
    verdicts = Verdicts(crops)
    for side in ("width", "height"):
        verdicts.below(side, params.min_side, "too_small", "clean.min_side")
    verdicts.drop(
        verdicts.numbers("tint_residual") < params.min_tint_residual,
        np.where(verdicts.numbers("saturation") < _GREY_SATURATION, "grey", "toned").astype(object),
        parameter="clean.min_tint_residual",
        measurement="tint_residual",
        threshold=params.min_tint_residual,
    )
    verdicts.below("colours", params.min_colours, "few_colours", "clean.min_colours")
    verdicts.below("blur", params.min_blur, "blurred", "clean.min_blur")
    verdicts.below("contrast", params.min_contrast, "flat", "clean.min_contrast")
    return verdicts.table()


STAGE = Stage(
    name="clean",
    version=STAGE_VERSION,
    params=CleanParams,
    decide=decide,
    measure=measure,
    facts=FACTS,
    input_column="pixel_digest",
)


@shard_task("clean")
def clean_shard(shard: ShardRef) -> ShardResult:
    return measure_shard(STAGE, shard)
