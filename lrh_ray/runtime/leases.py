"""Who holds which block: the lease controller, without Ray, without a clock, without input or output.

    leases = Leases(range(100), Limits(...))
    leases.placed(0, now)                # the processes of replica 0 run
    leases.ready(0, now)                 # -> (Assign(replica=0, block=0, attempt=1),)
    leases.done(0, now)                  # -> (Assign(replica=0, block=1, attempt=1),)
    leases.lost(0, Failure.WORKER_DIED, error, now)    # -> (Retire(replica=0, ...), Assign(...) to another one)

Time is passed in; events go in, actions come out, and somebody else acts on them. A replica holds one block at most, so
what a lost replica costs is one block. A replica is hung when it is silent for too long, or holds its block beyond the
deadline, which follows the durations seen. All limits are common to all replicas, so the oldest of each kind is the
first to fall due, and every event takes constant time: a queue and ordered dictionaries are enough.

What can go wrong: safety does not rest here. A replica that was given up may live on and commit its block; the store
takes the first commit and refuses the second.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import TypeAlias

from lrh_ray.runtime.policy import Decision, Failure, decide, decide_opening

WINDOW = 101  # of the latest durations whose median sets the deadline
ENOUGH = 3  # durations before their median says anything


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """When to give up, in attempts and in seconds."""

    attempts: int
    openings: int
    """Failed openings in a row after which no replica will ever open."""
    silence: float
    opening: float
    first_deadline: float
    shortest_deadline: float
    deadline_factor: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """A block in the hands of a replica."""

    block: int
    attempt: int
    since: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Assign:
    """Give the block to the replica."""

    replica: int
    block: int
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Retire:
    """Kill the replica and free its place; a new one comes while there is work."""

    replica: int
    failure: Failure
    block: int | None
    """What it had in hand."""
    cause: BaseException


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """End the run with this cause."""

    cause: BaseException
    opening: bool
    """True: replicas could not be opened. False: a block met an error that only the user can mend."""


Action: TypeAlias = Assign | Retire | Stop


class Leases:
    """Blocks to do, blocks in hand, and the replicas that hold them."""

    def __init__(self, blocks: Iterable[int], limits: Limits) -> None:
        self._limits = limits
        self._queue = deque(blocks)
        self._tries: dict[int, int] = {}  # by block; every one has a name of its own
        self._excused: dict[int, int] = {}  # by block: tries that do not count
        self._held: OrderedDict[int, Lease] = OrderedDict()  # by replica, oldest first
        self._opening: OrderedDict[int, float] = OrderedDict()  # by replica, oldest first: since when
        self._heard: OrderedDict[int, float] = OrderedDict()  # by replica, the longest silent first
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._draining: set[int] = set()
        self._durations: deque[float] = deque(maxlen=WINDOW)
        self._failed_openings = 0
        self._stopped = False
        self.poisoned: dict[int, BaseException] = {}

    @property
    def outstanding(self) -> int:
        """Blocks that are neither done nor set aside."""
        return len(self._queue) + len(self._held)

    @property
    def finished(self) -> bool:
        return not self._held and (self._stopped or not self._queue)

    @property
    def deadline(self) -> float:
        """Seconds that a block may take, from what is known now."""
        if len(self._durations) < ENOUGH:
            return max(self._limits.first_deadline, self._limits.shortest_deadline)
        return max(self._limits.shortest_deadline, self._limits.deadline_factor * median(self._durations))

    def placed(self, replica: int, now: float) -> tuple[Action, ...]:
        """The processes of a replica run; it opens its model, and answers heartbeats from now on."""
        self._heard[replica] = self._opening[replica] = now
        return ()

    def ready(self, replica: int, now: float) -> tuple[Action, ...]:
        """A replica has opened its model."""
        if self._opening.pop(replica, None) is None:
            return ()
        self._failed_openings = 0
        return self._rest(replica, now)

    def heard(self, replica: int, now: float) -> tuple[Action, ...]:
        """A replica answered a heartbeat."""
        if replica in self._heard:
            self._heard[replica] = now
            self._heard.move_to_end(replica)
        return ()

    def done(self, replica: int, now: float) -> tuple[Action, ...]:
        """A replica has committed its block, or found it committed."""
        lease = self._held.pop(replica, None)
        if lease is None:
            return ()
        self._durations.append(now - lease.since)
        return self._rest(replica, now)

    def drain(self, replica: int, now: float) -> tuple[Action, ...]:
        """A replica is asked to leave: it takes no more blocks."""
        self._draining.add(replica)
        if replica in self._held:
            return ()
        return self.lost(replica, Failure.DRAINED, InterruptedError("asked to leave"), now)

    def lost(self, replica: int, failure: Failure, cause: BaseException, now: float) -> tuple[Action, ...]:
        """A replica is gone or must go, with or without a block in hand; unknown replicas are no news."""
        if self._heard.pop(replica, None) is None:
            return ()
        lease, opening = self._held.pop(replica, None), self._opening.pop(replica, None)
        self._idle.pop(replica, None)
        self._draining.discard(replica)
        block = None if lease is None else lease.block
        actions: tuple[Action, ...] = (Retire(replica=replica, failure=failure, block=block, cause=cause),)
        if lease is not None:
            actions += self._judge(lease, failure, cause)
        elif opening is not None:
            actions += self._judge_opening(failure, cause)
        return actions + self._assign(now)

    def never_placed(self, replica: int, failure: Failure, cause: BaseException, now: float) -> tuple[Action, ...]:
        """The processes of a replica died before they ran."""
        return self.placed(replica, now) + self.lost(replica, failure, cause, now)

    def tick(self, now: float) -> tuple[Action, ...]:
        """Give up the replicas that are silent, or late."""
        actions: list[Action] = []
        while (late := self._late(now)) is not None:
            replica, reason = late
            actions += self.lost(replica, Failure.HUNG, TimeoutError(reason), now)
        return tuple(actions)

    def stop(self) -> None:
        """Lease nothing more; blocks in hand may still end."""
        self._stopped = True

    def _late(self, now: float) -> tuple[int, str] | None:
        """The first replica that fell due, and why."""
        for replica, heard in self._heard.items():
            if now - heard > self._limits.silence:
                return replica, f"the replica was silent for {now - heard:.0f} seconds"
            break
        for replica, since in self._opening.items():
            if now - since > self._limits.opening:
                return replica, f"the model was not open after {now - since:.0f} seconds"
            break
        for replica, lease in self._held.items():
            if now - lease.since > self.deadline:
                return replica, f"the block was not done after {now - lease.since:.0f} seconds"
            break
        return None

    def _rest(self, replica: int, now: float) -> tuple[Action, ...]:
        """A replica has nothing in hand."""
        if replica in self._draining:
            return self.lost(replica, Failure.DRAINED, InterruptedError("asked to leave"), now)
        self._idle[replica] = None
        return self._assign(now)

    def _assign(self, now: float) -> tuple[Action, ...]:
        actions: list[Action] = []
        while self._idle and self._queue and not self._stopped:
            (replica, _), block = self._idle.popitem(last=False), self._queue.popleft()
            attempt = self._tries[block] = self._tries.get(block, 0) + 1
            self._held[replica] = Lease(block=block, attempt=attempt, since=now)
            actions.append(Assign(replica=replica, block=block, attempt=attempt))
        return tuple(actions)

    def _judge(self, lease: Lease, failure: Failure, cause: BaseException) -> tuple[Action, ...]:
        decision = decide(
            failure, attempt=lease.attempt - self._excused.get(lease.block, 0), attempts=self._limits.attempts
        )
        if decision is Decision.STOP:
            self.stop()
            return (Stop(cause=cause, opening=False),)
        if decision is Decision.QUARANTINE:
            self.poisoned[lease.block] = cause
            return ()
        if decision is Decision.REQUEUE:
            self._excused[lease.block] = self._excused.get(lease.block, 0) + 1
        self._queue.append(lease.block)
        return ()

    def _judge_opening(self, failure: Failure, cause: BaseException) -> tuple[Action, ...]:
        self._failed_openings += failure is not Failure.DRAINED
        decision = decide_opening(failure, in_a_row=self._failed_openings, allowed=self._limits.openings)
        if decision is not Decision.STOP:
            return ()
        self.stop()
        return (Stop(cause=cause, opening=True),)
