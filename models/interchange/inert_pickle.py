"""Pickles of strangers as data: read step by step, with nothing in them ever imported, called or run.

A pickle is a small program: its opcodes name functions and call them. Here its opcodes are executed by a machine of our
own that only builds plain containers. A name stays a string. A call of one of the few names that a model file needs
(collections, tensors, the published networks' persistent objects: `inert_values.py`) gives tensors and inert
records; a call of any other name gives an inert record as well, and the name is noted as refused. Source text that a
file brings along (`module_src`) is measured and dropped.

Everything that a file claims is checked against what it has, and limited: opcodes, values on the stack, nesting, sizes.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal

MAX_OPCODES = 2_000_000  # of a file, nested pickles included; a 256 px snapshot of G, D and G_ema has 22,000 and those
MAX_STACK = 20_000  # values that wait to be put somewhere; dicts are filled by the thousand
MAX_NESTING = 200  # containers in containers; four per level of modules
MAX_LINE = 1 << 16  # bytes of an argument that is a line of text
MAX_NAME = 200  # characters of a module, and of a name in it
MAX_REFUSED = 100  # names that are not on the list: nobody needs to read more of them
SHOWN = 120  # characters of a stranger's text in a message

DAMAGED = (  # whatever a crafted or cut-off pickle makes the tokeniser raise
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    EOFError,
    MemoryError,
    struct.error,
)


class ModelFileError(ValueError):
    """A model file that cannot be used; the message says why and what to do. Nothing in the file was run."""


class BoundedReader:
    """A file that is never asked for more bytes than it has, whatever a length in it claims."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size

    def read(self, count: int, /) -> bytes:
        return self._file.read(min(count, max(self._size - self._file.tell(), 0)))

    def readline(self) -> bytes:
        return self._file.readline(MAX_LINE)


@dataclass(frozen=True)
class Name:
    """What a pickle asks for: a module and something in it, as text."""

    text: str  # such as "collections.OrderedDict"


@dataclass(eq=False)
class Record:
    """An object that a pickle describes, as data."""

    name: str  # of its class; of a persistent object the bare class name, such as "SynthesisLayer"
    persistent: bool = False  # whether it brought its source text along, as the published networks do
    source_length: int = 0  # characters of that text, which was dropped
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)  # of a container: values, or (key, value)


Handler = Callable[[tuple[Any, ...]], Any]


def plain(value: object) -> str:
    """A stranger's value, fit to be shown: no control characters, not long; of a container only what it is."""
    if isinstance(value, int) and value.bit_length() > 256:
        return "a huge number"
    if not isinstance(value, str | int | float | None):  # lists that hold each other have texts without end
        return f"a {type(value).__name__}"
    shown = str(value)[: SHOWN + 1].encode("unicode_escape").decode("ascii")
    return shown if len(shown) <= SHOWN else shown[:SHOWN] + "…"


def is_key(value: object) -> bool:
    """Whether a value may be a key or in a set: the hash of a nested one could take for ever, large numbers can be
    chosen to share theirs."""
    return isinstance(value, str | float | None) or (isinstance(value, int) and value.bit_length() < 64)


Bytes = Literal["bytes", "nested files", "storages", "tensors"]


class Budget:
    """What is left of a file's steps and bytes, its nested pickles included; and the names that it asked for."""

    def __init__(self, size: int) -> None:
        self.steps = 0
        self.asked: dict[str, bool] = {}  # name -> whether it is on the list, in the order of asking
        self._size = size
        self._bytes: dict[Bytes, int] = {}  # of each kind so far
        self._refused = 0

    def spend_steps(self, count: int) -> None:
        """Raises ModelFileError when there were too many."""
        self.steps += count
        if self.steps > MAX_OPCODES:
            raise ModelFileError(f"its pickle has more than {MAX_OPCODES:,} steps, and no model file needs so many")

    def spend_bytes(self, kind: Bytes, count: int) -> None:
        """Raises ModelFileError when all of a kind take more than the file has: it uses the same bytes repeatedly."""
        self._bytes[kind] = self._bytes.get(kind, 0) + count
        if self._bytes[kind] > self._size:
            raise ModelFileError(f"its {kind} would take more bytes than the file has")

    def ask(self, name: str, allowed: bool) -> None:
        """Note a name. Raises ModelFileError after MAX_REFUSED that are not on the list."""
        if name not in self.asked:
            self.asked[name] = allowed
            self._refused += not allowed
            if self._refused >= MAX_REFUSED:
                raise ModelFileError(f"it asks for {MAX_REFUSED} names or more that no model file may use")


