"""What a rebuild costs beside a full build: nothing new, 1 % more pictures, a stricter threshold, and the difference.

    python benchmarks/rebuild.py --store /tmp/rebuild [--crops 300000] [--added 0.01] [--steps full,again,...]

Draws a source of tiny distinct PNGs beside the store (`<store>-source`, 1000 to a folder) and builds it through the
real pipeline: whole pictures, no upscaling, so that what is timed is the engine and not the networks. Each step is its
own process: its seconds are counted after the imports (start-up has its own column), its memory is the process's
highest. Figures are kept in `<store>/rebuild.json`, so a later call may run some of the steps again on the store that
is there. Needs three small files for each crop: about 3 KB of bytes, 12 KB on the disk.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

STEPS = ("draw", "full", "again", "recheck", "add", "added", "stricter", "diff")
PER_FOLDER = 1000
SIDE = 20  # pixels of a picture
SEED = 20260
DATASET = "rebuild"
MIN_BLUR, STRICTER_BLUR = 0.3, 0.4
RESULTS = "rebuild.json"


@dataclass
class Step:
    """What one step cost. Drawing the source is a step too, but not one that is reported."""

    step: str
    seconds: float = 0.0  # after the imports
    cpu: float = 0.0  # processor seconds of all threads in that time
    start_up: float = 0.0  # seconds of the interpreter and the imports
    peak_mb: float = 0.0  # highest resident memory of the process
    opened: int = 0  # pictures decoded
    note: str = ""
    stages: dict[str, float] = field(default_factory=dict)  # seconds from one stage's start to the next one's


def main() -> None:
    """Run the steps, each in its own process, and print them as a Markdown table."""
    arguments = parse_arguments()
    if arguments.child:
        run_child(arguments)
        return
    results = read_results(arguments.store)
    for name in arguments.steps.split(","):
        if name not in STEPS:
            raise SystemExit(f"unknown step {name!r}: choose from {','.join(STEPS)}")
        results[name] = run_step(name, arguments)
        arguments.store.mkdir(parents=True, exist_ok=True)
        (arguments.store / RESULTS).write_text(json.dumps(results, indent=2))
        print(
            f"{name}: {results[name]['seconds']:.2f} s, {results[name]['peak_mb']:.0f} MB", file=sys.stderr, flush=True
        )
    print(make_table(results))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="folder of the store; made when it is not there")
    parser.add_argument("--crops", type=int, default=300_000, help="pictures of the full build (default 300000)")
    parser.add_argument("--added", type=float, default=0.01, help="share of new pictures (default 0.01)")
    parser.add_argument("--workers", type=int, default=0, help="threads; 0: one per core")
    parser.add_argument("--steps", default=",".join(STEPS), help=f"some of {','.join(STEPS)}, in that order")
    parser.add_argument("--profile", action="store_true", help="print the costliest functions of each step (slower)")
    parser.add_argument("--child", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    return parser.parse_args()


def source_of(store: Path) -> Path:
    """Where the pictures are drawn: beside the store."""
    return store.with_name(f"{store.name}-source")


def read_results(store: Path) -> dict[str, Any]:
    """The steps that were run on this store before."""
    path = store / RESULTS
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def run_step(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One step in a fresh interpreter. This one imports nothing heavy: a child's memory begins as its parent's."""
    command = [sys.executable, __file__, *sys.argv[1:], "--child", name, "--started", repr(time.time())]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"the step {name} failed")
    *said, last = done.stdout.splitlines()
    print("\n".join(said), end="\n" if said else "", file=sys.stderr)
    result: dict[str, Any] = json.loads(last)
    return result


def make_table(results: dict[str, Any]) -> str:
    """The steps as a Markdown table, in pipeline order."""
    lines = [
        "| step | seconds | of the full build | processor | start-up | pictures opened | peak memory | |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    full = results.get("full", {}).get("seconds")
    for name in STEPS:
        if name in ("draw", "add") or name not in results:
            continue
        row = results[name]
        share = f"{100 * row['seconds'] / full:.2f} %" if full else ""
        lines.append(
            f"| {name} | {row['seconds']:.2f} | {share} | {row['cpu']:.2f} | {row['start_up']:.2f} "
            f"| {row['opened']} | {row['peak_mb']:.0f} MB | {row['note']} |"
        )
    return "\n".join(lines)


# ---- in the child ----------------------------------------------------------------------------------------------------


def run_child(arguments: argparse.Namespace) -> None:
    """Run one step here, and print what it cost as the last line."""
    work = prepare(arguments.child, arguments)
    ready = time.time()
    start, start_cpu = time.perf_counter(), time.process_time()
    step = profiled(work) if arguments.profile else work()
    step.seconds = time.perf_counter() - start
    step.cpu = time.process_time() - start_cpu
    step.start_up = ready - arguments.started
    step.peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(asdict(step)))


def profiled(work: Callable[[], Step]) -> Step:
    """Run with the interpreter's profiler, and print the costliest functions (of this thread alone)."""
    import cProfile
    import pstats

    profile = cProfile.Profile()
    step = profile.runcall(work)
    pstats.Stats(profile, stream=sys.stderr).sort_stats("cumulative").print_stats(45)
    return step


