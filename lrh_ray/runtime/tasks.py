"""What the pool runs: a picklable task that opens a worker, and a worker that processes blocks.

A plain `BlockTask` is one process on one node. A `GroupTask` asks for several bundles of resources, one process in
each, created and removed together: every member is given every block, and rank 0's receipt counts. Members find each
other at `seat.rendezvous`, a free port of rank 0's node:

    torch.distributed.init_process_group("gloo", f"tcp://{seat.rendezvous}", rank=seat.rank, world_size=seat.size)

What can go wrong: a worker that keeps rows beyond the call of `process` breaks the bound on bytes in flight; one that
returns before its block is committed loses it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from lrh_ray.records import Receipt
from lrh_ray.runtime.sizing import PoolSize

Strategy: TypeAlias = Literal["STRICT_PACK", "PACK", "STRICT_SPREAD", "SPREAD"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """Resources of one replica: a bundle for each of its processes, and how bundles lie on nodes."""

    bundles: tuple[Mapping[str, float], ...]
    strategy: Strategy = "STRICT_PACK"


@dataclass(frozen=True, kw_only=True, slots=True)
class Seat:
    """The place of a process among those of its replica."""

    rank: int
    size: int
    rendezvous: str
    """`host:port` on rank 0's node, free a moment ago."""


@runtime_checkable
class BlockWorker(Protocol):
    """What runs inside an actor: opened once, then called for many blocks, one at a time."""

    def process(self, block: int, attempt: str) -> Receipt: ...


@runtime_checkable
class BlockTask(Protocol):
    """A picklable recipe for a worker, and the words for a block in messages."""

    def open(self) -> BlockWorker: ...

    def describe(self, block: int) -> str: ...


@runtime_checkable
class GroupTask(Protocol):
    """A task whose replica is several processes."""

    def shape(self, size: PoolSize) -> Shape: ...

    def open_member(self, seat: Seat) -> BlockWorker: ...

    def describe(self, block: int) -> str: ...


Task: TypeAlias = BlockTask | GroupTask


def shape_of(task: Task, size: PoolSize) -> Shape:
    """The resources of one replica of a task."""
    if isinstance(task, GroupTask):
        return task.shape(size)
    return Shape(bundles=({"CPU": size.cpus, "GPU": size.gpus} if size.gpus else {"CPU": size.cpus},))


def open_worker(task: Task, seat: Seat) -> BlockWorker:
    return task.open_member(seat) if isinstance(task, GroupTask) else task.open()
