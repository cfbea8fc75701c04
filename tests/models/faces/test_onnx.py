"""The ONNX files here are written by the tests themselves, field by field, so that no further package is needed."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from models.faces.detector import RGB, DetectorError, Face
from models.faces.load import load_detector
from models.faces.onnx import OnnxDetector, Runtime, split_output
from models.faces.onnx_graph import GraphInput, read_inputs

SIDE = 64  # of the network's input
CELL = 8  # pixels per cell of its answer
CELLS = SIDE // CELL
BOX = 16  # side of every box it answers with
FLOAT, DOUBLE = 1, 11


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def tensor(name: str, values: np.ndarray) -> bytes:
    kind = {np.dtype(np.float32): 1, np.dtype(np.int64): 7}[values.dtype]
    dims = b"".join(field(1, int(size)) for size in values.shape)
    return dims + field(2, kind) + field(8, name) + field(9, values.tobytes())


def node(kind: str, inputs: Sequence[str], output: str, **attributes: int | list[int]) -> bytes:
    message = b"".join(field(1, name) for name in inputs) + field(2, output) + field(3, output) + field(4, kind)
    for name, value in attributes.items():
        ints = value if isinstance(value, list) else [value]
        body = b"".join(field(8 if isinstance(value, list) else 3, number) for number in ints)
        message += field(5, field(1, name) + body + field(20, 7 if isinstance(value, list) else 2))
    return message


def value(name: str, shape: Sequence[int | str], element: int = FLOAT) -> bytes:
    dims = b"".join(field(1, field(2 if isinstance(size, str) else 1, size)) for size in shape)
    return field(1, name) + field(2, field(1, field(1, element) + field(2, dims)))


def model(nodes: Sequence[bytes], weights: Sequence[bytes], inputs: Sequence[bytes], outputs: Sequence[bytes]) -> bytes:
    graph = b"".join(field(1, n) for n in nodes) + field(2, "faces") + b"".join(field(5, w) for w in weights)
    graph += b"".join(field(11, i) for i in inputs) + b"".join(field(12, o) for o in outputs)
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))


def redness(layout: str, side: int = SIDE, shape: Sequence[int | str] | None = None, gain: float = 1.0) -> bytes:
    """A network that answers, for each of 8 x 8 cells, a box about its centre with (mean red - mean blue) as score.

    Layout v8: (1, 5, 64). Layout v5: (1, 64, 7), the score as that of an object and the classes .5 and .9.
    """
    cell = side // CELLS
    kernel = np.zeros((1, 3, cell, cell), np.float32)
    kernel[0, 0], kernel[0, 2] = gain / cell**2, -gain / cell**2
    centres = (np.arange(CELLS) + 0.5) * cell
    boxes = np.full((1, 4, CELLS**2), BOX * side / SIDE, np.float32)
    boxes[0, 0], boxes[0, 1] = np.tile(centres, CELLS), np.repeat(centres, CELLS)
    nodes = [
        node("Conv", ["images", "kernel"], "map", kernel_shape=[cell, cell], strides=[cell, cell]),
        node("Reshape", ["map", "flat"], "scores"),
    ]
    weights = [tensor("kernel", kernel), tensor("flat", np.array([1, 1, CELLS**2], np.int64)), tensor("boxes", boxes)]
    if layout == "v8":
        nodes.append(node("Concat", ["boxes", "scores"], "output", axis=1))
        answer = value("output", (1, 5, CELLS**2))
    else:
        classes = np.repeat(np.array([[[0.5], [0.9]]], np.float32), CELLS**2, axis=2)
        weights.append(tensor("classes", classes))
        nodes += [
            node("Concat", ["boxes", "scores", "classes"], "rows", axis=1),
            node("Transpose", ["rows"], "output", perm=[0, 2, 1]),
        ]
        answer = value("output", (1, CELLS**2, 7))
    return model(nodes, weights, [value("images", shape or (1, 3, side, side))], [answer])


def red_cell(column: int, row: int, strength: int = 255, picture: RGB | None = None) -> RGB:
    """A black picture of the network's size, with one cell of a red."""
    out = np.zeros((SIDE, SIDE, 3), np.uint8) if picture is None else picture.copy()
    out[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL, 0] = strength
    return out


@pytest.fixture(params=["opencv", "onnxruntime"])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    if request.param == "onnxruntime":
        pytest.importorskip("onnxruntime", reason="pip install 'kaobako[onnx]'")
    chosen: Runtime = request.param
    return chosen


def boxes(faces: list[Face]) -> list[tuple[int, int, int, int]]:
    return [(f.x, f.y, f.w, f.h) for f in faces]