class InertMachine:
    """Executes the opcodes of pickles, building plain values and records.

    names: what may be called, and what makes a value of the arguments; all else gives a Record and is noted.
    """

    def __init__(
        self,
        names: Mapping[str, Handler | None],  # None: may be named, not called
        budget: Budget,
        persistent: Callable[[Any], Any] | None = None,  # value of a persistent id; None: there may be none
    ) -> None:
        self._names = names
        self._budget = budget
        self._persistent = persistent
        self._stack: list[Any] = []
        self._marks: list[int] = []  # where in the stack each open mark stands
        self._memo: dict[int, Any] = {}
        self._nesting: dict[int, int] = {}  # id of a container -> containers in it, one in another
        self._containers: list[Any] = []  # kept alive, so that an id stays that of one container

    def run(self, stream: BoundedReader | BinaryIO) -> Any:
        """The value of the pickle that begins here; the stream then stands behind it.

        Raises ModelFileError for a damaged one, or one beyond the limits.
        """
        self._stack, self._marks, self._memo = [], [], {}
        try:
            for opcode, argument, _ in pickletools.genops(stream):  # type: ignore[arg-type]
                self._budget.spend_steps(1)
                if opcode.name == "STOP":
                    break
                step = _STEPS.get(opcode.name)
                if step is None:
                    raise ModelFileError(f"its pickle uses the opcode {opcode.name}, which no model file needs")
                step(self, argument)
                if len(self._stack) > MAX_STACK or len(self._marks) > MAX_NESTING:
                    raise ModelFileError(
                        f"its pickle is nested too deeply, or has more than {MAX_STACK:,} values in one place"
                    )
            return self._pop()
        except ModelFileError:
            raise
        except DAMAGED as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelFileError(f"its pickle is damaged or cut off ({plain(first)})") from error

    # ---- the stack

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise ValueError("a value is missing")
        return self._stack.pop()

    def _top(self) -> Any:
        value = self._pop()
        self._push(value)
        return value

    def _pop_to_mark(self) -> list[Any]:
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _remember(self, number: int) -> None:
        if number < 0 or number > MAX_OPCODES:
            raise ValueError("a value is numbered beyond reason")
        self._memo[number] = self._top()

    def _hold(self, container: Any, items: list[Any]) -> Any:
        """Note that a container holds items; refuse nesting that something might follow down to the end of a stack."""
        below = max((self._nesting.get(id(item), 0) for item in items), default=0)
        return self._note_depth(container, below + 1)

    def _note_depth(self, container: Any, depth: int) -> Any:
        """Note how many containers a container is, one in another."""
        depth = max(depth, self._nesting.get(id(container), 1))
        if depth > MAX_NESTING:
            raise ModelFileError(f"its pickle is nested deeper than {MAX_NESTING} containers")
        if id(container) not in self._nesting:
            self._containers.append(container)
        self._nesting[id(container)] = depth
        return container

    # ---- containers

    def _push_tuple(self, values: list[Any]) -> None:
        self._push(self._hold(tuple(values), values) if values else ())

    def _extend(self, values: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, list | Record):
            raise ValueError("a value is appended to what is no list")
        (target if isinstance(target, list) else target.items).extend(values)
        self._hold(target, values)

    def _set_items(self, values: list[Any]) -> None:
        target = self._top()
        if len(values) % 2 or not isinstance(target, dict | Record):
            raise ValueError("items are put into what is no dict")
        keys = values[::2]
        for key in keys:
            if not is_key(key):
                raise ModelFileError(f"its pickle has a dict with a {type(key).__name__} for a key")
        if isinstance(target, dict):
            target.update(zip(keys, values[1::2], strict=True))
        else:
            target.items.extend(zip(keys, values[1::2], strict=True))
        self._hold(target, values)

    def _push_dict(self, values: list[Any]) -> None:
        self._push({})
        self._set_items(values)

    def _push_set(self, values: list[Any]) -> None:
        if not all(map(is_key, values)):
            raise ModelFileError("its pickle has a set of something other than words and numbers")
        self._push(set(values))

    def _add_items(self, values: list[Any]) -> None:
        target = self._pop()
        if not isinstance(target, set):
            raise ValueError("items are added to what is no set")
        self._push_set(values)
        target.update(self._pop())
        self._push(target)

    # ---- names and calls

    def _push_name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name is no text")
        if len(module) > MAX_NAME or len(name) > MAX_NAME:
            raise ModelFileError(f"it asks for a name of more than {MAX_NAME} characters, which no model file needs")
        text = f"{module}.{name}"
        self._budget.ask(text, text in self._names)
        self._push(Name(text))

    def _call(self, target: Any, arguments: Any, named: Any = None) -> None:
        if not isinstance(arguments, tuple):
            raise ValueError("arguments are no tuple")
        handler = self._names.get(target.text) if isinstance(target, Name) else None
        if handler is not None and not named:
            value = handler(arguments)
        elif isinstance(target, Name | Record):
            value = Record(target.text if isinstance(target, Name) else target.name, arguments=arguments)
        else:
            raise ValueError("something is called that has no name")
        if isinstance(value, Record):  # as deep as its arguments, which may be many and used many times
            self._note_depth(value, self._nesting.get(id(arguments), 1))
        self._push(value)

    def _build(self, state: Any) -> None:
        target = self._top()
        if isinstance(target, Record):
            target.state = state
            self._hold(target, [state])
        elif hasattr(target, "set_inert_state"):
            target.set_inert_state(state)
        elif state and not (isinstance(target, dict) and isinstance(state, dict)):
            raise ValueError(f"a {type(target).__name__} is given a state")
        # else dropped: the attributes of a dict, such as the `_metadata` of a module's state dict

    def _resolve(self, identity: Any) -> None:
        if self._persistent is None:
            raise ModelFileError("its pickle refers to something outside itself")
        self._push(self._persistent(identity))


