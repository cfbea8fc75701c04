"""The networks of a published snapshot as tensors by dotted names, and what the file says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor

from models.interchange.inert_pickle import ModelFileError, Record, plain

NETWORKS = ("G_ema", "G", "D")  # of a snapshot; the first two are generators
MAX_MODULES = 10_000  # of a network; StyleGAN2 for 1024 px has about 100
MAX_DEPTH = 32  # of modules in modules
MAX_ENTRIES = 100_000  # of a network's modules: tensors, modules and what is none; StyleGAN2 has about 500
MAX_ARGUMENTS = 200  # that a network says it was made with, and of each group of them
SHOWN = 6  # names in a message


@dataclass(frozen=True)
class PublishedNetwork:
    """One network of a file."""

    name: str  # "G_ema", "G" or "D"
    record: Record
    tensors: dict[str, Tensor]  # parameters and buffers by dotted names
    modules: dict[str, Record]  # by dotted names; "" is the whole

    def shape(self, name: str, *sizes: int | None) -> tuple[int, ...]:
        """The shape of a tensor; ModelFileError unless it is there and has these sizes, None being any."""
        tensor = self.tensors.get(name)
        if tensor is None:
            raise ModelFileError(f"{self.name} lacks {name}")
        found = tuple(tensor.shape)
        if len(found) != len(sizes) or any(size not in (None, n) for size, n in zip(sizes, found, strict=True)):
            wanted = " x ".join("any" if size is None else str(size) for size in sizes)
            raise ModelFileError(f"{self.name}: {name} has the shape {found}, where {wanted} is needed")
        return found

    def said(self, setting: str) -> dict[str, Any]:
        """What the modules say of one of their settings, by module; those that say nothing are left out."""
        states = {path: record.state for path, record in self.modules.items() if isinstance(record.state, dict)}
        return {path: state[setting] for path, state in states.items() if setting in state}

    def arguments(self, positions: tuple[str, ...]) -> dict[str, Any]:
        """What the network was made with, by name; nested `..._kwargs` are taken apart.

        positions: names of arguments given without one. Raises ModelFileError if it cannot be read.
        """
        state = self.record.state if isinstance(self.record.state, dict) else {}
        given, named = state.get("_init_args", ()), state.get("_init_kwargs", {})
        readable = isinstance(given, tuple | list) and isinstance(named, dict)
        if not readable or len(given) > len(positions) or len(named) > MAX_ARGUMENTS:
            raise ModelFileError(f"the arguments that {self.name} was made with cannot be read")
        flat: dict[str, Any] = dict(zip(positions, given, strict=False))
        for key, value in named.items():
            group = value if plain(key).endswith("_kwargs") and isinstance(value, dict) else {key: value}
            if len(group) > MAX_ARGUMENTS:
                raise ModelFileError(f"the arguments {plain(key)} of {self.name} are more than {MAX_ARGUMENTS}")
            flat |= group
        return flat


def find_networks(content: Any) -> dict[str, PublishedNetwork]:
    """The networks of a snapshot by name, G_ema first; ModelFileError unless they are StyleGAN2's."""
    if not isinstance(content, dict):
        raise ModelFileError("it holds no networks by the names G_ema, G and D")
    records = {name: content[name] for name in NETWORKS if isinstance(content.get(name), Record)}
    if not set(records) - {"D"}:
        held = ", ".join(sorted(plain(key) for key in content)[:SHOWN]) or "nothing"
        raise ModelFileError(f"it holds no generator by the name G_ema or G, but {held}")
    for name, record in records.items():
        _require_stylegan2(name, record)
    return {name: read_network(name, record) for name, record in records.items()}


