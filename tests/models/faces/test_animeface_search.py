import ctypes
from typing import Any

import cv2
import numpy as np
import pytest

from models.faces.animeface import draw_test_face
from models.faces.animeface_networks import (
    FEATURES,
    Floats,
    Networks,
    Perceptron,
    _Matrix,
    load_networks,
    logistic,
    multiply,
)
from models.faces.animeface_search import (
    SCALE_STEP,
    UNITS,
    WINDOW,
    Cluster,
    Window,
    _window_sizes,
    cluster_windows,
    keep_apart,
    measure_cells,
    normalise,
    search_windows,
)


@pytest.fixture(scope="module")
def networks() -> Networks:
    return load_networks()


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    """The C functions that the search is written after, as an independent reference."""
    from animeface import _nvxs

    lib = ctypes.CDLL(_nvxs.__file__)
    pointer = ctypes.POINTER(_Matrix)
    lib.nv_matrix3d_alloc.argtypes, lib.nv_matrix3d_alloc.restype = [ctypes.c_int] * 3, pointer
    lib.nv_matrix_alloc.argtypes, lib.nv_matrix_alloc.restype = [ctypes.c_int] * 2, pointer
    lib.nv_face_haarlike.argtypes = [ctypes.c_int, pointer, ctypes.c_int, pointer, *[ctypes.c_int] * 4]
    lib.nv_mlp_predict_d.argtypes = [ctypes.c_void_p, pointer, ctypes.c_int, ctypes.c_int]
    lib.nv_mlp_predict_d.restype = ctypes.c_double
    return lib


def reference(library: ctypes.CDLL, grey: np.ndarray, x: int, y: int) -> tuple[Floats, Any]:
    """Features of the window of 32 pixels at (x, y) as the C library has them, normalised by their maximum."""
    height, width = grey.shape
    integral = library.nv_matrix3d_alloc(1, height + 1, width + 1)
    values = np.ctypeslib.as_array(integral.contents.v, (integral.contents.m, integral.contents.step))
    values[:, 0] = cv2.integral(grey).reshape(-1)
    features = library.nv_matrix_alloc(FEATURES, 1)
    library.nv_face_haarlike(1, features, 0, integral, x, y, UNITS, UNITS)  # 1: by the maximum
    return np.ctypeslib.as_array(features.contents.v, (FEATURES,)).copy(), features


