"""The store: where things lie, and how versions are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from datasets.errors import StoreError
from datasets.store import Store


@pytest.mark.parametrize(
    "name", ["", "..", "../faces", "a/b", "Faces", "-faces", "_faces", "faces ", "faces\n", "a" * 64, "顔"]
)
def test_names_that_are_no_plain_word_are_refused(store: Store, name: str) -> None:
    with pytest.raises(StoreError, match="not a dataset name"):
        store.dataset(name)


def test_an_unknown_dataset_names_those_there_are(store: Store, publish: Callable[..., object]) -> None:
    with pytest.raises(StoreError, match=r"datasets there: none.*kaobako curate"):
        store.resolve("faces")
    publish(name="paintings")
    with pytest.raises(StoreError, match="datasets there: paintings"):
        store.resolve("faces@v1")


def test_references(store: Store, publish: Callable[..., object]) -> None:
    for count in (1, 2):
        publish(count)
    assert store.resolve("faces") == ("faces", 2)
    assert store.resolve("faces@v1") == store.resolve("faces@1") == ("faces", 1)
    with pytest.raises(StoreError, match="no version 3; there are v1, v2"):
        store.resolve("faces@v3")


@pytest.mark.parametrize("reference", ["faces@", "faces@vv1", "faces@v1@v2", "@v1", "faces@-1", ""])
def test_malformed_references_are_errors_not_guesses(
    store: Store, publish: Callable[..., object], reference: str
) -> None:
    publish()
    with pytest.raises(StoreError):
        store.resolve(reference)


def test_only_version_folders_count(store: Store, publish: Callable[..., object]) -> None:
    publish()
    for name in ("v1", "v0009.bak", ".staging-abc", "lock.json"):
        (store.dataset("faces") / name).mkdir()
    (store.root / "datasets" / ".DS_Store").touch()
    assert store.version_numbers("faces") == [1]
    assert store.dataset_names() == ["faces"]


def test_more_than_9999_versions_stay_in_order(store: Store) -> None:
    for number in (9999, 10000, 2):
        store.version_folder("faces", number).mkdir(parents=True)
    assert store.version_numbers("faces") == [2, 9999, 10000]


def test_a_store_can_be_moved(store: Store, publish: Callable[..., object], tmp_path: Path) -> None:
    publish()
    moved = Store(store.root.rename(tmp_path / "elsewhere"))
    assert moved.resolve("faces") == ("faces", 1)
    assert len(moved.blobs.digests()) == 4
