"""Ratios that survive a shared machine: two ways of doing the same work, in alternation, inside one process.

    measure(Side(name="raw write", run=raw), Side(name="ShardWriter", run=ours), pairs=9, quiet=Quiet(patience=60))

Absolute times on a shared machine mean little: the next minute brings another clock rate and another neighbour. Both
sides of a pair run within a second of each other, so what disturbs one mostly disturbs the other, and the median of
their ratios stands. Before each pair we wait, within bounds, until everything outside this process uses less than half
a core; a pair during which it used more is repeated a few times. What remains noisy is counted in the record.

Load averages would be useless here: our own threads count in them.

What can go wrong: on a machine that never gets quiet the pairs are taken anyway, and `noisy_pairs` says how many.
"""

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

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
    """One of the two ways. Only `run` is timed."""

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


def measure(limit: Side, ours: Side, *, pairs: int, quiet: Quiet, warm_up: bool = True) -> Record:
    """How fast `ours` is, as a fraction of `limit`: the median of seconds(limit) / seconds(ours) over pairs.

    Args:
        limit: What we compare with.
        ours: What we built.
        pairs: Number of pairs, taken as limit, ours, limit, ours, ...
        quiet: How to wait for a quiet machine.
        warm_up: Run both sides once before, untimed.
    """
    say(f"  {ours.name} / {limit.name}")
    if warm_up:
        _timed(limit)
        _timed(ours)
    quiet.begin()
    before = quiet.waited
    taken = [_quiet_pair(limit, ours, quiet) for _ in range(pairs)]
    ratios = [a / b for a, b, _, _ in taken]
    low, high, coverage = median_interval(ratios)
    record: Record = {
        "limit": limit.name,
        "ours": ours.name,
        "ratio": round(median(ratios), 4),
        "interval": [round(low, 4), round(high, 4)],
        "coverage": round(coverage, 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "seconds": [[round(a, 5), round(b, 5)] for a, b, _, _ in taken],
        "other_load": [round(load, 2) for _, _, load, _ in taken],
        "noisy_pairs": sum(load > OTHER_LOAD for _, _, load, _ in taken),
        "repeated_pairs": sum(repeats for _, _, _, repeats in taken),
        "waited_seconds": round(quiet.waited - before, 1),
    }
    say(f"    {record['ratio']:.2f} {record['interval']}, noisy {record['noisy_pairs']} of {pairs}")
    return record


def _quiet_pair(limit: Side, ours: Side, quiet: Quiet) -> tuple[float, float, float, int]:
    """Seconds of both, the other load of the louder one, repeats; the quietest attempt if all were noisy."""
    best: tuple[float, float, float, int] | None = None
    for repeat in range(1 + REPEATS):
        quiet.wait()
        (a, first), (b, second) = _timed(limit), _timed(ours)
        load = max(first, second)
        if best is None or load < best[2]:
            best = a, b, load, repeat
        if load <= OTHER_LOAD or not quiet.patience or not quiet.left:
            return a, b, load, repeat
    assert best is not None
    return *best[:3], REPEATS


def _timed(side: Side) -> tuple[float, float]:
    side.before()
    try:
        load, started = OtherLoad(), time.perf_counter()
        side.run()
        seconds = time.perf_counter() - started
        return seconds, load.cores() if seconds >= MIN_SECONDS else 0.0
    finally:
        side.after()


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The narrowest symmetric pair of order statistics that holds the true median with 95 %, and its coverage.

    Any distribution of independent values has P(X_(k) <= median <= X_(n+1-k)) = 1 - 2 P(Binomial(n, 1/2) < k). Fewer
    than six values cannot reach 95 %: then it is their range, and the coverage says what that is worth.
    """
    ordered, n = sorted(values), len(values)
    covered = [1 - 2 * sum(math.comb(n, i) for i in range(k)) / 2**n for k in range(n // 2 + 1)]
    rank = max((k for k in range(1, len(covered)) if covered[k] >= CONFIDENCE), default=1)
    return ordered[rank - 1], ordered[n - rank], max(0.0, covered[min(rank, len(covered) - 1)]) if n > 1 else 0.0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
