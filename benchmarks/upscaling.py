"""How fast pictures are enlarged, what the pipeline around the network costs, and how far backends lie apart.

    python benchmarks/upscaling.py --cpu [--pictures FOLDER] [--count 24] [--rounds 5] [--json out.json]
    python benchmarks/upscaling.py --gpu [--device cuda] [--count 4000] [--weights FOLDER] [--peak TFLOPS]

--cpu: JPEG files of 128 and of 256 pixels through `upscale_all` to files of twice the size, PNG and JPEG 95. Against it
stands the network alone: a bare ncnn loop from and to memory, in two forms (one net with a thread per core, or a
one-thread net per core), of which the faster counts. The ratio of medians is given, with the least and the largest of
the rounds' own ratios; all ways take turns within a round.

--gpu needs torch, numpy, OpenCV and Pillow, and the weights (fetched, or a folder that holds them). It measures 256 to
512 pixels from and to memory per network, precision and way of running, with and without the eight views, end to end
with JPEG files, and on the device alone; MACs are counted from the network. With --device cpu it shows that it runs.

Without a folder, pictures are drawn.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from models.upscale.catalogue import load_network, weight_names
from models.upscale.engine import Picture, Target, Upscaled, Upscaler, UpscaleSettings
from models.upscale.fit import RGB
from models.upscale.network import UpscaleNetwork
from models.upscale.precision import DTYPES, exact_arithmetic, try_precisions
from models.upscale.settings import count_cores
from models.upscale.tiles import border
from models.upscale.torch_backend import TorchBackend
from models.weights import find_weight

TWICE = Target(scale=2)
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
PEAKS = {"H100": 989.0, "H200": 989.0, "A100": 312.0}  # TFLOP/s in half precision without sparsity, as published
SINGLE_PEAKS = {"H100": 67.0, "H200": 67.0, "A100": 19.5}  # in float32, TF32 off


def draw(seed: int, side: int) -> RGB:
    """Flat colours, outlines, soft shading: what drawn faces are made of."""
    rng = np.random.default_rng(seed)
    picture = cv2.resize(rng.integers(60, 256, (3, 3, 3), dtype=np.uint8), (side, side), interpolation=cv2.INTER_CUBIC)
    for _ in range(14):
        centre = tuple(int(n) for n in rng.integers(0, side, 2))
        axes = tuple(int(n) for n in rng.integers(side // 20, side // 3, 2))
        turn, colour = float(rng.uniform(0, 180)), tuple(int(n) for n in rng.integers(0, 256, 3))
        cv2.ellipse(picture, centre, axes, turn, 0, 360, colour, -1, cv2.LINE_AA)
        cv2.ellipse(picture, centre, axes, turn, 0, 360, (25, 20, 30), max(1, side // 100), cv2.LINE_AA)
    return np.asarray(picture, np.uint8)


def gather(folder: Path | None, count: int, side: int) -> list[RGB]:
    """Square pictures of one side: of a folder, reduced by areas, or drawn."""
    if folder is None:
        return [draw(seed, side) for seed in range(count)]
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    chosen = [paths[len(paths) * k // count] for k in range(min(count, len(paths)))]
    pictures = []
    for path in chosen:
        bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if bgr is None:
            continue
        least = min(bgr.shape[:2])
        square = cv2.resize(bgr[:least, :least], (side, side), interpolation=cv2.INTER_AREA)
        pictures.append(np.ascontiguousarray(square[..., ::-1], np.uint8))
    if not pictures:
        raise SystemExit(f"{folder} has no readable pictures: name another, or none to have some drawn")
    return pictures


def write_jpegs(pictures: Sequence[RGB], folder: Path) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{number:05d}.jpg" for number in range(len(pictures))]
    for path, rgb in zip(paths, pictures, strict=True):
        cv2.imwrite(str(path), rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    return paths


def load_file(path: Path) -> Picture:
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert bgr is not None
    return Picture(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), TWICE)  # type: ignore[arg-type]


def save_as(folder: Path, suffix: str) -> Callable[[Path, Upscaled | Exception], int]:
    """Writes a result; PNG as the store does where its code is at hand."""

    def save(path: Path, result: Upscaled | Exception) -> int:
        if isinstance(result, Exception):
            raise result
        if suffix == ".png":
            from datasets.pictures import encode_png

            content = encode_png(result.rgb)
        else:
            bgr = cv2.cvtColor(result.rgb, cv2.COLOR_RGB2BGR)
            full_colour = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
            content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95, *full_colour])[1].tobytes()
        return (folder / (path.stem + suffix)).write_bytes(content)

    return save


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class BareNet:
    """ncnn alone, as one would write it by hand: a padded picture in, a rounded one out."""

    def __init__(self, network: str, threads: int) -> None:
        import ncnn

        param, weights = (str(find_weight(name)) for name in weight_names(network))
        self._margin = load_network(network).margin  # even sides need no more
        self._net = ncnn.Net()
        self._net.opt.num_threads = threads
        self._net.load_param(param)
        self._net.load_model(weights)

    def enlarge(self, rgb: RGB) -> RGB:
        import ncnn

        m = self._margin
        padded = np.pad(rgb, ((m, m), (m, m), (0, 0)), mode="edge")
        planes = np.ascontiguousarray(padded.transpose(2, 0, 1).astype(np.float32) / np.float32(255))
        extractor = self._net.create_extractor()
        extractor.input(self._net.input_names()[0], ncnn.Mat(planes))
        result = np.array(extractor.extract(self._net.output_names()[0])[1])
        return np.rint(np.clip(result, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)


def measure_cpu(network: str, pictures: Sequence[RGB], rounds: int, folder: Path) -> dict[str, Any]:
    """Pictures per second of each way, and the ratios to the bare loop."""
    cores = count_cores()
    paths = write_jpegs(pictures, folder / "in")
    (folder / "out").mkdir()
    arrays = [load_file(path).rgb for path in paths]
    together, alone = BareNet(network, cores), BareNet(network, 1)
    upscaler = Upscaler(UpscaleSettings(network=network, device="cpu", backend="ncnn"))

    def loop_cores() -> None:
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(alone.enlarge, arrays))

    def engine(suffix: str) -> Callable[[], Any]:
        return lambda: list(upscaler.upscale_all(paths, load_file, save_as(folder / "out", suffix)))

    ways: dict[str, Callable[[], Any]] = {
        f"bare ncnn, {cores} threads": lambda: [together.enlarge(rgb) for rgb in arrays],
        f"bare ncnn, {cores} nets": loop_cores,
        "engine, memory": lambda: run_in_memory(upscaler, arrays, len(arrays)),
        "engine, JPEG to PNG": engine(".png"),
        "engine, JPEG to JPEG": engine(".jpg"),
    }
    for way in ways.values():  # what is set up at a first use does not count
        way()
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways) if number % 2 == 0 else list(reversed(ways)):
            taken[name].append(seconds(ways[name]))
    fastest = min(list(taken)[:2], key=lambda name: statistics.median(taken[name]))
    report = {}
    for name, times in taken.items():
        ratios = [bare / own for bare, own in zip(taken[fastest], times, strict=True)]
        report[name] = {
            "pictures/s": round(len(arrays) / statistics.median(times), 2),
            "of bare": round(statistics.median(taken[fastest]) / statistics.median(times), 3),
            "rounds": (round(min(ratios), 3), round(max(ratios), 3)),
        }
    return report


def measure_torch_cpu(network: str, pictures: Sequence[RGB]) -> dict[str, float]:
    """Pictures per second in torch, the same pictures in each arithmetic."""
    rates = {}
    for precision in ("float32", "bfloat16"):
        backend = TorchBackend(load_network(network), torch.device("cpu"), precision)
        backend.enlarge(pictures[0])
        rates[precision] = round(len(pictures) / seconds(lambda: [backend.enlarge(rgb) for rgb in pictures]), 2)  # noqa: B023
    return rates


def compare_backends(network: str, pictures: Sequence[RGB]) -> dict[str, Any]:
    """How many channel values differ by 0, 1, 2, ... between ncnn and torch's float32."""
    in_ncnn, in_torch = BareNet(network, 1), TorchBackend(load_network(network), torch.device("cpu"))
    counts = np.zeros(256, np.int64)
    for rgb in pictures:
        difference = np.abs(in_ncnn.enlarge(rgb).astype(np.int16) - in_torch.enlarge(rgb))
        counts += np.bincount(difference.ravel(), minlength=256)
    shares = {str(n): float(counts[n] / counts.sum()) for n in np.flatnonzero(counts)}
    return {"pictures": len(pictures), "largest": int(np.flatnonzero(counts)[-1]), "share by difference": shares}