def _require_stylegan2(name: str, record: Record) -> None:
    parts = dict(children(record))
    inner = dict(children(parts["synthesis"])) if "synthesis" in parts else {}
    if "SynthesisInput" in {child.name for child in inner.values()}:
        raise ModelFileError(
            "this is a StyleGAN3 generator (a SynthesisNetwork with SynthesisInput): only StyleGAN2 ones can be "
            "imported, which the same repository trains as its stylegan2 configuration"
        )
    known = "b4" in parts if name == "D" else "mapping" in parts and "b4" in inner
    if not known or record.name != ("Discriminator" if name == "D" else "Generator"):
        shown = ", ".join(f"{plain(key)}: {plain(child.name)}" for key, child in list(parts.items())[:SHOWN])
        raise ModelFileError(
            f"{name} is a {plain(record.name)} made of {shown or 'nothing'}, not StyleGAN2's: only that can be imported"
        )


def children(record: Record) -> Iterator[tuple[str, Record]]:
    """The modules in a module, by their names there."""
    modules = record.state.get("_modules") if isinstance(record.state, dict) else None
    for key, child in modules.items() if isinstance(modules, dict) else ():
        if isinstance(key, str) and isinstance(child, Record):
            yield key, child


def read_network(name: str, record: Record) -> PublishedNetwork:
    """All that a network holds. Raises ModelFileError for what is no tensor, for one that it holds twice, and for more
    modules or entries than any network has: those of a crafted file may hold themselves, or share what they hold.
    """
    network = PublishedNetwork(name, record, {}, {})
    waiting, entries = [("", record, 0)], 0
    seen: set[int] = set()
    while waiting:
        path, module, depth = waiting.pop()
        network.modules[path] = module
        entries += _count_entries(module)
        if len(network.modules) > MAX_MODULES or depth > MAX_DEPTH:
            raise ModelFileError(f"{name} has more than {MAX_MODULES:,} modules, or {MAX_DEPTH} one in another")
        if entries > MAX_ENTRIES:
            raise ModelFileError(f"the modules of {name} hold more than {MAX_ENTRIES:,} entries")
        start = f"{path}." if path else ""
        for key, value in _held(module):
            if not isinstance(value, Tensor):
                raise ModelFileError(f"{name}: {start}{plain(key)} is no tensor")
            if id(value) in seen:
                raise ModelFileError(f"{name} holds a tensor under several names, one of them {start}{plain(key)}")
            seen.add(id(value))
            network.tensors[f"{start}{plain(key)}"] = value
        waiting += [(f"{start}{plain(key)}", child, depth + 1) for key, child in children(module)]
        if len(waiting) > MAX_MODULES:
            raise ModelFileError(f"{name} has more than {MAX_MODULES:,} modules")
    _require_own_memory(network)
    return network


def _count_entries(module: Record) -> int:
    state = module.state if isinstance(module.state, dict) else {}
    held = (state.get(kind) for kind in ("_parameters", "_buffers", "_modules"))
    return sum(len(entries) for entries in held if isinstance(entries, dict))


def _require_own_memory(network: PublishedNetwork) -> None:
    """Raise ModelFileError for two tensors made of the same numbers: ours would be trained as two."""
    places = sorted((tensor.data_ptr(), tensor.nbytes, name) for name, tensor in network.tensors.items())
    for (start, size, name), (following, _, other) in pairwise(places):
        if following < start + size:
            raise ModelFileError(f"{network.name} holds a tensor under several names: {name} and {other}")


def _held(module: Record) -> Iterator[tuple[Any, Any]]:
    """A module's own parameters and buffers; what is none is left out."""
    for kind in ("_parameters", "_buffers"):
        held = module.state.get(kind) if isinstance(module.state, dict) else None
        for key, value in held.items() if isinstance(held, dict) else ():
            if value is not None:
                yield key, value


def read_training_set(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a snapshot says of its pictures, as far as it is words and numbers. Nobody has checked it."""
    said = content.get("training_set_kwargs")
    kept: dict[str, Any] = {}
    for key, value in said.items() if isinstance(said, dict) else ():
        if isinstance(value, str):
            kept[plain(key)] = plain(value)
        elif value is None or (isinstance(value, int | float) and abs(value) < 2**53):  # finite, and JSON's
            kept[plain(key)] = value
    return kept
