"""Dedup: the best of each group stays, every dropped crop is near the one that stays for it, order is nothing."""

from __future__ import annotations

import hashlib
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.cache import INPUT
from datasets.schema import MANIFEST
from models.hashing import walk
from tasks.dedup import FACTS, DedupParams, decide, measure_pixels

BASE = 0x0123456789ABCDEF
FAR = 0xFFFF0000FFFF0000


def unrelated(*words: object) -> int:
    """64 bits that are near no others."""
    return int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:8], "big")


def crop(name: str, bits: int | None = BASE, **values: Any) -> dict[str, Any]:
    """A crop of its own pixels and its own post; mirrored hashes that are near nothing unless given.

    Hashes of 256 bits are all alike unless given.
    """
    row = {
        "crop_id": name,
        "post_id": name.split("#")[0],
        "pixel_digest": name,
        "phash_bits": bits,
        "phash_mirrored_bits": unrelated(name, bits),
        "phash256_bits": bytes(32),
        "phash256_mirrored_bits": bytes(32),
        "source_hash": unrelated(name, 1),
        "source_hash_mirrored": unrelated(name, 2),
        "source_hash256": bytes(32),
        "source_hash256_mirrored": bytes(32),
        "source_width": 100,
        "source_height": 100,
        "box_x": 0,
        "box_y": 0,
        "box_w": 50,
        "box_h": 50,
        "score": 0,
        "true_format": "JPEG",
        "jpeg_quality": 90.0,
        "decision": None,
    }
    return row | values


def table(rows: list[dict[str, Any]]) -> pa.Table:
    kinds: dict[str, pa.DataType] = {"score": pa.int32(), "jpeg_quality": pa.float64()}
    for name in ("phash_bits", "phash_mirrored_bits", "source_hash", "source_hash_mirrored"):
        kinds[name] = pa.uint64()
        kinds[name.replace("hash", "hash256", 1)] = pa.binary(32)
    columns = list(crop("x"))
    texts = ("crop_id", "post_id", "pixel_digest", "true_format", "decision")
    kinds |= {name: pa.string() for name in texts}
    return pa.table({name: pa.array([row[name] for row in rows], kinds.get(name, pa.int32())) for name in columns})


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
    assert judge(rows, radius=4) == {"a": None, "b": ("near_copy", "a"), "c": None}
    assert judge(rows, radius=3) == {"a": None, "b": None, "c": None}
    assert judge(rows, radius=5) == {"a": None, "b": ("near_copy", "a"), "c": ("near_copy", "a")}
    assert judge(rows, near=False) == {"a": None, "b": None, "c": None}


def test_mirrored_copies() -> None:
    rows = [crop("a"), crop("b", FAR, phash_mirrored_bits=flip(BASE, 3, 9))]
    assert judge(rows) == {"a": None, "b": ("mirrored_copy", "a")}
    assert judge(rows, mirror_radius=2) == {"a": None, "b": ("mirrored_copy", "a")}
    assert judge(rows, mirror_radius=1) == {"a": None, "b": None}
    assert judge(rows, mirror=False) == {"a": None, "b": None}


def ones(count: int) -> bytes:
    return ((1 << count) - 1).to_bytes(32, "big")


def test_a_second_look_at_256_bits() -> None:
    rows = [crop("a"), crop("b", flip(BASE, 1), phash256_bits=ones(30)), crop("c", FAR, phash256_bits=ones(30))]
    assert judge(rows) == {"a": None, "b": ("near_copy", "a"), "c": None}
    assert judge(rows, radius256=30)["b"] == ("near_copy", "a")
    assert judge(rows, radius256=29)["b"] is None
    rows[1]["phash256_bits"] = ones(256)
    assert judge(rows)["b"] is None
    assert judge(rows, radius256=None)["b"] == ("near_copy", "a")


def test_a_second_look_at_mirrored_crops_and_at_posts() -> None:
    turned = {"phash_mirrored_bits": BASE, "phash256_bits": ones(256), "phash256_mirrored_bits": ones(9)}
    rows = [crop("a"), crop("b", FAR, **turned)]
    assert judge(rows)["b"] == ("mirrored_copy", "a")
    assert judge(rows, radius256=8)["b"] is None
    posts = [by_source("1#0", FAR), by_source("2#0", ~FAR & (2**64 - 1), source_hash256=ones(9))]
    assert judge(posts)["2#0"] == ("near_copy", "1#0")
    assert judge(posts, radius256=8)["2#0"] is None