def window_features(grey: np.ndarray, x: int, y: int) -> Floats:
    cells = measure_cells(grey)[y // 2 : y // 2 + 12, x // 2 : x // 2 + 12]
    signed = np.stack([np.maximum(cells, 0), np.maximum(-cells, 0)], axis=-1)
    return normalise(signed.reshape(1, FEATURES))[0]


def test_features_and_likelihoods_are_those_of_the_c_library(networks: Networks, library: ctypes.CDLL) -> None:
    grey = np.asarray(cv2.cvtColor(draw_test_face(80), cv2.COLOR_RGB2GRAY), np.uint8)
    grey = np.asarray(cv2.blur(grey, (3, 3)), np.uint8)  # no plateaus, where a rounding error has no sign
    grey += np.random.default_rng(0).integers(0, 9, grey.shape, dtype=np.uint8)
    nets = {"face_00": networks.detector, "face_01": networks.verifiers[0], "face_02": networks.verifiers[1]}
    seen = []
    for x, y in ((0, 0), (24, 38), (22, 36), (40, 10), (46, 46)):
        wanted, matrix = reference(library, grey, x, y)
        got = window_features(grey, x, y)
        assert np.abs(got - wanted).max() < 2e-3  # the C library sums in float32
        for name, net in nets.items():
            likelihood = library.nv_mlp_predict_d(
                ctypes.addressof(ctypes.c_char.in_dll(library, f"nv_face_mlp_{name}")), matrix, 0, 0
            )
            seen.append(likelihood)
            assert float(logistic(net(got[np.newaxis]))[0, 0]) == pytest.approx(likelihood, abs=0.01)
    assert max(seen) > 0.9 and min(seen) < 0.1  # a face and no face are among them


def test_a_window_that_is_searched_has_the_features_of_that_place(networks: Networks) -> None:
    grey = np.asarray(cv2.cvtColor(draw_test_face(256), cv2.COLOR_RGB2GRAY), np.uint8)
    windows = search_windows(grey, networks)
    best = max(windows, key=lambda w: w.likelihood)
    side = round(256 * UNITS / best.size)
    unit = np.asarray(cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    x, y = (round(v * side / 256) for v in (best.x, best.y))
    got = window_features(unit, x, y) if x % 2 == y % 2 == 0 else None
    assert got is not None
    assert np.corrcoef(got, normalise(best.features[np.newaxis])[0])[0, 1] > 0.98
    scaled = normalise(best.features[np.newaxis])
    mean = sum(float(logistic(net(scaled))[0, 0]) for net in networks.verifiers) / 2
    assert best.likelihood == pytest.approx(mean, abs=1e-5)


def test_no_window_is_lost_between_bands(networks: Networks, monkeypatch: pytest.MonkeyPatch) -> None:
    grey = np.asarray(cv2.cvtColor(draw_test_face(192), cv2.COLOR_RGB2GRAY), np.uint8)
    whole = [(w.x, w.y, w.size) for w in search_windows(grey, networks)]
    monkeypatch.setattr("models.faces.animeface_search._BAND", 1)  # a row of windows at a time
    assert [(w.x, w.y, w.size) for w in search_windows(grey, networks)] == whole and len(whole) > 3


def test_window_sizes_are_one_sequence() -> None:
    every = list(_window_sizes(0, 500))
    assert every[0] == WINDOW and every[1] == pytest.approx(WINDOW * SCALE_STEP) and every[-1] <= 500
    assert list(_window_sizes(60, 500)) == every[4:]
    assert list(_window_sizes(every[7], 500)) == every[7:]
    assert list(_window_sizes(0, 40)) == []


def test_flat_and_tiny_pictures_have_no_windows(networks: Networks) -> None:
    for shape in ((1, 1), (2, 500), (34, 34), (45, 45), (200, 300)):
        assert search_windows(np.full(shape, 128, np.uint8), networks) == []


def test_windows_of_one_place_become_one_box() -> None:
    nothing = np.zeros(FEATURES, np.float32)
    windows = [Window(100, 100, 50, 0.5, nothing), Window(104, 100, 50, 1.0, nothing), Window(300, 0, 60, 0.9, nothing)]
    clusters = cluster_windows(windows)
    assert [(c.evidence, c.best) for c in clusters] == [(1.5, windows[1]), (0.9, windows[2])]
    assert (clusters[0].x, clusters[0].y, clusters[0].size) == (pytest.approx(308 / 3), 100, 50)
    assert cluster_windows(windows[::-1]) == clusters


def test_of_overlapping_places_the_one_with_more_evidence_is_kept() -> None:
    window = Window(0, 0, 10, 0.9, np.zeros(FEATURES, np.float32))
    head, eye = Cluster(100, 100, 100, 5.0, window), Cluster(140, 140, 30, 9.0, window)
    fringe, beside = Cluster(120, 60, 80, 4.0, window), Cluster(190, 100, 100, 2.0, window)
    assert keep_apart([fringe, head, beside]) == [head, beside]  # fringe: 80 x 40 of its 6400 = .5; beside: .1
    assert keep_apart([head, eye]) == [eye]


def test_products_in_tiles_are_products() -> None:
    rng = np.random.default_rng(2)
    for count, depth, width in ((0, 96, 96), (1, 1152, 256), (29, 1152, 10), (1000, 96, 96), (3, 300000, 2)):
        rows = rng.standard_normal((count, depth)).astype(np.float32)
        matrix = rng.standard_normal((depth, width)).astype(np.float32)
        assert np.allclose(multiply(rows, matrix), rows.astype(float) @ matrix, rtol=1e-3, atol=1e-2 * depth**0.5)


def test_a_perceptron_by_hand() -> None:
    net = Perceptron(
        np.array([[1, -1], [2, 0]], np.float32),
        np.array([0, -2], np.float32),
        np.array([[4, 8]], np.float32),
        np.array([1], np.float32),
    )
    assert float(net(np.array([[1, 1]], np.float32))[0, 0]) == pytest.approx(4 * 0.5 + 8 * 0.5 + 1)
    assert logistic(np.array([-1e9, 0, 1e9], np.float32)).tolist() == [pytest.approx(0, abs=1e-30), 0.5, 1.0]
