"""A YOLO-style face detector in a user's own ONNX file, run by onnxruntime where it is installed, else by OpenCV.

No such network is part of the project. What `ultralytics` and the YOLOv5 repository export is understood: one float
input (1, 3, height, width), RGB from 0 to 1; one output of boxes (centre x, centre y, width, height in pixels of the
input) with probabilities:

* YOLOv5: (1, boxes, 5 + classes): box, probability of an object, probability of each class given an object;
* YOLOv8 and later: (1, 4 + classes, boxes): box, probability of each class.

There are always more boxes than numbers per box, so the shape tells which it is.
"""

import hashlib
import threading
from collections.abc import Callable
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from models.faces.detector import RGB, DetectorError, Face, Picture, check_picture, in_reading_order, place
from models.faces.onnx_graph import FLOAT, read_inputs

Runtime = Literal["onnxruntime", "opencv"]
Floats = npt.NDArray[np.float32]

INPUT_SIZE = 640  # pixels: where the file leaves the input's size free
CONFIDENCE = 0.3
OVERLAP = 0.5  # IoU from which the less probable of two boxes is dropped
MARGIN = 114  # grey around a letterboxed picture, as in the training of these networks
MAX_INPUT = 4096  # pixels
MAX_BOXES = 1000  # most probable boxes that are compared with one another


class OnnxDetector:
    """Faces from a YOLO-style network. The score is the network's probability, the box the one it was trained for."""

    name = "onnx"

    def __init__(
        self,
        model: bytes,
        min_size: int = 0,
        confidence: float = CONFIDENCE,
        overlap: float = OVERLAP,
        face_class: int = 0,
        runtime: Runtime | None = None,
    ) -> None:
        """
        Args:
            model: the ONNX file's bytes.
            min_size: smallest box to report (its longer side), in pixels of the picture.
            confidence: lowest probability to report, 0 to 1.
            overlap: IoU from which the less probable of two boxes is dropped, 0 to 1.
            face_class: which of the network's classes is a face, from 0.
            runtime: who runs it; None: onnxruntime when installed, else OpenCV.

        The network is run once on a plain picture, so that what cannot work is a `DetectorError` now.
        """
        if not 0 < confidence <= 1 or not 0 < overlap <= 1:
            raise DetectorError(f"confidence and overlap must be above 0 and at most 1, not {confidence} and {overlap}")
        self._min_size = min_size
        self._confidence = confidence
        self._overlap = overlap
        self._face_class = face_class
        name, self._width, self._height = _read_input(model)
        self._run, version = _load(model, name, runtime)
        self.weights: tuple[str, ...] = (f"onnx sha256:{hashlib.sha256(model).hexdigest()} run by {version}",)
        self._check(self._forward(np.full((self._height, self._width, 3), MARGIN, np.uint8)))

    @classmethod
    def load(cls, path: Path, min_size: int = 0, **settings: Any) -> "OnnxDetector":
        """From a file; raises `DetectorError` when it cannot be read. Settings are those of the constructor."""
        try:
            model = Path(path).read_bytes()
        except OSError as error:
            raise DetectorError(f"The face detector {path} cannot be read: {error.strerror or error}.") from error
        return cls(model, min_size, **settings)

    def detect(self, picture: Picture) -> list[Face]:
        """See `FaceDetector.detect`."""
        check_picture(picture)
        rgb = picture if picture.ndim == 3 else np.repeat(picture[..., np.newaxis], 3, axis=2)
        boxed, factor, left, top = _letterbox(rgb, self._width, self._height)
        boxes, scores = split_output(self._forward(boxed), self._face_class)
        found = []
        for index in self._select(boxes, scores):
            x, y, w, h = map(float, boxes[index])
            box = (x - w / 2 - left, y - h / 2 - top, w, h)
            face = place(box, factor, rgb, min(1.0, float(scores[index])), self.name)
            if face is not None and max(face.w, face.h) >= self._min_size:
                found.append(face)
        return in_reading_order(found)

    def _forward(self, boxed: RGB) -> Floats:
        """The network's answer to a picture of its input's size."""
        blob = np.ascontiguousarray(boxed.transpose(2, 0, 1)[np.newaxis], np.float32) / np.float32(255)
        return self._run(blob)

    def _select(self, boxes: Floats, scores: Floats) -> list[int]:
        """Which boxes are probable enough and not a lesser copy of a better one; the best first."""
        sound = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1) & (scores >= self._confidence)
        order = np.flatnonzero(sound)[np.argsort(-scores[sound], kind="stable")][:MAX_BOXES]
        corners = [(float(x - w / 2), float(y - h / 2), float(w), float(h)) for x, y, w, h in boxes[order]]
        kept = cv2.dnn.NMSBoxes(corners, scores[order].tolist(), 0.0, self._overlap)
        return [int(order[k]) for k in np.ravel(np.asarray(kept, dtype=np.int64))]

    def _check(self, output: Floats) -> None:
        """That an answer has one of the two layouts, and probabilities in it."""
        _, scores = split_output(output, self._face_class)
        if not np.isfinite(scores).all() or scores.min() < -0.01 or scores.max() > 1.01:
            raise DetectorError(
                f"The network's scores reach from {scores.min():.3g} to {scores.max():.3g}, not from 0 to 1: "
                "export it with its last sigmoid, and without NMS or scaling of its own."
            )


