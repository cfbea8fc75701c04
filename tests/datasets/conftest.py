"""Pictures and published versions that are small enough to be drawn anew for each test."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from datasets.digests import digest_pixels
from datasets.pictures import encode_png
from datasets.schema import LEDGER, MANIFEST
from datasets.store import Store
from datasets.version import CARD_FILE, Version, publish_version

QUARTERS = np.array([[[200, 30, 40], [20, 180, 60]], [[30, 60, 210], [240, 220, 30]]], np.uint8)


@pytest.fixture
def quarters() -> np.ndarray:
    """uint8 (32, 48, 3): red, green, blue and yellow quarters, so that every turn and flip is told apart."""
    picture: np.ndarray = QUARTERS.repeat(16, axis=0).repeat(24, axis=1)
    return picture


@pytest.fixture
def encode() -> Callable[..., bytes]:
    """encode(picture or Image, format, **save options) -> the file's bytes."""

    def to_bytes(picture: np.ndarray | Image.Image, file_format: str, **options: Any) -> bytes:
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        buffer = io.BytesIO()
        image.save(buffer, format=file_format, **options)
        return buffer.getvalue()

    return to_bytes


@pytest.fixture
def draw_noise() -> Callable[..., np.ndarray]:
    """draw_noise(seed, side) -> uint8 (side, side, 3) of coloured noise: no two are alike, none compresses."""

    def draw(seed: int, side: int = 16) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)

    return draw


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def publish(store: Store, draw_noise: Callable[..., np.ndarray]) -> Callable[..., Version]:
    """publish(count, name, ledger rows, side, write_card, recipe, **columns) -> a Version of noise pictures."""

    def publish_noise(
        count: int = 4,
        name: str = "faces",
        dropped: tuple[dict[str, Any], ...] = (),
        side: int = 16,
        write_card: Callable[..., object] = lambda folder, *tables: (folder / CARD_FILE).write_text("the card"),
        recipe: dict[str, Any] | None = None,
        **columns: Any,
    ) -> Version:
        rows = []
        for k in range(count):
            pixels = draw_noise(k, side)
            row: dict[str, Any] = {
                "crop_id": f"p{k}#0",
                "post_id": f"p{k}",
                "blob": store.blobs.put(encode_png(pixels)),
            }
            row |= {"pixel_digest": digest_pixels(pixels), "width": side, "height": side, "rating": "safe", "score": k}
            rows.append({**row, **columns})
        total = count + len(dropped)
        reasons: dict[str, int] = {}
        for reason in (row["reason"] for row in dropped):
            reasons[reason] = reasons.get(reason, 0) + 1
        lineage = {
            "recipe": recipe or {},
            "stage_versions": {"clean": 1},
            "weights": {},
            "libraries": {},
            "notes": [],
            "posts": total,
            "counts": {
                "filter": {"inputs": total, "in": total, "kept": total, "dropped": {}},
                "clean": {"inputs": total, "in": total, "kept": count, "dropped": reasons},
            },
        }
        manifest = pa.Table.from_pylist(rows, schema=MANIFEST)
        ledger = pa.Table.from_pylist([{"stage": "clean", **row} for row in dropped], schema=LEDGER)
        return publish_version(store, name, manifest, ledger, lineage, write_card)

    return publish_noise
