"""Two detectors together: every face that either finds, or only the faces that both find."""

from dataclasses import replace
from typing import Literal

from models.faces.detector import SAME_FACE, Face, FaceDetector, Picture, in_reading_order, iou


class CombinedDetector:
    """Merges two detectors' faces: `union` for recall, `agreement` for precision.

    A face found by both keeps the second detector's box and landmarks, takes the higher of the two scores, and its
    detector is called ``first+second``. A face found by one (union only) stays as it was.
    """

    def __init__(self, first: FaceDetector, second: FaceDetector, keep: Literal["union", "agreement"]) -> None:
        self.name = f"{first.name}+{second.name}"
        self.weights: tuple[str, ...] = (*first.weights, *second.weights)
        self._first = first
        self._second = second
        self._keep = keep

    def detect(self, picture: Picture) -> list[Face]:
        """See `FaceDetector.detect`."""
        return self.merge(self._first.detect(picture), self._second.detect(picture))

    def merge(self, first: list[Face], second: list[Face]) -> list[Face]:
        """Merge the two detectors' faces of one picture, in reading order."""
        pairs = match_faces(first, second, SAME_FACE)
        both = [replace(second[j], score=max(first[i].score, second[j].score), detector=self.name) for i, j, _ in pairs]
        if self._keep == "agreement":
            return in_reading_order(both)
        paired_first, paired_second = {i for i, _, _ in pairs}, {j for _, j, _ in pairs}
        alone = [face for i, face in enumerate(first) if i not in paired_first]
        alone += [face for j, face in enumerate(second) if j not in paired_second]
        return in_reading_order([*both, *alone])


def match_faces(first: list[Face], second: list[Face], threshold: float) -> list[tuple[int, int, float]]:
    """Pair the faces of two lists one to one: greedily, the pair with the highest IoU first.

    Returns (index in first, index in second, IoU) of the pairs with at least ``threshold``; ties go to lower indices.
    """
    candidates = [(-iou(a, b), i, j) for i, a in enumerate(first) for j, b in enumerate(second)]
    taken_first: set[int] = set()
    taken_second: set[int] = set()
    pairs = []
    for negative, i, j in sorted(candidates):
        if -negative >= threshold and i not in taken_first and j not in taken_second:
            taken_first.add(i)
            taken_second.add(j)
            pairs.append((i, j, -negative))
    return pairs