def split_output(output: Floats, face_class: int) -> tuple[Floats, Floats]:
    """Boxes (n, 4) as centre, width and height in pixels of the input, and their probabilities (n,) of being a face.

    Raises `DetectorError` for a shape that is neither YOLOv5's nor YOLOv8's, or without such a class.
    """
    shape = output.shape
    if len(shape) != 3 or shape[0] != 1 or min(shape[1:]) < 5 or shape[1] == shape[2]:
        raise DetectorError(
            f"The network's output has the shape {shape}; a YOLO face detector answers (1, boxes, 5 + classes) or "
            "(1, 4 + classes, boxes), with more boxes than numbers per box. Export it so, with a batch of 1."
        )
    rows, objects = (output[0], True) if shape[1] > shape[2] else (output[0].T, False)
    first = 5 if objects and rows.shape[1] > 5 else 4  # (1, boxes, 5) is one probability, however it is called
    classes = rows.shape[1] - first
    if not 0 <= face_class < classes:
        raise DetectorError(f"The network has {classes} classes, 0 to {classes - 1}: {face_class} cannot be the face.")
    scores = rows[:, first + face_class]
    return rows[:, :4], scores * rows[:, 4] if first == 5 else scores


def _read_input(model: bytes) -> tuple[str, int, int]:
    """Name, width and height of the only input. Raises `DetectorError` when it does not take a picture."""
    try:
        inputs = read_inputs(model)
    except ValueError as error:
        raise DetectorError(f"The face detector is not an ONNX file: {error}.") from error
    stated = ", ".join(f"{entry.name} {entry.shape}" for entry in inputs) or "none"
    wanted = f"a face detector needs one float32 input (1, 3, height, width), but this file's are: {stated}"
    if len(inputs) != 1 or inputs[0].element != FLOAT or len(inputs[0].shape) != 4:
        raise DetectorError(f"The network cannot be used: {wanted}.")
    batch, channels, height, width = inputs[0].shape
    if batch not in (None, 1) or channels not in (None, 3):
        raise DetectorError(f"The network cannot be used: {wanted}.")
    height, width = height or INPUT_SIZE, width or INPUT_SIZE
    if max(height, width) > MAX_INPUT:
        raise DetectorError(f"The network wants pictures of {width} x {height} pixels; at most {MAX_INPUT} are run.")
    return inputs[0].name, width, height


def _load(model: bytes, name: str, runtime: Runtime | None) -> tuple[Callable[[Floats], Floats], str]:
    """A function that runs the network, safe to call from threads, and who runs it, with the version."""
    chosen = runtime or choose_runtime()
    load = _load_with_onnxruntime if chosen == "onnxruntime" else _load_with_opencv
    return load(model, name), name_runtime(chosen)


def choose_runtime() -> Runtime:
    """Who runs networks here: onnxruntime where it is installed, else OpenCV."""
    return "onnxruntime" if find_spec("onnxruntime") else "opencv"


def name_runtime(runtime: Runtime | None = None) -> str:
    """Who runs networks, with the version: `onnxruntime 1.32.0`. None: the one that is chosen here."""
    runtime = runtime or choose_runtime()
    return f"opencv {cv2.__version__}" if runtime == "opencv" else f"onnxruntime {metadata.version('onnxruntime')}"


def _load_with_onnxruntime(model: bytes, name: str) -> Callable[[Floats], Floats]:
    try:
        onnxruntime: Any = import_module("onnxruntime")
    except ImportError as error:
        raise DetectorError("onnxruntime is not installed: run pip install 'kaobako[onnx]'.") from error
    try:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class of their own
        raise DetectorError(f"onnxruntime cannot load the face detector: {error}") from error

    def run(blob: Floats) -> Floats:
        try:
            return _first_boxes(session.run(None, {name: blob}))
        except DetectorError:
            raise
        except Exception as error:
            raise DetectorError(f"onnxruntime cannot run the face detector: {error}") from error

    return run


def _load_with_opencv(model: bytes, name: str) -> Callable[[Floats], Floats]:
    try:
        net = cv2.dnn.readNetFromONNX(np.frombuffer(model, np.uint8))
    except cv2.error as error:
        raise DetectorError(
            f"OpenCV cannot load the face detector (onnxruntime knows more: pip install 'kaobako[onnx]'): {error}"
        ) from error
    lock = threading.Lock()  # a Net keeps the picture inside; it uses all cores by itself

    def run(blob: Floats) -> Floats:
        try:
            with lock:
                net.setInput(blob, name)
                return _first_boxes([np.array(out) for out in net.forward(net.getUnconnectedOutLayersNames())])
        except cv2.error as error:
            raise DetectorError(
                f"OpenCV cannot run the face detector (onnxruntime knows more: pip install 'kaobako[onnx]'): {error}"
            ) from error

    return run


def _first_boxes(outputs: list[Any]) -> Floats:
    """The output with the boxes: the first of three dimensions (YOLOv5 may give its raw maps, too), else the first."""
    if not outputs:
        raise DetectorError("The network has no output.")
    chosen = next((out for out in outputs if np.ndim(out) == 3), outputs[0])
    return np.asarray(chosen, dtype=np.float32)


def _letterbox(rgb: RGB, width: int, height: int) -> tuple[RGB, float, int, int]:
    """The picture fitted into width x height with grey margins; its scale, and the left and top margin in pixels."""
    rows, columns = rgb.shape[:2]
    factor = min(width / columns, height / rows)
    size = (min(width, max(1, round(columns * factor))), min(height, max(1, round(rows * factor))))
    if size == (columns, rows):
        fitted = rgb
    else:
        method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        fitted = np.asarray(cv2.resize(rgb, size, interpolation=method), dtype=np.uint8)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    boxed = np.full((height, width, 3), MARGIN, np.uint8)
    boxed[top : top + size[1], left : left + size[0]] = fitted
    return boxed, factor, left, top