def test_yolov8_boxes_and_scores(runtime: Runtime) -> None:
    faces = OnnxDetector(redness("v8"), runtime=runtime).detect(red_cell(3, 5))
    assert boxes(faces) == [(28 - 8, 44 - 8, 16, 16)]  # the cell's centre is at (28, 44)
    assert faces[0].score == pytest.approx(1.0, abs=1e-4) and faces[0].detector == "onnx"
    blue = red_cell(3, 5)[..., ::-1]
    assert OnnxDetector(redness("v8"), runtime=runtime).detect(np.ascontiguousarray(blue)) == []


@pytest.mark.parametrize(("face_class", "share"), [(0, 0.5), (1, 0.9)])
def test_yolov5_scores_are_object_times_class(runtime: Runtime, face_class: int, share: float) -> None:
    detector = OnnxDetector(redness("v5"), face_class=face_class, runtime=runtime)
    faces = detector.detect(red_cell(3, 5, 204))
    assert boxes(faces) == [(20, 36, 16, 16)]
    assert faces[0].score == pytest.approx(0.8 * share, abs=1e-3)


def test_boxes_are_mapped_back_through_the_letterbox(runtime: Runtime) -> None:
    detector = OnnxDetector(redness("v8"), runtime=runtime)
    wide = np.zeros((128, 256, 3), np.uint8)  # fills rows 16 to 48 of the input, at a quarter of its size
    wide[0:32, 96:128, 0] = 255  # input: columns 24 to 32, rows 16 to 24: the cell (3, 2)
    assert boxes(detector.detect(wide)) == [(80, 0, 64, 48)]  # centre (112, 16), side 64, clipped at the top
    tall = np.zeros((32, 16, 3), np.uint8)  # enlarged by two into columns 16 to 48
    tall[8:12, 4:8, 0] = 255  # input: columns 24 to 32, rows 16 to 24
    assert boxes(detector.detect(tall)) == [(2, 6, 8, 8)]


def test_the_lesser_of_two_overlapping_boxes_is_dropped(runtime: Runtime) -> None:
    picture = red_cell(4, 2, 200, red_cell(3, 2))  # neighbours: their boxes have an IoU of 1 / 3
    assert len(OnnxDetector(redness("v8"), overlap=0.4, runtime=runtime).detect(picture)) == 2
    assert boxes(OnnxDetector(redness("v8"), overlap=0.3, runtime=runtime).detect(picture)) == [(20, 12, 16, 16)]


def test_confidence_and_smallest_size(runtime: Runtime) -> None:
    picture = red_cell(6, 6, 102, red_cell(1, 1))
    network = redness("v8")
    assert len(OnnxDetector(network, runtime=runtime).detect(picture)) == 2
    assert boxes(OnnxDetector(network, confidence=0.5, runtime=runtime).detect(picture)) == [(4, 4, 16, 16)]
    assert len(OnnxDetector(network, min_size=16, runtime=runtime).detect(picture)) == 2
    assert OnnxDetector(network, min_size=17, runtime=runtime).detect(picture) == []


def test_a_free_input_size_is_640(runtime: Runtime) -> None:
    network = redness("v8", side=640, shape=("batch", 3, "height", "width"))
    assert boxes(OnnxDetector(network, runtime=runtime).detect(red_cell(3, 5))) == [(20, 36, 16, 16)]


def test_a_grey_picture_is_seen_as_three_equal_channels() -> None:
    detector = OnnxDetector(redness("v8"), runtime="opencv")
    grey = np.full((SIDE, SIDE), 255, np.uint8)
    assert detector.detect(grey) == detector.detect(np.repeat(grey[..., None], 3, axis=2)) == []
    with pytest.raises(ValueError, match="uint8"):
        detector.detect(np.zeros((4, 4, 4), np.uint8))


def test_threads_find_the_same(runtime: Runtime) -> None:
    detector = OnnxDetector(redness("v8"), runtime=runtime)
    pictures = [red_cell(k % 8, k // 8) for k in range(64)]
    alone = [detector.detect(picture) for picture in pictures]
    assert len({tuple(boxes(faces)) for faces in alone}) == 64
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(detector.detect, pictures)) == alone


def test_the_file_and_who_runs_it_are_part_of_the_key(runtime: Runtime) -> None:
    network = redness("v8")
    detector = OnnxDetector(network, runtime=runtime)
    assert len(detector.weights) == 1 and hashlib.sha256(network).hexdigest() in detector.weights[0]
    assert runtime in detector.weights[0]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (b"", "not an ONNX file"),
        (b"<?xml version='1.0'?>", "not an ONNX file"),
        (redness("v8")[:400], "not an ONNX file"),
        (redness("v8", shape=(1, 1, SIDE, SIDE)), r"needs one float32 input .*images \(1, 1, 64, 64\)"),
        (redness("v8", shape=(2, 3, SIDE, SIDE)), r"needs one float32 input"),
        (redness("v8", shape=(1, 3, SIDE)), r"needs one float32 input"),
        (redness("v8", shape=(1, 3, 9000, 9000)), "at most 4096"),
        (model([], [], [value("images", (1, 3, 8, 8), DOUBLE)], []), "needs one float32 input"),
        (model([], [], [value("a", (1, 3, 8, 8)), value("b", (1, 3, 8, 8))], []), "needs one float32 input"),
    ],
)
def test_files_that_are_no_detector_are_refused_before_any_work(broken: bytes, message: str) -> None:
    with pytest.raises(DetectorError, match=message):
        OnnxDetector(broken, runtime="opencv")


