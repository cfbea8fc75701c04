"""What the names that a model file may ask for are worth: tensors, their storages, numpy's scalars, inert records.

Nothing here trusts its arguments. A tensor is made of bytes that are there, and of no more of them than there are.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import numpy as np
import torch

from models.interchange.inert_pickle import (
    BoundedReader,
    Budget,
    Handler,
    InertMachine,
    ModelFileError,
    Name,
    Record,
    is_key,
    plain,
)

MAX_DIMENSIONS = 8
MAX_NUMBERS = 1 << 40  # in a storage; also checked against the bytes that there are

DTYPES: Mapping[str, torch.dtype] = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
STORAGE_NAMES: Mapping[str, Handler | None] = dict.fromkeys(DTYPES)

_TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of a file that torch.save wrote before 1.6, or still writes nested
_TORCH_FORMAT = 1001  # second one


@dataclass(frozen=True, eq=False)
class Storage:
    """Numbers in a row, of which tensors are made."""

    values: torch.Tensor  # (n,)


class NumpyType:
    """A numpy type without objects, while its pickle tells what it is."""

    def __init__(self, code: str) -> None:
        self.dtype = np.dtype(code)

    def set_inert_state(self, state: Any) -> None:
        """(version, byte order, ...)."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise ValueError("a numpy type has no byte order")
        if order != "|":
            self.dtype = self.dtype.newbyteorder(order)


