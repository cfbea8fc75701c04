"""What cleaning catches and what it leaves alone: measures and verdicts against damage that is made here.

    python benchmarks/cleaning_quality.py [--pictures FOLDER ...] [--limit 200] [--every 2 --first 1]
        [--faces FOLDER --others FOLDER] [--board FOLDER]

For each folder of sound colour pictures: grey, toned and pastel versions against the tint rule; blurred and shaken
ones against sharp ones of every contrast; enlarged ones against the pictures themselves; bars added. "auc" is the
chance that a damaged picture measures worse than a sound one. Thresholds are the stage's defaults, and for rules that
are off by default those of the table OFFERED. --faces and --others: what the rules drop of two folders, untouched.
--board: a drawn board (`kaobako booru`); its true faces are cut out and judged, kind by kind of planted fault. Without
any of these, a board of 200 posts is drawn in a temporary folder.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from datasets.pictures import UnreadablePictureError, decode_picture
from models.quality import MEASURE_SIDE, measure_quality
from models.quality_size import reduce_picture
from tasks.clean import CleanParams, decide, measure_pixels

Pixels = np.ndarray
Change = Callable[[Pixels], Pixels]
OFFERED = {"native_scale": 0.7, "bars": 0.02}  # what the docs propose to those who want these rules
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


# ---- damage ----------------------------------------------------------------------------------------------------------


def jpeg(rgb: Pixels, quality: int = 90) -> Pixels:
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream).convert("RGB"))


def grey(rgb: Pixels) -> Pixels:
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return cv2.merge([luma, luma, luma])


def toned(rgb: Pixels, dark: Iterable[float], light: Iterable[float], strength: float = 1.0) -> Pixels:
    """Brightness mapped to a ramp between two colours, mixed with the plain grey."""
    ink, paper = np.array(list(dark), float), np.array(list(light), float)
    ramp = np.arange(256)[:, None] / 255
    mixed = (1 - strength) * 255 * ramp + strength * (ink + (paper - ink) * ramp)
    return np.rint(mixed).astype(np.uint8)[grey(rgb)[:, :, 0]]


def sepia(rgb: Pixels) -> Pixels:
    """The matrix of image editors and of CSS, which clips in the highlights."""
    matrix = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]])
    return np.clip(np.rint(rgb @ matrix.T), 0, 255).astype(np.uint8)


def scanned(rgb: Pixels) -> Pixels:
    """A grey page through a colour scanner: noise in every channel."""
    noise = np.random.default_rng(0).normal(0, 3, rgb.shape)
    return np.clip(grey(rgb) + noise, 0, 255).astype(np.uint8)


def pastel(rgb: Pixels, colour: float, light: float) -> Pixels:
    plain = grey(rgb).astype(float)
    soft = plain + (rgb - plain) * colour
    return np.clip(np.rint(soft * (1 - light) + 255 * light), 0, 255).astype(np.uint8)


def faint(rgb: Pixels, contrast: float) -> Pixels:
    return np.clip(np.rint(rgb * contrast + 178 * (1 - contrast)), 0, 255).astype(np.uint8)


def blurred(rgb: Pixels, sigma: float) -> Pixels:
    return np.asarray(cv2.GaussianBlur(rgb, (0, 0), sigma), np.uint8)


def shaken(rgb: Pixels, length: int, angle: float) -> Pixels:
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1
    turn = cv2.getRotationMatrix2D((length // 2, length // 2), angle, 1)
    kernel = np.asarray(cv2.warpAffine(kernel, turn, (length, length)))
    return np.asarray(cv2.filter2D(rgb, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT), np.uint8)


def enlarged(rgb: Pixels, factor: float, how: int) -> Pixels:
    return np.asarray(cv2.resize(rgb, None, fx=factor, fy=factor, interpolation=how), np.uint8)


def boxed(rgb: Pixels, share: float, level: int, sides: bool) -> Pixels:
    picture = rgb.copy()
    picture = np.ascontiguousarray(picture.transpose(1, 0, 2)) if sides else picture
    rows = max(2, round(len(picture) * share / 2))
    picture[:rows], picture[-rows:] = level, level
    return np.ascontiguousarray(picture.transpose(1, 0, 2)) if sides else picture


TONES: dict[str, Change] = {
    "grey, JPEG 50": lambda p: jpeg(grey(p), 50),
    "grey, JPEG 90": lambda p: jpeg(grey(p)),
    "grey, scanned, JPEG 85": lambda p: jpeg(scanned(p), 85),
    "warm grey, JPEG 75": lambda p: jpeg(toned(p, (20, 15, 12), (255, 253, 248)), 75),
    "sepia, JPEG 50": lambda p: jpeg(sepia(p), 50),
    "sepia, JPEG 90": lambda p: jpeg(sepia(p)),
    "brown ink, full, JPEG 75": lambda p: jpeg(toned(p, (48, 28, 14), (255, 240, 210)), 75),
    "brown ink, half, JPEG 75": lambda p: jpeg(toned(p, (48, 28, 14), (255, 240, 210), 0.5), 75),
    "brown ink, quarter, JPEG 75": lambda p: jpeg(toned(p, (48, 28, 14), (255, 240, 210), 0.25), 75),
    "cyanotype, JPEG 85": lambda p: jpeg(toned(p, (5, 30, 60), (240, 245, 240)), 85),
    "duotone blue to yellow, JPEG 75": lambda p: jpeg(toned(p, (0, 0, 160), (255, 240, 0)), 75),
    "duotone plum to rose, JPEG 75": lambda p: jpeg(toned(p, (90, 0, 60), (255, 220, 235)), 75),
}
COLOURS: dict[str, Change] = {
    "as it is": lambda p: p,
    "JPEG 50": lambda p: jpeg(p, 50),
    "pastel: colour .35, lightened .3": lambda p: jpeg(pastel(p, 0.35, 0.3)),
    "pastel: colour .35, lightened .5": lambda p: jpeg(pastel(p, 0.35, 0.5)),
    "pastel: colour .2, lightened .3": lambda p: jpeg(pastel(p, 0.2, 0.3)),
    "pastel: colour .2, lightened .5": lambda p: jpeg(pastel(p, 0.2, 0.5)),
}
SHARP: dict[str, Change] = {
    "as it is": lambda p: p,
    "JPEG 40": lambda p: jpeg(p, 40),
    "pastel": lambda p: jpeg(pastel(p, 0.35, 0.5)),
    "contrast .3": lambda p: jpeg(faint(p, 0.3)),
    "contrast .2": lambda p: jpeg(faint(p, 0.2)),
}
BLURS: dict[str, Change] = {
    "Gaussian 1.5": lambda p: jpeg(blurred(p, 1.5)),
    "Gaussian 2": lambda p: jpeg(blurred(p, 2)),
    "Gaussian 3, JPEG 75": lambda p: jpeg(blurred(p, 3), 75),
    "Gaussian 2, pastel": lambda p: jpeg(blurred(pastel(p, 0.35, 0.5), 2)),
    "Gaussian 2, JPEG 20": lambda p: jpeg(blurred(p, 2), 20),
    "shaken by 9": lambda p: jpeg(shaken(p, 9, 30)),
    "shaken by 13": lambda p: jpeg(shaken(p, 13, 80)),
    "JPEG 5": lambda p: jpeg(p, 5),
}
ENLARGED: dict[str, Change] = {
    f"{name} {factor}{', JPEG 90' if lossy else ''}": lambda p, f=factor, h=how, j=lossy: (  # type: ignore[misc]
        jpeg(enlarged(p, f, h)) if j else enlarged(p, f, h)
    )
    for name, how in (
        ("bicubic", cv2.INTER_CUBIC),
        ("Lanczos", cv2.INTER_LANCZOS4),
        ("nearest", cv2.INTER_NEAREST),
    )
    for factor in (1.5, 2, 4)
    for lossy in (False, True)
}
NATIVE: dict[str, Change] = {
    "as it is": lambda p: p,
    "JPEG 90": jpeg,
    "JPEG 50": lambda p: jpeg(p, 50),
    "halved": lambda p: reduce_picture(p, max(p.shape) // 2),
}
BARS: dict[str, Change] = {
    "black, 6 %": lambda p: jpeg(boxed(p, 0.06, 0, False)),
    "black, 25 %": lambda p: jpeg(boxed(p, 0.25, 0, False)),
    "black, 25 %, at the sides": lambda p: jpeg(boxed(p, 0.25, 0, True), 75),
    "white, 12 %": lambda p: jpeg(boxed(p, 0.12, 255, False), 75),
}


# ---- scores ----------------------------------------------------------------------------------------------------------


def auc(worse: np.ndarray, better: np.ndarray) -> float:
    """The chance that one of `worse` is below one of `better`; a tie counts half."""
    ordered = np.sort(better)
    above = len(better) - np.searchsorted(ordered, worse, "right")
    ties = len(better) - np.searchsorted(ordered, worse, "left") - above
    return float((above + ties / 2).mean() / len(better))


def measure_all(pictures: list[Pixels], changes: dict[str, Change]) -> dict[str, list[dict[str, float]]]:
    return {name: [vars(measure_quality(change(p))) for p in pictures] for name, change in changes.items()}


def column(rows: list[dict[str, float]], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows], float)


def old_blur(rgb: Pixels) -> float:
    """The measure of the first version: the variance of the Laplacian at 256 pixels."""
    luma = cv2.cvtColor(reduce_picture(rgb, MEASURE_SIDE), cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(luma, cv2.CV_64F).var())


def show(title: str, rows: dict[str, str]) -> None:
    print(f"\n| {title} | |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value} |")


def judge_tint(pictures: list[Pixels]) -> None:
    limit = CleanParams().min_tint_residual
    dropped = {
        name: f"dropped {np.mean(column(rows, 'tint_residual') < limit):.3f}"
        for name, rows in measure_all(pictures, TONES).items()
    }
    kept = {
        name: f"kept {np.mean(column(rows, 'tint_residual') >= limit):.3f}"
        for name, rows in measure_all(pictures, COLOURS).items()
    }
    show(f"tint_residual, limit {limit}", dropped | kept)


def judge_blur(pictures: list[Pixels]) -> None:
    limit = CleanParams().min_blur
    small = [reduce_picture(p, MEASURE_SIDE) for p in pictures]
    sharp = {name: [change(p) for p in small] for name, change in SHARP.items()}
    new = {name: np.array([measure_quality(p).blur for p in some]) for name, some in sharp.items()}
    old = {name: np.array([old_blur(p) for p in some]) for name, some in sharp.items()}
    all_new, all_old = np.concatenate(list(new.values())), np.concatenate(list(old.values()))
    lines = {f"sharp: {name}": f"kept {np.mean(values >= limit):.3f}" for name, values in new.items()}
    lines |= {"sharp: lowest hundredth of blur": f"{np.quantile(all_new, 0.01):.3f}"}
    for name, change in BLURS.items():
        some = [change(p) for p in small]
        now = np.array([measure_quality(p).blur for p in some])
        before = np.array([old_blur(p) for p in some])
        lines[name] = (
            f"dropped {np.mean(now < limit):.3f}, auc {auc(now, all_new):.3f}, old measure's {auc(before, all_old):.3f}"
        )
    show(f"blur, limit {limit}", lines)


def judge_scale(pictures: list[Pixels]) -> None:
    limit = OFFERED["native_scale"]
    native = {name: column(rows, "native_scale") for name, rows in measure_all(pictures, NATIVE).items()}
    lines = {f"native: {name}": f"kept {np.mean(values >= limit):.3f}" for name, values in native.items()}
    sound = np.concatenate([native["as it is"], native["JPEG 90"]])
    small = [centre(p, 256) for p in pictures]
    for name, rows in measure_all(small, ENLARGED).items():
        values = column(rows, "native_scale")
        lines[name] = (
            f"dropped {np.mean(values < limit):.3f}, median {np.median(values):.2f}, auc {auc(values, sound):.3f}"
        )
    show(f"native_scale, limit {limit}", lines)


def judge_bars(pictures: list[Pixels]) -> None:
    limit = OFFERED["bars"]
    found = {"as it is": column(measure_all(pictures, {"": lambda p: p})[""], "bars")}
    lines = {name: f"dropped {np.mean(values > limit):.3f}" for name, values in found.items()}
    for name, rows in measure_all(pictures, BARS).items():
        lines[name] = (
            f"dropped {np.mean(column(rows, 'bars') > limit):.3f}, median {np.median(column(rows, 'bars')):.3f}"
        )
    show(f"bars, limit {limit}", lines)


def centre(rgb: Pixels, side: int) -> Pixels:
    y, x = (max(0, length - side) // 2 for length in rgb.shape[:2])
    return np.ascontiguousarray(rgb[y : y + side, x : x + side])


# ---- verdicts --------------------------------------------------------------------------------------------------------


def judge(pictures: list[Pixels]) -> list[str]:
    """The default verdict on each: a reason, or `kept`."""
    params = CleanParams()
    rows = [{**measure_pixels(p, params.for_measure()), "box_h": p.shape[0], "box_w": p.shape[1]} for p in pictures]
    if not rows:
        return []
    return [reason or "kept" for reason in decide(pa.Table.from_pylist(rows), params)["reason"].to_pylist()]


def judge_board(board: Path) -> None:
    """Verdicts on the true faces of a drawn board, cut out with half a face around, by planted kind."""
    crops: dict[str, list[Pixels]] = {}
    for post in pq.read_table(board / "truth.parquet").to_pylist():
        if not post["path"] or not post["faces"]:
            continue
        try:
            rgb = decode_picture((board / post["path"]).read_bytes()).rgb
        except (UnreadablePictureError, OSError):
            continue
        for face in post["faces"]:
            x, y, w, h = (round(face[name]) for name in ("x", "y", "w", "h"))
            top, left = max(0, y - h // 2), max(0, x - w // 2)
            crops.setdefault(post["kind"], []).append(rgb[top : y + h + h // 2, left : x + w + w // 2])
    lines = {}
    for kind, some in sorted(crops.items()):
        lines[kind] = ", ".join(f"{reason} {count}" for reason, count in Counter(judge(some)).most_common())
    show("planted kind of the board: verdicts", lines)


def read_folder(folder: Path, arguments: argparse.Namespace) -> list[Pixels]:
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES)[arguments.first :: arguments.every]
    step = max(1, len(files) // arguments.limit)
    return [decode_picture(f.read_bytes()).rgb for f in files[::step][: arguments.limit]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, action="append", default=[], help="a folder of sound colour pictures")
    parser.add_argument("--limit", type=int, default=200, help="pictures of each folder")
    parser.add_argument("--every", type=int, default=1, help="only every so manyth picture, to keep others for a check")
    parser.add_argument("--first", type=int, default=0, help="where to begin counting for --every")
    parser.add_argument("--faces", type=Path, help="a folder of faces, to judge as they are")
    parser.add_argument("--others", type=Path, help="a folder of other crops, to judge as they are")
    parser.add_argument("--board", type=Path, help="a board drawn by `kaobako booru`")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    for folder in arguments.pictures:
        pictures = read_folder(folder, arguments)
        print(f"\n## {folder.name}: {len(pictures)} pictures")
        verdicts: Counter[Any] = Counter(judge(pictures))
        show("as they are: verdicts", {reason: str(count) for reason, count in verdicts.most_common()})
        for section in (judge_tint, judge_blur, judge_scale, judge_bars):
            section(pictures)
    for folder in (arguments.faces, arguments.others):
        if folder is not None:
            counts = Counter(judge(read_folder(folder, arguments)))
            show(f"{folder.name}: verdicts", {reason: str(count) for reason, count in counts.most_common()})
    if arguments.board is not None:
        judge_board(arguments.board)
    elif not (arguments.pictures or arguments.faces or arguments.others):
        from datasets.booru.board import draw_board

        with tempfile.TemporaryDirectory() as folder:
            draw_board(Path(folder) / "board", posts=200, seed=1)
            judge_board(Path(folder) / "board")


if __name__ == "__main__":
    main()
