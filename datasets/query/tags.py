"""Questions about the tags of many posts, answered without an object per tag.

Where tags come as a dictionary column (list<dictionary<int32, string>>) each distinct tag is looked at once, and a post
is a look-up of its codes. Plain strings (list<string>) are looked at one by one, by the cheapest test that a pattern
allows; with many costly patterns they are given a dictionary first. Both give the same answers. Work is cut into
pieces of 64,000 posts and shared by all cores, so memory beyond the table stays bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.query.patterns import TagPattern

MAX_ALL = 60  # patterns of `all`: one bit each, in 64
_PIECE = 65_536  # posts that are looked at together
_CODED_PIECE = 16_384  # the same of posts whose tags have codes: these fit into a processor's cache
_FEW = 0.6  # of a piece's posts
_DICTIONARY_COST = 130  # nanoseconds to give one string its code, as measured beside the patterns' costs
_NOTHING = np.uint16(0xFFFF)
Done = TypeVar("Done")


@dataclass(frozen=True)
class TagQuestions:
    """What is asked of each post: all of these, any of these, none of these. Empty asks nothing."""

    every: tuple[TagPattern, ...] = ()
    some: tuple[TagPattern, ...] = ()
    none: tuple[TagPattern, ...] = ()

    def __post_init__(self) -> None:
        if len(self.every) > MAX_ALL or len(self.none) >= _NOTHING:
            raise ValueError(f"at most {MAX_ALL} tags can be asked for at once, and {_NOTHING - 1} kept out")

    @property
    def patterns(self) -> tuple[TagPattern, ...]:
        return (*self.every, *self.some, *self.none)


@dataclass(frozen=True)
class TagAnswers:
    """Per post, N of them.

    Attributes:
        lacking: int16 (N,): which of `every` is the first that is not there; -1 when all are.
        without: bool (N,): none of `some` is there. False when nothing was asked.
        unwanted: int32 (N,): which of `none` is the first that is there; -1 when none is.
    """

    lacking: np.ndarray
    without: np.ndarray
    unwanted: np.ndarray


def ask_tags(tags: pa.ChunkedArray, questions: TagQuestions, concerned: np.ndarray | None = None) -> TagAnswers:
    """Answer for every post.

    tags: list<string> or list<dictionary<…, string>> (N,), nulls are posts without tags. concerned: bool (N,): only
    these need an answer; the others may have any.
    """
    bits, first = np.zeros(len(tags), _bit_type(questions)), np.full(len(tags), _NOTHING, np.uint16)

    def answer(piece: _Piece) -> None:
        rows = slice(piece.start, piece.start + len(piece.lists))
        wanted = np.ones(len(piece.lists), bool) if concerned is None else concerned[rows]
        if not wanted.any():
            return
        if piece.marks is None and np.count_nonzero(wanted) < _FEW * len(wanted):
            places = np.flatnonzero(wanted)  # to copy strings costs less than to look at them
            found = _answer_piece(piece.lists.take(pa.array(places)), questions)
            bits[piece.start + places], first[piece.start + places] = found
        else:
            bits[rows], first[rows] = _answer_piece(piece.lists, questions, piece.marks)

    _share(answer, list(_cut(tags, lambda dictionary: _mark_dictionary(dictionary, questions))))
    return _read_answers(bits, first, questions)


def count_tags(tags: pa.ChunkedArray, groups: np.ndarray, group_count: int) -> tuple[pa.StringArray, np.ndarray]:
    """How many posts of each group have each tag.

    groups: int (N,), 0 to group_count - 1; -1 is counted nowhere. Returns the distinct tags in order of their text, and
    int64 (T, group_count). A tag that one post names twice counts twice.
    """

    names = [str(number) for number in range(group_count)]

    def count(piece: _Piece) -> pa.Table:
        start, lists = piece.start, piece.lists
        offsets, values = _open(lists)
        lengths = np.where(pc.is_valid(lists).to_numpy(zero_copy_only=False), np.diff(offsets), 0)
        coded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
        codes = _codes(coded)
        of_post = np.repeat(groups[start : start + len(lists)], np.diff(offsets))
        counted = np.repeat(lengths > 0, np.diff(offsets)) & (of_post >= 0) & (codes >= 0)
        distinct = len(coded.dictionary)
        cells = np.bincount(
            codes[counted].astype(np.int64) * group_count + of_post[counted], minlength=distinct * group_count
        )
        cells = cells.reshape(distinct, group_count)
        there = np.flatnonzero(cells.any(axis=1))
        named = coded.dictionary.take(pa.array(there)).cast(pa.string())
        return pa.table([named, *cells[there].T], names=["tag", *names])

    empty = pa.table({"tag": pa.array([], pa.string()), **{name: pa.array([], pa.int64()) for name in names}})
    found = pa.concat_tables([empty, *_share(count, list(_cut(tags)))])
    summed = found.group_by("tag").aggregate([(name, "sum") for name in names]).sort_by("tag")
    figures = [summed[f"{name}_sum"].to_numpy() for name in names]
    counts = np.stack(figures, axis=1) if len(summed) else np.zeros((0, group_count), np.int64)
    return summed["tag"].combine_chunks(), counts.astype(np.int64)


@dataclass(frozen=True)
class _Marks:
    """What the questions say of each distinct tag, or of each value: (T,), (T,). None where nothing was asked."""

    bits: np.ndarray | None
    first: np.ndarray | None


@dataclass(frozen=True)
class _Piece:
    """Some thousands of posts: the place of the first, their tags, and the marks of the dictionary if they have one."""

    start: int
    lists: pa.Array
    marks: _Marks | None


def _share(work: Callable[[_Piece], Done], pieces: Sequence[_Piece]) -> list[Done]:
    """Do the pieces on all cores; results in order."""
    if len(pieces) < 2:
        return [work(piece) for piece in pieces]
    with ThreadPoolExecutor(min(len(pieces), pa.cpu_count())) as pool:
        return list(pool.map(work, pieces))


def _cut(tags: pa.ChunkedArray | pa.Array, mark: Callable[[pa.Array], _Marks] | None = None) -> Iterator[_Piece]:
    """Pieces of a column. mark: of a dictionary, once for all pieces that share it."""
    place = 0
    for chunk in tags.chunks if isinstance(tags, pa.ChunkedArray) else [tags]:
        marks = None
        if mark is not None and pa.types.is_dictionary(chunk.type.value_type):
            marks = mark(chunk.values.dictionary)
        size = _PIECE if marks is None else _CODED_PIECE
        for start in range(0, len(chunk), size):
            piece = chunk.slice(start, size)
            yield _Piece(place, piece, marks)
            place += len(piece)


def _open(lists: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Offsets from 0 (N + 1,) and the values between them; slices and nulls are seen to."""
    offsets = lists.offsets.to_numpy()
    return offsets - offsets[0], lists.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))


