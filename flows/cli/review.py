"""`kaobako review`: look at a version in FiftyOne, or at what differs between two."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import StoreOption

if TYPE_CHECKING:
    from datasets.store import Store
    from datasets.version import Version


def review(
    version: Annotated[str, typer.Argument(help="NAME or NAME@V.")],
    store: StoreOption,
    diff: Annotated[
        str | None,
        typer.Option(
            metavar="NAME@V",
            help="Show only what differs from this earlier version, each picture with the cause of its change.",
        ),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port on 127.0.0.1; the first free one from 5151 on.")] = None,
    source_root: Annotated[
        Path | None, typer.Option(help="Where the source is now, when it was moved since the build.")
    ] = None,
) -> None:
    """Open a version in FiftyOne: kept and dropped items, measurements, reasons, saved views.

    Select pictures and press Keep, Reject or Unsure. Then, even while the App is open:
    `kaobako decisions pull NAME`. Ctrl-C ends the App and its database.

    What did a new threshold cost? `kaobako review faces@v7 --diff faces@v6` shows the items that came, went or changed
    between the two, with saved views such as "removed by threshold"; a picture that changed is shown before and after,
    side by side. The buttons work there too: `kaobako decisions pull faces@v7` takes both reviews of v7.
    """
    from datasets.store import Store
    from datasets.version import read_version

    place = Store(store)
    found = read_version(place, version)
    if diff is None:
        _open_version(place, found, port, source_root)
    else:
        _open_diff(place, read_version(place, diff), found, port, source_root)


def _open_version(place: Store, found: Version, port: int | None, source_root: Path | None) -> None:
    from datasets.decisions import read_decisions
    from datasets.review.commands import open_review
    from datasets.review.records import ReviewInputs, review_name

    root = source_root or Path(found.lineage["sources"][0]["root"])
    inputs = ReviewInputs(
        version=found.reference,
        content_digest=found.content_digest,
        manifest=found.manifest(),
        ledger=found.ledger(),
        decisions=read_decisions(place.decisions),
        blob_path=place.blobs.path,
        source_root=root if root.is_dir() else None,
        placeholder_folder=place.root / "review" / "placeholders",
    )
    typer.echo(f"Preparing {found.reference} …")
    open_review(place.root / "review", review_name(found.name, found.number), inputs, port, typer.echo)


def _open_diff(place: Store, before: Version, after: Version, port: int | None, source_root: Path | None) -> None:
    from datasets.diff import Change
    from datasets.review.commands import open_diff
    from datasets.review.diff_records import collect_diff
    from datasets.review.records import diff_name, review_name

    review = review_name(after.name, after.number)
    inputs = collect_diff(place, before, after, review, source_root)
    counts = Counter(inputs.table["change"].to_pylist())
    said = ", ".join(f"{counts[change.value]} {change.value}" for change in Change if counts[change.value])
    typer.echo(f"Preparing {before.reference} -> {after.reference}: {said} …")
    name = diff_name(review, review_name(before.name, before.number))
    open_diff(place.root / "review", name, inputs, port, typer.echo)
    # said when the App has ended, where people look next
    typer.echo(f"Bring decisions into the store with: kaobako decisions pull {after.reference}")
