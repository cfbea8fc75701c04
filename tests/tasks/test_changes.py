"""Is there anything new? Every input that a build depends on must be noticed, by name; nothing else must."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from datasets.decisions import append_decisions
from datasets.pictures import decode_picture
from datasets.store import Store
from flows.recipe import make_recipe
from tasks import clean
from tasks.build import BuildResult
from tasks.changes import CHECKED_FILE, Changes, look_for_changes
from tasks.plan import BuildPlan

Build = Callable[..., BuildResult]
Look = Callable[..., Changes]


@pytest.fixture
def source(tmp_path: Path, draw: Callable[..., np.ndarray], png: Callable[[np.ndarray], bytes]) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for k in range(4):
        (folder / f"{k}.png").write_bytes(png(draw(k)))
    return folder


@pytest.fixture
def plan(recipe: Callable[..., dict[str, Any]]) -> Callable[..., BuildPlan]:
    return lambda **changes: make_recipe(recipe(**changes), "test").plan()


@pytest.fixture
def look(store: Store, plan: Callable[..., BuildPlan]) -> Look:
    return lambda **changes: look_for_changes(plan(**changes), store)


def test_before_the_first_build_everything_is_new(source: Path, look: Look) -> None:
    found = look()
    assert (found.nothing, found.version) == (False, None)
    assert "no version" in found.reasons[0]


def test_after_a_build_nothing_is_new_and_nothing_is_opened(
    source: Path, build: Build, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = build()

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a picture was opened")

    monkeypatch.setattr("datasets.pictures.decode_picture", refuse)
    monkeypatch.setattr("PIL.Image.open", refuse)
    found = look()
    assert found.nothing
    assert found.version is not None
    assert found.version.reference == result.version.reference


def test_a_build_that_published_nothing_new_is_remembered_too(source: Path, build: Build, look: Look) -> None:
    build()
    os.utime(source / "0.png")
    assert not look().nothing
    assert not build().published
    assert look().nothing


def add(source: Path) -> None:
    shutil.copy(source / "0.png", source / "new.png")


def rewrite(source: Path) -> None:
    path = source / "0.png"
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(bytes(data))  # as many bytes as before


@pytest.mark.parametrize(
    "change",
    [
        add,
        rewrite,
        lambda source: (source / "1.png").unlink(),
        lambda source: (source / "1.png").rename(source / "renamed.png"),
        lambda source: (source / "2.png").write_bytes(b""),
    ],
    ids=["new", "changed", "gone", "renamed", "emptied"],
)
def test_a_change_of_the_source_is_noticed(
    source: Path, build: Build, look: Look, change: Callable[[Path], None]
) -> None:
    build()
    change(source)
    found = look()
    assert [reason.split()[0] for reason in found.reasons] == ["files"]
    build()
    assert look().nothing


def test_a_change_of_metadata_is_noticed(source: Path, build: Build, look: Look) -> None:
    table = source / "posts.csv"
    table.write_text("path,rating\n0.png,general\n1.png,general\n")
    changes = {"source.metadata": "posts.csv", "filter.ratings": ["general", "unrated"]}
    first = build(**changes)
    assert look(**changes).nothing
    table.write_text("path,rating\n0.png,explicit\n1.png,general\n")
    assert not look(**changes).nothing
    second = build(**changes)
    assert "0.png" in first.version.manifest()["post_id"].to_pylist()
    assert second.version.ledger().filter(pa.compute.equal(second.version.ledger()["post_id"], "0.png"))[
        "reason"
    ].to_pylist() == ["rating"]


def test_a_changed_recipe_is_named_by_its_key(source: Path, build: Build, look: Look) -> None:
    build()
    assert look(**{"clean.min_blur": 0.4}).reasons == ("the recipe: clean.min_blur 0.3 -> 0.4",)


def test_a_decision_is_noticed(source: Path, build: Build, look: Look, store: Store) -> None:
    digest = build().version.manifest()["pixel_digest"][0].as_py()
    said = {"pixel_digest": digest, "decision": "reject", "who": "mika", "decided_at": datetime.now(UTC)}
    append_decisions(store.decisions, pa.Table.from_pylist([said]))
    assert look().reasons == ("people have decided on crops",)


def test_another_stage_version_and_other_weights_are_noticed(
    source: Path, build: Build, store: Store, plan: Callable[..., BuildPlan]
) -> None:
    build()
    stages = [
        (replace(stage, version=7) if stage.name == "clean" else stage, params) for stage, params in plan().stages
    ]
    found = look_for_changes(replace(plan(), stages=tuple(stages)), store)
    assert found.reasons == (f"the stage clean: version {clean.STAGE_VERSION} is 7 now",)
    stages = [
        (replace(stage, weights=lambda *_: {"net": "abc"}) if stage.name == "clean" else stage, params)
        for stage, params in plan().stages
    ]
    found = look_for_changes(replace(plan(), stages=tuple(stages)), store)
    assert found.reasons == ("weights: net none -> abc",)


def test_another_program_is_noticed(source: Path, build: Build, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    build()
    monkeypatch.setattr("tasks.changes.library_versions", lambda: {"numpy": "9.9"})
    assert len(look().reasons) == 1
    assert look().reasons[0].startswith("this program: ")


def test_a_missing_blob_is_new_work(source: Path, build: Build, look: Look, store: Store) -> None:
    blob = build().version.manifest()["blob"][0].as_py()
    path = store.blobs.path(blob)
    before = path.read_bytes()
    path.unlink()
    assert "blobs of faces@v1 are missing" in look().reasons[0]
    build()
    assert look().nothing
    assert np.array_equal(decode_picture(path.read_bytes()).rgb, decode_picture(before).rgb)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"version": 1}', b'{"version": 1, "inputs": 3}', b"\xff"])
def test_a_note_that_cannot_be_read_means_look_at_everything(
    source: Path, build: Build, look: Look, store: Store, content: bytes
) -> None:
    build()
    (store.dataset("faces") / CHECKED_FILE).write_bytes(content)
    assert not look().nothing


@pytest.mark.parametrize("name", ["manifest.parquet", "ledger.parquet", "version.json", "README.md"])
def test_a_damaged_version_is_new_work_and_is_replaced(
    source: Path, build: Build, look: Look, store: Store, name: str
) -> None:
    first = build()
    (first.version.folder / name).unlink()
    assert not look().nothing
    second = build()
    assert (second.published, second.version.number) == (True, 2)
    assert second.version.content_digest == first.version.content_digest
    assert look().nothing


def test_a_missing_crop_of_a_dropped_item_is_new_work(source: Path, build: Build, look: Look, store: Store) -> None:
    result = build(**{"clean.min_side": 97})
    blob = result.version.ledger()["crop_blob"][0].as_py()
    store.blobs.path(blob).unlink()
    assert not look(**{"clean.min_side": 97}).nothing
    build(**{"clean.min_side": 97})
    assert store.blobs.is_sound(blob)
    assert look(**{"clean.min_side": 97}).nothing


@pytest.mark.parametrize("reader", ["tasks.fingerprint.digest_file", "tasks.crop.locate"])
def test_a_file_that_could_not_be_read_is_tried_again(
    source: Path, build: Build, look: Look, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    """Its stamp is the same the next time, so the last build's inputs must not be believed."""

    def fail(*arguments: object) -> Path:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(reader, fail)
        first = build()
    assert first.unread == 4
    assert not look().nothing
    assert len(build().version.manifest()) == 4
    assert look().nothing
