"""A thousand simulated replicas and the real lease controller in one process: its speed, its memory, its laws.

    python -m lrh_ray.testing.lease_lab --replicas 1000 --blocks 20000

Replicas are entries of a heap of future events; time is the heap's. Each takes a random while for a block, answers
heartbeats, and dies, hangs or drains with given chances. After every event the laws are checked by a shadow that knows
nothing of the controller's insides: a block is in one hand at most, nothing is done twice, nobody who left gets work.
"""

import argparse
import heapq
import json
import random
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field

from lrh_ray.runtime.leases import Action, Assign, Leases, Limits, Retire, Stop
from lrh_ray.runtime.policy import Failure
from lrh_ray.testing.resident import peak_bytes

LIMITS = Limits(
    attempts=3,
    openings=1_000_000,
    silence=60.0,
    opening=600.0,
    first_deadline=600.0,
    shortest_deadline=60.0,
    deadline_factor=10.0,
)
BEAT = 15.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Chances:
    """Of what befalls a replica while it has a block."""

    dies: float = 0.0
    hangs: float = 0.0
    stalls: float = 0.0
    """Answers heartbeats and never ends its block."""
    drains: float = 0.0
    poison: frozenset[int] = frozenset()
    """Blocks that kill whoever holds them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaseFigures:
    """What a simulation measured."""

    replicas: int
    blocks: int
    leases: int
    done: int
    poisoned: int
    given_up: dict[str, int]
    simulated_seconds: float
    seconds: float
    leases_per_second: float
    peak_bytes: int
    """Resident memory of the whole process at its peak."""


@dataclass(kw_only=True, slots=True)
class Simulation:
    """Replicas as events of a heap, and a shadow of what the controller must hold to."""

    leases: Leases
    chances: Chances
    rng: random.Random
    heap: list[tuple[float, int, str, int, int]] = field(default_factory=list)
    serial: int = 0
    named: int = 0
    holds: dict[int, tuple[int, int]] = field(default_factory=dict)  # replica -> block, serial of the lease
    gone: set[int] = field(default_factory=set)
    frozen: set[int] = field(default_factory=set)
    asked_to_leave: set[int] = field(default_factory=set)
    done: Counter[int] = field(default_factory=Counter)
    begun: Counter[int] = field(default_factory=Counter)
    retired: Counter[str] = field(default_factory=Counter)
    stopped: list[BaseException] = field(default_factory=list)

    def later(self, when: float, kind: str, replica: int, lease: int = 0) -> None:
        self.serial += 1
        heapq.heappush(self.heap, (when, self.serial, kind, replica, lease))

    def join(self, now: float) -> None:
        """A new replica has a place; it is open soon."""
        self.act(self.leases.placed(self.named, now), now)
        self.later(now + self.rng.uniform(1, 20), "ready", self.named)
        self.later(now + BEAT, "beat", self.named)
        self.named += 1

    def step(self) -> float:
        """One event; the time it happens."""
        now, _, kind, replica, lease = heapq.heappop(self.heap)
        if kind == "tick":
            self.act(self.leases.tick(now), now)
            self.later(now + 1.0, "tick", -1)
        elif replica not in self.gone:
            self._happen(kind, replica, lease, now)
        return now

    def _happen(self, kind: str, replica: int, lease: int, now: float) -> None:
        if kind == "ready":
            self.act(self.leases.ready(replica, now), now)
        elif kind == "beat" and replica not in self.frozen:
            self.act(self.leases.heard(replica, now), now)
            self.later(now + BEAT, "beat", replica)
        elif kind == "drain":
            self.asked_to_leave.add(replica)
            self.act(self.leases.drain(replica, now), now)
        elif kind in ("done", "dies") and self.holds.get(replica, (0, -1))[1] == lease:
            block, _ = self.holds.pop(replica)
            if kind == "done":
                self.done[block] += 1
                self.act(self.leases.done(replica, now), now)
            else:
                self.act(self.leases.lost(replica, Failure.WORKER_DIED, RuntimeError("died"), now), now)

    def act(self, actions: tuple[Action, ...], now: float) -> None:
        for action in actions:
            if isinstance(action, Assign):
                self._assign(action, now)
            elif isinstance(action, Retire):
                self.gone.add(action.replica)
                self.holds.pop(action.replica, None)
                self.retired[action.failure.name] += 1
                if not self.leases.finished:
                    self.join(now)
            elif isinstance(action, Stop):
                self.stopped.append(action.cause)

    def _assign(self, action: Assign, now: float) -> None:
        replica, block = action.replica, action.block
        if replica in self.holds or replica in self.gone or replica in self.asked_to_leave:
            raise AssertionError(f"replica {replica} got block {block} and could not take it")
        if self.done[block] or any(block == held for held, _ in self.holds.values()):
            raise AssertionError(f"block {block} is done or in another hand")
        self.begun[block] += 1
        if action.attempt != self.begun[block]:
            raise AssertionError(f"attempt {action.attempt} at block {block} has the name of another one")
        self.serial += 1
        self.holds[replica] = block, self.serial
        self._fate(replica, block, self.serial, now)

    def _fate(self, replica: int, block: int, lease: int, now: float) -> None:
        end, roll, chances = now + self.rng.uniform(0.5, 1.5), self.rng.random(), self.chances
        if block in chances.poison or roll < chances.dies:
            self.later(end, "dies", replica, lease)
        elif roll < chances.dies + chances.hangs:
            self.frozen.add(replica)
        elif roll >= chances.dies + chances.hangs + chances.stalls:
            self.later(end, "done", replica, lease)
        if self.rng.random() < chances.drains:
            self.later(self.rng.uniform(now, end), "drain", replica)


def simulate(*, replicas: int, blocks: int, chances: Chances | None = None, seed: int = 0) -> Simulation:
    """Run until every block is done or set aside; raises `AssertionError` where a law is broken."""
    world = Simulation(
        leases=Leases(range(blocks), LIMITS),
        chances=chances or Chances(),
        rng=random.Random(seed),  # noqa: S311  # repeatable, not secret
    )
    for _ in range(replicas):
        world.join(0.0)
    world.later(1.0, "tick", -1)
    while not world.leases.finished:
        world.step()
    return world


def measure(*, replicas: int, blocks: int, seed: int = 0) -> LeaseFigures:
    """Speed and memory with no-op replicas of which a few die and hang; the shadow's own work is in the time."""
    started = time.perf_counter()
    world = simulate(replicas=replicas, blocks=blocks, chances=Chances(dies=0.001, hangs=0.0005), seed=seed)
    seconds, leases = time.perf_counter() - started, world.begun.total()
    return LeaseFigures(
        replicas=replicas,
        blocks=blocks,
        leases=leases,
        done=len(world.done),
        poisoned=len(world.leases.poisoned),
        given_up=dict(world.retired),
        simulated_seconds=round(world.heap[0][0], 1),
        seconds=round(seconds, 3),
        leases_per_second=round(leases / seconds, 1),
        peak_bytes=peak_bytes(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, default=1000)
    parser.add_argument("--blocks", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    figures = measure(replicas=options.replicas, blocks=options.blocks, seed=options.seed)
    sys.stdout.write(json.dumps(asdict(figures), indent=1) + "\n")


if __name__ == "__main__":
    main()
