"""Where the picture of a post lies: by the settings, and by nothing unchecked from the metadata."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datasets.sources.config import Problem, SourceConfig
from datasets.sources.read import read_posts, stamp_source


@pytest.fixture
def source(tmp_path: Path) -> Callable[..., SourceConfig]:
    """source(row, **settings) -> the settings of a dump with this one row of metadata."""

    def write(row: dict[str, Any], **settings: Any) -> SourceConfig:
        folder = tmp_path / "dump" / "metadata"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "posts.json").write_text(json.dumps(row))
        return SourceConfig(root=folder.parent, **settings)

    return write


MD5 = "3ab2ca9a562c662cb16c9d021975738b"


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "0567/1234567.png"),
        ({"modulus": 10_000}, "4567/1234567.png"),
        ({"modulus": 10, "digits": 1}, "7/1234567.png"),
        ({"modulus": 100_000, "digits": 6}, "034567/1234567.png"),
        ({"layout": "{id}.{ext}"}, "1234567.png"),
        ({"layout": "{folder}/{id}.jpg"}, "0567/1234567.jpg"),
        ({"layout": "{md5}.{ext}"}, f"{MD5}.png"),
        ({"layout": "{md5[0:2]}/{md5[2:4]}/{md5}.{ext}"}, f"3a/b2/{MD5}.png"),
        ({"layout": "danbooru_{id}_{md5}.{ext}"}, f"danbooru_1234567_{MD5}.png"),
    ],
)
def test_where_a_picture_lies(source: Callable[..., SourceConfig], settings: dict[str, Any], name: str) -> None:
    row = {"id": 1234567, "rating": "q", "file_ext": "png", "md5": MD5.upper()}
    config = source(row, **settings)
    path = config.root / "original" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"picture")
    (post,) = read_posts(config).to_pylist()
    assert (post["source_path"], post["problem"], post["file_bytes"]) == (f"original/{name}", None, 7)


@pytest.mark.parametrize(
    "layout",
    [
        *("", "x.png", "{ext}", "{folder}/{ext}", "{md5[0:2]}", "../{id}", "/{id}", "{id}/../x", "a//{id}", ".{id}"),
        *(
            "{id[0:2]}",
            "{md5[4:2]}",
            "{source}/{id}",
            "{id!r}",
            "{id}\0",
            "{id}\\x",
            "~/{id}",
            "{id",
            "{{id}}",
            "./{id}",
        ),
        "{id}/",
    ],
)
def test_a_layout_that_could_name_anything_else_is_refused(layout: str) -> None:
    with pytest.raises(ValueError, match="layout"):
        SourceConfig(layout=layout)


@pytest.mark.parametrize("md5", [None, "", "../../../etc/passwd", MD5[:-1], MD5 + "0", MD5[:-1] + "/", 5, ["x"]])
def test_an_md5_that_is_none_never_becomes_a_path(source: Callable[..., SourceConfig], md5: Any) -> None:
    row = {"id": 7, "rating": "q", "file_ext": "png", "md5": md5}
    config = source(row, layout="{md5}.{ext}")
    (post,) = read_posts(config).to_pylist()
    assert (post["problem"], post["source_path"]) == (Problem.UNSAFE_PATH, None)


def test_naming_settings_change_the_stamp(source: Callable[..., SourceConfig]) -> None:
    config = source({})
    changes: list[dict[str, Any]] = [{}, {"layout": "{id}.{ext}"}, {"digits": 5}, {"modulus": 5}]
    assert len({stamp_source(config.model_copy(update=change)) for change in changes}) == 4
