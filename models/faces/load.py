"""A face detector by its name in a recipe."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from models.faces.animeface import AnimefaceDetector
from models.faces.combine import CombinedDetector
from models.faces.confirm import ConfirmedDetector
from models.faces.detector import DetectorError, FaceDetector
from models.faces.lbp import LBPDetector
from models.faces.onnx import OnnxDetector

DetectorMode = Literal["lbp", "animeface", "union", "agreement", "onnx"]
MAX_SIDE = 1024  # pixels: larger pictures are searched in a reduced copy; see benchmarks/face_detectors.py
LOOSE = 1.0  # of animeface's evidence, where recall is asked for: two windows


def load_detector(
    mode: DetectorMode = "union",
    min_size: int = 24,
    folders: Sequence[Path] = (),
    max_side: int | None = MAX_SIDE,
    model: Path | None = None,
) -> FaceDetector:
    """Build a detector, ready to use.

    Args:
        mode: ``lbp`` (frontal, fast), ``animeface`` (more faces, with landmarks), ``union`` (found by either),
            ``agreement`` (found by animeface and confirmed by lbp), ``onnx`` (the network in ``model`` alone).
        min_size: smallest face to report, in pixels of the picture (lbp sees 18 and more, animeface 43 and more). The
            larger, the faster: the picture is searched in the smallest copy that still shows such faces.
        folders: where weights are looked for besides the user's own folder (the store's ``weights``).
        max_side: pictures with a longer side are searched in a copy reduced to it (a face must still have the 18 or
            43 pixels there; strips: see `limit_side`); None leaves the size to ``min_size``.
        model: a YOLO-style network in an ONNX file; with ``union``, what it finds is added; with ``agreement``, it must
            find what lbp or animeface found.

    Raises:
        ValueError: another mode.
        models.weights.WeightError: the cascade is missing or damaged.
        models.faces.detector.DetectorError: animeface or the network cannot be used here, or ``model`` does not fit
            the mode.
    """
    if mode not in get_args(DetectorMode):
        raise ValueError(f"no face detector is called {mode!r}: choose one of {', '.join(get_args(DetectorMode))}")
    if mode == "onnx" and model is None:
        raise DetectorError("The detector onnx needs a network: give the path of an ONNX file.")
    if mode in ("lbp", "animeface") and model is not None:
        raise DetectorError(f"The detector {mode} uses no network of yours: choose onnx, union or agreement.")
    network = None if model is None else OnnxDetector.load(model, min_size)
    if mode == "onnx" and network is not None:
        return network
    if mode == "lbp":
        return LBPDetector.load(min_size, max_side, folders)
    if mode == "animeface":
        return AnimefaceDetector(min_size, max_side)
    if mode == "agreement" and network is None:
        return ConfirmedDetector(AnimefaceDetector(min_size, max_side), LBPDetector.load(folders=folders), max_side)
    either = CombinedDetector(
        LBPDetector.load(min_size, max_side, folders), AnimefaceDetector(min_size, max_side, LOOSE), "union"
    )
    return either if network is None else CombinedDetector(network, either, mode)  # type: ignore[arg-type]
