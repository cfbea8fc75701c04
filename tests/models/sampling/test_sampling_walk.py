from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from models.gan.latents import draw_latents
from models.sampling.generator import LoadedGenerator, load_generator
from models.sampling.paths import even_path, random_path, slerp, slerp_path, slerp_paths
from models.sampling.settings import Ground, Noise, SamplingError, SamplingSettings, WalkPath
from models.sampling.video import write_mp4
from models.sampling.walk import MEASURED_PER_KEY, Walk, even_paths, film_walk, plan_walk, rms_steps, walk_codes


def decode(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_slerp_goes_evenly_along_the_great_circle() -> None:
    start, end = np.array([2.0, 0, 0]), np.array([0, 2.0, 0])
    middle = slerp(start, end, 1 / 3)
    assert middle == pytest.approx(2 * np.array([np.cos(np.pi / 6), np.sin(np.pi / 6), 0]))
    assert slerp(start, end, 0.0) == pytest.approx(start)
    assert slerp(start, end, 1.0) == pytest.approx(end)


def test_slerp_keeps_the_length_where_a_straight_line_would_not() -> None:
    start, end = np.random.default_rng(0).standard_normal((2, 200))
    lengths = sorted((np.linalg.norm(start), np.linalg.norm(end)))
    assert lengths[0] <= np.linalg.norm(slerp(start, end, 0.5)) <= lengths[1]
    assert np.linalg.norm((start + end) / 2) < 0.8 * lengths[0]


def test_slerp_at_its_edges() -> None:
    vector = np.array([1.0, 2.0, 3.0])
    assert slerp(vector, 2 * vector, 0.5) == pytest.approx(1.5 * vector)
    with pytest.raises(ValueError, match="opposite"):
        slerp(vector, -vector, 0.5)
    with pytest.raises(ValueError, match="zero vector"):
        slerp(vector, 0 * vector, 0.5)


def test_the_loop_is_closed_and_visits_every_key() -> None:
    keys = np.random.default_rng(0).standard_normal((4, 16))
    path = slerp_path(keys)
    assert path(np.arange(4) / 4) == pytest.approx(keys)
    assert path(np.array([1.0, 0.0, -0.25])) == pytest.approx(keys[[0, 0, 3]])
    assert np.abs(path(np.array([1 - 1e-6])) - keys[0]).max() < 1e-4


def test_keys_must_make_whole_loops() -> None:
    latents = draw_latents(range(5), 8)
    assert len(slerp_paths(latents[:4], 2)) == 2
    for keys in (2, 1):
        with pytest.raises(ValueError, match="whole number of loops"):
            slerp_paths(latents, keys)


def test_a_random_path_is_periodic_and_a_function_of_time() -> None:
    path = random_path(7, 64, 4)
    times = np.linspace(0, 1, 25)
    whole = path(times)
    np.testing.assert_allclose(path(times + 1), whole, atol=1e-9)
    np.testing.assert_allclose(whole[0], whole[-1], atol=1e-9)
    for k in (0, 5, 24):
        assert np.array_equal(path(times[k : k + 1])[0], whole[k])  # whatever it is asked for with
    assert np.array_equal(random_path(7, 64, 4)(times), whole)
    assert not np.allclose(random_path(8, 64, 4)(times), whole, atol=0.5)


def test_a_random_path_is_standard_normal_everywhere_and_correlated_as_said() -> None:
    changes = 4
    length = 2 / (np.pi * changes)
    times = np.arange(16) / 16
    latents = random_path(0, 40_000, changes)(times)
    np.testing.assert_allclose(latents.mean(axis=1), 0, atol=0.03)
    np.testing.assert_allclose(latents.std(axis=1), 1, atol=0.02)
    correlation = (latents @ latents[0]) / latents.shape[1]
    rounds = times[:, None] + np.arange(-3, 4)
    expected = np.exp(-(rounds**2) / (2 * length**2)).sum(axis=1)
    np.testing.assert_allclose(correlation, expected / expected[0], atol=0.03)


def test_a_random_path_is_as_fast_as_a_slerp_loop_of_as_many_keys() -> None:
    times = np.arange(400) / 400
    speeds = []
    for path in (random_path(1, 1000, 5), slerp_path(draw_latents(range(5), 1000))):
        latents = path(times)
        speeds.append(np.sqrt(((np.roll(latents, -1, axis=0) - latents) ** 2).sum(axis=1)).mean())
    assert speeds[0] == pytest.approx(speeds[1], rel=0.05)


def test_an_even_path_changes_evenly() -> None:
    def uneven(positions: np.ndarray) -> np.ndarray:  # round a circle, three times as fast here as there
        angles = 2 * np.pi * positions + 0.5 * np.sin(2 * np.pi * positions)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)

    def change(positions: np.ndarray) -> np.ndarray:
        places = uneven(positions)
        return np.linalg.norm(np.roll(places, -1, axis=0) - places, axis=1)

    times = np.arange(50) / 50
    before = change(times)
    places = even_path(uneven, change, 200)(times)
    after = np.linalg.norm(np.roll(places, -1, axis=0) - places, axis=1)
    assert before.max() / before.min() > 2.5
    assert after.max() / after.min() < 1.02
    np.testing.assert_allclose(places[0], uneven(np.zeros(1))[0], atol=1e-12)


