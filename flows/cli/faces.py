"""`kaobako faces`: the face detectors alone, on any folder of pictures."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import JsonOption, print_json, progress_bars

if TYPE_CHECKING:
    from tasks.face_listing import FaceListing

_NAMED = 20  # unreadable pictures that are listed on the terminal


class DetectorChoice(StrEnum):
    """Who looks for faces; both is another word for agreement."""

    LBP = "lbp"
    ANIMEFACE = "animeface"
    UNION = "union"
    AGREEMENT = "agreement"
    BOTH = "both"
    ONNX = "onnx"


def faces(
    folder: Annotated[Path, typer.Argument(help="Folder of pictures; those in its folders are searched, too.")],
    csv: Annotated[Path, typer.Option("--csv", help="Table to write: image, x, y, w, h, score, detector.")],
    detector: Annotated[
        DetectorChoice, typer.Option(help="One detector, union (found by either), both (found by both), or onnx.")
    ] = DetectorChoice.UNION,
    model: Annotated[
        Path | None,
        typer.Option(help="A network's ONNX file: for onnx; union adds its faces, agreement keeps what it sees, too."),
    ] = None,
    min_size: Annotated[int, typer.Option(min=18, help="Smallest face box to look for, in pixels.")] = 24,
    max_side: Annotated[int, typer.Option(min=256, help="Larger pictures are searched in a copy of this size.")] = 1024,
    sheet: Annotated[
        Path | None, typer.Option(help="Contact sheet to draw, PNG or JPEG: up to 60 pictures with their boxes.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Threads; 0: one per core.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Find the faces of all pictures below a folder, without a store or a recipe.

    kaobako faces pictures --detector both --min-size 64 --csv faces.csv --sheet faces.png

    Boxes are in pixels from the top left of the upright picture, brows to chin. A picture that cannot be read is named
    at the end and stops nothing.
    """
    import os

    from tasks.detection import WITHOUT_NETWORK, Detector, FaceSearch
    from tasks.face_listing import SHEET_SUFFIXES, list_faces

    chosen = Detector.AGREEMENT if detector is DetectorChoice.BOTH else Detector(detector.value)
    if chosen is Detector.ONNX and model is None:
        raise typer.BadParameter("--detector onnx needs a network: name its file with --model", param_hint="--model")
    if chosen in WITHOUT_NETWORK and model is not None:
        raise typer.BadParameter(
            f"--detector {chosen} uses no network: leave --model out, or choose onnx, union or agreement",
            param_hint="--model",
        )
    if sheet is not None and sheet.suffix.lower() not in SHEET_SUFFIXES:
        raise typer.BadParameter(f"{sheet.name} must end in {', '.join(SHEET_SUFFIXES)}", param_hint="--sheet")
    search = FaceSearch(chosen, min_size, max_side, model=model)
    with progress_bars() as progress:
        bar = progress.add_task("searching", total=None)
        listing = list_faces(
            folder,
            search,
            csv,
            sheet,
            workers or os.cpu_count() or 1,
            lambda done, total: progress.update(bar, completed=done, total=total),
        )
    report(listing, [path for path in (csv, sheet) if path is not None], as_json)


def report(listing: FaceListing, written: list[Path], as_json: bool) -> None:
    """What was found, what was written, and what could not be read."""
    if as_json:
        names = [path.as_posix() for path in written]
        print_json(
            {
                "pictures": listing.pictures,
                "faces": listing.faces,
                "unreadable": listing.unreadable,
                "written": names,
            }
        )
        return
    typer.echo(f"{listing.faces} faces in {listing.pictures - len(listing.unreadable)} pictures")
    for path in written:
        typer.echo(f"Wrote {path}")
    for name, why in list(listing.unreadable.items())[:_NAMED]:
        typer.echo(f"  {name}: {why}", err=True)
    if count := len(listing.unreadable):
        more = f", of which {_NAMED} are named here; --json names all" if count > _NAMED else ""
        typer.echo(f"{count} pictures could not be read{more}.", err=True)
