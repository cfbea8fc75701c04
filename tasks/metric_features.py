"""Features of pictures that figures of quality are computed from: of reals, kept by content, and of fakes by seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.cache import INPUT, MeasurementCache
from datasets.digests import digest_json, digest_pixels
from datasets.loader import PictureReader
from models.device import device_name
from models.gan.latents import draw_latents
from models.metrics.extractors import Extractor
from models.metrics.neighbours import reduce_picture
from models.sampling.generator import Code, LoadedGenerator
from models.sampling.layout import fit_cell
from models.sampling.settings import Ground, SamplingSettings
from tasks.progress import Progress

FEATURES_VERSION = 1  # bump when what a row holds changes its meaning
ROWS = 2048  # pictures whose features are looked up at once
MERGED_ROWS = 20_000  # of a merged file of the cache: 150 MB while it is written
PART = 128  # pictures that are held for the extractor; what it sees in reals is then written

FEATURES = pa.schema(
    [
        (INPUT, pa.string()),  # what the picture is made of, or that and "mirrored"
        ("features", pa.list_(pa.float32())),  # of the extractor, (D,)
        ("pixels", pa.binary()),  # what neighbours are looked for by: models.metrics.neighbours.reduce_picture
        ("pixel_digest", pa.string()),  # of the picture at the size that training sees
    ]
)


@dataclass(frozen=True)
class FeatureSet:
    """What is known of some pictures, in their order."""

    features: np.ndarray  # float32 (N, D)
    pixels: np.ndarray  # uint8 (N, SIDE * SIDE * 3), reduced
    pixel_digests: np.ndarray  # str (N,): equal for equal pictures

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: np.ndarray) -> FeatureSet:
        """Those of some pictures."""
        return FeatureSet(self.features[rows], self.pixels[rows], self.pixel_digests[rows])


def to_rgb(picture: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 1, 3 or 4) to uint8 (H, W, 3): grey three times, transparency laid over white."""
    laid = fit_cell(picture, picture.shape[0], picture.shape[1], Ground.WHITE)
    return np.ascontiguousarray(laid.repeat(3, axis=2) if laid.shape[2] == 1 else laid)


def features_cache(folder: Path, extractor: Extractor, reader: PictureReader) -> MeasurementCache:
    """Features of reals of one size by one network on one kind of device, below a cache's `folder`.

    It may be deleted at any time. Several processes may use it at once.
    """
    key = {
        "extractor": extractor.digest,
        "size": [reader.height, reader.width, reader.channels],
        "device": device_name(),
        "columns": [f"{column.name} {column.type}" for column in FEATURES],
    }
    return MeasurementCache(folder / f"features-{FEATURES_VERSION}" / digest_json(key)[:24], FEATURES)


def measure_reals(
    reader: PictureReader,
    chosen: np.ndarray,  # int64 (N,): which of the reader's pictures
    extractor: Extractor,
    cache: MeasurementCache,
    progress: Progress,
    mirrored: bool = False,  # their mirror images instead
) -> FeatureSet:
    """What the extractor sees in real pictures. Only those that the cache does not know are opened."""
    parts = []
    what = "reals, mirrored" if mirrored else "reals"
    for start in range(0, len(chosen), ROWS):
        part = chosen[start : start + ROWS].tolist()
        names = [digest_json([reader.identify(k), "mirrored"]) if mirrored else reader.identify(k) for k in part]
        numbers = dict(zip(names, part, strict=True))
        rows = cache.lookup(pa.array(numbers, pa.string()))
        known = set(rows[INPUT].to_pylist())
        missing = [name for name in numbers if name not in known]
        if missing:
            done = start + len(part) - len(missing)
            if done:  # known already, at once: what follows takes its time
                progress(what, done, len(chosen))
            tables = [rows]
            for seen in _look_at_reals(reader, [numbers[name] for name in missing], extractor, mirrored):
                begun = sum(map(len, tables[1:]))
                tables.append(_to_rows(missing[begun : begun + len(seen)], seen))
                cache.add(tables[-1])
                progress(what, done + begun + len(seen), len(chosen))
            rows = pa.concat_tables(tables)
            cache.compact(max_rows=MERGED_ROWS)
        parts.append(_from_rows(rows.take(pc.index_in(pa.array(names), value_set=rows[INPUT]))))
        if not missing:
            progress(what, start + len(part), len(chosen))
    return _join(parts)


