"""Which pictures are enlarged into which files: places that do not touch, and names that do not meet."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from itertools import chain, count
from pathlib import Path

from datasets.errors import SourceError
from datasets.pictures import SUFFIX_FORMATS
from datasets.sources.files import list_files, readable_name


def check_apart(source: Path, out: Path) -> None:
    """Raises SourceError unless neither folder lies in the other: no result may replace a source, or become one."""
    if not source.is_dir():
        raise SourceError(f"the folder {source} does not exist: name a folder of pictures, or one picture")
    if out.exists() and not out.is_dir():
        raise SourceError(f"{out} is a file, but the results of a folder need a folder: name another one")
    inner, outer = out.resolve(), source.resolve()
    if inner == outer or inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise SourceError(
            f"{out} and {source} lie in each other: results could replace sources. Name a folder beside {source}"
        )


def list_pictures(source: Path) -> tuple[list[str], list[str]]:
    """The picture files below a folder, and links that leave it: sorted, relative to it. SourceError without any."""
    found = list_files(source, suffixes=SUFFIX_FORMATS.keys())
    if not found.names:
        raise SourceError(f"no pictures ({', '.join(sorted(SUFFIX_FORMATS))}) below {source}")
    return sorted(name for name in found.names if name not in found.outside), sorted(found.outside)


def choose_outputs(names: Iterable[str], suffix: str) -> dict[str, str]:
    """Where each picture's result goes, relative to the output folder; no two go to one place.

    The suffix is replaced. Where that makes names meet (a.jpg and a.png, both to a.png) the picture that has the wanted
    suffix keeps its name, else the first one; others keep their whole name (a.jpg.png). Names that differ only in case
    or in how accents are written count as one: on some disks they are. Depends on the set of names alone.
    """
    ordered = sorted(names)
    taken = {_as_one(folder) for name in ordered for folder in _folders_of(name)}
    chosen: dict[str, str] = {}
    for name in sorted(ordered, key=lambda name: _stem(name) + suffix != name):  # first those that keep their names
        numbered = (f"{name}-{number}{suffix}" for number in count(2))
        candidates = chain([_stem(name) + suffix, name + suffix], numbered)
        chosen[name] = next(candidate for candidate in candidates if _as_one(candidate) not in taken)
        taken.add(_as_one(chosen[name]))
    return {name: chosen[name] for name in ordered}


def _stem(name: str) -> str:
    """The path of a file without its suffix."""
    return name.rpartition(".")[0]


def _folders_of(name: str) -> Iterator[str]:
    """The folders above a file."""
    at = name.find("/")
    while at >= 0:
        yield name[:at]
        at = name.find("/", at + 1)


def _as_one(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def printable_name(name: str) -> str:
    """A file's name for a terminal: no bytes that are no text, no line breaks, no control characters."""
    text = readable_name(name)
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
