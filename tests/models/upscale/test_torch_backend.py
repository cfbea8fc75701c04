"""Batches: companions never matter, memory may run out, eight views, and which arithmetic is taken."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.upscale import precision
from models.upscale.fit import RGB
from models.upscale.network import SqueezeExcite, UpscaleNetwork
from models.upscale.precision import Trial, choose_precision, try_precisions
from models.upscale.torch_backend import SMALLEST_TILE, TooLargeError, TorchBackend

CPU = torch.device("cpu")
FULL = 4 * 32 * 32  # pixels in a pass: four pictures of 32 x 32


class Small(UpscaleNetwork):
    """Without padding, without gates; memory that can run out."""

    scale, margin, loss, context = 2, 2, 2, 2
    fits = 10**9  # values of input in one pass

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.enlarge = nn.ConvTranspose2d(8, 3, 4, 2, 3)
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(tuple(x.shape))
        if x.numel() > self.fits:
            raise torch.OutOfMemoryError("no memory in this test")
        result: Tensor = self.enlarge(F.leaky_relu(self.first(x), 0.1))
        return result


class Gated(UpscaleNetwork):
    scale, margin, loss, context = 1, 1, 1, 1

    def __init__(self) -> None:
        super().__init__()
        self.only, self.gate = nn.Conv2d(3, 3, 3), SqueezeExcite(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.gate(self.only(x))
        return result


def backend(kind: type[UpscaleNetwork] = Small, **settings: object) -> TorchBackend:
    torch.manual_seed(3)
    network = kind().eval()
    for layer in network.children():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            assert layer.bias is not None
            nn.init.constant_(layer.bias, 0.3)
    return TorchBackend(network, CPU, **{"pixels": FULL, **settings})  # type: ignore[arg-type]


def picture(height: int, width: int, seed: int = 0) -> RGB:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def launch(engine: TorchBackend, *pictures: RGB) -> list[RGB]:
    (bucket,) = {engine.bucket(*rgb.shape[:2]) for rgb in pictures}
    assert bucket is not None
    results = engine.launch(pictures, bucket).collect()
    assert all(isinstance(result, np.ndarray) for result in results)
    return [np.array(result) for result in results]


def largest(a: RGB, b: RGB) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b).max())


@pytest.mark.parametrize("kind", [Small, Gated])
def test_companions_do_not_matter(kind: type[UpscaleNetwork]) -> None:
    engine = backend(kind)
    pictures = [picture(32, 32, seed) for seed in range(4)]
    if kind is Small:  # other sizes of the same bucket
        pictures[1:3] = [picture(17, 32, 5), picture(29, 20, 6)]
    alone = [engine.enlarge(rgb) for rgb in pictures]
    assert len({result.tobytes() for result in alone}) == 4
    for order in ([0, 1, 2, 3], [3, 1], [2, 0, 3], [2]):
        for place, result in zip(order, launch(engine, *(pictures[i] for i in order)), strict=True):
            np.testing.assert_array_equal(result, alone[place])


def test_a_batch_has_one_shape_however_full() -> None:
    engine = backend()
    for number in (1, 3, 4):
        launch(engine, *[picture(30, 31)] * number)
    assert set(engine.network.shapes) == {(4, 3, 36, 36)}  # type: ignore[arg-type]


def test_buckets_depend_on_the_size_alone() -> None:
    assert backend().bucket(17, 31) == backend().bucket(32, 32) == (32, 32, 4)
    assert backend().bucket(64, 64) == (64, 64, 1)
    assert backend().bucket(600, 600) is None
    assert backend(Gated).bucket(17, 31) == (17, 31, 4)  # what a gate sees must not hold repeated edges
    assert backend(pixels=0).bucket(17, 31) == (17, 31, 1)
    assert backend(tile_pixels=100).bucket(17, 31) is None


def test_repeated_edges_change_nothing() -> None:
    rgb = picture(21, 19)
    assert largest(backend().enlarge(rgb), backend(pixels=0).enlarge(rgb)) <= 1
    assert backend(pixels=0).bucket(21, 19) == (21, 19, 1)


@pytest.mark.parametrize("fits", [2, 1])
def test_out_of_memory_halves_the_batch_and_goes_on(fits: int) -> None:
    engine, pictures = backend(), [picture(32, 32, seed) for seed in range(4)]
    expected = launch(engine, *pictures)
    engine.network.fits = fits * 3 * 36 * 36  # type: ignore[assignment]
    for result, wanted in zip(launch(engine, *pictures), expected, strict=True):
        assert largest(result, wanted) <= 1
    engine.network.shapes.clear()  # type: ignore[operator]
    launch(engine, *pictures)
    assert engine.network.shapes == [(fits, 3, 36, 36)] * (4 // fits)  # it is remembered


def test_out_of_memory_at_one_picture_ends_in_tiles_or_in_its_own_error() -> None:
    engine, rgb = backend(pixels=0), picture(150, 150)
    expected = engine.enlarge(rgb)
    engine.network.fits = 3 * 104 * 104  # type: ignore[assignment]
    assert largest(engine.enlarge(rgb), expected) <= 1
    engine.network.fits = 3 * 40 * 40  # type: ignore[assignment]  # below the smallest tile
    with pytest.raises(TooLargeError, match=f"150 x 150 pixels.*{SMALLEST_TILE}.*choose device cpu"):
        engine.enlarge(rgb)
    assert engine.enlarge(picture(30, 30)).shape == (60, 60, 3)


def test_eight_views_in_a_batch_know_no_side() -> None:
    engine = backend(tta=True)
    rgb = picture(32, 20)
    straight = engine.enlarge(rgb)
    assert largest(straight, backend().enlarge(rgb)) > 3
    assert largest(straight[::-1], engine.enlarge(rgb[::-1].copy())) <= 1
    assert largest(straight[:, ::-1], engine.enlarge(rgb[:, ::-1].copy())) <= 1
    assert largest(straight.transpose(1, 0, 2), engine.enlarge(rgb.transpose(1, 0, 2).copy())) <= 1
    assert largest(straight, engine.enlarge_in_tiles(rgb, 100)) <= 1


def test_graphs_need_cuda() -> None:
    with pytest.raises(ValueError, match="CUDA"):
        backend(speedup="graphs")


@pytest.mark.parametrize(
    ("trials", "chosen"),
    [
        ([("float32", 1.0, 0.0)], "float32"),
        ([("float32", 1.0, 0.0), ("float16", 0.5, 0.7), ("bfloat16", 0.4, 1.9)], "bfloat16"),
        ([("float32", 1.0, 0.0), ("float16", 0.5, 0.7), ("bfloat16", 0.4, 2.1)], "float16"),
        ([("float32", 1.0, 0.0), ("float16", 0.9, 0.7), ("bfloat16", 0.4, np.inf)], "float32"),
    ],
)
def test_precision_is_close_and_clearly_faster_or_float32(trials: list[tuple], chosen: str) -> None:
    assert choose_precision([Trial(*trial) for trial in trials]) == chosen


def ticks(seconds: dict[str, float]) -> Callable[[], float]:
    """A clock that shows float32 as taking 1 s and anything later as in ``seconds``."""

    def run() -> Iterator[float]:
        now = 0.0
        for name in ("float32", "bfloat16"):
            for _ in range(precision.TRIALS):
                yield now
                now += seconds[name]
                yield now

    readings = run()
    return lambda: next(readings)


def test_precisions_are_tried_on_a_picture() -> None:
    network = backend().network
    trials = try_precisions(network, CPU, ticks({"float32": 1.0, "bfloat16": 0.5}))
    assert [(trial.precision, trial.seconds) for trial in trials] == [("float32", 1.0), ("bfloat16", 0.5)]
    assert trials[0].difference == 0 and 0 < trials[1].difference < 20
    assert next(network.parameters()).dtype == torch.float32


def test_a_choice_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_chosen", {})
    loads = []

    def load() -> UpscaleNetwork:
        loads.append(1)
        return backend().network

    monkeypatch.setattr(precision, "choose_precision", lambda trials: "bfloat16")
    assert [precision.best_precision("small", load, CPU) for _ in range(3)] == ["bfloat16"] * 3
    assert len(loads) == 1


def test_half_precision_stays_close() -> None:
    rgb = picture(40, 40)
    assert 0 < largest(backend(precision="bfloat16").enlarge(rgb), backend().enlarge(rgb)) <= 8
    assert backend(precision="bfloat16").name == "torch cpu bfloat16"
