"""Which latents a row is written with: the k largest of each row, or on average k of a batch; exactly.

    codes = TopK(k=32)(tiles, bias, num_rows, threads, shard)
    codes.value[n, :codes.count[n]], codes.index[n, :codes.count[n]]

Pre-activations come in tiles of rows, whose memory is used again for the next tile: at 65,536 latents they would be the
largest array by far.

BatchTopK (Bussmann et al. 2024, arXiv 2412.06410) keeps the N k largest of N rows. The bound that the last batch ended
with, lowered a little, leaves few candidates of this one, among which the exact ones are found. Where it leaves too
few, a bound that cannot fail is taken from the largest of each row, and the tiles are computed once more.

Only positive values are chosen, so that a row may have fewer than k.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch

from lrh_ray.analyses.sae.codes import Codes
from lrh_ray.analyses.sae.selection_kernels import above_bound, keep_of_batch, kth_largest, top_of_rows
from lrh_ray.analyses.sae.sharding import Shard
from lrh_ray.analyses.sae.tensor_codes import TensorCodes
from lrh_ray.compiled import in_parts
from lrh_ray.errors import ConfigError

PART_ROWS = 32
"""Rows that one thread takes at a time."""
SLACK = 0.9
"""Of the last batch's threshold: how low candidates of the next one begin."""
ROOM = 4
"""Candidates a row for which there is room at first, in multiples of k."""

Tiles: TypeAlias = Callable[[], Iterator[tuple[int, np.ndarray]]]
"""Begins anew at each call: the first row of a tile and its pre-activations [n, M], without bias."""


@runtime_checkable
class Selection(Protocol):
    """Chooses the codes of a batch; may keep what makes the next choice cheaper, never what changes it."""

    @property
    def k(self) -> int:
        """Codes of a row, or of a row on average."""

    def __call__(self, tiles: Tiles, bias: np.ndarray, num_rows: int, threads: Executor | None, shard: Shard) -> Codes:
        """Codes of this worker's rows and latents, of the choice among those of all workers."""

    def among(self, candidates: Codes, shard: Shard) -> Codes:
        """The same where each row has no other latents than its candidates, which are this worker's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TopK:
    """The k largest of each row (Gao et al. 2024, arXiv 2406.04093)."""

    k: int

    def __call__(self, tiles: Tiles, bias: np.ndarray, num_rows: int, threads: Executor | None, shard: Shard) -> Codes:
        """Choose; k of all M latents.

        Raises:
            ConfigError: k is not one of 1 ... M.
        """
        require_k(self.k, shard.num_latents)
        own = top_codes(tiles, bias, num_rows, min(self.k, len(bias)), threads)
        return own if shard.alone else self.among(own, shard)

    def among(self, candidates: Codes, shard: Shard) -> Codes:
        """Choose among candidates."""
        require_k(self.k, shard.num_latents)
        return largest_of_parts(TensorCodes.of(candidates), self.k, shard).codes()


@dataclass(kw_only=True, slots=True)
class BatchTopK:
    """The N k largest of a batch of N rows."""

    k: int
    threshold: float = field(default=np.inf, init=False)
    """The least value chosen from the last batch."""

    def __call__(self, tiles: Tiles, bias: np.ndarray, num_rows: int, threads: Executor | None, shard: Shard) -> Codes:
        """Choose.

        Raises:
            ConfigError: k is not one of 1 ... M.
        """
        require_k(self.k, shard.num_latents)
        found = _of_all(_candidates(tiles, bias, SLACK * self.threshold, self.k, threads), num_rows, shard)
        if len(found.value) < num_rows * shard.mesh.rows.world * self.k:
            bound = self._safe_bound(tiles, bias, num_rows, threads, shard)
            found = _of_all(_candidates(tiles, bias, bound, self.k, threads), num_rows, shard)
        return self._largest_of_all(found, shard)

    def among(self, candidates: Codes, shard: Shard) -> Codes:
        """Choose among candidates."""
        require_k(self.k, shard.num_latents)
        own = _Candidates.of(candidates.value, candidates.index)
        return self._largest_of_all(_of_all(own, len(candidates.count), shard), shard)

    def _largest_of_all(self, found: "_Candidates", shard: Shard) -> Codes:
        """Those of this worker's rows and latents, of the candidates of all workers."""
        codes, self.threshold = _largest(found, len(found.count) * self.k)
        return codes if shard.has_all else shard.kept(shard.own_rows(TensorCodes.of(codes))).codes()

    def _safe_bound(
        self, tiles: Tiles, bias: np.ndarray, num_rows: int, threads: Executor | None, shard: Shard
    ) -> float:
        """The N k-th largest of some of the values, which is at most that of all; 0 where there are not so many."""
        own = TensorCodes.of(top_codes(tiles, bias, num_rows, min(2 * self.k, len(bias)), threads))
        some = shard.codes_of_all_rows(shard.joined(own)).value.numpy()
        values, wanted = some[some > 0], len(some) * self.k
        return float(kth_largest(values, len(values), wanted)) if len(values) >= wanted else 0.0


def of_other_k(selection: Selection, k: int) -> Selection:
    """The same rule for another k, which has kept nothing yet."""
    return BatchTopK(k=k) if isinstance(selection, BatchTopK) else TopK(k=k)


