"""Augment: derived pictures beside their parents. Off by default: trainers mirror and augment while they train."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import product
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator, model_validator

from datasets.cache import INPUT
from datasets.chunks import gather
from datasets.digests import digest_pixels
from datasets.pictures import encode_png
from datasets.store import Store
from models.augment.apply import Augmentation, Darkroom, made_size
from models.augment.guide import GUIDE
from models.augment.tiles import MOST_CANVAS, MOST_PIXELS, enlarged_size, lay_tiles
from tasks.pictures import open_blobs
from tasks.shards import ShardRef, ShardResult, measure_shard, shard_task
from tasks.stage import Facts, Shard, Stage, StageParams, join_facts
from tasks.verdicts import Verdicts

STAGE_VERSION = 3

CHILD = pa.struct(
    [
        pa.field("name", pa.string(), nullable=False),  # of models.augment.apply: says what was done to the parent
        pa.field("blob", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
    ]
)
FACTS = pa.schema([pa.field(INPUT, pa.string(), nullable=False), ("children", pa.list_(CHILD))])

# All of the guide's set, or one of it.
GuideVariant = StrEnum("GuideVariant", ["all", *GUIDE])  # type: ignore[misc]


class View(StrEnum):
    """How a picture or a tile is shown, before it is turned."""

    PLAIN = "plain"
    MIRROR = "mirror"
    INVERT = "invert"
    BOTH = "mirror;invert"


class TileScale(StageParams):
    """One grid of overlapping tiles, from edge to edge."""

    side: int = Field(1024, ge=16, le=MOST_CANVAS, description="Side of a tile, in pixels of the enlarged picture")
    count: int = Field(4, ge=1, le=64, description="Tiles across, and as many down")


class AugmentParams(StageParams):
    """Which derived pictures are published beside each picture. Each has the size of its parent.

    As they are, the settings of the tiles make 136 pictures of one: four views of the whole (as it is, mirrored,
    inverted, both), 9 large and 16 small tiles, and 5 tiles at 45 degrees, in four quarter turns each.
    """

    measured: ClassVar[frozenset[str]] = frozenset(
        {"mirror", "guide", "tiles", "scale_to", "tile_scales", "tile_turns", "tile_slants"}
        | {"whole_views", "tile_views", "sample", "seed", "materialise"}
    )

    mirror: bool = Field(False, description="Publish the mirror image of each picture too")
    guide: tuple[GuideVariant, ...] = Field(
        (), description="Mild variants of the whole picture: all of the guide's eighteen, or those named"
    )
    tiles: bool = Field(False, description="Publish tiles and turned views too, as the settings below say")
    scale_to: int = Field(
        2048, ge=64, le=MOST_CANVAS, description="Shorter side that a picture is enlarged to before tiles are cut"
    )
    tile_scales: tuple[TileScale, ...] = Field(
        (TileScale(side=1448, count=3), TileScale(side=1024, count=4)),
        description="Grids of tiles; sides in pixels of the enlarged picture",
    )
    tile_turns: tuple[int, ...] = Field(
        (90, 180, 270), description="Quarter turns of the whole and of every tile, in degrees counter-clockwise"
    )
    tile_slants: tuple[float, ...] = Field(
        (45.0, 135.0, 225.0, 315.0),
        description="Other turns, in degrees, of tiles so far from the edge that no corner stays empty",
    )
    whole_views: tuple[View, ...] = Field(
        (View.PLAIN, View.MIRROR, View.INVERT, View.BOTH), description="Views of the whole picture that are turned"
    )
    tile_views: tuple[View, ...] = Field((View.PLAIN,), description="Views of each tile that are turned")
    sample: int = Field(
        0, ge=0, description="Derived pictures of each picture at most, drawn from all that are asked for; 0: all"
    )
    seed: int = Field(0, ge=0, description="Of the draw; each picture's own draw depends on nothing but its pixels")

    materialise: bool = Field(
        True, description="Store every derived picture; else it is listed, and made whenever training reads it"
    )

    @field_validator("guide")
    @classmethod
    def _name_variants(cls, chosen: tuple[GuideVariant, ...]) -> tuple[GuideVariant, ...]:
        """In the set's order and once each: two ways to say the same are the same setting."""
        return tuple(GuideVariant(name) for name in GUIDE if name in chosen or "all" in chosen)

    @field_validator("tile_turns")
    @classmethod
    def _require_quarters(cls, turns: tuple[int, ...]) -> tuple[int, ...]:
        if not set(turns) <= {90, 180, 270}:
            raise ValueError("quarter turns are 90, 180 and 270; other angles are tile_slants")
        return tuple(sorted(set(turns)))

    @field_validator("tile_slants")
    @classmethod
    def _require_slants(cls, slants: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < slant < 360 and slant % 90 and round(slant, 3) == slant for slant in slants):
            raise ValueError("slants lie between 0 and 360 degrees, have at most 3 decimals and are no quarter turns")
        return tuple(sorted(set(slants)))

    @model_validator(mode="after")
    def _require_room(self) -> AugmentParams:
        for scale in self.tile_scales:
            if scale.side > self.scale_to:
                raise ValueError(
                    f"a tile of {scale.side} pixels is larger than the picture at scale_to={self.scale_to}"
                )
        return self


