"""MP4 files that play everywhere, in the right colours: H.264 in BT.709, limited range, tagged as such."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

CRF = 18  # visually lossless for most people
PRESET = "medium"


def write_mp4(path: Path, frames: Iterable[np.ndarray], fps: int) -> None:
    """Write uint8 (H, W, 3) RGB or (H, W, 1) grey frames of one size to `path`, all of it or nothing.

    One encoder thread, because x264's bytes depend on their number. Odd sizes get one more row or column, a copy of
    the last. Without a conversion and tags of its own, PyAV would write untagged BT.601, which players show in wrong
    colours.
    """
    import av  # not on the GPU machines, where nothing is filmed
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        with av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = None
            for picture in frames:
                even = _even_rgb(picture)
                if stream is None:
                    stream = container.add_stream("libx264", rate=fps, options={"crf": str(CRF), "preset": PRESET})
                    stream.height, stream.width = even.shape[:2]
                    stream.pix_fmt = "yuv420p"
                    context = stream.codec_context
                    context.thread_count = 1
                    context.colorspace = Colorspace.ITU709
                    context.color_primaries = ColorPrimaries.BT709
                    context.color_trc = ColorTrc.BT709
                    context.color_range = ColorRange.MPEG
                elif even.shape[:2] != (stream.height, stream.width):
                    raise ValueError(f"frames of one film must be of one size, got {even.shape[:2]} after the first")
                frame = av.VideoFrame.from_ndarray(even, format="rgb24").reformat(
                    format="yuv420p",
                    dst_colorspace=Colorspace.ITU709,
                    dst_color_range=ColorRange.MPEG,
                    dst_color_primaries=ColorPrimaries.BT709,
                    dst_color_trc=ColorTrc.BT709,
                    threads=1,
                )
                container.mux(stream.encode(frame))
            if stream is None:
                raise ValueError("a film needs at least one frame")
            container.mux(stream.encode())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _even_rgb(picture: np.ndarray) -> np.ndarray:
    height, width, channels = picture.shape
    padded = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(np.broadcast_to(padded, (*padded.shape[:2], 3)) if channels == 1 else padded)
