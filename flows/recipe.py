"""Recipe: a TOML file that says everything about a build, and the list of stages that it sets.

A new stage is one file in tasks/, one field here, and one row in STAGES.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import Task
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from datasets.errors import KaobakoError, say_invalid
from datasets.sources.config import SourceConfig
from tasks import augment, clean, crop, dedup, filter, fingerprint, rank, upscale
from tasks.augment import AugmentParams
from tasks.clean import CleanParams
from tasks.crop import CropParams
from tasks.dedup import DedupParams
from tasks.filter import FilterParams
from tasks.plan import BuildPlan
from tasks.rank import RankParams
from tasks.stage import Stage
from tasks.train import TrainParams
from tasks.upscale import UpscaleParams

# The chain, in order, and the Prefect task that measures a shard of each (the filter opens nothing).
STAGES: tuple[tuple[Stage, Task[..., Any] | None], ...] = (
    (filter.STAGE, None),
    (crop.STAGE, crop.crop_shard),
    (clean.STAGE, clean.clean_shard),
    (dedup.STAGE, dedup.dedup_shard),
    (upscale.STAGE, upscale.upscale_shard),
    (rank.STAGE, rank.rank_shard),
    (augment.STAGE, augment.augment_shard),
)
SHARD_TASKS: dict[str, Task[..., Any]] = {
    fingerprint.STAGE.name: fingerprint.fingerprint_shard,
    **{stage.name: shard_task for stage, shard_task in STAGES if shard_task is not None},
}
MEASURED_STAGES: dict[str, Stage] = {
    stage.name: stage for stage in (fingerprint.STAGE, *(stage for stage, _ in STAGES)) if stage.measure is not None
}


class RecipeError(KaobakoError):
    """A recipe that cannot be used; says which key, what is wrong, and what is allowed."""


class Recipe(BaseModel):
    """Everything about a build: the source, the stages, and how to train on the result."""

    # Labels of the form are the keys of the TOML file; without this Prefect's V2 UI shows class names instead.
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, field_title_generator=lambda name, _: name
    )

    dataset: str = Field(
        "faces",
        description="Name of the dataset whose next version is built",
        pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$",
        json_schema_extra={"position": 0},
    )
    source: SourceConfig = Field(
        SourceConfig(), description="Where the pictures come from", json_schema_extra={"position": 1}
    )
    filter: FilterParams = Field(
        FilterParams(), description="Which posts are worth opening", json_schema_extra={"position": 2}
    )
    crop: CropParams = Field(CropParams(), description="What is cut out of a post", json_schema_extra={"position": 3})
    clean: CleanParams = Field(CleanParams(), description="What a crop must measure", json_schema_extra={"position": 4})
    dedup: DedupParams = Field(
        DedupParams(), description="How alike two crops may be", json_schema_extra={"position": 5}
    )
    upscale: UpscaleParams = Field(
        UpscaleParams(), description="Size of the published pictures", json_schema_extra={"position": 6}
    )
    rank: RankParams = Field(RankParams(), description="Scores by a discriminator", json_schema_extra={"position": 7})
    augment: AugmentParams = Field(AugmentParams(), description="Derived pictures", json_schema_extra={"position": 8})
    training: TrainParams = Field(
        TrainParams(), description="How to train on the result", json_schema_extra={"position": 9}
    )

    def plan(self) -> BuildPlan:
        """The build that this recipe asks for."""
        stages = tuple((stage, getattr(self, stage.name)) for stage, _ in STAGES)
        settings = self.model_dump(mode="json", exclude={"training"})
        return BuildPlan(self.dataset, self.source, stages, settings, self.training.model_dump(mode="json"))


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply overrides such as `crop.min_size=96` or `filter.tags_none=["sketch"]`.

    Raises RecipeError that names the file, the key and what is wrong, before any work starts.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"there is no recipe {path}. Recipes that ship with Kaobako are in recipes/.") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"the recipe {path} cannot be read: {error}") from error
    return make_recipe(apply_overrides(values, overrides), str(path))


def make_recipe(values: dict[str, Any], where: str) -> Recipe:
    """A recipe from plain values; `where` is said in errors."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"the recipe {where} is not usable:\n{_list_errors(error, whole='recipe')}") from error


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of nested `values` with `a.b=c` set; c is JSON if it reads as JSON, else the text itself.

    Raises RecipeError for an override without `=` or through something that is not a table.
    """
    result: dict[str, Any] = json.loads(json.dumps(values, default=str))
    for override in overrides:
        key, separator, text = override.partition("=")
        names = key.strip().split(".")
        if not separator or not all(names):
            raise RecipeError(f"--set takes KEY=VALUE, such as --set crop.min_size=96, not {override!r}")
        table = result
        for name in names[:-1]:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise RecipeError(f"--set {override}: {name} is a value, not a table")
        table[names[-1]] = read_value(text.strip())
    return result


def read_value(text: str) -> Any:
    """JSON if it is JSON, else the text: `true`, `3`, `["a"]` and plain words all read as meant."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def make_training(base: dict[str, Any], overrides: Sequence[str]) -> TrainParams:
    """Training parameters from plain values and overrides such as `kimg=20`. Raises RecipeError."""
    try:
        return TrainParams.model_validate(apply_overrides(base, overrides))
    except ValidationError as error:
        raise RecipeError("the training settings are not usable:\n" + _list_errors(error)) from error


def _list_errors(error: ValidationError, whole: str = "") -> str:
    return "\n".join(f"  {line}" for line in say_invalid(error, whole))
