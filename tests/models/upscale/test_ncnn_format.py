"""The reader against files written here byte by byte, against ncnn itself, and against damaged files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from models.upscale.ncnn_format import NcnnFormatError, read_ncnn

PARAM = """7767517
7 8
Input            picture  0 1 data
Convolution      first    1 1 data a 0=5 1=3 11=1 5=1 6=45 9=2 -23310=1,0.100000
Split            copies   1 2 a b c
PReLU            bend     1 1 b d 0=5
Deconvolution    second   1 1 d e 0=2 1=3 11=4 3=2 4=1 5=1 6=120
Crop             cut      2 1 e c f 0=4 1=4
Convolution      last     1 1 f g 0=1 1=1 6=2 4=1 -23303=2,2.000000e-01,-3
"""
LINES = PARAM.splitlines()


def marked(values: np.ndarray, half: bool) -> bytes:
    """A table as ncnn stores it: a mark, the values, and zeros up to four bytes."""
    stored = values.astype("<f2" if half else "<f4").tobytes()
    mark = 0x01306B47 if half else 0
    return mark.to_bytes(4, "little") + stored + bytes(-len(stored) % 4)


def tables(seed: int = 0) -> dict[str, np.ndarray]:
    """Values for the network above that float16 holds exactly, in the file's order of axes."""
    rng = np.random.default_rng(seed)
    shapes = {"first": (5, 3, 1, 3), "first bias": 5, "bend": 5, "second": (2, 5, 4, 3), "second bias": 2, "last": 2}
    return {name: (rng.integers(-64, 65, shape) / 64).astype(np.float32) for name, shape in shapes.items()}


def write_weights(half: bool) -> bytes:
    t = tables()
    first = marked(t["first"], half) + t["first bias"].tobytes() + t["bend"].tobytes()
    return first + marked(t["second"], half) + t["second bias"].tobytes() + marked(t["last"], half)


@pytest.mark.parametrize("half", [False, True])
def test_every_value_arrives(half: bool) -> None:
    graph = read_ncnn(PARAM.encode(), write_weights(half))
    assert [layer.kind for layer in graph.layers] == [line.split()[0] for line in LINES[2:]]
    assert [layer.name for layer in graph.weighted] == ["first", "bend", "second", "last"]
    first, bend, second, last = graph.weighted
    t = tables()
    np.testing.assert_array_equal(first.weights["weight"], t["first"])
    np.testing.assert_array_equal(first.weights["bias"], t["first bias"])
    np.testing.assert_array_equal(bend.weights["slope"], t["bend"])
    np.testing.assert_array_equal(second.weights["weight"], t["second"].transpose(1, 0, 2, 3))
    np.testing.assert_array_equal(last.weights["weight"], t["last"].reshape(1, 2, 1, 1))
    assert "bias" not in last.weights
    assert all(v.dtype == np.float32 and v.flags.writeable for layer in graph.weighted for v in layer.weights.values())
    assert first.params == {0: 5, 1: 3, 11: 1, 5: 1, 6: 45, 9: 2, 10: (0.1,)}
    assert last.params[3] == (0.2, -3) and isinstance(first.params[0], int)
    assert graph.layers[2].outputs == ("b", "c") and graph.layers[5].inputs == ("e", "c")


