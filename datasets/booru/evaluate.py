"""How well a build did, against the truth of a drawn board.

Everything is counted in posts, except the faces. The formulas:

* A post is *kept* when any of its crops is in the manifest (augmented rows do not count).
* A post that is not kept was *dropped at* the last stage, in pipeline order, that has a ledger row of it; *unlisted*
  when the ledger has none (a file without metadata, a line that is no JSON).
* Copies: the faces of a copy are those of its original. A copy is kept, wrongly, when it has a crop of a face of which
  the original, or a copy of smaller id, has one too; otherwise it is a *survivor*, which is right. The original counts
  as kept when any post of its group is in the manifest: which of them is best is for the pipeline to say.
* Stage: precision = posts dropped at it that should be dropped (anywhere) / posts dropped at it;
  recall = posts that it or an earlier stage dropped, of those it should drop at the latest / those it should drop.
* Kind: rate = posts with the expected outcome / posts; that is recall for kinds to drop, keep rate for kinds to keep.
* Final: precision = kept posts that should be kept / kept posts; recall = the same / posts that should be kept.
* Faces: recall = faces with a crop in the manifest / faces of the posts that should be kept, where a crop out of a copy
  counts for the original; precision = crops that show a true face / crops that came with a face box. Matching is one
  to one, greedy, at intersection over union of 0.3 or more. Recall is also given per attribute (skin, expression, ...):
  detectors see some people worse than others.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

STAGES = ("filter", "crop", "clean", "dedup")
UNLISTED = "unlisted"
SURVIVOR = "survivor"
FACE_IOU = 0.3
ATTRIBUTES = ("skin", "gender", "expression", "eye_shape", "accessory", "shading")
_UNKNOWN_FACE = "?"
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class StageScore:
    """One stage against what truth says it should have dropped. Rates are None where nothing was to be counted."""

    stage: str
    dropped: int  # posts that ended here
    rightly: int  # of them, those that should not be in the dataset
    precision: float | None
    expected: int  # posts that should end here at the latest
    here: int
    earlier: int
    unlisted: int
    survivors: int  # copies that stand for their group, the original having been dropped
    later: int
    missed: int  # posts of `expected` that are in the dataset
    recall: float | None


@dataclass(frozen=True)
class KindScore:
    """One kind of post; `rate` is recall where the kind should be dropped, keep rate where it should be kept."""

    kind: str
    posts: int
    expected: str
    as_expected: int
    rate: float | None
    dropped_at: dict[str, int]


@dataclass(frozen=True)
class RateScore:
    """Precision and recall with their counts."""

    found: int
    right: int
    expected: int
    precision: float | None
    recall: float | None


@dataclass(frozen=True)
class AttributeScore:
    """Recall of the true faces that share an attribute, such as skin = tan."""

    attribute: str
    value: str
    faces: int
    found: int
    recall: float | None


@dataclass(frozen=True)
class Evaluation:
    """Scores per stage and kind, of the faces, and of the dataset as a whole."""

    stages: tuple[StageScore, ...]
    kinds: tuple[KindScore, ...]
    faces: RateScore
    attributes: tuple[AttributeScore, ...]
    final: RateScore

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists, numbers and strings."""
        whole = asdict(self)
        return {name: list(part) if isinstance(part, tuple) else part for name, part in whole.items()}

    def to_tables(self) -> dict[str, list[dict[str, Any]]]:
        """Rows to print, one list per section: `stages`, `kinds`, `attributes`, `summary`."""
        kinds = [asdict(k) | {"dropped_at": ", ".join(f"{s} {n}" for s, n in k.dropped_at.items())} for k in self.kinds]
        summary = [{"what": "final dataset (posts)"} | asdict(self.final), {"what": "faces"} | asdict(self.faces)]
        return {
            "stages": [asdict(s) for s in self.stages],
            "kinds": kinds,
            "attributes": [asdict(a) for a in self.attributes],
            "summary": summary,
        }


