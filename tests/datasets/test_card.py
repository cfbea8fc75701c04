"""The card of a version: figures and pictures that are true, whatever is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from datasets.card import CardWriter, borderline_first, explain, spread
from datasets.digests import digest_file, digest_pixels
from datasets.pictures import encode_png
from datasets.schema import LEDGER, MANIFEST
from datasets.sheets import draw_sheet, load_thumbnail
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


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that Pillow opens from now on."""
    paths: list[Path] = []
    original = Image.open

    def note(source: Any, *arguments: Any, **named: Any) -> Image.Image:
        paths.append(Path(source) if isinstance(source, str | Path) else Path("memory"))
        return original(source, *arguments, **named)

    monkeypatch.setattr(Image, "open", note)
    return paths


def put_thumbnails(store: Store, version: Version, side: int, draw_noise: Callable[..., np.ndarray]) -> None:
    for k, digest in enumerate(version.manifest()["pixel_digest"].to_pylist()):
        store.thumbnails.put(digest, draw_noise(k, side))


def write(writer: CardWriter, version: Version, folder: Path) -> None:
    writer(folder, version.manifest(), version.ledger(), version.lineage)


def test_with_thumbnails_no_picture_is_opened(
    publish: Publish, writer: CardWriter, store: Store, draw_noise: Callable[..., np.ndarray], opened: list[Path]
) -> None:
    crop, source = "c" * 64, "d" * 64
    dropped = (
        ledger_row(0, pixel_digest=crop, crop_blob="0" * 64),
        ledger_row(1, stage="crop", reason="no_face", file_digest=source, source_path="a.png", value=None),
    )
    version = publish(dropped=dropped, d_score=0.5)
    put_thumbnails(store, version, 16, draw_noise)
    for digest in (crop, source):
        store.thumbnails.put(digest, draw_noise(9))
    for path in store.blobs.folder.rglob("*.png"):
        path.unlink()
    lineage = version.lineage | {"counts": {"filter": version.lineage["counts"]["filter"], "crop": {}, "clean": {}}}
    sheets = writer.sheets(version.manifest(), version.ledger(), list(lineage["counts"]))
    for _, _, cells in sheets:
        assert all(cell.path is not None for cell in cells)
        draw_sheet(cells)
    assert writer.opened == 0
    assert len(opened) == 4 * 3 + 2
    assert {path.parents[1] for path in opened} == {store.root / "thumbnails"}


def test_a_missing_thumbnail_is_made_once_of_the_picture_and_counted(
    publish: Publish, writer: CardWriter, store: Store, tmp_path: Path, opened: list[Path], quarters: np.ndarray
) -> None:
    (tmp_path / "source").mkdir()
    Image.fromarray(quarters).save(tmp_path / "source" / "a.png")
    file_digest, crop_digest = digest_file(tmp_path / "source" / "a.png"), digest_pixels(quarters)
    dropped = (
        ledger_row(0, pixel_digest=crop_digest, crop_blob=store.blobs.put(encode_png(quarters))),
        ledger_row(1, reason="no_face", file_digest=file_digest, source_path="a.png", value=None),
    )
    version = publish(dropped=dropped, box_w=16, box_h=16)
    write(writer, version, tmp_path)
    assert writer.opened == 6
    for digest in (file_digest, crop_digest, *version.manifest()["pixel_digest"].to_pylist()):
        assert store.thumbnails.path(digest) is not None
    opened.clear()
    again = CardWriter(store, tmp_path / "source")
    write(again, version, tmp_path)
    assert again.opened == 0
    assert {path.parents[1] for path in opened} == {store.root / "thumbnails"}