def largest_of_parts(codes: TensorCodes, k: int, shard: Shard) -> TensorCodes:
    """Of the k largest of each row those of this worker's part, from what each part has found of these rows."""
    return shard.kept(shard.joined(codes).largest(k))


def top_codes(tiles: Tiles, bias: np.ndarray, num_rows: int, k: int, threads: Executor | None) -> Codes:
    """The k largest positive pre-activations of each row."""
    lanes = num_lanes(len(bias), k)
    codes = Codes(
        value=np.zeros((num_rows, k), bias.dtype),
        index=np.zeros((num_rows, k), np.int32),
        count=np.empty(num_rows, np.int64),
    )
    for begin, tile in tiles():

        def choose(first: int, last: int, begin: int = begin, tile: np.ndarray = tile) -> None:
            own = slice(begin + first, begin + last)
            top_of_rows(tile[first:last], bias, lanes, codes.value[own], codes.index[own], codes.count[own])

        for _ in in_parts(choose, len(tile), size=PART_ROWS, threads=threads):
            pass
    return codes


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Candidates:
    """Values [E] and latents [E], row by row, and how many of each row [N]."""

    value: np.ndarray
    index: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, value: np.ndarray, index: np.ndarray) -> "_Candidates":
        """The positive ones of values and latents [N, K]."""
        there = value > 0
        return cls(value=value[there], index=index[there], count=there.sum(axis=1))


def require_k(k: int, num_latents: int) -> None:
    """Refuse a k that cannot be.

    Raises:
        ConfigError: k is not one of 1 ... M.
    """
    if not 1 <= k <= num_latents:
        raise ConfigError(f"k is {k!r}; of {num_latents} latents 1 to {num_latents} can be chosen.")


def num_lanes(num_latents: int, k: int) -> int:
    """Lanes of a row: about as many as make the search among lanes as long as that in the k chosen ones."""
    balanced = 1 << max(0, round(float(np.log2(num_latents * k)) / 2))
    return min(num_latents, max(k, balanced))


def _candidates(tiles: Tiles, bias: np.ndarray, bound: float, k: int, threads: Executor | None) -> _Candidates:
    """All positive values of at least `bound`; none at all of an infinite one, without a product."""
    parts: list[_Candidates] = []
    lanes = num_lanes(len(bias), min(k, len(bias)))
    if np.isfinite(bound):
        for _, tile in tiles():

            def collect(first: int, last: int, tile: np.ndarray = tile) -> _Candidates:
                return _collected(tile[first:last], bias, lanes, bound, ROOM * k * (last - first))

            parts += in_parts(collect, len(tile), size=PART_ROWS, threads=threads)
    if not parts:
        return _Candidates(value=np.empty(0, bias.dtype), index=np.empty(0, np.int32), count=np.empty(0, np.int64))
    return _Candidates(
        value=np.concatenate([part.value for part in parts]),
        index=np.concatenate([part.index for part in parts]),
        count=np.concatenate([part.count for part in parts]),
    )


def _of_all(found: _Candidates, num_rows: int, shard: Shard) -> _Candidates:
    """The candidates of all workers, of all rows and under global numbers."""
    if shard.has_all:
        return found
    count = found.count if len(found.count) else np.zeros(num_rows, np.int64)
    width = max(1, int(count.max(initial=0)))
    inside = np.arange(width) < count[:, None]
    value, index = np.zeros(inside.shape, found.value.dtype), np.zeros(inside.shape, np.int32)
    value[inside], index[inside] = found.value, found.index
    own = TensorCodes(value=torch.from_numpy(value), index=torch.from_numpy(index))
    every = shard.codes_of_all_rows(shard.joined(own))
    return _Candidates.of(every.value.numpy(), every.index.numpy())


def _collected(pre: np.ndarray, bias: np.ndarray, lanes: int, bound: float, room: int) -> _Candidates:
    value, index, count = np.empty(room, bias.dtype), np.empty(room, np.int32), np.empty(len(pre), np.int64)
    size = above_bound(pre, bias, lanes, bias.dtype.type(bound), value, index, count)
    if size > room:
        return _collected(pre, bias, lanes, bound, size)
    return _Candidates(value=value[:size], index=index[:size], count=count)


def _largest(found: _Candidates, wanted: int) -> tuple[Codes, float]:
    """The `wanted` largest of the candidates, or all where there are fewer; and the least of them, 0 of none."""
    least, equals = 0.0, 0
    if len(found.value) > wanted:
        least = kth_largest(found.value.copy(), len(found.value), wanted)
        equals = wanted - int((found.value > least).sum())
    elif len(found.value):
        least, equals = found.value.min(), len(found.value)
    count, width = found.count.copy(), max(1, int(found.count.max(initial=0)))
    value, index = np.zeros((len(count), width), found.value.dtype), np.zeros((len(count), width), np.int32)
    keep_of_batch(found.value, found.index, count, least, equals, value, index)
    widest = max(1, int(count.max(initial=0)))
    codes = Codes(
        value=np.ascontiguousarray(value[:, :widest]), index=np.ascontiguousarray(index[:, :widest]), count=count
    )
    return codes, float(least)
