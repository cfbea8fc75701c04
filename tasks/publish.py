"""Publish: what stayed becomes a version, with its lineage and its card."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from datasets.card import CardWriter
from datasets.lock import Lease
from datasets.store import Store
from datasets.version import Version, publish_version
from tasks.lineage import describe_build
from tasks.plan import BuildPlan


def publish(
    plan: BuildPlan, store: Store, manifest: pa.Table, ledger: pa.Table, found: dict[str, Any], lease: Lease
) -> Version:
    """Publish the manifest and ledger of a build. found: what the build found out (source digest, counts, …).

    lease: of the dataset; when it was lost, nothing is published.
    """
    lineage = describe_build(plan, found)
    card = CardWriter(store, plan.source.root)
    return publish_version(store, plan.dataset, manifest, ledger, lineage, card, lease.ensure_held)
