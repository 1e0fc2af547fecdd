"""Which rows of the epoch's one global sequence a rank gets, batch by batch.

`BatchDeal`: global batch b is rows [b * N, (b + 1) * N) of the sequence at any number of ranks, and rank r takes
[r * n // W, (r + 1) * n // W) of its n rows. Shares of one batch differ by at most one row. Every rank has the same
number of batches; the last, shorter one may leave a rank an empty share (`drop_last` leaves it out). The place in an
epoch is one number, the rows all ranks have consumed together, and says nothing about ranks: any world can go on.

`WindowDeal`: whole windows are dealt round, so that each rank reads only its own part of the store. It promises that
each row appears exactly once, and nothing about global batches. Ranks move at their own pace, so the place of a run is
the list of all ranks' places; `join_states` makes it, and another number of ranks can go on from there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np

from lrh_ray.errors import NotEnoughData

WINDOWS_PER_RANK = 4

Interval: TypeAlias = tuple[int, int]
"""Rows [start, stop) of the global sequence."""

Dealt: TypeAlias = tuple[int, tuple[int, ...]]
"""A finished deal of windows: the number of ranks, and the rows that each of them consumed."""


def share(num: int, rank: int, world: int) -> Interval:
    """The part of range(num) that a rank takes."""
    return rank * num // world, (rank + 1) * num // world


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchDeal:
    """Every rank takes its share of every global batch; a position counts global rows."""

    num_rows: int
    batch_size: int
    rank: int
    world: int
    drop_last: bool

    def windows(self, starts: np.ndarray, position: int) -> range:
        """The windows read from `position` on."""
        return range(int(np.searchsorted(starts, position, side="right")) - 1, len(starts) - 1)

    def batch(self, position: int) -> tuple[Interval, ...] | None:
        """Intervals of the global batch at `position` that are this rank's; None at the end of the epoch."""
        num = min(self.batch_size, self.num_rows - position)
        if num <= 0 or (self.drop_last and num < self.batch_size):
            return None
        first, last = share(num, self.rank, self.world)
        return ((position + first, position + last),)


@dataclass(frozen=True, kw_only=True)
class WindowDeal:
    """A rank takes whole windows; a position counts this rank's own rows. `segments` are what it was dealt."""

    segments: np.ndarray
    batch_size: int
    """Rows of this rank's batches."""
    drop_last: bool

    @cached_property
    def _ends(self) -> np.ndarray:
        """This rank's rows up to the end of each segment."""
        return np.cumsum(self.segments[:, 1] - self.segments[:, 0])

    @property
    def num_rows(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def windows(self, starts: np.ndarray, position: int) -> list[int]:
        left = self.segments[np.searchsorted(self._ends, position, side="right") :, 0]
        found: list[int] = (np.searchsorted(starts, left, side="right") - 1).tolist()
        return found

    def batch(self, position: int) -> tuple[Interval, ...] | None:
        num = min(self.batch_size, self.num_rows - position)
        if num <= 0 or (self.drop_last and num < self.batch_size):
            return None
        ends, found = self._ends, []
        while num:
            segment = int(np.searchsorted(ends, position, side="right"))
            start = int(self.segments[segment, 1] - (ends[segment] - position))
            taken = min(num, int(ends[segment]) - position)
            found.append((start, start + taken))
            position, num = position + taken, num - taken
        return tuple(found)


Deal: TypeAlias = BatchDeal | WindowDeal


def deal_windows(starts: np.ndarray, dealt: Sequence[Dealt], rank: int, world: int) -> np.ndarray:
    """[segments, 2] what a rank gets of the windows that earlier deals of this epoch left unread.

    Raises:
        NotEnoughData: Fewer than four windows a rank; the ranks would be far from equally long.
    """
    if len(starts) - 1 < WINDOWS_PER_RANK * world:
        raise NotEnoughData(
            f"deal='window' needs at least {WINDOWS_PER_RANK} windows a rank; this epoch has {len(starts) - 1} for "
            f"{world} ranks. Use deal='batch', or a smaller window_rows."
        )
    segments = np.stack([starts[:-1], starts[1:]], axis=1)
    for ranks, consumed in dealt:
        left = [_rest(segments[number::ranks], consumed[number]) for number in range(ranks)]
        segments = np.concatenate(left)
        segments = segments[np.argsort(segments[:, 0])]
    return segments[rank::world]


def _rest(segments: np.ndarray, consumed: int) -> np.ndarray:
    """What is left of a rank's segments after it consumed some rows."""
    ends = np.cumsum(segments[:, 1] - segments[:, 0])
    first = int(np.searchsorted(ends, consumed, side="right"))
    rest = segments[first:].copy()
    if len(rest):
        rest[0, 0] = rest[0, 1] - (ends[first] - consumed)
    return rest
