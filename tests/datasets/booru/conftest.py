"""One board for all tests of this folder: the smallest with every planted kind."""

import json

import pyarrow.parquet as pq
import pytest

from datasets.booru.board import BoardSummary, draw_board


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> BoardSummary:
    return draw_board(tmp_path_factory.mktemp("booru") / "board", posts=117, seed=11, workers=2)


@pytest.fixture(scope="session")
def truth(board: BoardSummary) -> list[dict]:
    return pq.read_table(board.path / "truth.parquet").to_pylist()


@pytest.fixture(scope="session")
def rows(board: BoardSummary) -> dict[str, dict]:
    """Metadata rows that can be read, by post id."""
    found = {}
    for path in sorted((board.path / "metadata").iterdir()):
        for line in path.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            found[str(row["id"])] = row
    return found
