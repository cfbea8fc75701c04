"""Garbage collection: what nobody names goes, what a version names stays, and a kill at any moment hurts nothing."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets import gc, lock
from datasets.atomic import write_parquet
from datasets.errors import LockedError, StoreError
from datasets.gc import BLOBS, MEASUREMENTS, TEMPORARY, THUMBNAILS, GarbageReport, collect_garbage
from datasets.lock import hold_dataset
from datasets.references import DigestSet
from datasets.store import Store
from datasets.version import LINEAGE_FILE, Version, list_versions, verify_version

Publish = Callable[..., Version]
KEY, OTHER_KEY = "a" * 24, "b" * 24
CROPS = pa.schema(
    [
        ("input", pa.string()),
        (
            "crops",
            pa.list_(pa.struct([("box_x", pa.int32()), ("crop_blob", pa.string()), ("pixel_digest", pa.string())])),
        ),
    ]
)
# says what it has deleted, and stops after some files until it is killed
STOPPING = """
import sys, time
from pathlib import Path
from datasets import gc
from datasets.store import Store
remove, left = gc.remove_file, int(sys.argv[2])
def and_stop(path):
    global left
    remove(path)
    print(path, flush=True)
    left -= 1
    if not left:
        time.sleep(60)
gc.remove_file = and_stop
gc.collect_garbage(Store(Path(sys.argv[1])), delete=True, grace_hours=0, unused_caches=True)
"""


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def add_crops(store: Store, key: str, posts: dict[str, list[str]], stage: str = "crop-1") -> Path:
    """Cached facts as the crop stage writes them: {post: its crop blobs}."""
    rows = [
        {
            "input": digest(post),
            "crops": [{"box_x": 1, "crop_blob": blob, "pixel_digest": digest(blob)} for blob in blobs],
        }
        for post, blobs in posts.items()
    ]
    path = store.cache / stage / key / f"{digest(''.join(posts))[:32]}.parquet"
    write_parquet(path, pa.Table.from_pylist(rows, schema=CROPS))
    return path


def say_measured(version: Version, *caches: str) -> None:
    """Make a version's lineage name these measurement folders."""
    path = version.folder / LINEAGE_FILE
    measured = {cache.split("-")[0]: {"version": 1, "cache": cache} for cache in caches}
    path.write_text(json.dumps({**json.loads(path.read_text()), "measured": measured}))


def make_old(folder: Path, hours: float = 48.0) -> None:
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (time.time() - hours * 3600,) * 2, follow_symlinks=False)


def put(store: Store, text: str) -> str:
    return store.blobs.put(text.encode())


def counts(report: GarbageReport) -> dict[str, int]:
    return {kind.kind: kind.count for kind in report.kinds if kind.count}


def files(root: Path) -> set[str]:
    """All files of a store but those of locks."""
    return {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file() and not p.name.endswith(".turn")}


def test_what_versions_and_measurements_name_stays_and_the_rest_goes(store: Store, publish: Publish) -> None:
    dropped, crop, orphan = put(store, "dropped"), put(store, "crop"), put(store, "orphan")
    out = {"item_id": "x#0", "post_id": "x", "crop_id": "x#0", "reason": "blurred", "crop_blob": dropped}
    version = publish(dropped=(out,))
    add_crops(store, KEY, {"one": [], "two": [put(store, "first"), crop]})
    make_old(store.root)
    before = files(store.root)
    looked = collect_garbage(store)
    assert counts(looked) == {BLOBS: 1}
    assert files(store.root) == before  # looking changes nothing
    report = collect_garbage(store, delete=True)
    assert counts(report) == {BLOBS: 1}
    assert next(kind.bytes for kind in report.kinds if kind.kind == BLOBS) == len("orphan")
    assert before - files(store.root) == {f"blobs/{orphan[:2]}/{orphan}.png"}
    assert verify_version(store, version) == []
    assert counts(collect_garbage(store, delete=True)) == {}


@pytest.mark.parametrize("column", ["blob", "mirror_blob", "crop_blob"])
def test_blobs_are_found_in_the_facts_of_any_stage(store: Store, column: str) -> None:
    blob = put(store, "named")
    table = pa.table({"input": [digest("i"), digest("j")], "width": [1, 2], column: pa.array([blob, None])})
    write_parquet(store.cache / "any-3" / KEY / "f.parquet", table)
    make_old(store.root)
    assert counts(collect_garbage(store)) == {}


