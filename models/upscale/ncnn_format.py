"""Reads networks in ncnn's format: a text file of layers (`.param`) and a file of their weights (`.bin`).

The text: the number 7767517, a line with the counts of layers and blobs, then one line per layer: kind, name, how many
blobs go in and come out, their names, and its settings as ``number=value``. A list is written as
``-(23300 + number)=length,value,value,...``.

The weights follow each other in the order of the layers. A layer's main table begins with four bytes that say how it is
stored: zero for float32, 0x01306B47 for float16 (padded to whole four bytes). What else ncnn knows here (8 bits, tables
of 256 values) is refused. Biases and slopes are float32 without such a mark. All numbers are little-endian.

Files come from the network, so nothing in them is believed: every size is checked against the bytes that are there
before anything is made of it, and a file with bytes left over is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Weights = npt.NDArray[np.float32]
Value = int | float | tuple[int | float, ...]

MAGIC = "7767517"
FLOAT32_MARK = 0
FLOAT16_MARK = 0x01306B47
LIST_BASE = -23300  # a list for setting n is written with the number LIST_BASE - n
MAX_SETTINGS = 64  # numbers of settings are below this; the known layers have less than 32
MAX_PARAM_BYTES = 4 << 20  # the largest published super-resolution networks have 100 KB
MAX_COUNT = 100_000  # of layers and of blobs
NUMBER = r"-?\d{1,10}(?:\.\d{0,20})?(?:[eE][-+]?\d{1,2})?"  # always finite
SINGLE = re.compile(rf"\d{{1,4}}={NUMBER}")
LIST = re.compile(rf"-\d{{5}}=\d{{1,6}}(?:,{NUMBER})*")

WITHOUT_WEIGHTS = frozenset((
    "BinaryOp", "Clip", "Concat", "Crop", "Eltwise", "Input", "Interp", "PixelShuffle", "Pooling", "ReLU", "Scale",
    "Sigmoid", "Split",
))  # fmt: skip


class NcnnFormatError(ValueError):
    """The files are no ncnn network, are damaged, or hold what is not read here."""


@dataclass(frozen=True, eq=False)
class NcnnLayer:
    """One layer: its settings as they stand in the file, and its weights."""

    kind: str  # "Convolution", "Split", ...
    name: str
    inputs: tuple[str, ...]  # names of blobs
    outputs: tuple[str, ...]
    params: Mapping[int, Value]
    weights: Mapping[str, Weights]
    """Convolution: weight (O, I, y, x), bias (O). Deconvolution: weight (I, O, y, x) as torch has it, bias (O).
    InnerProduct: weight (O, I), bias (O). PReLU: slope (O). A bias is missing where the layer has none."""


@dataclass(frozen=True, eq=False)
class NcnnGraph:
    """The layers in the order of the file, in which they are also computed."""

    layers: tuple[NcnnLayer, ...]

    @property
    def weighted(self) -> tuple[NcnnLayer, ...]:
        """The layers that have weights."""
        return tuple(layer for layer in self.layers if layer.weights)


def read_ncnn(param: bytes, weights: bytes) -> NcnnGraph:
    """Read a network from the bytes of its two files.

    Raises `NcnnFormatError` for anything but a complete network of known layers, stored as float32 or float16, whose
    weights are finite and fill the second file to its last byte.
    """
    source = _WeightReader(weights)
    layers = tuple(
        NcnnLayer(line.kind, line.name, line.inputs, line.outputs, line.params, _read_weights(line, source))
        for line in _read_lines(param)
    )
    source.expect_end()
    return NcnnGraph(layers)


@dataclass(frozen=True)
class _Line:
    """A layer as the text has it."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: dict[int, Value]

    def __str__(self) -> str:
        return f"layer {self.name} ({self.kind})"

    def whole(self, number: int, default: int, least: int) -> int:
        """A setting that must be a whole number of at least ``least``."""
        value = self.params.get(number, default)
        if not isinstance(value, int) or value < least:
            raise NcnnFormatError(f"{self}: setting {number} must be a whole number from {least}, not {value!r}")
        return value


def _read_lines(param: bytes) -> Iterator[_Line]:
    if len(param) > MAX_PARAM_BYTES:
        raise NcnnFormatError(f"the list of layers has {len(param):,} bytes: no network of this kind is so large")
    try:
        text = param.decode("ascii")
    except UnicodeDecodeError as error:
        raise NcnnFormatError("the list of layers is not plain text: is it the .param file, not the .bin?") from error
    rows = [row.split() for row in text.splitlines() if row.strip()]
    if not rows or rows[0] != [MAGIC]:
        raise NcnnFormatError(f"the list of layers does not begin with {MAGIC}: it is no ncnn .param file")
    counts = [_count(word, "the counts") for word in rows[1]] if len(rows) > 1 else []
    if len(counts) != 2:
        raise NcnnFormatError("the second line must hold the counts of layers and blobs")
    if counts[0] != len(rows) - 2:
        raise NcnnFormatError(f"{counts[0]} layers are announced, but {len(rows) - 2} are there")
    made: set[str] = set()
    for row in rows[2:]:
        line = _read_line(row)
        missing = [blob for blob in line.inputs if blob not in made]
        again = [blob for blob in line.outputs if blob in made]
        if missing:
            raise NcnnFormatError(f"{line}: no layer before it makes {missing}")
        if again or len(set(line.outputs)) != len(line.outputs):
            raise NcnnFormatError(f"{line}: makes a blob that is there already: {line.outputs}")
        made.update(line.outputs)
        yield line
    if counts[1] != len(made):
        raise NcnnFormatError(f"{counts[1]} blobs are announced, but {len(made)} are there")


