"""Dedup: one picture of each, the best one. Exact by pixels, near by perceptual hash, mirrored too."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from datasets.cache import INPUT
from models.hashing import Confirm, Likeness, find_keepers, hamming, hash_picture
from tasks.pictures import measure_blobs
from tasks.shards import ShardRef, ShardResult, measure_shard, shard_task
from tasks.stage import EXACT_COPY, Facts, Shard, Stage, StageParams
from tasks.verdicts import Verdicts

STAGE_VERSION = 2
COPY_OF_REJECTED = "copy_of_rejected"
_SAME_PLACE = 0.5  # intersection over union of two crops as fractions of their pictures
_LOSSLESS = 101.0  # above every JPEG quality

_HASH256 = pa.binary(32)
FACTS = pa.schema(
    [
        pa.field(INPUT, pa.string(), nullable=False),
        ("phash_bits", pa.uint64()),  # all null for a nearly uniform picture: its bits would be noise
        ("phash_mirrored_bits", pa.uint64()),
        ("phash256_bits", _HASH256),
        ("phash256_mirrored_bits", _HASH256),
        ("phash", pa.string()),
        ("phash256", pa.string()),
    ]
)


class DedupParams(StageParams):
    """How alike two crops may be. Exact copies always fall."""

    measured: ClassVar[frozenset[str]] = frozenset()

    near: bool = Field(True, description="Also drop near copies")
    radius: int = Field(6, ge=0, le=10, description="Bits of 64 that the hashes of two copied crops may differ in")
    source_radius: int = Field(
        8,
        ge=0,
        le=10,
        description="Bits of 64 that the hashes of two copied posts may differ in, for crops at one place",
    )
    mirror: bool = Field(True, description="A mirrored copy is a copy")
    mirror_radius: int = Field(
        4, ge=0, le=10, description="Bits of 64 that a crop or post may differ in from the mirror image of another"
    )
    radius256: int | None = Field(
        60,
        ge=0,
        le=128,
        description="Bits of 256 that the finer hashes of two copies may differ in as well; none: not looked at",
    )


def measure_pixels(rgb: np.ndarray, params: DedupParams) -> dict[str, Any]:
    """Perceptual hashes of a crop, uint8 (H, W, 3), and of its mirror image: a row of FACTS but for its input."""
    hashes = hash_picture(rgb)
    if hashes is None:
        return dict.fromkeys(FACTS.names[1:])
    return {
        "phash_bits": hashes.bits,
        "phash_mirrored_bits": hashes.mirrored,
        "phash256_bits": hashes.bits256,
        "phash256_mirrored_bits": hashes.mirrored256,
        "phash": f"{hashes.bits:016x}",
        "phash256": hashes.bits256.hex(),
    }


def measure(crops: Shard, params: DedupParams) -> Facts:
    """Perceptual hashes of each crop: one row of FACTS per distinct pixel digest."""
    return measure_blobs(crops, params, measure_pixels, FACTS)


def decide(crops: pa.Table, params: DedupParams) -> pa.Table:
    """Verdicts over the whole set: of each group of copies the best stays.

    Best: kept by a person, then the larger crop, the better JPEG (no JPEG is better than any), the higher score, the
    smaller crop_id. No chaining: every dropped crop is itself near the crop that stays for it, the nearest of them.
    What a person keeps falls only as an exact copy. A rejected crop falls after this stage, and its worse copies with
    it: who rejects a picture does not want to see the next copy of it.

    Near is either: the crops' hashes are within `radius`; or the posts' hashes are within `source_radius` and both
    crops lie at the same place (a detector's box moves by some pixels in a copy, which the hash of the crop does not
    forgive but the hash of the post does); or either of it with the mirror image of one, within `mirror_radius`. Always
    the hashes of 256 bits must be within `radius256`, too. Nearly uniform pictures have no hash, and are near nothing.
    """
    order = rank_keepers(crops)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    twin = find_twins(crops["pixel_digest"], rank)
    ways = name_ways(crops, params)
    singles = order[twin[order] == order]  # of equal crops only the best counts
    kept = int(np.count_nonzero(decided(crops, "keep")[singles]))
    near = find_keepers(singles, kept, [way.likeness for way in ways])
    # a twin of a crop that falls is a near copy of what that crop fell for
    copied = np.where(near.keeper[twin] >= 0, near.keeper[twin], twin)
    related = crops["crop_id"].to_numpy(zero_copy_only=False)[copied]
    is_copy = copied != np.arange(len(copied))
    rejected = decided(crops, "reject")[copied]
    verdicts = Verdicts(crops)
    verdicts.drop(is_copy & (copied == twin), EXACT_COPY, related=related)
    for number, way in enumerate(ways):
        falls = is_copy & (near.likeness[twin] == number)
        verdicts.drop(
            falls,
            np.where(rejected, COPY_OF_REJECTED, way.reason).astype(object),
            parameter=f"dedup.{way.parameter}",
            measurement=way.measurement,
            threshold=getattr(params, way.parameter),
            value=near.apart[twin].astype(np.float64),
            detail=way.compare(twin, copied, falls),
            related=related,
        )
    return verdicts.table()


def rank_keepers(crops: pa.Table) -> np.ndarray:
    """Positions of the crops from the most to the least worth keeping: int64 (N,)."""
    areas = crops["box_w"].to_numpy().astype(np.int64) * crops["box_h"].to_numpy().astype(np.int64)
    scores = crops["score"].fill_null(-(2**31)).to_numpy().astype(np.int64)
    names = np.empty(len(crops), np.int64)  # the place of each crop_id in their order
    names[pc.sort_indices(crops["crop_id"]).to_numpy()] = np.arange(len(crops))
    return np.lexsort((names, -scores, -_rank_encoding(crops), -areas, ~decided(crops, "keep")))


def _rank_encoding(crops: pa.Table) -> np.ndarray:
    """How little a crop's source has lost, float64 (N,): the JPEG quality, 0 where it is unknown; above it lossless."""
    is_jpeg = pc.fill_null(pc.equal(crops["true_format"], "JPEG"), False)
    unknown = pc.if_else(is_jpeg, 0.0, _LOSSLESS)
    return np.asarray(pc.coalesce(crops["jpeg_quality"], unknown).to_numpy(), np.float64)


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


