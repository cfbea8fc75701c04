"""The stamp of a source: another one whenever a build could come to something else, and known without reading."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datasets.errors import SourceError
from datasets.sources.config import RatingVintage, SourceConfig, SourceKind
from datasets.sources.files import FileList
from datasets.sources.listing import SourceListing
from datasets.sources.read import list_source, read_posts, stamp_source

Change = Callable[[Path], Any]


@pytest.fixture
def folder(tmp_path: Path) -> SourceConfig:
    root = tmp_path / "pictures"
    for name in ("a.png", "b/c.jpg", "notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"picture")
    (root / "link.png").symlink_to("a.png")
    (root / "meta.csv").write_text("path,rating\na.png,g\n")
    return SourceConfig(kind=SourceKind.FOLDER, root=root, metadata="meta.csv")


@pytest.fixture
def dump(tmp_path: Path) -> SourceConfig:
    root = tmp_path / "dump"
    for number in (1, 2):
        path = root / "original" / f"{number:04d}" / f"{number}.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"picture")
    (root / "metadata").mkdir()
    (root / "metadata" / "posts.json").write_text(json.dumps({"id": 1, "rating": "g", "file_ext": "png"}) + "\n")
    return SourceConfig(kind=SourceKind.DANBOORU, root=root)


def swap_two(root: Path) -> None:
    (root / "a.png").rename(root / "x.png")
    (root / "b" / "c.jpg").rename(root / "a.png")
    (root / "x.png").rename(root / "b" / "c.jpg")


def turn_link(root: Path) -> None:
    (root / "link.png").unlink()
    (root / "link.png").symlink_to("b/c.jpg")


def link_outside(root: Path) -> None:
    (root.parent / "secret.txt").write_text("secret")
    (root / "escape.txt").symlink_to(root.parent / "secret.txt")


FOLDER_CHANGES: dict[str, Change] = {
    "a picture was added": lambda root: (root / "new.png").write_bytes(b"new"),
    "an empty picture was added": lambda root: (root / "new.png").touch(),
    "a picture was removed": lambda root: (root / "a.png").unlink(),
    "a picture was renamed": lambda root: (root / "a.png").rename(root / "z.png"),
    "a picture was moved": lambda root: (root / "a.png").rename(root / "b" / "a.png"),
    "a picture has another size": lambda root: (root / "a.png").write_bytes(b"another"),
    "a picture was touched": lambda root: os.utime(root / "a.png", ns=(1, 1)),
    "two pictures were swapped": swap_two,
    "a link was turned": turn_link,
    "a link out of the folder was added": link_outside,
    "the metadata was changed": lambda root: (root / "meta.csv").write_text("path,rating\na.png,e\n"),
    "the metadata was replaced": lambda root: os.utime(root / "meta.csv", ns=(1, 1)),
}


@pytest.mark.parametrize("change", FOLDER_CHANGES)
def test_a_folder_that_changed_has_another_stamp(folder: SourceConfig, change: str) -> None:
    before = stamp_source(folder)
    FOLDER_CHANGES[change](folder.root)
    assert stamp_source(folder) != before


@pytest.mark.parametrize("name", [".hidden.png", "more.txt", ".git/x.png", "empty/.keep"])
def test_what_is_no_picture_changes_nothing(folder: SourceConfig, name: str) -> None:
    before = stamp_source(folder)
    (folder.root / name).parent.mkdir(exist_ok=True)
    (folder.root / name).write_bytes(b"text")
    assert stamp_source(folder) == before
    read_posts(folder)
    assert stamp_source(folder) == before


DUMP_CHANGES: dict[str, Change] = {
    "a picture was added": lambda root: (root / "original" / "0001" / "1001.png").write_bytes(b"new"),
    "a picture was removed": lambda root: (root / "original" / "0002" / "2.png").unlink(),
    "a picture was changed": lambda root: os.utime(root / "original" / "0001" / "1.png", ns=(1, 1)),
    "metadata grew": lambda root: (root / "metadata" / "posts.json").open("a").write('{"id": 2}\n'),
    "metadata was added": lambda root: (root / "metadata" / "more.json").write_text("{}"),
    "metadata was renamed": lambda root: (root / "metadata" / "posts.json").rename(root / "metadata" / "a.json"),
}


@pytest.mark.parametrize("change", DUMP_CHANGES)
def test_a_dump_that_changed_has_another_stamp(dump: SourceConfig, change: str) -> None:
    before = stamp_source(dump)
    assert stamp_source(dump) == before
    DUMP_CHANGES[change](dump.root)
    assert stamp_source(dump) != before


@pytest.mark.parametrize(
    "setting", [{"recursive": False}, {"metadata": ""}, {"rating_vintage": RatingVintage.S_IS_SAFE}]
)
def test_other_settings_have_another_stamp(folder: SourceConfig, setting: dict[str, Any]) -> None:
    assert stamp_source(folder.model_copy(update=setting)) != stamp_source(folder)


def test_no_name_can_pretend_to_be_two() -> None:
    """Names and stamps are joined before they are hashed: where one ends must be told."""
    lists = [
        (["a", "b"], ["1", "2"], ()),
        (["a\nb"], ["12"], ()),
        (["ab"], ["12"], ()),
        (["a", "b"], ["12", ""], ()),
        (["a", "b"], ["1", "2"], ("a",)),
        (["b", "a"], ["1", "2"], ()),
        (["a", "b\n2\n1"], ["2"], ()),
        ([], [], ("a", "b")),
        ([], [], ()),
    ]
    listings = [
        SourceListing(SourceConfig(), FileList(names, [0] * len(names), stamps, set(outside)), ())
        for names, stamps, outside in lists
    ]
    assert len({listing.stamp() for listing in listings}) == len(listings)


def test_what_is_not_there_is_said_before_anything_is_read(folder: SourceConfig, dump: SourceConfig) -> None:
    for config, update, message in (
        (folder, {"root": folder.root / "absent"}, "does not exist"),
        (folder, {"metadata": "absent.csv"}, "CSV or Parquet"),
        (folder, {"root": dump.root / "metadata", "metadata": ""}, "no pictures"),
        (dump, {"root": dump.root / "absent"}, "does not exist"),
        (dump, {"metadata": "absent/*"}, "no metadata files"),
    ):
        with pytest.raises(SourceError, match=message):
            stamp_source(config.model_copy(update=update))


def test_posts_can_be_read_from_the_listing_that_was_stamped(folder: SourceConfig, dump: SourceConfig) -> None:
    for config in (folder, dump):
        listing = list_source(config)
        expected = read_posts(config)
        assert listing.stamp() == stamp_source(config)
        assert read_posts(config, listing).equals(expected)
        next(path for path in config.root.rglob("*.png") if not path.is_symlink()).unlink()
        assert read_posts(config, listing).equals(expected)  # the source was not listed again
        assert not read_posts(config).equals(expected)
