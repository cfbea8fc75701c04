"""Upscale: every crop to exactly the size that training wants, without distortion."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import ClassVar

import pyarrow as pa
from pydantic import Field

from datasets.cache import INPUT
from datasets.pictures import encode_png
from datasets.store import Store
from models.device import best_device
from models.upscale.engine import Upscaler
from models.upscale.upconv7 import weight_name
from models.weights import get_weight
from tasks.gpu import gpu_slot
from tasks.pictures import open_blobs
from tasks.shards import ShardRef, ShardResult, measure_shard, shard_task
from tasks.stage import Facts, Shard, Stage, StageParams, Threshold
from tasks.verdicts import Verdicts

STAGE_VERSION = 2

FACTS = pa.schema(
    [
        pa.field(INPUT, pa.string(), nullable=False),
        ("blob", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("upscaled_by", pa.string()),
        ("upscale_factor", pa.float64()),
    ]
)


class Noise(StrEnum):
    """How much JPEG noise waifu2x removes while it enlarges."""

    NONE = "none"
    LEVEL_0 = "0"
    LEVEL_1 = "1"
    LEVEL_2 = "2"
    LEVEL_3 = "3"


class Fit(StrEnum):
    """What happens to a crop that is not square."""

    CROP = "crop"
    LETTERBOX = "letterbox"


class UpscaleParams(StageParams):
    """The size of the published pictures. Small crops are enlarged by waifu2x, large ones reduced by Lanczos."""

    measured: ClassVar[frozenset[str]] = frozenset({"size", "noise", "fit"})

    size: int = Field(256, ge=0, le=4096, description="Side of the published squares in pixels; 0 keeps crops as cut")
    noise: Noise = Field(Noise.NONE, description="JPEG noise that waifu2x removes: none, or 0 (little) to 3 (much)")
    fit: Fit = Field(Fit.CROP, description="A crop that is not square: take its middle, or add black bars")
    max_factor: float = Field(
        4.0, ge=1.0, description="Crops that would have to be enlarged more than this are dropped"
    )


def name_weights(params: UpscaleParams, store: Store) -> dict[str, str]:
    """The weights that this stage uses, by name, with their digests."""
    weight = get_weight(weight_name(params.noise.value))
    return {weight.name: weight.sha256}


def measure(crops: Shard, params: UpscaleParams) -> Facts:
    """Each crop at size x size pixels, as a PNG blob: one row of FACTS per distinct pixel digest.

    One picture per forward pass, so that the result cannot depend on what else is in the shard.
    """
    # how much enlarging is too much is for decide() to say
    upscaler = Upscaler(
        params.noise.value, str(best_device()), max_factor=math.inf, fit=params.fit.value, folders=crops.weights
    )
    rows = []
    for digest, rgb in open_blobs(crops, "crop_blob"):
        fitted = upscaler.upscale_to(rgb, params.size)
        side = min(rgb.shape[:2]) if params.fit is Fit.CROP else max(rgb.shape[:2])
        rows.append(
            {
                INPUT: digest,
                "blob": crops.store.blobs.put(encode_png(fitted.rgb)),
                "width": params.size,
                "height": params.size,
                "upscaled_by": fitted.method,
                "upscale_factor": round(params.size / side, 4),
            }
        )
    return Facts(pa.Table.from_pylist(rows, schema=FACTS), opened=len(rows))


THRESHOLDS = (Threshold("upscale_factor", "upscale.max_factor", "enlarged_too_much", "<="),)


def decide(crops: pa.Table, params: UpscaleParams) -> pa.Table:
    """Verdicts on crops by how much they had to be enlarged."""
    verdicts = Verdicts(crops)
    for rule in THRESHOLDS:
        verdicts.hold(rule, params)
    return verdicts.table()


STAGE = Stage(
    name="upscale",
    version=STAGE_VERSION,
    params=UpscaleParams,
    decide=decide,
    measure=measure,
    facts=FACTS,
    input_column="pixel_digest",
    weights=name_weights,
    blobs=("blob",),
    thresholds=THRESHOLDS,
    enabled=lambda params: params.size > 0,
    off_because="upscale.size is 0: crops are published as they were cut",
)


@shard_task("upscale")
def upscale_shard(shard: ShardRef) -> ShardResult:
    with gpu_slot():
        return measure_shard(STAGE, shard)
