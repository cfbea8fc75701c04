"""Sources that are written line by line for one test."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from datasets.sources.config import SourceConfig, SourceKind
from datasets.sources.danbooru import blocks, rows
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


@pytest.fixture(scope="session")
def packs() -> dict[str, Callable[[bytes], bytes]]:
    """How bytes are packed, by name."""
    return {
        "plain": lambda data: data,
        "gz": gzip.compress,
        "xz": lzma.compress,
        "bz2": bz2.compress,
        "zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
    }


@pytest.fixture(scope="session")
def make_lines() -> Callable[..., list[bytes]]:
    """make_lines(count, first=1, seed=5) -> rows of metadata whose bytes do not pack to nothing."""

    def make(count: int, first: int = 1, seed: int = 5) -> list[bytes]:
        noise = random.Random(seed)
        return [
            json.dumps(
                {
                    "id": number,
                    "rating": "sqe"[number % 3],
                    "score": str(number % 50),
                    "tag_string": " ".join(f"tag_{noise.randrange(10**9)}" for _ in range(5)),
                    "file_ext": "png",
                    "md5": f"{noise.getrandbits(128):032x}",
                }
            ).encode()
            for number in range(first, first + count)
        ]

    return make


@pytest.fixture
def source(tmp_path: Path) -> Callable[..., SourceConfig]:
    """source({name: bytes}, **settings) -> the settings of a dump with these metadata files, and no others."""

    def write(files: dict[str, bytes], **settings: Any) -> SourceConfig:
        root = tmp_path / "dump"
        folder = root / "metadata"
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        return SourceConfig(root=root, **settings)

    return write


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of at most 2,000 bytes, in blocks of 5,000, read 700 bytes at a time."""
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 2000)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 5000)
    monkeypatch.setattr(blocks, "_CHUNK", 700)