def _pop_some(machine: InertMachine, count: int) -> list[Any]:
    return [machine._pop() for _ in range(count)][::-1]


def _push_list(machine: InertMachine, _: Any) -> None:
    values = machine._pop_to_mark()
    machine._push([])
    machine._extend(values)


def _call_marked(machine: InertMachine, _: Any) -> None:
    target, *arguments = machine._pop_to_mark()
    machine._push_tuple(arguments)
    machine._call(target, machine._pop())


def _call_named(machine: InertMachine, pair: str) -> None:
    machine._push_tuple(machine._pop_to_mark())
    arguments = machine._pop()
    machine._push_name(*pair.split(" ", 1))
    machine._call(machine._pop(), arguments)


def _reduce(machine: InertMachine, _: Any) -> None:
    target, arguments = _pop_some(machine, 2)
    machine._call(target, arguments)


def _new_with_names(machine: InertMachine, _: Any) -> None:
    target, arguments, named = _pop_some(machine, 3)
    machine._call(target, arguments, named)


Step = Callable[[InertMachine, Any], object]  # of an opcode's argument, None where it has none

_PUSHED = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
)
_STEPS: Mapping[str, Step] = {
    "PROTO": lambda machine, number: None,
    "FRAME": lambda machine, length: None,
    "MARK": lambda machine, _: machine._marks.append(len(machine._stack)),
    "POP": lambda machine, _: machine._pop(),
    "POP_MARK": lambda machine, _: machine._pop_to_mark(),
    "DUP": lambda machine, _: machine._push(machine._top()),
    "NONE": lambda machine, _: machine._push(None),
    "NEWTRUE": lambda machine, _: machine._push(True),
    "NEWFALSE": lambda machine, _: machine._push(False),
    **dict.fromkeys(_PUSHED, InertMachine._push),
    "EMPTY_TUPLE": lambda machine, _: machine._push(()),
    "TUPLE": lambda machine, _: machine._push_tuple(machine._pop_to_mark()),
    "TUPLE1": lambda machine, _: machine._push_tuple(_pop_some(machine, 1)),
    "TUPLE2": lambda machine, _: machine._push_tuple(_pop_some(machine, 2)),
    "TUPLE3": lambda machine, _: machine._push_tuple(_pop_some(machine, 3)),
    "EMPTY_LIST": lambda machine, _: machine._push([]),
    "LIST": _push_list,
    "APPEND": lambda machine, _: machine._extend(_pop_some(machine, 1)),
    "APPENDS": lambda machine, _: machine._extend(machine._pop_to_mark()),
    "EMPTY_DICT": lambda machine, _: machine._push({}),
    "DICT": lambda machine, _: machine._push_dict(machine._pop_to_mark()),
    "SETITEM": lambda machine, _: machine._set_items(_pop_some(machine, 2)),
    "SETITEMS": lambda machine, _: machine._set_items(machine._pop_to_mark()),
    "EMPTY_SET": lambda machine, _: machine._push(set()),
    "FROZENSET": lambda machine, _: machine._push_set(machine._pop_to_mark()),
    "ADDITEMS": lambda machine, _: machine._add_items(machine._pop_to_mark()),
    "MEMOIZE": lambda machine, _: machine._remember(len(machine._memo)),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), InertMachine._remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, number: machine._push(machine._memo[number])),
    "GLOBAL": lambda machine, pair: machine._push_name(*pair.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine._push_name(*_pop_some(machine, 2)),
    "INST": _call_named,
    "OBJ": _call_marked,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _new_with_names,
    "BUILD": lambda machine, _: machine._build(machine._pop()),
    "BINPERSID": lambda machine, _: machine._resolve(machine._pop()),
}
