"""What differs between two versions as a FiftyOne dataset: rebuilt from Parquet at will, like every review."""

from __future__ import annotations

from collections import Counter

import fiftyone as fo
from fiftyone import ViewField

from datasets.decisions import decision_by_digest
from datasets.diff import Change, summarise_diff
from datasets.digests import digest_json, digest_rows
from datasets.review.diff_records import DIFF_FIELDS, DiffInputs, build_diff_records, with_decided_pixels
from datasets.review.records import Row, choose_rows
from datasets.review.samples import (
    AMBER,
    BLUE,
    GREEN,
    GREY,
    RED,
    arrange_sidebar,
    carry_over,
    colour_by_value,
    load_unchanged,
    read_unpulled,
    write_dataset,
)
from datasets.review.tagging import DECISION_TAGS

VIEW_FORMAT = 2  # bump when the views or the style below change: reviews are then built anew
MOST_PER_CAUSE = 2000  # items shown of each change, cause and parameter
INDEXES = ("item_id", "change", "cause", "parameter", "value", "pixel_digest", "tags")
ACTIVE_FIELDS = ("change", "cause", "parameter", "value")  # written on each picture; our plugin adds the tags
GROUPS = ("difference", "figures", "people", "identity")
COLOURS = {
    Change.ADDED: GREEN,
    Change.REMOVED: RED,
    Change.PIXELS: BLUE,
    Change.METADATA: AMBER,
    Change.VERDICT: GREY,
}
MEANINGS = {
    Change.ADDED: "was not published, is now",
    Change.REMOVED: "was published, is not now",
    Change.PIXELS: "published in both with another picture: before on the left, after on the right",
    Change.METADATA: "published in both with the same picture; what is said of it differs",
    Change.VERDICT: "published in neither; dropped elsewhere, for another reason, or absent from one of them",
}


def load_diff_dataset(name: str, inputs: DiffInputs, most_per_cause: int = MOST_PER_CAUSE) -> fo.Dataset:
    """The FiftyOne dataset `name` of a diff: the one that is there when it shows the same, else a new one."""
    unchanged = load_unchanged(name, _describe_origin(inputs, most_per_cause), decision_by_digest(inputs.decisions))
    return build_diff_dataset(name, inputs, most_per_cause) if unchanged is None else unchanged


def build_diff_dataset(name: str, inputs: DiffInputs, most_per_cause: int = MOST_PER_CAUSE) -> fo.Dataset:
    """Make the persistent FiftyOne dataset `name` anew: one sample per item that differs.

    Decisions of the store become sample tags; tags that nobody pulled are carried over, as in a version's review. Of
    each change, cause and parameter at most `most_per_cause` items are in, and those that somebody decided about;
    `dataset.info` has the full counts and says how many were left out.
    """
    decisions = decision_by_digest(inputs.decisions)
    unpulled = read_unpulled(name)
    decided = {*decisions, *(digest for _, digest in unpulled if digest)}
    table = with_decided_pixels(inputs.table)
    chosen, left_out = choose_rows(table, ("change", "cause", "parameter"), most_per_cause, decided)
    records = build_diff_records(chosen, inputs, decisions)
    carry_over(unpulled, records, name)

    def finish(dataset: fo.Dataset) -> None:
        _save_views(dataset, records)
        _style(dataset)

    info = {
        "version": inputs.after.version,
        "diff_from": inputs.before.version,
        "review": inputs.review,
        "content_digests": [inputs.before.content_digest, inputs.after.content_digest],
        "counts": summarise_diff(inputs.table).to_pylist(),
        "left_out_of_this_view": left_out,
        "built_from": _describe_origin(inputs, most_per_cause),
    }
    return write_dataset(name, DIFF_FIELDS, records, indexes=INDEXES, info=info, finish=finish)


def _describe_origin(inputs: DiffInputs, most_per_cause: int) -> str:
    """A digest of all that the dataset shows, decisions apart. Paths are in it: a store may have been moved."""
    sides = [[side.version, side.content_digest, str(side.source_root)] for side in (inputs.before, inputs.after)]
    folders = [str(inputs.placeholder_folder.absolute()), str(inputs.comparison_folder.absolute())]
    fields = [[field.name, field.kind, field.group, field.description] for field in DIFF_FIELDS]
    # causes may be told better tomorrow, of the same two versions: the rows themselves count
    rows = digest_rows(inputs.table, inputs.table.column_names, order_by="item_id")
    return digest_json([VIEW_FORMAT, fields, sides, folders, rows, most_per_cause])


def _save_views(dataset: fo.Dataset, records: list[Row]) -> None:
    """By change, by change and cause, and what nobody has decided about; each has an address of its own."""
    order = [("cause", 1), ("parameter", 1), ("value", 1), ("item_id", 1)]
    causes = Counter((record["change"], record["cause"]) for record in records)
    undecided = dataset.match_tags(DECISION_TAGS, bool=False).exists("pixel_digest").sort_by([("change", 1), *order])
    for change in Change:
        view = dataset.match(ViewField("change") == change.value)
        of_change = [cause for changed, cause in causes if changed == change]  # as the records are sorted
        if of_change:
            dataset.save_view(change.value, view.sort_by(order), description=MEANINGS[change], color=COLOURS[change])
        for cause in of_change:
            word = cause.replace("_", " ")
            dataset.save_view(
                f"{change.value} by {word}",
                view.match(ViewField("cause") == cause).sort_by(order),
                description=f"{causes[change.value, cause]} items {change.value}, and the cause is: {word}",
                color=COLOURS[change],
            )
    dataset.save_view("undecided", undecided, description="nobody has said a word of these yet", color=GREY)


def _style(dataset: fo.Dataset) -> None:
    """Open with what changed and why; long ids folded away."""
    arrange_sidebar(dataset, DIFF_FIELDS, GROUPS, expanded=("tags", "difference", "figures"))
    dataset.app_config.active_fields = fo.ActiveFields(paths=list(ACTIVE_FIELDS))
    quiet: list[Row] = [{"path": "cause", "fieldColor": AMBER}, {"path": "value", "fieldColor": BLUE}]
    colour_by_value(dataset, {"change": {change.value: colour for change, colour in COLOURS.items()}}, quiet)
    dataset.save()
