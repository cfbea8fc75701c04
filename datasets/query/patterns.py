r"""Tag patterns: a tag, or a part of one with `*` for any run of characters.

`blue_*` begins so, `*_hair` ends so, `*school*` holds it, `*_of_*_hair` has the parts in this order. `*` also stands
for nothing: `*hat` covers `hat`. Upper and lower case differ. `\*` is a star and `\\` a backslash; any other backslash
is itself, so that `\m/` needs no care. `?`, `[` and the like are letters as any: there are tags such as `!?`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import pyarrow as pa
import pyarrow.compute as pc

_PIECES = re.compile(r"\\[\\*]|\*+|[^\\*]+|\\")
_LONGEST = 500
# What one look at one string costs, as measured beside each other; only their order of size matters.
EXACT_COST, AFFIX_COST, INSIDE_COST, ORDERED_COST = 0, 6, 60, 100


@dataclass(frozen=True)
class TagPattern:
    """One pattern as a recipe says it.

    Attributes:
        parts: the text between the stars, unescaped: one part is the tag itself, ("blue_", "") begins with it.
    """

    text: str
    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> TagPattern:
        """Read a pattern. Raises ValueError for one that is empty, or that has blanks around it."""
        if not text or text != text.strip():
            raise ValueError(f"{text!r} is no tag: it is empty or has blanks around it")
        if len(text) > _LONGEST:
            raise ValueError(f"{text[:40]!r}… is no tag: it has more than {_LONGEST} letters")
        parts = [""]
        for piece in _PIECES.findall(text):
            if piece.startswith("*"):
                parts.append("")
            else:
                parts[-1] += piece[1] if piece in ("\\\\", "\\*") else piece
        return cls(text, tuple(parts))

    @property
    def exact(self) -> str | None:
        """The one tag that this is, when it has no wildcard."""
        return self.parts[0] if len(self.parts) == 1 else None

    @property
    def cost(self) -> int:
        """About how many nanoseconds it takes to look at one string."""
        if len(self.parts) == 1:
            return EXACT_COST
        inner = sum(map(bool, self.parts[1:-1]))
        if inner == 0:
            return AFFIX_COST * (bool(self.parts[0]) + bool(self.parts[-1]))
        return INSIDE_COST if inner == 1 and not self.parts[0] and not self.parts[-1] else ORDERED_COST

    @cached_property
    def expression(self) -> str:
        """The pattern as a regular expression for a whole tag; every letter of it is escaped."""
        return "(?s)^" + ".*".join(_escape(part) for part in self.parts) + "$"

    def covers(self, tag: str) -> bool:
        """Whether one tag matches."""
        return self._compiled.match(tag) is not None if self.exact is None else tag == self.exact

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.expression.removesuffix("$") + r"\Z")

    def match(self, tags: pa.Array) -> pa.BooleanArray:
        """Which of many tags match: string (N,) -> bool (N,), null where the tag is null."""
        first, last = self.parts[0], self.parts[-1]
        if len(self.parts) == 1:
            return pc.equal(tags, first)
        inner = [part for part in self.parts[1:-1] if part]
        if inner:
            if len(inner) == 1 and not first and not last:
                return pc.match_substring(tags, inner[0])
            return pc.match_substring_regex(tags, self.expression)
        found = pc.starts_with(tags, first)
        if last:
            found = pc.and_(found, pc.ends_with(tags, last)) if first else pc.ends_with(tags, last)
        if first and last:  # `a*a` is not `a`: the two ends may not share a letter
            found = pc.and_(found, pc.greater_equal(pc.binary_length(tags), len((first + last).encode())))
        return found


def covers_tag(patterns: Iterable[str], tags: Iterable[str]) -> bool:
    """Whether any of the patterns covers any of a post's tags."""
    known = set(tags)
    return any(
        pattern.exact in known if pattern.exact is not None else any(pattern.covers(tag) for tag in known)
        for pattern in map(_parse_known, patterns)
    )


@lru_cache(4096)
def _parse_known(text: str) -> TagPattern:
    return TagPattern.parse(text)


def _escape(text: str) -> str:
    """Literal text for both Python's expressions and RE2's."""
    return "".join(
        letter if letter.isalnum() or letter == "_" or ord(letter) > 127 else f"\\{letter}" for letter in text
    )
