"""The loops over stored activations: compiled, one pass each.

A chunk's statistics take four numbers from every value. In NumPy that is a dozen passes with temporaries, which cost
more than writing the chunk to disk; here it is one pass over a chunk that the cache holds, many times as fast.

Values come as their bits (uint16: bfloat16, uint32: float32). A few rows are added up in the type of a scratch array,
then their sums in float64. The order of additions is fixed for a processor; between processors the last bits may
differ.

Legend: N rows, D features, C chunks.
"""

import inspect

import numba
import numpy as np
from numba.extending import overload

from lrh_ray.compiled import compiled

COLUMNS = 1024  # of one inner loop: what it reads and writes stays in the first-level cache
GROUP = 8  # rows that are added up in the scratch array's type


def value_of(bits: np.unsignedinteger) -> float:
    """The float that stands in `bits`; only inside compiled loops."""
    raise NotImplementedError


value_of = inspect.unwrap(value_of)


@overload(value_of, inline="always")
def _value_of(bits):  # type: ignore[no-untyped-def]
    if bits == numba.types.uint16:
        return lambda bits: np.uint32(np.uint32(bits) << 16).view(np.float32)
    return lambda bits: np.float64(np.uint32(bits).view(np.float32))


@compiled
def add_rows(
    bits_ND: np.ndarray,
    magnitude: np.unsignedinteger,
    scratch: np.ndarray,
    sum_D: np.ndarray,
    square_D: np.ndarray,
    top_D: np.ndarray,
    norm_N: np.ndarray,
) -> None:
    """Add rows to column sums of (x - first row) and (x - first row)², maxima of |x|, and norms² of rows.

    `magnitude` masks the sign out of the bits; `top_D` are bits as well, and NaN is the largest of them. `scratch` is
    [2, COLUMNS] zeros of float32 for bfloat16 and float64 for float32. `norm_N` has room for a multiple of four rows:
    they are taken four at a time, and where the last are missing the first row, which adds nothing, stands in.
    """
    num_rows = len(bits_ND)
    for first in range(0, bits_ND.shape[1], COLUMNS):
        slab = slice(first, min(first + COLUMNS, bits_ND.shape[1]))
        sums, squares, tops, shift = sum_D[slab], square_D[slab], top_D[slab], bits_ND[0, slab]
        part_sums, part_squares = scratch[0], scratch[1]
        for group in range(0, num_rows, GROUP):
            for row in range(group, min(group + GROUP, num_rows), 4):
                a, b = bits_ND[row, slab], bits_ND[row + 1 if row + 1 < num_rows else 0, slab]
                c = bits_ND[row + 2 if row + 2 < num_rows else 0, slab]
                d = bits_ND[row + 3 if row + 3 < num_rows else 0, slab]
                norm_a = norm_b = norm_c = norm_d = scratch.dtype.type(0)
                for i in range(len(shift)):
                    w, x, y, z = value_of(a[i]), value_of(b[i]), value_of(c[i]), value_of(d[i])
                    norm_a += w * w
                    norm_b += x * x
                    norm_c += y * y
                    norm_d += z * z
                    w -= value_of(shift[i])
                    x -= value_of(shift[i])
                    y -= value_of(shift[i])
                    z -= value_of(shift[i])
                    part_sums[i] += (w + x) + (y + z)
                    part_squares[i] += (w * w + x * x) + (y * y + z * z)
                norm_N[row] += norm_a
                norm_N[row + 1] += norm_b
                norm_N[row + 2] += norm_c
                norm_N[row + 3] += norm_d
                for i in range(len(shift)):  # a loop of its own: integers of 16 bits go twice as many at a time
                    four = max(max(a[i] & magnitude, b[i] & magnitude), max(c[i] & magnitude, d[i] & magnitude))
                    tops[i] = max(tops[i], four)
            for i in range(len(shift)):
                sums[i] += part_sums[i]
                squares[i] += part_squares[i]
                part_sums[i] = part_squares[i] = 0.0


@compiled
def extremes(top_D: np.ndarray) -> tuple[int, int]:
    """The largest and the smallest magnitude that is not zero, as bits; (0, 0) if all are zero."""
    largest = smallest = top_D[0]
    for top in top_D:
        largest = max(largest, top)
        smallest = min(smallest, top) if top and smallest else max(smallest, top)
    return largest, smallest


@compiled
def merge_chunks(
    rows_C: np.ndarray,
    shift_CD: np.ndarray,
    sum_CD: np.ndarray,
    square_CD: np.ndarray,
    mean_D: np.ndarray,
    m2_D: np.ndarray,
) -> None:
    """Mean and sum of squared deviations over all chunks, in their order, into zeros (Chan, Golub and LeVeque 1979)."""
    total = 0.0
    for chunk in range(len(rows_C)):
        rows = rows_C[chunk]
        total += rows
        for column in range(len(mean_D)):
            offset = sum_CD[chunk, column] / rows
            delta = shift_CD[chunk, column] + offset - mean_D[column]
            spread = square_CD[chunk, column] - offset * sum_CD[chunk, column]
            m2_D[column] += max(spread, 0.0) + delta * delta * (rows * (total - rows) / total)
            mean_D[column] += delta * (rows / total)
