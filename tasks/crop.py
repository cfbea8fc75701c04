"""Crop: the faces of a post (or the whole picture), found and cut out in one decode."""

from __future__ import annotations

import logging
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from datasets.cache import INPUT
from datasets.digests import digest_bytes, digest_pixels
from datasets.errors import SourceError
from datasets.pictures import MAX_BYTES, Defect, Picture, UnreadablePictureError, decode_picture, encode_png
from datasets.schema import MANIFEST
from datasets.sources.read import locate
from datasets.store import Store
from models.faces.detector import Face, FaceDetector
from models.faces.geometry import FACE, PORTRAIT, Box, CropRecipe, Padding, cut, expand_box
from models.faces.load import load_detector
from models.hashing import mirrored, perceptual_hash
from models.weights import get_weight
from tasks.shards import ShardRef, ShardResult, measure_shard, shard_task
from tasks.stage import Facts, Shard, Stage, StageParams, Threshold, Verdicts, join_facts

STAGE_VERSION = 1
log = logging.getLogger(__name__)

# what is kept of a crop: manifest columns, and the blob of its pixels as they were cut
_MANIFEST_COLUMNS = (
    *("box_x", "box_y", "box_w", "box_h", "face_x", "face_y", "face_w", "face_h"),
    *("detector", "detector_score", "landmarks", "pixel_digest", "width", "height"),
)
CROP = pa.struct(
    [*(MANIFEST.field(name).with_nullable(True) for name in _MANIFEST_COLUMNS), pa.field("crop_blob", pa.string())]
)
FACTS = pa.schema(
    [
        pa.field(INPUT, pa.string(), nullable=False),
        ("defect", pa.string()),  # a datasets.pictures.Defect; null when the picture was read
        ("defect_detail", pa.string()),
        ("true_format", pa.string()),
        ("mode", pa.string()),
        ("source_width", pa.int32()),
        ("source_height", pa.int32()),
        ("source_hash", pa.uint64()),  # perceptual hash of the whole picture, for the dedup stage
        ("source_hash_mirrored", pa.uint64()),
        ("crops", pa.list_(CROP)),
    ]
)


class CropMethod(StrEnum):
    """What is cut out of a picture."""

    FACE = "face"
    PORTRAIT = "portrait"
    WHOLE = "whole"


class Detector(StrEnum):
    """Who looks for faces."""

    LBP = "lbp"
    ANIMEFACE = "animeface"
    UNION = "union"
    AGREEMENT = "agreement"


class Edge(StrEnum):
    """What happens where a crop is larger than the picture."""

    SHRINK = "shrink"
    REFLECT = "reflect"


class CropParams(StageParams):
    """What is cut out of a post."""

    measured: ClassVar[frozenset[str]] = frozenset(
        {"method", "detector", "search_face", "search_side", "up", "down", "side", "edge", "background"}
    )

    method: CropMethod = Field(
        CropMethod.FACE, description="face: hairline to neck; portrait: the whole head with hair; whole: no detection"
    )
    detector: Detector = Field(
        Detector.UNION, description="lbp, animeface, union (found by either) or agreement (found by both)"
    )
    search_face: int = Field(32, ge=24, le=2048, description="Smallest face box to look for, in pixels of the picture")
    search_side: int = Field(
        1024, ge=256, le=16384, description="Larger pictures are searched in a copy with this long side"
    )
    up: float | None = Field(None, ge=0, description="Reach above the face box, in box heights; none: the method's")
    down: float | None = Field(None, ge=0, description="Reach below the face box, in box heights; none: the method's")
    side: float | None = Field(None, ge=0, description="Reach on each side, in box widths; none: the method's")
    edge: Edge = Field(Edge.SHRINK, description="A crop larger than its picture: make it smaller, or mirror the edge")
    background: str = Field("#ffffff", pattern="^#[0-9a-fA-F]{6}$", description="Colour laid under transparent pixels")
    min_face: int = Field(40, ge=1, description="Narrowest face box to take, in pixels of the picture")
    min_score: float = Field(0.0, ge=0, le=1, description="Lowest detector score to take")
    min_size: int = Field(64, ge=1, description="Shortest side of a crop, in pixels")

    def geometry(self) -> CropRecipe:
        """How far a crop reaches around its face."""
        base = PORTRAIT if self.method is CropMethod.PORTRAIT else FACE
        return CropRecipe(
            up=base.up if self.up is None else self.up,
            down=base.down if self.down is None else self.down,
            side=base.side if self.side is None else self.side,
            small_picture=self.edge.value,
        )


