"""A face detector by its name in a recipe."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from models.faces.animeface import AnimefaceDetector
from models.faces.combine import CombinedDetector
from models.faces.detector import FaceDetector
from models.faces.lbp import LBPDetector

DetectorMode = Literal["lbp", "animeface", "union", "agreement"]
MAX_SIDE = 1024  # pixels: larger pictures are searched in a reduced copy; see benchmarks/face_detectors.py


def load_detector(
    mode: DetectorMode = "union",
    min_size: int = 24,
    folders: Sequence[Path] = (),
    max_side: int | None = MAX_SIDE,
) -> FaceDetector:
    """Build a detector, ready to use.

    Args:
        mode: ``lbp`` (frontal, fast), ``animeface`` (more faces, with landmarks, slower), ``union`` (found by either),
            ``agreement`` (found by both).
        min_size: smallest face to look for, in pixels of the picture (lbp sees 18 and more, animeface 43 and more).
        folders: where weights are looked for besides the user's own folder (the store's ``weights``).
        max_side: pictures with a longer side are searched in a copy reduced to it (a face must still have the 18 or
            43 pixels there); None searches every picture at full size.

    Raises:
        ValueError: another mode.
        models.weights.WeightError: the cascade is missing or damaged.
        models.faces.detector.DetectorError: animeface cannot be used here.
    """
    if mode not in get_args(DetectorMode):
        raise ValueError(f"no face detector is called {mode!r}: choose one of {', '.join(get_args(DetectorMode))}")
    if mode == "lbp":
        return LBPDetector.load(min_size, max_side, folders)
    if mode == "animeface":
        return AnimefaceDetector(min_size, max_side)
    return CombinedDetector(LBPDetector.load(min_size, max_side, folders), AnimefaceDetector(min_size, max_side), mode)
