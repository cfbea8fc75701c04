"""Draw a whole board: pictures, metadata, and the truth about both.

    OUT/original/0123/2000123.jpg       NNNN = id % 1000
    OUT/metadata/posts000000000000.json (schema 2021) or 2018000000000000 (schema 2019)
    OUT/truth.parquet                   read by `evaluate` and by nothing else
    OUT/private/                        bait: only a reader that follows a `../` comes here

Every post depends on (seed, its number) alone, so the board is the same, byte for byte, whatever the number of workers.
"""

import hashlib
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datasets.booru.decoy import draw_decoy, draw_still
from datasets.booru.defects import BY_NAME, KINDS, PLAIN, Draft, Kind, jpeg, png
from datasets.booru.metadata import (
    SAFE_LETTER,
    PostFacts,
    RatingVintage,
    Schema,
    json_line,
    metadata_name,
    person_tags,
    post_row,
    tag_categories,
)
from datasets.booru.scene import Face, draw_picture, picture_size

PLANTED_SHARE = 0.3
ROWS_PER_FILE = 1000
FIRST_ID = 2_000_000
_INLINE_BELOW = 12  # posts; starting workers takes longer than drawing these

FACE_TYPE = pa.struct(
    [
        ("face_id", pa.string()),  # <post id of the original>/<number>: the same for the same face in copies
        ("x", pa.float64()),  # box in pixels from the top left
        ("y", pa.float64()),
        ("w", pa.float64()),
        ("h", pa.float64()),
        ("angle", pa.float64()),  # degrees, clockwise
        ("turn", pa.float64()),  # -1 to 1, nose towards the left or right border
        ("scale", pa.float64()),  # width of the face over the short side of the picture
        ("gender", pa.string()),
        ("hair_colour", pa.string()),
        ("hair_style", pa.string()),
        ("bangs", pa.string()),
        ("eye_colour", pa.string()),
        ("eye_shape", pa.string()),
        ("expression", pa.string()),
        ("skin", pa.string()),
        ("outfit", pa.string()),
        ("accessory", pa.string()),
        ("shading", pa.string()),
    ]
)
TRUTH_SCHEMA = pa.schema(
    [
        ("post_id", pa.string()),
        ("path", pa.string()),  # relative to the board; null where no file is
        ("kind", pa.string()),
        ("expected", pa.string()),  # keep or drop
        ("expected_stage", pa.string()),  # the latest stage that should drop it; null for keep
        ("original", pa.string()),  # post_id of what this is a copy of
        ("width", pa.int32()),  # of the picture as it should be seen, EXIF rotation applied
        ("height", pa.int32()),
        ("background", pa.string()),
        ("faces", pa.list_(FACE_TYPE)),
    ]
)


@dataclass(frozen=True)
class Order:
    """What to draw as post number `index`. All a worker needs."""

    index: int
    post_id: int
    kind: str
    original: int | None  # index of the post of which this is a copy
    original_id: int | None


@dataclass(frozen=True)
class BoardSummary:
    """What was drawn."""

    path: Path
    posts: int
    files: int
    faces: int
    kinds: dict[str, int]


def plan_board(posts: int, seed: int) -> list[Order]:
    """Decide which posts are planted, as what, and of which originals the copies are.

    Kinds are dealt in the order of the table, again and again, so that their counts differ by one at the most.
    """
    if posts < 1:
        raise ValueError(f"a board has at least one post, not {posts}")
    rng = np.random.default_rng([seed, 0xB0A2D])
    ids = FIRST_ID + np.cumsum(rng.integers(1, 40, posts))
    planted = rng.permutation(posts)[: round(posts * PLANTED_SHARE)]
    kinds = {int(index): KINDS[k % len(KINDS)] for k, index in enumerate(planted)}
    plain = [k for k in range(posts) if k not in kinds]
    copied = iter(rng.permutation(plain).tolist() * 2)
    orders = []
    for index in range(posts):
        kind = kinds.get(index, PLAIN)
        original = int(next(copied)) if kind.subject == "copy" else None
        original_id = None if original is None else int(ids[original])
        orders.append(Order(index, int(ids[index]), kind.name, original, original_id))
    return orders


