"""The card of a version: figures and pictures that are true, whatever is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from datasets.card import CardWriter, borderline_first, explain, spread
from datasets.schema import LEDGER
from datasets.store import Store
from datasets.version import Version

Publish = Callable[..., Version]


@pytest.fixture
def writer(store: Store, tmp_path: Path) -> CardWriter:
    return CardWriter(store, tmp_path / "source")


def ledger_row(k: int, **values: Any) -> dict[str, Any]:
    row = {"item_id": f"x{k}", "post_id": f"x{k}", "stage": "clean", "reason": "blurred", "value": 1.0}
    return row | {"threshold": 60.0} | values


def test_counts_reasons_and_digest_are_on_the_card(publish: Publish, writer: CardWriter) -> None:
    version = publish(write_card=writer, dropped=tuple(ledger_row(k) for k in range(3)), blur=70.0)
    text = (version.folder / "README.md").read_text()
    assert "# faces@v1" in text
    assert "4 pictures from 7 posts" in text
    assert "| clean | 7 | 4 | 3 | blurred 3 |" in text
    assert version.content_digest in text


def test_the_card_links_only_to_pictures_that_are_there(publish: Publish, writer: CardWriter) -> None:
    version = publish(write_card=writer, dropped=(ledger_row(0),), blur=70.0, d_score=0.5)
    text = (version.folder / "README.md").read_text()
    links = [part.split(")")[0] for part in text.split("](")[1:]]
    assert len(links) == 5
    for link in links:
        with Image.open(version.folder / link) as image:
            image.load()


def test_an_empty_version_has_a_card(publish: Publish, writer: CardWriter) -> None:
    version = publish(0, write_card=writer)
    assert "0 pictures from 0 posts" in (version.folder / "README.md").read_text()


def test_dropped_items_whose_picture_is_broken_gone_or_outside(
    publish: Publish, writer: CardWriter, tmp_path: Path
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "secret.png").write_bytes(b"secret")
    paths = ("broken.png", "gone.png", "../secret.png", "/etc/passwd", None)
    dropped = tuple(ledger_row(k, source_path=path, crop_blob="0" * 64) for k, path in enumerate(paths))
    version = publish(write_card=writer, dropped=dropped)
    assert (version.folder / "sheets" / "dropped.jpg").exists()
    rows = version.ledger().to_pylist()
    assert [writer.dropped_path(row) for row in rows] == [
        tmp_path / "source" / "broken.png",
        tmp_path / "source" / "gone.png",
        None,
        None,
        None,
    ]


def test_reasons_are_shown_in_pipeline_order_each_with_its_borderline_first(
    publish: Publish, writer: CardWriter
) -> None:
    rows = [ledger_row(k, value=float(k)) for k in range(20)]
    rows += [ledger_row(50 + k, reason="truncated", stage="filter", value=None) for k in range(5)]
    cells = writer.dropped_cells(pa.Table.from_pylist(rows, schema=LEDGER), ["filter", "clean"])
    captions = [cell.caption[0] for cell in cells]
    assert captions == ["filter: truncated"] + ["clean: blurred"] * 8
    assert cells[1].caption[1] == "19, limit 60"


def test_what_a_caption_says() -> None:
    base = {"related": None, "value": None, "threshold": None, "detail": None}
    assert explain({**base, "related": "3#0", "value": 2.0}) == "of 3#0, 2 bits"
    assert explain({**base, "related": "3#0"}) == "of 3#0"
    assert explain({**base, "value": 2.3842, "threshold": 60.0}) == "2.384, limit 60"
    assert explain({**base, "detail": "why"}) == "why"
    assert explain(base) == ""


def test_spread_takes_evenly_and_the_first() -> None:
    table = pa.table({"k": list(range(100))})
    assert spread(table, 4)["k"].to_pylist() == [0, 25, 50, 75]
    assert spread(table, 200) is table


def test_rows_without_a_threshold_come_last_by_name() -> None:
    rows = [ledger_row(2, value=None), ledger_row(1, value=None), ledger_row(3, value=61.0), ledger_row(4, value=10.0)]
    ordered = borderline_first(pa.Table.from_pylist(rows, schema=LEDGER))
    assert ordered["item_id"].to_pylist() == ["x3", "x4", "x1", "x2"]
