"""Where rows go: the one thing a backend asks of whoever stores them.

Rows leave a model site by site and sequence by sequence, in any order, so a sink takes rows at an offset. A list of
arrays is a sink; so is a shard writer.

    kept = Collected(widths={"resid.15": 576}, num_rows=40)
    backend.forward(tokens, kept)
    kept.rows["resid.15"]                # [40, 576] float32

What can go wrong: `rows` may be a view of memory that the next layer reuses. A sink that keeps it past `write`
must copy; one that writes it out need not.
"""

from collections.abc import Mapping
from typing import Protocol, final, runtime_checkable

import numpy as np

from lrh_ray.layouts import Rows
from lrh_ray.models.wanted import neighbours


@runtime_checkable
class RowSink(Protocol):
    """Receives the rows of one block."""

    def write(self, site: str, offset: int, rows: Rows) -> None:
        """Take rows `offset : offset + len(rows)` of the block at `site`, valid until this call returns.

        `rows` has the dtype of the model: float32, float16, or bfloat16 as `ml_dtypes.bfloat16`.
        """
        ...


@final
class Nowhere:
    """Takes every row and keeps none."""

    def write(self, site: str, offset: int, rows: Rows) -> None:
        """Let the rows go."""


@final
class Collected:
    """Keeps all rows in memory, as float32; those that never came are NaN."""

    def __init__(self, *, widths: Mapping[str, int], num_rows: int) -> None:
        self.rows = {site: np.full((num_rows, width), np.nan, np.float32) for site, width in widths.items()}

    def write(self, site: str, offset: int, rows: Rows) -> None:
        """Keep rows `offset : offset + len(rows)`."""
        self.rows[site][offset : offset + len(rows)] = rows


@final
class ChosenRows:
    """Hands on the rows that a store keeps, of all the tokens that a backend delivers.

    `ranges` is [rows, 2]: the tokens of the block that each row stands for, ascending. A row of one token is handed on
    as it is; a row of several is their mean, float32, once the last of them has come. Tokens may come in any pieces.
    """

    def __init__(self, sink: RowSink, ranges: np.ndarray) -> None:
        self._sink, self._ranges = sink, ranges
        self._pooled = bool((ranges[:, 1] - ranges[:, 0] > 1).any())
        self._sums: dict[str, np.ndarray] = {}
        self._missing: dict[str, np.ndarray] = {}

    def write(self, site: str, offset: int, rows: Rows) -> None:
        first, stop = self._ranges.T
        touched = np.flatnonzero((first < offset + len(rows)) & (stop > offset))
        if not len(touched):
            return
        if not self._pooled:
            picked = first[touched] - offset
            for run in neighbours(touched):
                self._sink.write(site, int(touched[run.start]), np.ascontiguousarray(rows[picked[run]]))
            return
        sums, missing = self._state(site, rows.shape[1])
        for row in touched:
            part = rows[max(first[row] - offset, 0) : stop[row] - offset].astype(np.float32)
            sums[row] += part.sum(axis=0, dtype=np.float64)
            missing[row] -= len(part)
            if not missing[row]:
                mean = sums[row] / (stop[row] - first[row])
                self._sink.write(site, int(row), mean.astype(np.float32)[None])

    def _state(self, site: str, width: int) -> tuple[np.ndarray, np.ndarray]:
        if site not in self._sums:
            self._sums[site] = np.zeros((len(self._ranges), width))
            self._missing[site] = self._ranges[:, 1] - self._ranges[:, 0]
        return self._sums[site], self._missing[site]
