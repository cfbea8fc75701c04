"""Three buttons above the grid: Keep, Reject, Unsure. What they do is `datasets.review.tagging`."""

from __future__ import annotations

from typing import Any, ClassVar

import fiftyone.operators as foo
from fiftyone.operators import types

from datasets.decisions import Decision
from datasets.errors import KaobakoError
from datasets.review.tagging import INFO_KEY, tag_decision

LABELS = {
    Decision.KEEP: "Keep the selected images",
    Decision.REJECT: "Reject the selected images",
    Decision.UNSURE: "Mark the selected images as unsure",
}


class _Decide(foo.Operator):
    """Gives the selected samples one decision, and says how many."""

    decision: ClassVar[Decision]

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name=self.decision.value,
            label=LABELS[self.decision],
            icon=f"/{self.decision.value}.svg",
        )

    def resolve_placement(self, ctx: Any) -> types.Placement:
        button = types.Button(label=self.config.label, icon=self.config.icon, prompt=False)
        return types.Placement(types.Places.SAMPLES_GRID_ACTIONS, button)

    def execute(self, ctx: Any) -> dict[str, Any]:
        try:
            tagged = tag_decision(ctx.dataset, ctx.selected, self.decision)
        except KaobakoError as error:
            ctx.ops.notify(str(error), variant="warning")
            return {"count": 0}
        ctx.ops.notify(tagged.describe(self.decision), variant="warning" if tagged.without_pixels else "success")
        ctx.ops.clear_selected_samples()
        ctx.ops.reload_dataset()
        return {"count": tagged.count}


class Keep(_Decide):
    decision = Decision.KEEP


class Reject(_Decide):
    decision = Decision.REJECT


class Unsure(_Decide):
    decision = Decision.UNSURE


class ShowDecisions(foo.Operator):
    """Writes the decision on every picture from the start: the App ignores sample tags in a dataset's active fields."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="show_decisions", label="Show decisions on the pictures", unlisted=True, on_dataset_open=True
        )

    def execute(self, ctx: Any) -> None:
        if INFO_KEY in ctx.dataset.info and "tags" not in ctx.active_fields:
            ctx.ops.set_active_fields(["tags", *ctx.active_fields])


def register(plugin: Any) -> None:
    """FiftyOne calls this once when it loads the plugin."""
    for operator in (Keep, Reject, Unsure, ShowDecisions):
        plugin.register(operator)