def _draw(kind: Kind, rng: np.random.Generator) -> tuple[Draft, str]:
    """A good picture of the kind's subject, and the name of its background."""
    if kind.subject in ("still", "decoy"):
        width, height = picture_size(rng, 1)
        pixels, thing = (
            (draw_still(width, height, rng), "scenery") if kind.subject == "still" else draw_decoy(width, height, rng)
        )
        general = {thing} | ({"no_humans"} if kind.subject == "still" and rng.random() < 0.5 else set())
        draft = Draft(pixels, (), pixels, jpeg(pixels), "jpg", width, height, frozenset(general))
        return draft, thing
    people = int(rng.choice([1, 2, 3], p=[0.74, 0.18, 0.08]))
    picture = draw_picture(rng, people)
    as_png = rng.random() < 0.25
    quality, sharp = int(rng.integers(90, 96)), bool(rng.random() < 0.5)
    data = png(picture.pixels) if as_png else jpeg(picture.pixels, quality, sharp)
    height, width = picture.pixels.shape[:2]
    general = person_tags([f.person for f in picture.faces], picture.background)
    meta = {"highres"} if max(width, height) >= 1200 else set()
    draft = Draft(
        picture.pixels,
        picture.faces,
        picture.backdrop,
        data,
        "png" if as_png else "jpg",
        width,
        height,
        frozenset(general),
        frozenset(meta),
    )
    return draft, picture.background


def draw_post(order: Order, seed: int) -> tuple[Draft, str]:
    """The post as planned: bytes, metadata in the making, true faces; and the name of its background."""
    kind = BY_NAME[order.kind]
    drawn = order.index if order.original is None else order.original
    draft, background = _draw(PLAIN if kind.subject == "copy" else kind, np.random.default_rng([seed, drawn]))
    return kind.spoil(draft, np.random.default_rng([seed, order.index, 1])), background


def _face_row(face: Face, draft: Draft, original: int) -> dict[str, Any]:
    person = face.person
    return {
        "face_id": f"{original}/{face.number}",
        "x": round(face.x, 2),
        "y": round(face.y, 2),
        "w": round(face.side, 2),
        "h": round(face.side, 2),
        "angle": round(person.roll, 2),
        "turn": round(person.turn, 3),
        "scale": round(face.side / min(draft.width, draft.height), 4),
    } | {name: getattr(person, name) for name in FACE_TYPE.names if hasattr(person, name) and name != "turn"}


def _write_post(
    order: Order, seed: int, out: Path, schema: Schema, vintage: RatingVintage
) -> tuple[str | None, dict[str, Any]]:
    """Write the file of one post. Returns its line of metadata (None for none) and its row of truth."""
    draft, background = draw_post(order, seed)
    kind = BY_NAME[order.kind]
    path, claimed = Path(f"original/{order.post_id % 1000:04d}/{order.post_id}.{draft.ext}"), draft.ext
    if draft.bait:
        path = Path(f"private/{order.post_id}.{draft.ext}")
        claimed = f"/../../../{path.as_posix()}"
    if draft.data is not None:
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(draft.data)
    rng = np.random.default_rng([seed, order.index, 2])
    facts = PostFacts(
        post_id=order.post_id,
        md5=hashlib.md5(rng.bytes(16) if draft.data is None else draft.data, usedforsecurity=False).hexdigest(),
        ext=claimed,
        width=draft.width,
        height=draft.height,
        size=len(draft.data) if draft.data is not None else int(rng.integers(100_000, 900_000)),
        rating=draft.rating or SAFE_LETTER[vintage],
        deleted=draft.deleted,
        banned=draft.banned,
        parent_id=None,
        tags=tag_categories(set(draft.general), set(draft.meta), rng),
    )
    line: str | None = json_line(post_row(facts, schema, rng)) if draft.in_metadata else None
    if line is not None and draft.broken_line:
        line = line[: int(len(line) * rng.uniform(0.3, 0.9))]
    truth = {
        "post_id": str(order.post_id),
        "path": None if draft.data is None else path.as_posix(),
        "kind": kind.name,
        "expected": kind.expected,
        "expected_stage": kind.stage,
        "original": None if order.original_id is None else str(order.original_id),
        "width": draft.width,
        "height": draft.height,
        "background": background,
        "faces": [_face_row(face, draft, order.original_id or order.post_id) for face in draft.faces],
    }
    return line, truth


