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


def judge(store: Store, drawn: list[np.ndarray], **params: Any) -> list[str | None]:
    rows = [
        {
            INPUT: digest_pixels(p),
            "crop_blob": store.blobs.put(encode_png(p)),
            "box_w": p.shape[1],
            "box_h": p.shape[0],
        }
        for p in drawn
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
    assert judge(store, faults, min_side=1, **off) == [None, None, None]


def test_one_decode_per_picture(store: Store, draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = Mock(wraps=pictures.decode_picture)
    monkeypatch.setattr(pictures, "decode_picture", decode)
    judge(store, [draw(k) for k in range(4)])
    assert decode.call_count == 4
