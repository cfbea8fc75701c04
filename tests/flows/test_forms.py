"""The forms of the Prefect UI: they are made of the parameter schemas, and must be complete."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from prefect import Flow
from prefect.utilities.callables import parameter_schema

from flows.curate import curate
from flows.metrics import metrics
from flows.recipe import Recipe
from flows.sample import sample
from flows.train import train
from tasks.metrics import MetricsParams
from tasks.sample import SampleParams
from tasks.train import TrainParams

FLOWS = {flow.name: flow for flow in (curate, train, sample, metrics)}


def schema_of(flow: Flow[..., Any]) -> dict[str, Any]:
    return parameter_schema(flow).model_dump(mode="json")


def describe(schema: dict[str, Any], spec: dict[str, Any]) -> str:
    """What the form says of a field; pydantic leaves out what the description of its class says already."""
    known = schema["definitions"].get(spec.get("$ref", "").rpartition("/")[2], {})
    return str(spec.get("description") or known.get("description") or "")


def objects(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every box of a form, with its fields."""
    yield "parameters", schema["properties"]
    for name, definition in schema["definitions"].items():
        if "properties" in definition:
            yield name, definition["properties"]


@pytest.mark.parametrize("name", FLOWS)
def test_every_field_has_a_default_and_a_description(name: str) -> None:
    schema = schema_of(FLOWS[name])
    for box, fields in objects(schema):
        for field, spec in fields.items():
            assert "default" in spec, f"{box}.{field}: the form would be empty here (default_factory?)"
            assert describe(schema, spec), f"{box}.{field}: the form does not say what this is"


@pytest.mark.parametrize(
    ("name", "parameter", "model"),
    [
        ("curate", "recipe", Recipe()),
        ("train", "params", TrainParams()),
        ("sample", "params", SampleParams()),
        ("metrics", "params", MetricsParams()),
    ],
)
def test_the_whole_model_is_the_default(name: str, parameter: str, model: Any) -> None:
    assert schema_of(FLOWS[name])["properties"][parameter]["default"] == model.model_dump(mode="json")


def test_choices_are_lists_to_choose_from() -> None:
    schema = schema_of(curate)
    definitions = schema["definitions"]
    for name in ("SourceKind", "Rating", "CropMethod", "Detector", "Edge", "Noise", "Fit", "Preset", "Runner"):
        assert len(definitions[name]["enum"]) >= 2 or name == "Preset", name
    ratings = definitions["FilterParams"]["properties"]["ratings"]
    assert ratings["type"] == "array"
    assert ratings["items"] == {"$ref": "#/definitions/Rating"}


@pytest.mark.parametrize("name", FLOWS)
def test_no_field_is_a_free_object_or_a_union_of_models(name: str) -> None:
    """Both break the form: the UI cannot draw the one and mixes up the fields of the other."""
    for box, fields in objects(schema_of(FLOWS[name])):
        for field, spec in fields.items():
            assert spec.get("type") != "object", f"{box}.{field}"
            assert all("$ref" not in option for option in spec.get("anyOf", ())), f"{box}.{field}"


def test_recipe_sections_are_called_as_in_the_file() -> None:
    """Without a title of its own, Prefect's UI calls a section by the name of its class."""
    fields = schema_of(curate)["definitions"]["Recipe"]["properties"]
    assert {name: spec["title"] for name, spec in fields.items()} == {name: name for name in Recipe.model_fields}
    positions = [fields[name]["position"] for name in Recipe.model_fields]
    assert positions == sorted(set(positions))
