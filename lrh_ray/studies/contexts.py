"""Rows as a reader sees them: the text of a token, with what stands before and after it.

    for before, token, after in contexts(store, np.array([17, 4, 90])): ...

What can go wrong: tokens that stand for no text (a beginning of sequence) have none; imported stores have no texts.
"""

import numpy as np

from lrh_ray.store.reader import Store

CHARACTERS = 70
"""On each side of the token."""


def contexts(store: Store, rows: np.ndarray) -> list[tuple[str, str, str]]:
    """Before, token and after of rows [N], given by their numbers in the store, in any order."""
    order = np.argsort(rows, kind="stable")
    columns = store.row_arrays(("doc", "char_start", "char_end"), rows[order])
    texts = store.texts
    found = [("", "", "")] * len(rows)
    for place, doc, start, end in zip(order.tolist(), *(column.tolist() for column in columns), strict=True):
        text = texts[doc]
        found[place] = text[max(0, start - CHARACTERS) : start], text[start:end], text[end : end + CHARACTERS]
    return found
