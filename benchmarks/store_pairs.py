"""Ratios that survive a shared machine: ways of doing the same work, in alternation, inside one process.

    measure(Side(name="raw write", run=raw), Side(name="ShardWriter", run=ours), pairs=9, quiet=Quiet(patience=60))

Absolute times on a shared machine mean little: the next minute brings another clock rate and another neighbour. Both
sides of a pair run within a second of each other, so what disturbs one mostly disturbs the other, and the median of
their ratios stands. Before each pair we wait, within bounds, until everything outside this process uses less than half
a core; a pair during which it used more is repeated a few times. What remains noisy is counted in the record.

Load averages would be useless here: our own threads count in them.

`there_and_back` takes several ways in one round, forwards and then backwards: limit, a, b, b, a, limit. What drifts
evenly while a round lasts falls out of every ratio, and all ways see the same minutes.

What can go wrong: on a machine that never gets quiet the pairs are taken anyway, and `noisy_pairs` says how many.
"""

import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import psutil

OTHER_LOAD = 0.5
SAMPLE_SECONDS = 0.3
REPEATS = 3
CONFIDENCE = 0.95
MIN_SECONDS = 0.05  # CPU times are counted in hundredths of a second; shorter spans say nothing about load

Record = dict[str, Any]


def nothing() -> None:
    """The default for what happens around a timed run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One of the ways. Only `run` is timed."""

    name: str
    run: Callable[[], object]
    before: Callable[[], object] = nothing
    after: Callable[[], object] = nothing


class OtherLoad:
    """Cores used by everything outside this process since this object was made; time stolen by the host included."""

    def __init__(self) -> None:
        self._own = psutil.Process()
        self._start = self._now()

    def _now(self) -> tuple[float, float, float]:
        own, all_ = self._own.cpu_times(), psutil.cpu_times()
        busy = sum(all_) - all_.idle - getattr(all_, "iowait", 0.0) - getattr(all_, "guest", 0.0)
        busy -= getattr(all_, "guest_nice", 0.0)  # Linux counts guests in `user` and `nice` as well
        return time.perf_counter(), busy, own.user + own.system

    def cores(self) -> float:
        seconds, busy, own = (now - start for now, start in zip(self._now(), self._start, strict=True))
        return max(0.0, busy - own) / max(seconds, 1e-9)


@dataclass(kw_only=True, slots=True)
class Quiet:
    """Waits for a quiet machine: at most `patience` seconds each time, `allowance` for a measure, `budget` in all."""

    patience: float = 60.0
    allowance: float = 60.0
    budget: float = 360.0
    waited: float = field(default=0.0, init=False)
    _before: float = field(default=0.0, init=False)

    def begin(self) -> None:
        """A new measure: without an allowance of its own the first one would spend the whole budget."""
        self._before = self.waited

    @property
    def left(self) -> float:
        return max(0.0, min(self._before + self.allowance, self.budget) - self.waited)

    def wait(self) -> float:
        """Seconds waited beyond the first sample; without patience nothing is sampled."""
        started = time.perf_counter()
        limit = min(self.patience, self.left)
        if not self.patience:
            return 0.0
        while True:
            load = OtherLoad()
            time.sleep(SAMPLE_SECONDS)
            seconds = time.perf_counter() - started - SAMPLE_SECONDS
            if load.cores() <= OTHER_LOAD or seconds >= limit:
                self.waited += seconds
                return seconds


class Taken(NamedTuple):
    """One timed run."""

    seconds: float
    cpu_seconds: float  # of this process, all threads
    other_load: float  # cores


class Turn(NamedTuple):
    """One run of each side of an order."""

    taken: list[Taken]
    repeats: int

    @property
    def other_load(self) -> float:
        return max(one.other_load for one in self.taken)


def measure(limit: Side, ours: Side, *, pairs: int, quiet: Quiet, warm_up: bool = True) -> Record:
    """How fast `ours` is, as a fraction of `limit`: the median of seconds(limit) / seconds(ours) over pairs.

    Args:
        limit: What we compare with.
        ours: What we built.
        pairs: Number of pairs, taken as limit, ours, limit, ours, ...
        quiet: How to wait for a quiet machine.
        warm_up: Run both sides once before, untimed.
    """
    (record,) = _measure(limit, [ours], [0, 1], pairs, quiet, warm_up=warm_up)
    return record


