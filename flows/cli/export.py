"""`kaobako export`: a version in the formats of trainers and hubs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datasets.exports.format import Format
from flows.cli.options import JsonOption, StoreOption, print_json, print_table, progress_bars

if TYPE_CHECKING:
    from collections.abc import Callable

    from datasets.exports.plan import ExportPlan
    from datasets.exports.preflight import Problem
    from datasets.exports.run import Exported, Preflight

_SHOWN = 50  # problems of a kind on a terminal


def export(
    reference: Annotated[str, typer.Argument(metavar="NAME@V", help="NAME, NAME@V, or a version's folder.")],
    file_format: Annotated[Format, typer.Option("--format", help="What to write; see the examples.")],
    out: Annotated[Path, typer.Option("--out", metavar="PATH", help="The new folder; for stylegan, the new .zip.")],
    store: StoreOption,
    labels_tag: Annotated[
        list[str] | None,
        typer.Option("--labels-tag", metavar="TAG", help="Label with a vector: 1 where a picture has TAG. Repeatable."),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--classes",
            metavar="TAG,TAG",
            help="Label with a class: which one of these tags a picture has. Each must have exactly one. Repeatable.",
        ),
    ] = None,
    classes_from: Annotated[
        str | None,
        typer.Option(
            "--classes-from",
            metavar="COLUMN",
            help="Label with a class: what a column of the manifest says, such as rating, detector or upscaled_by.",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="NAME=FRACTION,...",
            help="Write one export per part, at OUT-NAME: train=.95,test=.05. All crops of a post, and what was "
            "derived from them, are on one side, and stay there in later versions.",
        ),
    ] = None,
    split_seed: Annotated[int, typer.Option("--split-seed", help="Another seed draws another split.")] = 0,
    shard_pictures: Annotated[
        int, typer.Option("--shard-pictures", min=1, help="Most pictures in a shard (webdataset, parquet).")
    ] = 10_000,
    shard_mb: Annotated[
        int, typer.Option("--shard-mb", min=1, help="Most megabytes of pictures in a shard (webdataset, parquet).")
    ] = 500,
    link: Annotated[
        bool,
        typer.Option(
            "--link/--copy",
            help="Copies of the pictures (imagefolder, folder), or hard links to the store's own files: no second "
            "gigabyte, but never edit a linked file in place.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Look at everything, write nothing. Ends with 1 if something is wrong.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every picture whole first, and list all damaged ones, not the first.")
    ] = False,
    problems_file: Annotated[
        Path | None, typer.Option("--problems", metavar="FILE.csv", help="Write every problem into this CSV file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Export a version for a trainer or a hub.

    Every picture is looked at first. If anything is wrong, all of it is listed
    with its crop_id, nothing is written, and the command ends with 1. A killed
    export goes on when the same command is run again; nothing appears at --out
    before it is whole. The same version and settings give the same bytes.

    [bold]StyleGAN2-ADA, StyleGAN3[/bold]: one zip for their --data; here with two conditions as labels

        kaobako export faces@v7 --format stylegan --out faces.zip \\
            --labels-tag smile --labels-tag hat

    [bold]StyleGAN, StyleGAN2[/bold]: a folder of TFRecords, one file per resolution

        kaobako export faces@v7 --format tfrecord --out records/faces

    [bold]WebDataset[/bold]: tar shards, with a class number beside each picture

        kaobako export faces@v7 --format webdataset --out shards \\
            --classes blonde_hair,black_hair

    [bold]Image folder[/bold]: for load_dataset("FOLDER") and torchvision; one folder per class

        kaobako export faces --format imagefolder --out pictures \\
            --classes blonde_hair,black_hair

    [bold]Parquet[/bold]: pictures and metadata in shards that load_dataset reads

        kaobako export faces --format parquet --out hub/faces --shard-mb 300

    [bold]Folder[/bold]: pictures and manifest.csv

        kaobako export faces --format folder --out plain --copy

    Any format with a class from a column:

        kaobako export faces --format parquet --out rated --classes-from rating

    Any format, one for training and one for testing (here faces-train.zip, faces-test.zip):

        kaobako export faces --format stylegan --out faces.zip --split train=.95,test=.05
    """
    from datasets.exports.plan import ExportSettings, Part, plan_export
    from datasets.exports.run import check_export, export_version
    from datasets.splits import read_fractions
    from datasets.store import Store
    from datasets.version import read_version, store_of

    version = read_version(Store(store), reference)
    names = tuple(name.strip() for text in classes or () for name in text.split(",") if name.strip())
    settings = ExportSettings(shard_pictures, shard_mb * 1_000_000, link)
    home = store_of(version.folder)
    fractions = read_fractions(split) if split else {}
    parts: list[Part | None] = [Part(name, fractions, split_seed) for name in fractions]
    labels = (tuple(labels_tag or ()), names)
    plans = [
        plan_export(home, version, file_format, out, *labels, settings, classes_from, part) for part in parts or [None]
    ]
    with progress_bars() as progress:

        def show(what: str, plan: ExportPlan) -> Callable[[int, int], None]:
            bar = progress.add_task(what, total=len(plan))
            return lambda done, total: progress.update(bar, completed=done, total=total)

        checked: list[Preflight] = []
        for plan in plans:
            checked.append(check_export(plan, show("look", plan), verify, sum(found.bytes for found in checked)))
        problems = [problem for found in checked for problem in found.problems]
        written: list[Exported | None] = [None] * len(plans)
        if not problems and not dry_run:
            written = [
                export_version(plan, show("write", plan), found) for plan, found in zip(plans, checked, strict=True)
            ]
    if problems_file is not None:
        _write_problems(problems_file, problems)
    outcomes = list(zip(plans, checked, written, strict=True))
    if as_json:
        rows = [_as_json(*outcome) for outcome in outcomes]
        print_json(rows if split else rows[0])
    else:
        for outcome in outcomes:
            _print(*outcome, problems_file, refused=bool(problems))
    if problems:
        raise typer.Exit(1)


