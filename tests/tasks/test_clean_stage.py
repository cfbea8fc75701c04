"""Clean: drawn pictures with one fault each, against the default thresholds."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from datasets.cache import INPUT
from datasets.digests import digest_pixels
from datasets.pictures import encode_png
from datasets.store import Store
from tasks import clean, pictures
from tasks.clean import CleanParams
from tasks.stage import Shard

Draw = Callable[..., np.ndarray]


OFF_BY_DEFAULT = (
    "max_black_share",
    "max_white_share",
    "max_bars",
    "max_aspect",
    "min_native_scale",
    "min_jpeg_quality",
)


def judge(store: Store, drawn: list[np.ndarray], **params: Any) -> list[str | None]:
    rows = [
        {
            INPUT: digest_pixels(p),
            "crop_blob": store.blobs.put(encode_png(p)),
            "box_w": p.shape[1],
            "box_h": p.shape[0],
            "jpeg_quality": None if k % 2 else 55.0,
        }
        for k, p in enumerate(drawn)
    ]
    items = pa.Table.from_pylist(rows)
    facts = clean.measure(Shard(items, store, store.root), CleanParams().for_measure())
    assert (facts.table.schema, facts.opened) == (clean.FACTS, len(drawn))
    verdicts = clean.decide(clean.STAGE.expand(items, facts.table), CleanParams(**params))
    reasons: list[str | None] = verdicts["reason"].to_pylist()
    return reasons


def jpeg(picture: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=80)
    return np.asarray(Image.open(buffer).convert("RGB"))


def grey_of(picture: np.ndarray) -> np.ndarray:
    return np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)


def sepia_of(picture: np.ndarray) -> np.ndarray:
    share = grey_of(picture) / 255.0
    return np.asarray((1 - share) * (50, 25, 5) + share * (255, 238, 190), np.uint8)


@pytest.mark.parametrize("seed", range(3))
def test_each_fault_by_its_name(store: Store, draw: Draw, seed: int) -> None:
    picture = draw(seed, 160, 160)
    pastel = (picture * 0.45 + 135).astype(np.uint8)
    few = np.where(picture > 127, 255, 0).astype(np.uint8)
    flat = (picture * 0.08 + 120).astype(np.uint8)
    assert judge(store, [picture, pastel, jpeg(pastel)]) == [None, None, None]
    assert judge(store, [grey_of(picture), jpeg(grey_of(picture))]) == ["grey", "grey"]
    assert judge(store, [sepia_of(picture), jpeg(sepia_of(picture))]) == ["toned", "toned"]
    assert judge(store, [few, cv2.GaussianBlur(picture, (0, 0), 6)]) == ["few_colours", "blurred"]
    assert judge(store, [flat], min_blur=0, min_tint_residual=0, min_colours=0) == ["flat"]
    assert judge(store, [picture[:47], picture[:, :47], picture[:48, :48]])[:2] == ["too_small", "too_small"]


def test_every_threshold_off_keeps_everything(store: Store, draw: Draw) -> None:
    faults = [grey_of(draw(0)), np.zeros((20, 20, 3), np.uint8), draw(1)[:1]]
    off = dict.fromkeys(("min_tint_residual", "min_colours", "min_blur", "min_contrast"), 0)
    assert all(getattr(CleanParams(), name) is None for name in OFF_BY_DEFAULT)
    assert judge(store, faults, min_side=1, **off) == [None, None, None]


def test_one_decode_per_picture(store: Store, draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = Mock(wraps=pictures.decode_picture)
    monkeypatch.setattr(pictures, "decode_picture", decode)
    judge(store, [draw(k) for k in range(4)])
    assert decode.call_count == 4


def test_the_rules_that_are_off_by_default(store: Store, draw: Draw) -> None:
    picture = draw(0, 160, 160)
    boxed, dark, pale = picture.copy(), picture.copy(), picture.copy()
    boxed[:16], boxed[-16:] = 0, 0
    dark[30:130, 30:130], pale[30:130, 30:130] = 0, 255
    large = np.asarray(cv2.resize(picture[:80, :80], None, fx=2, fy=2, interpolation=cv2.INTER_LANCZOS4), np.uint8)
    sound_and = [picture, boxed, picture[:100], dark, pale, large]
    assert judge(store, sound_and) == [None] * 6
    assert judge(store, sound_and, max_bars=0.02) == [None, "bars", None, None, None, None]
    assert judge(store, sound_and, max_aspect=1.5) == [None, None, "aspect", None, None, None]
    assert judge(store, sound_and, max_black_share=0.35) == [None, None, None, "black", None, None]
    assert judge(store, sound_and, max_white_share=0.35) == [None, None, None, None, "white", None]
    assert judge(store, sound_and, min_native_scale=0.7) == [None, None, None, None, None, "enlarged"]


def test_the_quality_of_the_source_counts_only_where_the_source_is_a_jpeg(store: Store, draw: Draw) -> None:
    drawn = [draw(0), draw(1)]  # 55, and null
    assert judge(store, drawn, min_jpeg_quality=60) == ["jpeg_quality", None]
    assert judge(store, drawn, min_jpeg_quality=55) == [None, None]


def test_soft_pastel_art_of_low_contrast_stays_and_its_blurred_copy_goes(store: Store, draw: Draw) -> None:
    for seed in range(3):
        pastel = (draw(seed, 256, 256) * 0.25 + 185).astype(np.uint8)
        blurred = np.asarray(cv2.GaussianBlur(pastel, (0, 0), 2), np.uint8)
        assert judge(store, [pastel, jpeg(pastel), jpeg(blurred)]) == [None, None, "blurred"]


def test_a_threshold_of_the_old_scale_is_refused_not_obeyed() -> None:
    for old in ({"min_blur": 60.0}, {"min_tint_residual": 2.5}):
        with pytest.raises(ValueError, match="less than or equal to 1"):
            CleanParams(**old)


def test_measures_of_pixels_in_memory_are_those_of_their_blob(store: Store, draw: Draw) -> None:
    picture = draw(3)
    row = {INPUT: digest_pixels(picture), "crop_blob": store.blobs.put(encode_png(picture))}
    facts = clean.measure(Shard(pa.Table.from_pylist([row]), store, store.root), CleanParams().for_measure())
    in_memory = clean.measure_pixels(picture, CleanParams().for_measure())
    assert facts.table.to_pylist() == [{INPUT: row[INPUT], **in_memory}]
    assert set(in_memory) == set(clean.FACTS.names[1:])