def run_cpu(arguments: argparse.Namespace) -> dict[str, Any]:
    report: dict[str, Any] = {"cores": count_cores(), "load before": os.getloadavg()}
    for network in arguments.networks or ["upconv7"]:
        for side in arguments.sides:
            pictures = gather(arguments.pictures, arguments.count, side)
            with tempfile.TemporaryDirectory() as folder:
                row = measure_cpu(network, pictures, arguments.rounds, Path(folder))
            print(f"{network} {side} to {2 * side}")
            for way, figures in row.items():
                rate, share, rounds = figures.values()
                print(f"  {way:26s} {rate:8.2f} pictures/s   {share:.3f} of bare {rounds}")
            row["torch"] = measure_torch_cpu(network, pictures[:4])
            row["difference"] = compare_backends(network, pictures[:8])
            print(f"  torch {row['torch']}\n  ncnn against torch float32: {row['difference']}", flush=True)
            report[f"{network} {side}"] = row
    report["load after"] = os.getloadavg()
    print("load before and after:", report["load before"], report["load after"])
    return report


def count_macs(network: UpscaleNetwork, side: int) -> tuple[int, int]:
    """Multiply-adds for one square picture with its border, and their number per input pixel without any border.

    The second counts a large picture's growth, so that borders cancel. Convolutions only: nothing else counts.
    """

    def count(side: int) -> int:
        found = []

        def add(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            spread = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
            weight = layer.weight
            assert isinstance(weight, torch.Tensor)
            found.append(weight.numel() * spread.shape[2] * spread.shape[3])

        hooks = [
            layer.register_forward_hook(add)  # type: ignore[arg-type]
            for layer in shapes.modules()
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        ]
        padded = side + sum(border(network, side))
        shapes(torch.zeros(1, 3, padded, padded, device="meta"))
        for hook in hooks:
            hook.remove()
        return sum(found)

    shapes = copy.deepcopy(network).to("meta")
    large = [count(n) for n in (1000, 2000, 3000)]
    return count(side), round((large[2] - 2 * large[1] + large[0]) / 2 / 1000**2)


def measure_device(network: UpscaleNetwork, settings: UpscaleSettings, side: int, passes: int) -> float:
    """Pictures per second on the device alone: batches that lie there, results that stay there."""
    device = torch.device(settings.device)
    assert settings.precision != "auto"
    backend = TorchBackend(network, device, settings.precision, settings.tta, settings.speedup)
    bucket = backend.bucket(side, side)
    assert bucket is not None
    pixels = torch.randint(0, 256, (bucket.batch, bucket.height, bucket.width, 3), dtype=torch.uint8, device=device)
    forward = backend._enlarge if backend._graphs is None else backend._graph
    with torch.inference_mode(), exact_arithmetic():
        for _ in range(2):
            forward(pixels)
        wait(device)
        start = time.perf_counter()
        for _ in range(passes):
            forward(pixels)
        wait(device)
        return passes * bucket.batch / (time.perf_counter() - start)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def run_in_memory(upscaler: Upscaler, pictures: Sequence[RGB], count: int) -> None:
    """So many pictures from and to memory, through the pipeline."""
    results = upscaler.upscale_all(
        range(count), lambda k: Picture(pictures[k % len(pictures)], TWICE), lambda _, result: result
    )
    for result in results:
        if isinstance(result, Exception):
            raise result


def run_gpu(arguments: argparse.Namespace) -> dict[str, Any]:
    device = torch.device(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    folders = [arguments.weights] if arguments.weights else []
    pictures = gather(arguments.pictures, min(64, arguments.count), arguments.sides[-1])
    side = pictures[0].shape[0]
    report: dict[str, Any] = {"device": name, "torch": torch.__version__, "cores": count_cores(), "side": side}
    print(f"{name}, torch {torch.__version__}, {count_cores()} cores, {side} to {2 * side} pixels")
    for network in arguments.networks or ["upconv7", "cunet"]:
        loaded = load_network(network, folders=folders)
        macs, per_pixel = count_macs(loaded, side)
        trials = [
            f"{t.precision} {1e3 * t.seconds:.1f} ms, {t.difference:.2f}/255" for t in try_precisions(loaded, device)
        ]
        print(f"{network}: {per_pixel:,} MACs per input pixel, {macs / 1e9:.1f} GMAC per picture; {'; '.join(trials)}")
        rows: dict[str, float] = {}
        for precision, speedup, tta in itertools.product(DTYPES, ("none", "compile", "graphs"), (False, True)):
            if device.type == "cuda" or (precision != "float16" and speedup == "none"):
                settings = UpscaleSettings(network, tta, "torch", str(device), precision, speedup=speedup)  # type: ignore[arg-type]
                rows |= measure_way(arguments, settings, loaded, pictures, macs, name)
        report[network] = {"macs per input pixel": per_pixel, "pictures/s": rows}
    report["end to end"] = run_end_to_end(arguments, pictures, folders)
    return report


def measure_way(
    arguments: argparse.Namespace,
    settings: UpscaleSettings,
    loaded: UpscaleNetwork,
    pictures: Sequence[RGB],
    macs: int,
    name: str,
) -> dict[str, float]:
    """One line: on the device alone and through the pipeline, and the share of the card's peak."""
    views = 8 if settings.tta else 1
    label = f"{settings.precision} {settings.speedup}{' 8 views' if settings.tta else ''}"
    count = max(2, arguments.count // views // (1 if settings.network == "upconv7" else 4))
    folders = [arguments.weights] if arguments.weights else []
    try:
        alone = measure_device(loaded, settings, pictures[0].shape[0], arguments.passes)
        upscaler = Upscaler(settings, folders)
        run_in_memory(upscaler, pictures, max(1, min(count // 4, 256)))
        through = count / seconds(lambda: run_in_memory(upscaler, pictures, count))
    except RuntimeError as error:
        print(f"  {label:28s} failed: {str(error).splitlines()[0]}")
        return {}
    peaks = SINGLE_PEAKS if settings.precision == "float32" else PEAKS
    peak = arguments.peak or next((peaks[card] for card in peaks if card in name), 0.0)
    tflops = 2e-12 * macs * views * alone
    share = f"{100 * tflops / peak:5.1f} % of peak" if peak else ""
    print(f"  {label:28s} device {alone:9.1f}/s  {tflops:7.2f} TFLOP/s {share}  memory {through:9.1f}/s", flush=True)
    return {f"{label}, device": alone, f"{label}, memory": through}


def run_end_to_end(arguments: argparse.Namespace, pictures: Sequence[RGB], folders: list[Path]) -> dict[str, float]:
    """Files to files with what "auto" chooses."""
    rates = {}
    settings = UpscaleSettings("upconv7", False, "torch", arguments.device)
    upscaler = Upscaler(settings, folders)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_jpegs(pictures, folder / "in")
        paths = [paths[k % len(paths)] for k in range(arguments.count)]
        save = save_as(folder, ".jpg")
        list(upscaler.upscale_all(paths[:64], load_file, save))
        taken = seconds(lambda: list(upscaler.upscale_all(paths, load_file, save)))
        rates[f"{upscaler.engine}, JPEG to JPEG"] = arguments.count / taken
    print("end to end:", {way: round(rate, 1) for way, rate in rates.items()})
    return rates


def main() -> None:
    """Print the figures, and write them as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--cpu", action="store_true", help="ncnn and torch on this CPU")
    what.add_argument("--gpu", action="store_true", help="torch on a CUDA device")
    parser.add_argument("--device", default="cuda", help="of --gpu")
    parser.add_argument("--pictures", type=Path, help="folder; default: drawn")
    parser.add_argument("--weights", type=Path, help="folder with weight files, besides the usual ones")
    parser.add_argument("--networks", nargs="+", help="default: upconv7, and for --gpu cunet")
    parser.add_argument("--sides", type=int, nargs="+", default=[128, 256], help="--gpu takes the last")
    parser.add_argument("--count", type=int, help="pictures per way: 24, for --gpu 4000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--passes", type=int, default=20, help="batches on the device alone")
    parser.add_argument("--peak", type=float, help="TFLOP/s of a card that is not known here")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.count = arguments.count or (24 if arguments.cpu else 4000)
    report = run_cpu(arguments) if arguments.cpu else run_gpu(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
