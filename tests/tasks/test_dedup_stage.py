"""Dedup: the best of each group stays, every dropped crop is near the one that stays for it, order is nothing."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.dedup import DedupParams, decide

BASE = 0x0123456789ABCDEF
FAR = 0xFFFF0000FFFF0000


def unrelated(*words: object) -> int:
    """64 bits that are near no others."""
    return int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:8], "big")


def crop(name: str, bits: int = BASE, **values: Any) -> dict[str, Any]:
    """A crop of its own pixels and its own post; mirrored hashes that are near nothing unless given."""
    row = {
        "crop_id": name,
        "post_id": name.split("#")[0],
        "pixel_digest": name,
        "phash_bits": bits,
        "phash_mirrored_bits": unrelated(name, bits),
        "source_hash": unrelated(name, 1),
        "source_hash_mirrored": unrelated(name, 2),
        "source_width": 100,
        "source_height": 100,
        "box_x": 0,
        "box_y": 0,
        "box_w": 50,
        "box_h": 50,
        "score": 0,
        "decision": None,
    }
    return row | values


def table(rows: list[dict[str, Any]]) -> pa.Table:
    kinds = {name: pa.uint64() for name in ("phash_bits", "phash_mirrored_bits", "source_hash", "source_hash_mirrored")}
    kinds |= {"score": pa.int32(), "decision": pa.string()}
    columns = list(crop("x"))
    return pa.table({name: pa.array([row[name] for row in rows], kinds.get(name)) for name in columns})


def judge(rows: list[dict[str, Any]], **params: Any) -> dict[str, tuple[str, str] | None]:
    """crop_id -> (reason, what it is a copy of), None where it stays."""
    verdicts = decide(table(rows), DedupParams(**params)).to_pylist()
    found = {}
    for row, verdict in zip(rows, verdicts, strict=True):
        found[row["crop_id"]] = None if verdict["keep"] else (verdict["reason"], verdict["related"])
    return found


def flip(bits: int, *places: int) -> int:
    for place in places:
        bits ^= 1 << place
    return bits


def test_exact_copies_fall_whatever_the_settings() -> None:
    rows = [crop("a"), crop("b", pixel_digest="a"), crop("c", FAR)]
    for params in ({}, {"near": False}):
        assert judge(rows, **params) == {"a": None, "b": ("exact_copy", "a"), "c": None}


def test_near_copies_within_the_radius_only() -> None:
    rows = [crop("a"), crop("b", flip(BASE, 1, 20, 40, 60)), crop("c", flip(BASE, 0, 2, 4, 6, 8))]
    assert judge(rows) == {"a": None, "b": ("near_copy", "a"), "c": None}
    assert judge(rows, radius=3) == {"a": None, "b": None, "c": None}
    assert judge(rows, radius=5) == {"a": None, "b": ("near_copy", "a"), "c": ("near_copy", "a")}
    assert judge(rows, near=False) == {"a": None, "b": None, "c": None}


def test_mirrored_copies() -> None:
    rows = [crop("a"), crop("b", FAR, phash_mirrored_bits=flip(BASE, 3))]
    assert judge(rows) == {"a": None, "b": ("mirrored_copy", "a")}
    assert judge(rows, mirror=False) == {"a": None, "b": None}


def test_a_crop_is_not_a_copy_of_its_own_mirror_image() -> None:
    assert judge([crop("a", phash_mirrored_bits=BASE)]) == {"a": None}


def test_no_chaining() -> None:
    """A ~ B ~ C but not A ~ C: B falls for A, and C stays, for what it resembles is gone."""
    rows = [
        crop("a", score=3),
        crop("b", flip(BASE, 1, 2, 3), score=2),
        crop("c", flip(BASE, 1, 2, 3, 4, 5, 6), score=1),
    ]
    assert judge(rows) == {"a": None, "b": ("near_copy", "a"), "c": None}


def test_the_middle_of_a_chain_takes_both_ends_when_it_is_best() -> None:
    rows = [crop("a"), crop("b", flip(BASE, 1, 2, 3), score=9), crop("c", flip(BASE, 1, 2, 3, 4, 5, 6))]
    assert judge(rows) == {"a": ("near_copy", "b"), "b": None, "c": ("near_copy", "b")}


@pytest.mark.parametrize(
    "better", [{"decision": "keep", "score": -9, "box_w": 10}, {"box_w": 51, "score": -9}, {"score": 1}]
)
@pytest.mark.parametrize("exact", [False, True])
def test_the_keeper_is_decided_by_person_then_size_then_score(better: dict[str, Any], exact: bool) -> None:
    digest: dict[str, Any] = {"pixel_digest": "same"} if exact else {}
    found = judge([crop("a", **digest), crop("b", **digest, **better)])
    assert found == {"a": ("exact_copy" if exact else "near_copy", "b"), "b": None}


def test_of_equals_the_smaller_name_stays_and_no_score_is_the_lowest() -> None:
    assert judge([crop("b"), crop("a")]) == {"a": None, "b": ("near_copy", "a")}
    assert judge([crop("a", score=None), crop("b", score=-100)]) == {"a": ("near_copy", "b"), "b": None}


def test_what_a_person_keeps_falls_as_an_exact_copy_only() -> None:
    keep: dict[str, Any] = {"decision": "keep"}
    rows = [crop("a", box_w=90, **keep), crop("b", **keep), crop("c", pixel_digest="b", **keep), crop("d")]
    assert judge(rows) == {"a": None, "b": None, "c": ("exact_copy", "b"), "d": ("near_copy", "a")}


def test_a_twin_of_a_near_copy_falls_for_the_one_that_stays() -> None:
    rows = [crop("a", box_w=90), crop("b", flip(BASE, 1)), crop("c", flip(BASE, 1), pixel_digest="b")]
    assert judge(rows) == {"a": None, "b": ("near_copy", "a"), "c": ("near_copy", "a")}


def by_source(name: str, bits: int, **values: Any) -> dict[str, Any]:
    """Crops that do not resemble each other, of posts that do."""
    return crop(name, bits, source_hash=BASE, **values)


def test_crops_at_one_place_of_two_copied_posts() -> None:
    rows = [by_source("1#0", FAR, box_x=10), by_source("2#0", ~FAR & (2**64 - 1), box_x=14)]
    assert judge(rows) == {"1#0": None, "2#0": ("near_copy", "1#0")}
    assert judge([rows[0], rows[1] | {"box_x": 50}]) == {"1#0": None, "2#0": None}
    assert judge([rows[0], rows[1] | {"source_hash": flip(BASE, *range(5))}]) == {"1#0": None, "2#0": None}
    assert judge([rows[0], rows[1] | {"post_id": "1"}]) == {"1#0": None, "2#0": None}


def test_places_are_compared_as_fractions_of_the_picture() -> None:
    half = {"source_width": 50, "source_height": 50, "box_x": 5, "box_w": 25, "box_h": 25}
    rows = [by_source("1#0", FAR, box_x=10), by_source("2#0", ~FAR & (2**64 - 1), **half)]
    assert judge(rows)["2#0"] == ("near_copy", "1#0")


def test_places_in_a_mirrored_post() -> None:
    mirrored_post = {"source_hash": FAR, "source_hash_mirrored": BASE}
    first = by_source("1#0", FAR, box_x=0, box_w=30)
    at_its_mirror = crop("2#0", 7, box_x=70, box_w=30, **mirrored_post)
    at_its_place = crop("3#0", 2**60, box_x=0, box_w=30, **mirrored_post)
    assert judge([first, at_its_mirror])["2#0"] == ("mirrored_copy", "1#0")
    assert judge([first, at_its_place])["3#0"] is None


def test_nothing_and_one() -> None:
    assert judge([]) == {}
    assert judge([crop("a")]) == {"a": None}


CROPS = st.lists(
    st.tuples(st.lists(st.integers(0, 9), max_size=5), st.integers(0, 3), st.sampled_from([40, 50]), st.integers(0, 2)),
    min_size=1,
    max_size=10,
)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(drawn=CROPS, seed=st.integers(0, 99), radius=st.integers(0, 4))
def test_order_is_nothing_and_every_copy_is_near_a_crop_that_stays(drawn: list[Any], seed: int, radius: int) -> None:
    rows = []
    for k, (places, digest, width, score) in enumerate(drawn):
        bits = flip(BASE, *places)
        same = {"pixel_digest": f"d{bits}-{digest}"}
        rows.append(crop(f"c{k:02d}", bits, box_w=width, score=score, **same))
    found = judge(rows, radius=radius)
    shuffled = [rows[k] for k in np.random.default_rng(seed).permutation(len(rows))]
    assert judge(shuffled, radius=radius) == found
    hashes = {row["crop_id"]: row["phash_bits"] for row in rows}
    digests = {row["crop_id"]: row["pixel_digest"] for row in rows}
    kept = [name for name, verdict in found.items() if verdict is None]
    for name, verdict in found.items():
        if verdict is not None:
            reason, keeper = verdict
            assert found[keeper] is None
            assert (hashes[name] ^ hashes[keeper]).bit_count() <= (0 if reason == "exact_copy" else radius)
            assert (reason == "exact_copy") == (digests[name] == digests[keeper])
    for place, one in enumerate(kept):
        for other in kept[place + 1 :]:
            assert (hashes[one] ^ hashes[other]).bit_count() > radius