def test_a_damaged_thumbnail_is_a_blank_cell(
    publish: Publish, writer: CardWriter, store: Store, draw_noise: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    version = publish(3)
    put_thumbnails(store, version, 112, draw_noise)
    paths = sorted((store.root / "thumbnails").rglob("*.jpg"))
    paths[0].write_bytes(b"no picture at all")
    paths[1].write_bytes(paths[1].read_bytes()[:300])
    write(writer, version, tmp_path)
    with Image.open(tmp_path / "sheets" / "kept.jpg") as image:
        sheet = np.asarray(image.convert("L"))
    shown = [sheet[10:114, 6 + k * 118 + 4 : 6 + k * 118 + 108].std() > 35 for k in range(3)]
    assert (sum(shown), writer.opened) == (1, 0)


@pytest.mark.parametrize("have_thumbnail", [True, False])
def test_mirror_images_are_their_parents_thumbnail_turned_round(
    publish: Publish, writer: CardWriter, store: Store, quarters: np.ndarray, have_thumbnail: bool
) -> None:
    """Without a thumbnail the blob of the mirror image is opened, and the thumbnail made of it is the parent's."""
    square = quarters[:, 8:40]
    digest = digest_pixels(square)
    if have_thumbnail:
        store.thumbnails.put(digest, square)
    mirror = store.blobs.put(encode_png(square[:, ::-1]))
    row = {"crop_id": "a#0+mirror", "pixel_digest": digest, "blob": mirror, "augmentation": "mirror"}
    row |= {"post_id": "a", "width": 32, "height": 32, "box_w": 32, "box_h": 32}
    (cell,) = writer.kept_cells(pa.Table.from_pylist([row], schema=MANIFEST), ())
    assert (cell.mirrored, writer.opened) == (True, 0 if have_thumbnail else 1)
    assert cell.path == store.thumbnails.path(digest)
    kept = load_thumbnail(cell.path, 32)
    drawn = np.asarray(draw_sheet([cell], side=32)).astype(int)[6:38, 6:38]
    assert kept is not None
    assert np.abs(np.asarray(kept).astype(int)[4, 4] - square[4, 4]).max() < 20
    assert np.abs(drawn[4, 4] - square[4, -5]).max() < 20


def test_a_published_square_that_shows_less_than_its_crop_does_not_become_its_thumbnail(
    publish: Publish, writer: CardWriter, store: Store, tmp_path: Path
) -> None:
    version = publish(2, box_w=16, box_h=40)
    cells = writer.kept_cells(version.manifest(), ())
    assert [cell.path for cell in cells] == [store.blobs.path(blob) for blob in version.manifest()["blob"].to_pylist()]
    assert (writer.opened, (store.root / "thumbnails").exists()) == (2, False)


def test_what_fell_by_its_metadata_alone_is_counted_and_not_drawn(
    publish: Publish, writer: CardWriter, tmp_path: Path, opened: list[Path], quarters: np.ndarray
) -> None:
    (tmp_path / "source").mkdir()
    Image.fromarray(quarters).save(tmp_path / "source" / "a.png")
    dropped = (ledger_row(0, stage="filter", reason="rating", value=None, source_path="a.png"),)
    version = publish(0, dropped=dropped, write_card=writer)
    assert not (version.folder / "sheets").exists()
    assert "rating 1" in (version.folder / "README.md").read_text()
    assert (opened, writer.opened) == ([], 0)


def test_dropped_items_whose_picture_is_broken_gone_or_outside(
    publish: Publish, writer: CardWriter, tmp_path: Path
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "secret.png").write_bytes(b"secret")
    paths = ("broken.png", "gone.png", "../secret.png", "/etc/passwd", None)
    dropped = tuple(ledger_row(k, source_path=path, file_digest="e" * 64) for k, path in enumerate(paths))
    dropped += (ledger_row(7, pixel_digest="f" * 64, crop_blob="0" * 64, source_path="broken.png"),)
    version = publish(write_card=writer, dropped=dropped, box_w=16, box_h=16)
    assert (version.folder / "sheets" / "dropped.jpg").exists()
    assert writer.opened == 4 + 1  # the published ones, and the broken file
    assert [writer.dropped_path(row) for row in version.ledger().to_pylist()] == [None] * 6


def test_the_ledger_of_an_old_version_knows_no_file_digest(
    publish: Publish, writer: CardWriter, tmp_path: Path, quarters: np.ndarray
) -> None:
    (tmp_path / "source").mkdir()
    Image.fromarray(quarters).save(tmp_path / "source" / "a.png")
    version = publish(dropped=(ledger_row(0, reason="no_face", source_path="a.png"),))
    (cell,) = writer.dropped_cells(version.ledger().drop_columns(["file_digest"]), ["filter", "clean"])
    assert (cell.path, writer.opened) == (tmp_path / "source" / "a.png", 1)


def test_reasons_are_shown_in_pipeline_order_each_with_its_borderline_first(
    publish: Publish, writer: CardWriter
) -> None:
    rows = [ledger_row(k, value=float(k)) for k in range(20)]
    rows += [ledger_row(50 + k, reason="truncated", stage="crop", value=None) for k in range(5)]
    rows += [ledger_row(70 + k, reason="rating", stage="filter", value=None) for k in range(5)]
    cells = writer.dropped_cells(pa.Table.from_pylist(rows, schema=LEDGER), ["filter", "crop", "clean"])
    captions = [cell.caption[0] for cell in cells]
    assert captions == ["crop: truncated"] + ["clean: blurred"] * 8
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