def test_a_path_that_goes_nowhere_stays_as_it_is() -> None:
    def still(positions: np.ndarray) -> np.ndarray:
        return np.zeros((len(positions), 2))

    assert even_path(still, lambda positions: np.zeros(len(positions)), 10) is still


def test_pictures_change_more_evenly_on_an_even_walk(styles: LoadedGenerator) -> None:
    walk = plan_walk(styles, [3], keys=2)
    even = replace(walk, paths=even_paths(styles, walk))
    times = np.arange(40) / 40
    spread = []
    for way in (walk, even):
        steps = rms_steps(styles.draw(walk_codes(styles, way, times)))
        spread.append(steps.std() / steps.mean())
    assert spread[1] < 0.6 * spread[0]


def test_frames_at_shared_times_are_the_same_at_any_frame_rate(styles: LoadedGenerator) -> None:
    walk = plan_walk(styles, [0, 1, 2])
    slow, fast = (
        np.stack(list(styles.draw(walk_codes(styles, walk, np.arange(count) / count)))).reshape(count, 3, 32, 32, 3)
        for count in (4, 12)
    )
    assert np.array_equal(slow, fast[::3])
    assert not np.array_equal(slow[0], slow[1])
    alone = plan_walk(styles, [1])
    assert np.array_equal(list(styles.draw(walk_codes(styles, alone, np.arange(4) / 4))), slow[:, 1])


