"""What a study reads, before it reads: its passes over the store with their cost, and afterwards what they took.

    ledger = Ledger([PlannedPass(name="moments", most=4, bytes_read=rows * 2 * D, flops=rows * D * D, state=8 * D * D)])
    ledger.require_memory(num_blocks, workers, "probe fewer concepts at once (probe.concepts)")
    total = ledger.reduce("moments", range(num_blocks), state_of_block)
    ledger.table()                         # of a result: planned beside found

Bytes and FLOP are those of one pass. A pass that a solver repeats until its certificate holds is planned with the most
it may take.

What can go wrong: seconds are those of the whole cluster, waiting included; a busy machine makes them longer.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from lrh_ray.analyses.state import State, num_bytes
from lrh_ray.errors import TooLarge
from lrh_ray.records import Table
from lrh_ray.runtime.reduce import reduce_blocks
from lrh_ray.studies.planning_machine import total_memory

S = TypeVar("S", bound=State)
COLUMNS = ("pass", "most", "taken", "GB a pass", "GFLOP a pass", "state MB, planned", "state MB", "seconds")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedPass:
    """One kind of pass: how often at most, and what one costs: bytes of activations read, FLOP, bytes of its state."""

    name: str
    most: int
    bytes_read: int
    flops: float
    state: int


@dataclass(slots=True)
class _Taken:
    passes: int = 0
    seconds: float = 0.0
    state: int = 0


@dataclass(frozen=True, slots=True)
class Ledger:
    """The passes of a study, planned; counts them as they are taken."""

    planned: Sequence[PlannedPass]
    _taken: dict[str, _Taken] = field(default_factory=dict, init=False)

    def require_memory(self, num_blocks: int, workers: float, remedy: str) -> None:
        """Refuse, before a row is read, what the workers of a machine like this one cannot hold.

        Merging neighbours first, a worker holds one state for each level of the tree over its blocks, the one in hand
        and its copy on the way to another worker.

        Raises:
            TooLarge: With what is needed, and `remedy`.
        """
        largest = max(self.planned, key=lambda one: one.state)
        held = math.ceil(math.log2(max(num_blocks, 2))) + 2
        needed, there = workers * held * largest.state, total_memory()
        if needed > there:
            raise TooLarge(
                f"The pass {largest.name!r} needs {needed / 1e9:,.1f} GB for its sums ({workers:g} workers, each "
                f"{held} states of {largest.state / 1e9:,.2f} GB); this machine has {there / 1e9:,.1f} GB. To need "
                f"less, {remedy}."
            )

    def reduce(self, name: str, blocks: Sequence[int], of: Callable[[int], S]) -> S:
        """`reduce_blocks`, counted under the name of a planned pass."""
        with self.taking(name) as taken:
            state = reduce_blocks(blocks, of)
            taken.state = max(taken.state, num_bytes(state))
        return state

    @contextmanager
    def taking(self, name: str) -> Iterator[_Taken]:
        """Count one pass, for work that is no `reduce`."""
        taken, started = self._taken.setdefault(name, _Taken()), time.monotonic()
        yield taken
        taken.passes += 1
        taken.seconds += time.monotonic() - started

    def table(self) -> Table:
        """Planned beside found."""
        return Table(
            name="passes",
            description="Readings of the store: at most so many were planned, so many taken; bytes of activations and "
            "products of one; the sums that workers exchange; seconds in all.",
            columns=COLUMNS,
            rows=tuple(self._row(one, self._taken.get(one.name, _Taken())) for one in self.planned),
        )

    @staticmethod
    def _row(one: PlannedPass, taken: _Taken) -> tuple[str | int | float, ...]:
        planned = (one.name, one.most, taken.passes, one.bytes_read / 1e9, one.flops / 1e9, one.state / 1e6)
        return (*planned, taken.state / 1e6, round(taken.seconds, 2))
