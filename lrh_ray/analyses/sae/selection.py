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

from lrh_ray.analyses.sae.codes import Codes
from lrh_ray.analyses.sae.selection_kernels import above_bound, keep_of_batch, kth_largest, top_of_rows
from lrh_ray.analyses.sae.sharding import Shard
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

    def __call__(self, tiles: Tiles, bias: np.ndarray, num_rows: int, threads: Executor | None, shard: Shard) -> Codes:
        """Codes of this worker's rows and latents, of the choice among those of all workers."""


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
        return own if shard.alone else shard.kept(top_of_joined(shard.joined(own), self.k))


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
        wanted = num_rows * shard.mesh.rows.world * self.k
        found = _of_all(_candidates(tiles, bias, SLACK * self.threshold, self.k, threads), num_rows, shard)
        if len(found.value) < wanted:
            bound = self._safe_bound(tiles, bias, num_rows, threads, shard)
            found = _of_all(_candidates(tiles, bias, bound, self.k, threads), num_rows, shard)
        codes, self.threshold = _largest(found, wanted)
        return shard.kept(shard.own_rows(codes))

    def _safe_bound(
        self, tiles: Tiles, bias: np.ndarray, num_rows: int, threads: Executor | None, shard: Shard
    ) -> float:
        """The N k-th largest of some of the values, which is at most that of all; 0 where there are not so many."""
        own = shard.joined(top_codes(tiles, bias, num_rows, min(2 * self.k, len(bias)), threads))
        some = shard.codes_of_all_rows(own)
        values, wanted = some.value[some.mask() & (some.value > 0)], len(some.count) * self.k
        return float(kth_largest(values, len(values), wanted)) if len(values) >= wanted else 0.0


def top_codes(tiles: Tiles, bias: np.ndarray, num_rows: int, k: int, threads: Executor | None) -> Codes:
    """The k largest positive pre-activations of each row."""
    lanes = num_lanes(len(bias), k)
    codes = Codes(
        value=np.empty((num_rows, k), bias.dtype),
        index=np.empty((num_rows, k), np.int32),
        count=np.empty(num_rows, np.int64),
    )
    for begin, tile in tiles():

        def choose(first: int, last: int, begin: int = begin, tile: np.ndarray = tile) -> None:
            own = slice(begin + first, begin + last)
            top_of_rows(tile[first:last], bias, lanes, codes.value[own], codes.index[own], codes.count[own])

        for _ in in_parts(choose, len(tile), size=PART_ROWS, threads=threads):
            pass
    return codes


def top_of_joined(codes: Codes, k: int) -> Codes:
    """The k largest of each row of what all workers found, under the same numbers of latents."""
    width = codes.value.shape[1]
    chosen = top_codes(
        lambda: iter([(0, codes.value)]), np.zeros(width, codes.value.dtype), len(codes.value), min(k, width), None
    )
    places = np.where(chosen.mask(), chosen.index, 0)
    return Codes(value=chosen.value, index=np.take_along_axis(codes.index, places, axis=1), count=chosen.count)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Candidates:
    """Values [E] and latents [E], row by row, and how many of each row [N]."""

    value: np.ndarray
    index: np.ndarray
    count: np.ndarray


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
    if shard.alone and shard.has_all_rows:
        return found
    count = found.count if len(found.count) else np.zeros(num_rows, np.int64)
    width = max(1, int(count.max(initial=0)))
    inside = np.arange(width) < count[:, None]
    value, index = np.full(inside.shape, -1, found.value.dtype), np.zeros(inside.shape, np.int32)
    value[inside], index[inside] = found.value, found.index
    every = shard.codes_of_all_rows(shard.joined(Codes(value=value, index=index, count=count)))
    there = every.mask() & (every.value > 0)
    return _Candidates(value=every.value[there], index=every.index[there], count=there.sum(axis=1))


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
    value, index = np.empty((len(count), width), found.value.dtype), np.empty((len(count), width), np.int32)
    keep_of_batch(found.value, found.index, count, least, equals, value, index)
    widest = max(1, int(count.max(initial=0)))
    codes = Codes(
        value=np.ascontiguousarray(value[:, :widest]), index=np.ascontiguousarray(index[:, :widest]), count=count
    )
    return codes, float(least)
