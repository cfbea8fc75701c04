"""How fast StyleGAN2-ADA trains and how much memory it takes: seconds per 1000 pictures, variant by variant.

    python benchmarks/training.py --device cuda                                # 128, 256 and 512 px, all variants
    python benchmarks/training.py --device cuda --resolution 256 --variants eager best --json out.json
    python benchmarks/training.py --device cpu --resolution 32                 # under two minutes, a narrow network

Needs torch and numpy (and pydantic, which the configs are made of) alone. Pictures are random and lie ready: what is
measured is `StyleGAN2.step` and the average's update, without reading, grids and snapshots. Settings are those of the
preset stylegan2-ada (on a CPU: stylegan2-demo), with augmentation at a fixed p of 0.5.
A round is as many steps as the rarest penalty takes (16), so that each costs its true share. Variants take turns, round
by round, so that other work on the machine meets all alike; the median is reported. Each variant first runs one round
that is not timed (compiling, choosing convolution kernels). Memory is the allocator's peak on a GPU; on a CPU it is
what models/training/memory.py estimates, because a process cannot forget its peak. A variant that this torch or device
cannot run is reported with its error, and the others go on.

eager      float32, memory format and kernels as torch has them by itself
tf32       eager, float32 products rounded to 10 bits of mantissa where the hardware has that (CUDA)
half       the four largest maps in float16 (CUDA) or bfloat16
nchw       half, without channels_last
grouped    half, modulated convolutions as one grouped convolution instead of scaled activations
compile    half, torch.compile for the passes without penalties
graphs     compile with CUDA graphs (mode reduce-overhead)
best       compile, tf32, and convolution kernels chosen by trial (cudnn.benchmark)
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.gan.stylegan2.layers import Form
from models.training.algorithm import TrainingBatch
from models.training.config import StyleGAN2Config, TrainingConfig
from models.training.ema import ExponentialMovingAverage
from models.training.memory import describe_config
from models.training.presets import resolve_preset
from models.training.stylegan2 import StyleGAN2

ANCHORS = {128: (6.79, 6.2), 256: (12.53, 4.5), 512: (41.06, 6.8)}
"""sec/kimg and GB of the reference implementation with its own CUDA kernels, one A100, the same settings
(docs/configs.md of StyleGAN3, column StyleGAN2)."""


@dataclass(frozen=True)
class Variant:
    """One way to compute the same training."""

    name: str
    precision: str = "float32"  # "half" is float16 on a GPU and bfloat16 on a CPU
    compile: bool = False
    mode: str = "default"  # of torch.compile
    channels_last: bool = True
    form: Form = "fused"  # of the modulated convolutions
    tf32: bool = False
    trial: bool = False  # cudnn.benchmark
    needs_cuda: bool = False


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("eager"),
        Variant("tf32", tf32=True, needs_cuda=True),
        Variant("half", precision="half"),
        Variant("nchw", precision="half", channels_last=False),
        Variant("grouped", precision="half", form="grouped"),
        Variant("compile", precision="half", compile=True),
        Variant("graphs", precision="half", compile=True, mode="reduce-overhead", needs_cuda=True),
        Variant("best", precision="half", compile=True, tf32=True, trial=True, needs_cuda=True),
    )
}


@dataclass
class Contender:
    """A variant under measurement."""

    variant: Variant
    algorithm: StyleGAN2
    average: ExponentialMovingAverage
    memory_gb: float
    seconds: list[float] = field(default_factory=list)  # of each round


@dataclass(frozen=True)
class Result:
    """What was measured of a variant."""

    resolution: int
    variant: str
    batch: int
    sec_per_kimg: float  # median over rounds
    fastest: float  # of them
    slowest: float
    memory_gb: float
    anchor_sec_per_kimg: float | None
    anchor_gb: float | None


def make_config(resolution: int, device: str, variant: Variant, batch: int | None) -> TrainingConfig:
    """The preset's settings for this resolution, computed the variant's way."""
    half = "float16" if device == "cuda" else "bfloat16"
    changes: dict[str, Any] = {
        "resolution": resolution,
        "device": device,
        "precision": half if variant.precision == "half" else variant.precision,
        "compile": variant.compile,
        "algorithm": {"augment": "fixed", "augment_p": 0.5},
    }
    if batch is not None:
        changes["batch"] = batch
    return resolve_preset("stylegan2-ada" if device == "cuda" else "stylegan2-demo", changes)


def build(config: TrainingConfig, variant: Variant) -> StyleGAN2:
    """The algorithm, with what a config has no setting for."""
    device = torch.device(config.device.value)
    algorithm = StyleGAN2(config.model_copy(update={"compile": False}), device, torch.Generator().manual_seed(0))
    if not variant.channels_last:
        for network in algorithm.networks().values():
            network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    if variant.form != "fused":  # every pass, those with penalties too
        synthesis = algorithm.generator.synthesis
        paint = synthesis.paint

        def paint_so(ws: torch.Tensor, maps: Sequence[torch.Tensor | None], form: Form) -> torch.Tensor:
            return paint(ws, maps, variant.form)

        synthesis.paint = paint_so  # type: ignore[method-assign]
        algorithm._paint = paint_so
    if variant.compile:
        compiled = partial(torch.compile, dynamic=False, mode=variant.mode)
        algorithm._paint, algorithm._judge = compiled(algorithm._paint), compiled(algorithm.discriminator)
    return algorithm


@contextmanager
def switches(variant: Variant) -> Iterator[None]:
    """The process-wide settings of a variant, for as long as it runs."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = variant.tf32
    torch.backends.cudnn.benchmark = variant.trial
    try:
        yield
    finally:
        (
            torch.backends.cudnn.allow_tf32,
            torch.backends.cuda.matmul.allow_tf32,
            torch.backends.cudnn.benchmark,
        ) = before