def _one_thread() -> None:
    cv2.setNumThreads(1)


def _posts(
    orders: list[Order], seed: int, out: Path, schema: Schema, vintage: RatingVintage, workers: int
) -> Iterator[tuple[str | None, dict[str, Any]]]:
    arguments = (orders, repeat(seed), repeat(out), repeat(schema), repeat(vintage))
    if workers <= 1 or len(orders) < _INLINE_BELOW:
        yield from map(_write_post, *arguments)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        yield from pool.map(_write_post, *arguments, chunksize=6)


def draw_board(
    out: Path,
    posts: int,
    seed: int,
    schema: Schema = Schema.TYPED_2021,
    rating_vintage: RatingVintage = RatingVintage.BEFORE_2022,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BoardSummary:
    """Draw `posts` posts into the new or empty folder `out`.

    `workers` None takes one process per processor; `progress` is called with (posts done, posts) after each.
    Raises FileExistsError when `out` holds anything: two boards in one folder would make the truth false.
    """
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty; name a new folder for the board, or empty this one")
    orders = plan_board(posts, seed)
    (out / "metadata").mkdir(parents=True, exist_ok=True)
    (out / "original").mkdir()
    lines: list[str] = []
    truths: list[dict[str, Any]] = []
    count = workers if workers is not None else multiprocessing.cpu_count()
    for line, truth in _posts(orders, seed, out, schema, rating_vintage, count):
        if line is not None:
            lines.append(line)
        truths.append(truth)
        if progress is not None:
            progress(len(truths), posts)
    for shard in range(0, max(1, len(lines)), ROWS_PER_FILE):
        name = metadata_name(schema, shard // ROWS_PER_FILE)
        text = "".join(f"{line}\n" for line in lines[shard : shard + ROWS_PER_FILE])
        (out / "metadata" / name).write_text(text, encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(truths, schema=TRUTH_SCHEMA), out / "truth.parquet")
    kinds = Counter(t["kind"] for t in truths)
    (out / "README.md").write_text(_readme(posts, seed, schema, rating_vintage, kinds), encoding="utf-8")
    return BoardSummary(
        path=out,
        posts=posts,
        files=sum(t["path"] is not None for t in truths),
        faces=sum(len(t["faces"]) for t in truths),
        kinds=dict(sorted(kinds.items())),
    )


def _readme(posts: int, seed: int, schema: Schema, vintage: RatingVintage, kinds: Counter[str]) -> str:
    rows = "\n".join(
        f"| {name} | {n} | {BY_NAME[name].expected} | {BY_NAME[name].stage or ''} |"
        for name, n in sorted(kinds.items())
    )
    safe = "the rating s is safe" if vintage is RatingVintage.BEFORE_2022 else "the rating g is safe, s is sensitive"
    return f"""# A drawn board

{posts} posts drawn by `kaobako booru OUT --posts {posts} --seed {seed} --schema {schema}`.
No person made these pictures and none of them shows one; do with them what you like.

* `metadata/`: one JSON object per line, in the schema of Danbooru's dumps of {schema}; {safe}
* `original/NNNN/ID.ext`: the files; NNNN is the id modulo 1000
* `private/`: not part of the board; a reader that comes here followed a `../` out of the metadata
* `truth.parquet`: what is true of each post and face; for `kaobako evaluate` only

| planted | posts | expected | dropped at the latest by |
|---|---|---|---|
{rows}
"""