def test_a_film_shows_its_loops_at_the_right_times(
    styles: LoadedGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films: list[list[np.ndarray]] = []
    monkeypatch.setattr("models.sampling.walk.write_mp4", lambda path, frames, fps: films.append(list(frames)))
    walk = plan_walk(styles, [0, 1])
    for seconds, fps in ((2.0, 3), (2.0, 9), (0.5, 12)):
        film_walk(styles, walk, tmp_path / "w.mp4", 2, seconds, fps, cell=None)
    assert [len(film) for film in films] == [6, 18, 6]
    pictures = list(styles.draw(walk_codes(styles, walk, np.arange(6) / 6)))
    for k in range(6):
        frame = np.concatenate(pictures[2 * k : 2 * k + 2], axis=1)
        assert all(np.array_equal(frame, shown) for shown in (films[0][k], films[1][3 * k], films[2][k]))
    assert len(np.unique(np.stack(films[1]).reshape(18, -1), axis=0)) == 18  # no frame twice


def test_random_noise_stays_the_same_along_a_film(styles: LoadedGenerator) -> None:
    def still(positions: np.ndarray) -> np.ndarray:
        return np.ones((len(positions), 16))

    walk = Walk([still, still], [3, 4], keys=4)
    made = np.stack(list(styles.draw(walk_codes(styles, walk, np.arange(40) / 40), Noise.RANDOM))).reshape(40, 2, -1)
    assert (made == made[0]).all()
    assert not np.array_equal(made[0, 0], made[0, 1])


def test_what_a_walk_shows(tiny_run: Path, styles: LoadedGenerator) -> None:
    dcgan = load_generator(tiny_run)
    loops = plan_walk(dcgan, range(8), keys=4, cells=9)
    assert loops.seeds == [0, 4]
    assert loops.paths[1](np.array([0.25])) == pytest.approx(draw_latents([5], 8))
    assert len(plan_walk(dcgan, range(40), keys=4, cells=9).paths) == 9
    assert len(plan_walk(dcgan, range(3), keys=4).paths) == 1
    assert plan_walk(dcgan, range(8), WalkPath.RANDOM).seeds == list(range(8))
    random = plan_walk(styles, range(20), cells=4)
    assert random.seeds == [0, 1, 2, 3]
    assert len(plan_walk(styles, range(20), WalkPath.SLERP).paths) == 5
    for seeds, keys, cells in (([], 4, 9), ([1], 1, 9), ([1], 4, 0)):
        with pytest.raises(SamplingError, match="a walk needs"):
            plan_walk(styles, seeds, keys=keys, cells=cells)


def test_a_walk_is_a_film_of_the_right_size_and_the_same_again(tiny_run: Path, tmp_path: Path) -> None:
    generator = load_generator(tiny_run)
    walk = plan_walk(generator, range(6), keys=2)
    seen: list[tuple[int, int]] = []
    paths = [
        film_walk(
            generator, walk, tmp_path / name, 3, seconds=1.0, fps=8, cell=33, progress=lambda *at: seen.append(at)
        )
        for name in ("a.mp4", "b.mp4")
    ]
    frames = decode(paths[0])
    assert len(frames) == 8
    assert frames[0].shape == (34, 100, 3)  # 33 x 99, made even
    assert paths[0].read_bytes() == paths[1].read_bytes()
    steps = [np.abs(a.astype(int) - b).mean() for a, b in zip(frames, frames[1:] + frames[:1], strict=True)]
    assert steps[-1] < 3 * np.mean(steps[:-1])  # no seam from the last frame to the first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]
    assert seen[:24] == [(k, 24) for k in range(1, 25)]


def test_a_film_of_transparent_pictures_that_are_not_square(
    new_styles: Callable[..., LoadedGenerator], tmp_path: Path
) -> None:
    generator = new_styles(channels=4, aspect=(4, 3))
    seen: list[tuple[int, int]] = []
    settings = SamplingSettings(psi=0.5, noise=Noise.RANDOM)

    def film(name: str, ground: Ground) -> list[np.ndarray]:
        walk = plan_walk(generator, [1, 2], keys=2)
        path = tmp_path / name
        film_walk(generator, walk, path, 2, 0.5, 8, 64, True, settings, ground, progress=lambda *at: seen.append(at))
        return decode(path)

    white, black = film("w.mp4", Ground.WHITE), film("b.mp4", Ground.BLACK)
    assert (len(white), white[0].shape) == (4, (64, 96, 3))
    assert white[0].mean() > black[0].mean() + 10
    total = 4 * 2 + 2 * MEASURED_PER_KEY * 2 * 2
    assert seen[total - 1] == (total, total)


def test_a_walk_of_no_length_is_refused(styles: LoadedGenerator, tmp_path: Path) -> None:
    walk = plan_walk(styles, [0])
    for arguments in ({"seconds": 0.0}, {"fps": 0}, {"cell": 0}):
        with pytest.raises(SamplingError, match="above 0"):
            film_walk(styles, walk, tmp_path / "w.mp4", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_colours_are_right_and_tagged(tmp_path: Path) -> None:
    colours = np.array([[220, 30, 40], [30, 200, 60], [40, 50, 230], [250, 240, 20], [128, 128, 128], [255, 255, 255]])
    picture = np.repeat(np.repeat(colours.reshape(2, 3, 3), 32, axis=0), 32, axis=1).astype(np.uint8)
    path = tmp_path / "colours.mp4"
    write_mp4(path, [picture] * 3, fps=5)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        frame = next(container.decode(video=0))
        y, u, v = (plane_at(frame, k) for k in range(3))
    # BT.709 limited range to RGB (ITU-R BT.709-6, section 3)
    luma, cb, cr = (y - 16) / 219, (u - 128) / 224, (v - 128) / 224
    rgb = np.stack([luma + 1.5748 * cr, luma - 0.1873 * cb - 0.4681 * cr, luma + 1.8556 * cb], axis=-1) * 255
    assert np.abs(rgb - colours.reshape(2, 3, 3)).max() <= 4
    head = path.read_bytes()
    assert head.index(b"moov") < head.index(b"mdat")  # can be played while it is loading


def plane_at(frame: av.VideoFrame, plane: int) -> np.ndarray:
    """The values of one YUV plane in the middle of each of the 2 x 3 patches, float64 (2, 3)."""
    data = frame.planes[plane]
    rows = (
        np.frombuffer(memoryview(data), np.uint8)
        .reshape(data.height, data.line_size)[:, : data.width]
        .astype(np.float64)
    )
    height, width = data.height // 2, data.width // 3
    return rows[height // 2 :: height, width // 2 :: width]


def test_a_film_without_frames_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        write_mp4(tmp_path / "none.mp4", [], fps=10)
    sizes = [np.zeros((16, 16, 3), np.uint8), np.zeros((16, 32, 3), np.uint8)]
    with pytest.raises(ValueError, match="one size"):
        write_mp4(tmp_path / "two.mp4", sizes, fps=10)
    assert list(tmp_path.iterdir()) == []
