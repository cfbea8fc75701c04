"""The contract of every stage: thresholds stay out of measurements, and nothing else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from datasets.cache import INPUT
from datasets.schema import MANIFEST, POSTS, VERDICTS
from datasets.store import Store
from flows.recipe import MEASURED_STAGES, SHARD_TASKS, STAGES, Recipe
from tasks import fingerprint
from tasks.clean import CleanParams
from tasks.filter import FilterParams
from tasks.filter_columns import DERIVED
from tasks.stage import Stage, StageParams, Threshold, join_facts
from tasks.verdicts import Verdicts

ALL = [stage for stage, _ in STAGES] + [fingerprint.STAGE]
MEASURING = [stage for stage in ALL if stage.measure is not None]
# another value than the default for every measured setting of every stage
OTHER: dict[tuple[str, str], Any] = {
    ("crop", "method"): "whole",
    ("crop", "detector"): "lbp",
    ("crop", "search_face"): 64,
    ("crop", "search_side"): 2048,
    ("crop", "up"): 1.0,
    ("crop", "down"): 1.0,
    ("crop", "side"): 1.0,
    ("crop", "edge"): "reflect",
    ("crop", "background"): "#000000",
    ("crop", "detector_file"): "x.onnx",
    ("crop", "edge_colour"): "#000000",
    ("crop", "square_at"): "top",
    ("upscale", "size"): 128,
    ("upscale", "noise"): "1",
    ("upscale", "fit"): "letterbox",
    ("upscale", "network"): "cunet",
    ("upscale", "network_file"): "x.pth",
    ("upscale", "tta"): True,
    ("upscale", "codec"): "jpeg",
    ("upscale", "jpeg_quality"): 90,
    ("augment", "mirror"): True,
    ("augment", "guide"): ["deskew"],
    ("augment", "tiles"): True,
    ("augment", "scale_to"): 4096,
    ("augment", "tile_scales"): [{"side": 64, "count": 2}],
    ("augment", "tile_turns"): [180],
    ("augment", "tile_slants"): [30.0],
    ("augment", "whole_views"): ["plain"],
    ("augment", "tile_views"): ["invert"],
    ("augment", "sample"): 3,
    ("augment", "seed"): 1,
    ("augment", "materialise"): False,
}
MEASURED_FIELDS = [(stage, name) for stage in MEASURING for name in sorted(stage.params.measured) if name != "run"]


def by_name(value: object) -> str:
    return value.name if isinstance(value, Stage) else str(value)


@pytest.mark.parametrize("stage", ALL, ids=by_name)
def test_measure_sees_its_settings_and_no_threshold(stage: Stage) -> None:
    params = stage.params()
    bare = params.for_measure()
    for name in type(params).model_fields:
        if name in params.measured:
            assert getattr(bare, name) == getattr(params, name)
        else:
            with pytest.raises(AttributeError):
                getattr(bare, name)


@pytest.mark.parametrize("stage", ALL, ids=by_name)
def test_measured_names_are_fields(stage: Stage) -> None:
    assert stage.params.measured <= stage.params.model_fields.keys()


@pytest.mark.parametrize("stage", ALL, ids=by_name)
def test_every_setting_says_what_it_is(stage: Stage) -> None:
    assert all(info.description for info in stage.params.model_fields.values())


@pytest.mark.parametrize("stage", ALL, ids=by_name)
def test_parameters_refuse_unknown_names_and_cannot_be_changed(stage: Stage) -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        stage.params.model_validate({"no_such_setting": 1})
    for name in stage.params.model_fields:
        with pytest.raises(ValueError, match="frozen"):
            setattr(stage.params(), name, None)


@pytest.mark.parametrize("stage", MEASURING, ids=by_name)
def test_facts_begin_with_their_input(stage: Stage) -> None:
    assert stage.facts is not None
    assert stage.facts.names[0] == INPUT
    assert stage.input_column
    assert set(stage.blobs) <= set(stage.facts.names)


def test_every_measuring_stage_can_be_run_by_name_and_by_prefect() -> None:
    assert set(MEASURED_STAGES) == set(SHARD_TASKS) == {stage.name for stage in MEASURING}
    assert {stage.name for stage, _ in STAGES} <= set(Recipe.model_fields)


# ---- the cache key ---------------------------------------------------------------------------------------------------


def cache_folder(stage: Stage, store: Store, **values: Any) -> str:
    return str(stage.cache(stage.params(**values), store).folder)


@pytest.mark.parametrize(("stage", "name"), MEASURED_FIELDS, ids=by_name)
def test_the_key_changes_with_each_measured_setting(
    stage: Stage, name: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("x.onnx", "x.pth"):
        (tmp_path / file).write_bytes(b"a network")
    assert cache_folder(stage, store, **{name: OTHER[stage.name, name]}) != cache_folder(stage, store)


@pytest.mark.parametrize("stage", MEASURING, ids=by_name)
def test_the_key_does_not_change_with_a_threshold(stage: Stage, store: Store) -> None:
    expected = cache_folder(stage, store)
    for name, info in stage.params.model_fields.items():
        if name in stage.params.measured:
            continue
        default = getattr(stage.params(), name)
        assert default == info.default
        limits = {
            limit: getattr(rule, limit)
            for rule in info.metadata
            for limit in ("ge", "le", "lt")
            if hasattr(rule, limit)
        }
        if default is None:
            least = limits.get("ge", 0)
            other = (least + limits.get("le", least + 2)) / 2
        else:
            other = (not default) if isinstance(default, bool) else default + 1 if default < 1 or default > 1 else 2
            other = min(other, limits.get("le", other), limits.get("lt", other + 1) - 1)
        assert other != default
        assert cache_folder(stage, store, **{name: other}) == expected, name


@pytest.mark.parametrize("stage", MEASURING, ids=by_name)
def test_the_key_changes_with_the_stage_version_and_the_weights(stage: Stage, store: Store) -> None:
    folders = {cache_folder(stage, store)}
    for changed in ({"version": stage.version + 1}, {"weights": lambda params, store: {"net": "0" * 64}}):
        changed_stage = Stage(**{**vars(stage), **changed})
        folders.add(cache_folder(changed_stage, store))
    other = Stage(**{**vars(stage), "weights": lambda params, store: {"net": "1" * 64}})
    folders.add(cache_folder(other, store))
    assert len(folders) == 4


def test_two_stages_never_share_a_cache(store: Store) -> None:
    assert len({cache_folder(stage, store) for stage in MEASURING}) == len(MEASURING)


def test_a_parameter_that_measure_reads_undeclared_is_an_error() -> None:
    class Params(StageParams):
        threshold: float = 1.0

    with pytest.raises(AttributeError, match="threshold"):
        _ = Params().for_measure().threshold


# ---- verdicts and joins ----------------------------------------------------------------------------------------------


def test_the_first_broken_rule_is_the_reason_and_keeps_its_figures() -> None:
    items = pa.table({"blur": [0.1, 0.9, 0.1, None], "size": [5, 1, 1, None]})
    verdicts = Verdicts(items)
    verdicts.hold(Threshold("blur", "clean.min_blur", "blurred"), CleanParams(min_blur=0.5))
    verdicts.hold(Threshold("size", "clean.min_side", "small"), CleanParams(min_side=3))
    table = verdicts.table()
    assert table.schema == VERDICTS
    assert table["keep"].to_pylist() == [False, False, False, True]
    assert table["reason"].to_pylist() == ["blurred", "small", "blurred", None]
    assert table["value"].to_pylist() == [0.1, 1.0, 0.1, None]
    assert table["threshold"].to_pylist() == [0.5, 3.0, 0.5, None]
    assert table["measurement"].to_pylist() == ["blur", "size", "blur", None]
    assert table["parameter"].to_pylist() == ["clean.min_blur", "clean.min_side", "clean.min_blur", None]


def test_a_value_at_its_threshold_stays_on_both_sides() -> None:
    verdicts = Verdicts(pa.table({"x": [0.4, 0.5, 0.6]}))
    verdicts.hold(Threshold("x", "clean.min_blur", "low"), CleanParams(min_blur=0.5))
    verdicts.hold(Threshold("x", "clean.min_blur", "high", "<="), CleanParams(min_blur=0.5))
    assert verdicts.table()["reason"].to_pylist() == ["low", None, "high"]


def test_a_threshold_that_the_recipe_leaves_open_drops_nothing() -> None:
    verdicts = Verdicts(pa.table({"score": [-5.0, 5.0]}))
    verdicts.hold(Threshold("score", "filter.min_score", "score"), FilterParams())
    assert verdicts.table()["keep"].to_pylist() == [True, True]


@pytest.mark.parametrize("stage", [stage for stage, _ in STAGES], ids=lambda stage: stage.name)
def test_every_threshold_is_a_field_that_measure_does_not_read(stage: Stage) -> None:
    for rule in stage.thresholds:
        name, _, field = rule.parameter.partition(".")
        assert name == stage.name
        assert field in stage.params.model_fields.keys() - stage.params.measured
        assert rule.column in (*MANIFEST.names, *POSTS.names, *DERIVED)


def test_reasons_and_details_by_row() -> None:
    verdicts = Verdicts(pa.table({"x": [1.0, 2.0, 3.0]}))
    reasons = np.array(["a", "b", "c"], dtype=object)
    verdicts.drop(np.array([True, False, True]), reasons, detail=reasons, related=reasons, value=np.arange(3.0))
    assert verdicts.table().select(["reason", "detail", "related", "value"]).to_pylist() == [
        {"reason": "a", "detail": "a", "related": "a", "value": 0.0},
        {"reason": None, "detail": None, "related": None, "value": None},
        {"reason": "c", "detail": "c", "related": "c", "value": 2.0},
    ]


def test_verdicts_over_nothing() -> None:
    verdicts = Verdicts(pa.table({"x": pa.array([], pa.float64())}))
    verdicts.hold(Threshold("x", "clean.min_blur", "low"), CleanParams(min_blur=0.5))
    assert (len(verdicts.table()), verdicts.table().schema) == (0, VERDICTS)


def test_facts_join_by_input_in_item_order_and_replace_old_columns() -> None:
    items = pa.table({INPUT: ["b", "a", None, "b", "x"], "item": [1, 2, 3, 4, 5], "width": [0, 0, 0, 0, 0]})
    facts = pa.table({INPUT: ["a", "b"], "width": [10, 20]})
    joined = join_facts(items, facts)
    assert joined["item"].to_pylist() == [1, 2, 3, 4, 5]
    assert joined["width"].to_pylist() == [20, 10, None, 20, None]
    assert joined[INPUT].to_pylist() == ["b", "a", None, "b", "x"]
