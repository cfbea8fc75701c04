import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings

from models.metrics import distances
from models.metrics.distances import _compare_gaussians, frechet_distance, kernel_distance, precision_recall


def draw(count: int, columns: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, scale, (count, columns))


def random_covariance(columns: int, seed: int) -> np.ndarray:
    root = draw(columns, columns, seed)
    return root @ root.T


def test_mean_and_covariance_are_summed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "_PART", 700)
    rows = draw(3000, 7, 0, shift=100.0).astype(np.float32)
    mean, covariance = distances._mean_and_covariance(rows)
    exact = rows.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(covariance, np.cov(exact, rowvar=False), rtol=1e-10, atol=1e-12)


def test_frechet_distance_of_exact_gaussians() -> None:
    a, b = np.array([1.0, 4.0, 0.25]), np.array([4.0, 1.0, 0.0])
    shift = np.array([1.0, -2.0, 0.5])
    known = (shift**2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()  # diagonal: by hand
    assert _compare_gaussians(shift, np.diag(a), np.zeros(3), np.diag(b)) == pytest.approx(known)
    first, second = random_covariance(12, 1), random_covariance(12, 2)
    means = draw(2, 12, 3)
    direct = ((means[0] - means[1]) ** 2).sum() + np.trace(first + second - 2 * scipy.linalg.sqrtm(first @ second).real)
    assert _compare_gaussians(means[0], first, means[1], second) == pytest.approx(direct, rel=1e-9)
    assert _compare_gaussians(means[0], first, means[0], first) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_samples_tends_to_the_gaussians() -> None:
    mixing = draw(6, 6, 4)
    reals = draw(40_000, 6, 5) @ mixing
    fakes = draw(40_000, 6, 6, shift=0.5) * 1.5
    covariance = mixing.T @ mixing
    known = 6 * 0.75**2 + np.trace(covariance + 2.25 * np.eye(6) - 2 * 1.5 * scipy.linalg.sqrtm(covariance))
    assert frechet_distance(reals, fakes) == pytest.approx(known, rel=0.03)


def test_frechet_distance_with_fewer_pictures_than_features() -> None:
    reals, fakes = draw(30, 200, 7), draw(20, 200, 8, shift=0.2)
    # The trace of the root by another way: singular values of the pictures' centred product.
    x, y = reals - reals.mean(axis=0), fakes - fakes.mean(axis=0)
    shared = np.linalg.svd(x @ y.T, compute_uv=False).sum() / np.sqrt(29 * 19)
    known = ((reals.mean(axis=0) - fakes.mean(axis=0)) ** 2).sum()
    known += (x**2).sum() / 29 + (y**2).sum() / 19 - 2 * shared
    assert frechet_distance(reals, fakes) == pytest.approx(known, rel=1e-9)
    assert frechet_distance(np.ones((5, 3)), np.full((5, 3), 3.0)) == pytest.approx(12)  # no spread at all
    assert frechet_distance(reals, reals[::-1]) == pytest.approx(0, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(2, 12), st.integers(1, 8))
def test_frechet_distance_is_symmetric_and_blind_to_order_and_rotation(seed: int, n: int, m: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    reals, fakes = rng.normal(size=(n, d)), rng.normal(size=(m, d)) * rng.uniform(0.1, 3)
    known = frechet_distance(reals, fakes)
    assert frechet_distance(fakes, reals) == pytest.approx(known, abs=1e-7)
    assert frechet_distance(rng.permutation(reals), rng.permutation(fakes)) == pytest.approx(known, abs=1e-7)
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    assert frechet_distance(reals @ turn, fakes @ turn) == pytest.approx(known, abs=1e-7)


def naive_mmd(x: np.ndarray, y: np.ndarray) -> float:
    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / len(a) + 1) ** 3

    within_x = [kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
    within_y = [kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j]
    return float(np.mean(within_x) + np.mean(within_y) - 2 * np.mean([kernel(a, b) for a in x for b in y]))


def test_kernel_distance_is_the_double_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "PAIRS", 4 * 14)  # several parts, the last one shorter
    x, y = draw(11, 5, 9), draw(14, 5, 10, shift=0.3)
    assert kernel_distance(x, y).value == pytest.approx(naive_mmd(x, y), rel=1e-12)
    assert kernel_distance(x, y, seed=1) == kernel_distance(x, y)  # one block: nothing is drawn


def test_large_sets_are_cut_into_disjoint_blocks_that_leave_nothing_out() -> None:
    x, y = draw(40, 3, 11), draw(90, 3, 12)
    rng = np.random.default_rng(5)
    parts = zip(*(np.array_split(rng.permutation(len(rows)), 3) for rows in (x, y)), strict=True)
    known = np.mean([naive_mmd(x[i], y[j]) for i, j in parts])
    assert kernel_distance(x, y, block=16, seed=5).value == pytest.approx(known, rel=1e-9)
    whole = kernel_distance(x, y, block=40)  # the smaller set is one block, and all of the larger one stands against it
    assert whole.value == pytest.approx(naive_mmd(x, y), rel=1e-9)
    errors = [kernel_distance(x, y[:m], block=40).error for m in (40, 90)]
    assert errors[1] < errors[0]  # type: ignore[operator]


def test_kernel_distance_of_a_shift_in_one_dimension() -> None:
    """With x ~ N(0, 1) and y ~ N(s, 1) the kernel's expectations are polynomials of the moments."""
    s = 0.7
    # E (xy + 1)^3 = E x^3 E y^3 + 3 E x^2 E y^2 + 3 E x E y + 1, moments of N(s, 1): s, s^2 + 1, s^3 + 3 s
    p, q = np.array([0.0, 1.0, 0.0]), np.array([s, s**2 + 1, s**3 + 3 * s])
    known = ((p - q) ** 2 * [3, 3, 1]).sum()
    found = kernel_distance(draw(4000, 1, 13), draw(4000, 1, 14, shift=s))
    assert found.error is not None and found.error < 0.1 * known
    assert abs(found.value - known) < 3 * found.error


@pytest.mark.parametrize(
    ("n", "m", "shift", "scale", "block"),
    [(100, 60, 0.0, 1.0, 5000), (60, 60, 0.3, 1.2, 5000), (120, 150, 0.1, 1.0, 50)],
)
def test_the_stated_error_is_the_spread_over_new_samples(
    n: int, m: int, shift: float, scale: float, block: int
) -> None:
    found = [
        kernel_distance(draw(n, 16, 2 * k), draw(m, 16, 2 * k + 1, shift, scale), block=block, seed=k)
        for k in range(400)
    ]
    values = np.array([estimate.value for estimate in found])
    errors = np.array([estimate.error for estimate in found])
    assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(ddof=1), rel=0.25)
    if shift == 0:  # the same distribution: nothing on average
        assert abs(values.mean()) < 3 * values.std() / np.sqrt(len(values))