def there_and_back(limit: Side, ways: Sequence[Side], *, rounds: int, quiet: Quiet) -> list[Record]:
    """A record for each way, as `measure` gives it, with CPU seconds beside the clock.

    Args:
        limit: What we compare with.
        ways: What we built, and its peers.
        rounds: Number of rounds: limit and ways in order, then all of them in reverse order.
        quiet: How to wait for a quiet machine.
    """
    there = list(range(1 + len(ways)))
    return _measure(limit, ways, [*there, *reversed(there)], rounds, quiet)


def _measure(
    limit: Side, ways: Sequence[Side], order: Sequence[int], turns: int, quiet: Quiet, *, warm_up: bool = True
) -> list[Record]:
    """Turns of the sides (limit first) in `order`; what a side took in a turn is summed."""
    sides = [limit, *ways]
    say(f"  {', '.join(way.name for way in ways)} / {limit.name}")
    if warm_up:
        for side in sides:
            _timed(side)
    quiet.begin()
    before = quiet.waited
    taken = [_quiet_turn([sides[i] for i in order], quiet) for _ in range(turns)]
    seconds, cpu_seconds = np.zeros((2, turns, len(sides)))
    for turn, (runs, _) in enumerate(taken):
        for i, run in zip(order, runs, strict=True):
            seconds[turn, i] += run.seconds
            cpu_seconds[turn, i] += run.cpu_seconds
    quietness = {
        "other_load": [round(turn.other_load, 2) for turn in taken],
        "noisy_pairs": sum(turn.other_load > OTHER_LOAD for turn in taken),
        "repeated_pairs": sum(turn.repeats for turn in taken),
        "waited_seconds": round(quiet.waited - before, 1),
    }
    records = []
    for way in range(1, len(sides)):
        ratios = seconds[:, 0] / seconds[:, way]
        low, high, coverage = median_interval(ratios)
        record: Record = {
            "limit": limit.name,
            "ours": sides[way].name,
            "ratio": round(float(np.median(ratios)), 4),
            "interval": [round(low, 4), round(high, 4)],
            "coverage": round(coverage, 4),
            "ratios": ratios.round(4).tolist(),
            "seconds": seconds[:, [0, way]].round(5).tolist(),
            **quietness,
        }
        if len(order) > len(sides):
            record |= _in_cpu_seconds(cpu_seconds[:, 0] / cpu_seconds[:, way])
        say(f"    {sides[way].name}: {record['ratio']:.2f} {record['interval']}")
        records.append(record)
    say(f"    noisy {quietness['noisy_pairs']} of {turns}")
    return records


def _in_cpu_seconds(ratios: np.ndarray) -> Record:
    low, high, _ = median_interval(ratios)
    return {"cpu_ratio": round(float(np.median(ratios)), 4), "cpu_interval": [round(low, 4), round(high, 4)]}


def _quiet_turn(sides: Sequence[Side], quiet: Quiet) -> Turn:
    """The first quiet attempt, the quietest if all were noisy."""
    best: Turn | None = None
    for repeat in range(1 + REPEATS):
        quiet.wait()
        turn = Turn([_timed(side) for side in sides], repeat)
        if best is None or turn.other_load < best.other_load:
            best = turn
        if turn.other_load <= OTHER_LOAD or not quiet.patience or not quiet.left:
            return turn
    assert best is not None
    return best._replace(repeats=REPEATS)


def _timed(side: Side) -> Taken:
    side.before()
    try:
        load, started, cpu_started = OtherLoad(), time.perf_counter(), time.process_time()
        side.run()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
        return Taken(seconds, cpu_seconds, load.cores() if seconds >= MIN_SECONDS else 0.0)
    finally:
        side.after()


def median_interval(values: Iterable[float]) -> tuple[float, float, float]:
    """The narrowest symmetric pair of order statistics that holds the true median with 95 %, and its coverage.

    Any distribution of independent values has P(X_(k) <= median <= X_(n+1-k)) = 1 - 2 P(Binomial(n, 1/2) < k). Fewer
    than six values cannot reach 95 %: then it is their range, and the coverage says what that is worth.
    """
    ordered = sorted(map(float, values))
    n = len(ordered)
    covered = [1 - 2 * sum(math.comb(n, i) for i in range(k)) / 2**n for k in range(n // 2 + 1)]
    rank = max((k for k in range(1, len(covered)) if covered[k] >= CONFIDENCE), default=1)
    return ordered[rank - 1], ordered[n - rank], max(0.0, covered[min(rank, len(covered) - 1)]) if n > 1 else 0.0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
