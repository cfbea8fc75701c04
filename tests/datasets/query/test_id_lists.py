"""Lists of ids in files: what a line is, and a name that is only good for its content."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from datasets.errors import SourceError
from datasets.query import pin_ids, read_ids


def test_lines_blank_lines_comments_and_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_bytes("\ufeff12\r\n# the others\n\n 7 \n12\rfolder/ä 1.png".encode())
    found = read_ids(str(path))
    assert found.ids.to_pylist() == ["12", "7", "folder/ä 1.png"]
    assert found.name == f"{path}@sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_a_list_without_ids_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text("# nothing yet\n")
    assert read_ids(str(path)).ids.to_pylist() == []


def test_a_pinned_name_is_good_for_its_content_alone(tmp_path: Path) -> None:
    path = tmp_path / "ids@home.txt"
    path.write_text("1\n2\n")
    pinned = pin_ids(str(path))
    assert pin_ids(pinned) == pinned
    assert read_ids(pinned).ids.to_pylist() == ["1", "2"]
    path.write_text("1\n3\n")
    with pytest.raises(SourceError, match="its content has changed"):
        read_ids(pinned)
    assert pin_ids(str(path)) != pinned


def test_no_name_is_no_list() -> None:
    assert pin_ids("") == ""


def test_what_is_no_list_of_ids(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"No such file.*one id per line"):
        pin_ids(str(tmp_path / "absent.txt"))
    with pytest.raises(SourceError, match="cannot be read"):
        pin_ids(str(tmp_path))
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(SourceError, match=r"not UTF-8 text \(byte 3\)"):
        pin_ids(str(tmp_path / "latin.txt"))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.txt"
    with path.open("wb") as stream:
        stream.truncate(513 * 1024 * 1024)  # sparse: takes no room
    with pytest.raises(SourceError, match="no list of ids"):
        pin_ids(str(path))
