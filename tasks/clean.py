"""Clean: what is wrong with a crop, found in one decode."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from datasets.cache import INPUT
from models.quality import COLOUR_LIMIT, measure_quality
from tasks.pictures import measure_blobs
from tasks.shards import ShardRef, ShardResult, measure_shard, shard_task
from tasks.stage import Facts, Shard, Stage, StageParams, Threshold
from tasks.verdicts import Verdicts

STAGE_VERSION = 2

FACTS = pa.schema(
    [
        pa.field(INPUT, pa.string(), nullable=False),
        ("blur", pa.float64()),
        ("contrast", pa.float64()),
        ("colours", pa.int32()),
        ("saturation", pa.float64()),
        ("tint_residual", pa.float64()),
        ("black_share", pa.float64()),
        ("white_share", pa.float64()),
        ("bars", pa.float64()),
        ("aspect", pa.float64()),
        ("native_scale", pa.float64()),
    ]
)
_GREY_SATURATION = 6.0  # mean chroma below which a toned picture is called grey, not sepia


class CleanParams(StageParams):
    """What a crop must measure to stay."""

    measured: ClassVar[frozenset[str]] = frozenset()

    min_side: int = Field(48, ge=1, description="Shortest side of a crop in pixels")
    min_tint_residual: float = Field(
        0.19,
        ge=0,
        le=1,
        description="Least share of the colour that brightness does not explain, 0 to 1; grey and sepia are near 0",
    )
    min_colours: int = Field(
        64,
        ge=0,
        le=COLOUR_LIMIT,
        description="Fewest distinct colours; the StyleGAN guide's 257 would drop sound palette pictures",
    )
    min_blur: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Least share of their strength that edges lose when blurred once more, 0 to 1; lower is blurrier",
    )
    min_contrast: float = Field(8.0, ge=0, description="Least standard deviation of brightness, 0 to 127")
    max_black_share: float | None = Field(None, ge=0, le=1, description="Largest share of nearly black pixels, 0 to 1")
    max_white_share: float | None = Field(None, ge=0, le=1, description="Largest share of nearly white pixels, 0 to 1")
    max_bars: float | None = Field(
        None, ge=0, le=1, description="Largest part of the height or width that uniform border bars take up, 0 to 1"
    )
    max_aspect: float | None = Field(None, ge=1, description="Longest side against the shortest, 1 and more")
    min_native_scale: float | None = Field(
        None, ge=0, le=1, description="Least side that detail fills, 0 to 1; 0.5 looks enlarged twofold, as blur does"
    )
    min_jpeg_quality: float | None = Field(
        None, ge=1, le=100, description="Least quality of a source that is a JPEG, 1 to 100, by its tables"
    )


def measure_pixels(rgb: np.ndarray, params: CleanParams) -> dict[str, Any]:
    """Quality of a crop, uint8 (H, W, 3): a row of FACTS but for its input."""
    return dict(vars(measure_quality(rgb)))


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
    Threshold("black_share", "clean.max_black_share", "black", "<="),
    Threshold("white_share", "clean.max_white_share", "white", "<="),
    Threshold("bars", "clean.max_bars", "bars", "<="),
    Threshold("aspect", "clean.max_aspect", "aspect", "<="),
    Threshold("native_scale", "clean.min_native_scale", "enlarged"),
    Threshold("jpeg_quality", "clean.min_jpeg_quality", "jpeg_quality"),
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