def name_weights(params: CropParams, store: Store) -> dict[str, str]:
    """What the detectors have learned, by name, with digests (animeface's lies inside its package)."""
    if params.method is CropMethod.WHOLE:
        return {}
    used = {}
    if params.detector is not Detector.ANIMEFACE:
        used["lbpcascade-animeface"] = get_weight("lbpcascade-animeface").sha256
    if params.detector is not Detector.LBP:
        used["animeface"] = f"package {version('animeface')}"
    return used


def measure(posts: Shard, params: CropParams) -> Facts:
    """The crops of each picture, cut out and stored as PNG blobs with thumbnails: one row of FACTS per distinct file.

    A file that gives no pixels is a row with its defect. One that cannot be read at all (it vanished or was changed
    since its digest was taken, the disk failed) gets no row, so that the next build tries again; this one drops the
    post. Each file is read and decoded once.
    """
    detector = None
    if params.method is not CropMethod.WHOLE:
        detector = load_detector(params.detector.value, params.search_face, posts.weights, params.search_side)
    rows = []
    opened = 0
    for row in posts.rows():
        try:
            picture = open_picture(posts.source_root, row["source_path"], row[INPUT], params.background)
        except (OSError, SourceError) as error:
            log.warning("%s cannot be read: %s", row["source_path"], error)
            continue
        except UnreadablePictureError as error:
            rows.append({INPUT: row[INPUT], "defect": str(error.defect), "defect_detail": error.detail[:200]})
        else:
            crops = cut_crops(picture, detector, params, posts.store)
            if not crops:  # the card shows what was left out, without opening it again
                posts.store.thumbnails.put(row[INPUT], picture.rgb)
            rows.append({INPUT: row[INPUT], **describe(picture), "crops": crops})
        opened += 1
    return Facts(pa.Table.from_pylist(rows, schema=FACTS), opened)


def open_picture(root: Path, source_path: str, digest: str, background: str) -> Picture:
    """Read and decode a source file.

    Raises UnreadablePictureError; OSError when it cannot be read; SourceError when it was changed meanwhile.
    """
    path = locate(root, source_path)
    if (size := path.stat().st_size) > MAX_BYTES:
        raise UnreadablePictureError(Defect.TOO_LARGE, f"{size} bytes, at most {MAX_BYTES} are read")
    data = path.read_bytes()
    if digest_bytes(data) != digest:
        raise SourceError(f"{source_path} was changed while it was being read. Run the build again.")
    return decode_picture(data, tuple(bytes.fromhex(background[1:])))  # type: ignore[arg-type]


def describe(picture: Picture) -> dict[str, Any]:
    """What is known of the whole picture: FACTS columns, crops left out."""
    height, width = picture.rgb.shape[:2]
    return {
        "true_format": picture.format,
        "mode": picture.mode,
        "source_width": width,
        "source_height": height,
        "source_hash": perceptual_hash(picture.rgb),
        "source_hash_mirrored": perceptual_hash(mirrored(picture.rgb)),
    }


def cut_crops(
    picture: Picture, detector: FaceDetector | None, params: CropParams, store: Store
) -> list[dict[str, Any]]:
    """The crops of one picture in reading order of their faces, as CROP values."""
    height, width = picture.rgb.shape[:2]
    if detector is None:
        return [_store_crop(picture.rgb, Box(0, 0, width, height), Padding(), None, store)]
    crops = []
    for face in detector.detect(picture.rgb):
        box, padding = expand_box(face, (width, height), params.geometry())
        crops.append(_store_crop(picture.rgb, box, padding, face, store))
    return crops


