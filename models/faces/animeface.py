"""nagadomi's animeface (nvxs 1.0.2): small neural networks that find anime faces with eyes, nose, mouth and chin.

The `animeface` package wraps this C library, but its wrapper reads Pillow's private image struct as it was up to
Pillow 11 (with Pillow 12 or later it silently finds nothing), and it keeps Python's global lock for the whole search.
So the same library is called here directly: no Pillow struct is involved, and threads search in parallel (nothing on
the way through detection is static in the library). The steps and constants are those of the package's wrapper.
"""

import ctypes
import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import cv2
import numpy as np

from models.faces.detector import (
    RGB,
    DetectorError,
    Face,
    Landmark,
    check_rgb,
    in_reading_order,
    place,
    reduce_picture,
)

PACKAGE = "animeface==2.0.3"  # the build whose structs are declared below
WINDOW = 42.592  # pixels: smallest search window
SCALE_STEP = 1.095  # from one window size to the next
STEP = 4.0
EDGE_GAIN = 4.0  # of the Laplacian that the networks look at
MAX_FACES = 4096
MAX_SIDE = 1024  # pixels; a search costs in proportion to the area, and blurred lines of large scans are not seen


class _Matrix(ctypes.Structure):
    """nv_matrix_t: m rows of n floats, each row padded to `step`; a picture has one row per pixel."""

    _fields_ = (
        ("list", ctypes.c_int),
        ("list_step", ctypes.c_uint),
        ("n", ctypes.c_int),
        ("m", ctypes.c_int),
        ("rows", ctypes.c_int),
        ("cols", ctypes.c_int),
        ("step", ctypes.c_int),
        ("alias", ctypes.c_int),
        ("v", ctypes.POINTER(ctypes.c_float)),
    )


class _Rect(ctypes.Structure):
    """nv_rect_t, pixels."""

    _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_int), ("width", ctypes.c_int), ("height", ctypes.c_int))


class _Position(ctypes.Structure):
    """nv_face_position_t: nose and chin are points (width and height say nothing)."""

    _fields_ = (
        ("likelihood", ctypes.c_float),
        ("face", _Rect),
        ("left_eye", _Rect),
        ("right_eye", _Rect),
        ("nose", _Rect),
        ("mouth", _Rect),
        ("chin", _Rect),
    )


_MatrixPointer = ctypes.POINTER(_Matrix)


class AnimefaceDetector:
    """Anime faces with landmarks; the score is the networks' likelihood (.5 is the library's own bar)."""

    name = "animeface"
    weights: tuple[str, ...] = (PACKAGE,)  # the networks are compiled into the package's library

    def __init__(self, min_size: int = 0, max_side: int | None = MAX_SIDE) -> None:
        """
        Args:
            min_size: smallest face to look for, in pixels of the picture (43 is the least the library can do).
            max_side: detect on a copy whose long side is reduced to this many pixels; None: at full size.

        Raises `DetectorError` when the package is missing or another version, or when it does not find a drawn face.
        """
        self._library = _load_library()
        self._min_size = min_size
        self._max_side = max_side

    def detect(self, rgb: RGB) -> list[Face]:
        """See `FaceDetector.detect`."""
        check_rgb(rgb)
        reduced, factor = reduce_picture(rgb, self._max_side)
        found = []
        for position in _search(self._library, reduced, _smallest_window(self._min_size * factor)):
            box = (position.face.x, position.face.y, position.face.width, position.face.height)
            face = place(box, factor, rgb, position.likelihood, self.name)
            if face is not None:
                found.append(
                    Face(face.x, face.y, face.w, face.h, face.score, face.detector, _landmarks(position, factor))
                )
        return in_reading_order(found)


def _smallest_window(min_size: float) -> float:
    """The first window of the library's own sequence of sizes that is not below ``min_size`` pixels.

    Starting elsewhere would move every size, so that the faces found would change with a bar they are all above.
    """
    steps = math.ceil(math.log(max(min_size, WINDOW) / WINDOW, SCALE_STEP))
    return WINDOW * SCALE_STEP**steps


def _landmarks(position: _Position, factor: float) -> tuple[Landmark, ...]:
    """Centres of the eyes' and the mouth's boxes, and the two points, in pixels of the original picture."""

    def centre(name: str, box: _Rect) -> Landmark:
        return Landmark(name, round((box.x + box.width / 2) / factor, 1), round((box.y + box.height / 2) / factor, 1))

    def point(name: str, box: _Rect) -> Landmark:
        return Landmark(name, round(box.x / factor, 1), round(box.y / factor, 1))

    return (
        centre("left_eye", position.left_eye),
        centre("right_eye", position.right_eye),
        point("nose", position.nose),
        centre("mouth", position.mouth),
        point("chin", position.chin),
    )


