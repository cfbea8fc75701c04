"""What Prefect costs: the curate flow beside the same pure functions, on a drawn board, each from an empty store.

    python benchmarks/orchestration.py --folder /tmp/orchestration [--posts 600] [--rounds 3]

The two take turns in one process, after one small build each to warm up, with a server of our own that is up and is
not counted. What is counted is the whole flow run: its task runs, log lines, progress and artifacts.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

RECIPE = Path(__file__).parent.parent / "recipes" / "demo.toml"


def main() -> None:
    """Draw the board, start the server, take turns, and print a line of JSON."""
    arguments = parse_arguments()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    from flows.environment import prepare_environment
    from flows.server import server_for

    prepare_environment()
    for name, posts in (("warm", 20), ("board", arguments.posts)):
        draw(folder / name, posts)
    seconds: dict[str, list[float]] = {"pure": [], "flow": []}
    with server_for(folder / "server"):
        for way in seconds:
            build(way, folder, "warm")
        for turn in range(arguments.rounds):
            for way in seconds if turn % 2 == 0 else reversed(seconds):
                seconds[way].append(build(way, folder, "board"))
                print(f"{way}: {seconds[way][-1]:.1f} s", flush=True)
    medians = {way: statistics.median(times) for way, times in seconds.items()}
    overhead = medians["flow"] / medians["pure"] - 1
    rounded = {way: [round(t, 1) for t in times] for way, times in seconds.items()}
    print(json.dumps({"posts": arguments.posts, "seconds": rounded, "overhead_percent": round(100 * overhead, 1)}))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where board, stores and server live; kept")
    parser.add_argument("--posts", type=int, default=600, help="posts of the board (default 600)")
    parser.add_argument("--rounds", type=int, default=3, help="builds each way (default 3)")
    return parser.parse_args()


def draw(board: Path, posts: int) -> None:
    """Draw a board, unless it is there."""
    from datasets.booru.board import draw_board

    if not board.is_dir():
        draw_board(board, posts, seed=7)


def build(way: str, folder: Path, board: str) -> float:
    """Seconds of one build into an empty store."""
    from flows.curate import curate, curate_without_prefect
    from flows.recipe import load_recipe
    from tasks.shards import ShardResult

    class Silent:
        def waiting_for(self, holder: dict[str, Any]) -> None: ...

        def metadata_read(self, name: str, done: int, total: int) -> None: ...

        def stage_started(self, stage: str, items: int, to_measure: int) -> None: ...

        def shard_done(self, result: ShardResult) -> None: ...

        def stage_done(self, stage: str, counts: dict[str, Any]) -> None: ...

    store = folder / "store"
    shutil.rmtree(store, ignore_errors=True)
    recipe = load_recipe(RECIPE, [f"source.root={folder / board}"])
    start = time.perf_counter()
    if way == "flow":
        curate(recipe, store)
    else:
        curate_without_prefect(recipe, store, Silent())
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
