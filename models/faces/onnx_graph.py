"""What an ONNX file says of its inputs, read without the onnx package.

An ONNX file is one protocol-buffer message. OpenCV runs it but does not tell its input shape, so the few fields that
matter are read here: ModelProto.graph (7), GraphProto.initializer (5) and input (11), and of an input its name,
element type and dimensions. Field numbers are those of onnx.proto3, which never change.
"""

from collections.abc import Iterator
from typing import NamedTuple

FLOAT = 1  # TensorProto.DataType
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


class GraphInput(NamedTuple):
    """An input of the graph that is not one of its weights."""

    name: str
    element: int  # TensorProto.DataType: 1 is float32
    shape: tuple[int | None, ...]  # None where the size is free


def read_inputs(model: bytes) -> list[GraphInput]:
    """The inputs of an ONNX model. Raises ValueError when these bytes are not one, or are cut short."""
    graphs = [value for number, value in _fields(memoryview(model)) if number == 7 and isinstance(value, memoryview)]
    if len(graphs) != 1:
        raise ValueError("it holds no graph")
    inputs: list[GraphInput] = []
    weights: set[str] = set()
    for number, value in _fields(graphs[0]):
        if number == 11 and isinstance(value, memoryview):
            inputs.append(_read_input(value))
        elif number == 5 and isinstance(value, memoryview):
            weights.add(_read_text(value, 8))
    return [entry for entry in inputs if entry.name not in weights]


def _read_input(message: memoryview) -> GraphInput:
    """ValueInfoProto: name (1), type (2), of that the tensor type (1): element type (1), shape (2)."""
    element, shape = 0, []
    for tensor in _messages(message, 2, 1):
        element = next((value for number, value in _fields(tensor) if number == 1 and isinstance(value, int)), 0)
        for dimension in _messages(tensor, 2, 1):
            sizes = [value for number, value in _fields(dimension) if number == 1 and isinstance(value, int)]
            shape.append(sizes[0] if sizes and 0 < sizes[0] < 2**31 else None)
    return GraphInput(_read_text(message, 1), element, tuple(shape))


def _messages(message: memoryview, outer: int, inner: int) -> Iterator[memoryview]:
    """The messages in field ``inner`` of the messages in field ``outer``."""
    for number, value in _fields(message):
        if number == outer and isinstance(value, memoryview):
            yield from (v for n, v in _fields(value) if n == inner and isinstance(v, memoryview))


def _read_text(message: memoryview, field: int) -> str:
    for number, value in _fields(message):
        if number == field and isinstance(value, memoryview):
            return bytes(value).decode("utf-8", "replace")
    return ""


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of a message: a number for a varint, bytes for everything of stated length."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, place = _varint(message, place)
            yield number, value
            continue
        if wire not in (_FIXED64, _BYTES, _FIXED32) or number == 0:
            raise ValueError("it is not a protocol-buffer message")
        length = {_FIXED64: 8, _FIXED32: 4}.get(wire, 0)
        if wire == _BYTES:
            length, place = _varint(message, place)
        if place + length > len(message):
            raise ValueError("it ends too early")
        yield number, message[place : place + length]
        place += length


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number in groups of 7 bits, low ones first, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise ValueError("it ends too early")
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("it is not a protocol-buffer message")