def test_only_the_columns_that_can_hold_a_digest_are_read(
    store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()
    add_crops(store, KEY, {"one": [put(store, "crop")]})
    asked: list[str] = []
    iter_batches = pq.ParquetFile.iter_batches

    def spy(self: Any, **options: Any) -> Any:
        asked.extend(options["columns"])
        return iter_batches(self, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    collect_garbage(store)
    assert "crops.list.element.crop_blob" in asked
    assert not {"crops.list.element.box_x", "tags.list.element", "crop_id", "rating"} & set(asked)


def test_what_is_young_stays(store: Store) -> None:
    put(store, "young")
    blob = put(store, "old")
    os.utime(store.blobs.path(blob), (time.time() - 5 * 3600,) * 2)
    report = collect_garbage(store, delete=True, grace_hours=4)
    assert counts(report) == {BLOBS: 1}
    assert sum(kind.young for kind in report.kinds) == 1
    assert len(store.blobs.digests()) == 1


def test_what_killed_writers_left(store: Store, publish: Publish) -> None:
    version = publish()
    dataset = version.folder.parent
    left = [
        store.blobs.folder / "3f" / f".{digest('x')}.png.0123abcd.tmp",
        add_crops(store, KEY, {"one": []}).with_name(".f.parquet.0123abcd.tmp"),
        store.decisions / ".d.parquet.0123abcd.tmp",
        dataset / f".lock.json.{'c' * 32}",
        dataset / f".lock.json.{'d' * 32}.stale",
        store.root / f".gc.lock.json.{'e' * 32}",
        dataset / ".staging-0123456789ab" / "sheets" / "kept.jpg",
        dataset / ".work-0123456789ab" / "crop-00000.parquet",
    ]
    alike = [dataset / ".staging-mine" / "x", store.blobs.folder / "3f" / ".x.tmp", version.folder / ".x.0123abcd.tmp"]
    for path in (*left, *alike):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("part")
    make_old(store.root)
    assert counts(collect_garbage(store, delete=True)) == {TEMPORARY: len(left)}
    assert [path for path in left if path.exists()] == []
    assert [path.exists() for path in alike] == [True] * len(alike)
    assert not (dataset / ".staging-0123456789ab").exists()
    assert verify_version(store, version) == []


def test_one_young_file_keeps_a_scratch_folder(store: Store) -> None:
    folder = store.dataset("faces") / ".work-0123456789ab"
    folder.mkdir(parents=True)
    (folder / "old").touch()
    make_old(store.root)
    (folder / "new").touch()
    os.utime(folder, (1, 1))
    report = collect_garbage(store, delete=True)
    assert counts(report) == {}
    assert folder.exists()


def test_a_running_builds_folder_is_not_called_garbage(store: Store) -> None:
    with hold_dataset(store, "faces", "curate faces"):
        (store.dataset("faces") / ".work-0123456789ab").mkdir()
        make_old(store.root)
        assert counts(collect_garbage(store)) == {}
    assert counts(collect_garbage(store)) == {TEMPORARY: 1}


def test_unused_measurements_go_when_asked_and_the_crops_that_only_they_name(store: Store, publish: Publish) -> None:
    version = publish()
    used, unused = put(store, "used"), put(store, "unused")
    add_crops(store, KEY, {"one": [used]})
    gone = add_crops(store, OTHER_KEY, {"one": [used, unused]})
    say_measured(version, f"crop-1/{KEY}")
    make_old(store.root)
    assert counts(collect_garbage(store, delete=True)) == {}
    report = collect_garbage(store, delete=True, unused_caches=True)
    assert counts(report) == {MEASUREMENTS: 1, BLOBS: 1}
    assert not gone.parent.exists()
    assert (store.cache / "crop-1" / KEY).exists()
    digests = store.blobs.digests()
    assert used in digests
    assert unused not in digests


def test_measurements_that_are_still_added_to_stay(store: Store, publish: Publish) -> None:
    say_measured(publish(), f"crop-1/{KEY}")
    blob = put(store, "crop")
    add_crops(store, OTHER_KEY, {"one": [blob]})
    make_old(store.root)
    add_crops(store, OTHER_KEY, {"two": []})
    report = collect_garbage(store, delete=True, unused_caches=True)
    assert counts(report) == {}
    assert blob in store.blobs.digests()


def test_a_version_that_does_not_say_what_it_measured_keeps_all_measurements(store: Store, publish: Publish) -> None:
    publish()
    add_crops(store, KEY, {"one": [put(store, "crop")]})
    orphan = put(store, "orphan")
    make_old(store.root)
    report = collect_garbage(store, delete=True, unused_caches=True)
    assert counts(report) == {BLOBS: 1}
    assert "faces/v0001" in report.refused[0]
    assert orphan not in store.blobs.digests()


@pytest.mark.parametrize("name", ["manifest.parquet", "ledger.parquet", "version.json"])
@pytest.mark.parametrize("damage", ["gone", "torn", "other"])
def test_a_damaged_version_keeps_everything(store: Store, publish: Publish, name: str, damage: str) -> None:
    version = publish(dropped=({"item_id": "x#0", "post_id": "x", "reason": "blurred"},))
    path = version.folder / name
    if damage == "gone":
        path.unlink()
    elif damage == "torn":
        path.write_bytes(path.read_bytes()[:-40])
    elif name.endswith(".parquet"):
        pq.write_table(pq.read_table(path).slice(1), path)  # a sound table, but not the one that was published
    else:
        path.write_text("[]")
    put(store, "orphan")
    store.thumbnails.put(digest("nobody"), np.zeros((8, 8, 3), np.uint8))
    add_crops(store, KEY, {"one": []})
    (store.blobs.folder / f".{digest('x')}.png.0123abcd.tmp").touch()
    make_old(store.root)
    report = collect_garbage(store, delete=True, unused_caches=True)
    assert counts(report) == {TEMPORARY: 1}
    assert report.refused[0].startswith("faces/v0001 is not a whole version")
    assert "backup" in report.refused[-1]
    assert len(store.blobs.digests()) == 5


def test_a_measurement_that_cannot_be_read_just_now_keeps_everything(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = add_crops(store, KEY, {"one": [put(store, "crop")]})
    make_old(store.root)
    open_file = Path.open

    def failing(self: Path, *arguments: Any, **options: Any) -> Any:
        if self == path:
            raise PermissionError(13, "Permission denied")
        return open_file(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", failing)
    report = collect_garbage(store, delete=True)
    assert counts(report) == {}
    assert "Permission denied" in report.refused[0]


def test_a_broken_measurement_goes_for_no_build_can_read_it(store: Store) -> None:
    path = add_crops(store, KEY, {"one": [put(store, "crop")]})
    path.write_bytes(path.read_bytes()[:-9])
    make_old(store.root)
    report = collect_garbage(store, delete=True)
    assert counts(report) == {MEASUREMENTS: 1, BLOBS: 1}
    assert report.refused == []


def test_a_copy_of_a_version_names_blobs_too(store: Store, publish: Publish) -> None:
    folder = publish().folder
    folder.rename(folder.with_name("v0001-before"))
    make_old(store.root)
    report = collect_garbage(store, delete=True)
    assert counts(report) == {}
    assert len(store.blobs.digests()) == 4
    assert report.unknown == ["datasets/faces/v0001-before"]


def test_thumbnails_of_unknown_pictures_go(store: Store, publish: Publish) -> None:
    version = publish(count=1)
    add_crops(store, KEY, {"one": ["crop"]})
    black = np.zeros((8, 8, 3), np.uint8)
    known = [version.manifest()["pixel_digest"][0].as_py(), digest("one"), digest("crop")]
    for name in (*known, digest("nobody")):
        store.thumbnails.put(name, black)
    make_old(store.root)
    assert counts(collect_garbage(store, delete=True)) == {THUMBNAILS: 1}
    assert all(store.thumbnails.path(name) for name in known)
    assert store.thumbnails.path(digest("nobody")) is None


def test_what_kaobako_did_not_make_is_left_alone_and_counted(store: Store, tmp_path: Path) -> None:
    put(store, "orphan")
    secret = tmp_path / "elsewhere.png"
    secret.touch()
    link = store.blobs.folder / "3f"
    link.parent.mkdir(exist_ok=True)
    strange = ["notes.txt", f"blobs/aa/{digest('b')}.png", "blobs/aa/x.png", "cache/mine/f", "datasets/Not A Name/f"]
    for name in strange:
        (store.root / name).parent.mkdir(parents=True, exist_ok=True)
        (store.root / name).touch()
    outside = tmp_path / "outside"
    (outside).mkdir()
    (outside / f"3f{digest('c')[2:]}.png").touch()
    link.symlink_to(outside)
    make_old(store.root)
    make_old(outside)
    before = files(store.root)
    report = collect_garbage(store, delete=True)
    assert counts(report) == {BLOBS: 1}
    assert report.unknown_count == len(strange) + 1
    assert len(before - files(store.root)) == 1
    assert len(list(outside.iterdir())) == 1


def test_no_store_no_deletion(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a store"):
        collect_garbage(Store(tmp_path / "typo"), delete=True)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_deleted_while_a_build_runs(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "STEP_BACK", 0.1)
    put(store, "orphan")
    make_old(store.root)
    with hold_dataset(store, "faces", "curate faces"):
        with pytest.raises(LockedError, match="curate faces"):
            collect_garbage(store, delete=True)
        assert counts(collect_garbage(store)) == {BLOBS: 1}  # looking is free
    assert len(store.blobs.digests()) == 1


def test_deleting_stops_when_the_store_was_taken_over(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(8):
        put(store, f"orphan {k}")
    make_old(store.root)
    monkeypatch.setattr(gc, "_PROVE_EVERY", 0.0)
    remove = gc.remove_file

    def lose(path: Path) -> None:
        remove(path)
        (store.root / lock.STORE_LOCK_FILE).unlink(missing_ok=True)

    monkeypatch.setattr(gc, "remove_file", lose)
    with pytest.raises(LockedError, match="no longer holds the store"):
        collect_garbage(store, delete=True)
    assert len(store.blobs.digests()) == 7


def test_what_cannot_be_deleted_is_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    stubborn, easy = put(store, "stubborn"), put(store, "easy")
    make_old(store.root)
    remove = gc.remove_file

    def refuse(path: Path) -> None:
        if stubborn in path.name:
            raise PermissionError(1, "Operation not permitted")
        remove(path)

    monkeypatch.setattr(gc, "remove_file", refuse)
    report = collect_garbage(store, delete=True)
    assert counts(report) == {BLOBS: 1}
    assert report.failed == [f"blobs/{stubborn[:2]}/{stubborn}.png stays: Operation not permitted"]
    assert easy not in store.blobs.digests()


@pytest.mark.parametrize("after", [1, 3, 6])
def test_killed_in_the_middle_it_leaves_a_sound_store(store: Store, publish: Publish, after: int) -> None:
    version = publish()
    say_measured(version, f"crop-1/{KEY}")
    add_crops(store, KEY, {"one": [put(store, "used")]})
    for k in range(3):
        add_crops(store, OTHER_KEY, {f"post {k}": [put(store, f"unused {k}"), put(store, f"more {k}")]})
    make_old(store.root)
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPING, str(store.root), str(after)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    gone = [process.stdout.readline() for _ in range(after)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert all(gone)
    assert all("cache" in line for line in gone[:3])  # measurements before the blobs that they name
    assert [verify_version(store, v) for v in list_versions(store)] == [[]]
    with hold_dataset(store, "faces", "curate faces"):  # the dead gc is in nobody's way
        pass
    report = collect_garbage(store, delete=True, unused_caches=True)
    assert sum(counts(report).values()) == 9 - after
    assert len(store.blobs.digests()) == 5


def test_digest_sets_agree_with_sets_of_strings() -> None:
    names = [digest(str(k)) for k in range(500)] + ["00" * 32, "ff" * 32, "ab" * 31 + "00", "00" * 31 + "ab"]
    digests = DigestSet()
    digests.add(pa.array([*names[::2], None, "short", "G" * 64, names[0].upper()], pa.string()))
    digests.add(pa.array(names[::4], pa.string()))
    assert len(digests) == len(set(names[::2]))
    assert digests.contains(names).tolist() == [name in set(names[::2]) for name in names]
    assert digests.contains([]).tolist() == []
    assert DigestSet().contains(names[:2]).tolist() == [False, False]