def evaluate(manifest: pa.Table, ledger: pa.Table, truth: pa.Table) -> Evaluation:
    """Score a version against the truth of the board it was built from.

    `manifest` needs crop_id, post_id, box_x, box_y, box_w, box_h, face_x, face_y, face_w, face_h (nullable) and
    augmentation; boxes are in pixels of the source picture, EXIF rotation applied. `ledger` needs stage and post_id.
    `truth` is the board's `truth.parquet`. Raises ValueError when no post of the manifest is in the truth.
    """
    posts = {str(row["post_id"]): row for row in truth.to_pylist()}
    names = {str(row["path"]): post for post, row in posts.items() if row["path"]} | {post: post for post in posts}
    crops = _crops_by_post(manifest, names)
    if crops and not crops.keys() & posts.keys():
        raise ValueError("no post of this version is in the truth file; it belongs to another board")
    matches = {post: _match_faces(rows, posts[post]["faces"]) for post, rows in crops.items() if post in posts}
    shown = {face["face_id"] for matched in matches.values() for face in matched.values()}
    wanted = [face for row in posts.values() if row["expected"] == "keep" for face in row["faces"]]
    faces = [(face, face["face_id"] in shown) for face in wanted]
    kept = _kept_posts(posts, crops, matches)
    ended = _ended_at(ledger, names)
    where = {post: kept.get(post) or ended.get(post, UNLISTED) for post in posts}
    order = [*STAGES, *sorted({s for s in ended.values() if s not in STAGES})]
    return Evaluation(
        stages=tuple(_score_stage(stage, order, posts, where) for stage in order),
        kinds=tuple(_score_kind(kind, posts, where) for kind in sorted({p["kind"] for p in posts.values()})),
        faces=_score_faces(crops, faces, matches),
        attributes=tuple(_score_attributes(faces)),
        final=_score_final(posts, crops, kept),
    )


