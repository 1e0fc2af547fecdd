"""Rows of any float type as float64 tiles, shifted and with a column of ones.

Products over rows run in tiles of `TILE_ROWS`: large enough for the matrix product to reach its speed, small enough
that a tile stays in cache between the two products of a pass, and cut at fixed places so that a block always gives
the same bits. Subtracting one fixed shift, about the mean, before anything is squared keeps the massive dimensions of
a residual stream (offsets of thousands beside variances of 1e-3) from drowning the rest. The column of ones carries
counts, sums and intercepts through the same products.
"""

from collections.abc import Iterator

import numpy as np

from lrh_ray.analyses.layouts import Augmented, KeptRows
from lrh_ray.layouts import Feature64, RowMask, Rows

TILE_ROWS = 4096


def tile_slices(num_rows: int) -> Iterator[slice]:
    for start in range(0, num_rows, TILE_ROWS):
        yield slice(start, min(start + TILE_ROWS, num_rows))


def tile_buffer(num_rows: int, num_features: int) -> Augmented:
    """Reusable memory for `augment`; its last column of ones is never overwritten."""
    return np.ones((min(num_rows, TILE_ROWS), num_features + 1))


def augment(rows: Rows, shift: Feature64, buffer: np.ndarray) -> Augmented:
    """[rows - shift, 1] in float64, written into the head of `buffer` and returned as a view of it."""
    x = buffer[: len(rows)]
    x[:, :-1] = rows  # converts first: bfloat16 and float64 have no common subtraction
    x[:, :-1] -= shift
    return x


def select(rows: Rows, keep: RowMask) -> KeptRows:
    """The kept rows; the array itself when all are kept, because copying a tile costs as much as converting it."""
    return rows if keep.all() else rows[np.flatnonzero(keep)]
