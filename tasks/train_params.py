"""What a training is asked for: a preset, and what to change of it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, NoReturn, get_args

from pydantic import Field, ValidationError, field_validator

from datasets.errors import KaobakoError, say_invalid_setting
from models.training.config import TrainingConfig
from models.training.presets import PRESETS, resolve_preset
from tasks.stage import StageParams

Preset = StrEnum("Preset", {name.upper().replace("-", "_"): name for name in PRESETS})  # type: ignore[misc]
LabelSource = Literal["none", "rating", "class", "tags", "folders", "file"]

# What of TrainParams goes into the configuration under its own name: into the top of it, and into its algorithm.
_TOP = (
    "kimg", "batch", "seed", "mirror", "resolution", "aspect", "channels", "micro_batch", "precision", "compile",
    "tick_kimg", "grid_ticks", "snapshot_ticks", "metrics_kimg", "metrics_extractor", "device",
)  # fmt: skip
_ALGORITHM = ("r1_gamma", "learning_rate", "augment", "augment_pipe", "freeze_d")
_ALGORITHMS = {
    model.model_fields["name"].default: model for model in get_args(TrainingConfig.model_fields["algorithm"].annotation)
}


class TrainingError(KaobakoError):
    """Settings, or a run, that cannot be trained with; says which, and what to do."""


class TrainParams(StageParams):
    """A preset, and what to change of it. What is left empty is as the preset says."""

    preset: Preset = Field(Preset("dcgan-demo"), description="A training that is known to work")
    kimg: float | None = Field(None, gt=0, description="Length in thousands of real pictures")
    batch: int | None = Field(None, ge=2, description="Pictures per step, over all processes")
    seed: int | None = Field(None, ge=0, lt=2**63, description="Of weights, latents, labels and the order of pictures")
    mirror: bool | None = Field(None, description="Show half of the pictures mirrored")
    resolution: int | None = Field(None, ge=16, description="The longer side in pixels; larger pictures are reduced")
    aspect: tuple[int, int] | None = Field(None, description="Rows and columns of the smallest map: 3, 4 is 384 x 512")
    channels: Literal[1, 3, 4] | None = Field(None, description="3 = RGB, 1 = grey, 4 = RGBA (of a folder only)")
    r1_gamma: float | None = Field(None, ge=0, description="Weight of R1, of R3GAN's R2 too: the first thing to tune")
    learning_rate: float | None = Field(None, gt=0, description="Step size of the optimisers")
    augment: Literal["ada", "fixed", "diffaugment", "scheduled", "none"] | None = Field(
        None, description="What D sees augmented: adaptively, at a fixed strength, lightly, by schedule, or nothing"
    )
    augment_pipe: str | None = Field(None, description="What ADA does: b = blit, g = geometry, c = colour")
    freeze_d: int | None = Field(None, ge=0, description="D's highest-resolution layers that are not trained")
    micro_batch: int | None = Field(None, ge=1, description="Pictures computed at once, where memory is short")
    precision: Literal["auto", "float32", "float16", "bfloat16"] | None = Field(
        None, description="What the larger maps are computed in"
    )
    compile: bool | None = Field(None, description="Compile the passes that have no penalties (torch.compile)")
    device: Literal["auto", "cpu", "cuda"] | None = Field(None, description="Where to compute")
    labels: LabelSource = Field(
        "none",
        description="Conditional training: on a version by rating, by class (which one of label_tags) or by tags "
        "(which of label_tags); on a folder by its top folders, or by the file dataset.json",
    )
    label_tags: tuple[str, ...] = Field((), description="The tags of labels = class and labels = tags")
    transfer: str = Field("", description="Run or snapshot whose weights a new training begins with")
    tick_kimg: float | None = Field(None, gt=0, description="A line of statistics every so often, in kimg")
    grid_ticks: int | None = Field(None, ge=1, description="A grid of fakes every so many ticks")
    snapshot_ticks: int | None = Field(None, ge=1, description="A snapshot every so many ticks")
    metrics_kimg: float | None = Field(
        None, ge=0, description="KID and other figures every so often, in kimg; 0: never"
    )
    metrics_extractor: str | None = Field(
        None, min_length=1, description="What those are measured by: hed-vgg4, or a file .pt, .ts or .onnx"
    )
    workers: int | None = Field(None, ge=1, description="Threads that decode; none: one per core")
    prefetch: int = Field(4, ge=0, description="Batches decoded ahead")
    cache_gb: float = Field(2.0, ge=0, description="Room for decoded pictures in each process, in GB; 0: none")
    algorithm: tuple[str, ...] = Field(
        (), description="Anything else of the algorithm, such as path_weight=0; --dry-run lists what there is"
    )

    @field_validator("algorithm", mode="before")
    @classmethod
    def _read_algorithm(cls, value: Any) -> Any:
        """Tables of a recipe and of --set are taken, too: a form cannot show them, a list it can."""
        if isinstance(value, Mapping):
            return tuple(f"{name}={json.dumps(one)}" for name, one in value.items())
        return value

    @field_validator("algorithm")
    @classmethod
    def _check_algorithm(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [line for line in value if not line.partition("=")[1] or not line.partition("=")[0].strip()]
        if wrong:
            raise ValueError(f"algorithm takes NAME=VALUE, such as path_weight=0, not {wrong[0]!r}")
        return value

    def changes(self, asked: frozenset[str] | None = None) -> dict[str, Any]:
        """What differs from the preset, nested as TrainingConfig is. asked: of these fields only."""
        names = frozenset(type(self).model_fields) if asked is None else asked
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        changes = {name: given[name] for name in _TOP if name in given}
        algorithm = {name: given[name] for name in _ALGORITHM if name in given}
        algorithm |= read_algorithm(given.get("algorithm", ()))
        return {**changes, "algorithm": algorithm} if algorithm else changes

    def resolve(self, labels: int = 0, transfer: str | None = None, world: int = 1) -> TrainingConfig:
        """The complete configuration of a new run.

        labels: values per label. transfer: SHA-256 of the weights that it begins with. world: processes.
        Raises TrainingError for settings that do not go together.
        """
        changes = self.changes()
        changes |= {"labels": labels} if labels else {}
        changes |= {"transfer": transfer} if transfer else {}
        try:
            return resolve_preset(self.preset.value, changes, world)
        except ValidationError as error:
            raise TrainingError(f"{self.preset.value} cannot be trained so:\n{say_settings(error)}") from error
        except ValueError as error:
            raise TrainingError(str(error)) from error

    def resolve_for(self, run: TrainingConfig) -> TrainingConfig:
        """The configuration of a run that goes on: its own, and what was asked for beyond the preset.

        A preset of the run's own algorithm changes nothing. Raises TrainingError for one of another, but for the
        field's default, which a form always sends; who knows that it was named asks `check_preset`.
        """
        if self.preset != type(self).model_fields["preset"].default:
            self._check_algorithm_of(run)
        changes = self.changes(frozenset(self.model_fields_set - {"preset"}))
        whole = run.model_dump()
        whole["algorithm"] |= changes.pop("algorithm", {})
        try:
            return TrainingConfig.model_validate({**whole, **changes})
        except ValidationError as error:
            raise TrainingError(f"the run cannot go on so:\n{say_settings(error)}") from error

    def check_preset(self, run: TrainingConfig) -> None:
        """For a preset that was named to go on with a run: TrainingError if it is of another algorithm or size."""
        self._check_algorithm_of(run)
        of_preset = resolve_preset(self.preset.value)
        if self.resolution is None and of_preset.resolution != run.resolution:
            self._refuse_preset(run, of_preset)

    def _check_algorithm_of(self, run: TrainingConfig) -> None:
        of_preset = resolve_preset(self.preset.value)
        if of_preset.algorithm.name != run.algorithm.name:
            self._refuse_preset(run, of_preset)

    def _refuse_preset(self, run: TrainingConfig, of_preset: TrainingConfig) -> NoReturn:
        raise TrainingError(
            f"this run is a {run.algorithm.name} of {run.resolution} px, {self.preset.value} is a "
            f"{of_preset.algorithm.name} of {of_preset.resolution} px: --preset is for new runs; leave it out"
        )


def read_algorithm(lines: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE lines by name; a value is JSON if it reads as JSON, else the text itself."""
    settings: dict[str, Any] = {}
    for line in lines:
        name, _, text = line.partition("=")
        try:
            settings[name.strip()] = json.loads(text)
        except ValueError:
            settings[name.strip()] = text.strip()
    return settings


def say_settings(error: ValidationError) -> str:
    """What is wrong with a configuration, a line for each setting, in its own words."""
    return "\n".join(f"  {_say_one(one)}" for one in error.errors())


def _say_one(one: Mapping[str, Any]) -> str:
    path = [str(part) for part in one["loc"]]
    algorithm = path[1] if len(path) > 1 and path[0] == "algorithm" and path[1] in _ALGORITHMS else ""
    if not algorithm:
        return say_invalid_setting(one, ".".join(path))
    name = ".".join(path[2:])
    if one["type"] == "extra_forbidden":
        known = sorted(_ALGORITHMS[algorithm].model_fields)
        near = difflib.get_close_matches(name, known, n=1)
        others = [other for other, model in _ALGORITHMS.items() if name in model.model_fields]
        hint = f"; did you mean {near[0]}?" if near else f", but {others[0]} has." if others else "."
        return f"{name}: {algorithm} has no such setting{hint} It has {', '.join(known)}."
    return say_invalid_setting(one, name or "algorithm")
