"""Crop: the faces of a post (or the whole picture), found in a reduced copy and cut out in full colour."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from datasets.cache import INPUT
from datasets.digests import digest_bytes, digest_file, digest_pixels
from datasets.errors import SourceError
from datasets.pictures import (
    MAX_BYTES,
    Defect,
    OpenPicture,
    UnreadablePictureError,
    encode_png,
    open_picture,
)
from datasets.schema import MANIFEST
from datasets.sources.read import locate
from datasets.store import Store
from models.faces.detector import Face
from models.faces.geometry import (
    FACE,
    PORTRAIT,
    Box,
    CropRecipe,
    Square,
    cut_square,
    lowest_row,
    measure_roll,
    place_square,
    place_whole_square,
)
from models.faces.marks import Marks, count_faces_in, mark_faces
from models.hashing import hash_picture
from models.weights import WeightError, get_weight
from tasks.detection import Detector, FaceSearch
from tasks.shards import ShardRef, ShardResult, measure_shard, shard_task
from tasks.stage import Facts, Shard, Stage, StageParams, Threshold, join_facts
from tasks.verdicts import Verdicts

STAGE_VERSION = 2
log = logging.getLogger(__name__)

# what is kept of a crop: manifest columns, and the blob of its pixels as they were cut
_MANIFEST_COLUMNS = (
    *("box_x", "box_y", "box_w", "box_h", "face_x", "face_y", "face_w", "face_h"),
    *("detector", "detector_score", "landmarks", "face_cut", "face_inside", "faces_in_crop", "roll"),
    *("pixel_digest", "width", "height"),
)
CROP = pa.struct(
    [*(MANIFEST.field(name).with_nullable(True) for name in _MANIFEST_COLUMNS), pa.field("crop_blob", pa.string())]
)
_FILE_COLUMNS = ("true_format", "mode", "bits", "frames", "alpha_share", "jpeg_quality")  # of MANIFEST
FACTS = pa.schema(
    [
        pa.field(INPUT, pa.string(), nullable=False),
        ("defect", pa.string()),  # a datasets.pictures.Defect; null when the picture was read
        ("defect_detail", pa.string()),
        *(MANIFEST.field(name) for name in _FILE_COLUMNS),
        ("oriented", pa.bool_()),  # an EXIF orientation was applied
        ("icc", pa.bool_()),  # an ICC profile was applied
        ("source_width", pa.int32()),
        ("source_height", pa.int32()),
        ("source_hash", pa.uint64()),  # perceptual hash of the whole picture, for the dedup stage; null: uniform
        ("source_hash_mirrored", pa.uint64()),
        ("source_hash256", pa.binary(32)),
        ("source_hash256_mirrored", pa.binary(32)),
        ("crops", pa.list_(CROP)),
    ]
)


class CropMethod(StrEnum):
    """What is cut out of a picture."""

    FACE = "face"
    PORTRAIT = "portrait"
    ALIGN = "align"
    SQUARE = "square"
    WHOLE = "whole"


WITHOUT_FACES = (CropMethod.SQUARE, CropMethod.WHOLE)


class Edge(StrEnum):
    """What happens where a crop is larger than the picture."""

    SHRINK = "shrink"
    REFLECT = "reflect"
    PAD = "pad"


class SquareAt(StrEnum):
    """Which part of a picture its square is."""

    CENTRE = "centre"
    TOP = "top"


class CropParams(StageParams):
    """What is cut out of a post."""

    measured: ClassVar[frozenset[str]] = frozenset(
        {"method", "detector", "detector_file", "search_face", "search_side", "up", "down", "side"}
        | {"edge", "edge_colour", "square_at", "background"}
    )

    method: CropMethod = Field(
        CropMethod.FACE,
        description="face: hairline to neck; portrait: the whole head with hair; align: face, turned until the eyes "
        "are level; square: the picture's largest square; whole: the picture; the last two look for no faces",
    )
    detector: Detector = Field(
        Detector.UNION,
        description="lbp, animeface, union (found by either), agreement (found by both), or onnx: a network of yours",
    )
    detector_file: str | None = Field(None, description="The network's file, for the detector onnx")
    search_face: int = Field(32, ge=24, le=2048, description="Smallest face box to look for, in pixels of the picture")
    search_side: int = Field(
        1024, ge=256, le=16384, description="Larger pictures are searched in a copy with this long side"
    )
    up: float | None = Field(None, ge=0, description="Reach above the face box, in box heights; none: the method's")
    down: float | None = Field(None, ge=0, description="Reach below the face box, in box heights; none: the method's")
    side: float | None = Field(None, ge=0, description="Reach on each side, in box widths; none: the method's")
    edge: Edge = Field(
        Edge.SHRINK,
        description="A crop larger than its picture: make it smaller, reflect the picture beyond its edge, or pad it "
        "with edge_colour",
    )
    edge_colour: str = Field("#ffffff", pattern="^#[0-9a-fA-F]{6}$", description="Colour of what pad adds")
    square_at: SquareAt = Field(SquareAt.CENTRE, description="Which square of a high picture: its middle, or its top")
    background: str = Field("#ffffff", pattern="^#[0-9a-fA-F]{6}$", description="Colour laid under transparent pixels")
    min_face: int = Field(40, ge=1, description="Narrowest face box to take, in pixels of the picture")
    min_score: float = Field(0.0, ge=0, le=1, description="Lowest detector score to take")
    min_size: int = Field(64, ge=1, description="Shortest side of a crop, in pixels")
    drop_cut: bool = Field(False, description="Drop faces that the border of the picture cuts off")
    drop_inside: bool = Field(True, description="Drop faces inside a larger face: pictures on clothes, wrong finds")
    max_faces: int = Field(0, ge=0, description="Most faces that one crop may show; 0: any number")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.method in WITHOUT_FACES:
            return self
        if self.detector is Detector.ONNX and self.detector_file is None:
            raise ValueError("crop.detector = onnx needs a network: name its file in crop.detector_file")
        if self.method is CropMethod.ALIGN and self.detector in (Detector.LBP, Detector.ONNX):
            raise ValueError(f"crop.method = align needs eyes, and {self.detector} finds none: use animeface or union")
        return self

    def geometry(self) -> CropRecipe:
        """How far a crop reaches around its face."""
        base = PORTRAIT if self.method is CropMethod.PORTRAIT else FACE
        return CropRecipe(
            up=base.up if self.up is None else self.up,
            down=base.down if self.down is None else self.down,
            side=base.side if self.side is None else self.side,
            edge=self.edge.value,
            colour=read_colour(self.edge_colour),
        )


def read_colour(text: str) -> tuple[int, int, int]:
    """`#rrggbb` as red, green, blue."""
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue


def name_weights(params: CropParams, store: Store) -> dict[str, str]:
    """What the detectors have learned, by name, with digests (animeface's lies inside its package).

    Raises WeightError when the network's file cannot be read.
    """
    if params.method in WITHOUT_FACES:
        return {}
    if params.detector is Detector.ONNX:
        try:
            return {"detector": digest_file(Path(params.detector_file or ""))}
        except OSError as error:
            raise WeightError(f"crop.detector_file cannot be read ({error}): name an ONNX file") from error
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
    post. Each file is read once. It is searched in a reduced copy; only of a picture with a face are pixels decoded in
    full, once.
    """
    search = start_search(params, posts.weights)
    rows = []
    opened = 0
    for row in posts.rows():
        try:
            picture = open_source(posts.source_root, row["source_path"], row[INPUT], params.background, search)
        except (OSError, SourceError) as error:
            log.warning("%s cannot be read: %s", row["source_path"], error)
            continue
        except UnreadablePictureError as error:
            said = {**error.said, "defect": str(error.defect), "defect_detail": error.detail[:200]}
            rows.append({INPUT: row[INPUT], **said})
        else:
            crops = cut_crops(picture, search, params, posts)
            if not crops:  # the card shows what was left out, without opening it again
                posts.store.thumbnails.put(row[INPUT], picture.preview)
            rows.append({INPUT: row[INPUT], **describe(picture), "crops": crops})
        opened += 1
    return Facts(pa.Table.from_pylist(rows, schema=FACTS), opened)


def start_search(params: CropParams, folders: Sequence[Path]) -> FaceSearch | None:
    """The search for faces that the settings ask for; None when they ask for none."""
    if params.method in WITHOUT_FACES:
        return None
    model = Path(params.detector_file or "") if params.detector is Detector.ONNX else None
    return FaceSearch(params.detector, params.search_face, params.search_side, folders, model)


def open_source(root: Path, source_path: str, digest: str, background: str, search: FaceSearch | None) -> OpenPicture:
    """Read and open a source file.

    Raises UnreadablePictureError; OSError when it cannot be read; SourceError when it was changed meanwhile.
    """
    path = locate(root, source_path)
    if (size := path.stat().st_size) > MAX_BYTES:
        raise UnreadablePictureError(Defect.TOO_LARGE, f"{size} bytes, at most {MAX_BYTES} are read")
    data = path.read_bytes()
    if digest_bytes(data) != digest:
        raise SourceError(f"{source_path} was changed while it was being read. Run the build again.")
    if search is None:
        return open_picture(data, read_colour(background))
    return open_picture(data, read_colour(background), search.choose_reduction)


def describe(picture: OpenPicture) -> dict[str, Any]:
    """What is known of the whole picture: FACTS columns, crops left out."""
    hashes = hash_picture(picture.preview)
    return {
        **picture.facts.as_columns(),
        "source_width": picture.width,
        "source_height": picture.height,
        "source_hash": hashes and hashes.bits,
        "source_hash_mirrored": hashes and hashes.mirrored,
        "source_hash256": hashes and hashes.bits256,
        "source_hash256_mirrored": hashes and hashes.mirrored256,
    }


def cut_crops(
    picture: OpenPicture, search: FaceSearch | None, params: CropParams, posts: Shard
) -> list[dict[str, Any]]:
    """The crops of one picture in reading order of their faces, as CROP values."""
    size = (picture.width, picture.height)
    if params.method is CropMethod.WHOLE:
        return [{**_name_box(Box(0, 0, *size)), **_store_crop(picture.rgb(), posts)}]
    if search is None:
        square = place_whole_square(size, params.square_at.value)
        return [_cut_crop(picture, square, params.geometry(), posts)]
    faces = search.find(picture)
    turned = params.method is CropMethod.ALIGN
    rolls = [measure_roll(face.landmarks) if turned else None for face in faces]
    squares = [
        place_square(face, size, params.geometry(), roll or 0.0) for face, roll in zip(faces, rolls, strict=True)
    ]
    picture.expect(max(map(lowest_row, squares), default=0))
    crops = []
    for face, marks, roll, square in zip(faces, mark_faces(faces, size), rolls, squares, strict=True):
        crop = _cut_crop(picture, square, params.geometry(), posts)
        crops.append({**crop, **_name_face(face, marks, faces, square), "roll": roll})
    return crops


def _cut_crop(picture: OpenPicture, square: Square, recipe: CropRecipe, posts: Shard) -> dict[str, Any]:
    pixels = cut_square(
        lambda box: picture.cut(box.x, box.y, box.w, box.h), square, (picture.width, picture.height), recipe
    )
    return {**_name_box(Box(square.x, square.y, square.side, square.side)), **_store_crop(pixels, posts)}


def _name_box(box: Box) -> dict[str, Any]:
    return {"box_x": box.x, "box_y": box.y, "box_w": box.w, "box_h": box.h}


def _name_face(face: Face, marks: Marks, faces: Sequence[Face], square: Square) -> dict[str, Any]:
    """What is known of the face in a crop, as CROP values."""
    return {
        "face_x": face.x,
        "face_y": face.y,
        "face_w": face.w,
        "face_h": face.h,
        "detector": face.detector,
        "detector_score": face.score,
        "landmarks": [point._asdict() for point in face.landmarks],
        "face_cut": marks.cut,
        "face_inside": marks.inside,
        "faces_in_crop": count_faces_in(Box(square.x, square.y, square.side, square.side), faces),
    }


def _store_crop(pixels: np.ndarray, posts: Shard) -> dict[str, Any]:
    """Keep the pixels of a crop as a blob with a thumbnail, and show them to later stages: CROP values."""
    height, width = pixels.shape[:2]
    digest = digest_pixels(pixels)
    posts.store.thumbnails.put(digest, pixels)
    posts.measure_along(digest, pixels)
    return {
        "crop_blob": posts.store.blobs.put(encode_png(pixels)),
        "pixel_digest": digest,
        "width": width,
        "height": height,
    }


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
    Threshold("faces_in_crop", "crop.max_faces", "several_faces", "<=", lambda params: float(params.max_faces) or None),
)
_MARKS = (
    ("drop_inside", "face_inside", "face_inside_another"),
    ("drop_cut", "face_cut", "face_cut_off"),
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
    for parameter, column, reason in _MARKS:
        if getattr(params, parameter):
            marked = pc.fill_null(crops[column], False).to_numpy(zero_copy_only=False)
            verdicts.drop(marked, reason, parameter=f"crop.{parameter}", measurement=column)
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
    cuts_crops=True,
)


@shard_task("crop")
def crop_shard(shard: ShardRef) -> ShardResult:
    return measure_shard(STAGE, shard)
