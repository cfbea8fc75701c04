"""What two versions were made with, and what of it differs: thresholds, settings, stages, weights, libraries."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from datasets.diff.table import Cause
from datasets.version import Version

# Keys that are judged with, not measured with, in recipes of versions that do not name their measured settings.
_JUDGED = re.compile(r"(min|max|drop|take|tags)_\w+|ratings|extensions|near|mirror|(source_|mirror_)?radius(256)?")
_LIBRARY_KEYS = ("libraries", "python", "device", "machine")


@dataclass(frozen=True)
class Difference:
    """One thing that two versions were measured differently with."""

    cause: Cause
    stage: str
    parameter: str | None
    text: str


class Making:
    """How one version was made, by its lineage."""

    def __init__(self, version: Version) -> None:
        self.version = version
        self.lineage = version.lineage
        self.stages = list(version.lineage.get("counts", {}))
        self._limits = {row["parameter"]: float(row["value"]) for row in version.lineage.get("thresholds", ())}

    def order(self, stage: str | None) -> int:
        """The place of a stage in the chain; behind all of them for what was published."""
        return self.stages.index(stage) if stage in self.stages else len(self.stages)

    def setting(self, parameter: str) -> Any:
        """What the recipe says under a key such as filter.ratings; None when it says nothing."""
        value: Any = self.lineage.get("recipe", {})
        for name in parameter.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def knows(self, parameter: str) -> bool:
        """Whether the recipe has the key at all: an older program's has not."""
        stage, _, name = parameter.partition(".")
        return name in self._stage_recipe(stage)

    def judges(self, parameter: str) -> bool:
        """Whether a key is a threshold, not a setting that a stage measures with."""
        stage, _, name = parameter.partition(".")
        measured = self.lineage.get("measured", {}).get(stage)
        return name not in measured["settings"] if measured else bool(_JUDGED.fullmatch(name))

    def limit(self, parameter: str) -> float | None:
        """The number that items are compared with under a key; None when it is no number, or asks for nothing."""
        stage, _, name = parameter.partition(".")
        value = self.setting(parameter)
        if stage not in self.stages or isinstance(value, bool):
            return None
        if stage == "dedup" and self.setting("dedup.near") is False:
            return None
        if parameter in self._limits:
            return self._limits[parameter]
        if not isinstance(value, int | float) or (name.startswith("drop_") and not value):
            return None
        return 100.0 - value if name == "drop_highest" else float(value)

    def measured(self, stage: str) -> dict[str, Any]:
        """version, settings and weights that a stage measured with; of older versions what can be told."""
        said = self.lineage.get("measured", {})
        if stage in said:
            return dict(said[stage])
        settings = {name: value for name, value in self._stage_recipe(stage).items() if not _JUDGED.fullmatch(name)}
        weights = {} if said else self.lineage.get("weights", {})
        return {
            "version": self.lineage.get("stage_versions", {}).get(stage),
            "settings": settings,
            "weights": weights,
            "guessed": not said,
        }

    def _stage_recipe(self, stage: str) -> dict[str, Any]:
        recipe = self.lineage.get("recipe", {}).get(stage, {})
        return dict(recipe) if isinstance(recipe, dict) else {}


