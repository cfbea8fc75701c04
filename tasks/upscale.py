"""Upscale: every crop to exactly the size that training wants, without distortion."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from datasets.cache import INPUT
from datasets.pictures import encode_jpeg, encode_png
from datasets.store import Store
from models.device import best_device
from models.upscale.catalogue import NETWORKS, weight_names
from models.upscale.engine import Picture, Target, Upscaled, Upscaler, UpscaleSettings
from models.upscale.noise import Noise, choose_noise
from models.weights import WeightError, digest_file, get_weight, require_weights
from tasks.gpu import gpu_slot
from tasks.pictures import open_blob
from tasks.shards import ShardRef, ShardResult, measure_shard, shard_task
from tasks.stage import Facts, Shard, Stage, StageParams, Threshold
from tasks.verdicts import Verdicts

STAGE_VERSION = 3

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


class Network(StrEnum):
    """Who enlarges (docs/upscaling.md compares them)."""

    UPCONV7 = "upconv7"
    CUNET = "cunet"
    UPRESNET10 = "upresnet10"
    UPCONV7_CHAINER = "upconv7-chainer"
    RESNET10 = "resnet10"
    VGG7 = "vgg7"
    ANIME_VIDEO_X2 = "realesr-animevideov3"
    ANIME_VIDEO_X3 = "realesr-animevideov3-x3"
    ANIME_VIDEO_X4 = "realesr-animevideov3-x4"
    ESRGAN_ANIME = "realesrgan-x4plus-anime"


class Fit(StrEnum):
    """What happens to a crop that is not square."""

    CROP = "crop"
    LETTERBOX = "letterbox"


class Codec(StrEnum):
    """How published pictures are stored."""

    PNG = "png"
    JPEG = "jpeg"


class UpscaleParams(StageParams):
    """The size of the published pictures. Small crops are enlarged by a network, large ones reduced by Lanczos."""

    measured: ClassVar[frozenset[str]] = frozenset(
        {"size", "network", "network_file", "noise", "tta", "fit", "codec", "jpeg_quality"}
    )

    size: int = Field(256, ge=0, le=4096, description="Side of the published squares in pixels; 0 keeps crops as cut")
    network: Network = Field(Network.UPCONV7, description="Who enlarges: upconv7 is fast, cunet better")
    network_file: str | None = Field(
        None, description="A network of yours instead, of the ESRGAN family: a .safetensors or .pth file"
    )
    noise: Noise = Field(
        Noise.AUTO, description="JPEG noise to remove: none, 0 (little) to 3 (much), or auto: by each source's quality"
    )
    tta: bool = Field(
        False, description="Enlarge each crop in 8 positions and take the mean: a little better, 8x slower"
    )
    fit: Fit = Field(Fit.CROP, description="A crop that is not square: take its middle, or add black bars")
    codec: Codec = Field(Codec.PNG, description="How published pictures are stored: png (lossless) or jpeg")
    jpeg_quality: int = Field(95, ge=1, le=100, description="Quality of published JPEGs; png has none")
    max_factor: float = Field(
        4.0, ge=1.0, description="Crops that would have to be enlarged more than this are dropped"
    )
    min_native_scale: float | None = Field(
        0.7,
        ge=0,
        le=1,
        description="Crops that would be enlarged, but look as if they had been already, are dropped: 0.5 looks "
        "enlarged twofold; none keeps them",
    )

    def settings(self) -> UpscaleSettings:
        """What the engine is told. On a CPU each shard has one core: shards run side by side."""
        file = None if self.network_file is None else Path(self.network_file)
        on_cpu = best_device().type == "cpu"
        return UpscaleSettings(
            network=self.network.value,
            tta=self.tta,
            model_file=file,
            workers=1 if on_cpu else 0,
            precision="float32" if on_cpu else "auto",  # what a busy CPU times today may differ tomorrow
        )

    def levels(self) -> tuple[str, ...]:
        """The noise levels that crops may ask for."""
        if self.network_file is not None:
            return ("none",)
        known = NETWORKS[self.network.value].noise_levels
        return tuple(known) if self.noise is Noise.AUTO else (self.noise.value,)


def name_weights(params: UpscaleParams, store: Store) -> dict[str, str]:
    """The weights that this stage uses, by name, with their digests.

    Raises WeightError when a file is missing: before any work, not hours into it.
    """
    if params.network_file is not None:
        try:
            return {"upscaler": digest_file(Path(params.network_file))}
        except OSError as error:
            raise WeightError(f"upscale.network_file cannot be read ({error}): name a network's file") from error
    names = dict.fromkeys(name for level in params.levels() for name in weight_names(params.network.value, level))
    require_weights(names, (store.weights,))
    return {name: get_weight(name).sha256 for name in names}


def choose_levels(qualities: pa.ChunkedArray, params: UpscaleParams) -> list[str]:
    """The noise level of each crop, by the JPEG quality of its source (1..100; null: no JPEG)."""
    levels = params.levels()
    if len(levels) == 1:
        return list(levels) * len(qualities)
    return [choose_noise(quality) for quality in qualities.to_pylist()]


def name_inputs(crops: pa.Table, params: UpscaleParams) -> pa.ChunkedArray:
    """What measure() depends on: the crop's pixels and, where levels differ, its level.

    Equal pixels may come from sources of different JPEG quality; each is then measured for itself.
    """
    if len(params.levels()) == 1:
        return crops["pixel_digest"]
    levels = pa.array(choose_levels(crops["jpeg_quality"], params), pa.string())
    return pa.chunked_array([pc.binary_join_element_wise(crops["pixel_digest"].combine_chunks(), levels, ":")])


def measure(crops: Shard, params: UpscaleParams) -> Facts:
    """Each crop at size x size pixels, as a blob: one row of FACTS per distinct input.

    A picture's pixels do not depend on what else is in the shard (models.upscale.engine).
    """
    upscaler = Upscaler(params.settings(), crops.weights)
    target = Target(size=params.size, fit=params.fit.value)
    levels = choose_levels(crops.items["jpeg_quality"], params)

    def load(item: tuple[dict[str, Any], str]) -> Picture:
        row, level = item
        return Picture(open_blob(crops, row["crop_blob"]), target, level)

    def finish(item: tuple[dict[str, Any], str], done: Upscaled | Exception) -> dict[str, Any]:
        if isinstance(done, Exception):
            raise done
        return {
            INPUT: item[0][INPUT],
            "blob": store_picture(crops.store, done.rgb, params),
            "width": params.size,
            "height": params.size,
            "upscaled_by": f"{done.method} ({upscaler.engine})" if done.factor > 1 else done.method,
            "upscale_factor": round(done.factor, 4),
        }

    rows = list(upscaler.upscale_all(zip(crops.rows(), levels, strict=True), load, finish))
    return Facts(pa.Table.from_pylist(rows, schema=FACTS), opened=len(rows))


def store_picture(store: Store, rgb: np.ndarray, params: UpscaleParams) -> str:
    """A published picture as a blob, as the recipe wants it stored."""
    if params.codec is Codec.JPEG:
        return store.blobs.put(encode_jpeg(rgb, params.jpeg_quality), ".jpg")
    return store.blobs.put(encode_png(rgb))


THRESHOLDS = (
    Threshold("upscale_factor", "upscale.max_factor", "enlarged_too_much", "<="),
    Threshold("native_scale", "upscale.min_native_scale", "already_enlarged"),
)


def decide(crops: pa.Table, params: UpscaleParams) -> pa.Table:
    """Verdicts on crops by how much they had to be enlarged, and whether they had been before."""
    verdicts = Verdicts(crops)
    too_much, already = THRESHOLDS
    verdicts.hold(too_much, params)
    verdicts.hold(already, params, where=verdicts.numbers("upscale_factor") > 1)
    return verdicts.table()


STAGE = Stage(
    name="upscale",
    version=STAGE_VERSION,
    params=UpscaleParams,
    decide=decide,
    measure=measure,
    facts=FACTS,
    input_column="pixel_digest",
    inputs=name_inputs,
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
