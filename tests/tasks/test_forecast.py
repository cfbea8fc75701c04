"""What a forecast says is what a build does; what it cannot say is named; no picture is opened for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.digests import content_digest
from datasets.store import Store
from datasets.version import ledger_digest
from flows.recipe import make_recipe
from tasks.build import BuildResult
from tasks.forecast import Forecast, forecast_build

Build = Callable[..., BuildResult]
Foretell = Callable[..., Forecast]


@pytest.fixture
def source(tmp_path: Path, draw: Callable[..., np.ndarray], png: Callable[[np.ndarray], bytes]) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for k in range(12):
        (folder / f"{k:02d}.png").write_bytes(png(draw(k, 96 + 4 * k, 96)))
    (folder / "copy.png").write_bytes((folder / "00.png").read_bytes())
    (folder / "mirrored.png").write_bytes(png(draw(2, 104, 96)[:, ::-1]))
    (folder / "tiny.png").write_bytes(png(draw(50, 20, 20)))
    (folder / "cut.png").write_bytes((folder / "04.png").read_bytes()[:3000])
    return folder


@pytest.fixture
def foretell(store: Store, recipe: Callable[..., dict[str, Any]]) -> Foretell:
    return lambda **changes: forecast_build(make_recipe(recipe(**changes), "test").plan(), store)


@pytest.fixture
def nothing_opens(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a picture was opened")

    def arm() -> None:
        for name in ("datasets.pictures.decode_picture", "tasks.pictures.decode_picture", "PIL.Image.open"):
            monkeypatch.setattr(name, refuse)

    return arm


def digests(forecast: Forecast) -> tuple[str, str]:
    return content_digest(forecast.manifest), ledger_digest(forecast.ledger)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"clean.min_blur": 0.55},
        {"clean.min_side": 100},
        {"crop.min_size": 110},
        {"dedup.mirror": False},
        {"dedup.near": False},
        {"filter.extensions": ["jpg"]},
    ],
    ids=str,
)
def test_a_forecast_is_what_the_build_then_publishes(
    source: Path,
    build: Build,
    foretell: Foretell,
    nothing_opens: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
) -> None:
    build()
    nothing_opens()
    forecast = foretell(**changes)
    monkeypatch.undo()
    assert forecast.unmeasured_counts() == {}
    version = build(**changes).version
    assert digests(forecast) == (version.content_digest, version.lineage["ledger_digest"])
    for key in ("counts", "thresholds", "measured", "weights", "source_digest"):
        assert forecast.lineage[key] == version.lineage[key]


def test_what_newly_passes_a_looser_threshold_is_named_as_unmeasured(
    source: Path, build: Build, foretell: Foretell
) -> None:
    upscaling = {"upscale.size": 64, "upscale.fit": "letterbox"}
    build(**{"crop.min_size": 97, **upscaling})
    forecast = foretell(**{"crop.min_size": 64, **upscaling})
    # height 96: nothing passed crop before, so nothing was ever upscaled
    (stage, count), *others = forecast.unmeasured_counts().items()
    assert (stage, others) == ("upscale", [])
    assert count == forecast.lineage["counts"]["dedup"]["kept"] > 5
    assert len(forecast.manifest) == 0
    result = build(**{"crop.min_size": 64, **upscaling})
    assert result.opened == {**dict.fromkeys(result.opened, 0), "upscale": count}


def test_new_files_and_other_settings_are_unmeasured_not_dropped(
    source: Path, build: Build, foretell: Foretell, draw: Callable[..., np.ndarray], png: Callable[[np.ndarray], bytes]
) -> None:
    build()
    (source / "new.png").write_bytes(png(draw(77)))
    forecast = foretell()
    assert forecast.unmeasured["item_id"].to_pylist() == ["new.png"]
    everything = foretell(**{"crop.background": "#000000"})
    assert everything.unmeasured_counts() == {"fingerprint": 1, "crop": 16}
    assert (len(everything.manifest), len(everything.ledger)) == (0, 0)


def test_a_store_without_facts_knows_nothing(source: Path, foretell: Foretell) -> None:
    forecast = foretell()
    assert forecast.unmeasured_counts() == {"fingerprint": 16}
    assert len(forecast.manifest) == 0
