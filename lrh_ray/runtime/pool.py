"""The driver's loop: answers of replicas go into the lease controller, its actions come out and are done.

Replicas are asked for at once and used as they come: one that gets its place late (a node that joins) opens its model
and takes blocks, nobody waits for all of them. A replica that is lost, hung or asked to leave goes with its placement
group, and a new one is asked for while there are blocks for it; the others go on.

What can go wrong: SIGTERM to the driver ends the run in order: no new leases, the blocks in hand end or are given back
within the grace, all groups go, and `RunStopped` says that the same command resumes. A second SIGTERM ends it at once,
and so does `ray job stop` after three seconds (`RAY_JOB_STOP_WAIT_TIME_S`), which the store survives as any death.
"""

import contextlib
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

import ray

from lrh_ray.errors import BlockFailed, ClusterError, LrhError, RunStopped
from lrh_ray.records import Receipt
from lrh_ray.runtime.cluster import Cluster, draining_nodes, living_nodes
from lrh_ray.runtime.config import PoolConfig
from lrh_ray.runtime.leases import Action, Assign, Leases, Limits, Retire
from lrh_ray.runtime.policy import Failure
from lrh_ray.runtime.replicas import Answer, Replica, failure_of
from lrh_ray.runtime.sizing import resolve_pool
from lrh_ray.runtime.tasks import Task, shape_of

TICK = 0.5
LOOK_AROUND = 2.0  # seconds between looks at the cluster's nodes
LONGEST_BEAT = 5.0


