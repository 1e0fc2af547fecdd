"""Loops over activations that NumPy would run in many passes: compiled, and free of the interpreter's lock.

A chunk's statistics take five numbers from every value. In NumPy that is a dozen passes with temporaries, which cost
more than writing the chunk to disk; here it is one pass over a chunk that the cache holds, several times as fast.

Values come as their bits (uint16: bfloat16, uint32: float32) and are added up in float64. The order of additions is
fixed for a processor; between processors the last bits of a float64 may differ.

The first call on a machine compiles, in about two seconds; later processes load the code from numba's cache beside this
file (NUMBA_CACHE_DIR names another place).

Legend: N rows, D features, C chunks.
"""

import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba
import numpy as np
from numba.extending import overload

COLUMNS = 512  # of one inner loop: what it reads and writes (14 KB) stays in the first-level cache

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def compiled(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """`function`, compiled at its first call for the types it gets, and cached on disk."""
    plain = inspect.unwrap(function)  # without the type checks that a test run puts around it
    compile_it = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})
    return compile_it(plain)  # type: ignore[no-any-return]


def value_of(bits: np.unsignedinteger) -> float:
    """The float that stands in `bits`; only inside compiled loops."""
    raise NotImplementedError


value_of = inspect.unwrap(value_of)


@overload(value_of, inline="always")
def _value_of(bits):  # type: ignore[no-untyped-def]
    if bits == numba.types.uint16:
        return lambda bits: np.float64(np.uint32(np.uint32(bits) << 16).view(np.float32))
    return lambda bits: np.float64(np.uint32(bits).view(np.float32))


@compiled
def add_rows(
    bits_ND: np.ndarray,
    magnitude: np.unsignedinteger,
    shift_D: np.ndarray,
    sum_D: np.ndarray,
    square_D: np.ndarray,
    top_D: np.ndarray,
    norm_N: np.ndarray,
) -> None:
    """Add an even number of rows to column sums of (x - shift) and (x - shift)², maxima of |x| and norms² of rows.

    `magnitude` masks the sign out of the bits; `top_D` are bits as well, and NaN is the largest of them.
    """
    for first in range(0, bits_ND.shape[1], COLUMNS):
        slab = slice(first, min(first + COLUMNS, bits_ND.shape[1]))
        shift, sums, squares, tops = shift_D[slab], sum_D[slab], square_D[slab], top_D[slab]
        for row in range(0, len(bits_ND), 2):  # two rows at a time halve the traffic with the sums
            one, two = bits_ND[row, slab], bits_ND[row + 1, slab]
            norm_one = norm_two = 0.0
            for column in range(len(shift)):
                x, y = value_of(one[column]), value_of(two[column])
                norm_one += x * x
                norm_two += y * y
                x -= shift[column]
                y -= shift[column]
                sums[column] += x + y
                squares[column] += x * x + y * y
                tops[column] = max(tops[column], one[column] & magnitude, two[column] & magnitude)
            norm_N[row] += norm_one
            norm_N[row + 1] += norm_two


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
