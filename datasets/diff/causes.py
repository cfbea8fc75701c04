"""Causes: why an item of two versions changed, from its two rows and from how the versions were made.

A cause is checked, not guessed: a threshold is blamed only when the measured value lies between its two values, a
setting only when what it measures differs. Of several that hold, `Cause` says which one is named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from datasets.diff.lineage import Making, Makings, say, say_list_change
from datasets.diff.measuring import Why, blame_source, explain_decision, explain_drawing, explain_measuring, name_first
from datasets.diff.rows import Pair, Row, Side, Two
from datasets.diff.table import Cause, Change
from datasets.diff.values import COMPANIONS, JUDGED_COLUMNS, LIST_RULES, compare_columns, has_value, value_of

# Words of the ledger that are no measurement (tasks/chain.py, tasks/dedup.py).
REJECTED = "rejected_by_person"
COPY_OF_REJECTED = "copy_of_rejected"
EXACT_COPY = "exact_copy"
MISSING_FILE = "missing_file"
_UNSAID = "filter.take_unsaid"
_DESCRIBING = ("rating", "score", "tags", "source_path")


def _is_problem(row: Row) -> bool:
    """Whether the source itself had no usable post: no file, an unsafe path, a broken row."""
    return row["stage"] == "filter" and row["parameter"] is None


def _fell_at(making: Making, row: Row) -> tuple[int, bool]:
    """When an item fell, to be compared. The filter looks for problems of the source before any of its rules."""
    return making.order(row["stage"]), not _is_problem(row)


class Attribution:
    """Finds the cause of each changed pair of rows."""

    def __init__(self, makings: Makings, two: Two) -> None:
        self.makings = makings
        self.two = two
        self._known: dict[Pair, Why] = {}

    def start(self, pairs: Sequence[Pair]) -> None:
        """Read what the causes of these pairs depend on, and forget what was read for others."""
        self._known.clear()
        self.two.read(pairs)

    def explain(self, pair: Pair) -> Why:
        """The cause of a pair of rows that changed."""
        if pair not in self._known:
            self._known[pair] = Why(Cause.UNKNOWN, "its copy changed")  # what a circle of copies would find
            self._known[pair] = self._explain(pair, self.two.changed[pair])
        return self._known[pair]

    def explain_named(self, here: Side, name: str) -> Why | None:
        """The cause of another item, by its id on one side; None when its state is the same in both."""
        pair = self.two.changed_pair(here, name)
        return None if pair is None else self.explain(pair)

    def _explain(self, pair: Pair, change: Change) -> Why:
        before, after = self.two.before.row(pair[0]), self.two.after.row(pair[1])
        if before is None or after is None:
            found = self._explain_absent(before, after)
        elif change is Change.PIXELS:
            found = self._explain_pixels(before, after)
        elif change is Change.METADATA:
            found = self._explain_metadata(before, after)
        else:
            found = self._explain_verdict(before, after)
        return found or Why(Cause.UNKNOWN, "the two versions do not say why")

    # ---- items that one version does not have ------------------------------------------------------------------------

    def _explain_absent(self, before: Row | None, after: Row | None) -> Why | None:
        here, there = (self.two.before, self.two.after) if after is None else (self.two.after, self.two.before)
        row = before or after
        assert row is not None
        sibling = there.sibling(row["post_id"])
        if sibling is None:
            came = before is None
            other = there.same_file(row)
            moved = f", moved {'from' if came else 'to'} {other}" if other else ""
            why = Why(Cause.NEW_POST if came else Cause.SOURCE_GONE, f"{'new post' if came else 'post gone'}{moved}")
            return blame_source(self.makings, ["post"], why)
        if row["parent_crop"]:
            return self._explain_child(row, here)
        return explain_measuring(self.makings, "crop", sibling, row)

    def _explain_child(self, row: Row, here: Side) -> Why | None:
        """A derived picture: derived no longer (or only now), or gone with its parent."""
        return self.explain_named(here, row["parent_crop"]) or name_first(self.makings.compare_stage("augment"))

    # ---- items that both versions have -------------------------------------------------------------------------------

    def _explain_pixels(self, before: Row, after: Row) -> Why | None:
        if before["pixel_digest"] != after["pixel_digest"]:
            return explain_measuring(self.makings, "crop", before, after)
        return explain_drawing(self.makings)

    def _explain_metadata(self, before: Row, after: Row) -> Why | None:
        said = compare_columns(before, after)
        detail = ", ".join(said.values())
        if "decision" in said:
            spoken = self._explain_decision(before, after)
            return replace(spoken, detail=", ".join([spoken.detail, *(t for n, t in said.items() if n != "decision")]))
        if told := [name for name in _DESCRIBING if name in said]:
            return blame_source(self.makings, told, Why(Cause.SOURCE_METADATA_CHANGED, detail))
        why = explain_measuring(self.makings, "crop", before, after)
        return why and replace(why, detail=f"{detail}: {why.detail}")

    def _explain_verdict(self, before: Row, after: Row) -> Why | None:
        """By the side whose item fell first: the other one passed there. Where both fell at one stage, by either."""
        old, new = _fell_at(self.makings.before, before), _fell_at(self.makings.after, after)
        two = self.two
        falls = [(two.before, before, two.after, after)] if old <= new else []
        falls += [(two.after, after, two.before, before)] if new <= old else []
        if len(falls) == 2 and _is_problem(before):
            falls = falls[1:]  # two problems of the source: the one that it has now
        for explain in (self._explain_by_decision, self._explain_fall, self._explain_lost_decision):
            for fall in falls:
                if (why := explain(*fall)) is not None:
                    return why
        return None

    def _explain_fall(self, here: Side, fallen: Row, there: Side, other: Row) -> Why | None:
        """Why an item fell here and did not there. None when it would have fallen there by the same rule."""
        stage = fallen["stage"]
        if stage == "filter":
            return self._explain_filter(here, fallen, there, other)
        if stage not in there.making.stages:
            return self._add_figures(name_first(self.makings.compare_stage(stage)), fallen)
        if fallen["reason"] == REJECTED:
            return self._explain_rejection(here, fallen, other)
        if fallen["value"] is None or fallen["parameter"] is None:
            if fallen["related"]:
                return self._explain_copy(here, fallen, there, other)
            return explain_measuring(self.makings, stage, fallen, other)
        if fallen["related"]:
            return self._explain_near_copy(here, fallen, there, other)
        return self._explain_number(here, fallen, there, other)

    # ---- people ------------------------------------------------------------------------------------------------------

    def _explain_by_decision(self, here: Side, fallen: Row, there: Side, other: Row) -> Why | None:
        if fallen["decision"] == other["decision"] or not fallen["pixel_digest"]:
            return self._explain_copy_of_rejected(here, fallen, there, other)
        if fallen["pixel_digest"] != other["pixel_digest"]:
            return None
        # a crop that a person rejected passes every stage up to the one where it falls for that
        spoken = fallen["reason"] == REJECTED or (
            other["decision"] in ("keep", "reject") and fallen["stage"] != "filter" and not fallen["related"]
        )
        beaten = other["decision"] == "keep" and fallen["related"] and fallen["reason"] != EXACT_COPY
        if not spoken and not beaten:
            return self._explain_copy_of_rejected(here, fallen, there, other)
        before, after = (other, fallen) if there is self.two.before else (fallen, other)
        return self._explain_decision(before, after)

    def _explain_decision(self, before: Row, after: Row) -> Why:
        return explain_decision(before, after, self.two.after)

    def _explain_copy_of_rejected(self, here: Side, fallen: Row, there: Side, other: Row) -> Why | None:
        """A copy falls with the crop that a person rejected, and comes back with it."""
        if fallen["reason"] != COPY_OF_REJECTED or fallen["pixel_digest"] != other["pixel_digest"]:
            return None
        keeper, partner = self.two.both(here, fallen["related"])
        if keeper is None or partner is None or partner["decision"] == "reject":
            return None
        before, after = (partner, keeper) if there is self.two.before else (keeper, partner)
        why = self._explain_decision(before, after)
        return replace(why, detail=f"copy of {fallen['related']}, which was {why.detail}")

    def _explain_rejection(self, here: Side, fallen: Row, other: Row) -> Why | None:
        """A crop that was rejected in one version and is another picture in the other, of which nobody said so."""
        why = explain_measuring(self.makings, "crop", fallen, other)
        if why is None:
            return None
        who = fallen["detail"] or "a person"
        said = (
            f"was rejected by {who}, of other pixels" if here is self.two.before else f"other pixels, rejected by {who}"
        )
        return replace(why, detail=f"{said}: {why.detail}", who=fallen["detail"])

    def _explain_lost_decision(self, here: Side, fallen: Row, there: Side, other: Row) -> Why | None:
        """An item that a person's word carried past a stage, and that now is another picture (or was one)."""
        word = other["decision"]
        if word not in ("keep", "reject") or fallen["decision"] == word or not fallen["pixel_digest"]:
            return None
        if fallen["stage"] == "filter" or fallen["pixel_digest"] == other["pixel_digest"]:
            return None
        why = explain_measuring(self.makings, "crop", fallen, other)
        if why is None:
            return None
        said = (
            f"a person's {word} was of other pixels"
            if here is self.two.after
            else f"a person's {word} is of these pixels"
        )
        return self._add_figures(replace(why, detail=f"{said}: {why.detail}"), fallen)

    # ---- the filter: what the source says against the recipe ---------------------------------------------------------

    def _explain_filter(self, here: Side, fallen: Row, there: Side, other: Row) -> Why | None:
        parameter = fallen["parameter"]
        if parameter is None:  # a problem of the source: no file, an unsafe path, a broken row
            return self._explain_problem(here, fallen, other)
        name = parameter.partition(".")[2]
        if fallen["value"] is not None:
            return self._explain_number(here, fallen, there, other)
        if name.startswith("take_"):
            if here.making.setting(parameter) == there.making.setting(parameter):
                flagged = "marked" if here is self.two.after else "no longer marked"
                said = f"{flagged} {fallen['reason']}"
                why = Why(Cause.SOURCE_METADATA_CHANGED, said, "filter", parameter)
                return blame_source(self.makings, ["flags"], why)
            return self._blame_list(parameter)
        rule = LIST_RULES.get(name)
        if rule is None:
            return self._explain_by_setting(here, fallen)

        def falls(row: Row, side: Side) -> bool:
            return rule(row, side.making.setting(parameter) or (), fallen["detail"])

        match self._weigh(here, fallen, there, other, falls):
            case "rule":
                return self._blame_list(parameter)
            case "item":
                return self._blame_metadata(fallen, here, other)
        return None

    def _explain_by_setting(self, here: Side, fallen: Row) -> Why:
        """A rule of the filter that a row does not say enough for: by the recipe, else by what the source says now."""
        parameter, came = fallen["parameter"], here is self.two.after
        before, after = self.makings.before, self.makings.after
        for name in (parameter, *COMPANIONS.get(parameter, ()), *([_UNSAID] if fallen["reason"] == "unsaid" else [])):
            if before.setting(name) != after.setting(name):
                return self._blame_list(name)
        if fallen["related"]:
            said = f"{fallen['related']} {'stands' if came else 'no longer stands'} for it: parents and their children"
            return Why(Cause.UPSTREAM, said, "filter", parameter)
        said = f"{'' if came else 'no longer '}{fallen['detail'] or fallen['reason'].replace('_', ' ')}"
        return blame_source(self.makings, ["post"], Why(Cause.SOURCE_METADATA_CHANGED, said, "filter", parameter))

    def _explain_problem(self, here: Side, fallen: Row, other: Row) -> Why:
        came = here is self.two.before
        if fallen["reason"] == MISSING_FILE:
            cause = Cause.NEW_POST if came else Cause.SOURCE_GONE
            said = "its file is there now" if came else f"its file is gone ({fallen['detail']})"
            return blame_source(self.makings, ["post"], Why(cause, said, "filter"))
        detail = f"{'no longer ' if came else ''}{fallen['reason']}: {fallen['detail']}"
        if not came and other["reason"] == MISSING_FILE:
            detail = f"its file is there now, but {detail}"
        return blame_source(self.makings, ["post"], Why(Cause.SOURCE_METADATA_CHANGED, detail, "filter"))

    def _blame_list(self, parameter: str) -> Why:
        old, new = self.makings.before.setting(parameter), self.makings.after.setting(parameter)
        detail = say_list_change(parameter, old, new)
        return Why(Cause.THRESHOLD, detail, parameter.partition(".")[0], parameter)

    def _blame_metadata(self, fallen: Row, here: Side, other: Row) -> Why:
        before, after = (fallen, other) if here is self.two.before else (other, fallen)
        column = JUDGED_COLUMNS.get(fallen["parameter"], "")
        said = compare_columns(before, after).get(column)
        if said is None:  # a value that manifests do not keep, such as the declared width
            word = fallen["measurement"] or fallen["reason"]
            value = fallen["detail"] if fallen["value"] is None else f"{fallen['value']:.6g}"
            said = f"{word} {'is' if here is self.two.after else 'was'} {value}"
        if fallen["value"] is not None:
            said = f"{said} {self._say_limits(fallen)}"
        why = Why(Cause.SOURCE_METADATA_CHANGED, said, "filter", fallen["parameter"], fallen["value"])
        return blame_source(self.makings, [column or "flags"], why)

    # ---- measured values against thresholds --------------------------------------------------------------------------

    def _weigh(
        self, here: Side, fallen: Row, there: Side, other: Row, falls: Callable[[Row, Side], bool]
    ) -> str | None:
        """Whether the `rule` or the `item` made the difference; None when the rule holds there just the same.

        falls(row, side): whether a row would fall by the rule as that side's recipe has it.
        """
        if falls(fallen, there):
            return None if falls(other, there) else "item"
        return "rule" if falls(other, here) else "item"

    def _explain_number(self, here: Side, fallen: Row, there: Side, other: Row) -> Why | None:
        parameter, value = fallen["parameter"], fallen["value"]
        lowest = value < fallen["threshold"]  # else it is the highest that may be measured

        def falls(row: Row, side: Side) -> bool:
            limit = side.making.limit(parameter)
            measured = value_of(row, fallen)
            return limit is not None and (measured < limit if lowest else measured > limit)

        match self._weigh(here, fallen, there, other, falls):
            case "rule":
                return self._blame_threshold(fallen)
            case "item":
                return self._explain_value(here, fallen, other)
        if has_value(other, fallen):
            return None
        return self._explain_value(here, fallen, other)  # a value that the other row does not keep

    def _blame_threshold(self, fallen: Row) -> Why:
        detail = f"{fallen['measurement']} {fallen['value']:.6g} {self._say_limits(fallen)}"
        return Why(Cause.THRESHOLD, detail, fallen["stage"], fallen["parameter"], fallen["value"])

    def _say_limits(self, fallen: Row) -> str:
        """What a value was held against: `against clean.min_blur 40 -> 60`, or one number where both asked for it."""
        parameter = fallen["parameter"]
        limits = [making.limit(parameter) for making in (self.makings.before, self.makings.after)]
        said = ["off" if limit is None else say(limit) for limit in limits]
        return f"against {parameter} {said[0] if limits[0] == limits[1] else ' -> '.join(said)}"

    def _add_figures(self, why: Why | None, fallen: Row) -> Why | None:
        """A cause with what was measured of the fallen item and what it was held against, where that is a number."""
        if why is None or fallen["value"] is None or fallen["parameter"] is None:
            return why
        figures = f"{fallen['measurement']} {fallen['value']:.6g} {self._say_limits(fallen)}"
        return replace(why, detail=f"{why.detail} ({figures})", value=fallen["value"])

    def _explain_value(self, here: Side, fallen: Row, other: Row) -> Why | None:
        """Why a measured value is another one."""
        stage, name = fallen["stage"], fallen["measurement"]
        if name == "file_bytes":
            said = f"its file has another size: {fallen['value']:.6g} {self._say_limits(fallen)}"
            why = Why(Cause.SOURCE_FILE_CHANGED, said, stage, fallen["parameter"], fallen["value"])
            return blame_source(self.makings, ["file"], why)
        if name == "score_percentile" and all(fallen[key] == other[key] for key in ("score", "rating")):
            detail = f"{name} {fallen['value']:.6g} among other posts, {self._say_limits(fallen)}"
            return Why(Cause.SET_CHANGED, detail, stage, fallen["parameter"], fallen["value"])
        if stage == "filter":
            return self._blame_metadata(fallen, here, other)
        before, after = (fallen, other) if here is self.two.before else (other, fallen)
        values = [say(value_of(row, fallen)) if has_value(row, fallen) else "?" for row in (before, after)]
        if name == "d_percentile" and fallen["d_score"] == other["d_score"]:
            detail = f"percentile {values[0]} -> {values[1]} among other pictures, {self._say_limits(fallen)}"
            return Why(Cause.SET_CHANGED, detail, stage, fallen["parameter"], fallen["value"])
        measured = explain_measuring(self.makings, stage, before, after)
        if measured is None:
            return None
        detail = f"{measured.detail} ({name} {values[0]} -> {values[1]} {self._say_limits(fallen)})"
        return replace(measured, detail=detail, value=fallen["value"])

    # ---- copies ------------------------------------------------------------------------------------------------------

    def _explain_near_copy(self, here: Side, fallen: Row, there: Side, other: Row) -> Why | None:
        """A near copy: by the radius, else as any copy."""
        if fallen["pixel_digest"] == other["pixel_digest"]:
            limit = there.making.limit(fallen["parameter"])
            flags = [name for name in ("dedup.near", "dedup.mirror") if self._flag_off(name, fallen, there)]
            if flags:
                return self._blame_list(flags[0])
            if limit is None or fallen["value"] > limit:
                return replace(
                    self._blame_threshold(fallen),
                    detail=f"{self._blame_threshold(fallen).detail}, of {fallen['related']}",
                )
        return self._explain_copy(here, fallen, there, other)

    def _flag_off(self, parameter: str, fallen: Row, there: Side) -> bool:
        concerned = parameter == "dedup.near" or fallen["reason"] == "mirrored_copy"
        return concerned and there.making.setting(parameter) is False

    def _explain_copy(self, here: Side, fallen: Row, there: Side, other: Row) -> Why | None:
        """By what became of itself, else of the item that stands for it; looked at one step further."""
        if fallen["pixel_digest"] != other["pixel_digest"]:
            return explain_measuring(self.makings, "crop", fallen, other)
        name, stage = fallen["related"], fallen["stage"]
        came = here is self.two.after
        cause = Cause.DUPLICATE_OF_NEW if came else Cause.KEEPER_GONE
        keeper, partner = self.two.both(here, name)
        said = f"{fallen['reason'].replace('_', ' ')} of {name}, which" if came else f"its keeper {name}"
        if keeper is None:
            return None
        if partner is None:
            why = self.explain_named(here, name)
            known = why is None or why.cause in (Cause.NEW_POST, Cause.SOURCE_GONE)  # the sentence says it already
            because = "" if why is None or known else f": {why.detail}"
            return Why(cause, f"{said} is {'new' if came else 'gone'}{because}", stage)
        if partner["stage"] is not None and there.making.order(partner["stage"]) <= there.making.order(stage):
            if partner["related"] == other["item_id"]:
                return self._add_figures(self._explain_swap(came, fallen, other, keeper, partner), fallen)
            why = self.explain_named(here, name)
            because, who = (why.detail, why.who) if why else (partner["reason"], None)
            return Why(cause, f"{said} is {'in now' if came else 'out'}: {because}", stage, who=who)
        if keeper["pixel_digest"] != partner["pixel_digest"]:
            why = explain_measuring(self.makings, "crop", keeper, partner)
            return why and Why(cause, f"{said} has other pixels: {why.detail}", stage)
        return explain_measuring(self.makings, stage, fallen, other)

    def _explain_swap(self, came: bool, fallen: Row, other: Row, keeper: Row, partner: Row) -> Why | None:
        """Two copies of each other, of which now the other one stays: decided on, or better in score or size."""
        rows = [(other, fallen), (partner, keeper)]
        if not came:
            rows = [(new, old) for old, new in rows]
        for old, new in rows:
            if old["decision"] != new["decision"]:
                said = self._explain_decision(old, new)
                return replace(said, detail=f"copy of {fallen['related']}: {new['item_id']} was {said.detail}")
        for old, new in rows:
            if old["score"] != new["score"]:
                detail = (
                    f"copy of {fallen['related']}: score of {new['item_id']} {say(old['score'])} -> {say(new['score'])}"
                )
                why = Why(Cause.SOURCE_METADATA_CHANGED, detail, fallen["stage"])
                return blame_source(self.makings, ["score"], why)
        for old, new in rows:
            if old["pixel_digest"] != new["pixel_digest"] or old["box_w"] != new["box_w"]:
                cut = explain_measuring(self.makings, "crop", old, new)
                return cut and Why(Cause.UPSTREAM, f"copy of {fallen['related']}: {new['item_id']}: {cut.detail}")
        return None
