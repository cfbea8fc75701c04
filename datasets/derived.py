"""Derived pictures that nobody keeps: a version lists them, and whoever reads one makes it of its parent.

Such a row has the blob of its parent, and the name of what is to be done to it. A build leaves out what does not change
its parent, so the blob alone tells. Older versions may keep such a picture (a mirror image of something symmetric);
their lineage says that all is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.errors import StoreError

# Makes a derived picture: (name of the augmentation, the parent's uint8 (H, W, 3)) -> uint8 (H, W, 3).
Derive = Callable[[str, np.ndarray], np.ndarray]


def find_derived(manifest: pa.Table, lineage: Mapping[str, Any] | None = None) -> np.ndarray:
    """Which rows are pictures that have to be made of their parent's blob when they are read: bool (N,).

    manifest: all of a version's, with crop_id, blob, augmentation, parent_crop. lineage: its version.json, whose recipe
    is trusted where it says that derived pictures are kept. Raises StoreError when a parent is not among the rows:
    nobody could tell then.
    """
    is_child = pc.is_valid(manifest["augmentation"])
    if keeps_derived(lineage or {}) or not pc.any(is_child).as_py():
        return np.zeros(len(manifest), np.bool_)
    # in chunks: ids and blobs of all children together may be more than one array can hold
    parents = manifest.select(["crop_id", "blob"]).filter(pc.invert(is_child))
    places = pc.index_in(manifest["parent_crop"], value_set=parents["crop_id"])
    orphans = manifest.filter(pc.and_(is_child, pc.is_null(places)))
    if len(orphans):
        raise StoreError(
            f"{len(orphans)} derived pictures have no parent in the manifest, {orphans['crop_id'][0]} first. "
            "Build the version again."
        )
    # digests by number: comparing numbers needs no blob of a parent again for each of its children
    digests = pc.unique(parents["blob"])
    of_parents = pc.index_in(parents["blob"], value_set=digests).combine_chunks()
    same = pc.equal(of_parents.take(places.combine_chunks()), pc.index_in(manifest["blob"], value_set=digests))
    return np.asarray(pc.fill_null(pc.and_(is_child, same), False).to_numpy(), np.bool_)


def keeps_derived(lineage: Mapping[str, Any]) -> bool:
    """Whether a version's lineage says that every derived picture was stored."""
    return lineage.get("recipe", {}).get("augment", {}).get("materialise") is True
