"""Derived pictures that nobody keeps: a version lists them, and whoever reads one makes it of its parent.

Such a row has the blob of its parent, and the name of what is to be done to it. A derived picture that is kept may have
that blob too, when the parent does not change by it (a mirror image of something symmetric): doing it again changes
nothing then, either. So the blob alone tells, and is right.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.errors import StoreError

# Makes a derived picture: (name of the augmentation, the parent's uint8 (H, W, 3)) -> uint8 (H, W, 3).
Derive = Callable[[str, np.ndarray], np.ndarray]


def find_derived(manifest: pa.Table) -> np.ndarray:
    """Which rows are pictures that have to be made of their parent's blob when they are read: bool (N,).

    manifest: all of a version's, with crop_id, blob, augmentation, parent_crop. Raises StoreError when a parent is
    not among them: nobody could tell then.
    """
    is_child = pc.is_valid(manifest["augmentation"])
    if not pc.any(is_child).as_py():
        return np.zeros(len(manifest), np.bool_)
    parents = pc.index_in(manifest["parent_crop"], value_set=manifest["crop_id"].combine_chunks())
    orphans = manifest.filter(pc.and_(is_child, pc.is_null(parents)))
    if len(orphans):
        raise StoreError(
            f"{len(orphans)} derived pictures have no parent in the manifest, {orphans['crop_id'][0]} first. "
            "Build the version again."
        )
    same = pc.equal(manifest["blob"].take(parents.combine_chunks()), manifest["blob"])
    return np.asarray(pc.fill_null(pc.and_(is_child, same), False).to_numpy(), np.bool_)
