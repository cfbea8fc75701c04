"""Crop: the faces of a post (or the whole picture), found in a reduced copy and cut out in full colour."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
from models.faces.onnx import name_runtime
from models.hashing import hash_picture
from models.weights import WeightError, get_weight
from tasks.crop_params import WITHOUT_FACES, CropMethod, CropParams, read_colour
from tasks.crop_rules import THRESHOLDS, decide
from tasks.detection import Detector, FaceSearch
from tasks.shards import ShardRef, ShardResult, measure_shard, shard_task
from tasks.stage import Facts, Shard, Stage, join_facts

STAGE_VERSION = 3
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


def name_weights(params: CropParams, store: Store) -> dict[str, str]:
    """What the detectors have learned, by name, with digests (animeface's lies inside its package), and who runs a
    network of the user's: its answers differ in the last digits.

    Raises WeightError when the network's file cannot be read.
    """
    if params.method in WITHOUT_FACES:
        return {}
    used = {}
    if params.detector_file is not None:
        try:
            used = {"detector": digest_file(Path(params.detector_file)), "detector_runtime": name_runtime()}
        except OSError as error:
            raise WeightError(f"crop.detector_file cannot be read ({error}): name an ONNX file") from error
    if params.detector is Detector.ONNX:
        return used
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
    model = None if params.detector_file is None else Path(params.detector_file)
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