def run_round(contender: Contender, batch: TrainingBatch, steps: int, rng: torch.Generator) -> float:
    """Seconds that `steps` steps take; all work is done when the clock stops."""
    contender.algorithm.steps = 0  # each round meets the same penalties
    _finish(contender.algorithm.device)
    started = time.perf_counter()
    for _ in range(steps):
        contender.algorithm.step(batch, rng)
        contender.average.update(contender.algorithm.generator, batch.total, 100_000)
    _finish(contender.algorithm.device)
    return time.perf_counter() - started


def prepare(resolution: int, device: str, variant: Variant, batch: TrainingBatch, steps: int) -> Contender:
    """Build a variant and run its first round, which tells its memory on a GPU."""
    config = make_config(resolution, device, variant, batch.total)
    before = 0
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    algorithm = build(config, variant)
    average = ExponentialMovingAverage(algorithm.generator, 10_000.0, None)
    contender = Contender(variant, algorithm, average, 0.0)
    with switches(variant):
        run_round(contender, batch, steps, torch.Generator().manual_seed(1))
    if device == "cuda":
        contender.memory_gb = (torch.cuda.max_memory_allocated() - before) / 1e9
    else:
        contender.memory_gb = describe_config(config).peak_gb
    return contender


def measure(
    resolution: int, device: str, variants: Sequence[Variant], batch_size: int | None, repeats: int
) -> list[Result]:
    """All variants at one resolution, fastest first."""
    config = make_config(resolution, device, variants[0], batch_size)
    assert isinstance(config.algorithm, StyleGAN2Config)
    steps = config.algorithm.r1_interval
    images = np.random.default_rng(0).integers(0, 256, (config.batch, 3, config.height, config.width), dtype=np.uint8)
    batch = TrainingBatch(torch.from_numpy(images).to(device), None, 0, config.batch, 0)
    contenders = []
    for variant in variants:
        try:
            contenders.append(prepare(resolution, device, variant, batch, steps))
        except RuntimeError as error:  # out of memory, or a compiler that gives up
            print(f"{resolution} px, {variant.name}: cannot run here: {str(error).strip().splitlines()[0][:200]}")
    for repeat in range(repeats):
        for contender in contenders:
            with switches(contender.variant):
                seconds = run_round(contender, batch, steps, torch.Generator().manual_seed(2 + repeat))
            contender.seconds.append(seconds / (steps * config.batch) * 1000)
    anchor = ANCHORS.get(resolution) if device == "cuda" else None
    results = [
        Result(
            resolution=resolution,
            variant=contender.variant.name,
            batch=config.batch,
            sec_per_kimg=round(statistics.median(contender.seconds), 3),
            fastest=round(min(contender.seconds), 3),
            slowest=round(max(contender.seconds), 3),
            memory_gb=round(contender.memory_gb, 3),
            anchor_sec_per_kimg=anchor[0] if anchor else None,
            anchor_gb=anchor[1] if anchor else None,
        )
        for contender in contenders
    ]
    return sorted(results, key=lambda result: result.sec_per_kimg)


def show(results: Sequence[Result], device: str) -> None:
    """A table for people."""
    print(f"\n{results[0].resolution} px, batch {results[0].batch}, {device}")
    print(f"{'variant':<10}{'sec/kimg':>10}{'range':>18}{'GB':>8}   A100 with its own kernels")
    for result in results:
        spread = f"{result.fastest:.2f}..{result.slowest:.2f}"
        anchor = f"{result.anchor_sec_per_kimg} s, {result.anchor_gb} GB" if result.anchor_gb else "-"
        print(f"{result.variant:<10}{result.sec_per_kimg:>10.2f}{spread:>18}{result.memory_gb:>8.2f}   {anchor}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--resolution", type=int, nargs="+", help="pixels; by default 128 256 512, on a CPU 32")
    parser.add_argument("--variants", nargs="+", choices=sorted(VARIANTS), help="by default all that the device has")
    parser.add_argument("--batch", type=int, help="pictures per step; by default the preset's")
    parser.add_argument("--repeats", type=int, help="timed rounds of each variant; by default 3, on a CPU 1")
    parser.add_argument("--json", type=Path, help="write the results to this file as well")
    arguments = parser.parse_args()
    device = arguments.device
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device: use --device cpu --resolution 32")
    usable = [name for name, variant in VARIANTS.items() if device == "cuda" or not variant.needs_cuda]
    refused = sorted(set(arguments.variants or ()) - set(usable))
    if refused:
        parser.error(f"{', '.join(refused)} need a CUDA device")
    variants = [VARIANTS[name] for name in arguments.variants or usable]
    name = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    everything: list[Result] = []
    for resolution in arguments.resolution or ([128, 256, 512] if device == "cuda" else [32]):
        repeats = arguments.repeats or (3 if device == "cuda" else 1)
        results = measure(resolution, device, variants, arguments.batch, repeats)
        if results:
            show(results, name)
        everything += results
    if arguments.json:
        content = {"device": name, "torch": torch.__version__, "results": [asdict(result) for result in everything]}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