def test_a_network_that_answers_otherwise_is_refused(runtime: Runtime) -> None:
    convolution = node("Conv", ["images", "kernel"], "output", kernel_shape=[8, 8], strides=[8, 8])
    kernel = tensor("kernel", np.ones((1, 3, 8, 8), np.float32))
    picture = value("images", (1, 3, SIDE, SIDE))
    with pytest.raises(DetectorError, match=r"shape \(1, 1, 8, 8\).*Export it so"):
        OnnxDetector(model([convolution], [kernel], [picture], [value("output", (1, 1, 8, 8))]), runtime=runtime)
    with pytest.raises(DetectorError, match="2 classes"):
        OnnxDetector(redness("v5"), face_class=2, runtime=runtime)
    unknown = model([node("NoSuchThing", ["images"], "output")], [], [picture], [value("output", (1, 5, 64))])
    with pytest.raises(DetectorError, match="cannot load"):
        OnnxDetector(unknown, runtime=runtime)


def test_scores_that_are_no_probabilities_are_refused() -> None:
    for output in (np.full((1, 5, 64), 7, np.float32), np.full((1, 5, 64), np.nan, np.float32)):
        with pytest.raises(DetectorError, match="not from 0 to 1"):
            OnnxDetector._check(_plain(), output)


def _plain() -> OnnxDetector:
    return OnnxDetector(redness("v8"), runtime="opencv")


def test_the_layout_is_seen_from_the_shape() -> None:
    rows = np.arange(1, 8 * 6 + 1, dtype=np.float32).reshape(1, 8, 6)
    places, scores = split_output(rows, 0)  # YOLOv5, one class
    assert places[1].tolist() == [7, 8, 9, 10] and scores[1] == 11 * 12
    places, scores = split_output(rows.transpose(0, 2, 1), 1)  # YOLOv8, two classes
    assert places[1].tolist() == [7, 8, 9, 10] and scores[1] == 12
    for shape in ((1, 6, 6), (2, 8, 6), (1, 4, 80), (8, 6)):
        with pytest.raises(DetectorError, match="YOLO"):
            split_output(np.zeros(shape, np.float32), 0)


def test_settings_out_of_range_are_refused() -> None:
    for settings in ({"confidence": 0.0}, {"confidence": 1.5}, {"overlap": 0.0}):
        with pytest.raises(DetectorError, match="above 0"):
            OnnxDetector(redness("v8"), **settings)  # type: ignore[arg-type]


def test_inputs_are_read_without_the_weights_among_them() -> None:
    kernel = np.zeros((1, 3, 8, 8), np.float32)
    old_style = model(
        [], [tensor("kernel", kernel)], [value("images", (1, 3, "h", 64)), value("kernel", (1, 3, 8, 8))], []
    )
    assert read_inputs(old_style) == [GraphInput("images", FLOAT, (1, 3, None, 64))]
    for end in range(1, len(old_style) - 1):  # cut anywhere: an error or less, never a crash
        try:
            read_inputs(old_style[:end])
        except ValueError:
            continue


def test_by_mode(tmp_path: Path, cascade: str) -> None:
    path = tmp_path / "red.onnx"
    path.write_bytes(redness("v8"))
    alone = load_detector("onnx", 8, model=path)
    assert boxes(alone.detect(red_cell(3, 5))) == [(20, 36, 16, 16)]
    union = load_detector("union", 8, model=path)
    assert union.name == "onnx+lbp+animeface" and len(union.weights) == 3
    assert boxes(union.detect(red_cell(3, 5))) == [(20, 36, 16, 16)]
    assert load_detector("agreement", 8, model=path).detect(red_cell(3, 5)) == []  # nobody else sees a face there
    with pytest.raises(DetectorError, match="cannot be read"):
        load_detector("onnx", model=tmp_path / "missing.onnx")
