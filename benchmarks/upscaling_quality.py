"""How near enlarged pictures come to the originals: plain resampling, and every network, with and without TTA.

    python benchmarks/upscaling_quality.py [--pictures FOLDER ...] [--limit 40] [--scale 2] [--reduce box]
        [--networks upconv7,cunet] [--tta upconv7,cunet] [--noise] [--backend auto] [--json FILE]
    python benchmarks/upscaling_quality.py --sheet docs/upscaling.jpg

A picture is reduced by the mean of whole squares of pixels (exactly by --scale; --reduce: otherwise), enlarged again,
and compared with itself. Larger pictures are cut to their middle first, transparent ones are laid on white.
Of a folder, --limit pictures are taken, evenly spread over the sorted names; one that any plain method restores without
a fault says nothing and is left out. Without --pictures, a board of 60 posts is drawn (`kaobako booru`) and its faces
are cut out.

psnr is 10 log10(255^2 / mean squared error) over R, G and B. ssim is that of Wang et al. (2004) on luma (.299, .587,
.114): with means m, variances v and covariance c in a Gaussian window of 11 x 11, sigma 1.5, the mean over all windows
inside of (2 m1 m2 + C1) (2 c + C2) / ((m1^2 + m2^2 + C1) (v1 + v2 + C2)), C1 = (.01 x 255)^2, C2 = (.03 x 255)^2.
Both leave out a border of 4 pixels. "vs bicubic" is the mean of the pictures' own differences, with its standard error.
Seconds are processor time per picture, the first one apart.

--noise asks another question: the reduced pictures are stored as JPEG at several qualities, and brought back with each
noise level of the networks (--networks, upconv7 unless given). * marks the best: the thresholds of `--noise auto`.

--sheet draws faces of a demo board, enlarged by everything, and writes no table.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont, ImageOps

from datasets.booru.board import draw_board
from datasets.jpeg_quality import estimate_quality
from models.upscale.catalogue import NETWORKS
from models.upscale.engine import Target, Upscaler, UpscaleSettings

RGB = npt.NDArray[np.uint8]
Enlarge = Callable[[RGB], RGB]

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
PLAIN = {
    "nearest": Image.Resampling.NEAREST,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
LEVELS = ("none", "0", "1", "2", "3")
QUALITIES = (30, 50, 60, 70, 80, 90, 95, 98)
BORDER = 4  # pixels at each side that count in no score
WINDOW, SIGMA = 11, 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


# ---- scores ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """One picture, enlarged in one way."""

    psnr: float  # dB
    ssim: float
    seconds: float


@dataclass(frozen=True)
class Row:
    """One way of enlarging over one folder."""

    folder: str
    pictures: int
    method: str
    psnr: float
    psnr_gain: float  # over bicubic
    psnr_error: float  # standard error of the gain
    ssim: float
    ssim_gain: float
    ssim_error: float
    seconds: float


def psnr(first: RGB, second: RGB) -> float:
    error = float(np.mean((first.astype(np.float64) - second) ** 2))
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def ssim(first: RGB, second: RGB) -> float:
    """SSIM of two (H, W, 3) pictures, 11 x 11 pixels at least."""
    one, two = (picture.astype(np.float64) @ (0.299, 0.587, 0.114) for picture in (first, second))
    mean1, mean2 = _mean(one), _mean(two)
    variance1, variance2 = _mean(one * one) - mean1**2, _mean(two * two) - mean2**2
    covariance = _mean(one * two) - mean1 * mean2
    above = (2 * mean1 * mean2 + C1) * (2 * covariance + C2)
    below = (mean1**2 + mean2**2 + C1) * (variance1 + variance2 + C2)
    return float((above / below).mean())


def _mean(plane: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Gaussian means around every pixel whose window lies inside."""
    reach = WINDOW // 2
    blurred = np.asarray(cv2.GaussianBlur(plane, (WINDOW, WINDOW), SIGMA), np.float64)
    return blurred[reach:-reach, reach:-reach]