def list_augmentations(width: int, height: int, params: AugmentParams) -> list[Augmentation]:
    """Everything that a picture of width x height can be made into under these settings, each once, in a fixed order.

    Tiles are left out of pictures so long that they would be over MOST_PIXELS when enlarged.
    """
    found = [Augmentation(mirrored=True)] if params.mirror else []
    found += [Augmentation(guide=str(name)) for name in params.guide]
    if params.tiles:
        turns = (0, *params.tile_turns)
        found += [_view(view, turn) for view, turn in product(params.whole_views, turns)]
        found += _list_tiles(*enlarged_size(width, height, params.scale_to), params)
    return list({made.name: made for made in found if made.name}.values())  # the picture as it is has no name


def _list_tiles(width: int, height: int, params: AugmentParams) -> Iterator[Augmentation]:
    """Tiles of an enlarged picture of width x height, in all their views and turns."""
    if width * height > MOST_PIXELS:
        return
    for scale in params.tile_scales:
        for tile in lay_tiles(width, height, params.scale_to, scale.side, scale.count):
            slants = [slant for slant in params.tile_slants if tile.fits_turned(slant, width, height)]
            for view, turn in product(params.tile_views, sorted((0, *params.tile_turns, *slants))):
                yield Augmentation(tile=tile, mirrored=MIRRORED[view], inverted=INVERTED[view], degrees=float(turn))


MIRRORED = {view: view in (View.MIRROR, View.BOTH) for view in View}
INVERTED = {view: view in (View.INVERT, View.BOTH) for view in View}


def _view(view: View, degrees: int) -> Augmentation:
    return Augmentation(mirrored=MIRRORED[view], inverted=INVERTED[view], degrees=float(degrees))


def draw_sample(names: Sequence[str], count: int, seed: int, pixel_digest: str) -> set[str]:
    """`count` of the names, all when there are no more or count is 0.

    A function of seed, picture and names alone: other pictures and the order of anything play no part, and a name more
    or less to choose from changes one of those chosen at most.
    """
    if count == 0 or count >= len(names):
        return set(names)

    def lot(name: str) -> bytes:
        return hashlib.sha256(f"{seed}\n{pixel_digest}\n{name}".encode()).digest()

    return set(sorted(names, key=lot)[:count])


def choose_augmentations(rgb: np.ndarray, params: AugmentParams) -> list[Augmentation]:
    """What one published picture, uint8 (H, W, 3), is made into: all that is asked for, or a sample of it."""
    listed = list_augmentations(rgb.shape[1], rgb.shape[0], params)
    digest = digest_pixels(rgb) if params.sample else ""
    chosen = draw_sample([augmentation.name for augmentation in listed], params.sample, params.seed, digest)
    return [augmentation for augmentation in listed if augmentation.name in chosen]


def make_children(rgb: np.ndarray, params: AugmentParams) -> Iterator[tuple[str, np.ndarray]]:
    """(name, uint8 (H, W, 3)) of each derived picture of one published picture, one at a time.

    What leaves the picture as it is (nothing hangs crooked, the mirror image of something symmetric) is left out: it
    would only be the same picture again.
    """
    darkroom = Darkroom(rgb)
    for augmentation in choose_augmentations(rgb, params):
        child = darkroom.make(augmentation)
        if not np.array_equal(child, rgb):
            yield augmentation.name, child


