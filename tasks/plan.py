"""Plan: what a build is told: resolved settings, and the stages in order with their parameters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from datasets.sources.config import SourceConfig
from tasks.stage import Stage, StageParams


@dataclass(frozen=True)
class BuildPlan:
    """Everything that decides what a build publishes, but for the source's content and human decisions."""

    dataset: str
    source: SourceConfig
    stages: tuple[tuple[Stage, StageParams], ...]
    recipe: dict[str, Any]  # the resolved recipe without its training, for the lineage
    training: dict[str, Any] = field(default_factory=dict)  # what the recipe wants to be trained; decides nothing here
