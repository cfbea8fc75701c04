"""Parents and children: posts that are variants of one another, by what the source says of them."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_NOBODY = -1


class Children(StrEnum):
    """What becomes of posts that name a parent."""

    TAKE = "take"  # as any post
    DROP_BESIDE_PARENT = "drop-beside-parent"  # where the parent is taken, its children fall
    DROP = "drop"  # all of them fall, wherever their parent is
    ONLY_PARENTS = "only-parents"  # posts stay that another post of the source names as its parent, children or not


def find_parents(posts: pa.Table) -> np.ndarray:
    """The row of each post's parent: int64 (N,), -1 for none, for one that the source lacks, and for itself."""
    parents = np.full(len(posts), _NOBODY, np.int64)
    named = np.flatnonzero(pc.is_valid(posts["parent_id"]).to_numpy(zero_copy_only=False))
    if not len(named):
        return parents
    wanted = posts["parent_id"].take(pa.array(named)).combine_chunks()
    distinct = wanted.dictionary_encode()
    # asking every post whether it is one of the few parents costs less than a table of all posts
    asked = pc.index_in(posts["post_id"], value_set=distinct.dictionary)
    found = np.flatnonzero(pc.is_valid(asked).to_numpy(zero_copy_only=False))
    row_of = np.full(len(distinct.dictionary), _NOBODY, np.int64)
    row_of[pc.drop_null(asked).to_numpy()[::-1]] = found[::-1]  # an id that stands twice is its first row's
    parents[named] = row_of[distinct.indices.to_numpy()]
    parents[parents == np.arange(len(posts))] = _NOBODY
    return parents


def find_elders(parents: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """For each post the taken post of its family that stands for it: int64 (N,), -1 for what stands for itself.

    parents: int64 (N,), rows. taken: bool (N,), what the other rules let pass. A child whose parent is taken falls, and
    so does that one's child: it goes up as far as parents are taken, and the last of them stands for all below. Where
    posts name each other in a circle, its first in the table stands for the others. Posts that are not taken are -1.
    """
    elders = np.full(len(parents), _NOBODY, np.int64)
    children = np.flatnonzero((parents != _NOBODY) & taken)
    children = children[taken[parents[children]]]
    if not len(children):
        return elders
    rows = np.unique(np.concatenate([children, parents[children]]))
    up = np.arange(len(rows))
    up[np.searchsorted(rows, children)] = np.searchsorted(rows, parents[children])
    # jump twice as far each time; afterwards who has not arrived at a post without parent is in a circle or below one
    top = up
    for _ in range(len(rows).bit_length()):
        further = top[top]
        if np.array_equal(further, top):
            break
        top = further
    top = _settle_circles(up, top)
    moved = np.flatnonzero(top != np.arange(len(rows)))
    elders[rows[moved]] = rows[top[moved]]
    return elders


def _settle_circles(up: np.ndarray, top: np.ndarray) -> np.ndarray:
    """Give the members of circles, and who is below them, the circle's first member: int64 (K,)."""
    lost = np.flatnonzero(up[top] != top)
    top = top.copy()
    state = dict.fromkeys(lost.tolist(), _NOBODY)
    for start in state:
        path: list[int] = []
        seen: set[int] = set()
        here = start
        while state[here] == _NOBODY and here not in seen:
            seen.add(here)
            path.append(here)
            here = int(up[here])
        elder = state[here] if state[here] != _NOBODY else min(path[path.index(here) :])
        for member in path:
            state[member] = elder
    for member, elder in state.items():
        top[member] = elder
    return top


def find_childless(parents: np.ndarray) -> np.ndarray:
    """Which posts no other post of the source names as its parent: bool (N,)."""
    childless = np.ones(len(parents), bool)
    childless[parents[parents != _NOBODY]] = False
    return childless
