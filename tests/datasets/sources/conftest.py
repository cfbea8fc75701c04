"""Sources that are written line by line for one test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from datasets.sources.config import SourceConfig, SourceKind
from datasets.sources.read import read_posts

TYPED: dict[str, Any] = {
    "id": 7,
    "rating": "s",
    "score": 12,
    "fav_count": 3,
    "tag_string": "solo 1girl smile 1girl",
    "file_ext": "png",
    "image_width": 640,
    "image_height": 480,
    "is_deleted": False,
    "is_banned": False,
    "parent_id": None,
    "created_at": "2021-05-01T00:00:00.000-04:00",
    "updated_at": "2021-05-02T00:00:00.000-04:00",
}


@pytest.fixture
def dump(tmp_path: Path) -> Callable[..., dict[str, dict[str, Any]]]:
    """dump(row or line, ..., files=names below original/, **config) -> POSTS rows by post_id. A dict changes TYPED."""

    def write(*rows: dict[str, Any] | bytes | str, files: tuple[str, ...] | None = None, **config: Any) -> Any:
        root = tmp_path / "dump"
        (root / "metadata").mkdir(parents=True, exist_ok=True)
        lines, named = [], []
        for row in rows:
            if isinstance(row, dict):
                full = TYPED | row
                named.append(f"{int(full['id']) % 1000:04d}/{full['id']}.{full['file_ext']}")
                lines.append(json.dumps(full).encode())
            else:
                lines.append(row.encode() if isinstance(row, str) else row)
        (root / "metadata" / "posts.json").write_bytes(b"\n".join(lines) + b"\n")
        for name in named if files is None else files:
            path = root / "original" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"picture")
        table: pa.Table = read_posts(SourceConfig(kind=SourceKind.DANBOORU, root=root, **config))
        posts = {row["post_id"]: row for row in table.to_pylist()}
        assert len(posts) == len(table), "a post_id is there twice"
        return posts

    return write
