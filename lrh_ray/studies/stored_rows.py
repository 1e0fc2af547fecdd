"""A few rows of a store by their place in it, read from the blocks that hold them.

index = last_index(store, sequences)               # [N] the row of the last token of each sequence
rows = rows_at(store, "resid.15", index)           # [N, D] float64, in the order of `index`
"""

import numpy as np

from lrh_ray.store.reader import Store


def last_index(store: Store, sequences: np.ndarray) -> np.ndarray:
    """[N] the row of the last token of each of these sequences."""
    last = np.full(len(store.document_ids), -1, np.int64)
    for block in range(store.plan.num_blocks):
        keys = store.keys(block)
        np.maximum.at(last, keys.doc, keys.index)  # rows of a sequence stand in the order of its tokens
    return np.asarray(last[sequences])


def rows_at(store: Store, site: str, index: np.ndarray) -> np.ndarray:
    """[N, D] float64: the rows at these places; a place may occur twice."""
    rows = np.empty((len(index), store.plan.site(site).width))
    block_of = index // store.plan.rows_per_block
    for block in np.unique(block_of).tolist():
        here = np.flatnonzero(block_of == block)
        place = np.searchsorted(store.keys(block).index, index[here])
        rows[here] = store.block_rows(site, block)[place]
    return rows
