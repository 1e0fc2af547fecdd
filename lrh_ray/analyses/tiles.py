"""Rows of any float type as tiles of float64 or float32, shifted and with a column of ones.

Products over rows run in tiles of `TILE_ROWS`: large enough for the matrix product to reach its speed, small enough
that a tile stays in cache between the two products of a pass, and cut at fixed places so that a block always gives
the same bits. Subtracting one fixed shift, about the mean, before anything is squared keeps the massive dimensions of
a residual stream (offsets of thousands beside variances of 1e-3) from drowning the rest. The column of ones carries
counts, sums and intercepts through the same products.

`exact` products are float64. `fast` ones are float32 within a tile, and tiles are added up in float64: with the shift
taken off first a covariance keeps about 7 digits, where float32 sums of unshifted rows keep 3.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAlias

import numpy as np

from lrh_ray.analyses.layouts import Augmented, KeptRows
from lrh_ray.layouts import Feature64, RowMask, Rows

TILE_ROWS = 4096

Precision: TypeAlias = Literal["exact", "fast"]
TILE_DTYPES: Mapping[str, type[np.floating[Any]]] = {"exact": np.float64, "fast": np.float32}


def tile_slices(num_rows: int) -> Iterator[slice]:
    for start in range(0, num_rows, TILE_ROWS):
        yield slice(start, min(start + TILE_ROWS, num_rows))


def tile_buffer(num_rows: int, num_features: int, precision: Precision = "exact") -> Augmented:
    """Reusable memory for `augment`; its last column of ones is never overwritten."""
    return np.ones((min(num_rows, TILE_ROWS), num_features + 1), TILE_DTYPES[precision])


def rounded_shift(shift: Feature64, precision: Precision) -> Feature64:
    """The shift as tiles subtract it, so that means are told from the very number that was taken off."""
    return np.asarray(shift.astype(TILE_DTYPES[precision]).astype(np.float64))


def augment(rows: Rows, shift: Feature64, buffer: np.ndarray) -> Augmented:
    """[rows - shift, 1] in the buffer's type, written into the head of `buffer` and returned as a view of it."""
    centre(rows, shift, buffer[:, :-1])
    return buffer[: len(rows)]


def centre(rows: Rows, shift: Feature64, buffer: np.ndarray) -> KeptRows:
    """Rows - shift in the buffer's type, written into the head of `buffer` and returned as a view of it."""
    x = buffer[: len(rows)]
    own = shift.astype(x.dtype, copy=False)
    if rows.dtype == x.dtype:
        np.subtract(rows, own, out=x)
        return x
    x[:] = rows  # converts first: bfloat16 and float64 have no common subtraction
    x -= own
    return x


def select(rows: Rows, keep: RowMask) -> KeptRows:
    """The kept rows; the array itself when all are kept, because copying a tile costs as much as converting it."""
    return rows if keep.all() else rows[np.flatnonzero(keep)]