def _store_crop(rgb: np.ndarray, box: Box, padding: Padding, face: Face | None, store: Store) -> dict[str, Any]:
    pixels = cut(rgb, box, padding)
    height, width = pixels.shape[:2]
    digest = digest_pixels(pixels)
    store.thumbnails.put(digest, pixels)
    crop = {
        "box_x": box.x - padding.left,
        "box_y": box.y - padding.top,
        "box_w": width,
        "box_h": height,
        "crop_blob": store.blobs.put(encode_png(pixels)),
        "pixel_digest": digest,
        "width": width,
        "height": height,
    }
    if face is not None:
        crop |= {"face_x": face.x, "face_y": face.y, "face_w": face.w, "face_h": face.h}
        crop |= {"detector": face.detector, "detector_score": face.score}
        crop["landmarks"] = [point._asdict() for point in face.landmarks]
    return crop


def list_crops(posts: pa.Table, facts: pa.Table) -> pa.Table:
    """One row per crop, with its crop_id `<post_id>#<k>`; one row without a crop_id for a post that gave none."""
    joined = join_facts(posts, facts)
    crops = joined["crops"].combine_chunks()
    owners = pc.list_parent_indices(crops).to_numpy(zero_copy_only=False).astype(np.int64)
    lengths = pc.fill_null(pc.list_value_length(crops), 0).to_numpy(zero_copy_only=False)
    empty = np.flatnonzero(lengths == 0)
    first = np.concatenate([[0], np.cumsum(lengths)])
    number = np.arange(len(owners)) - first[owners]
    names = joined["post_id"].to_numpy(zero_copy_only=False)
    crop_ids = [f"{names[owner]}#{k}" for owner, k in zip(owners, number, strict=True)]
    rows = joined.drop_columns(["crops"]).take(pa.array(np.concatenate([owners, empty])))
    rows = rows.append_column("crop_id", pa.array(crop_ids + [None] * len(empty), pa.string()))
    values = pc.list_flatten(crops)
    for field in CROP:
        column = pa.concat_arrays([pc.struct_field(values, field.name), pa.nulls(len(empty), field.type)])
        rows = rows.append_column(field.name, column)
    return rows.append_column("blob", rows["crop_blob"])  # what is published, until a later stage makes another


def crop_blobs(facts: pa.Table) -> pa.Array:
    """The blobs of each row's crops, as lists."""
    crops = facts["crops"].combine_chunks()
    values = pc.struct_field(crops.flatten(), "crop_blob")
    offsets = np.concatenate([[0], np.cumsum(pc.fill_null(pc.list_value_length(crops), 0).to_numpy())])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


THRESHOLDS = (
    Threshold("face_w", "crop.min_face", "face_too_small"),
    Threshold("detector_score", "crop.min_score", "unsure_face"),
    Threshold("box_w", "crop.min_size", "too_small"),
    Threshold("box_h", "crop.min_size", "too_small"),
)


def decide(crops: pa.Table, params: CropParams) -> pa.Table:
    """Verdicts on crops, and on posts that gave none."""
    verdicts = Verdicts(crops)
    unread = pc.and_(pc.is_null(crops["true_format"]), pc.is_null(crops["defect"]))  # nothing was found out
    verdicts.drop(
        unread.to_numpy(zero_copy_only=False),
        Defect.UNREADABLE_FILE,
        detail="the file could not be read, or was changed meanwhile",
    )
    broken = pc.is_valid(crops["defect"]).to_numpy(zero_copy_only=False)
    defects = crops["defect"].to_numpy(zero_copy_only=False)
    verdicts.drop(broken, defects, detail=crops["defect_detail"].to_numpy(zero_copy_only=False))
    none = pc.is_null(crops["crop_id"]).to_numpy(zero_copy_only=False)
    verdicts.drop(none, "no_face", parameter="crop.detector", detail=f"found by {params.detector}: none")
    for rule in THRESHOLDS:
        verdicts.hold(rule, params)
    return verdicts.table()


STAGE = Stage(
    name="crop",
    version=STAGE_VERSION,
    params=CropParams,
    decide=decide,
    measure=measure,
    facts=FACTS,
    input_column="file_digest",
    expand=list_crops,
    weights=name_weights,
    nested_blobs=crop_blobs,
    may_lack_facts=True,
    thresholds=THRESHOLDS,
)


@shard_task("crop")
def crop_shard(shard: ShardRef) -> ShardResult:
    return measure_shard(STAGE, shard)