def test_the_ledger_says_how_far_and_by_which_way() -> None:
    rows = [
        crop("a"),
        crop("b", flip(BASE, 1, 2), phash256_bits=ones(7)),
        crop("c", FAR, phash_mirrored_bits=flip(BASE, 5), phash256_mirrored_bits=ones(3)),
        by_source("1#0", unrelated(1), box_h=60, source_hash256=ones(5)),
        crop("2#0", unrelated(2), source_hash=flip(BASE, 7), source_hash256=ones(1)),
    ]
    said = {
        row["crop_id"]: verdict
        for row, verdict in zip(rows, decide(table(rows), DedupParams()).to_pylist(), strict=True)
    }
    names = ("parameter", "measurement", "value", "threshold", "detail")
    assert [said["b"][name] for name in names] == ["dedup.radius", "hash distance", 2, 6, "7 of 256 bits differ"]
    assert [said["c"][name] for name in names] == ["dedup.mirror_radius", "hash distance", 1, 4, "3 of 256 bits differ"]
    by_post = ["dedup.source_radius", "hash distance of the posts", 1, 8, "4 of 256 bits differ"]
    assert [said["2#0"][name] for name in names] == by_post
    assert said["1#0"]["keep"]
    assert said["1#0"]["detail"] is None


def test_uniform_pictures_are_near_nothing_but_exact_copies_fall() -> None:
    nothing = dict.fromkeys(("phash_mirrored_bits", "phash256_bits", "phash256_mirrored_bits"))
    post = dict.fromkeys(("source_hash", "source_hash_mirrored", "source_hash256", "source_hash256_mirrored"))
    flat = nothing | post
    rows = [crop("a", None, **flat), crop("b", None, **flat), crop("c", None, pixel_digest="a", **flat), crop("d", 0)]
    assert judge(rows) == {"a": None, "b": None, "c": ("exact_copy", "a"), "d": None}
    assert judge(rows[:2]) == {"a": None, "b": None}


def test_a_crop_is_not_a_copy_of_its_own_mirror_image() -> None:
    assert judge([crop("a", phash_mirrored_bits=BASE)]) == {"a": None}


def test_no_chaining() -> None:
    """A ~ B ~ C but not A ~ C: B falls for A, and C stays, for what it resembles is gone."""
    rows = [
        crop("a", score=3),
        crop("b", flip(BASE, 1, 2, 3, 4), score=2),
        crop("c", flip(BASE, 1, 2, 3, 4, 5, 6, 7, 8), score=1),
    ]
    assert judge(rows) == {"a": None, "b": ("near_copy", "a"), "c": None}


def test_the_middle_of_a_chain_takes_both_ends_when_it_is_best() -> None:
    rows = [crop("a"), crop("b", flip(BASE, *range(4)), score=9), crop("c", flip(BASE, *range(8)))]
    assert judge(rows) == {"a": ("near_copy", "b"), "b": None, "c": ("near_copy", "b")}


@pytest.mark.parametrize(
    "better",
    [
        {"decision": "keep", "score": -9, "box_w": 10, "jpeg_quality": 10.0},
        {"box_w": 51, "jpeg_quality": 10.0, "score": -9},
        {"jpeg_quality": 91.0, "score": -9},
        {"true_format": "PNG", "jpeg_quality": None, "score": -9},
        {"score": 1},
    ],
)
@pytest.mark.parametrize("exact", [False, True])
def test_the_keeper_is_decided_by_person_then_size_then_encoding_then_score(
    better: dict[str, Any], exact: bool
) -> None:
    digest: dict[str, Any] = {"pixel_digest": "same"} if exact else {}
    found = judge([crop("a", **digest), crop("b", **digest, **better)])
    assert found == {"a": ("exact_copy" if exact else "near_copy", "b"), "b": None}


