"""The picture of results in the README: posts, published faces and samples of a finished `make demo`, side by side.

    python benchmarks/demo_picture.py demo docs/demo.jpg

Everything in it was drawn by Kaobako itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from datasets.sheets import Cell, draw_sheet
from datasets.store import Store
from datasets.version import read_version

SIDE = 76
ROWS, COLUMNS = 8, 8


def main() -> None:
    """Read a demo folder and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder of a finished make demo")
    parser.add_argument("out", type=Path, help="JPEG to write")
    arguments = parser.parse_args()
    store = Store(arguments.demo / "store")
    panels = [
        draw_panel(list_posts(arguments.demo / "booru")),
        draw_panel(list_faces(store)),
        load_grid(newest_grid(store)),
    ]
    height = min(panel.height for panel in panels)
    sheet = Image.new("RGB", (sum(panel.width for panel in panels) + 24, height), "white")
    x = 0
    for panel in panels:
        sheet.paste(panel, (x, 0))
        x += panel.width + 12
    sheet.save(arguments.out, quality=88)


def list_posts(board: Path) -> list[Path]:
    """A picture of every kind on the board, defects included, then plain ones."""
    truth = pq.read_table(board / "truth.parquet").to_pylist()
    rows = [row for row in truth if row["path"] and (board / row["path"]).is_file() and row["kind"] != "path_escape"]
    first_of_kind = {row["kind"]: row for row in reversed(rows)}
    plain = [row for row in rows if row["kind"] == "plain"]
    chosen = [row for kind, row in sorted(first_of_kind.items()) if kind != "plain"] + plain
    return [board / row["path"] for row in sorted(chosen[: ROWS * COLUMNS], key=lambda row: row["post_id"])]


def list_faces(store: Store) -> list[Path]:
    """Published pictures, evenly spread over the newest version."""
    blobs = read_version(store, "faces").manifest()["blob"].to_pylist()
    count = ROWS * COLUMNS
    return [store.blobs.path(blobs[index * len(blobs) // count]) for index in range(min(count, len(blobs)))]


def newest_grid(store: Store) -> Path:
    """The newest sample grid of the store's runs."""
    return max(store.runs.glob("*/samples/grid.png"), key=lambda path: path.stat().st_mtime)


def draw_panel(paths: list[Path]) -> Image.Image:
    """A sheet of pictures without captions."""
    return draw_sheet([Cell(path) for path in paths], columns=COLUMNS, side=SIDE)


def load_grid(path: Path) -> Image.Image:
    """A sample grid at the size of a panel."""
    side = COLUMNS * (SIDE + 6) + 6
    with Image.open(path) as grid:
        return grid.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