class Makings:
    """How two versions were made, side by side."""

    def __init__(self, before: Version, after: Version) -> None:
        self.before = Making(before)
        self.after = Making(after)
        self.compare_stage = cache(self._compare_stage)
        self.compare_source = cache(self._compare_source)
        self.compare_libraries = cache(self._compare_libraries)

    def _compare_stage(self, stage: str) -> tuple[Difference, ...]:
        """What a stage measured with that differs: settings first, because weights follow from them."""
        old, new = self.before.measured(stage), self.after.measured(stage)
        keys = old["settings"].keys() | new["settings"].keys()
        if old.get("guessed") != new.get("guessed"):  # the other one knows which keys are measured
            keys = (new if old.get("guessed") else old)["settings"].keys()
        was, now = stage in self.before.stages, stage in self.after.stages
        found = []
        for key in sorted(keys):
            name = f"{stage}.{key}"
            values = [side["settings"].get(key, m.setting(name)) for side, m in ((old, self.before), (new, self.after))]
            known = all(m.knows(name) or key in side["settings"] for side, m in ((old, self.before), (new, self.after)))
            if values[0] != values[1] and known:  # a key that a later program brought changed nothing by itself
                found.append(Difference(Cause.SETTING, stage, name, f"{name} {say(values[0])} -> {say(values[1])}"))
        if was != now and not found:
            found.append(self._switch(stage, now))
        if was and now and old["version"] != new["version"]:
            text = f"stage {stage} version {say(old['version'])} -> {say(new['version'])}"
            found.append(Difference(Cause.STAGE_VERSION, stage, None, text))
        if was and now:
            for name in sorted(old["weights"].keys() | new["weights"].keys()):
                digests = old["weights"].get(name), new["weights"].get(name)
                if digests[0] != digests[1]:
                    text = f"weights {name} {_short(digests[0])} -> {_short(digests[1])}"
                    found.append(Difference(Cause.WEIGHTS, stage, None, text))
        return tuple(found)

    def _switch(self, stage: str, now: bool) -> Difference:
        """A stage that runs in one version only, and no measured setting says why: by the recipe's first other key."""
        recipes = [making.lineage.get("recipe", {}).get(stage) or {} for making in (self.before, self.after)]
        for key in sorted(recipes[0].keys() | recipes[1].keys()):
            old, new = recipes[0].get(key), recipes[1].get(key)
            if old != new:
                name = f"{stage}.{key}"
                return Difference(Cause.SETTING, stage, name, f"{name} {say(old)} -> {say(new)}")
        return Difference(Cause.SETTING, stage, None, f"stage {stage} switched {'on' if now else 'off'}")

    def _compare_source(self) -> dict[str, Difference]:
        """The settings of the source that differ, by name: where it lies, and how it is read."""
        old, new = (making.setting("source") for making in (self.before, self.after))
        if not isinstance(old, dict) or not isinstance(new, dict):
            return {}
        found = {}
        for key in sorted(old.keys() & new.keys()):  # a key that a later program brought changed nothing by itself
            if old[key] != new[key]:
                name = f"source.{key}"
                text = f"{name} {say(old[key])} -> {say(new[key])}"
                found[key] = Difference(Cause.SETTING, "source", name, text)
        return found

    def _compare_libraries(self) -> str:
        """Libraries, Python and device that differ, in words; empty when none does, or a version does not say."""
        said = []
        for key in _LIBRARY_KEYS:
            old, new = self.before.lineage.get(key), self.after.lineage.get(key)
            if isinstance(old, dict) and isinstance(new, dict):
                said += [
                    f"{n} {say(old.get(n))} -> {say(new.get(n))}" for n in sorted(old | new) if old.get(n) != new.get(n)
                ]
            elif old and new and old != new:
                said.append(f"{key} {old} -> {new}")
        return ", ".join(said)


def say(value: Any) -> str:
    """A value of a recipe in a few characters: `true`, `none`, `0.5`, `safe, general`."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "nothing"
    return str(value) or "nothing"


def say_list_change(parameter: str, old: Any, new: Any) -> str:
    """How a list or flag of a recipe changed: `filter.ratings lost questionable`."""
    if not isinstance(old, list | tuple) or not isinstance(new, list | tuple):
        return f"{parameter} {say(old)} -> {say(new)}"
    lost, gained = [w for w in old if w not in new], [w for w in new if w not in old]
    words = ([f"lost {say(lost)}"] if lost else []) + ([f"gained {say(gained)}"] if gained else [])
    return f"{parameter} {' and '.join(words)}" if words else parameter


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest if len(digest) < 24 else f"{digest[:8]}…"
