"""`kaobako sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import JsonOption, StoreOption, phase_bars, print_json, progress_bars
from flows.server import server_for
from models.sampling.settings import Ground, Noise, WalkPath


def sample(
    store: StoreOption,
    run: Annotated[
        str, typer.Argument(help="Run id, run folder or snapshot; the newest run when left out.")
    ] = "newest",
    seeds: Annotated[str, typer.Option(help="Numbers and ranges, such as 0-63 or 1,5,9-12.")] = "0-63",
    trunc: Annotated[
        float | None,
        typer.Option(help="Truncation psi: 1 as trained, 0 the mean; 0.7 for StyleGAN2 and 1 for others if left out."),
    ] = None,
    trunc_layers: Annotated[
        int | None, typer.Option(min=1, help="Truncate this many of the first layers only.", show_default="all")
    ] = None,
    grid: Annotated[bool, typer.Option("--grid/--no-grid", help="Write one picture of all seeds.")] = True,
    columns: Annotated[int, typer.Option(min=1, max=64, help="Pictures in a row of the grid.")] = 8,
    cell: Annotated[
        int, typer.Option(min=0, help="Longer side of a picture in grid and figures, in pixels; 0: as it is made.")
    ] = 128,
    images: Annotated[bool, typer.Option("--images", help="Also write one PNG per seed.")] = False,
    psi_sweep: Annotated[
        bool, typer.Option("--psi-sweep", help="Also write the first 8 seeds at each of --psis as a figure.")
    ] = False,
    psis: Annotated[str, typer.Option(help="Columns of the psi sweep.")] = "-1,-0.5,0,0.5,1",
    mix: Annotated[
        str, typer.Option(help="Also write a style-mixing figure of seeds ROWS:COLUMNS, such as 0-3:10-15.")
    ] = "",
    mix_layers: Annotated[
        str, typer.Option(help="Layers taken from the columns: coarse, middle, fine, or numbers such as 2-5.")
    ] = "coarse",
    walk: Annotated[bool, typer.Option("--walk/--no-walk", help="Also write a video of a walk.")] = True,
    walk_path: Annotated[
        WalkPath, typer.Option(help="From seed to seed, or a smooth random loop; auto: random for StyleGAN2.")
    ] = WalkPath.AUTO,
    walk_seconds: Annotated[float, typer.Option(help="Length of the walk.")] = 8.0,
    walk_keys: Annotated[int, typer.Option(min=2, help="Key pictures per round, or as much change as so many.")] = 4,
    walk_cells: Annotated[
        int, typer.Option(min=0, help="Walks side by side; 0: 9 up to 128 pixels, 4 up to 256, else 1.")
    ] = 0,
    even: Annotated[
        bool, typer.Option("--even", help="Walk so that the picture changes as much in every second.")
    ] = False,
    fps: Annotated[int, typer.Option(min=1, help="Frames per second of the walk.")] = 30,
    classes: Annotated[
        str, typer.Option("--class", help="Class of a conditional network, its name or number; several with commas.")
    ] = "",
    label: Annotated[str, typer.Option(help="Label of a conditional network as its values, such as 0.2,0,1.")] = "",
    noise: Annotated[
        Noise, typer.Option(help="Noise maps of StyleGAN2: stored, none, or drawn by seed.")
    ] = Noise.CONST,
    ground: Annotated[Ground, typer.Option(help="Under transparent pictures in grid and walk.")] = Ground.CHECKER,
    ema: Annotated[bool, typer.Option("--ema/--no-ema", help="Averaged weights, or those of the last step.")] = True,
    out: Annotated[Path | None, typer.Option(help="Folder for the files; `samples` in the run when left out.")] = None,
    no_prefect: Annotated[bool, typer.Option("--no-prefect", help="Run the same functions without Prefect.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Sample a trained generator: a grid, figures of truncation and style mixing, single pictures, a walk.

    A seed gives the same picture in each of them, at any time, alone or among others.
    """
    server = server_for(store, no_prefect)
    from datasets.store import Store
    from flows.sample import sample as sample_flow
    from tasks.sample import SampleParams, find_run, sample_run

    params = SampleParams(
        seeds=seeds,
        grid=grid,
        columns=columns,
        cell=cell,
        images=images,
        trunc=trunc,
        trunc_layers=trunc_layers,
        noise=noise,
        classes=classes,
        label=label,
        psi_sweep=psi_sweep,
        psis=psis,
        mix=mix,
        mix_layers=mix_layers,
        walk=walk,
        walk_path=walk_path,
        walk_seconds=walk_seconds,
        walk_keys=walk_keys,
        walk_cells=walk_cells,
        walk_even=even,
        fps=fps,
        ground=ground,
        ema=ema,
    )
    if no_prefect:
        source = find_run(Store(store), run)
        with progress_bars() as bars:
            made = sample_run(source, params, out, phase_bars(bars))
    else:
        with server:
            made = sample_flow(run, params, store, str(out) if out else "")
    if as_json:
        print_json(made)
        return
    for name, path in made.items():
        typer.echo(f"{name + ':':<10} {path}")
