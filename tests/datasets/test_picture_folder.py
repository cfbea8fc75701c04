"""A plain folder as a training set: what counts as its pictures, what is said of unfit ones, what its digest covers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datasets.errors import SourceError
from datasets.picture_folder import check_folder, list_folder
from datasets.pictures import encode_png

Draw = Callable[..., np.ndarray]


@pytest.fixture
def folder(tmp_path: Path, draw_noise: Draw) -> Path:
    """Five sound pictures of 16 px, two of them in sub-folders, and what is no picture of it."""
    root = tmp_path / "pictures"
    for k, name in enumerate(("b.png", "a.PNG", "x/c.png", "x.png", "x/y/d.png")):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(draw_noise(k)))
    (root / "notes.txt").write_text("no picture")
    (root / ".hidden.png").write_bytes(b"")
    return root


def test_pictures_are_listed_in_the_order_of_their_names(folder: Path) -> None:
    listed = list_folder(folder)
    assert listed.names == ("a.PNG", "b.png", "x.png", "x/c.png", "x/y/d.png")
    assert (listed.outside, listed.name) == ((), "pictures")
    assert not any(".." in name for name in listed.names)


def test_links_that_leave_the_folder_are_named_and_never_read(folder: Path, tmp_path: Path, draw_noise: Draw) -> None:
    outside = tmp_path / "private.png"
    outside.write_bytes(encode_png(draw_noise(9)))
    (folder / "m.png").symlink_to(outside)
    (folder / "n.png").symlink_to("../private.png")
    (folder / "again.png").symlink_to("b.png")
    (folder / "up").symlink_to("..")
    (folder / "same").symlink_to("x")  # to a folder within: not followed, or its pictures came twice
    listed = list_folder(folder)
    assert listed.outside == ("m.png", "n.png", "up")
    assert listed.names == ("a.PNG", "again.png", "b.png", "x.png", "x/c.png", "x/y/d.png")


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no folder .*nowhere.*--data"):
        list_folder(tmp_path / "nowhere")
    (tmp_path / "text.txt").write_text("")
    with pytest.raises(SourceError, match="no pictures"):
        list_folder(tmp_path)


def test_the_digest_is_that_of_sha256sum(folder: Path) -> None:
    listed = list_folder(folder)
    lines = [hashlib.sha256((folder / name).read_bytes()).hexdigest() + f"  {name}\0" for name in listed.names]
    checked = check_folder(listed, (16, 16), workers=2)
    assert checked.digest == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert [digest.hex() for digest in checked.digests] == [line.split()[0] for line in lines]
    assert check_folder(listed, (16, 16), workers=1) == checked


@pytest.mark.parametrize("change", ["rename", "content", "remove", "swap"])
def test_the_digest_changes_with_names_and_files(folder: Path, draw_noise: Draw, change: str) -> None:
    before = check_folder(list_folder(folder), (16, 16), 1).digest
    if change == "rename":
        (folder / "b.png").rename(folder / "b2.png")
    elif change == "content":
        (folder / "b.png").write_bytes(encode_png(draw_noise(77)))
    elif change == "remove":
        (folder / "b.png").unlink()
    else:
        first, second = (folder / "b.png").read_bytes(), (folder / "x.png").read_bytes()
        (folder / "b.png").write_bytes(second)
        (folder / "x.png").write_bytes(first)
    assert check_folder(list_folder(folder), (16, 16), 1).digest != before
    os.utime(folder / "x.png", (0, 0))  # when it was written does not matter


def test_all_unfit_pictures_are_named_at_once(folder: Path, draw_noise: Draw) -> None:
    (folder / "torn.png").write_bytes(encode_png(draw_noise(1))[:-30])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "small.png").write_bytes(encode_png(draw_noise(2, 8)))
    (folder / "wide.png").write_bytes(encode_png(np.zeros((16, 20, 3), np.uint8)))
    with pytest.raises(SourceError) as refused:
        check_folder(list_folder(folder), (16, 16), workers=3)
    said = str(refused.value)
    assert "4 of 9 pictures" in said
    for line in ("empty.jpg: zero_byte", "small.png: 8x8: too small", "torn.png: truncated", "wide.png: 20x16: not sq"):
        assert f"\n  {line}" in said
    assert "--resolution" in said
    assert "a.PNG" not in said


def test_twenty_are_named_and_the_rest_is_counted(tmp_path: Path) -> None:
    for k in range(23):
        (tmp_path / f"{k:02d}.png").write_bytes(b"no picture")
    with pytest.raises(SourceError, match="23 of 23 pictures") as refused:
        check_folder(list_folder(tmp_path), (16, 16), workers=2)
    assert str(refused.value).count("\n  ") == 21
    assert "19.png" in str(refused.value)
    assert "20.png" not in str(refused.value)
    assert "… and 3 more" in str(refused.value)


@pytest.mark.parametrize(
    ("size", "fits"), [((12, 16), True), ((24, 32), True), ((16, 12), False), ((9, 12), False), ((25, 32), False)]
)
def test_pictures_of_another_aspect_or_smaller_ones_do_not_fit(
    tmp_path: Path, size: tuple[int, int], fits: bool
) -> None:
    (tmp_path / "one.png").write_bytes(encode_png(np.zeros((*size, 3), np.uint8)))
    if fits:
        assert check_folder(list_folder(tmp_path), (12, 16), 1).digest
    else:
        with pytest.raises(SourceError, match=f"{size[1]}x{size[0]}: (another aspect|too small)"):
            check_folder(list_folder(tmp_path), (12, 16), 1)


def test_the_caller_hears_how_far_it_is(folder: Path) -> None:
    heard: list[tuple[int, int]] = []
    for k in range(9):  # more than are begun ahead
        (folder / f"more-{k}.png").write_bytes((folder / "b.png").read_bytes())
    check_folder(list_folder(folder), (16, 16), 1, lambda done, total: heard.append((done, total)))
    assert heard == [(k, 14) for k in range(1, 15)]


def test_names_that_are_no_text_are_trained_on(tmp_path: Path, draw_noise: Draw) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.png"
    try:
        with open(path, "wb") as file:  # noqa: PTH123 - a name that is no text
            file.write(encode_png(draw_noise(0)))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert check_folder(list_folder(tmp_path), (16, 16), 1).digest
    with pytest.raises(SourceError, match=r"\\xff.png: 16x16: too small"):
        check_folder(list_folder(tmp_path), (32, 32), 1)
