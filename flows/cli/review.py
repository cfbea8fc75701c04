"""`kaobako review`: look at a version in FiftyOne."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import StoreOption


def review(
    version: Annotated[str, typer.Argument(help="NAME or NAME@V.")],
    store: StoreOption,
    port: Annotated[int | None, typer.Option(help="Port on 127.0.0.1; the first free one from 5151 on.")] = None,
    source_root: Annotated[
        Path | None, typer.Option(help="Where the source is now, when it was moved since the build.")
    ] = None,
) -> None:
    """Open a version in FiftyOne: kept and dropped items, measurements, reasons, saved views.

    Select pictures and press Keep, Reject or Unsure. Then, even while the App is open:
    `kaobako decisions pull NAME`. Ctrl-C ends the App and its database.
    """
    from datasets.decisions import read_decisions
    from datasets.review.commands import open_review
    from datasets.review.records import ReviewInputs, review_name
    from datasets.store import Store
    from datasets.version import read_version

    place = Store(store)
    found = read_version(place, version)
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