def _read_line(row: list[str]) -> _Line:
    shown = " ".join(row)[:80]
    if len(row) < 4:
        raise NcnnFormatError(f"a layer needs a kind, a name and two counts: {shown!r}")
    taken, given = _count(row[2], shown), _count(row[3], shown)
    end = 4 + taken + given
    if len(row) < end:
        raise NcnnFormatError(f"a layer names fewer blobs than it announces: {shown!r}")
    params: dict[int, Value] = {}
    for setting in row[end:]:
        number, value = _read_setting(setting)
        if number in params:
            raise NcnnFormatError(f"a layer has setting {number} twice: {shown!r}")
        params[number] = value
    return _Line(row[0], row[1], tuple(row[4 : 4 + taken]), tuple(row[4 + taken : end]), params)


def _read_setting(setting: str) -> tuple[int, Value]:
    key, _, value = setting.partition("=")
    if SINGLE.fullmatch(setting) and 0 <= int(key) < MAX_SETTINGS:
        return int(key), _read_number(value)
    if LIST.fullmatch(setting) and 0 <= LIST_BASE - int(key) < MAX_SETTINGS:
        length, *values = value.split(",")
        if int(length) == len(values):
            return LIST_BASE - int(key), tuple(_read_number(one) for one in values)
    raise NcnnFormatError(f"a setting is neither number=value nor a list of the length it says: {setting[:80]!r}")


def _read_number(word: str) -> int | float:
    """Whole numbers have neither a point nor an exponent: so ncnn tells them from others."""
    return float(word) if any(sign in word for sign in ".eE") else int(word)


def _count(word: str, where: str) -> int:
    if not (word.isdigit() and len(word) < 8 and int(word) <= MAX_COUNT):
        raise NcnnFormatError(f"not a count from 0 to {MAX_COUNT:,}: {word[:20]!r} in {where!r}")
    return int(word)


class _WeightReader:
    """Takes tables from the front of the weight file."""

    def __init__(self, content: bytes) -> None:
        self._content = memoryview(content)
        self._at = 0

    def _take(self, size: int, what: str) -> memoryview:
        left = len(self._content) - self._at
        if size > left:
            raise NcnnFormatError(
                f"{what} needs {size:,} bytes, but {left:,} are left: the .bin file is cut off, or not of this .param"
            )
        self._at += size
        return self._content[self._at - size : self._at]

    def plain(self, count: int, what: str) -> Weights:
        """``count`` float32 without a mark."""
        return _finite(np.frombuffer(self._take(4 * count, what), "<f4"), what)

    def marked(self, count: int, what: str) -> Weights:
        """``count`` values, stored as the mark before them says."""
        mark = int.from_bytes(self._take(4, what), "little")
        if mark == FLOAT32_MARK:
            return self.plain(count, what)
        if mark == FLOAT16_MARK:
            stored = self._take(-(-2 * count // 4) * 4, what)
            return _finite(np.frombuffer(stored[: 2 * count], "<f2"), what)
        raise NcnnFormatError(
            f"{what} is stored as {mark:#010x}, which is neither float32 nor float16: use a file that is not quantised"
        )

    def expect_end(self) -> None:
        left = len(self._content) - self._at
        if left:
            raise NcnnFormatError(f"{left:,} bytes are left over in the .bin file: it does not belong to this .param")


def _finite(values: npt.NDArray[np.floating], what: str) -> Weights:
    if not np.isfinite(values).all():
        raise NcnnFormatError(f"{what} holds values that are not finite: the .bin file is damaged")
    return values.astype(np.float32)  # a copy: native byte order, writable, and not tied to the file's bytes


def _read_weights(line: _Line, source: _WeightReader) -> dict[str, Weights]:
    if line.kind in WITHOUT_WEIGHTS:
        if line.kind == "Scale" and line.params.get(0) != -233:  # -233: the factors come from another blob
            raise NcnnFormatError(f"{line}: factors of its own are not read here")
        return {}
    if line.kind == "PReLU":
        return {"slope": source.plain(line.whole(0, 0, 1), f"{line}: slope")}
    if line.kind not in ("Convolution", "Deconvolution", "InnerProduct"):
        raise NcnnFormatError(f"{line}: this kind of layer is not known here")
    if line.params.get(8, 0) != 0:
        raise NcnnFormatError(f"{line}: holds 8-bit weights: use a file that is not quantised")
    inner = line.kind == "InnerProduct"
    outputs, total = line.whole(0, 0, 1), line.whole(2 if inner else 6, 0, 1)
    kernel = () if inner else _kernel(line)
    inputs, rest = divmod(total, outputs * math.prod(kernel))
    if rest or not inputs:
        raise NcnnFormatError(f"{line}: {total} weights do not fit {outputs} outputs and kernel {kernel}")
    weight = source.marked(total, f"{line}: weight").reshape(outputs, inputs, *kernel)
    if line.kind == "Deconvolution":
        weight = np.ascontiguousarray(weight.swapaxes(0, 1))
    weights = {"weight": weight}
    if line.whole(1 if inner else 5, 0, 0):
        weights["bias"] = source.plain(outputs, f"{line}: bias")
    return weights


def _kernel(line: _Line) -> tuple[int, int]:
    """Rows and columns; the file names the columns first and leaves the rows out where they are the same."""
    if line.params.get(19, 0) != 0:
        raise NcnnFormatError(f"{line}: its weights come from another layer, which is not read here")
    columns = line.whole(1, 0, 1)
    return line.whole(11, columns, 1), columns
