"""Labels of a folder: its sub-folders, or dataset.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.folder_labels import listed_labels, subfolder_labels
from datasets.labels import NO_CLASS, LabelError
from datasets.picture_folder import PictureFolder, list_folder

NAMES = ("cats/a.png", "cats/old/b.png", "dogs/c.png")


@pytest.fixture
def folder(tmp_path: Path) -> PictureFolder:
    return PictureFolder(tmp_path, NAMES, ())


def write(folder: PictureFolder, labels: Any) -> None:
    (folder.root / "dataset.json").write_text(json.dumps({"labels": labels}))


def test_top_folders_are_classes(folder: PictureFolder) -> None:
    names, rows = subfolder_labels(folder)
    assert names == ("cats", "dogs")
    assert (rows.tolist(), rows.dtype) == ([0, 0, 1], np.int64)


def test_a_picture_in_no_folder_has_no_class(tmp_path: Path) -> None:
    assert subfolder_labels(PictureFolder(tmp_path, ("a/b.png", "c.png"), ()))[1].tolist() == [0, NO_CLASS]
    with pytest.raises(LabelError, match="no sub-folder"):
        subfolder_labels(PictureFolder(tmp_path, ("b.png", "c.png"), ()))


def test_class_numbers_of_the_file_follow_the_folder(folder: PictureFolder) -> None:
    write(folder, [["dogs/c.png", 0], ["cats/a.png", 3], ["cats\\old/b.png", 1], ["gone.png", 9]])
    names, rows = listed_labels(folder)
    assert names == ("0", "1", "2", "3")
    assert (rows.tolist(), rows.dtype) == ([3, 1, 0], np.int64)


def test_vectors_of_the_file_are_taken_as_they_are(folder: PictureFolder) -> None:
    write(folder, [[name, [k, 0.5]] for k, name in enumerate(NAMES)])
    names, rows = listed_labels(folder)
    assert names == ("0", "1")
    assert (rows.tolist(), rows.dtype) == ([[0, 0.5], [1, 0.5], [2, 0.5]], np.float32)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([["cats/a.png", 0]], r"no label for 2 of 3 .*\(cats/old/b.png, dogs/c.png\)"),
        ([[name, -1] for name in NAMES], "class numbers of 0 to"),
        ([[name, True] for name in NAMES], "class numbers"),
        ([[name, 10**9] for name in NAMES], "class numbers"),
        ([[name, [k] * (1 + k)] for k, name in enumerate(NAMES)], "equally long .*cats/old/b.png, dogs/c.png"),
        ([[name, []] for name in NAMES], "equally long"),
        ([["cats/a.png", 0], ["cats/old/b.png", [1]], ["dogs/c.png", 1]], "equally long"),
        ([[name, [float("nan")]] for name in NAMES], "equally long"),
        ([[name, [1e300]] for name in NAMES], "equally long"),
        ([["../private.png", 0]], "does not lie in the folder"),
        ([["/etc/private.png", 0]], "does not lie in the folder"),
        ([["cats/../../private.png", 0]], "does not lie in the folder"),
        ([["cats/a.png", 0], ["cats/a.png", 1]], "two labels: 0 and 1"),
        ([["cats/a.png"]], r"must be \[name, label\]"),
        ([], "has no labels"),
        (None, "has no labels"),
    ],
)
def test_a_file_that_cannot_be_used_is_explained(folder: PictureFolder, labels: Any, message: str) -> None:
    write(folder, labels)
    with pytest.raises(LabelError, match=message):
        listed_labels(folder)


def test_a_file_that_is_missing_or_broken_is_explained(folder: PictureFolder) -> None:
    with pytest.raises(LabelError, match=r"there is no .*dataset\.json"):
        listed_labels(folder)
    for text in ("{", "[" * 100_000, "[]"):
        (folder.root / "dataset.json").write_text(text)
        with pytest.raises(LabelError, match=r"dataset\.json (cannot be read|has no labels)"):
            listed_labels(folder)


def test_a_file_outside_is_not_read_through_a_link(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    root.mkdir()
    (root / "a.png").write_bytes(b"")
    (tmp_path / "labels.json").write_text('{"labels": [["a.png", 0]]}')
    (root / "dataset.json").symlink_to(tmp_path / "labels.json")
    with pytest.raises(LabelError, match="leaves the source folder"):
        listed_labels(list_folder(root))
