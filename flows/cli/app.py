"""The command `kaobako`: its verbs, and how errors are shown. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import errno
import sys

import typer

from flows.cli import (
    booru,
    build,
    decisions,
    doctor,
    export,
    faces,
    metrics,
    models,
    review,
    sampling,
    serve,
    store,
    tags,
    training,
    tune,
    upscale,
    versions,
    weights,
)
from flows.environment import prepare_environment
from flows.errors import is_plain, say_error

app = typer.Typer(
    name="kaobako",
    help="From a pile of illustrations to a clean, versioned face dataset, its review, and a GAN of it.\n\n"
    "Start with `kaobako booru demo/booru`, `kaobako curate recipes/demo.toml`, `kaobako versions show faces`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("booru")(booru.draw)
app.command("curate")(build.curate)
app.command("tags")(tags.tags)
app.command("faces")(faces.faces)
app.command("upscale")(upscale.upscale)
app.command("tune")(tune.tune)
app.add_typer(versions.app, name="versions")
app.command("evaluate")(booru.evaluate)
app.command("review")(review.review)
app.add_typer(decisions.app, name="decisions")
app.command("export")(export.export)
app.command("train")(training.train)
app.command("sample")(sampling.sample)
app.command("metrics")(metrics.metrics)
app.add_typer(models.app, name="models")
app.command("serve")(serve.serve)
app.command("doctor")(doctor.doctor)
app.command("gc")(store.gc)
app.add_typer(weights.app, name="weights")


def main() -> None:
    """Run the command line. Our own errors are shown as one message; anything else keeps its traceback."""
    prepare_environment()
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if not is_plain(error):
            raise
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        typer.secho(f"error: {say_error(error)}{_advise_space() if full else ''}", fg="red", err=True)
        sys.exit(1)


def _advise_space() -> str:
    """How to go on once there is space. The same `train` again would be a new run, or be refused."""
    if "train" in sys.argv[1:2]:
        return " Free some space and go on with the run: kaobako train --resume latest --out RUN (or --run ID)."
    return " Free some space and run the same command again: it goes on where it was."
