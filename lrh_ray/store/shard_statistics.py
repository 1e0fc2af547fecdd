"""Column moments, magnitudes and row norms of a shard: one compiled pass over each chunk.

Sums are taken of (x - shift), where shift is the chunk's first row, so a constant column has no spread at all and a
column far from zero loses nothing. bfloat16 is added up eight rows at a time in float32, which holds its differences
exactly unless they are far apart, and then in float64: relative errors of moments and norms stay below 1e-6. Where
squares could leave float32's range the chunk is taken in float64 throughout, as float32 always is.

The chunks are merged once, at the end, in their order: any order of arrival gives the same bits.

Legend: N rows, D features, C chunks.
"""

from dataclasses import dataclass

import numpy as np

from lrh_ray.store.kernels import COLUMNS, add_rows, extremes, merge_chunks
from lrh_ray.store.plan_shape import DTYPES
from lrh_ray.store.statistics import ColumnMoments, SiteStatistics

FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Arithmetic:
    """How the compiled loop takes values of one data type."""

    bits: np.dtype
    sums: np.dtype
    """Type in which a few rows are added up."""
    magnitude: np.unsignedinteger
    infinite: int
    safe: range
    """Magnitudes, as bits, whose squares `sums` holds with all their digits, and sums of many of them too."""

    @classmethod
    def of(cls, dtype: np.dtype, sums: type[np.floating], smallest: float, largest: float) -> "Arithmetic":
        bits = np.dtype(f"u{dtype.itemsize}")
        sign, infinite, low, high = np.array([-0.0, np.inf, smallest, largest], dtype).view(bits)
        safe = range(int(low), int(high))
        return cls(bits=bits, sums=np.dtype(sums), magnitude=np.invert(sign), infinite=int(infinite), safe=safe)


ARITHMETIC = {
    DTYPES["bfloat16"]: Arithmetic.of(DTYPES["bfloat16"], np.float32, 2.0**-50, 2.0**55),
    FLOAT32: Arithmetic.of(FLOAT32, np.float64, 0.0, np.inf),
}


class ShardStatistics:
    """What the chunks of one shard add up to. Chunks may be added in any order, from several threads."""

    def __init__(self, *, chunk_rows: int, width: int, valid_rows: int, dtype: np.dtype) -> None:
        chunks = -(-valid_rows // chunk_rows)
        self._chunk_rows, self._width = chunk_rows, width
        self._dtype = dtype if dtype in ARITHMETIC else FLOAT32  # float16, and int32 rounded to its first 24 bits
        self._rows_C = np.full(chunks, float(chunk_rows))
        self._rows_C[-1:] = valid_rows - chunk_rows * (chunks - 1)
        self._shift_CD, self._sum_CD, self._square_CD = (np.zeros((chunks, width)) for _ in range(3))
        self._top_CD = np.zeros((chunks, width), ARITHMETIC[self._dtype].bits)
        self._nonfinite_C = np.zeros(chunks, np.int64)
        self._norms = np.zeros(valid_rows, np.float32)

    def add(self, chunk: int, rows_ND: np.ndarray) -> None:
        """Take the valid rows of a chunk, C-contiguous, in the store's dtype."""
        rows_ND, own = np.asarray(rows_ND, self._dtype), ARITHMETIC[self._dtype]
        self._shift_CD[chunk] = rows_ND[0]
        self._top_CD[chunk] = top_D = self._add(chunk, rows_ND)
        largest, smallest = extremes(top_D)
        if largest >= own.infinite:
            self._nonfinite_C[chunk] = np.count_nonzero(rows_ND.view(own.bits) & own.magnitude >= own.infinite)
        elif largest and not (smallest in own.safe and largest in own.safe):
            self._add(chunk, rows_ND.astype(FLOAT32))

    def _add(self, chunk: int, rows_ND: np.ndarray) -> np.ndarray:
        """Column sums and norms of a chunk; returns the largest magnitude of each column, as bits."""
        how = ARITHMETIC[rows_ND.dtype]
        self._sum_CD[chunk] = self._square_CD[chunk] = 0.0
        top_D, norms_N = np.zeros(self._width, how.bits), np.zeros(-(-len(rows_ND) // 4) * 4)
        scratch = np.zeros((2, COLUMNS), how.sums)
        bits_ND = rows_ND.view(how.bits)
        add_rows(bits_ND, how.magnitude, scratch, self._sum_CD[chunk], self._square_CD[chunk], top_D, norms_N)
        with np.errstate(over="ignore", invalid="ignore"):  # values that are not finite are counted, not warned about
            self._norms[chunk * self._chunk_rows :][: len(rows_ND)] = np.sqrt(norms_N[: len(rows_ND)])
        return top_D

    def finish(self) -> SiteStatistics:
        """The whole shard, once every valid row was added."""
        mean_D, m2_D = np.zeros(self._width), np.zeros(self._width)
        merge_chunks(self._rows_C, self._shift_CD, self._sum_CD, self._square_CD, mean_D, m2_D)
        absmax_D = self._top_CD.max(axis=0).view(self._dtype).astype(np.float64)
        moments = ColumnMoments(count=len(self._norms), mean=mean_D, m2=m2_D, absmax=absmax_D)
        return SiteStatistics(moments=moments, norms=self._norms, nonfinite=int(self._nonfinite_C.sum()))


def warm_up(dtype: str) -> None:
    """Load the compiled loops for a store's data type; otherwise the first chunk of a process does, in 0.3 s."""
    statistics = ShardStatistics(chunk_rows=2, width=1, valid_rows=2, dtype=DTYPES[dtype])
    statistics.add(0, np.zeros((2, 1), DTYPES[dtype]))
    statistics.finish()