def check_ssim() -> None:
    """Stop unless SSIM is what its formula says: for flat pictures, and for one window worked out by hand."""
    flat = [np.full((20, 30, 3), level, np.uint8) for level in (60, 180)]
    expected = (2 * 60 * 180 + C1) / (60**2 + 180**2 + C1)
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, 256, (2, WINDOW, WINDOW, 3), dtype=np.uint8)
    weight = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
    weights = (np.outer(weight, weight) / weight.sum() ** 2).ravel()
    lumas = np.stack([p.reshape(-1, 3).astype(float) @ (0.299, 0.587, 0.114) for p in (one, two)])
    means = lumas @ weights
    spread = (lumas - means[:, None]) * weights @ (lumas - means[:, None]).T
    by_hand = (2 * means.prod() + C1) * (2 * spread[0, 1] + C2)
    by_hand /= ((means**2).sum() + C1) * (np.trace(spread) + C2)
    found = (ssim(flat[0], flat[1]), ssim(one, two), ssim(one, one))
    if not np.allclose(found, (expected, by_hand, 1.0), rtol=0, atol=1e-9):
        raise SystemExit(f"SSIM is wrong: {found} instead of {(expected, by_hand, 1.0)}. Is this OpenCV sound?")


def score(original: RGB, result: RGB, seconds: float) -> Score:
    if result.shape != original.shape:
        raise SystemExit(f"{result.shape} came back instead of {original.shape}")
    inner = (slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    first, second = original[inner], result[inner]
    return Score(psnr(first, second), ssim(first, second), seconds)


def paired(values: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """Mean of the differences and its standard error; 0 where one picture cannot tell."""
    difference = np.subtract(values, others)
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else 0.0
    return float(difference.mean()), float(error)


# ---- pictures --------------------------------------------------------------------------------------------------------


def read_rgb(path: Path) -> RGB:
    """A picture as (H, W, 3) uint8, upright, transparency over white."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if "A" in image.getbands() or "transparency" in image.info:
            rgba = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        return np.asarray(image.convert("RGB"))


def cut_middle(rgb: RGB, side: int, scale: int) -> RGB:
    """The middle, at most side x side, its sides multiples of scale."""
    height, width = (min(length, side) // scale * scale for length in rgb.shape[:2])
    top, left = (rgb.shape[0] - height) // 2, (rgb.shape[1] - width) // 2
    return np.ascontiguousarray(rgb[top : top + height, left : left + width])


def reduce(rgb: RGB, scale: int, how: str = "box") -> RGB:
    """Every square of scale x scale pixels becomes one: their mean ("box"), or by a wider, sharper window."""
    if how == "box":
        return np.asarray(Image.fromarray(rgb).reduce(scale))
    size = (rgb.shape[1] // scale, rgb.shape[0] // scale)
    return np.asarray(Image.fromarray(rgb).resize(size, PLAIN[how]))


def read_folder(folder: Path, limit: int, side: int, scale: int) -> list[RGB]:
    """Up to `limit` pictures, evenly spread over the sorted names, fit to be scored."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    every = max(1, len(paths) // limit) if limit else 1
    chosen = (cut_middle(read_rgb(path), side, scale) for path in paths[::every][: limit or None])
    pictures = [rgb for rgb in chosen if min(rgb.shape[:2]) > 2 * BORDER + WINDOW and _is_telling(rgb, scale)]
    if not pictures:
        raise SystemExit(f"no picture in {folder} can be scored: name a folder with {', '.join(sorted(SUFFIXES))}")
    return pictures


def _is_telling(rgb: RGB, scale: int) -> bool:
    """Whether no plain method brings the picture back without a fault, as all do with flat paper."""
    return all(score(rgb, resize(reduce(rgb, scale), scale, how), 0).psnr < 100 for how in PLAIN)


def cut_faces(board: Path, side: int) -> list[RGB]:
    """Sound faces of a drawn board with the hair around them, side x side pixels, in the order of the posts.

    A large face is reduced by a whole factor first, as `reduce` does it: what counts as the original is then as sharp
    as a drawing can be, and free of JPEG noise.
    """
    faces = []
    for post in pq.read_table(board / "truth.parquet").sort_by("post_id").to_pylist():
        if post["expected"] != "keep" or not post["path"]:
            continue
        rgb = read_rgb(board / post["path"])
        for face in post["faces"]:
            times = max(1, round(1.3 * face["w"] / side))
            left, top = (int(face[axis] + face["w"] / 2 - side * times / 2) for axis in "xy")
            cut = rgb[max(0, top) : top + side * times, max(0, left) : left + side * times]
            if cut.shape[:2] == (side * times, side * times) and min(left, top) >= 0:
                faces.append(reduce(cut, times))
    return faces


# ---- ways of enlarging -----------------------------------------------------------------------------------------------


def resize(rgb: RGB, scale: int, how: str) -> RGB:
    size = (rgb.shape[1] * scale, rgb.shape[0] * scale)
    return np.asarray(Image.fromarray(rgb).resize(size, PLAIN[how]))


def list_methods(networks: Sequence[str], tta: Sequence[str], scale: int, backend: str) -> dict[str, Enlarge]:
    """Every way by its name: the plain ones, each network, and those of `tta` once more with it."""
    methods: dict[str, Enlarge] = {}
    for how in PLAIN:
        methods[how] = lambda rgb, how=how: resize(rgb, scale, how)  # type: ignore[misc]
    for name in networks:
        methods[name] = load(name, scale, backend)
        if name in tta:
            methods[f"{name} + TTA"] = load(name, scale, backend, tta=True)
    return methods


def load(name: str, scale: int, backend: str, noise: str = "none", tta: bool = False) -> Enlarge:
    """A network of the catalogue behind the engine that `kaobako upscale` uses."""
    upscaler = Upscaler(UpscaleSettings(network=name, tta=tta, backend=backend))  # type: ignore[arg-type]
    target = Target(scale=scale, fit="keep")
    return lambda rgb: upscaler.upscale(rgb, target, noise).rgb


def enlarging_networks(scale: int) -> list[str]:
    """The networks that reach a factor by repeating themselves or by halving what they give."""
    return [name for name, info in NETWORKS.items() if info.scale > 1 and info.scale in (2, scale, 2 * scale)]


# ---- tables ----------------------------------------------------------------------------------------------------------


def compare(folder: str, pictures: list[RGB], methods: dict[str, Enlarge], scale: int, how: str) -> list[Row]:
    """Every method over every picture, printed as they come."""
    print(f"\n{folder}: {len(pictures)} pictures, reduced by {how}, {scale}x\n")
    print("| method | PSNR dB | vs bicubic | SSIM | vs bicubic | s |\n|---|---:|---:|---:|---:|---:|")
    rows: list[Row] = []
    bicubic: list[Score] = []
    small = [reduce(rgb, scale, how) for rgb in pictures]
    for method in ("bicubic", *(name for name in methods if name != "bicubic")):
        enlarge = methods[method]
        enlarge(small[0])  # the first time also loads the weights
        scores = [score(rgb, *_timed(enlarge, low)) for rgb, low in zip(pictures, small, strict=True)]
        bicubic = bicubic or scores
        row = _summarise(folder, method, scores, bicubic)
        rows.append(row)
        gains = (f"{row.psnr_gain:+.2f} ± {row.psnr_error:.2f}", f"{row.ssim_gain:+.4f} ± {row.ssim_error:.4f}")
        print(
            f"| {method} | {row.psnr:.2f} | {gains[0]} | {row.ssim:.4f} | {gains[1]} | {row.seconds:.2f} |", flush=True
        )
    return rows


def _timed(enlarge: Enlarge, rgb: RGB) -> tuple[RGB, float]:
    start = time.process_time()
    result = enlarge(rgb)
    return result, time.process_time() - start


def _summarise(folder: str, method: str, scores: list[Score], bicubic: list[Score]) -> Row:
    columns = {name: [asdict(one)[name] for one in scores] for name in ("psnr", "ssim", "seconds")}
    return Row(
        folder,
        len(scores),
        method,
        float(np.mean(columns["psnr"])),
        *paired(columns["psnr"], [one.psnr for one in bicubic]),
        float(np.mean(columns["ssim"])),
        *paired(columns["ssim"], [one.ssim for one in bicubic]),
        float(np.mean(columns["seconds"])),
    )


def store_jpeg(rgb: RGB, quality: int | None, subsampling: int) -> tuple[RGB, float | None]:
    """The picture after JPEG, and the quality that its tables tell; as it is without a quality."""
    if quality is None:
        return rgb, None
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "JPEG", quality=quality, subsampling=subsampling)
    with Image.open(stream) as opened:
        return np.asarray(opened.convert("RGB")), estimate_quality(opened.quantization)  # type: ignore[attr-defined]


def compare_noise(
    folder: str, pictures: list[RGB], network: str, options: argparse.Namespace
) -> list[dict[str, object]]:
    """Each noise level at each JPEG quality; the differences are to level none, the best ones are marked."""
    levels = {level: load(network, options.scale, options.backend, level) for level in LEVELS}
    print(f"\n{folder}: {len(pictures)} pictures, {network} {options.scale}x, PSNR dB / SSIM by noise level\n")
    print(f"| JPEG | tables say | {' | '.join(LEVELS)} |\n|---|---|{'---:|' * len(LEVELS)}")
    rows: list[dict[str, object]] = []
    for quality in (*options.qualities, None):
        small = [store_jpeg(reduce(rgb, options.scale), quality, options.subsampling) for rgb in pictures]
        told = sorted({estimate for _, estimate in small if estimate is not None})
        scores = {
            level: [score(rgb, enlarge(low), 0) for rgb, (low, _) in zip(pictures, small, strict=True)]
            for level, enlarge in levels.items()
        }
        means = {name: {v: np.mean([asdict(s)[name] for s in scores[v]]) for v in LEVELS} for name in ("psnr", "ssim")}
        best = {name: max(LEVELS, key=lambda level, name=name: means[name][level]) for name in means}  # type: ignore[misc]
        cells = [
            f"{means['psnr'][v]:.2f}{'*' * (v == best['psnr'])} / {means['ssim'][v]:.4f}{'*' * (v == best['ssim'])}"
            for v in LEVELS
        ]
        estimates = ", ".join(f"{value:g}" for value in told) or "-"
        print(f"| {quality or 'none'} | {estimates} | {' | '.join(cells)} |", flush=True)
        for level in LEVELS:
            gain, error = paired([s.psnr for s in scores[level]], [s.psnr for s in scores["none"]])
            row = {"folder": folder, "network": network, "quality": quality, "told": told, "noise": level}
            values = {name: float(means[name][level]) for name in means}
            rows.append({**row, **values, "psnr_gain": gain, "psnr_error": error})
    return rows


# ---- contact sheet ---------------------------------------------------------------------------------------------------


CUT, CELL, LINE, GAP, COLUMNS = 96, 192, 20, 8, 6  # pixels of an original, of what is shown of it, between them
SHEET_QUALITY = 40


def draw_sheet(board: Path, networks: Sequence[str], backend: str) -> Image.Image:
    """Two faces of a board, halved and enlarged by everything; beneath, one stored as JPEG and cleaned."""
    first, second, third = [face for face in cut_faces(board, CUT) if face.std() > 45][:3]
    methods = list_methods(networks, (), 2, backend)
    del methods["lanczos"]  # at this size nobody can tell it from bicubic
    rows = [
        [*((name, enlarge(reduce(face, 2))) for name, enlarge in methods.items()), ("original", face)]
        for face in (first, second)
    ]
    small, _ = store_jpeg(reduce(third, 2), SHEET_QUALITY, 2)
    noisy = []
    for plain, name in (("nearest", "upconv7"), ("bicubic", "cunet")):
        noisy.append((f"JPEG {SHEET_QUALITY}, {plain}", resize(small, 2, plain)))
        levels = [level for level in LEVELS if (name, level) != ("cunet", "0")]
        noisy += [(f"{name}, noise {level}", load(name, 2, backend, level)(small)) for level in levels]
    return _lay_out([*rows, [*noisy, ("original", third)]])


def _lay_out(rows: list[list[tuple[str, RGB]]]) -> Image.Image:
    lines = sum(-(-len(row) // COLUMNS) for row in rows)
    size = (COLUMNS * (CELL + GAP) + GAP, lines * (CELL + LINE + GAP) + GAP * (len(rows) + 1))
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    y = GAP
    for row in rows:
        for start in range(0, len(row), COLUMNS):
            for number, (name, rgb) in enumerate(row[start : start + COLUMNS]):
                x = GAP + number * (CELL + GAP)
                sheet.paste(Image.fromarray(rgb).resize((CELL, CELL), Image.Resampling.NEAREST), (x, y))
                pen.text((x + 1, y + CELL + 1), name, fill=(40, 40, 40), font=font)
            y += CELL + LINE + GAP
        y += GAP
    return sheet


# ---- command ---------------------------------------------------------------------------------------------------------


def main() -> None:
    """Read the folders and print the tables, or write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, nargs="*", default=[], help="folders of sound pictures")
    parser.add_argument("--limit", type=int, default=40, help="pictures of each folder; 0: all")
    parser.add_argument("--side", type=int, default=512, help="larger pictures are cut to their middle")
    parser.add_argument("--scale", type=int, choices=(2, 4), default=2)
    parser.add_argument(
        "--reduce", choices=("box", "bicubic", "lanczos"), default="box", help="how pictures are made small"
    )
    parser.add_argument("--networks", help="by commas; every one that enlarges (--noise: upconv7) unless given")
    parser.add_argument("--tta", default="", help="networks that are also run eightfold, by commas")
    parser.add_argument("--noise", action="store_true", help="compare noise levels on JPEG instead of networks")
    parser.add_argument("--qualities", type=int, nargs="+", default=QUALITIES, help="of the JPEGs of --noise")
    parser.add_argument("--subsampling", type=int, choices=(0, 2), default=2, help="of these JPEG: 0 4:4:4, 2 4:2:0")
    parser.add_argument("--backend", choices=("auto", "ncnn", "torch"), default="auto")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet of a demo board, and nothing else")
    parser.add_argument("--seed", type=int, default=3, help="of the demo board")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    check_ssim()
    given = arguments.networks.split(",") if arguments.networks else None
    networks = given or (["upconv7"] if arguments.noise else enlarging_networks(arguments.scale))
    unknown = sorted({*networks, *filter(None, arguments.tta.split(","))} - set(NETWORKS))
    if unknown:
        parser.error(f"no network {', '.join(unknown)}; there are {', '.join(NETWORKS)}")
    unfit = [name for name in networks if NETWORKS[name].scale == 1]
    unfit += [name for name in networks if arguments.noise and not set(LEVELS) <= set(NETWORKS[name].noise_levels)]
    if unfit:
        parser.error(f"{', '.join(unfit)}: give networks that enlarge, and for --noise those that have all levels")
    if absent := [folder for folder in arguments.pictures if not folder.is_dir()]:
        parser.error(f"{', '.join(map(str, absent))}: no such folder")
    with tempfile.TemporaryDirectory() as name:
        board = Path(name) / "board"
        if arguments.sheet or not arguments.pictures:
            draw_board(board, posts=60, seed=arguments.seed, workers=1)
        if arguments.sheet:
            draw_sheet(board, networks, arguments.backend).save(arguments.sheet, quality=80, optimize=True)
            return
        sets = {
            folder.name: read_folder(folder, arguments.limit, arguments.side, arguments.scale)
            for folder in arguments.pictures
        } or {"demo board": cut_faces(board, 160)[: arguments.limit or None]}
    rows: list[object] = []
    for folder, pictures in sets.items():
        if arguments.noise:
            for network in networks:
                rows += compare_noise(folder, pictures, network, arguments)
        else:
            methods = list_methods(networks, arguments.tta.split(","), arguments.scale, arguments.backend)
            rows += [asdict(row) for row in compare(folder, pictures, methods, arguments.scale, arguments.reduce)]
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
