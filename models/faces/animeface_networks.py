"""The networks of nagadomi's animeface (nvxs 1.0.2), read out of the C library inside the `animeface` package.

They are small perceptrons with one hidden layer on 1,152 Haar-like features, compiled into the library as data. They
are read through ctypes and copied to arrays; nothing of the library is run.
"""

import ctypes
import functools
from importlib import metadata
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.faces.detector import DetectorError

PACKAGE = "animeface==2.0.3"  # the build whose structs are declared below
FEATURES = 1152
Floats = npt.NDArray[np.float32]


class _Matrix(ctypes.Structure):
    """nv_matrix_t: m rows of n floats, each row padded to `step`."""

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


class _Perceptron(ctypes.Structure):
    """nv_mlp_t."""

    _fields_ = (
        ("input", ctypes.c_int),
        ("hidden", ctypes.c_int),
        ("output", ctypes.c_int),
        ("input_weights", ctypes.POINTER(_Matrix)),
        ("hidden_weights", ctypes.POINTER(_Matrix)),
        ("input_bias", ctypes.POINTER(_Matrix)),
        ("hidden_bias", ctypes.POINTER(_Matrix)),
    )


class Perceptron(NamedTuple):
    """A network with one hidden layer of logistic units; its outputs are linear."""

    weights: Floats  # (hidden, FEATURES)
    bias: Floats  # (hidden,)
    out_weights: Floats  # (outputs, hidden)
    out_bias: Floats  # (outputs,)

    def __call__(self, features: Floats) -> Floats:
        """(n, FEATURES) to (n, outputs)."""
        hidden = self.activate(multiply(features, self.weights.T))
        return np.asarray(multiply(hidden, self.out_weights.T) + self.out_bias)

    def activate(self, sums: Floats) -> Floats:
        """Hidden units from their weighted sums, (..., hidden)."""
        return logistic(sums + self.bias)


class Networks(NamedTuple):
    """What animeface knows of faces."""

    detector: Perceptron  # one output: is this window a face? Small and quick
    verifiers: tuple[Perceptron, Perceptron]  # one output each; their mean likelihood counts
    direction: Perceptron  # six outputs: the first is the largest for a face that is tilted by 30 degrees at most
    parts: Perceptron  # sixteen outputs: places and sizes of eyes, nose, mouth and chin in the window


_ONE_THREAD = 2**18  # multiplications up to which OpenBLAS leaves a product to one thread
_COLUMNS = 32  # of a matrix that are multiplied at once
_SHAPES = {"face_00": (16, 1), "face_01": (256, 1), "face_02": (256, 1), "dir": (10, 6), "parts": (64, 16)}


def multiply(rows: Floats, matrix: Floats) -> Floats:
    """``rows @ matrix``, (n, k) by (k, m), in products that are too small for OpenBLAS to share among threads.

    Its threads wait for one another by spinning: on a busy machine, or with a picture in each thread of ours, products
    of this size take up to a hundred times as long when shared.
    """
    count, depth = rows.shape
    out = np.empty((count, matrix.shape[1]), np.float32)
    tile = max(1, _ONE_THREAD // (depth * _COLUMNS))
    whole = count // tile * tile
    tiles = rows[:whole].reshape(whole // tile, tile, depth)
    for left in range(0, matrix.shape[1], _COLUMNS):
        block = np.ascontiguousarray(matrix[:, left : left + _COLUMNS])
        out[:whole, left : left + _COLUMNS] = np.matmul(tiles, block).reshape(whole, block.shape[1])
        out[whole:, left : left + _COLUMNS] = rows[whole:] @ block
    return out


def logistic(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -80, 80))), dtype=np.float32)


@functools.cache
def load_networks() -> Networks:
    """The networks of the installed package. Raises `DetectorError` when it is missing, or another than `PACKAGE`."""
    try:
        version = metadata.version("animeface")
        from animeface import _nvxs
    except ImportError as error:
        raise DetectorError(f"The animeface detector cannot be loaded ({error}): run pip install {PACKAGE}") from error
    if f"animeface=={version}" != PACKAGE:
        raise DetectorError(f"animeface {version} is installed, but only {PACKAGE} is known: pip install {PACKAGE}")
    try:
        # The wrapper is linked against the library, so the library's symbols are found through the wrapper's file.
        library = ctypes.CDLL(_nvxs.__file__)
        nets = {name: _read_network(library, name, *shape) for name, shape in _SHAPES.items()}
    except (OSError, ValueError) as error:
        raise DetectorError(f"The animeface detector cannot be loaded ({error}): run pip install {PACKAGE}") from error
    return Networks(nets["face_00"], (nets["face_01"], nets["face_02"]), nets["dir"], nets["parts"])


def _read_network(library: ctypes.CDLL, name: str, hidden: int, outputs: int) -> Perceptron:
    """Copy a network out of the library. Raises ValueError when it is missing or not as large as it should be."""
    net = _Perceptron.in_dll(library, f"nv_face_mlp_{name}")
    if (net.input, net.hidden, net.output) != (FEATURES, hidden, outputs):
        raise ValueError(f"its network {name} is {net.input}-{net.hidden}-{net.output}, not as it was published")
    return Perceptron(
        _read_matrix(net.input_weights, hidden, FEATURES),
        _read_matrix(net.input_bias, hidden, 1)[:, 0],
        _read_matrix(net.hidden_weights, outputs, hidden),
        _read_matrix(net.hidden_bias, outputs, 1)[:, 0],
    )


def _read_matrix(pointer: "ctypes._Pointer[_Matrix]", rows: int, columns: int) -> Floats:
    if not pointer or not pointer.contents.v:
        raise ValueError("its networks are empty")
    matrix = pointer.contents
    if (matrix.m, matrix.n) != (rows, columns) or matrix.step < columns:
        raise ValueError(f"a matrix of its networks is {matrix.m} x {matrix.n}, not {rows} x {columns}")
    return np.ctypeslib.as_array(matrix.v, (matrix.m, matrix.step))[:, :columns].astype(np.float32).copy()
