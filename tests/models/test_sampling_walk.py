from pathlib import Path

import av
import numpy as np
import pytest

from models.sampling.images import load_generator
from models.sampling.video import write_mp4
from models.sampling.walk import loop_latents, slerp, slerp_walk


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
    for k in range(4):
        assert loop_latents(keys, k / 4) == pytest.approx(keys[k])
    assert loop_latents(keys, 1.0) == pytest.approx(keys[0])
    assert np.abs(loop_latents(keys, 1 - 1e-6) - keys[0]).max() < 1e-4


def test_a_walk_is_a_film_of_the_right_size_and_the_same_again(tiny_run: Path, tmp_path: Path) -> None:
    generator = load_generator(tiny_run)
    paths = [
        slerp_walk(generator, range(6), tmp_path / name, keys=2, columns=3, seconds=1.0, fps=8, cell=33)
        for name in ("a.mp4", "b.mp4")
    ]
    frames = decode(paths[0])
    assert len(frames) == 8
    assert frames[0].shape == (34, 100, 3)  # 33 x 99, made even
    assert paths[0].read_bytes() == paths[1].read_bytes()
    steps = [np.abs(a.astype(int) - b).mean() for a, b in zip(frames, frames[1:] + frames[:1], strict=True)]
    assert steps[-1] < 3 * np.mean(steps[:-1])  # no seam from the last frame to the first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_seeds_must_make_whole_loops(tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="whole number of loops"):
        slerp_walk(load_generator(tiny_run), range(5), tmp_path / "w.mp4", keys=2)


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
