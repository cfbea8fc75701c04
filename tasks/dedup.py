"""Dedup: one picture of each, the best one. Exact by pixels, near by perceptual hash, mirrored too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from datasets.cache import INPUT
from models.hashing import find_near_pairs, find_near_pairs_within, hamming, mirrored, perceptual_hash
from tasks.pictures import measure_blobs
from tasks.shards import ShardRef, ShardResult, measure_shard, shard_task
from tasks.stage import EXACT_COPY, Facts, Shard, Stage, StageParams, Verdicts

STAGE_VERSION = 1
COPY_OF_REJECTED = "copy_of_rejected"
_SAME_PLACE = 0.5  # intersection over union of two crops as fractions of their pictures

FACTS = pa.schema(
    [
        pa.field(INPUT, pa.string(), nullable=False),
        ("phash_bits", pa.uint64()),
        ("phash_mirrored_bits", pa.uint64()),
        ("phash", pa.string()),
    ]
)


class DedupParams(StageParams):
    """How alike two crops may be. Exact copies always fall."""

    measured: ClassVar[frozenset[str]] = frozenset()

    near: bool = Field(True, description="Also drop near copies")
    radius: int = Field(4, ge=0, le=10, description="Bits of 64 that the hashes of two copied crops may differ in")
    source_radius: int = Field(
        4,
        ge=0,
        le=10,
        description="Bits of 64 that the hashes of two copied posts may differ in, for crops at one place",
    )
    mirror: bool = Field(True, description="A mirrored copy is a copy")


def measure_pixels(rgb: np.ndarray, params: DedupParams) -> dict[str, Any]:
    """Perceptual hash of a crop, uint8 (H, W, 3), and of its mirror image: a row of FACTS but for its input."""
    bits = perceptual_hash(rgb)
    return {"phash_bits": bits, "phash_mirrored_bits": perceptual_hash(mirrored(rgb)), "phash": f"{bits:016x}"}


def measure(crops: Shard, params: DedupParams) -> Facts:
    """Perceptual hashes of each crop: one row of FACTS per distinct pixel digest."""
    return measure_blobs(crops, params, measure_pixels, FACTS)


def decide(crops: pa.Table, params: DedupParams) -> pa.Table:
    """Verdicts over the whole set: of each group of copies the best stays.

    Best: kept by a person, then the larger crop, the higher score, the smaller crop_id. No chaining: every dropped crop
    is itself near the crop that stays for it. What a person keeps falls only as an exact copy. A rejected crop falls
    after this stage, and its worse copies with it: who rejects a picture does not want to see the next copy of it.
    Near is either: the crops' hashes are within `radius`; or the posts' hashes are within `source_radius` and both
    crops lie at the same place (a detector's box moves by some pixels in a resized or mirrored copy, which the hash of
    the crop does not forgive but the hash of the post does).
    """
    order = rank_keepers(crops)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    twin = find_twins(crops["pixel_digest"], rank)
    near = find_near_keepers(crops, rank, twin, params)
    # a twin of a crop that falls is a near copy of what that crop fell for
    copied = np.where(near.keeper[twin] >= 0, near.keeper[twin], twin)
    related = crops["crop_id"].to_numpy(zero_copy_only=False)[copied]
    is_copy = copied != np.arange(len(copied))
    reason = np.where(near.flipped[twin], "mirrored_copy", "near_copy").astype(object)
    reason[decided(crops, "reject")[copied]] = COPY_OF_REJECTED
    verdicts = Verdicts(crops)
    verdicts.drop(is_copy & (copied == twin), EXACT_COPY, related=related)
    for by_source, parameter in ((False, "radius"), (True, "source_radius")):
        verdicts.drop(
            is_copy & (near.by_source[twin] == by_source),
            reason,
            parameter=f"dedup.{parameter}",
            measurement="hash distance of the posts" if by_source else "hash distance",
            threshold=getattr(params, parameter),
            value=near.distance[twin],
            related=related,
        )
    return verdicts.table()


@dataclass(frozen=True)
class NearKeepers:
    """What each crop is a near copy of. All arrays are (N,)."""

    keeper: np.ndarray  # int64: position of the crop that stays for it, -1 for none
    distance: np.ndarray  # float64: bits, NaN for none
    flipped: np.ndarray  # bool: as a mirror image
    by_source: np.ndarray  # bool: by the hash of the post, not of the crop


def rank_keepers(crops: pa.Table) -> np.ndarray:
    """Positions of the crops from the most to the least worth keeping: int64 (N,)."""
    areas = crops["box_w"].to_numpy().astype(np.int64) * crops["box_h"].to_numpy().astype(np.int64)
    scores = crops["score"].fill_null(-(2**31)).to_numpy().astype(np.int64)
    names = np.empty(len(crops), np.int64)  # the place of each crop_id in their order
    names[pc.sort_indices(crops["crop_id"]).to_numpy()] = np.arange(len(crops))
    return np.lexsort((names, -scores, -areas, ~decided(crops, "keep")))


def decided(crops: pa.Table, decision: str) -> np.ndarray:
    """Of which crops a person has said this (keep, reject): bool (N,)."""
    said = pc.fill_null(pc.equal(crops["decision"], decision), False)
    return np.asarray(said.to_numpy(), dtype=bool)


def find_twins(pixel_digests: pa.ChunkedArray, rank: np.ndarray) -> np.ndarray:
    """For each crop the best-ranked crop of equal pixels, itself included: int64 (N,)."""
    groups = _number_texts(pixel_digests)
    by_group = np.lexsort((rank, groups))
    first = by_group[np.unique(groups[by_group], return_index=True)[1]]
    return np.asarray(first[groups], dtype=np.int64)


def _number_texts(texts: pa.ChunkedArray) -> np.ndarray:
    """A whole number from 0 on for each text, equal for equal texts: int64 (N,)."""
    return np.asarray(pc.dictionary_encode(texts.combine_chunks()).indices.to_numpy(), dtype=np.int64)


def find_near_keepers(crops: pa.Table, rank: np.ndarray, twin: np.ndarray, params: DedupParams) -> NearKeepers:
    """For each crop the best crop that stays and that it is a near copy of. Of equal crops only the best counts."""
    singles = np.unique(twin)
    rows = [np.empty((0, 5), np.int64)]
    if params.near:
        for flipped in (0, 1) if params.mirror else (0,):
            rows.append(_pairs_by_crop(crops, singles, flipped, params.radius))
            rows.append(_pairs_by_source(crops, singles, flipped, params.source_radius))
    pairs = np.concatenate(rows)
    plain = (pairs[:, 3] == 0) & (rank[pairs[:, 0]] > rank[pairs[:, 1]])  # found once: the better one to the front
    pairs[plain, :2] = pairs[plain, 1::-1]
    pairs = pairs[(rank[pairs[:, 0]] < rank[pairs[:, 1]]) & ~decided(crops, "keep")[pairs[:, 1]]]
    # per copy: by crop before by post, nearest first, plain before mirrored, then the best keeper
    pairs = pairs[np.lexsort((rank[pairs[:, 0]], pairs[:, 3], pairs[:, 2], pairs[:, 4], rank[pairs[:, 1]]))]
    return _keep_greedily(pairs, len(crops))


def _pairs_by_crop(crops: pa.Table, singles: np.ndarray, flipped: int, radius: int) -> np.ndarray:
    """Pairs of near crops: int64 (P, 5), columns better or worse, worse or better, bits, flipped, by source (0)."""
    bits = crops["phash_bits"].to_numpy()[singles]
    others = crops["phash_mirrored_bits"].to_numpy()[singles] if flipped else bits
    i, j = find_near_pairs(bits, others, radius) if flipped else find_near_pairs_within(bits, radius)
    return np.stack([singles[i], singles[j], _bits_apart(bits[i], others[j]), np.full_like(i, flipped), i * 0], axis=1)


def _pairs_by_source(crops: pa.Table, singles: np.ndarray, flipped: int, radius: int) -> np.ndarray:
    """Pairs of crops at the same place of two near posts: int64 (P, 5), by source (1)."""
    bits = crops["source_hash"].to_numpy()[singles]
    others = crops["source_hash_mirrored"].to_numpy()[singles] if flipped else bits
    i, j = find_near_pairs(bits, others, radius) if flipped else find_near_pairs_within(bits, radius)
    posts = _number_texts(crops["post_id"])[singles]
    places = _places(crops)[singles]
    here, there = places[i], places[j].copy()
    if flipped:
        there[:, 0] = 1.0 - there[:, 0] - there[:, 2]
    same = (posts[i] != posts[j]) & (_overlap(here, there) >= _SAME_PLACE)
    i, j = i[same], j[same]
    return np.stack(
        [singles[i], singles[j], _bits_apart(bits[i], others[j]), np.full_like(i, flipped), np.ones_like(i)], axis=1
    )


def _bits_apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return hamming(a, b).astype(np.int64)


def _places(crops: pa.Table) -> np.ndarray:
    """Crop boxes as fractions of their pictures: float64 (N, 4), x, y, w, h."""
    width, height = crops["source_width"].to_numpy(), crops["source_height"].to_numpy()
    sides = (("box_x", width), ("box_y", height), ("box_w", width), ("box_h", height))
    return np.stack([crops[name].to_numpy() / side for name, side in sides], axis=1)


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (N, 4), row by row."""
    low = np.maximum(a[:, :2], b[:, :2])
    high = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    shared = np.prod(np.maximum(high - low, 0.0), axis=1)
    return np.asarray(shared / (np.prod(a[:, 2:], axis=1) + np.prod(b[:, 2:], axis=1) - shared))


def _keep_greedily(pairs: np.ndarray, size: int) -> NearKeepers:
    """Walk the crops from best to worst; one falls when a crop that stays is near it.

    pairs: int64 (P, 5), in order of the worse crop's rank: better, worse, bits, flipped, by source.
    """
    found = NearKeepers(
        keeper=np.full(size, -1, np.int64),
        distance=np.full(size, np.nan),
        flipped=np.zeros(size, dtype=bool),
        by_source=np.zeros(size, dtype=bool),
    )
    for better, worse, bits, flipped, by_source in pairs.tolist():
        if found.keeper[worse] < 0 and found.keeper[better] < 0:
            found.keeper[worse], found.distance[worse] = better, bits
            found.flipped[worse], found.by_source[worse] = bool(flipped), bool(by_source)
    return found


STAGE = Stage(
    name="dedup",
    version=STAGE_VERSION,
    params=DedupParams,
    decide=decide,
    measure=measure,
    facts=FACTS,
    measure_pixels=measure_pixels,
    input_column="pixel_digest",
    compares=True,
)


@shard_task("dedup")
def dedup_shard(shard: ShardRef) -> ShardResult:
    return measure_shard(STAGE, shard)
