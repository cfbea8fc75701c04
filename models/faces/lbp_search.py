"""Searching a picture with a cascade, coarse to fine.

A cascade rejects nearly every window, so a search costs what its windows cost. First the picture is looked over with
few windows: big steps between sizes, and, as OpenCV takes every second pixel only for windows of less than twice the
cascade's own size, in copies that are halved from octave to octave. What passes all stages anywhere is then looked at
again, closely, and only there. A face passes many windows of the close look, a chance resemblance few.
"""

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]
Rectangle = tuple[float, float, float, float]  # x, y, w, h

COARSE_STEP = 1.2  # from one size to the next, at the first look
FINE_STEP = 1.05  # at the second
NEIGHBOURS = 3  # raw hits of the second look that must agree before they count as a face
_REGION = 0.4  # what the second look sees beyond a candidate on each side, in its sides
_SMALLEST = 0.7  # window that the second look begins with, relative to the candidate
_SAME = 0.4  # how far hits may differ and be one candidate (cv2.groupRectangles)
_SAME_FACE = 0.3
_SHARED = 0.4  # of the smaller box: two boxes that share more show one face


def search_cascade(classifier: cv2.CascadeClassifier, grey: Grey, smallest: float) -> list[tuple[Rectangle, int]]:
    """Boxes with the number of raw hits that agreed on each, of a grey picture, uint8 (H, W).

    smallest: side of the smallest box to look for, in pixels, not below the cascade's own window.
    """
    window = classifier.getOriginalWindowSize()[0]
    hits = [hit for octave in _octaves(grey, smallest, window) for hit in _look(classifier, *octave, COARSE_STEP, 0)]
    found: list[tuple[Rectangle, int]] = []
    for candidate in _merge([box for box, _ in hits], _SAME):
        found += _look_closely(classifier, grey, candidate, window)
    merged = _merge([box for box, _ in found], _SAME_FACE)
    return _keep_clearest([(box, _count_hits(box, found)) for box in merged])


def _count_hits(box: Rectangle, found: list[tuple[Rectangle, int]]) -> int:
    """The most hits of a box that was merged into this one."""
    return max((count for other, count in found if _alike(box, other)), default=NEIGHBOURS)


def _keep_clearest(found: list[tuple[Rectangle, int]]) -> list[tuple[Rectangle, int]]:
    """Without boxes that share much with one of more hits: a face is also seen, less clearly, with its neck."""
    kept: list[tuple[Rectangle, int]] = []
    for box, count in sorted(found, key=lambda pair: (-pair[1], pair[0])):
        area = box[2] * box[3]
        if all(_overlap(box, other) <= _SHARED * min(area, other[2] * other[3]) for other, _ in kept):
            kept.append((box, count))
    return kept


def _octaves(grey: Grey, smallest: float, window: int) -> Iterator[tuple[Grey, float, float, float]]:
    """The picture reduced until the smallest box is one window, then halved and halved again, with what each is to
    the original: (copy, left, top, scale)."""
    scale = smallest / window
    copy = _resize(grey, 1 / scale)
    while min(copy.shape) >= window:
        yield copy, 0.0, 0.0, scale
        scale *= 2
        copy = _resize(copy, 0.5)


def _look(
    classifier: cv2.CascadeClassifier, copy: Grey, left: float, top: float, scale: float, step: float, neighbours: int
) -> list[tuple[Rectangle, int]]:
    """Boxes of one octave, in pixels of the original."""
    window = classifier.getOriginalWindowSize()[0]
    boxes, counts = classifier.detectMultiScale2(
        copy,
        scaleFactor=step,
        minNeighbors=neighbours,
        minSize=(window, window),
        maxSize=(2 * window - 1, 2 * window - 1),
    )
    return [
        ((left + x * scale, top + y * scale, w * scale, h * scale), int(count))
        for (x, y, w, h), count in zip(np.asarray(boxes).tolist(), np.asarray(counts).tolist(), strict=True)
    ]


def _look_closely(
    classifier: cv2.CascadeClassifier, grey: Grey, candidate: Rectangle, window: int
) -> list[tuple[Rectangle, int]]:
    """What is found around a candidate in small steps."""
    x, y, w, h = candidate
    left, top = max(0, round(x - _REGION * w)), max(0, round(y - _REGION * h))
    piece = grey[top : round(y + (1 + _REGION) * h), left : round(x + (1 + _REGION) * w)]
    scale = _SMALLEST * w / window
    return _look(classifier, _resize(piece, 1 / scale), left, top, scale, FINE_STEP, NEIGHBOURS)


def _merge(boxes: list[Rectangle], difference: float) -> list[Rectangle]:
    """One box, the mean, for each group of boxes that lie nearly alike; in no order."""
    if not boxes:
        return []
    whole = [[round(side) for side in box] for box in boxes]
    merged, _ = cv2.groupRectangles(whole * 2, 1, difference)  # twice: a box that stands alone stays, too
    return [(x, y, w, h) for x, y, w, h in np.asarray(merged).tolist()]


def _alike(a: Rectangle, b: Rectangle) -> bool:
    """Whether two boxes count as one, as cv2.groupRectangles sees it: all edges differ by less than a share."""
    most = _SAME_FACE * (min(a[2], b[2]) + min(a[3], b[3])) / 2
    edges = (a[0] - b[0], a[1] - b[1], a[0] + a[2] - b[0] - b[2], a[1] + a[3] - b[1] - b[3])
    return max(map(abs, edges)) <= most


def _overlap(a: Rectangle, b: Rectangle) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)


def _resize(grey: Grey, factor: float) -> Grey:
    if factor == 1:
        return grey
    size = (max(1, round(grey.shape[1] * factor)), max(1, round(grey.shape[0] * factor)))
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(grey, size, interpolation=way), dtype=np.uint8)
