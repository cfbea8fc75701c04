"""How fast the training reader is, beside a bare decode loop and beside a zip of uncompressed PNG files.

    python benchmarks/training_reader.py [--pictures 512] [--side 256] [--workers 2] [--repeats 9] [--json out.json]
    python benchmarks/training_reader.py --store STORE --version faces@v7

Without a version, soft pictures with a little noise are drawn and published in a temporary store; as PNG they are about
as large as illustrated faces. Every variant reads the same pictures in a shuffled order. All of them take turns in each
repeat, and a ratio is formed within its repeat, so that other work on the machine meets all alike. Files come out of
the system's cache of files: what is measured is decoding and what lies around it, not a disk. On a machine that others
use, look at the ratio of processor time.

reader        VersionReader: shuffled batches, uint8 (batch, 3, side, side), mirrored at random; with or without a cache
              (after an untimed round, so from memory). What it began ahead and nobody took counts against it
bare          read a blob, decode it with Pillow to an array (side, side, 3), throw it away; nothing else
zip           the same pictures as PNG of compression level 0 in a stored zip, as StyleGAN's tools write them, decoded
              to (3, side, side)
"""

import argparse
import io
import json
import multiprocessing
import statistics
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from datasets.digests import digest_pixels
from datasets.loader import PREFETCH, VersionReader, usable_cores
from datasets.pictures import encode_png
from datasets.schema import LEDGER, MANIFEST
from datasets.store import Store
from datasets.version import Version, publish_version, read_version
from models.gan.pictures import resize

_local = threading.local()  # each thread has its own open zip


@dataclass(frozen=True)
class Variant:
    """One way to read all pictures once."""

    name: str
    against: str  # the variant that it is compared with
    read: Callable[[], None]


@dataclass(frozen=True)
class Result:
    """What was measured of a variant."""

    pictures_per_s: float  # median
    against: str
    ratio: float  # of the rates, median
    ratio_range: tuple[float, float]
    cpu_ms: float  # processor time of this process per picture, median; that of child processes is not in it
    cpu_ratio: float  # pictures per processor second against the other's, median: what other work disturbs least


def draw_picture(seed: int, side: int) -> np.ndarray:
    """uint8 (side, side, 3): soft blotches, and noise of one step."""
    rng = np.random.default_rng(seed)
    blotches = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    soft = np.asarray(blotches.resize((side, side), Image.Resampling.BICUBIC), np.int16)
    return np.clip(soft + rng.integers(-1, 2, soft.shape), 0, 255).astype(np.uint8)


def publish_pictures(store: Store, count: int, side: int) -> Version:
    """A version of drawn pictures."""
    rows = []
    for k in range(count):
        rgb = draw_picture(k, side)
        blob, digest = store.blobs.put(encode_png(rgb)), digest_pixels(rgb)
        row = {"crop_id": f"{k:06d}#0", "post_id": f"{k:06d}", "blob": blob, "pixel_digest": digest}
        rows.append({**row, "width": side, "height": side})
    stage = {"inputs": count, "in": count, "kept": count, "dropped": {}}
    lineage = {"recipe": {}, "stage_versions": {}, "weights": {}, "counts": {"filter": stage}}
    manifest = pa.Table.from_pylist(rows, schema=MANIFEST)
    return publish_version(store, "drawn", manifest, LEDGER.empty_table(), lineage, lambda *tables: None)


def decode_files(paths: list[Path]) -> int:
    """The bare loop: bytes to an array, without any check."""
    return sum(np.asarray(Image.open(io.BytesIO(path.read_bytes()))).nbytes for path in paths)


def load_files(paths: list[Path]) -> np.ndarray:
    """What a process would send to the trainer: uint8 (len(paths), side, side, 3)."""
    return np.stack([np.asarray(Image.open(io.BytesIO(path.read_bytes()))) for path in paths])


