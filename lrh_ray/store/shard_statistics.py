"""Column moments, magnitudes and row norms of a shard: one compiled pass over each chunk, in float64.

Sums are taken of (x - shift), where shift is the chunk's first row, so a constant column has no spread at all and a
column far from zero loses nothing. The chunks are merged once, at the end, in their order: any order of arrival gives
the same bits.

Legend: N rows, D features, C chunks.
"""

import numpy as np

from lrh_ray.store.kernels import add_rows, merge_chunks
from lrh_ray.store.plan import DTYPES
from lrh_ray.store.statistics import ColumnMoments, SiteStatistics

FLOAT16, FLOAT32 = np.dtype(np.float16), np.dtype(np.float32)


class ShardStatistics:
    """What the chunks of one shard add up to. Chunks may be added in any order, from several threads."""

    def __init__(self, *, chunk_rows: int, width: int, valid_rows: int, dtype: np.dtype) -> None:
        chunks = -(-valid_rows // chunk_rows)
        self._chunk_rows, self._width = chunk_rows, width
        self._dtype = FLOAT32 if dtype == FLOAT16 else dtype  # compiled loops know bfloat16 and float32
        self._bits = np.dtype(f"u{self._dtype.itemsize}")
        self._infinite = np.array(np.inf, self._dtype).view(self._bits)[()]
        self._magnitude = np.invert(np.array(-0.0, self._dtype).view(self._bits))[()]
        self._rows_C = np.full(chunks, float(chunk_rows))
        self._rows_C[-1:] = valid_rows - chunk_rows * (chunks - 1)
        self._shift_CD, self._sum_CD, self._square_CD = (np.zeros((chunks, width)) for _ in range(3))
        self._top_CD = np.zeros((chunks, width), self._bits)
        self._nonfinite_C = np.zeros(chunks, np.int64)
        self._norms = np.zeros(valid_rows, np.float32)

    def add(self, chunk: int, rows_ND: np.ndarray) -> None:
        """Take the valid rows of a chunk, C-contiguous, in the store's dtype."""
        first_D = rows_ND[0].astype(np.float64)
        bits_ND = np.asarray(rows_ND, self._dtype).view(self._bits)
        norms_N = np.zeros(len(bits_ND))
        self._shift_CD[chunk] = first_D
        self._top_CD[chunk] = bits_ND[0] & self._magnitude
        with np.errstate(all="ignore"):  # values that are not finite are counted, not warned about
            norms_N[0] = first_D @ first_D if len(bits_ND) % 2 else 0.0
            paired = slice(len(bits_ND) % 2, None)  # the first row adds nothing to sums of (x - shift)
            add_rows(
                bits_ND[paired],
                self._magnitude,
                self._shift_CD[chunk],
                self._sum_CD[chunk],
                self._square_CD[chunk],
                self._top_CD[chunk],
                norms_N[paired],
            )
            self._norms[chunk * self._chunk_rows :][: len(norms_N)] = np.sqrt(norms_N)
        if self._top_CD[chunk].max() >= self._infinite:
            self._nonfinite_C[chunk] = np.count_nonzero(bits_ND & self._magnitude >= self._infinite)

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