class NumpyArray:
    """An array of which only the size is checked and kept: no StyleGAN2 needs one."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()

    def set_inert_state(self, state: Any) -> None:
        """(version, shape, type, order, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("a numpy array has no content")
        _, shape, kind, _, content = state
        sizes = _whole_numbers(shape, "a numpy array's shape")
        if not isinstance(kind, NumpyType) or not isinstance(content, bytes):
            raise ModelFileError("a numpy array in it holds objects, which could be anything: only numbers are read")
        if math.prod(sizes) * kind.dtype.itemsize != len(content):
            raise ModelFileError(f"a numpy array in it claims another size than its {len(content):,} bytes")
        self.shape = sizes


def _whole_numbers(values: Any, what: str) -> tuple[int, ...]:
    """A tuple of at most MAX_DIMENSIONS integers of 0 or more."""
    if not isinstance(values, tuple) or not all(isinstance(value, int) for value in values):
        raise ModelFileError(f"{what} is not made of whole numbers")
    if len(values) > MAX_DIMENSIONS or any(value < 0 for value in values):
        raise ModelFileError(f"{what} has more than {MAX_DIMENSIONS} numbers, or negative ones")
    return tuple(int(value) for value in values)


# ---- tensors


class Storages:
    """The storages of one file of torch.save, each made once from its bytes."""

    def __init__(self, budget: Budget, content: Callable[[str], bytes]) -> None:
        self._budget = budget
        self._content = content  # the bytes of a storage, by its key
        self._made: dict[str, tuple[torch.dtype, int, Storage]] = {}

    def resolve(self, identity: Any) -> Storage:
        """The storage of a persistent id."""
        key, dtype, count = read_identity(identity)
        if key in self._made:
            *before, made = self._made[key]
            if before != [dtype, count]:
                raise ModelFileError("a storage in it is described in two ways")
            return made
        held = self._content(key)
        size = count * dtype.itemsize
        if size != len(held):
            raise ModelFileError(f"a storage in it claims {size:,} bytes, but has {len(held):,}")
        self._budget.spend_bytes("storages", size)
        values = torch.frombuffer(bytearray(held), dtype=dtype) if count else torch.empty(0, dtype=dtype)
        self._made[key] = (dtype, count, Storage(values))
        return self._made[key][2]


def read_identity(identity: Any) -> tuple[str, torch.dtype, int]:
    """Key, type and count of a storage, of its persistent id ("storage", type, key, device, count, ...)."""
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
        raise ModelFileError("its pickle refers to something outside itself that is no storage of tensors")
    kind, key, count = identity[1], identity[2], identity[4]
    dtype = DTYPES.get(kind.text) if isinstance(kind, Name) else None
    if dtype is None or not isinstance(key, str) or not isinstance(count, int) or not 0 <= count <= MAX_NUMBERS:
        raise ModelFileError("a storage in it is of an unknown kind, or claims an impossible size")
    if len(identity) > 5 and identity[5] is not None:
        raise ModelFileError("a storage in it is a view of another one, which no model file needs")
    return key, dtype, count


def read_old_torch(file: BinaryIO, size: int, budget: Budget, names: Mapping[str, Handler | None]) -> Any:
    """What torch.save wrote before 1.6, and still nests in pickles: five pickles, then the storages in a row.

    The fourth pickle is the content. It comes before the storages' bytes, so it is read twice: for where they are, and
    then to use them.
    """
    identities: dict[str, tuple[torch.dtype, int]] = {}

    def note(identity: Any) -> None:
        key, dtype, count = read_identity(identity)
        identities[key] = (dtype, count)

    stream = BoundedReader(file, size)
    first = InertMachine(dict.fromkeys(names), budget, note)
    magic, version, system, _, keys = (first.run(stream) for _ in range(5))
    if magic != _TORCH_MAGIC or version != _TORCH_FORMAT:
        raise ModelFileError("its tensors are not in a format that torch writes")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ModelFileError("its tensors were written by a machine with another order of bytes")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(identities):
        raise ModelFileError("its list of storages is not that of its content")
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        length = int.from_bytes(stream.read(8), "little") * identities[key][0].itemsize
        places[key] = (file.tell(), length)
        if file.tell() + length > size:
            raise ModelFileError(f"a storage in it claims {length:,} bytes, but only {size - file.tell():,} follow")
        file.seek(length, io.SEEK_CUR)

    def content(key: str) -> bytes:
        place, length = places[key]
        here = file.tell()
        file.seek(place)
        held = file.read(length)
        file.seek(here)
        return held

    file.seek(0)
    second = InertMachine(names, budget, Storages(budget, content).resolve)
    return [second.run(stream) for _ in range(4)][3]


def load_storage(arguments: tuple[Any, ...], budget: Budget) -> Storage:
    """(bytes,): the storage in what torch nests in a pickle. The original function would load it with all rights."""
    content = arguments[0] if len(arguments) == 1 else None
    if not isinstance(content, bytes):
        raise ModelFileError("a storage in it has no bytes")
    budget.spend_bytes("nested files", len(content))
    storage = read_old_torch(io.BytesIO(content), len(content), budget, STORAGE_NAMES)
    if not isinstance(storage, Storage):
        raise ModelFileError("the nested file of a storage holds something else")
    return storage


def rebuild_tensor(arguments: tuple[Any, ...], budget: Budget) -> torch.Tensor:
    """(storage, offset, size, stride, ...): a view of the storage, dense and inside it.

    It is charged although it takes no memory yet: of a network each becomes a tensor of its own.
    """
    if len(arguments) < 4 or not isinstance(arguments[0], Storage):
        raise ModelFileError("a tensor in it has no storage")
    values = arguments[0].values
    size, stride = _whole_numbers(arguments[2], "a tensor's size"), _whole_numbers(arguments[3], "a tensor's stride")
    (offset,) = _whole_numbers((arguments[1],), "a tensor's offset")
    count = math.prod(size)
    if len(size) != len(stride) or offset + count > len(values):
        raise ModelFileError(
            f"a tensor in it claims {plain(count)} numbers from number {plain(offset)} on, where its storage has "
            f"{len(values):,}"
        )
    expected = 1  # dense in some order of its axes: no number is used twice, none is skipped
    for step, length in sorted((step, length) for step, length in zip(stride, size, strict=True) if length > 1):
        if step != expected:
            raise ModelFileError(
                "a tensor in it uses numbers twice, or skips some: its strides are not those of a whole"
            )
        expected *= length
    if count == 0:
        raise ModelFileError("a tensor in it is empty")
    budget.spend_bytes("tensors", count * values.element_size())
    return values[offset : offset + count].as_strided(size, [min(step, count) for step in stride])


def rebuild_parameter(arguments: tuple[Any, ...]) -> torch.Tensor:
    """(tensor, whether it is trained, hooks)."""
    if not arguments or not isinstance(arguments[0], torch.Tensor):
        raise ModelFileError("a parameter in it is no tensor")
    return arguments[0]


# ---- the rest of the list


def make_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """An empty dict: items follow."""
    if arguments and not (len(arguments) == 1 and isinstance(arguments[0], list) and not arguments[0]):
        raise ModelFileError("a dict in it is made of arguments, which no model file does")
    return {}


def make_set(arguments: tuple[Any, ...], budget: Budget) -> set[Any]:
    """([key, ...],), as protocols before 4 write a set. Each key is a step: a list may become many sets."""
    keys = arguments[0] if len(arguments) == 1 else []
    if len(arguments) > 1 or not isinstance(keys, list):
        raise ModelFileError("a set in it is made of something other than a list")
    budget.spend_steps(len(keys))
    if not all(map(is_key, keys)):
        raise ModelFileError("its pickle has a set of something other than words and numbers")
    return set(keys)


def encode_text(arguments: tuple[Any, ...], budget: Budget) -> bytes:
    """(text, "latin1"), as protocol 2 writes bytes."""
    text, encoding = arguments if len(arguments) == 2 else (None, None)
    if not isinstance(text, str) or encoding != "latin1":
        raise ModelFileError("bytes in it are written in a way that no model file needs")
    budget.spend_bytes("bytes", len(text))
    return text.encode("latin1")


def make_record(arguments: tuple[Any, ...]) -> Record:
    """A persistent object, of ({"type", "version", "module_src", "class_name", "state"},). Its source is dropped."""
    meta = arguments[0] if len(arguments) == 1 else None
    if not isinstance(meta, dict) or meta.get("type") != "class" or not isinstance(meta.get("class_name"), str):
        raise ModelFileError("a persistent object in it does not say of which class it is")
    source = meta.get("module_src")
    return Record(
        plain(meta["class_name"]),
        persistent=True,
        source_length=len(source) if isinstance(source, str) else 0,
        state=meta.get("state"),
    )


def make_namespace(arguments: tuple[Any, ...]) -> Record:
    """argparse's options, as rosinality's training saves them."""
    return Record("argparse.Namespace", arguments=arguments)


def make_numpy_type(arguments: tuple[Any, ...]) -> NumpyType:
    """(code, align, copy)."""
    code = arguments[0] if arguments else None
    if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?[biufc]\d{1,2}", code):
        raise ModelFileError(
            f"it holds numpy values of the type {plain(code)}: only numbers are read, as objects could be anything"
        )
    return NumpyType(code)


def make_numpy_scalar(arguments: tuple[Any, ...]) -> int | float | complex | bool:
    """(type, bytes)."""
    kind, content = arguments if len(arguments) == 2 else (None, None)
    if not isinstance(kind, NumpyType) or not isinstance(content, bytes) or len(content) != kind.dtype.itemsize:
        raise ModelFileError("a numpy number in it has no type, or other bytes than its type says")
    value: int | float | complex | bool = np.frombuffer(content, kind.dtype)[0].item()
    return value


def make_numpy_array(arguments: tuple[Any, ...]) -> NumpyArray:
    """An empty array: its content follows as a state."""
    return NumpyArray()


def published_names(budget: Budget) -> Mapping[str, Handler | None]:
    """The list for `.pkl` files of StyleGAN2-ADA and StyleGAN3: what each name is worth."""
    return {
        "__builtin__.set": partial(make_set, budget=budget),
        "_codecs.encode": partial(encode_text, budget=budget),
        "builtins.set": partial(make_set, budget=budget),
        "collections.OrderedDict": make_dict,
        "dnnlib.util.EasyDict": make_dict,
        "numpy.dtype": make_numpy_type,
        "numpy.ndarray": None,
        **{
            f"numpy.{core}.multiarray.{name}": make
            for core in ("core", "_core")
            for name, make in (("scalar", make_numpy_scalar), ("_reconstruct", make_numpy_array))
        },
        "torch._utils._rebuild_tensor_v2": partial(rebuild_tensor, budget=budget),
        "torch._utils._rebuild_parameter": rebuild_parameter,
        "torch.storage._load_from_bytes": partial(load_storage, budget=budget),
        "torch_utils.persistence._reconstruct_persistent_obj": make_record,
    }


def state_dict_names(budget: Budget) -> Mapping[str, Handler | None]:
    """The list for `.pt` files: tensors by name, and the options of the training beside them."""
    return {
        "collections.OrderedDict": make_dict,
        "torch._utils._rebuild_tensor_v2": partial(rebuild_tensor, budget=budget),
        "torch._utils._rebuild_parameter": rebuild_parameter,
        "argparse.Namespace": make_namespace,
        **STORAGE_NAMES,
    }