def test_of_equals_the_smaller_name_stays_and_no_score_is_the_lowest() -> None:
    assert judge([crop("b"), crop("a")]) == {"a": None, "b": ("near_copy", "a")}
    unknown = crop("a", jpeg_quality=None)
    assert judge([unknown, crop("b", jpeg_quality=1.0)]) == {"a": ("near_copy", "b"), "b": None}
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
    assert judge([rows[0], rows[1] | {"source_hash": flip(BASE, *range(9))}]) == {"1#0": None, "2#0": None}
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


def define(rows: list[dict[str, Any]], params: DedupParams) -> dict[str, tuple[str, str] | None]:
    """The definition, crop by crop from the best: what `judge` should find."""

    def worth(row: dict[str, Any]) -> tuple[Any, ...]:
        quality = row["jpeg_quality"] if row["jpeg_quality"] is not None else 101 * (row["true_format"] != "JPEG")
        score = -(2**31) if row["score"] is None else row["score"]
        return row["decision"] != "keep", -row["box_w"] * row["box_h"], -quality, -score, row["crop_id"]

    def apart(better: dict[str, Any], worse: dict[str, Any], name: str, turned: bool, limit: int) -> int | None:
        how = "_mirrored" if turned else ""
        names = {"crop": ("phash_bits", f"phash{how}_bits"), "post": ("source_hash", f"source_hash{how}")}[name]
        fine = [column.replace("hash", "hash256", 1) for column in names]
        one, other = better[names[0]], worse[names[1]]
        if one is None or other is None or (one ^ other).bit_count() > limit:
            return None
        look = int.from_bytes(better[fine[0]], "big") ^ int.from_bytes(worse[fine[1]], "big")
        return (
            None if params.radius256 is not None and look.bit_count() > params.radius256 else (one ^ other).bit_count()
        )

    def at_one_place(better: dict[str, Any], worse: dict[str, Any], turned: bool) -> bool:
        (a, b), (c, d) = ((row["box_x"], row["box_x"] + row["box_w"]) for row in (better, worse))
        c, d = (100 - d, 100 - c) if turned else (c, d)
        shared = max(0, min(b, d) - max(a, c)) * min(better["box_h"], worse["box_h"])
        return (
            better["post_id"] != worse["post_id"]
            and shared * 2 >= sum(row["box_w"] * row["box_h"] for row in (better, worse)) - shared
        )

    def near(better: dict[str, Any], worse: dict[str, Any]) -> tuple[int, int, int] | None:
        """level, bits, mirrored: the best of the ways."""
        ways = []
        for turned in (False, True) if params.mirror else (False,):
            for level, name, radius in ((0, "crop", params.radius), (1, "post", params.source_radius)):
                bits = apart(better, worse, name, turned, params.mirror_radius if turned else radius)
                if bits is not None and (level == 0 or at_one_place(better, worse, turned)):
                    ways.append((level, bits, int(turned)))
        return min(ways, default=None)

    found: dict[str, tuple[str, str] | None] = {}
    stayers: list[dict[str, Any]] = []
    best: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=worth):
        twin = best.setdefault(row["pixel_digest"], row)
        if twin is not row:
            verdict = found[twin["crop_id"]]
            found[row["crop_id"]] = verdict or ("exact_copy", twin["crop_id"])
            continue
        ways = [(way, k) for k, stayer in enumerate(stayers) if params.near and (way := near(stayer, row)) is not None]
        if not ways or row["decision"] == "keep":
            found[row["crop_id"]] = None
            stayers.append(row)
            continue
        (_, _, turned), k = min(ways)
        reason = "mirrored_copy" if turned else "near_copy"
        rejected = stayers[k]["decision"] == "reject"
        found[row["crop_id"]] = ("copy_of_rejected" if rejected else reason, stayers[k]["crop_id"])
    return found


PLACES = st.lists(st.integers(0, 11), max_size=5)
CROPS = st.lists(
    st.fixed_dictionaries(
        {
            "phash_bits": PLACES,
            "phash_mirrored_bits": PLACES,
            "source_hash": PLACES,
            "source_hash_mirrored": PLACES,
            "phash256_bits": st.sampled_from([0, 5, 200]),
            "source_hash256": st.sampled_from([0, 5, 200]),
            "digest": st.integers(0, 6),
            "post": st.integers(0, 9),
            "box_x": st.sampled_from([0, 10, 40]),
            "box_w": st.sampled_from([40, 50]),
            "jpeg_quality": st.sampled_from([None, 60.0, 90.0]),
            "true_format": st.sampled_from(["JPEG", "PNG"]),
            "score": st.sampled_from([None, 0, 1]),
            "decision": st.sampled_from([None, None, None, "keep", "reject", "unsure"]),
            "uniform": st.sampled_from([False, False, False, True]),
        }
    ),
    min_size=1,
    max_size=14,
)
HASHES = ("phash_bits", "phash_mirrored_bits", "source_hash", "source_hash_mirrored")