def test_ncnn_computes_with_the_same_axes(tmp_path: Path) -> None:
    """Kernels that are not square and channels that differ: a wrong order of axes, or a turned kernel, would show."""
    ncnn = pytest.importorskip("ncnn")
    param = (
        "7767517\n5 5\nInput i 0 1 data\nConvolution a 1 1 data x 0=4 1=3 11=2 5=1 6=72\nPReLU p 1 1 x y 0=4\n"
        "Deconvolution d 1 1 y z 0=2 1=4 11=3 3=2 4=1 5=1 6=96\nInnerProduct f 1 1 z out 0=3 1=1 2=792\n"
    )
    rng = np.random.default_rng(1)
    sizes = [(72, True), (4, False), (4, False), (96, True), (2, False), (792, True), (3, False)]
    drawn = [(rng.standard_normal(n).astype(np.float32) / 4, table) for n, table in sizes]
    content = b"".join(marked(v, half=True) if table else v.tobytes() for v, table in drawn)
    (tmp_path / "n.param").write_text(param)
    (tmp_path / "n.bin").write_bytes(content)
    x = rng.random((3, 7, 8), dtype=np.float32)
    net = ncnn.Net()
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    assert net.load_param(str(tmp_path / "n.param")) == 0 and net.load_model(str(tmp_path / "n.bin")) == 0
    extractor = net.create_extractor()
    extractor.input("data", ncnn.Mat(x))
    expected = np.array(extractor.extract("out")[1])

    a, p, d, f = read_ncnn(param.encode(), content).weighted
    w = [{role: torch.from_numpy(values) for role, values in layer.weights.items()} for layer in (a, p, d, f)]
    y = F.prelu(F.conv2d(torch.from_numpy(x)[None], w[0]["weight"], w[0]["bias"]), w[1]["slope"])
    y = F.conv_transpose2d(y, w[2]["weight"], w[2]["bias"], stride=2, padding=1)
    y = F.linear(y.flatten(1), w[3]["weight"], w[3]["bias"])
    assert y.shape[1] == 3
    np.testing.assert_allclose(y[0].numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("half", [False, True])
def test_every_cut_and_every_extra_byte_is_refused(half: bool) -> None:
    content = write_weights(half)
    for length in range(len(content)):
        with pytest.raises(NcnnFormatError, match=r"are left: the \.bin file is cut off"):
            read_ncnn(PARAM.encode(), content[:length])
    for extra in (b"\0", b"\0\0\0\0"):
        with pytest.raises(NcnnFormatError, match="left over"):
            read_ncnn(PARAM.encode(), content + extra)


def test_a_cut_list_of_layers_is_refused() -> None:
    content = write_weights(True)
    for length in range(PARAM.index(" 4=1 -23303")):  # what follows may be missing
        with pytest.raises(NcnnFormatError):
            read_ncnn(PARAM[:length].encode(), content)


def change(old: str, new: str) -> str:
    assert PARAM.count(old) == 1
    return PARAM.replace(old, new)


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("", "does not begin with 7767517"),
        (change("7767517", "7767518"), "does not begin with 7767517"),
        ("\xff" + PARAM, "not plain text"),
        (change("7 8\n", "7\n"), "second line"),
        (change("7 8\n", "8 8\n"), "8 layers are announced, but 7"),
        (change("7 8\n", "7 9\n"), "9 blobs are announced, but 8"),
        (change("7 8\n", "-7 8\n"), "not a count"),
        (change("7 8\n", "7 99999999999999999999\n"), "not a count"),
        (change("picture  0 1 data", "picture"), "two counts"),
        (change("cut      2 1 e c f 0=4 1=4", "cut      2 9 e c f"), "fewer blobs"),
        (change("b d 0=5", "zz d 0=5"), "no layer before it makes"),
        (change("b d 0=5", "b a 0=5"), "there already"),
        (change("a b c", "a b b"), "there already"),
        (change("b d 0=5", "b d 0=0"), "setting 0 must be a whole number from 1"),
        (change("b d 0=5", "b d 0=5.0"), "setting 0 must be a whole number from 1"),
        (change("b d 0=5", "b d 0=-5"), "setting 0 must be a whole number from 1"),
        (change("b d 0=5", "b d 0=2000000000"), "needs 8,000,000,000 bytes"),
        (change("b d 0=5", "b d 0=5 0=5"), "setting 0 twice"),
        (change("b d 0=5", "b d 0=1_0"), "neither number=value"),
        (change("b d 0=5", "b d 0=nan"), "neither number=value"),
        (change("b d 0=5", "b d 0="), "neither number=value"),
        (change("b d 0=5", "b d 999=5"), "neither number=value"),
        (change("-23310=1,0.100000", "-23310=2,0.100000"), "neither number=value"),
        (change("-23310=1,0.100000", "-29999=1,0.100000"), "neither number=value"),
        (change("5=1 6=45", "5=1 6=46"), "do not fit"),
        (change("5=1 6=45", "5=1 6=0"), "setting 6"),
        (change("5=1 6=45", "5=1 6=2000000010"), "bytes, but"),
        (change("5=1 6=45", "5=1 6=45 8=1"), "not quantised"),
        (change("5=1 6=45", "5=1 6=45 19=1"), "another layer"),
        (change("Crop  ", "LSTM  "), "not known"),
        (change("Crop  ", "Scale "), "factors of its own"),
        (PARAM + " " * (5 << 20), "no network of this kind"),
    ],
)
def test_lies_are_refused_and_named(param: str, message: str) -> None:
    with pytest.raises(NcnnFormatError, match=message):
        read_ncnn(param.encode("latin-1"), write_weights(True))


@pytest.mark.parametrize("mark", [0x000D4B38, 0x0002C056, 1, 0xFFFFFFFF])
def test_other_storages_are_refused(mark: int) -> None:
    content = mark.to_bytes(4, "little") + write_weights(False)[4:]
    with pytest.raises(NcnnFormatError, match=f"{mark:#010x}.*not quantised"):
        read_ncnn(PARAM.encode(), content)


@pytest.mark.parametrize(("half", "at"), [(False, 4), (True, 4), (False, 4 + 4 * 45)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(half: bool, at: int, value: float) -> None:
    content = bytearray(write_weights(half))
    bad = np.array(value, "<f2" if half else "<f4").tobytes()
    content[at : at + len(bad)] = bad
    with pytest.raises(NcnnFormatError, match=r"first.*not finite"):
        read_ncnn(PARAM.encode(), bytes(content))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_is_refused_or_harmless(data: st.DataObject) -> None:
    """Whatever bytes are exchanged: a clear error, or a network of the same layers with weights of the same sizes."""
    param, weights = bytearray(PARAM.encode()), bytearray(write_weights(data.draw(st.booleans())))
    for content in (param, weights):
        for _ in range(data.draw(st.integers(0, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        graph = read_ncnn(bytes(param), bytes(weights))
    except NcnnFormatError:
        return
    sizes = [values.size for layer in graph.weighted for values in layer.weights.values()]
    assert sum(sizes) == 45 + 5 + 5 + 120 + 2 + 2


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=200), st.booleans())
def test_garbage_is_refused(param: bytes, weights: bytes, headed: bool) -> None:
    with pytest.raises(NcnnFormatError):
        read_ncnn(b"7767517\n1 1\n" + param if headed else param, weights + b"\0")


def test_published_files_are_read_to_the_last_byte(real_ncnn_files: Callable[..., tuple[bytes, bytes]]) -> None:
    graph = read_ncnn(*real_ncnn_files("upconv7"))
    assert [layer.kind for layer in graph.layers] == ["Input"] + ["Convolution"] * 6 + ["Deconvolution"]
    widths = [layer.weights["bias"].size for layer in graph.weighted]
    assert widths == [16, 32, 64, 128, 128, 256, 3]
    graph = read_ncnn(*real_ncnn_files("cunet", "2"))
    assert len(graph.layers) == 59
    assert sum(v.size for layer in graph.weighted for v in layer.weights.values()) == 1_284_598