@contextmanager
def _matrices(library: ctypes.CDLL, *shapes: tuple[int, int, int]) -> Iterator[list[Any]]:
    """Zeroed matrices of the library for (channels, rows, columns), freed at the end."""
    allocated: list[Any] = []
    try:
        for shape in shapes:
            matrix = library.nv_matrix3d_alloc(*shape)
            if not matrix or not matrix.contents.v:
                raise MemoryError(f"animeface could not allocate a picture of {shape[2]} x {shape[1]} pixels")
            allocated.append(matrix)
            library.nv_matrix_zero(matrix)
        yield allocated
    finally:
        for matrix in allocated:
            library.nv_matrix_free(ctypes.byref(matrix))


def _search(library: ctypes.CDLL, rgb: RGB, smallest_window: float) -> list[_Position]:
    """All faces in a picture. The library wants BGR floats 0-255, and integrals of the grey and of the edge picture."""
    height, width = rgb.shape[:2]
    plain, integral = (1, height, width), (1, height + 1, width + 1)
    with _matrices(library, (3, height, width), plain, plain, plain, integral, integral) as matrices:
        bgr, grey, smooth, edge, grey_integral, edge_integral = matrices
        pixels = np.ctypeslib.as_array(bgr.contents.v, (bgr.contents.m, bgr.contents.step))
        pixels[: height * width, :3] = rgb.reshape(-1, 3)[:, ::-1]
        library.nv_gray(grey, bgr)
        library.nv_gaussian5x5(smooth, 0, grey, 0)
        library.nv_laplacian1(edge, smooth, EDGE_GAIN)
        library.nv_integral(grey_integral, grey, 0)
        library.nv_integral(edge_integral, edge, 0)
        positions = (_Position * MAX_FACES)()
        verifiers = (ctypes.c_void_p * 3)(_network(library, "face_01"), _network(library, "face_02"), None)
        count = library.nv_face_detect(
            positions,
            MAX_FACES,
            grey_integral,
            edge_integral,
            ctypes.byref(_Rect(0, 0, width, height)),
            _network(library, "dir"),
            _network(library, "face_00"),
            verifiers,
            2,
            _network(library, "parts"),
            STEP,
            SCALE_STEP,
            smallest_window,
        )
    return list(positions[:count])


def _network(library: ctypes.CDLL, name: str) -> int:
    """The address of one of the networks that are compiled into the library."""
    return ctypes.addressof(ctypes.c_char.in_dll(library, f"nv_face_mlp_{name}"))


@functools.cache
def _load_library() -> ctypes.CDLL:
    """The C library inside the animeface package, with its functions declared, tested on a drawn face."""
    try:
        version = metadata.version("animeface")
        from animeface import _nvxs

        # The wrapper is linked against the library, so the library's functions are found through the wrapper's file.
        library = ctypes.CDLL(_nvxs.__file__)
        _declare(library)
    except (ImportError, OSError, AttributeError) as error:
        raise DetectorError(f"The animeface detector cannot be loaded ({error}): run pip install {PACKAGE}") from error
    if f"animeface=={version}" != PACKAGE:
        raise DetectorError(f"animeface {version} is installed, but only {PACKAGE} is known: pip install {PACKAGE}")
    found = _search(library, draw_test_face(), WINDOW)
    if len(found) != 1 or found[0].likelihood < 0.9:
        raise DetectorError(
            "animeface does not find the drawn test face, so it would silently find nothing: reinstall it with "
            f"pip install --force-reinstall --no-deps {PACKAGE}, or set the detector to lbp."
        )
    return library


def _declare(library: ctypes.CDLL) -> None:
    """Tell ctypes the C signatures (nvxs-1.0.2: nv_core.h, nv_ip.h, nv_face.h)."""
    integer, number, pointer = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
    library.nv_matrix3d_alloc.argtypes = [integer, integer, integer]
    library.nv_matrix3d_alloc.restype = _MatrixPointer
    library.nv_matrix_free.argtypes = [ctypes.POINTER(_MatrixPointer)]
    library.nv_matrix_free.restype = None
    library.nv_matrix_zero.argtypes = [_MatrixPointer]
    library.nv_gray.argtypes = [_MatrixPointer, _MatrixPointer]
    library.nv_gaussian5x5.argtypes = [_MatrixPointer, integer, _MatrixPointer, integer]
    library.nv_laplacian1.argtypes = [_MatrixPointer, _MatrixPointer, number]
    library.nv_integral.argtypes = [_MatrixPointer, _MatrixPointer, integer]
    for name in ("nv_matrix_zero", "nv_gray", "nv_gaussian5x5", "nv_laplacian1", "nv_integral"):
        getattr(library, name).restype = None
    library.nv_face_detect.argtypes = [
        ctypes.POINTER(_Position),
        integer,
        _MatrixPointer,
        _MatrixPointer,
        ctypes.POINTER(_Rect),
        pointer,
        pointer,
        ctypes.POINTER(pointer),
        integer,
        pointer,
        number,
        number,
        number,
    ]
    library.nv_face_detect.restype = integer


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
