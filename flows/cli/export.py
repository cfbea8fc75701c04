"""`kaobako export`: a version in the formats of trainers and hubs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datasets.exports.format import Format
from flows.cli.options import JsonOption, StoreOption, print_json, print_table, progress_bars

if TYPE_CHECKING:
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
    """
    from datasets.exports.plan import ExportSettings, plan_export
    from datasets.exports.run import check_export, export_version
    from datasets.store import Store
    from datasets.version import read_version, store_of

    version = read_version(Store(store), reference)
    names = tuple(name.strip() for text in classes or () for name in text.split(",") if name.strip())
    settings = ExportSettings(shard_pictures, shard_mb * 1_000_000, link)
    home = store_of(version.folder)
    plan = plan_export(home, version, file_format, out, tuple(labels_tag or ()), names, settings, classes_from)
    with progress_bars() as progress:
        bar = progress.add_task("look", total=len(plan))
        checked = check_export(plan, lambda done, total: progress.update(bar, completed=done, total=total), verify)
        done = None
        if not checked.problems and not dry_run:
            bar = progress.add_task("write", total=len(plan))
            done = export_version(plan, lambda n, total: progress.update(bar, completed=n, total=total), checked)
    if problems_file is not None:
        _write_problems(problems_file, checked.problems)
    if as_json:
        print_json(_as_json(plan, checked, done))
    else:
        _print(plan, checked, done, problems_file)
    if checked.problems:
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


def _print(plan: ExportPlan, checked: Preflight, done: Exported | None, problems_file: Path | None) -> None:
    from datasets.exports.preflight import count_problems

    what = f"{len(plan)} pictures of {plan.version.reference} as {plan.format}"
    if checked.problems:
        _print_problems(checked.problems)
        where = f" All of them are in {problems_file}." if problems_file else " --problems FILE.csv writes all of them."
        typer.secho(f"{count_problems(checked.problems)}: nothing was written.{where}", fg="red", err=True)
    elif checked.finished:
        typer.echo(f"{plan.out} already is {what}.")
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
