"""nagadomi's animeface: small neural networks that find anime faces with eyes, nose, mouth and chin.

The networks are the package's, the search around them is `animeface_search`. They look at grey alone: a grey picture
gives the same faces as its colours.
"""

import functools
import math

import cv2
import numpy as np

from models.faces.animeface_networks import PACKAGE, Floats, Networks, load_networks
from models.faces.animeface_search import SCALE_STEP, WINDOW, Cluster, cluster_windows, keep_apart, search_windows
from models.faces.detector import (
    RGB,
    DetectorError,
    Face,
    Landmark,
    Picture,
    in_reading_order,
    place,
    reduce_to_grey,
)

EVIDENCE = 1.5  # sum of likelihoods of the windows around a place from which it is a face: two windows at least
MARGIN_STEPS = 2  # window sizes to search below the smallest face: its smaller windows are evidence, too
MAX_SIDE = 1024  # pixels; a search costs in proportion to the area, and blurred lines of large scans are not seen


class AnimefaceDetector:
    """Anime faces with landmarks.

    The score is ``1 - EVIDENCE / (2 e)``, where e is the sum of the likelihoods of all windows around the face: .5 for
    the least that counts, towards 1 for a face that is seen at many neighbouring places and sizes. It ranks faces; it
    is not a probability.
    """

    name = "animeface"
    weights: tuple[str, ...] = (PACKAGE,)  # the networks are compiled into the package's library

    def __init__(self, min_size: int = 0, max_side: int | None = MAX_SIDE, evidence: float = EVIDENCE) -> None:
        """
        Args:
            min_size: smallest face to report, in pixels of the picture (43 is the least the networks can do). The
                picture is searched in the smallest copy that still shows it.
            max_side: search a copy whose long side is reduced to this many pixels; None: as large as min_size asks for.
            evidence: sum of likelihoods from which a place is a face.

        Raises `DetectorError` when the package is missing or another version, or when it does not find a drawn face.
        """
        self._networks = _tested_networks()
        self._min_size = min_size
        self._max_side = max_side
        self._evidence = evidence

    def detect(self, picture: Picture) -> list[Face]:
        """See `FaceDetector.detect`."""
        # Reduced by a power of the step between window sizes, so that these stay the same sizes in the picture.
        steps = max(0, math.floor(math.log(max(self._min_size, WINDOW) / WINDOW, SCALE_STEP)) - MARGIN_STEPS)
        grey, factor = reduce_to_grey(picture, self._max_side, SCALE_STEP**-steps)
        smallest = self._min_size * factor / SCALE_STEP**MARGIN_STEPS
        found = []
        for cluster in _search(grey, self._networks, smallest, self._evidence):
            box = (cluster.x, cluster.y, cluster.size, cluster.size)
            face = place(box, factor, picture, 1 - self._evidence / (2 * cluster.evidence), self.name)
            if face is not None and cluster.size >= self._min_size * factor:
                marks = _landmarks(cluster, factor, self._networks)
                found.append(Face(face.x, face.y, face.w, face.h, face.score, face.detector, marks))
        return in_reading_order(found)


def _search(grey: RGB, networks: Networks, smallest: float, evidence: float) -> list[Cluster]:
    clusters = cluster_windows(search_windows(grey, networks, smallest))
    return keep_apart([cluster for cluster in clusters if cluster.evidence >= evidence])


def _landmarks(cluster: Cluster, factor: float, networks: Networks) -> tuple[Landmark, ...]:
    """Centres of the eyes' and the mouth's boxes, and the two points, in pixels of the original picture."""
    best = cluster.best
    length = float(np.linalg.norm(best.features)) or 1.0
    parts: Floats = networks.parts(best.features[np.newaxis] / np.float32(length))[0]

    def point(name: str, column: int) -> Landmark:
        x, y = (float(parts[column + k]) * best.size for k in (0, 1))
        return Landmark(name, round((best.x + x) / factor, 1), round((best.y + y) / factor, 1))

    # Eyes and mouth are x, y and half their width and height; nose and chin are x, y. The right eye comes first.
    return (point("left_eye", 4), point("right_eye", 0), point("nose", 8), point("mouth", 10), point("chin", 14))


@functools.cache
def _tested_networks() -> Networks:
    """The networks, after they found a drawn face."""
    networks = load_networks()
    grey = np.asarray(cv2.cvtColor(draw_test_face(), cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    if len(_search(grey, networks, WINDOW, EVIDENCE)) != 1:
        raise DetectorError(
            "animeface does not find the drawn test face, so it would silently find nothing: reinstall it with "
            f"pip install --force-reinstall --no-deps {PACKAGE}, or set the detector to lbp."
        )
    return networks


def draw_test_face(size: int = 192) -> RGB:
    """A plain drawn face, (size, size, 3): hair, skin, two eyes, a mouth. The self-test looks for it."""
    canvas = np.full((512, 512, 3), (225, 235, 245), np.uint8)
    hair, skin, line = (90, 70, 110), (252, 226, 212), (40, 20, 30)
    cv2.ellipse(canvas, (256, 235), (180, 200), 0, 0, 360, hair, -1, cv2.LINE_AA)
    cv2.ellipse(canvas, (256, 280), (135, 150), 0, 0, 360, skin, -1, cv2.LINE_AA)
    fringe = [
        (111, 260),
        (131, 165),
        (256, 130),
        (381, 165),
        (401, 260),
        (316, 250),
        (276, 210),
        (226, 252),
        (156, 250),
    ]
    cv2.fillPoly(canvas, [np.array(fringe, np.int32)], hair, cv2.LINE_AA)
    for x in (194, 318):
        cv2.ellipse(canvas, (x, 300), (39, 42), 0, 0, 360, (255, 255, 255), -1, cv2.LINE_AA)
        cv2.ellipse(canvas, (x, 302), (28, 39), 0, 0, 360, (70, 90, 160), -1, cv2.LINE_AA)
        cv2.ellipse(canvas, (x, 302), (14, 22), 0, 0, 360, line, -1, cv2.LINE_AA)
        cv2.ellipse(canvas, (x, 300), (42, 46), 0, 190, 350, line, 8, cv2.LINE_AA)
    cv2.ellipse(canvas, (256, 380), (20, 9), 0, 0, 180, (170, 60, 60), 4, cv2.LINE_AA)
    return np.asarray(cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA), dtype=np.uint8)
