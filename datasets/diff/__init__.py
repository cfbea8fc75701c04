"""Diff: what differs between two versions, item by item, and why."""

from datasets.diff.compare import diff_versions
from datasets.diff.table import DIFF, SUMMARY, Cause, Change, explain_change, summarise_diff

__all__ = ["DIFF", "SUMMARY", "Cause", "Change", "diff_versions", "explain_change", "summarise_diff"]
