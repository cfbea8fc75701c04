"""What it costs to convert and to query metadata: a million rows as Danbooru's dumps of 2018-2020 have them.

    python benchmarks/metadata.py --folder /tmp/metadata [--rows 1000000] [--processes 2] [--steps draw,convert,...]

Draws a file of JSON lines (about 2.4 KB each, always the same), then, each in its own process: `convert` to Parquet,
`again` (nothing is left to convert), `posts` (the table that a build reads), `jq` picking the same fields out of the
same file, `tenth` (a tenth of the rows, for its memory), `packed` (the tenth as .gz, .xz and .zst), `query`, and
`build`: what every build does before it opens a picture, with as many pictures as rows (their list is made up).
Seconds are counted after the imports, those of the processor in all processes; memory is the highest of the process and
the highest of any of its workers. Where msgspec is not installed, this measures the way without it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path
from random import Random
from typing import Any

STEPS = ("draw", "convert", "again", "posts", "jq", "tenth", "packed", "query", "build")
SEED = 20260
NAMES = 30_000  # distinct tags, used as often as words are: the k-th 1/k times
JQ = (
    "[.id,.rating,.score,(.favs|length),([.tags[].name]|unique),.file_ext,.image_width,.image_height,.is_deleted,"
    ".is_banned,.parent_id,.created_at,.md5]"
)
VALUES = ["rating", "score", "declared_width", "created_at", "deleted", "extension"]  # that the queries look at
RESULTS = "metadata.json"


def main() -> None:
    """Run the steps, each in its own process, and print them as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", default=",".join(STEPS))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(run_child(arguments.child, arguments)))
        return
    path = arguments.folder / RESULTS
    results = json.loads(path.read_text()) if path.exists() else {}
    for step in arguments.steps.split(","):
        if step not in STEPS:
            raise SystemExit(f"unknown step {step!r}: choose from {','.join(STEPS)}")
        command = [sys.executable, __file__, "--child", step, "--folder", str(arguments.folder)]
        command += ["--rows", str(arguments.rows), "--processes", str(arguments.processes)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        results[step] = json.loads(said.splitlines()[-1])
        path.write_text(json.dumps(results, indent=2))
    print_table(results)


def print_table(results: dict[str, list[dict[str, Any]]]) -> None:
    """One line per measurement."""
    print(
        "| step | seconds | MB/s | processor seconds | peak MB (itself / a worker) | note |\n|---|---|---|---|---|---|"
    )
    for step in STEPS:
        for row in results.get(step, []):
            rate = f"{row['bytes'] / 1e6 / row['seconds']:.0f}" if row.get("bytes") else ""
            memory = f"{row['own_mb']:.0f} / {row['worker_mb']:.0f}" if "own_mb" in row else ""
            cpu = f"{row['cpu']:.1f}" if "cpu" in row else ""
            print(f"| {row['what']} | {row['seconds']:.2f} | {rate} | {cpu} | {memory} | {row.get('note', '')} |")
    if "convert" in results and "jq" in results:
        ours, theirs = results["convert"][0], results["jq"][0]
        wall, cpu = theirs["seconds"] / ours["seconds"], theirs["cpu"] / ours["cpu"]
        print(f"\njq takes {wall:.1f} times as long, and {cpu:.1f} times as much of the processor.")


def run_child(step: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One step in this process."""
    steps: dict[str, Callable[[argparse.Namespace], list[dict[str, Any]]]] = {
        "draw": draw,
        "convert": convert,
        "again": again,
        "posts": read_posts_table,
        "jq": run_jq,
        "tenth": convert_tenth,
        "packed": convert_packed,
        "query": query,
        "build": begin_build,
    }
    rows = steps[step](arguments)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return [{"own_mb": own, "worker_mb": worker, **row} for row in rows]


def draw(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The file of all rows, and one of a tenth of them."""
    folder = arguments.folder / "dump" / "metadata"
    folder.mkdir(parents=True, exist_ok=True)
    tenth = arguments.folder / "tenth" / "metadata"
    tenth.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    draw_row = make_drawer()
    with (folder / "2020000000000000").open("w") as whole, (tenth / "2020000000000000").open("w") as part:
        for k in range(arguments.rows):
            line = json.dumps(draw_row(k), ensure_ascii=False) + "\n"
            whole.write(line)
            if k < arguments.rows // 10:
                part.write(line)
    size = (folder / "2020000000000000").stat().st_size
    note = f"{arguments.rows} rows, {size / arguments.rows:.0f} bytes each"
    return [{"what": "draw", "seconds": time.perf_counter() - start, "note": note}]


def make_drawer() -> Callable[[int], dict[str, Any]]:
    """draw_row(k) -> the k-th row, as the dumps of 2018-2020 have it."""
    random = Random(SEED)
    things = ("hair", "eyes", "shirt", "skirt", "ribbon", "dress", "gloves", "bow", "hat", "sky", "リボン")
    kinds = ("long", "short", "blue", "red", "open", "white", "black", "holding", "striped", "school")
    names = [f"{random.choice(kinds)}_{random.choice(things)}_{k}" if k > 99 else f"tag_{k}" for k in range(NAMES)]
    weights = list(accumulate(1 / (k + 5) for k in range(NAMES)))

    def draw_row(k: int) -> dict[str, Any]:
        number = 3 * k + 1
        chosen = random.choices(range(NAMES), cum_weights=weights, k=random.randint(12, 40))
        day = f"{2005 + 15 * (k % 1_000_000) // 1_000_000}-{random.randint(1, 12):02d}-{random.randint(1, 28):02d}"
        when = f"{day} 04:05:{k % 60:02d}.25 UTC"
        up, down = random.randint(0, 90), -random.randint(0, 5)
        return {
            "id": str(number),
            "created_at": when,
            "uploader_id": str(random.randint(1, 600_000)),
            "score": str(up + down),
            "source": f"https://i.pximg.net/img-original/img/{when[:10].replace('-', '/')}/{number * 17}_p0.jpg",
            "md5": f"{random.getrandbits(128):032x}",
            "last_commented_at": "1970-01-01 00:00:00 UTC",
            "rating": random.choice("ssssqqe"),
            "image_width": str(random.randint(150, 4000)),
            "image_height": str(random.randint(150, 4000)),
            "is_note_locked": False,
            "file_ext": random.choice(("jpg", "jpg", "jpg", "png", "gif")),
            "last_noted_at": "1970-01-01 00:00:00 UTC",
            "is_rating_locked": False,
            "parent_id": "0" if random.random() < 0.9 else str(random.randint(1, number)),
            "has_children": False,
            "approver_id": "0",
            "file_size": str(random.randint(10_000, 9_000_000)),
            "is_status_locked": False,
            "up_score": str(up),
            "down_score": str(down),
            "is_pending": False,
            "is_flagged": False,
            "is_deleted": random.random() < 0.05,
            "updated_at": when,
            "is_banned": False,
            "pixiv_id": str(number * 17),
            "tags": [
                {"id": str(tag * 31), "name": names[tag], "category": str((0, 0, 0, 0, 1, 3, 4, 5)[tag % 8])}
                for tag in chosen
            ],
            "pools": [],
            "favs": [str(random.randint(1, 700_000)) for _ in range(random.randint(0, 40))],
        }

    return draw_row


def convert(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All rows to Parquet, from nothing."""
    return [convert_dump(arguments, "dump", "convert")]


def convert_tenth(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A tenth of the rows: what memory it takes beside all of them."""
    return [convert_dump(arguments, "tenth", "convert a tenth")]


def convert_dump(arguments: argparse.Namespace, name: str, what: str, fresh: bool = True) -> dict[str, Any]:
    """Convert the metadata of one dump; time and bytes."""
    from datasets.sources.danbooru.convert import convert_files

    cache = arguments.folder / f"{name}-cache"
    if fresh:
        shutil.rmtree(cache, ignore_errors=True)
    paths = sorted((arguments.folder / name / "metadata").iterdir())
    size = sum(path.stat().st_size for path in paths)
    start, cpu = time.perf_counter(), spent()
    convert_files([(path.name, path) for path in paths], cache, processes=arguments.processes)
    seconds, cpu = time.perf_counter() - start, spent() - cpu
    kept = sum(path.stat().st_size for path in cache.rglob("*.parquet"))
    note = f"{kept / 1e6:.0f} MB of Parquet"
    return {"what": what, "seconds": seconds, "cpu": cpu, "bytes": size, "note": note}


def again(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Nothing is left to convert."""
    return [{**convert_dump(arguments, "dump", "convert again", fresh=False), "bytes": 0}]


def convert_packed(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The tenth in each packing; bytes are counted unpacked."""
    import pyarrow as pa

    (source,) = sorted((arguments.folder / "tenth" / "metadata").iterdir())
    rows = []
    for ending in ("gz", "xz", "zst"):
        folder = arguments.folder / ending / "metadata"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"posts.{ending}"
        with source.open("rb") as stream:
            if ending == "gz":
                with gzip.open(path, "wb", 6) as packed:
                    shutil.copyfileobj(stream, packed, 1 << 20)
            elif ending == "xz":
                with lzma.open(path, "wb", preset=1) as packed:
                    shutil.copyfileobj(stream, packed, 1 << 20)
            else:
                with pa.CompressedOutputStream(str(path), "zstd") as packed:
                    shutil.copyfileobj(stream, packed, 1 << 20)
        row = convert_dump(arguments, ending, f"convert a tenth, .{ending}")
        rows.append({**row, "bytes": source.stat().st_size})
    return rows


def read_posts_table(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The table that a build reads, with nothing left to convert and no pictures there."""
    from datasets.sources.config import SourceConfig
    from datasets.sources.read import read_source

    start = time.perf_counter()
    config = SourceConfig(root=arguments.folder / "dump")
    posts = read_source(config, cache=arguments.folder / "dump-cache").posts
    seconds = time.perf_counter() - start
    note = f"{len(posts)} rows, {posts.nbytes / 1e6:.0f} MB, {posts['tags'].num_chunks} chunks"
    return [{"what": "read posts", "seconds": seconds, "note": note}]


def begin_build(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Read the posts, judge them by metadata, digest them: the three together, and what each of them takes."""
    from datasets.sources.config import SourceConfig
    from datasets.sources.files import FileList, stamp_file
    from datasets.sources.listing import SourceListing
    from datasets.sources.read import digest_posts, read_source
    from tasks.filter import FilterParams, decide

    config = SourceConfig(root=arguments.folder / "dump", layout="{folder}/{id}.jpg")
    stamp = "2049-1234567-1000000-1700000000000000000-1700000000000000000"
    names = sorted(f"{number % 1000:04d}/{number}.jpg" for number in range(1, 3 * arguments.rows + 1, 3))
    pictures = FileList(names, [1_000_000] * len(names), [f"{stamp[:-9]}{k:09d}" for k in range(len(names))])
    metadata = sorted((config.root / "metadata").iterdir())
    listing = SourceListing(config, pictures, tuple((f"metadata/{path.name}", stamp_file(path)) for path in metadata))
    rules = FilterParams(
        tags_all=("tag_7", "*_hair*"), tags_any=("long_*", "tag_1*"), tags_none=("tag_3", "*_hat_*"), min_score=10
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    times, cpu = [time.perf_counter()], spent()
    posts = read_source(config, listing, arguments.folder / "dump-cache").posts
    times.append(time.perf_counter())
    kept = []
    for params in (FilterParams(), rules):
        kept.append(int(decide(posts, params)["keep"].to_numpy().sum()))
        times.append(time.perf_counter())
    digest = digest_posts(posts)
    times.append(time.perf_counter())
    cpu = spent() - cpu
    took = [later - earlier for earlier, later in pairwise(times)]
    notes = [f"{len(posts)} posts and pictures", f"{kept[0]} kept", f"{kept[1]} kept", digest[:12]]
    steps = [
        "read posts that have pictures",
        "filter, as it is set at first",
        "filter, four patterns and a score",
        "digest",
    ]
    rows = [{"what": w, "seconds": t, "note": note} for w, t, note in zip(steps, took, notes, strict=True)]
    whole = f"the list of pictures itself takes {before:.0f} MB"
    return [{"what": "read, filter twice, digest", "seconds": sum(took), "cpu": cpu, "note": whole}, *rows]


def run_jq(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """jq, picking the same fields out of the same file."""
    (path,) = sorted((arguments.folder / "dump" / "metadata").iterdir())
    start, cpu = time.perf_counter(), spent()
    subprocess.run(["jq", "-c", JQ, str(path)], check=True, stdout=subprocess.DEVNULL)
    seconds, cpu = time.perf_counter() - start, spent() - cpu
    return [{"what": "jq, the same fields", "seconds": seconds, "cpu": cpu, "bytes": path.stat().st_size}]


def spent() -> float:
    """Processor seconds of this process and of those that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def query(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Filters over the converted table, on the disk and as the posts of a build: median of five."""
    import pyarrow.compute as pc
    import pyarrow.dataset as pds

    from datasets.sources.config import SourceConfig
    from datasets.sources.read import read_source

    cache = arguments.folder / "dump-cache"
    pieces = pds.dataset(sorted(str(path) for path in cache.rglob("0*.parquet")), format="parquet")
    posts = read_source(SourceConfig(root=arguments.folder / "dump"), cache=cache).posts
    field = pc.field
    wanted = (field("score") >= 50) & (field("declared_width") >= 2000) & (field("created_at") >= "2007")
    wanted = wanted & ~field("deleted") & field("extension").isin(["jpg", "png"])

    def on_disk() -> int:
        return int(pieces.to_table(columns=["id"], filter=wanted & (field("rating") == "s")).num_rows)

    def in_memory() -> int:
        return len(posts.select(VALUES).filter(wanted & (field("rating") == "safe")))

    def with_tag() -> int:
        found = posts.select([*VALUES, "tags"]).filter(wanted & (field("rating") == "safe"))
        return sum(
            len(pc.unique(pc.list_parent_indices(lists).filter(pc.equal(pc.list_flatten(lists), "tag_7"))))
            for lists in found["tags"].chunks
        )

    rows = []
    values = "rating, score, width, date, extension, deleted"
    for what, ask in (
        (f"query on disk: {values}", on_disk),
        (f"query in memory: {values}", in_memory),
        ("the same, and a tag", with_tag),
    ):
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            found = ask()
            seconds.append(time.perf_counter() - start)
        rows.append({"what": what, "seconds": statistics.median(seconds), "note": f"{found} rows"})
    return rows


if __name__ == "__main__":
    main()