def _look_at_reals(
    reader: PictureReader, numbers: Sequence[int], extractor: Extractor, mirrored: bool
) -> Iterator[FeatureSet]:
    """What is seen in PART of them, and in the next."""
    with closing(reader.pictures(numbers)) as pictures:
        while part := [to_rgb(picture) for picture in islice(pictures, PART)]:
            yield look_at(_mirror(part) if mirrored else part, extractor)


def measure_fakes(
    generator: LoadedGenerator,
    seeds: Sequence[int],
    labels: np.ndarray | None,  # float32 (len(seeds), labels), for a conditional network
    settings: SamplingSettings,  # its label is not used
    extractor: Extractor,
    progress: Progress,
    mirrored: int = 0,  # of how many, from the first, the mirror images are looked at, too
    what: str = "fakes",  # for the progress
) -> tuple[FeatureSet, FeatureSet | None]:
    """What the extractor sees in the pictures of seeds, of which only PART are held at a time; and in mirror images."""
    pictures = draw_fakes(generator, seeds, labels, settings)
    parts: list[FeatureSet] = []
    flipped: list[FeatureSet] = []
    done = 0
    while part := list(islice(pictures, PART)):
        parts.append(look_at(part, extractor))
        if done < mirrored:
            flipped.append(look_at(_mirror(part[: mirrored - done]), extractor))
        done += len(part)
        progress(what, done, len(seeds))
    return _join(parts), _join(flipped) if flipped else None


def look_at(pictures: Sequence[np.ndarray], extractor: Extractor) -> FeatureSet:
    """What the extractor sees in a few pictures, uint8 (H, W, 3) each."""
    return FeatureSet(
        extractor.extract(np.stack(pictures)),
        np.stack([reduce_picture(picture) for picture in pictures]),
        np.array([digest_pixels(picture) for picture in pictures]),
    )


def _mirror(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [np.ascontiguousarray(picture[:, ::-1]) for picture in pictures]


def _join(parts: Sequence[FeatureSet]) -> FeatureSet:
    return FeatureSet(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.pixel_digests for part in parts]),
    )


def draw_fakes(
    generator: LoadedGenerator,
    seeds: Sequence[int],
    labels: np.ndarray | None,  # float32 (len(seeds), labels), for a conditional network
    settings: SamplingSettings,  # its label is not used
) -> Iterator[np.ndarray]:
    """The pictures of seeds, uint8 (H, W, 3) each, in order, made as they are taken."""

    def codes() -> Iterator[Code]:
        for start in range(0, len(seeds), PART):
            part = seeds[start : start + PART]
            latents = draw_latents(part, generator.z_dim)
            if labels is None:
                values = generator.codes(latents, settings)
            else:
                values = _code_by_label(generator, latents, labels[start : start + PART], settings)
            yield from (Code(row, seed) for row, seed in zip(values, part, strict=True))

    return map(to_rgb, generator.draw(codes(), settings.noise))


def _code_by_label(
    generator: LoadedGenerator, latents: np.ndarray, labels: np.ndarray, settings: SamplingSettings
) -> np.ndarray:
    """Codes of latents with a label each: one call for those of the same label."""
    kinds, kind_of = np.unique(labels, axis=0, return_inverse=True)
    codes: np.ndarray | None = None
    for number, label in enumerate(kinds):
        rows = np.flatnonzero(kind_of.reshape(-1) == number)
        made = generator.codes(latents[rows], replace(settings, label=tuple(map(float, label))))
        if codes is None:
            codes = np.empty((len(latents), *made.shape[1:]), made.dtype)
        codes[rows] = made
    assert codes is not None
    return codes


def _to_rows(names: Sequence[str], seen: FeatureSet) -> pa.Table:
    count, width = seen.features.shape
    offsets = pa.array(np.arange(0, (count + 1) * width, width, dtype=np.int32))
    columns = [
        pa.array(names, pa.string()),
        pa.ListArray.from_arrays(offsets, pa.array(seen.features.reshape(-1))),
        pa.array([row.tobytes() for row in seen.pixels], pa.binary()),
        pa.array(seen.pixel_digests.tolist(), pa.string()),
    ]
    return pa.table(columns, schema=FEATURES)


def _from_rows(rows: pa.Table) -> FeatureSet:
    features = rows["features"].combine_chunks().flatten().to_numpy().reshape(len(rows), -1)
    pixels = np.frombuffer(b"".join(rows["pixels"].to_pylist()), np.uint8).reshape(len(rows), -1)
    return FeatureSet(features, pixels, np.array(rows["pixel_digest"].to_pylist()))
