"""Column moments and row norms of a shard, chunk by chunk, at memory speed.

Float64 over whole chunks is many times slower than a disk. Here a chunk is passed over in tiles that fit a core's
cache, in float32, and the chunks are merged once at the end, in float64:

    shift    a value near the column's mean: the mean of every 16th row
    sum      sum of (x - shift)
    square   sum of (x - shift)^2
    mean  =  shift + sum / n          m2 = square - sum^2 / n

Where that subtraction would cancel more than 4-fold (the sampled rows were unlike the others), the chunk is passed over
once more, with the mean it just found as the shift. Sums run over groups of 32 rows, then over groups, so rounding
errors stay near 1e-7. All of these operations are elementwise or row after row: the same bits on every machine and for
any order of chunks. (Only norms go through BLAS, whose order of addition depends on the processor.)

A chunk whose magnitudes leave the range in which float32 squares are normal numbers is computed in float64.

Legend: N rows, D features, C chunks, G groups of rows.
"""

from dataclasses import dataclass

import numpy as np

from lrh_ray.store.aligned import aligned_empty
from lrh_ray.store.statistics import ColumnMoments, SiteStatistics

TILE_BYTES = 1 << 20  # of float32, half of a server core's cache; smaller tiles lose more to calls than they gain
GROUP_ROWS = 32
SHIFT_STRIDE = 16
LOOP_LENGTH = 8192  # numbers; shorter inner loops of NumPy take twice the time per number
MAX_CANCELLATION = np.float32(4)
DOT_FEATURES = 8192  # BLAS splits longer dot products over threads, and then the bits depend on their number
SQUARES_ABOVE, SQUARES_BELOW = 2.0**-36, 2.0**55
MERGED_NUMBERS = 1 << 13  # a few arrays of this many float64 stay in the cache
FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scratch:
    """Buffers of one thread, for chunks of one shape."""

    tile: np.ndarray
    shift: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    maxima: np.ndarray

    @classmethod
    def of(cls, chunk_rows: int, width: int, dtype: np.dtype) -> "Scratch":
        tile_rows = _tile_rows(chunk_rows, width)
        groups = -(-chunk_rows // min(GROUP_ROWS, tile_rows))
        return cls(
            tile=aligned_empty((tile_rows, width), FLOAT32),
            shift=aligned_empty((_repeats(tile_rows, width), width), FLOAT32),
            sums=aligned_empty((groups, width), FLOAT32),
            squares=aligned_empty((groups, width), FLOAT32),
            maxima=aligned_empty((-(-chunk_rows // tile_rows), width), _bits_of(dtype)),
        )


class ShardStatistics:
    """What the chunks of one shard add up to. Chunks may be added in any order, from several threads."""

    def __init__(self, *, chunk_rows: int, width: int, valid_rows: int, dtype: np.dtype) -> None:
        chunks = -(-valid_rows // chunk_rows)
        self._chunk_rows, self._valid_rows, self._dtype = chunk_rows, valid_rows, dtype
        self._shift_CD = np.zeros((chunks, width), dtype=np.float32)
        self._sum_CD = np.zeros((chunks, width), dtype=np.float32)
        self._square_CD = np.zeros((chunks, width), dtype=np.float32)
        self._absmax_CD = np.zeros((chunks, width), dtype=_bits_of(dtype))
        self._wide: dict[int, ColumnMoments] = {}
        self._nonfinite = np.zeros(chunks, dtype=np.int64)
        self._norms = np.zeros(valid_rows, dtype=np.float32)
        with np.errstate(over="ignore"):
            limits = np.array([SQUARES_ABOVE, SQUARES_BELOW, np.inf]).astype(dtype)
        self._low, self._high, self._infinite = (int(bits) for bits in limits.view(_bits_of(dtype)))

    def add(self, chunk: int, rows_ND: np.ndarray, scratch: Scratch) -> None:
        """Take the valid rows of a chunk, C-contiguous, in the store's dtype."""
        first = chunk * self._chunk_rows
        norms = self._norms[first : first + len(rows_ND)]
        with np.errstate(all="ignore"):  # values that are not finite are counted, not warned about
            _shift(rows_ND, self._shift_CD[chunk], scratch)
            self._add_tiles(chunk, rows_ND, norms, scratch)
            if self._cancels(chunk, len(rows_ND)):
                self._shift_CD[chunk] += self._sum_CD[chunk] / np.float32(len(rows_ND))
                self._add_tiles(chunk, rows_ND, norms, scratch)
            bits = self._absmax_CD[chunk]
            highest = int(bits.max(initial=0))
            if highest >= self._infinite:
                self._nonfinite[chunk] = self._count_nonfinite(rows_ND)
            elif highest > self._high or int((bits - 1).min()) < self._low - 1:  # zeros wrap around to the top
                self._add_wide(chunk, rows_ND, norms)

    def _add_tiles(self, chunk: int, rows_ND: np.ndarray, norms: np.ndarray, scratch: Scratch) -> None:
        scratch.shift[:] = self._shift_CD[chunk]
        tile_rows = len(scratch.tile)
        group, tiles = 0, range(0, len(rows_ND), tile_rows)
        for tile, first in enumerate(tiles):
            part_ND = rows_ND[first : first + tile_rows]
            _absmax(part_ND, scratch, tile)
            x_ND = scratch.tile[: len(part_ND)]
            _widen(part_ND, x_ND)
            _square_norms(x_ND, norms[first : first + tile_rows])
            _subtract(x_ND, scratch.shift)
            _sum_groups(x_ND, scratch.sums[group:])
            np.square(x_ND, out=x_ND)
            group += _sum_groups(x_ND, scratch.squares[group:])
        np.sqrt(norms, out=norms)
        np.add.reduce(scratch.sums[:group], axis=0, out=self._sum_CD[chunk])
        np.add.reduce(scratch.squares[:group], axis=0, out=self._square_CD[chunk])
        np.maximum.reduce(scratch.maxima[: len(tiles)], axis=0, out=self._absmax_CD[chunk])
        np.right_shift(self._absmax_CD[chunk], 1, out=self._absmax_CD[chunk])

    def _cancels(self, chunk: int, count: int) -> bool:
        sum_D, square_D = self._sum_CD[chunk], self._square_CD[chunk]
        return bool((sum_D * sum_D * np.float32(MAX_CANCELLATION / count) > square_D * (MAX_CANCELLATION - 1)).any())

    def _count_nonfinite(self, rows_ND: np.ndarray) -> int:
        magnitudes = rows_ND.view(self._absmax_CD.dtype) << 1 >> 1
        return int(np.count_nonzero(magnitudes >= self._infinite))

    def _add_wide(self, chunk: int, rows_ND: np.ndarray, norms: np.ndarray) -> None:
        wide_ND = rows_ND.astype(np.float64)
        self._wide[chunk] = ColumnMoments.of(wide_ND)
        norms[:] = np.sqrt(np.einsum("nd,nd->n", wide_ND, wide_ND))

    def finish(self) -> SiteStatistics:
        """The whole shard, once every valid row was added."""
        chunks, width = self._sum_CD.shape
        mean, m2, absmax = (np.empty(width) for _ in range(3))
        step = max(1, MERGED_NUMBERS // chunks)
        for first in range(0, width, step):
            slab = slice(first, first + step)
            mean[slab], m2[slab] = self._merge(slab)
            absmax[slab] = self._absmax_CD[:, slab].max(axis=0).view(self._dtype)
        moments = ColumnMoments(count=self._valid_rows, mean=mean, m2=m2, absmax=absmax)
        return SiteStatistics(moments=moments, norms=self._norms, nonfinite=int(self._nonfinite.sum()))

    def _merge(self, slab: slice) -> tuple[np.ndarray, np.ndarray]:
        """Mean and m2 of some columns over all chunks, float64 (Chan, Golub and LeVeque 1979)."""
        weight_C1 = np.full((len(self._nonfinite), 1), float(self._chunk_rows))
        weight_C1[-1:] = self._valid_rows - self._chunk_rows * (len(weight_C1) - 1)
        with np.errstate(all="ignore"):
            offset_CD = self._sum_CD[:, slab] / weight_C1
            mean_CD = self._shift_CD[:, slab] + offset_CD
            m2_CD = np.maximum(self._square_CD[:, slab] - offset_CD * offset_CD * weight_C1, 0.0)
            for chunk, moments in self._wide.items():
                mean_CD[chunk], m2_CD[chunk] = moments.mean[slab], moments.m2[slab]
            # measured from the first chunk's mean, so that a constant column has no spread at all
            mean_CD -= (base := mean_CD[0].copy())
            mean = np.add.reduce(mean_CD * weight_C1, axis=0) / self._valid_rows
            mean_CD -= mean
            return base + mean, np.add.reduce(m2_CD + mean_CD * mean_CD * weight_C1, axis=0)


def _bits_of(dtype: np.dtype) -> np.dtype:
    return np.dtype(f"u{dtype.itemsize}")


def _tile_rows(chunk_rows: int, width: int) -> int:
    fitting = max(1, TILE_BYTES // (FLOAT32.itemsize * width))
    return int(min(chunk_rows, 1 << (fitting.bit_length() - 1)))


def _repeats(tile_rows: int, width: int) -> int:
    """Copies of the shift that stand side by side, so that one inner loop covers several rows."""
    wanted = -(-LOOP_LENGTH // width)
    return int(min(tile_rows, 1 << (wanted - 1).bit_length()))


def _subtract(x_ND: np.ndarray, shift_RD: np.ndarray) -> None:
    repeats = len(shift_RD)
    whole = len(x_ND) // repeats * repeats
    long = x_ND[:whole].reshape(-1, shift_RD.size)
    np.subtract(long, shift_RD.reshape(-1), out=long)
    if whole < len(x_ND):
        np.subtract(x_ND[whole:], shift_RD[0], out=x_ND[whole:])


def _widen(rows_ND: np.ndarray, out_ND: np.ndarray) -> None:
    """To float32, exactly. NumPy converts float16 one by one; moving its bits is four times as fast."""
    if rows_ND.dtype != np.float16:
        np.copyto(out_ND, rows_ND)
        return
    bits_ND = out_ND.view(np.int32)
    np.left_shift(rows_ND.view(np.int16), 13, out=bits_ND, dtype=np.int32)
    np.bitwise_and(bits_ND, np.int32(-0x70000001), out=bits_ND)  # clears the copies of the sign in the exponent
    np.multiply(out_ND, np.float32(2.0**112), out=out_ND)  # the two exponents' biases differ by 112


def _shift(rows_ND: np.ndarray, out_D: np.ndarray, scratch: Scratch) -> None:
    """A value near each column's mean; exactly the value of a constant column."""
    sample_ND = rows_ND[:: max(SHIFT_STRIDE, -(-len(rows_ND) // len(scratch.tile)))]
    x_ND = scratch.tile[: len(sample_ND)]
    _widen(np.ascontiguousarray(sample_ND), x_ND)
    out_D[:] = x_ND[0]
    np.subtract(x_ND, out_D, out=x_ND)
    out_D += np.add.reduce(x_ND, axis=0) / np.float32(len(x_ND))


def _absmax(rows_ND: np.ndarray, scratch: Scratch, tile: int) -> None:
    """Largest magnitude per column, as bits without the sign, one place to the left."""
    bits_ND = rows_ND.view(scratch.maxima.dtype)
    doubled_ND = scratch.tile.reshape(-1).view(scratch.maxima.dtype)[: bits_ND.size].reshape(bits_ND.shape)
    np.add(bits_ND, bits_ND, out=doubled_ND)
    np.maximum.reduce(doubled_ND, axis=0, out=scratch.maxima[tile])


def _square_norms(x_ND: np.ndarray, out_N: np.ndarray) -> None:
    np.vecdot(x_ND[:, :DOT_FEATURES], x_ND[:, :DOT_FEATURES], out=out_N)
    for first in range(DOT_FEATURES, x_ND.shape[1], DOT_FEATURES):
        part_ND = x_ND[:, first : first + DOT_FEATURES]
        out_N += np.vecdot(part_ND, part_ND)


def _sum_groups(x_ND: np.ndarray, out_GD: np.ndarray) -> int:
    """Sums over groups of rows, and their number; the last group may be short."""
    rows = min(GROUP_ROWS, len(x_ND))
    whole = len(x_ND) // rows
    np.add.reduce(x_ND[: whole * rows].reshape(whole, rows, -1), axis=1, out=out_GD[:whole])
    if whole * rows == len(x_ND):
        return whole
    np.add.reduce(x_ND[whole * rows :], axis=0, out=out_GD[whole])
    return whole + 1
