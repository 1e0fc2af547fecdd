"""Model replicas that work on the blocks of a store: opened from a plan, in one process or in several.

    task = replica_task(ExtractTask(location=location, checkpoint=checkpoint, model=config.model))
    map_blocks(blocks, task, config.pool, cluster)

A task says what the process that delivers rows does with them; where the transformers engine shares a model among
processes, the others only compute. Each opens the weights of its own node and compares them with the plan's.
"""

import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import cast

from lrh_ray.errors import StoreMissing
from lrh_ray.models.backend import Backend, open_backend
from lrh_ray.models.checkpoints import Checkpoint
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.sink import ChosenRows, Nowhere, RowSink
from lrh_ray.models.wanted import wanted_tokens
from lrh_ray.records import Plain, Receipt
from lrh_ray.runtime.nonce import unseen
from lrh_ray.runtime.sizing import PoolSize
from lrh_ray.runtime.tasks import BlockWorker, Seat, Shape
from lrh_ray.store.objects import Location, open_objects
from lrh_ray.store.parts import Part
from lrh_ray.store.plan import Plan, read_plan
from lrh_ray.store.seal import describe_rows
from lrh_ray.studies.weights import checkpoint_here


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplicaTask(ABC):
    """How a worker is opened: which store it is about, and the model."""

    location: Location
    checkpoint: Checkpoint
    """Where the driver found the weights; a node that has no such folder looks for them by name."""
    model: ModelConfig

    @abstractmethod
    def worker(self, plan: Plan, backend: Backend) -> BlockWorker:
        """What the process that gets rows does with a block."""

    def open(self) -> BlockWorker:
        plan = self.plan()
        return self.worker(plan, open_backend(self.weights(plan), self.model, plan.sites))

    def plan(self) -> Plan:
        """The store's plan, as this process's node sees it."""
        try:
            return read_plan(open_objects(self.location))
        except StoreMissing as error:
            raise unseen(self.location) from error

    def weights(self, plan: Plan) -> Checkpoint:
        """The planned weights, on the node of this process."""
        digest = cast(Mapping[str, Plain], plan.identity["model"])["digest"]
        return checkpoint_here(self.checkpoint, self.model, str(digest))

    def describe(self, block: int) -> str:
        return describe_rows(self.plan(), [block])


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedReplica:
    """How the processes of a replica are opened that hold one model between them; rank 0 gets the rows."""

    task: ReplicaTask

    def shape(self, size: PoolSize) -> Shape:
        count = self.task.model.tensor_parallel
        bundle = {"CPU": size.cpus / count} if not size.gpus else {"CPU": size.cpus / count, "GPU": size.gpus / count}
        return Shape(bundles=(bundle,) * count)

    def open_member(self, seat: Seat) -> BlockWorker:
        from lrh_ray.models.hf import TransformersBackend
        from lrh_ray.models.ranks import Rank

        plan = self.task.plan()
        rank = Rank(index=seat.rank, size=seat.size, address=seat.rendezvous)
        backend = TransformersBackend(self.task.weights(plan), self.task.model, plan.sites, rank)
        return self.task.worker(plan, backend) if seat.rank == 0 else SilentWorker(self.task.location, plan, backend)

    def describe(self, block: int) -> str:
        return self.task.describe(block)


def replica_task(task: ReplicaTask) -> ReplicaTask | SharedReplica:
    """`task`, for one process or for as many as share its model; a vLLM engine starts its own processes."""
    shared = task.model.engine == "transformers" and task.model.tensor_parallel > 1
    return SharedReplica(task=task) if shared else task


class SilentWorker:
    """A rank that computes its share of every block and gets no rows."""

    def __init__(self, location: Location, plan: Plan, backend: Backend) -> None:
        self._part = Part(objects=open_objects(location), plan=plan, commits={}, manifest=None)
        self._backend = backend

    def process(self, block: int, attempt: str) -> Receipt:
        forward_block(self._backend, self._part, block, Nowhere())
        return Receipt(
            block=block, attempt=attempt, rows=0, num_bytes=0, seconds=0.0, worker=socket.gethostname(), committed=False
        )


def forward_block(backend: Backend, part: Part, block: int, sink: RowSink) -> None:
    """Run the sequences of a block through a backend, and hand the rows of the plan to `sink`."""
    block_input = part.block_input(block)
    if block_input.ranges is None:
        backend.forward(block_input.tokens, sink)
    else:
        wanted = wanted_tokens(block_input.ranges, block_input.tokens.num_tokens)
        backend.forward(block_input.tokens, ChosenRows(sink, block_input.ranges), wanted)


def software_versions(backend: Backend) -> dict[str, str]:
    """What made a block's rows, for its commit record."""
    facts = {key: str(value) for key, value in asdict(backend.describe()).items()}
    return {**facts, "python": sys.version.split()[0], "lrh-ray": metadata.version("lrh-ray")}
