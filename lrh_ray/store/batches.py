"""Batches: rows gathered from windows into memory that is used again once the caller has let go of it.

Fresh memory costs more than the gathering itself (every page is first cleared by the kernel), and handing out the same
array twice would change a batch under the hands of a caller who kept it. So each array is LENT: it refers to a lease,
and so does every view of it, every slice, every torch tensor made from it. When the last of them is gone the lease dies
and the memory goes back to the `Outputs` for the next batch.
"""

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from lrh_ray.layouts import RowIndex
from lrh_ray.store.aligned import aligned_empty
from lrh_ray.store.deal import Interval
from lrh_ray.store.windows import WindowReader, take_rows

SPARES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """The same rows at every site asked for, and which rows of the store they are."""

    rows: Mapping[str, np.ndarray]
    """[rows, width] of each site; the caller's own."""
    index: RowIndex
    """[rows] int64, counted over all blocks, padding included."""


class Lease:
    """What lent arrays refer to; NumPy takes their memory from `__array_interface__` and keeps the lease alive."""

    __slots__ = ("__array_interface__", "__weakref__")

    def __init__(self, memory: np.ndarray) -> None:
        self.__array_interface__ = {**memory.__array_interface__}


class Outputs:
    """Memory for batches of several sites: lends arrays, and takes them back when nobody refers to them."""

    def __init__(self, widths: Mapping[str, int], dtype: np.dtype) -> None:
        self.dtype = dtype
        self._widths = dict(widths)
        self._spare: dict[str, list[np.ndarray]] = {site: [] for site in widths}

    def lend(self, site: str, num_rows: int) -> np.ndarray:
        """[num_rows, width] with arbitrary content."""
        width, spare = self._widths[site], self._spare[site]
        num_bytes = num_rows * width * self.dtype.itemsize
        memory = spare.pop() if spare else None
        if memory is None or memory.size < num_bytes:
            memory = aligned_empty((num_bytes,), np.dtype(np.uint8))
        lease = Lease(memory)
        weakref.finalize(lease, _take_back, spare, memory).atexit = False
        lent: np.ndarray[Any, Any] = np.asarray(lease)
        return lent[:num_bytes].view(self.dtype).reshape(num_rows, width)


def _take_back(spare: list[np.ndarray], memory: np.ndarray) -> None:
    if len(spare) < SPARES:
        spare.append(memory)


def gather(reader: WindowReader, starts: np.ndarray, intervals: Sequence[Interval], outputs: Outputs) -> Batch:
    """The rows of some intervals of the global sequence, in its order."""
    num_rows = sum(stop - start for start, stop in intervals)
    index = np.empty(num_rows, dtype=np.int64)
    rows = {site: outputs.lend(site, num_rows) for site in reader.sites}
    done = 0
    for start, stop in intervals:
        while start < stop:
            number = int(np.searchsorted(starts, start, side="right")) - 1
            window, first = reader.window(number), int(starts[number])
            picked = window.order[start - first : stop - first]
            here = slice(done, done + len(picked))
            np.take(window.slot.index, picked, out=index[here], mode="clip")
            for site, out in rows.items():
                _convert_rows(window.slot.rows[site], picked, out[here])
            start, done = start + len(picked), done + len(picked)
    return Batch(rows=rows, index=index)


def _convert_rows(rows: np.ndarray, picked: np.ndarray, out: np.ndarray) -> None:
    if rows.dtype == out.dtype:
        take_rows(rows, picked, out)
    elif rows.dtype == ml_dtypes.bfloat16 and out.dtype == np.float32:
        bits = np.take(rows.view(np.uint16), picked, axis=0, mode="clip")
        np.left_shift(bits, 16, out=out.view(np.uint32), dtype=np.uint32)  # a bfloat16 is the upper half of a float32
    else:
        out[:] = np.take(rows, picked, axis=0, mode="clip")
