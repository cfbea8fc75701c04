"""What the crop stage drops: verdicts on crops, without opening anything."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.pictures import Defect
from models.faces.marks import INSIDE
from tasks.crop_params import CropParams
from tasks.stage import Threshold
from tasks.verdicts import Verdicts

_BOX = ("face_x", "face_y", "face_w", "face_h")
THRESHOLDS = (
    Threshold("face_w", "crop.min_face", "face_too_small"),
    Threshold("detector_score", "crop.min_score", "unsure_face"),
    Threshold("box_w", "crop.min_size", "too_small"),
    Threshold("box_h", "crop.min_size", "too_small"),
    Threshold("faces_in_crop", "crop.max_faces", "several_faces", "<=", lambda params: float(params.max_faces) or None),
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
    if params.drop_cut:
        verdicts.drop(_read_mark(crops, "face_cut"), "face_cut_off", parameter="crop.drop_cut", measurement="face_cut")
    for rule in THRESHOLDS:
        verdicts.hold(rule, params)
    if params.drop_inside:  # last: a face that is dropped itself takes no other with it
        inside = find_inside(crops, verdicts.open)
        verdicts.drop(inside, "face_inside_another", parameter="crop.drop_inside", measurement="face_inside")
    return verdicts.table()


def find_inside(crops: pa.Table, kept: np.ndarray) -> np.ndarray:
    """Which crops show a face that lies inside a larger one which stays.

    Args:
        crops: rows with post_id, face_inside and the faces' boxes. Only posts with a marked face are looked at.
        kept: bool (N,), the crops that no other rule drops.

    Returns:
        bool (N,). Of faces that lie one in another the largest is judged first: one that falls itself takes none with
        it.
    """
    inside = np.zeros(len(crops), dtype=bool)
    marked = _read_mark(crops, "face_inside") & kept
    if not marked.any():
        return inside
    posts = pc.unique(crops["post_id"].filter(pa.array(marked)))
    rows = np.flatnonzero(pc.is_in(crops["post_id"], value_set=posts).to_numpy(zero_copy_only=False) & kept)
    few = crops.select(["post_id", *_BOX]).take(pa.array(rows))
    x, y, w, h = (few[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in _BOX)
    owner = pc.index_in(few["post_id"], value_set=posts).to_numpy(zero_copy_only=False)
    area = w * h
    order = np.lexsort((-area, owner))
    starts = np.searchsorted(owner[order], np.arange(len(posts)))  # of each post's faces in the order, largest first
    place = np.empty(len(rows), dtype=np.int64)
    place[order] = np.arange(len(rows))
    fallen = np.zeros(len(rows), dtype=bool)
    for face in order[marked[rows][order]]:
        others = order[starts[owner[face]] : place[face]]
        others = others[~fallen[others] & (area[others] > area[face])]
        across = np.minimum(x[face] + w[face], x[others] + w[others]) - np.maximum(x[face], x[others])
        down = np.minimum(y[face] + h[face], y[others] + h[others]) - np.maximum(y[face], y[others])
        shared = np.maximum(across, 0) * np.maximum(down, 0)
        fallen[face] = (shared / area[face] >= INSIDE).any()
    inside[rows[fallen]] = True
    return inside


def _read_mark(crops: pa.Table, column: str) -> np.ndarray:
    """A mark as bool (N,); null (no face) is no mark."""
    marks: np.ndarray = pc.fill_null(crops[column], False).to_numpy(zero_copy_only=False)
    return marks