def prepare(name: str, arguments: argparse.Namespace) -> Callable[[], Step]:
    """The step's work, with everything imported that it needs."""
    source = source_of(arguments.store)
    if name in ("draw", "add"):
        added = max(1, round(arguments.crops * arguments.added))
        first, count = (0, arguments.crops) if name == "draw" else (arguments.crops, added)
        import cv2  # noqa: F401 - so that drawing is timed without it
        import numpy  # noqa: F401

        return lambda: draw_source(name, source, first, count)
    if name == "diff":
        return prepare_diff(arguments.store)
    return prepare_build(name, arguments.store, source, arguments.workers)


def draw_source(name: str, folder: Path, first: int, count: int) -> Step:
    """`count` pictures from number `first` on, each a function of its number: drawing again changes no file."""
    drawn = 0
    for start in range(first - first % PER_FOLDER, first + count, PER_FOLDER):
        place = folder / f"{start // PER_FOLDER:05d}"
        place.mkdir(parents=True, exist_ok=True)
        for number, data in draw_block(start):
            path = place / f"{number:07d}.png"
            if first <= number < first + count and not path.exists():
                path.write_bytes(data)
                drawn += 1
    return Step(name, note=f"{drawn} pictures drawn")


def draw_block(start: int) -> list[tuple[int, bytes]]:
    """The PNG files of PER_FOLDER pictures: smooth coloured patches with grain, and what a real pile has beside.

    Of 50 pictures 2 are grey, 2 without detail, 1 is the mirror image and 1 the copy of its neighbour.
    """
    import cv2
    import numpy as np

    random = np.random.default_rng((SEED, start))
    patches = random.integers(0, 256, (PER_FOLDER, 5, 5, 3), dtype=np.uint8)
    grain = random.integers(0, 24, (PER_FOLDER, SIDE, SIDE, 3), dtype=np.uint8)
    strength = random.uniform(0.25, 1.0, PER_FOLDER)
    sharpness = random.uniform(0.1, 1.0, PER_FOLDER)
    files = []
    previous = np.zeros((SIDE, SIDE, 3), np.uint8)
    for offset in range(PER_FOLDER):
        smooth = cv2.resize(patches[offset], (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        picture = 116 + (smooth - 128.0) * strength[offset] + grain[offset] * sharpness[offset]
        picture = picture.clip(0, 255).astype(np.uint8)
        kind = offset % 50
        if kind in (5, 25):
            picture[:] = picture.mean(axis=2, keepdims=True).astype(np.uint8)
        elif kind in (6, 26):
            ramp = np.arange(SIDE, dtype=np.uint8)[:, None, None]
            picture = np.broadcast_to(patches[offset, 0, 0] // 2 + ramp, picture.shape)
        elif kind in (11, 12):
            picture = previous[:, ::-1]  # of a picture, and once more: its own pixels again
        level = 9 if kind == 12 else 1
        picture = np.ascontiguousarray(picture)
        files.append((start + offset, cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, level])[1].tobytes()))
        previous = picture
    return files


def prepare_build(name: str, store: Path, source: Path, workers: int) -> Callable[[], Step]:
    """A build by the functions that `kaobako curate --no-prefect` calls."""
    from flows.curate import curate_without_prefect
    from flows.recipe import make_recipe

    blur = STRICTER_BLUR if name == "stricter" else MIN_BLUR
    recipe = make_recipe(
        {
            "dataset": DATASET,
            "source": {"kind": "folder", "root": str(source)},
            "crop": {"method": "whole", "min_size": 8},
            "clean": {"min_side": 8, "min_blur": blur},
            "upscale": {"size": 0},
        },
        "of the benchmark",
    )
    clock = StageClock()

    def build() -> Step:
        everything = name == "recheck"  # do not believe the stamps: judge every item again
        result = curate_without_prefect(recipe, store, clock, workers=workers, look_at_everything=everything)
        published = "published" if result.published else "nothing new"
        kept = list(result.counts.values())[-1]["kept"]
        note = f"{result.version.reference}, {published}, {kept} kept"
        return Step(name, opened=sum(result.opened.values()), note=note, stages=clock.seconds())

    return build


class StageClock:
    """Notes when each stage begins: an observer of the build."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, float]] = [("reading the source", time.perf_counter())]

    def metadata_read(self, name: str, done: int, total: int) -> None: ...

    def stage_started(self, stage: str, items: int, to_measure: int) -> None:
        self.begun.append((stage, time.perf_counter()))

    def waiting_for(self, holder: Any) -> None:
        """Nobody else builds here."""

    def shard_done(self, result: Any) -> None:
        """Shards are not timed one by one."""

    def stage_done(self, stage: str, counts: dict[str, Any]) -> None:
        self.begun.append((f"after {stage}", time.perf_counter()))

    def seconds(self) -> dict[str, float]:
        """Seconds from each note to the next one; the last is publishing."""
        ends = [moment for _, moment in self.begun[1:]] + [time.perf_counter()]
        return {name: round(end - begun, 2) for (name, begun), end in zip(self.begun, ends, strict=True)}


def prepare_diff(store: Path) -> Callable[[], Step]:
    """The difference between the first version and the newest."""
    from datasets.diff.compare import diff_versions
    from datasets.store import Store
    from datasets.version import list_versions

    def compare() -> Step:
        versions = list_versions(Store(store), DATASET)
        before, after = versions[0], versions[-1]
        changes = diff_versions(before, after)
        return Step("diff", note=f"{before.reference} to {after.reference}, {len(changes)} changes")

    return compare


if __name__ == "__main__":
    main()