def _crops_by_post(manifest: pa.Table, names: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """Rows that are no augmentations by post id; `names` says which post a path is (for files without metadata)."""
    boxes = [f"{kind}_{side}" for kind in ("box", "face") for side in "xywh"]
    columns = ["crop_id", "post_id", "augmentation", *boxes]
    missing = [name for name in columns if name not in manifest.column_names]
    if missing:
        raise ValueError(f"the manifest lacks the columns {', '.join(missing)}; is it one of this program's versions?")
    crops: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in manifest.select(columns).to_pylist():
        if row["augmentation"] is None:
            crops[names.get(str(row["post_id"]), str(row["post_id"]))].append(row)
    for rows in crops.values():
        rows.sort(key=lambda row: str(row["crop_id"]))
    return dict(crops)


def _ended_at(ledger: pa.Table, names: dict[str, str]) -> dict[str, str]:
    """The last stage, in pipeline order, that dropped something of each post."""
    rank = {stage: k for k, stage in enumerate(STAGES)}
    ended: dict[str, str] = {}
    for post, stage in zip(ledger["post_id"].to_pylist(), ledger["stage"].to_pylist(), strict=True):
        name = names.get(str(post))
        if name is None:  # a broken line of metadata is named by its file and number
            continue
        before = ended.get(name)
        if before is None or rank.get(stage, len(STAGES)) > rank.get(before, len(STAGES)):
            ended[name] = stage
    return ended


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes (x, y, w, h)."""
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    tall = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(0.0, wide) * max(0.0, tall)
    return both / (a[2] * a[3] + b[2] * b[3] - both) if both else 0.0


def _box(row: dict[str, Any], kind: str) -> Box | None:
    x, y, w, h = (row[f"{kind}_{side}"] for side in "xywh")
    return None if x is None else (float(x), float(y), float(w), float(h))


def _match_faces(crops: Sequence[dict[str, Any]], faces: Iterable[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Index of a crop to the true face it shows, one to one, best overlap first."""
    pairs = []
    true = list(faces)
    for i, crop in enumerate(crops):
        found = _box(crop, "face")
        for j, face in enumerate(true):
            if found is not None:
                pairs.append((overlap(found, (face["x"], face["y"], face["w"], face["h"])), -i, -j))
    matched: dict[int, dict[str, Any]] = {}
    taken: set[int] = set()
    for score, i, j in sorted(pairs, reverse=True):
        if score >= FACE_IOU and -i not in matched and -j not in taken:
            matched[-i] = true[-j]
            taken.add(-j)
    return matched


def _kept_posts(
    posts: dict[str, dict[str, Any]],
    crops: dict[str, list[dict[str, Any]]],
    matches: dict[str, dict[int, dict[str, Any]]],
) -> dict[str, str]:
    """Posts in the manifest: `kept`, or `survivor` for a copy that rightly stands for its group."""
    kept = {post: "kept" for post in posts if post in crops}
    groups: dict[str, list[str]] = defaultdict(list)
    for post, row in sorted(posts.items()):
        if row["original"] is not None:
            groups[row["original"]].append(post)
    for original, copies in groups.items():
        present = [post for post in (original, *copies) if post in crops]
        seen: set[str] = set()
        for post in present:
            shown = {face["face_id"] for face in matches[post].values()} or {_UNKNOWN_FACE}
            if post != original and not shown & seen:
                kept[post] = SURVIVOR
            seen |= shown | {_UNKNOWN_FACE}
        if present:
            kept[original] = "kept"
    return kept


def _rate(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _score_stage(
    stage: str, order: Sequence[str], posts: dict[str, dict[str, Any]], where: dict[str, str]
) -> StageScore:
    dropped = [post for post, end in where.items() if end == stage]
    rightly = sum(posts[post]["expected"] == "drop" for post in dropped)
    due = [post for post, row in posts.items() if row["expected_stage"] == stage]
    ends = Counter(where[post] for post in due)
    earlier = sum(ends[s] for s in order[: order.index(stage)])
    later = sum(ends[s] for s in order[order.index(stage) + 1 :])
    caught = ends[stage] + earlier + ends[UNLISTED] + ends[SURVIVOR]
    return StageScore(
        stage=stage,
        dropped=len(dropped),
        rightly=rightly,
        precision=_rate(rightly, len(dropped)),
        expected=len(due),
        here=ends[stage],
        earlier=earlier,
        unlisted=ends[UNLISTED],
        survivors=ends[SURVIVOR],
        later=later,
        missed=ends["kept"],
        recall=_rate(caught, len(due)),
    )


def _score_kind(kind: str, posts: dict[str, dict[str, Any]], where: dict[str, str]) -> KindScore:
    mine = [post for post, row in posts.items() if row["kind"] == kind]
    expected = str(posts[mine[0]]["expected"])
    ends = Counter(where[post] for post in mine)
    as_expected = ends["kept"] if expected == "keep" else len(mine) - ends["kept"]
    dropped_at = {stage: n for stage, n in sorted(ends.items()) if stage != "kept"}
    return KindScore(kind, len(mine), expected, as_expected, _rate(as_expected, len(mine)), dropped_at)


def _score_faces(
    crops: dict[str, list[dict[str, Any]]],
    faces: Sequence[tuple[dict[str, Any], bool]],
    matches: dict[str, dict[int, dict[str, Any]]],
) -> RateScore:
    cut = sum(_box(row, "face") is not None for rows in crops.values() for row in rows)
    right = sum(len(matched) for matched in matches.values())
    found = sum(seen for _, seen in faces)
    return RateScore(cut, right, len(faces), _rate(right, cut), _rate(found, len(faces)))


def _score_attributes(faces: Sequence[tuple[dict[str, Any], bool]]) -> Iterable[AttributeScore]:
    for attribute in ATTRIBUTES:
        seen: dict[str, list[bool]] = defaultdict(list)
        for face, found in faces:
            if face.get(attribute) is not None:
                seen[str(face[attribute])].append(found)
        for value, hits in sorted(seen.items()):
            yield AttributeScore(attribute, value, len(hits), sum(hits), _rate(sum(hits), len(hits)))


def _score_final(
    posts: dict[str, dict[str, Any]], crops: dict[str, list[dict[str, Any]]], kept: dict[str, str]
) -> RateScore:
    wanted = {post for post, row in posts.items() if row["expected"] == "keep"}
    present = {post for post, how in kept.items() if how != SURVIVOR}
    found = len(present) + sum(post not in posts for post in crops)
    right = len(present & wanted)
    return RateScore(found, right, len(wanted), _rate(right, found), _rate(right, len(wanted)))
