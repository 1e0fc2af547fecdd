"""A model replica on Ray: one placement group, one actor in each of its bundles, created and removed together.

    replica = Replica(7, task, shape, grace_seconds=20, answer=events.put)
    replica.greet()                     # an Answer from every member once the cluster has a place for them
    replica.open(); replica.process(block, attempt); replica.beat(); replica.drain(); replica.remove()

Every call returns at once; what comes back arrives as an `Answer` through the callable, from a thread of Ray. The group
is pending until nodes have room for it, which is the demand that an autoscaler sees. Heartbeats are asked for, and
answered by a second thread of the actor while the first one works: a process that is frozen, dead, cut off or holds
Python's lock does not answer.

What can go wrong: `ray.kill` leaves the placement group behind, and a removed group ends its actors only where their
node listens; so both are done, and a process that survives them is a zombie, which the store fences. A group that is
removed in the moment between Ray's preparing and committing its place leaves that place taken until the node restarts
(ray-project/ray#64693; seen with Ray 2.60): who removes many replicas removes those without a place first.
"""

import functools
import os
import signal
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import ray
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from lrh_ray.errors import AttemptSuperseded, EngineFailed, LrhError
from lrh_ray.records import Receipt
from lrh_ray.runtime.cluster import cause_of
from lrh_ray.runtime.drain import Drain
from lrh_ray.runtime.policy import Failure
from lrh_ray.runtime.tasks import BlockWorker, Seat, Shape, Task, open_worker

CONTROL = "control"  # the concurrency group whose thread answers while the main thread works
THREADS = "OMP_NUM_THREADS"
Question: TypeAlias = Literal["greet", "open", "beat", "process", "drain"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a member runs."""

    node: str
    address: str
    """Its host, and a port that was free a moment ago."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What one member of a replica said."""

    replica: int
    rank: int
    question: Question
    value: Any
    error: BaseException | None


class _Host:
    """The actor."""

    def __init__(self, task: Task, grace_seconds: float) -> None:
        self._task, self._drain = task, Drain(grace_seconds)
        self._worker: BlockWorker | None = None

    def greet(self) -> Place:
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        address = f"{ray.util.get_node_ip_address()}:{port}"
        return Place(node=ray.get_runtime_context().get_node_id(), address=address)

    def beat(self) -> bool:
        """True: the process was asked to leave."""
        return self._drain.asked

    def drain(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def open(self, seat: Seat) -> None:
        self._worker = open_worker(self._task, seat)

    def process(self, block: int, attempt: str) -> Receipt | None:
        """The receipt, or None if the block was given back."""
        worker = self._worker
        if worker is None:
            raise RuntimeError("a block came before the worker was opened")
        return self._drain.run(partial(worker.process, block, attempt))


@functools.cache
def _host_class() -> Any:
    remote: Any = ray.remote  # its signature does not name every option
    return remote(concurrency_groups={CONTROL: 1})(_Host)


def threads_of(bundle: Mapping[str, float]) -> str:
    """Threads of a member's numerical libraries: one for each of its CPUs, unless the user has set the variable.

    Ray itself sets the variable when a call begins and takes it away when that call ends. A call of the control thread
    that ends while `open` imports torch would leave the member with a thread for every core of the machine.
    """
    return os.environ.get(THREADS) or str(max(1, int(bundle.get("CPU", 0.0))))


class Replica:
    """The driver's side of one replica."""

    def __init__(
        self, number: int, task: Any, shape: Shape, *, grace_seconds: float, answer: Callable[[Answer], None]
    ) -> None:
        """Ask the cluster for a place; `task` is a reference that Ray resolves to the task."""
        self.number, self._answer = number, answer
        self.nodes: frozenset[str] = frozenset()
        self._rendezvous = ""
        self._pending: set[Future[Any]] = set()
        self._collected: dict[Question, dict[int, Any]] = {}
        self.group = placement_group([dict(bundle) for bundle in shape.bundles], strategy=shape.strategy)
        host = _host_class()
        self._members: list[Any] = [
            host.options(
                num_cpus=bundle.get("CPU", 0.0),
                num_gpus=bundle.get("GPU", 0.0),
                max_restarts=0,
                runtime_env={"env_vars": {THREADS: threads_of(bundle)}},
                scheduling_strategy=PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=rank),
            ).remote(task, grace_seconds)
            for rank, bundle in enumerate(shape.bundles)
        ]

    @property
    def size(self) -> int:
        return len(self._members)

    def greet(self) -> None:
        self._ask("greet", [member.greet.options(concurrency_group=CONTROL).remote() for member in self._members])

    def take_places(self, places: list[Place]) -> None:
        """Where the members run, by rank."""
        self.nodes = frozenset(place.node for place in places)
        self._rendezvous = places[0].address

    def open(self) -> None:
        seats = [Seat(rank=rank, size=self.size, rendezvous=self._rendezvous) for rank in range(self.size)]
        self._ask("open", [member.open.remote(seat) for member, seat in zip(self._members, seats, strict=True)])

    def process(self, block: int, attempt: str) -> None:
        self._ask("process", [member.process.remote(block, attempt) for member in self._members])

    def beat(self) -> None:
        """Ask every member whether it lives, unless the last question is still open."""
        if "beat" not in self._collected:
            self._ask("beat", [member.beat.options(concurrency_group=CONTROL).remote() for member in self._members])

    def drain(self) -> None:
        """Ask every member to leave, as SIGTERM would."""
        self._ask("drain", [member.drain.options(concurrency_group=CONTROL).remote() for member in self._members])

    def collect(self, answer: Answer) -> list[Any] | None:
        """All members' values by rank, when this answer was the last of its question."""
        values = self._collected.setdefault(answer.question, {})
        values[answer.rank] = answer.value
        if len(values) < self.size:
            return None
        del self._collected[answer.question]
        return [values[rank] for rank in range(self.size)]

    def has_place(self) -> bool:
        """Whether nodes hold room for all members, whose processes may not have started yet."""
        return bool(placement_group_table(self.group)["state"] == "CREATED")

    def remove(self) -> None:
        """Kill all members and free their place."""
        for member in self._members:
            ray.kill(member)
        remove_placement_group(self.group)

    def _ask(self, question: Question, references: list[Any]) -> None:
        self._collected[question] = {}
        for rank, reference in enumerate(references):
            future: Future[Any] = reference.future()
            self._pending.add(future)  # Ray forgets an answer whose future nobody holds
            future.add_done_callback(partial(self._arrived, question, rank))

    def _arrived(self, question: Question, rank: int, future: "Future[Any]") -> None:
        error = future.exception()
        value = future.result() if error is None else None
        self._answer(Answer(replica=self.number, rank=rank, question=question, value=value, error=error))
        self._pending.discard(future)


def failure_of(error: BaseException) -> tuple[Failure, BaseException]:
    """How an attempt ended that raised this on the driver, and what the worker itself raised."""
    if not isinstance(error, ray.exceptions.RayTaskError):
        return Failure.WORKER_DIED, error
    cause = cause_of(error)
    users = isinstance(cause, LrhError) and not isinstance(cause, AttemptSuperseded | EngineFailed)
    return (Failure.USER_ERROR if users else Failure.OTHER_ERROR), cause
