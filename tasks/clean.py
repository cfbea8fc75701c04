"""Clean: what is wrong with a crop, found in one decode."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from datasets.cache import INPUT
from models.quality import measure_quality
from tasks.pictures import measure_blobs
from tasks.shards import ShardRef, ShardResult, measure_shard, shard_task
from tasks.stage import Facts, Shard, Stage, StageParams, Threshold, Verdicts

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


def measure_pixels(rgb: np.ndarray, params: CleanParams) -> dict[str, Any]:
    """Quality of a crop, uint8 (H, W, 3): a row of FACTS but for its input."""
    return asdict(measure_quality(rgb))


def measure(crops: Shard, params: CleanParams) -> Facts:
    """Quality of each crop: one row of FACTS per distinct pixel digest."""
    return measure_blobs(crops, params, measure_pixels, FACTS)


THRESHOLDS = (
    Threshold("box_w", "clean.min_side", "too_small"),
    Threshold("box_h", "clean.min_side", "too_small"),
    Threshold("tint_residual", "clean.min_tint_residual"),  # the reason is grey or toned
    Threshold("colours", "clean.min_colours", "few_colours"),
    Threshold("blur", "clean.min_blur", "blurred"),
    Threshold("contrast", "clean.min_contrast", "flat"),
)


def decide(crops: pa.Table, params: CleanParams) -> pa.Table:
    """Verdicts on crops by their quality; the first broken rule is the reason."""
    verdicts = Verdicts(crops)
    toned = np.where(verdicts.numbers("saturation") < _GREY_SATURATION, "grey", "toned").astype(object)
    for rule in THRESHOLDS:
        verdicts.hold(rule, params, None if rule.reason else toned)
    return verdicts.table()


STAGE = Stage(
    name="clean",
    version=STAGE_VERSION,
    params=CleanParams,
    decide=decide,
    measure=measure,
    facts=FACTS,
    measure_pixels=measure_pixels,
    input_column="pixel_digest",
    thresholds=THRESHOLDS,
)


@shard_task("clean")
def clean_shard(shard: ShardRef) -> ShardResult:
    return measure_shard(STAGE, shard)