def _as_json(plan: ExportPlan, checked: Preflight, done: Exported | None) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "version": plan.version.reference,
        "format": plan.format.value,
        "out": plan.out.as_posix(),
        "pictures": len(plan),
        "estimated_bytes": checked.bytes,
        "written": done is not None and not done.already_there,
        "already_there": checked.finished,
        "resumed_from": checked.resumed_from,
        "linked": done.linked if done is not None else None,
        "problems": [asdict(problem) for problem in checked.problems],
    }


def _print(
    plan: ExportPlan, checked: Preflight, done: Exported | None, problems_file: Path | None, refused: bool
) -> None:
    """The outcome for people. refused: something is wrong with this export or with another part of its split."""
    from datasets.exports.preflight import count_problems

    part = f" ({plan.part.name})" if plan.part else ""
    what = f"{len(plan)} pictures of {plan.version.reference}{part} as {plan.format}"
    if checked.problems:
        _print_problems(checked.problems)
        where = f" All of them are in {problems_file}." if problems_file else " --problems FILE.csv writes all of them."
        typer.secho(f"{count_problems(checked.problems)}: nothing was written.{where}", fg="red", err=True)
    elif checked.finished:
        typer.echo(f"{plan.out} already is {what}.")
    elif refused:
        typer.echo(f"Nothing is wrong with {what}, but with another part: nothing was written.")
    elif done is None:
        resumed = f", going on after {checked.resumed_from}" if checked.resumed_from else ""
        typer.echo(f"Nothing is wrong: {what} would take about {checked.bytes / 1e6:,.1f} MB at {plan.out}{resumed}.")
    else:
        resumed = f", {done.resumed_from} of them by an earlier run" if done.resumed_from else ""
        typer.echo(f"{plan.out}: {what}{resumed}.")
        if done.linked is not None:
            copied = done.pictures - done.resumed_from - done.linked
            typer.echo(f"{done.linked} are hard links to the store (do not edit them), {copied} are copies.")


def _print_problems(problems: list[Problem]) -> None:
    kinds = list(dict.fromkeys(problem.kind for problem in problems))
    for kind in kinds:
        found = [problem for problem in problems if problem.kind == kind]
        rows = [[problem.crop_id or "", problem.detail] for problem in found[:_SHOWN]]
        if len(found) > _SHOWN:
            rows.append(["…", f"and {len(found) - _SHOWN} more"])
        print_table(f"{kind}: {len(found)}", ["id", "problem"], rows)


def _write_problems(path: Path, problems: list[Problem]) -> None:
    import csv
    import io

    from datasets.atomic import write_text

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["crop_id", "kind", "detail"])
    writer.writerows((problem.crop_id or "", problem.kind.value, problem.detail) for problem in problems)
    write_text(path, text.getvalue())
