"""Versions: there completely or not at all, and every later change is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets.errors import StoreError
from datasets.store import Store
from datasets.version import (
    LEDGER_FILE,
    LINEAGE_FILE,
    MANIFEST_FILE,
    Version,
    count_problems,
    ledger_digest,
    list_versions,
    read_version,
    store_of,
    verify_version,
)

Publish = Callable[..., Version]
DROPPED = ({"item_id": "x1", "post_id": "x1", "crop_id": None, "reason": "blurred", "value": 3.0, "threshold": 60.0},)


def test_what_was_published_is_read_back(store: Store, publish: Publish) -> None:
    written = publish(dropped=DROPPED)
    read = read_version(store, "faces@v1")
    assert (read.reference, read.content_digest) == ("faces@v1", written.content_digest)
    assert read.manifest()["crop_id"].to_pylist() == ["p0#0", "p1#0", "p2#0", "p3#0"]
    assert read.ledger()["reason"].to_pylist() == ["blurred"]
    assert verify_version(store, read) == []


def test_a_version_by_its_folder(store: Store, publish: Publish) -> None:
    folder = publish().folder
    version = read_version(Store(Path("elsewhere")), str(folder))
    assert version.reference == "faces@v1"
    assert store_of(folder).root == store.root.resolve()


def test_a_copy_under_another_name_is_refused_with_a_reason(store: Store, publish: Publish) -> None:
    folder = publish().folder
    with pytest.raises(StoreError, match="not a version's folder"):
        read_version(store, str(folder.rename(folder.with_name("v0001-copy"))))


def test_versions_count_up_and_name_their_parent(store: Store, publish: Publish) -> None:
    assert [publish(count).lineage["parent"] for count in (1, 2, 3)] == [None, "faces@v1", "faces@v2"]
    assert [version.number for version in list_versions(store)] == [1, 2, 3]
    assert [version.reference for version in list_versions(store, "faces")] == ["faces@v1", "faces@v2", "faces@v3"]


@pytest.mark.parametrize(
    "change", [{"count": 5}, {"dropped": DROPPED}, {"recipe": {"clean": 1}}, {"rating": "general"}]
)
def test_any_difference_makes_a_version_and_none_makes_none(publish: Publish, change: dict[str, Any]) -> None:
    publish()
    assert publish().number == 1
    assert publish(**change).number == 2
    assert publish().number == 3  # compared with the newest only


def test_a_failing_card_writer_leaves_nothing_behind(store: Store, publish: Publish) -> None:
    def fail(folder: Path, *rest: object) -> None:
        (folder / "README.md").write_text("half a card")
        raise RuntimeError("no font")

    with pytest.raises(RuntimeError, match="no font"):
        publish(write_card=fail)
    assert list(store.dataset("faces").iterdir()) == []
    assert publish().number == 1


def test_nothing_is_visible_before_everything_is_there(store: Store, publish: Publish) -> None:
    def look(folder: Path, *rest: object) -> None:
        assert store.version_numbers("faces") == []
        assert not (folder / MANIFEST_FILE).exists()
        assert not (folder / LINEAGE_FILE).exists()

    version = publish(write_card=look)
    assert sorted(p.name for p in version.folder.iterdir()) == [LEDGER_FILE, MANIFEST_FILE, LINEAGE_FILE]


def test_staging_of_a_killed_build_is_swept_away(store: Store, publish: Publish) -> None:
    leftover = store.dataset("faces") / ".staging-0123"
    leftover.mkdir(parents=True)
    (leftover / MANIFEST_FILE).write_bytes(b"PAR1")
    assert publish().number == 1
    assert not leftover.exists()


def test_a_missing_blob_forbids_publishing(store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.blobs, "put", lambda data: "0" * 64)
    with pytest.raises(StoreError, match="Run the build again"):
        publish()
    assert store.version_numbers("faces") == []


def test_a_damaged_newest_version_does_not_block_the_next_one(store: Store, publish: Publish) -> None:
    (publish().folder / LINEAGE_FILE).write_text("{")
    with pytest.raises(StoreError, match="not a whole version"):
        read_version(store, "faces")
    assert publish().number == 2


# ---- verify ----------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_in_a_blob_is_found(store: Store, publish: Publish) -> None:
    version = publish()
    seen: list[tuple[int, int]] = []
    path = store.blobs.path(version.manifest()["blob"][2].as_py())
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    problems = verify_version(store, version, lambda done, total: seen.append((done, total)))
    assert len(problems) == 1
    assert path.name in problems[0]
    assert seen[-1] == (4, 4)


def test_a_flipped_bit_in_the_crop_of_a_dropped_item_is_found(store: Store, publish: Publish) -> None:
    crop = store.blobs.put(b"the crop of something that fell")
    dropped = {"stage": "clean", "item_id": "9#0", "post_id": "9", "crop_id": "9#0", "reason": "grey"}
    version = publish(dropped=({**dropped, "crop_blob": crop},))
    assert verify_version(store, version) == []
    store.blobs.path(crop).write_bytes(b"the crop of something that feli")
    (problem,) = verify_version(store, version)
    assert problem.startswith("9#0: blob ")


def test_a_missing_blob_is_found(store: Store, publish: Publish) -> None:
    version = publish()
    store.blobs.path(version.manifest()["blob"][0].as_py()).unlink()
    assert [problem for problem in verify_version(store, version) if "missing" in problem]


@pytest.mark.parametrize("column", ["rating", "d_score", "source_path"])
def test_a_changed_manifest_is_found_whichever_column_it_was(store: Store, publish: Publish, column: str) -> None:
    version = publish()
    table = version.manifest()
    place = table.column_names.index(column)
    value = 1.0 if column == "d_score" else "explicit"
    changed = pa.array([value] * len(table), table.schema.field(column).type)
    pq.write_table(table.set_column(place, table.schema.field(column), changed), version.folder / MANIFEST_FILE)
    assert any(MANIFEST_FILE in problem for problem in verify_version(store, version))


@pytest.mark.parametrize("file_name", [MANIFEST_FILE, LEDGER_FILE])
def test_every_flipped_byte_of_the_tables_is_found(store: Store, publish: Publish, file_name: str) -> None:
    version = publish(count=2, dropped=DROPPED)
    path = version.folder / file_name
    data = path.read_bytes()
    for place in range(0, len(data), max(1, len(data) // 40)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        assert verify_version(store, version), place
    path.unlink()
    assert verify_version(store, version)
    path.write_bytes(data)
    assert verify_version(store, version) == []


def test_a_shortened_manifest_is_found(store: Store, publish: Publish) -> None:
    version = publish()
    pq.write_table(version.manifest().slice(0, 3), version.folder / MANIFEST_FILE)
    assert any("content digest" in problem for problem in verify_version(store, version))


def test_accounts_survive_the_way_to_disk_in_pipeline_order(store: Store, publish: Publish) -> None:
    publish(dropped=DROPPED)
    counts = json.loads((store.version_folder("faces", 1) / LINEAGE_FILE).read_text())["counts"]
    assert list(counts) == ["filter", "clean"]  # a sorted file would put clean first
    assert count_problems(counts) == []


def test_accounts_that_do_not_add_up_are_named() -> None:
    filter_row = {"inputs": 10, "in": 10, "kept": 8, "dropped": {"rating": 1, "score": 1}}
    crop_row = {"inputs": 8, "in": 11, "kept": 11, "dropped": {}}
    assert count_problems({"filter": filter_row, "crop": crop_row}) == []
    assert "filter" in count_problems({"filter": filter_row | {"dropped": {"rating": 1}}})[0]
    assert "crop" in count_problems({"filter": filter_row, "crop": crop_row | {"inputs": 7}})[0]


def test_ledger_digest_depends_on_reasons_not_on_order(publish: Publish) -> None:
    rows = [{"item_id": f"x{k}", "stage": "clean", "reason": "blurred", "value": float(k)} for k in range(3)]
    columns = {"threshold": pa.float64(), "related": pa.string()}

    def table(chosen: list[dict[str, Any]]) -> pa.Table:
        made = pa.Table.from_pylist(chosen)
        for name, kind in columns.items():
            made = made.append_column(name, pa.nulls(len(made), kind))
        return made

    assert ledger_digest(table(rows)) == ledger_digest(table(rows[::-1]))
    assert ledger_digest(table(rows)) != ledger_digest(table([rows[0] | {"reason": "flat"}, *rows[1:]]))
