"""Two trainers for the same time on the same pictures: sec/kimg, grids, and KID as it falls.

    python benchmarks/trainers.py --data FOLDER --device cuda --minutes 8 --kimg 200 --out OUT  # at 64 px
    python benchmarks/trainers.py --data FOLDER --device cpu --minutes 10 --out OUT \\
        --presets r3gan-demo stylegan2-demo --resolution 32 --fakes 1000

Needs torch, numpy, opencv, pillow, safetensors and pydantic alone, and the weights of the metric's network:
`kaobako weights fetch hed-vgg4 --folder W` elsewhere, then KAOBAKO_WEIGHTS=W here.

The contenders are r3gan-64 and stylegan2-ada unless --presets says otherwise. R3GAN's augmentation and the average of
its weights grow along a schedule as long as its training: give --kimg what it can see in --minutes (--minutes 1 tells
its s/kimg), or the comparison is unfair to it.

The contenders take turns, so that other work on the machine meets both alike; the clock of each runs during its own
steps only. After every turn: a grid of the averaged generator, and its KID (x 1000, with its standard error) against
all pictures. "reals" is the same figure of one half of the pictures against the other.
OUT holds result.json, reals.png, PRESET-MINUTES.png, and curves.png where matplotlib is installed.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.picture_folder import list_folder
from datasets.pictures import decode_picture
from models.device import plain_arithmetic
from models.gan.latents import draw_latents, generate, picture_batch
from models.gan.pictures import grid_shape, resize, tile, write_png
from models.metrics.distances import Estimate, kernel_distance
from models.metrics.extractors import Extractor, load_extractor
from models.training.algorithm import Algorithm, TrainingBatch, build_algorithm
from models.training.config import TrainingConfig
from models.training.ema import ExponentialMovingAverage
from models.training.presets import resolve_preset
from models.training.schedules import average_half_life

STEPS_PER_LOOK = 4  # at the clock: a GPU works ahead, and waiting for it after every step would cost time


@dataclass
class Contender:
    """A training, and how far it is."""

    preset: str
    config: TrainingConfig
    algorithm: Algorithm
    average: ExponentialMovingAverage
    rng: torch.Generator  # of the training
    order: np.random.Generator  # of the pictures
    nimg: int = 0
    seconds: float = 0.0  # of its own steps
    curve: list[dict[str, Any]] = field(default_factory=list)


def read_pictures(folder: Path, resolution: int) -> np.ndarray:
    """All of a folder, uint8 (N, 3, resolution, resolution)."""
    listed = list_folder(folder)
    pictures = [decode_picture((listed.root / name).read_bytes()).rgb for name in listed.names]
    return np.stack([resize(picture, resolution, resolution).transpose(2, 0, 1) for picture in pictures])


def enter(preset: str, resolution: int, device: torch.device, kimg: float | None, micro_batch: int | None) -> Contender:
    """A contender at its start."""
    changes: dict[str, Any] = {"resolution": resolution, "device": device.type}
    if kimg is not None:
        changes["kimg"] = kimg
    config = resolve_preset(preset, changes)
    if micro_batch is not None and micro_batch < config.batch:
        config = resolve_preset(preset, {**changes, "micro_batch": micro_batch})
    rng = torch.Generator().manual_seed(0)
    algorithm = build_algorithm(config, device, rng)
    average = ExponentialMovingAverage(algorithm.networks()["G"], average_half_life(config, 0), config.ema_ramp_up)
    return Contender(preset, config, algorithm, average, rng, np.random.default_rng(0))


def train_for(contender: Contender, seconds: float, pictures: np.ndarray, device: torch.device) -> None:
    """Steps of one contender for about so many seconds."""
    started = time.perf_counter()
    spent = 0.0
    with plain_arithmetic(device):
        while spent < seconds:
            for _ in range(STEPS_PER_LOOK):
                step(contender, pictures)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            spent = time.perf_counter() - started
    contender.seconds += spent


def step(contender: Contender, pictures: np.ndarray) -> None:
    """One step on pictures drawn at random, half of them mirrored, as the loop does it."""
    config, total = contender.config, contender.config.batch
    images = pictures[contender.order.integers(0, len(pictures), total)]
    mirrored = contender.order.random(total) < 0.5
    images[mirrored] = images[mirrored, :, :, ::-1]
    contender.algorithm.step(TrainingBatch(torch.from_numpy(images), None, 0, total, contender.nimg), contender.rng)
    contender.average.half_life = average_half_life(config, contender.nimg)
    contender.nimg += total
    contender.average.update(contender.algorithm.networks()["G"], total, contender.nimg)


def look(contender: Contender, reals: np.ndarray, extractor: Extractor, count: int, out: Path) -> None:
    """A grid, and KID of so many fakes against the features of the reals."""
    config = contender.config
    contender.algorithm.settle_average(contender.average.network)
    latents = draw_latents(range(count), config.algorithm.z_dim)
    batch = picture_batch(config.height, config.width)
    fakes = generate(contender.average.network, latents, None, batch)
    columns, rows = grid_shape(config.resolution)
    minutes = contender.seconds / 60
    write_png(out / f"{contender.preset}-{minutes:05.1f}.png", tile(fakes[: columns * rows], columns))
    kid = kernel_distance(reals, extractor.extract(fakes))
    contender.curve.append(
        {"minutes": round(minutes, 2), "kimg": contender.nimg / 1000, "kid": kid.value, "error": kid.error}
    )
    print(f"{contender.preset:<16}{minutes:6.1f} min {contender.nimg / 1000:8.1f} kimg   KID {say(kid)}", flush=True)


def say(kid: Estimate) -> str:
    """Times 1000, as such figures are published."""
    return f"{kid.value * 1000:.2f} ± {(kid.error or 0.0) * 1000:.2f}"


def draw_curves(contenders: Sequence[Contender], floor: Estimate, path: Path) -> None:
    """KID over minutes."""
    try:
        import matplotlib
    except ImportError:
        print("no matplotlib here: result.json holds the curves")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for contender in contenders:
        minutes = [point["minutes"] for point in contender.curve]
        kid, error = ([point[name] * 1e3 for point in contender.curve] for name in ("kid", "error"))
        axes.errorbar(minutes, kid, error, marker="o", capsize=3, label=contender.preset)
    axes.axhline(max(floor.value, 0.0) * 1e3, linestyle=":", color="grey", label="reals against reals")
    axes.set(xlabel="minutes", ylabel="KID x 1000, hed-vgg4", ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of square pictures")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--presets", nargs="+", default=["r3gan-64", "stylegan2-ada"])
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=8.0, help="of each contender")
    parser.add_argument("--turns", type=int, default=8, help="how often KID is taken")
    parser.add_argument("--fakes", type=int, default=2000)
    parser.add_argument("--kimg", type=float, help="length that R3GAN's schedules are laid out for")
    parser.add_argument("--micro-batch", type=int, help="pictures computed at once; the presets' spare small GPUs")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    arguments.out.mkdir(parents=True, exist_ok=True)
    asked = (arguments.resolution, device, arguments.kimg, arguments.micro_batch)
    contenders = [enter(preset, *asked) for preset in arguments.presets]

    pictures = read_pictures(arguments.data, arguments.resolution)
    columns, rows = grid_shape(arguments.resolution)
    whole = pictures.transpose(0, 2, 3, 1)
    write_png(arguments.out / "reals.png", tile(whole[: columns * rows], columns))
    extractor = load_extractor("hed-vgg4", device)
    reals = extractor.extract(np.ascontiguousarray(whole))
    shuffled = np.random.default_rng(0).permutation(reals)
    floor = kernel_distance(shuffled[: len(reals) // 2], shuffled[len(reals) // 2 :])
    print(f"{len(pictures)} pictures; reals against reals: KID {say(floor)}")

    for _ in range(arguments.turns):
        for contender in contenders:
            train_for(contender, arguments.minutes * 60 / arguments.turns, pictures, device)
            look(contender, reals, extractor, arguments.fakes, arguments.out)
    result = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads",
        "torch": torch.__version__,
        "pictures": len(pictures),
        "fakes": arguments.fakes,
        "reals": {"kid": floor.value, "error": floor.error},
        "contenders": {
            contender.preset: {
                "sec_per_kimg": round(contender.seconds / contender.nimg * 1000, 4),
                "batch": contender.config.batch,
                "curve": contender.curve,
            }
            for contender in contenders
        },
    }
    (arguments.out / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    draw_curves(contenders, floor, arguments.out / "curves.png")
    for contender in contenders:
        print(f"{contender.preset:<16}{contender.seconds / contender.nimg * 1000:.3f} s/kimg")


if __name__ == "__main__":
    main()
