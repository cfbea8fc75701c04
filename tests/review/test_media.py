"""Which file stands for an item, and that nothing outside the source is ever shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from datasets.blobs import BlobFolder
from datasets.review.media import MediaFinder, Showing, draw_placeholder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    Image.new("RGB", (30, 20), "red").save(folder / "a.png")
    return folder


@pytest.fixture
def finder(tmp_path: Path, source: Path) -> MediaFinder:
    return MediaFinder(BlobFolder(tmp_path / "blobs").path, source, tmp_path / "placeholders")


def test_the_published_image_comes_before_the_crop_and_the_crop_before_the_source(
    tmp_path: Path, finder: MediaFinder
) -> None:
    blobs = BlobFolder(tmp_path / "blobs")
    published, crop = blobs.put(b"published"), blobs.put(b"crop")
    row = {
        "blob": published,
        "crop_blob": crop,
        "source_path": "a.png",
        "width": 8,
        "height": 9,
        "box_w": 4,
        "box_h": 5,
    }
    found = finder.find(row)
    assert (found.path, found.showing, found.width, found.height) == (blobs.path(published), Showing.PUBLISHED, 8, 9)
    found = finder.find(row | {"blob": None})
    assert (found.path, found.showing, found.width, found.height) == (blobs.path(crop), Showing.CROP, 4, 5)
    found = finder.find(row | {"blob": "0" * 64, "crop_blob": None})  # a blob that was collected as garbage
    assert (found.path.name, found.showing, found.width, found.height) == ("a.png", Showing.SOURCE, 30, 20)


def test_a_picture_that_lies_on_its_side_is_measured_as_it_is_seen(source: Path, finder: MediaFinder) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(source / "turned.jpg", exif=exif)
    found = finder.find({"source_path": "turned.jpg"})
    assert (found.width, found.height) == (20, 30)


def _link_to_outside(source: Path) -> str:
    (source / "link.png").symlink_to(source.parent / "secret.png")
    return "link.png"


@pytest.mark.parametrize(
    "escape",
    [
        lambda source: "../secret.png",
        lambda source: str(source.parent / "secret.png"),
        lambda source: "sub/../../secret.png",
        _link_to_outside,
        lambda source: "a.png\0.jpg",
        lambda source: ".",
        lambda source: "x" * 5000,
    ],
)
def test_a_path_that_leaves_the_source_is_never_shown(
    source: Path, finder: MediaFinder, escape: Callable[[Path], str]
) -> None:
    Image.new("RGB", (5, 5)).save(source.parent / "secret.png")
    found = finder.find({"source_path": escape(source), "reason": "file_missing"})
    assert found.showing is Showing.NOTHING
    assert found.path.parent == finder.placeholder_folder


def test_what_is_no_picture_gets_a_placeholder(source: Path, finder: MediaFinder) -> None:
    (source / "page.png").write_text("<html>404</html>")
    (source / "empty.jpg").touch()
    for name in ("page.png", "empty.jpg", "gone.png"):
        assert finder.find({"source_path": name, "reason": "not_a_picture"}).showing is Showing.NOTHING


def test_a_picture_too_large_for_a_browser_gets_a_placeholder(
    source: Path, finder: MediaFinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.review.media.MAX_SHOWN_PIXELS", 599)
    assert finder.find({"source_path": "a.png", "reason": "bomb"}).showing is Showing.NOTHING


def test_one_placeholder_is_drawn_for_each_reason(finder: MediaFinder) -> None:
    paths = {finder.find({"reason": reason}).path for reason in ("banned", "banned", "deleted", None)}
    assert len(paths) == len(list(finder.placeholder_folder.iterdir())) == 3
    with Image.open(sorted(paths)[0]) as image:
        assert image.size == (256, 256)


def test_the_placeholder_says_its_reason() -> None:
    assert draw_placeholder("banned").tobytes() != draw_placeholder("deleted").tobytes()
    assert draw_placeholder("顔箱 " + "very long reason " * 40).size == (256, 256)