def measure(pictures: Shard, params: AugmentParams) -> Facts:
    """The derived pictures of each published picture, as PNG blobs: one row of FACTS per distinct blob.

    One picture and one of its children are in memory at a time. Without `materialise` none is made: a child has the
    blob of its parent, and whoever reads it makes it (datasets.derived).
    """
    rows = []
    for digest, rgb in open_blobs(pictures, "blob"):
        children = (
            keep_children(rgb, params, pictures.store) if params.materialise else list_children(rgb, params, digest)
        )
        rows.append({INPUT: digest, "children": list(children)})
    return Facts(pa.Table.from_pylist(rows, schema=FACTS), opened=len(rows))


def keep_children(rgb: np.ndarray, params: AugmentParams, store: Store) -> Iterator[dict[str, Any]]:
    """The children of a picture as CHILD values, each stored as it is made."""
    for name, child in make_children(rgb, params):
        blob = store.blobs.put(encode_png(child))
        yield {"name": name, "blob": blob, "width": child.shape[1], "height": child.shape[0]}


def list_children(rgb: np.ndarray, params: AugmentParams, blob: str) -> Iterator[dict[str, Any]]:
    """The children of a picture as CHILD values, none of them kept, the same as `keep_children`. blob: the picture's.

    Those of the whole picture are made once, to see whether they change it. Tiles, which are dear, are taken to: of a
    picture that is not of one colour, a part, enlarged, is another picture.
    """
    darkroom = Darkroom(rgb)
    is_plain = bool((rgb == rgb[:1, :1]).all())
    for augmentation in choose_augmentations(rgb, params):
        tile = augmentation.tile
        may_be_equal = tile is None or tile.side == tile.canvas or is_plain
        if may_be_equal and np.array_equal(darkroom.make(augmentation), rgb):
            continue
        width, height = made_size(augmentation, rgb.shape[1], rgb.shape[0])
        yield {"name": augmentation.name, "blob": blob, "width": width, "height": height}


def add_children(items: pa.Table, facts: pa.Table) -> pa.Table:
    """Items and, after all of them, their children: `<crop_id>+<name>`, with the crop they are derived from.

    In chunks: each child repeats its parent's tags, and all of them together may be more than one array can hold.
    """
    joined = join_facts(items, facts)
    lists = joined["children"]
    nothing = pa.nulls(len(joined), pa.string())
    parents = joined.drop_columns(["children"])
    parents = parents.append_column("augmentation", nothing).append_column("parent_crop", nothing)
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    if not counts.any():
        return parents
    children = gather([parents], np.repeat(np.arange(len(parents)), counts))
    values = pc.list_flatten(lists)
    names = pc.struct_field(values, "name")
    changed = {
        "crop_id": pc.binary_join_element_wise(children["crop_id"], names, "+"),
        "parent_crop": children["crop_id"],
        "augmentation": names,
        **{name: pc.struct_field(values, name) for name in ("blob", "width", "height")},
    }
    for name, column in changed.items():
        children = children.set_column(children.column_names.index(name), name, column)
    return pa.concat_tables([parents, children])


def child_blobs(facts: pa.Table) -> pa.Array:
    """The blobs of each row's children, as lists."""
    children = facts["children"].combine_chunks()
    offsets = np.concatenate([[0], np.cumsum(pc.fill_null(pc.list_value_length(children), 0).to_numpy())])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pc.struct_field(pc.list_flatten(children), "blob"))


def decide(pictures: pa.Table, params: AugmentParams) -> pa.Table:
    """Everything stays."""
    return Verdicts(pictures).table()


STAGE = Stage(
    name="augment",
    version=STAGE_VERSION,
    max_shard=100,  # a picture's tiles take seconds: a shard takes some minutes
    params=AugmentParams,
    decide=decide,
    measure=measure,
    facts=FACTS,
    input_column="blob",
    expand=add_children,
    nested_blobs=child_blobs,
    enabled=lambda params: params.mirror or bool(params.guide) or params.tiles,
    off_because="augment asks for no derived pictures: training mirrors on the fly",
)


@shard_task("augment")
def augment_shard(shard: ShardRef) -> ShardResult:
    return measure_shard(STAGE, shard)
