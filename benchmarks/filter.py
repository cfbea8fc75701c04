"""What the filter's rules cost on a table of posts: each by itself, and all together.

    python benchmarks/filter.py [--posts 1000000] [--tags 32] [--distinct 100000] [--repeats 5]

The table is generated: tags with Zipf's frequencies, some of each rating, scores, dates, sizes, one post in six with a
parent. It is judged twice: with its tags as plain strings, and as a dictionary column. Each rule is timed `repeats`
times beside the others; the best is shown, with the resident memory that the judgement added at its highest.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from datasets.query import count_tags
from datasets.schema import POSTS
from tasks.filter import FilterParams, decide

SEED = 20260
WORDS = ("hair", "eyes", "dress", "blue", "long", "skirt", "smile", "uniform", "looking", "hat", "solo", "shirt")
RATINGS = ("safe", "general", "questionable", "explicit", "sensitive")
EVERYTHING = {"ratings": list(RATINGS), "take_deleted": True, "take_banned": True, "extensions": ["jpg", "png", "gif"]}


def main() -> None:
    """Print the figures as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, default=1_000_000)
    parser.add_argument("--tags", type=int, default=32, help="tags of a post, on average")
    parser.add_argument("--distinct", type=int, default=100_000, help="distinct tags")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    coded, names = make_posts(arguments.posts, arguments.tags, arguments.distinct)
    forms = {"dictionary": coded, "plain": with_plain_tags(coded)}
    for form, posts in forms.items():
        print(f"tags as {form}: {posts['tags'].nbytes / 1e6:.0f} MB of {posts.nbytes / 1e6:.0f} MB")
    print(f"\n{arguments.posts} posts, {arguments.tags} tags each, {pa.cpu_count()} cores\n")
    print("| rules | kept | " + " | ".join(f"{form} tags, s" for form in forms) + " |")
    print("|---|---:|" + "---:|" * len(forms))
    for title, rules in make_recipes(names).items():
        params = FilterParams.model_validate(rules)
        kept, seconds = 0, []
        for posts in forms.values():
            best, verdicts = clock(lambda posts=posts, params=params: decide(posts, params), arguments.repeats)
            seconds.append(best)
            kept = int(np.count_nonzero(verdicts["keep"].to_numpy()))
        print(f"| {title} | {kept} | " + " | ".join(f"{best:.3f}" for best in seconds) + " |", flush=True)
    groups = np.arange(arguments.posts) % 2
    counted = [clock(lambda posts=posts: count_tags(posts["tags"], groups, 2), 1)[0] for posts in forms.values()]
    print("| counting every tag (`kaobako tags`) | | " + " | ".join(f"{best:.3f}" for best in counted) + " |")
    print(f"\nhighest resident memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def clock(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """The best time of some, and what came out."""
    best, made = float("inf"), None
    for _ in range(repeats):
        start = time.perf_counter()
        made = work()
        best = min(best, time.perf_counter() - start)
    return best, made


def make_recipes(names: list[str]) -> dict[str, dict[str, Any]]:
    """Rules by title. names: the tags, the commonest first."""
    tags: dict[str, Any] = {"tags_none": names[5:13], "tags_any": names[:4]}
    wild = {"tags_none": ["*_hat_*", "blue_*", *names[20:26]], "tags_any": [*names[:4], "*_7"]}
    numbers: dict[str, Any] = {
        "min_score": 1,
        "max_score": 4000,
        "min_favourites": 1,
        "min_side": 300,
        "max_side": 8000,
        "min_megapixels": 0.2,
        "max_megapixels": 40,
        "max_aspect": 3.0,
        "min_bytes": 2000,
        "max_bytes": 10**9,
    }
    dates = {"created_from": "2010-02-01", "created_to": "2019-12-31"}
    ranks = {"min_score_percentile": 20.0}
    family = {"children": "drop-beside-parent"}
    every = {**tags, **numbers, **dates, **ranks, **family}
    return {
        "the defaults": {},
        "nothing asked": EVERYTHING,
        "12 tags": {**EVERYTHING, **tags},
        "10 tags and 3 wildcards": {**EVERYTHING, **wild},
        "score, favourites, size, aspect, bytes": {**EVERYTHING, **numbers},
        "dates": {**EVERYTHING, **dates},
        "score percentile": {**EVERYTHING, **ranks},
        "children beside their parent": {**EVERYTHING, **family},
        "all of them": {**EVERYTHING, **every},
        "all of them, with wildcards": {**EVERYTHING, **every, **wild},
        "all of them, safe posts only": {**every, **wild, "ratings": ["safe", "general"]},
    }


def make_posts(count: int, per_post: int, distinct: int) -> tuple[pa.Table, list[str]]:
    """A POSTS table whose tags are a dictionary column, and the tags in order of how common they are."""
    rng = np.random.default_rng(SEED)
    names = [f"{WORDS[k % 12]}_{WORDS[(k // 12) % 12]}_{k}" for k in range(distinct)]
    lengths = np.clip(rng.normal(per_post, per_post / 4, count), 1, None).astype(np.int64)
    share = np.cumsum(1 / np.arange(1, distinct + 1))
    codes = np.searchsorted(share, rng.random(int(lengths.sum())) * share[-1]).astype(np.int32)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    values = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(names))
    ids = (np.arange(count) * 5 + 1_000_000).astype("U9")
    parents = np.where(rng.random(count) < 1 / 6, ids[rng.integers(0, count, count)], None)
    born = np.datetime64("2009-01-01T00:00:00") + np.sort(rng.integers(0, 380_000_000, count)).astype("m8[s]")
    columns: dict[str, Any] = {
        "post_id": ids,
        "source_path": np.char.add(np.char.add("original/0001/", ids), ".jpg"),
        "rating": rng.choice(RATINGS, count, p=(0.5, 0.2, 0.1, 0.1, 0.1)),
        "score": rng.geometric(0.1, count).astype(np.int32) - 3,
        "favourites": rng.geometric(0.1, count).astype(np.int32),
        "extension": rng.choice(("jpg", "png", "gif"), count, p=(0.7, 0.25, 0.05)),
        "declared_width": rng.integers(200, 5000, count),
        "declared_height": rng.integers(200, 5000, count),
        "deleted": rng.random(count) < 0.04,
        "banned": rng.random(count) < 0.01,
        "parent_id": parents,
        "created_at": np.char.add(np.datetime_as_string(born), "Z"),
        "file_bytes": rng.integers(1000, 10**7, count),
    }
    arrays = {name: pa.array(columns[name], POSTS.field(name).type) for name in columns}
    arrays["tags"] = pa.ListArray.from_arrays(offsets, values)
    table = {f.name: arrays.get(f.name, pa.nulls(count, f.type)) for f in POSTS}
    return pa.table(table), names


def with_plain_tags(posts: pa.Table) -> pa.Table:
    """The same posts with their tags as strings."""
    lists = posts["tags"].combine_chunks()
    plain = [
        pa.ListArray.from_arrays(
            pa.array(piece.offsets.to_numpy() - piece.offsets[0].as_py(), pa.int32()),
            piece.flatten().cast(pa.string()),
        )
        for piece in (lists.slice(start, 100_000) for start in range(0, len(lists), 100_000))
    ]
    return posts.set_column(POSTS.get_field_index("tags"), "tags", pa.chunked_array(plain))


if __name__ == "__main__":
    main()