def _codes(coded: pa.DictionaryArray) -> np.ndarray:
    """Codes of values, -1 for null."""
    codes: np.ndarray = pc.fill_null(coded.indices.cast(pa.int32()), -1).to_numpy()
    return codes


def _bit_type(questions: TagQuestions) -> np.dtype:
    count = len(questions.every) + bool(questions.some)
    return np.dtype(np.uint8 if count <= 8 else np.uint16 if count <= 16 else np.uint32 if count <= 32 else np.uint64)


def _answer_piece(
    lists: pa.Array, questions: TagQuestions, marks: _Marks | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """What the tags of each post have, as bits, and the first unwanted of them: (N,), (N,)."""
    bits, first = np.zeros(len(lists), _bit_type(questions)), np.full(len(lists), _NOTHING, np.uint16)
    offsets, values = _open(lists)
    lengths = np.diff(offsets)
    filled = (lengths > 0) & pc.is_valid(lists).to_numpy(zero_copy_only=False)
    if not filled.any():
        return bits, first
    if marks is None and sum(pattern.cost for pattern in questions.patterns) > _DICTIONARY_COST:
        values = values.dictionary_encode()
        marks = _mark_dictionary(values.dictionary, questions)
    if marks is None:
        of_values = _mark(values, questions)
    else:
        codes = _codes(values)  # -1 is the mark at the end, of no tag
        of_values = _Marks(*(None if of is None else np.take(of, codes) for of in (marks.bits, marks.first)))
    starts, shown = offsets[:-1][lengths > 0], filled[lengths > 0]  # what lies between two starts is one post's
    if of_values.bits is not None:
        bits[filled] = np.bitwise_or.reduceat(of_values.bits, starts)[shown]
    if of_values.first is not None:
        first[filled] = np.minimum.reduceat(of_values.first, starts)[shown]
    return bits, first


def _mark_dictionary(tags: pa.Array, questions: TagQuestions) -> _Marks:
    """What the questions say of each tag of a dictionary, and of no tag at the end."""
    return _mark(pa.concat_arrays([tags.cast(pa.string()), pa.nulls(1, pa.string())]), questions)


def _mark(tags: pa.Array, questions: TagQuestions) -> _Marks:
    """What the questions say of each tag. Whole tags are looked up together, wildcards are tried one by one."""
    names = sorted({pattern.exact for pattern in questions.patterns if pattern.exact is not None})
    numbers = {name: number for number, name in enumerate(names)}
    places = _find(tags, names) if names else None
    bits = _mark_bits(tags, questions, numbers, places) if questions.every or questions.some else None
    return _Marks(bits, _mark_first(tags, questions.none, numbers, places) if questions.none else None)


def _mark_bits(
    tags: pa.Array, questions: TagQuestions, numbers: dict[str, int], places: np.ndarray | None
) -> np.ndarray:
    """Which of `every` each tag is, and whether it is one of `some`, as bits."""
    kind = _bit_type(questions)
    marks = np.zeros(len(tags), kind)
    table = np.zeros(len(numbers) + 1, kind)
    asked = [(pattern, place) for place, pattern in enumerate(questions.every)]
    asked += [(pattern, len(questions.every)) for pattern in questions.some]
    for pattern, place in asked:
        bit = kind.type(1 << place)
        if pattern.exact is not None:
            table[numbers[pattern.exact]] |= bit
        else:
            marks |= _mask(pattern.match(tags)).astype(kind) * bit
    return marks if places is None else marks | table[places]


def _mark_first(
    tags: pa.Array, patterns: tuple[TagPattern, ...], numbers: dict[str, int], places: np.ndarray | None
) -> np.ndarray:
    """The place of the first pattern that each tag matches: uint16, 65535 for none."""
    marks = np.full(len(tags), _NOTHING, np.uint16)
    table = np.full(len(numbers) + 1, _NOTHING, np.uint16)
    for place, pattern in reversed(list(enumerate(patterns))):  # the first one is written last, and stays
        if pattern.exact is not None:
            table[numbers[pattern.exact]] = place
        else:
            marks[_mask(pattern.match(tags))] = place
    return marks if places is None else np.minimum(marks, table[places])


def _find(tags: pa.Array, names: list[str]) -> np.ndarray:
    """The place of each tag among names, their number where it is none of them."""
    places: np.ndarray = pc.fill_null(pc.index_in(tags, value_set=pa.array(names, tags.type)), len(names)).to_numpy()
    return places


def _mask(found: pa.BooleanArray) -> np.ndarray:
    mask: np.ndarray = pc.fill_null(found, False).to_numpy(zero_copy_only=False)
    return mask


def _read_answers(bits: np.ndarray, first: np.ndarray, questions: TagQuestions) -> TagAnswers:
    size, kind = len(bits), bits.dtype.type
    lacking = np.full(size, -1, np.int16)
    for place in reversed(range(len(questions.every))):
        lacking[(bits & kind(1 << place)) == 0] = place
    without = np.zeros(size, bool)
    if questions.some:
        without = (bits & kind(1 << len(questions.every))) == 0
    unwanted = np.where(first == _NOTHING, -1, first.astype(np.int32))
    return TagAnswers(lacking, without, unwanted.astype(np.int32))