def make_rows(drawn: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Crops near two centres; those of equal pixels have equal hashes and decisions."""
    rows: list[dict[str, Any]] = []
    first: dict[int, dict[str, Any]] = {}
    for k, values in enumerate(drawn):
        like = first.setdefault(values["digest"] + 100 * (values["digest"] > 3) * k, values)
        hashes: dict[str, Any] = {
            name: flip(FAR if "mirrored" in name and like["digest"] % 2 else BASE, *like[name]) for name in HASHES[:2]
        } | {name: flip(BASE, *values[name]) for name in HASHES[2:]}
        hashes |= {"phash256_bits": ones(like["phash256_bits"]), "source_hash256": ones(values["source_hash256"])}
        if like["uniform"]:
            hashes |= dict.fromkeys(("phash_bits", "phash_mirrored_bits", "phash256_bits", "phash256_mirrored_bits"))
        own = {name: values[name] for name in ("box_x", "box_w", "jpeg_quality", "true_format", "score")}
        digest = f"d{values['digest']}" if values["digest"] <= 3 else f"own{k}"
        names = {"post_id": f"p{values['post']}", "pixel_digest": digest, "decision": like["decision"]}
        rows.append(crop(f"c{k:02d}", **hashes, **own, **names))
    return rows


@settings(max_examples=250, deadline=None, derandomize=True)
@given(
    drawn=CROPS,
    seed=st.integers(0, 99),
    radius=st.integers(0, 5),
    source_radius=st.integers(0, 5),
    mirror=st.booleans(),
    radius256=st.sampled_from([None, 4, 60]),
    many=st.sampled_from([0, 3, 1 << 16]),
)
def test_verdicts_are_the_definition_whatever_the_order(drawn: list[Any], seed: int, many: int, **params: Any) -> None:
    rows = make_rows(drawn)
    expected = define(rows, DedupParams(**params))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk, "_MANY_PAIRS", many)
        assert judge(rows, **params) == expected
        shuffled = [rows[k] for k in np.random.default_rng(seed).permutation(len(rows))]
        assert judge(shuffled, **params) == expected


@settings(max_examples=60, deadline=None, derandomize=True)
@given(drawn=CROPS, radius=st.integers(0, 4))
def test_every_copy_is_near_a_crop_that_stays_and_no_two_that_stay_are_near(drawn: list[Any], radius: int) -> None:
    rows = make_rows([values | {"decision": None, "uniform": False} for values in drawn])
    found = judge(rows, radius=radius, mirror=False, source_radius=0, radius256=None)
    bits = {row["crop_id"]: row["phash_bits"] for row in rows}
    kept = [name for name, verdict in found.items() if verdict is None]
    assert all(verdict is None or found[verdict[1]] is None for verdict in found.values())
    for place, one in enumerate(kept):
        for other in kept[place + 1 :]:
            assert (bits[one] ^ bits[other]).bit_count() > radius


def test_facts_of_a_picture_and_of_a_flat_one() -> None:
    rng = np.random.default_rng(0)
    picture = cv2.resize(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8), (96, 96), interpolation=cv2.INTER_CUBIC)
    facts = measure_pixels(np.asarray(picture, np.uint8), DedupParams())
    assert list(facts) == FACTS.names[1:]
    assert facts["phash"] == f"{facts['phash_bits']:016x}"
    assert bytes.fromhex(facts["phash256"]) == facts["phash256_bits"]
    stored = pa.Table.from_pylist([{INPUT: "digest", **facts}], schema=FACTS).to_pylist()
    assert stored == [{INPUT: "digest", **facts}]
    assert {name for name in MANIFEST.names if name.startswith("phash")} <= set(FACTS.names)
    assert set(measure_pixels(np.full((64, 64, 3), 9, np.uint8), DedupParams()).values()) == {None}