def test_halves_of_one_set_are_the_same_within_the_error() -> None:
    both, other = draw(600, 10, 15), draw(300, 10, 16, shift=0.5)
    same, distinct = kernel_distance(both[:300], both[300:]), kernel_distance(both[:300], other)
    assert same.error is not None and distinct.error is not None
    assert abs(same.value) < 3 * same.error
    assert distinct.value > 5 * distinct.error
    assert frechet_distance(both[:300], both[300:]) < 0.2 * frechet_distance(both[:300], other)


def test_precision_and_recall_of_constructed_sets() -> None:
    reals = draw(60, 4, 17)
    assert precision_recall(reals, reals[::-1]) == (1, 1)
    assert precision_recall(reals, reals + 1000) == (0, 0)
    clusters = np.concatenate([draw(50, 4, 18), draw(50, 4, 19, shift=100)])
    precision, recall = precision_recall(clusters, draw(50, 4, 20) * 0.5)  # half of what there is, and nothing else
    assert precision == 1 and 0 < recall <= 0.5
    precision, recall = precision_recall(clusters, np.concatenate([clusters[:50], draw(50, 4, 21, shift=-100)]))
    assert (precision, recall) == (0.5, 0.5)


def test_precision_and_recall_by_hand() -> None:
    reals = np.array([[0.0], [1.0], [3.0], [7.0]])  # radii with k = 1: 1, 1, 2, 4
    fakes = np.array([[1.5], [5.5], [12.0]])  # radii: 4, 4, 6.5
    assert precision_recall(reals, fakes, k=1) == pytest.approx((2 / 3, 1.0))
    # Balls of reals reach -1..1, 0..2, 1..5, 3..11; of fakes -2.5..5.5, 1.5..9.5, 5.5..18.5.


def test_pictures_at_one_place_are_neighbours() -> None:
    places = np.repeat(draw(20, 50, 22, scale=100.0), 5, axis=0).astype(np.float32)  # every ball is a point
    assert precision_recall(places, places[::-1]) == (1, 1)
    assert precision_recall(places, places[:40]) == (1, 0.4)
    assert precision_recall(places, places + np.float32(0.01)) == (0, 0)
    ((_, squared),) = distances._squared_distances(places.astype(np.float64), places.astype(np.float64))
    assert np.count_nonzero(squared == 0) == 20 * 5 * 5  # rounding would leave 1e-9 at some, below 0 at others


def test_precision_and_recall_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    reals, fakes = draw(90, 3, 23), draw(70, 3, 24, shift=0.5)
    whole = precision_recall(reals, fakes)
    for pairs in (16 * 90, 1):
        monkeypatch.setattr(distances, "PAIRS", pairs)
        assert precision_recall(reals, fakes) == whole


def test_only_kid_does_not_depend_on_the_counts() -> None:
    """A perfect generator has another FID and another recall than halves of the reals have: those are no yardstick."""
    reals, fakes = draw(300, 40, 27), draw(1500, 40, 28)
    half, other = np.split(reals, 2)
    assert frechet_distance(reals, fakes) < 0.6 * frechet_distance(half, other)
    assert precision_recall(reals, fakes).recall < precision_recall(half, other).recall - 0.05
    for real, fake in ((reals, fakes), (half, other)):
        kid = kernel_distance(real, fake)
        assert kid.error is not None and abs(kid.value) < 3 * kid.error


def test_what_cannot_be_compared_is_refused() -> None:
    rows = draw(10, 3, 25)
    for compare in (frechet_distance, kernel_distance, precision_recall):
        with pytest.raises(ValueError, match="expected 3: both need the same extractor"):
            compare(rows, draw(10, 4, 26))
        with pytest.raises(ValueError, match=r"at least \d pictures are needed, there are 1"):
            compare(rows, rows[:1])
        with pytest.raises(ValueError, match="not finite"):
            compare(rows, np.where(rows > 1, np.nan, rows))
        with pytest.raises(ValueError, match="must be floats"):
            compare(rows, rows.astype(np.uint8))
    with pytest.raises(ValueError, match="k must be"):
        precision_recall(rows, rows, k=0)