@dataclass(frozen=True)
class Hashes:
    """The hashes of the crops, or of the posts that they are from."""

    known: np.ndarray  # bool (N,)
    bits: np.ndarray  # uint64 (N,)
    bits256: np.ndarray  # uint64 (N, 4)


@dataclass(frozen=True)
class Way:
    """One way in which a crop is a copy of another, as the walk needs it and as the ledger says it."""

    parameter: str
    measurement: str
    reason: str
    better: Hashes
    worse: Hashes
    likeness: Likeness

    def compare(self, twin: np.ndarray, copied: np.ndarray, falls: np.ndarray) -> np.ndarray:
        """Where `falls`, a sentence on the second look at a crop and its keeper: object (N,)."""
        said = np.full(len(falls), None, dtype=object)
        apart = hamming(self.better.bits256[copied[falls]], self.worse.bits256[twin[falls]])
        said[falls] = [f"{bits} of 256 bits differ" for bits in apart.tolist()]
        return said


def name_ways(crops: pa.Table, params: DedupParams) -> list[Way]:
    """The ways in which crops are near, in order: a way counts before another where hashes are equally far apart."""
    if not params.near:
        return []
    places, posts = _places(crops), _number_texts(crops["post_id"])
    turned = np.stack([1.0 - places[:, 0] - places[:, 2], *places.T[1:]], axis=1)
    crop, crop_mirrored = (_read_hashes(crops, f"phash{how}_bits", f"phash256{how}_bits") for how in ("", "_mirrored"))
    post, post_mirrored = (
        _read_hashes(crops, f"source_hash{how}", f"source_hash256{how}") for how in ("", "_mirrored")
    )
    ways = []
    for level, measurement, better, worse, radius, mirrored in (
        (0, "hash distance", crop, crop, "radius", False),
        (0, "hash distance", crop, crop_mirrored, "mirror_radius", True),
        (1, "hash distance of the posts", post, post, "source_radius", False),
        (1, "hash distance of the posts", post, post_mirrored, "mirror_radius", True),
    ):
        if mirrored and not params.mirror:
            continue
        looks: list[Confirm] = []
        if level == 1:
            looks.append(partial(_at_one_place, posts, places, turned if mirrored else places))
        if params.radius256 is not None:
            looks.append(partial(_within, better.bits256, worse.bits256, params.radius256))
        likeness = Likeness(better.bits, worse.bits, better.known, getattr(params, radius), tuple(looks), level)
        reason = "mirrored_copy" if mirrored else "near_copy"
        ways.append(Way(radius, measurement, reason, better, worse, likeness))
    return ways


def _read_hashes(crops: pa.Table, name: str, name256: str) -> Hashes:
    """Hashes by the names of their columns: 64 bits as numbers, 256 bits as 32 bytes."""
    bits = crops[name].combine_chunks()
    known, filled = pc.is_valid(bits).to_numpy(zero_copy_only=False), pc.fill_null(bits, 0).to_numpy()
    wide = pc.fill_null(crops[name256].combine_chunks(), bytes(32)).cast(_HASH256)
    words = np.frombuffer(wide.buffers()[1], np.uint64, count=4 * len(wide), offset=32 * wide.offset)
    return Hashes(known, filled, words.reshape(-1, 4))


def _within(better: np.ndarray, worse: np.ndarray, radius: int, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """The second look: which pairs are near by their finer hashes, bool."""
    return hamming(better[i], worse[j]) <= radius


def _at_one_place(posts: np.ndarray, here: np.ndarray, there: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Which pairs of crops lie at one place of two different posts: bool."""
    return np.asarray((posts[i] != posts[j]) & (_overlap(here[i], there[j]) >= _SAME_PLACE))


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