class Pool:
    """Replicas, and the leases that say what they do."""

    def __init__(
        self,
        blocks: Iterable[int],
        task: Task,
        config: PoolConfig,
        cluster: Cluster,
        on_receipt: Callable[[Receipt], None],
        on_loss: Callable[[str], None],
    ) -> None:
        self._task, self._config, self._cluster = task, config, cluster
        self._on_receipt, self._on_loss = on_receipt, on_loss
        self._size = resolve_pool(config, cluster)
        self._target, self._shape = self._size.replicas, shape_of(task, self._size)
        self._leases = Leases(blocks, _limits(config, self._target))
        self._shared = ray.put(task)
        self._events: SimpleQueue[Answer | None] = SimpleQueue()
        self._replicas: dict[int, Replica] = {}
        self._placed: set[int] = set()
        self._leaving: set[int] = set()
        leases = config.leases  # who is asked to leave must be heard to say so before the grace is over
        self._beat = min(LONGEST_BEAT, leases.silence_seconds / 4, leases.grace_seconds / 4)
        self._told: set[int] = set()  # replicas that got the word to leave from us
        self._named = 0
        self._run = uuid.uuid4().hex[:12]
        self._stop_since: float | None = None
        self._placeless_since = self._next_tick = self._next_look = self._next_beat = time.monotonic()
        self.receipts: list[Receipt] = []

    def run(self) -> tuple[Receipt, ...]:
        """Work until every block is done or set aside.

        Raises:
            BlockFailed: Some blocks failed on every attempt.
            RunStopped: SIGTERM.
            ClusterError: No replica can be placed or opened.
            LrhError: What a worker met and retrying cannot mend.
        """
        try:
            with _at_sigterm(self._ask_to_stop):
                while not self._over:
                    self._tend(time.monotonic())
                    self._take_next()
        finally:
            self._remove_all()
        if self._leases.outstanding:
            raise RunStopped(
                f"The run was asked to end (SIGTERM) with {self._leases.outstanding} blocks to do. What is committed "
                f"stays; the same command resumes."
            )
        if self._leases.poisoned:
            raise BlockFailed(_describe_poison(self._leases.poisoned, self._task, self._config.attempts))
        return tuple(self.receipts)

    @property
    def _over(self) -> bool:
        if self._leases.finished:
            return True
        grace = self._config.leases.grace_seconds
        return self._stop_since is not None and time.monotonic() - self._stop_since > grace

    def _ask_to_stop(self) -> None:
        self._stop_since = time.monotonic()
        self._events.put(None)

    def _take_next(self) -> None:
        with contextlib.suppress(Empty):
            answer = self._events.get(timeout=max(0.0, self._next_tick - time.monotonic()))
            if answer is not None:
                self._take(answer, time.monotonic())

    def _tend(self, now: float) -> None:
        """What is done from time to time, whatever the replicas say."""
        if self._stop_since is not None:
            self._leases.stop()
            self._tell_to_leave(self._replicas)
        if now < self._next_tick:
            return
        self._listen(now)
        self._next_tick = now + TICK
        self._act(self._leases.tick(now))
        if now >= self._next_look:
            self._next_look = now + LOOK_AROUND
            self._look_around(now)
        if now >= self._next_beat:
            self._next_beat = now + self._beat
            for number in self._placed:
                self._replicas[number].beat()
        self._grow()
        self._refuse_to_wait_forever(now)

    def _listen(self, now: float) -> None:
        """Hear what was said already, before anybody is called silent; a driver that was away blames itself."""
        while not self._events.empty():
            self._take_next()
        if now - self._next_tick > LONGEST_BEAT:
            for number in self._placed:
                self._leases.heard(number, now)

    def _grow(self) -> None:
        """Ask for the replicas that are missing, while there are blocks for them."""
        if self._stop_since is not None:
            return
        while len(self._replicas) - len(self._leaving) < min(self._target, self._leases.outstanding):
            replica = Replica(
                self._named,
                self._shared,
                self._shape,
                grace_seconds=self._config.leases.grace_seconds,
                answer=self._events.put,
            )
            self._named += 1
            self._replicas[replica.number] = replica
            replica.greet()

    def _look_around(self, now: float) -> None:
        """Nodes that joined, and nodes that are about to leave."""
        if self._config.replicas is None:
            nodes = living_nodes()
            totals = {"cpus": sum(node.cpus for node in nodes), "gpus": sum(node.gpus for node in nodes)}
            fixed = PoolConfig(cpus=self._size.cpus, gpus=self._size.gpus)
            cluster = Cluster(address=self._cluster.address, nodes=nodes, **totals)
            with contextlib.suppress(ClusterError):  # nodes may be gone for a while
                self._target = max(self._target, resolve_pool(fixed, cluster).replicas)
        for node, deadline in draining_nodes().items():
            theirs = [number for number in self._placed if node in self._replicas[number].nodes]
            for number in theirs:
                self._leave(number, now)
            if deadline is not None and deadline - time.time() < self._config.leases.grace_seconds + LOOK_AROUND:
                self._tell_to_leave(theirs)

    def _leave(self, number: int, now: float) -> None:
        """Lease nothing more to a replica; it goes when its block ends."""
        if number not in self._leaving:
            self._leaving.add(number)
            self._act(self._leases.drain(number, now))

    def _tell_to_leave(self, numbers: Iterable[int]) -> None:
        """Have replicas end or give back their blocks within the grace."""
        for number in [number for number in numbers if number in self._replicas and number not in self._told]:
            self._told.add(number)
            self._replicas[number].drain()

    def _refuse_to_wait_forever(self, now: float) -> None:
        if self._placed:
            self._placeless_since = now
        waiting = now - self._placeless_since
        if waiting > self._config.leases.waiting_seconds:
            raise ClusterError(
                f"No replica got a place for {waiting:.0f} seconds; each needs {self._shape.bundles}. Free resources, "
                f"add nodes, ask for less (pool.cpus, pool.gpus), or wait longer (pool.leases.waiting_seconds)."
            )

    def _take(self, answer: Answer, now: float) -> None:
        replica = self._replicas.get(answer.replica)
        if replica is None or (answer.error is not None and answer.question == "drain"):
            return
        if answer.error is not None:
            self._lose(replica, *failure_of(answer.error), now)
        elif answer.question == "process" and answer.value is None:
            self._lose(replica, Failure.DRAINED, InterruptedError("the block was given back"), now)
        elif (values := replica.collect(answer)) is not None:
            self._take_all(replica, answer, values, now)

    def _take_all(self, replica: Replica, answer: Answer, values: list[Any], now: float) -> None:
        """Every member of a replica has answered."""
        number = replica.number
        if answer.question == "greet":
            replica.take_places(values)
            self._placed.add(number)
            self._act(self._leases.placed(number, now))
            replica.open()
        elif answer.question == "open":
            self._act(self._leases.ready(number, now))
        elif answer.question == "beat":
            self._act(self._leases.heard(number, now))
            if any(values):
                self._leave(number, now)
        elif answer.question == "process":
            self._act(self._leases.done(number, now))
            self.receipts.append(values[0])
            self._on_receipt(values[0])

    def _lose(self, replica: Replica, failure: Failure, cause: BaseException, now: float) -> None:
        number = replica.number
        if number in self._leaving | self._told and failure is Failure.WORKER_DIED:
            failure = Failure.DRAINED  # it left without a word
        lose = self._leases.lost if number in self._placed else self._leases.never_placed
        self._act(lose(number, failure, cause, now))
        self._grow()

    def _act(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            if isinstance(action, Assign):
                name = f"{self._run}{action.block:08x}{action.attempt:02x}"
                self._replicas[action.replica].process(action.block, name)
            elif isinstance(action, Retire):
                self._tell_loss(action)
                self._remove(action.replica)
            elif action.opening and not isinstance(action.cause, LrhError):
                raise ClusterError(
                    f"No model replica could be opened; the last cause was {type(action.cause).__name__}: "
                    f"{_last_line(action.cause)}. Mend it and repeat the same command."
                ) from action.cause
            else:
                raise action.cause

    def _tell_loss(self, retired: Retire) -> None:
        held = "" if retired.block is None else f" with {self._task.describe(retired.block)}"
        how = retired.failure.name.lower().replace("_", " ")
        self._on_loss(f"replica {retired.replica}{held}: {how}: {_last_line(retired.cause)}")

    def _remove(self, number: int) -> None:
        for known in (self._placed, self._leaving, self._told):
            known.discard(number)
        self._replicas.pop(number).remove()

    def _remove_all(self) -> None:
        """Those without a place first: a place that comes free must not be prepared for a group that is about to go."""
        for number in sorted(self._replicas, key=lambda number: self._replicas[number].has_place()):
            self._remove(number)


def _limits(config: PoolConfig, replicas: int) -> Limits:
    leases = config.leases
    return Limits(
        attempts=config.attempts,
        openings=config.attempts * replicas,
        silence=leases.silence_seconds,
        opening=leases.opening_seconds,
        first_deadline=leases.first_deadline_seconds,
        shortest_deadline=leases.shortest_deadline_seconds,
        deadline_factor=leases.deadline_factor,
    )


@contextlib.contextmanager
def _at_sigterm(call: Callable[[], None]) -> Iterator[None]:
    """Call at the first SIGTERM; the second one does what it did before. Only a main thread can listen."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def asked(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, before)
        call()

    before = signal.signal(signal.SIGTERM, asked)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _describe_poison(poisoned: dict[int, BaseException], task: Task, attempts: int) -> str:
    block, cause = next(iter(poisoned.items()))
    more = f" (and {len(poisoned) - 1} more)" if len(poisoned) > 1 else ""
    return (
        f"{task.describe(block)}{more} failed {attempts} times; the last cause was {type(cause).__name__}: "
        f"{_last_line(cause)}. The other blocks are committed; mend the cause and repeat the same command."
    )


def _last_line(cause: BaseException) -> str:
    return next(reversed(str(cause).strip().splitlines()), "no message")