def write_zip(path: Path, blobs: list[Path]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for k, blob in enumerate(blobs):
            buffer = io.BytesIO()
            with Image.open(blob) as image:
                image.save(buffer, "PNG", compress_level=0)
            archive.writestr(f"{k // 1000:05d}/img{k:08d}.png", buffer.getvalue())


def decode_members(archive: Path, names: list[str]) -> int:
    if getattr(_local, "path", None) != archive:
        _local.path, _local.zip = archive, zipfile.ZipFile(archive)
    total = 0
    for name in names:
        with _local.zip.open(name) as file:
            total += np.ascontiguousarray(np.array(Image.open(file)).transpose(2, 0, 1)).nbytes
    return total


def cut(items: list[Any], parts: int) -> list[list[Any]]:
    return [items[k::parts] for k in range(parts)]


def compare(variants: list[Variant], pictures: int, repeats: int) -> dict[str, Result]:
    """Rates (pictures/s) and ratios: medians over the repeats, each of which times every variant once."""
    rates: dict[str, list[float]] = {variant.name: [] for variant in variants}
    costs: dict[str, list[float]] = {variant.name: [] for variant in variants}
    for variant in variants:
        variant.read()  # threads, processes and caches are there from the first repeat on
    for repeat in range(repeats):
        for variant in variants if repeat % 2 == 0 else variants[::-1]:
            started, spent = time.perf_counter(), time.process_time()
            variant.read()
            rates[variant.name].append(pictures / (time.perf_counter() - started))
            costs[variant.name].append((time.process_time() - spent) / pictures)
    results = {}
    for variant in variants:
        ratios = [own / other for own, other in zip(rates[variant.name], rates[variant.against], strict=True)]
        savings = [other / own for own, other in zip(costs[variant.name], costs[variant.against], strict=True)]
        results[variant.name] = Result(
            pictures_per_s=round(statistics.median(rates[variant.name]), 1),
            against=variant.against,
            ratio=round(statistics.median(ratios), 3),
            ratio_range=(round(min(ratios), 3), round(max(ratios), 3)),
            cpu_ms=round(1000 * statistics.median(costs[variant.name]), 3),
            cpu_ratio=round(statistics.median(savings), 3),
        )
    return results


def read_batches(reader: VersionReader, batch: int) -> Callable[[], None]:
    """A function that takes as many batches as hold every picture once; what was begun ahead ends before it returns."""

    def read() -> None:
        with closing(reader.batches(batch, seed=0)) as batches:
            for _ in islice(batches, reader.count // batch):
                pass

    return read


def run_parts(pool: Executor, function: Callable[..., Any], *arguments: list[Any]) -> Callable[[], None]:
    def read() -> None:
        for _ in pool.map(function, *arguments):
            pass

    return read


def list_variants(
    stack: ExitStack, store: Store, version: Version, archive: Path, batch: int, workers: int, prefetch: int
) -> list[Variant]:
    side = side_of(version)
    blobs = [store.blobs.path(blob) for blob in version.manifest()["blob"].to_pylist()]
    blobs = blobs[: len(blobs) // batch * batch]
    write_zip(archive, blobs)
    order = np.random.default_rng(0).permutation(len(blobs)).tolist()
    paths = [blobs[k] for k in order]
    names = [f"{k // 1000:05d}/img{k:08d}.png" for k in order]
    variants = []
    bare = ""
    for threads in sorted({1, workers}):
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        parts = len(paths) // batch * threads  # as small as the reader's, so that no thread is left with the last one
        bare = f"bare, {threads} threads"
        uncached = VersionReader(store, version, side, resize, workers=threads, prefetch=prefetch, cache_bytes=0)
        variants += [
            Variant(bare, bare, run_parts(pool, decode_files, cut(paths, parts))),
            Variant(
                f"zip, {threads} threads", bare, run_parts(pool, decode_members, [archive] * parts, cut(names, parts))
            ),
            Variant(f"reader, {threads} threads", bare, read_batches(uncached, batch)),
        ]
    cached = VersionReader(
        store, version, side, resize, workers=workers, cache_bytes=3 * side * side * len(version.manifest())
    )
    processes = stack.enter_context(ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")))
    variants += [
        Variant(f"bare, {workers} processes", bare, run_parts(processes, load_files, cut(paths, parts))),
        Variant(f"reader, {workers} threads, cached", bare, read_batches(cached, batch)),
    ]
    return variants


def side_of(version: Version) -> int:
    """The one size of a version's pictures."""
    manifest = version.manifest()
    sides = set(manifest["width"].to_pylist()) | set(manifest["height"].to_pylist())
    if len(sides) != 1:
        raise SystemExit(f"{version.reference} must hold squares of one size, not {sorted(sides)[:5]}")
    return int(sides.pop())


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="a store to read from; needs --version")
    parser.add_argument("--version", help="NAME or NAME@V in that store; drawn pictures when left out")
    parser.add_argument("--pictures", type=int, default=512, help="pictures to draw (default 512)")
    parser.add_argument("--side", type=int, default=256, help="their size in pixels (default 256)")
    parser.add_argument("--batch", type=int, default=32, help="pictures per batch (default 32)")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="threads (default: one per core)")
    parser.add_argument("--prefetch", type=int, default=PREFETCH, help=f"batches begun ahead (default {PREFETCH})")
    parser.add_argument("--repeats", type=int, default=9, help="how often each variant is timed (default 9)")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    arguments = parser.parse_args()
    if (arguments.store is None) != (arguments.version is None):
        parser.error("--store and --version go together")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if arguments.version:
            store = Store(arguments.store)
            version = read_version(store, arguments.version)
        else:
            store = Store(scratch / "store")
            version = publish_pictures(store, arguments.pictures, arguments.side)
        side, batch = side_of(version), arguments.batch
        pictures = len(version.manifest()) // batch * batch
        if not pictures:
            raise SystemExit(f"{version.reference} holds less than one batch of {batch}: choose a smaller --batch")
        archive = scratch / "stylegan.zip"
        variants = list_variants(stack, store, version, archive, batch, arguments.workers, arguments.prefetch)
        sizes = [store.blobs.path(blob).stat().st_size for blob in version.manifest()["blob"].to_pylist()]
        settings = {
            "pictures": pictures,
            "side": side,
            "batch": batch,
            "prefetch": arguments.prefetch,
            "repeats": arguments.repeats,
            "kilobytes_per_blob": round(statistics.fmean(sizes) / 1000, 1),
            "kilobytes_per_zip_member": round(archive.stat().st_size / pictures / 1000, 1),
        }
        print(", ".join(f"{name} {value}" for name, value in settings.items()))
        results = compare(variants, pictures, arguments.repeats)
    print(f"{'variant':26} {'pictures/s':>10} {'ratio':>6} {'range':>11} {'CPU ms':>7} {'ratio':>6}  against")
    for name, row in results.items():
        low, high = row.ratio_range
        spread = f"{low:.2f}-{high:.2f}"
        cpu = f"{row.cpu_ms:7.2f} {row.cpu_ratio:6.2f}" if "processes" not in name else f"{'':14}"
        print(f"{name:26} {row.pictures_per_s:10.0f} {row.ratio:6.2f} {spread:>11} {cpu}  {row.against}")
    if arguments.json:
        rows = {name: asdict(row) for name, row in results.items()}
        arguments.json.write_text(json.dumps({**settings, "results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
