"""The verb `map`: independent blocks over a pool of actors that write their own output and return receipts.

    task = SomeBlockTask(...)                 # picklable: how to open a worker
    map_blocks(blocks, task, pool, cluster, on_receipt=print)

The driver hands out one block at a time per actor and holds nothing but receipts. Safety does not depend on it: a
worker commits through the store's put-if-absent, so a lost, repeated or zombie attempt changes nothing.

What can go wrong: an actor that dies is replaced and its block retried; a block that fails on every attempt is named in
`BlockFailed` after the others have finished; a user's mistake stops the run at once.
"""

import uuid
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import ray
from ray.actor import ActorHandle

from lrh_ray.errors import AttemptSuperseded, BlockFailed, ClusterError, LrhError
from lrh_ray.records import Receipt
from lrh_ray.runtime.cluster import Cluster, cause_of
from lrh_ray.runtime.config import PoolConfig
from lrh_ray.runtime.policy import Decision, Failure, decide

# A handle to an actor class that Ray makes at run time has no static type.
Host: TypeAlias = ActorHandle[Any]


@runtime_checkable
class BlockWorker(Protocol):
    """What runs inside an actor: opened once, then called for many blocks."""

    def process(self, block: int, attempt: str) -> Receipt: ...


@runtime_checkable
class BlockTask(Protocol):
    """A picklable recipe for a worker, and the words for a block in messages."""

    def open(self) -> BlockWorker: ...

    def describe(self, block: int) -> str: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolSize:
    """A pool that fits the cluster."""

    replicas: int
    cpus: float
    gpus: float


def resolve_pool(config: PoolConfig, cluster: Cluster) -> PoolSize:
    """Fill in what the configuration leaves open, and refuse what the cluster cannot hold.

    Raises:
        ClusterError: The replicas asked for need more than the cluster has.
    """
    gpus = config.gpus if config.gpus is not None else float(cluster.gpus >= 1)
    replicas = config.replicas or (max(1, int(cluster.gpus // gpus)) if gpus else 1)
    cpus = config.cpus or (1.0 if gpus else max(1.0, cluster.cpus // replicas))
    if replicas * cpus > cluster.cpus or replicas * gpus > cluster.gpus:
        raise ClusterError(
            f"{replicas} replicas of {cpus:g} CPUs and {gpus:g} GPUs need more than the cluster has "
            f"({cluster.cpus:g} CPUs, {cluster.gpus:g} GPUs). Lower pool.replicas, pool.cpus or pool.gpus."
        )
    return PoolSize(replicas=replicas, cpus=cpus, gpus=gpus)


class _Host:
    """The actor. It opens the task's worker with the first block, so that a failure to open arrives as that error."""

    def __init__(self, task: BlockTask) -> None:
        self._task = task
        self._worker: BlockWorker | None = None

    def process(self, block: int, attempt: str) -> Receipt:
        if self._worker is None:
            self._worker = self._task.open()
        return self._worker.process(block, attempt)


class _Pool:
    """Actors, the blocks they hold, and what to do when either fails."""

    def __init__(self, blocks: Iterable[int], task: BlockTask, size: PoolSize, attempts: int) -> None:
        self._task, self._size, self._attempts = task, size, attempts
        self._queue = deque(blocks)
        self._tries: dict[int, int] = {}
        self._running: dict[ray.ObjectRef[Receipt], tuple[int, Host]] = {}
        self._hosts: list[Host] = []
        self.poisoned: dict[int, BaseException] = {}
        self._run = uuid.uuid4().hex[:12]

    def start(self) -> None:
        for _ in range(min(self._size.replicas, len(self._queue))):
            self._assign(self._new_host())

    def _new_host(self) -> Host:
        remote: Any = ray.remote(_Host)
        host: Host = remote.options(num_cpus=self._size.cpus, num_gpus=self._size.gpus, max_restarts=0).remote(
            self._task
        )
        return host

    def _assign(self, host: Host) -> None:
        if not self._queue:
            ray.kill(host)
            return
        block = self._queue.popleft()
        self._tries[block] = self._tries.get(block, 0) + 1
        attempt = f"{self._run}{block:08x}{self._tries[block]:02x}"
        self._running[host.process.remote(block, attempt)] = block, host

    def wait(self) -> Receipt | None:
        """Wait for one attempt to end; its receipt, or None if it failed."""
        (done,), _ = ray.wait(list(self._running), num_returns=1)
        block, host = self._running.pop(done)
        try:
            receipt: Receipt = ray.get(done)
        except ray.exceptions.RayActorError as error:
            self._failed(block, Failure.WORKER_DIED, error)
            self._replace(host)
            return None
        except ray.exceptions.RayTaskError as error:
            cause = cause_of(error)
            users = isinstance(cause, LrhError) and not isinstance(cause, AttemptSuperseded)
            self._failed(block, Failure.USER_ERROR if users else Failure.OTHER_ERROR, cause)
            self._replace(host)
            return None
        self._assign(host)
        return receipt

    def _replace(self, host: Host) -> None:
        """A fresh worker for the next block, if there is one: what broke may have broken the process too."""
        ray.kill(host)
        if self._queue:
            self._assign(self._new_host())

    def _failed(self, block: int, failure: Failure, cause: BaseException) -> None:
        decision = decide(failure, attempt=self._tries[block], attempts=self._attempts)
        if decision is Decision.RETRY:
            self._queue.append(block)
        elif decision is Decision.QUARANTINE:
            self.poisoned[block] = cause
        else:
            raise cause

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def stop(self) -> None:
        for host in self._hosts:
            ray.kill(host)


def map_blocks(
    blocks: Iterable[int],
    task: BlockTask,
    pool: PoolConfig,
    cluster: Cluster,
    *,
    on_receipt: Callable[[Receipt], None] = lambda _: None,
) -> tuple[Receipt, ...]:
    """Process every block once on a pool of actors; receipts in the order of arrival.

    Raises:
        BlockFailed: One or more blocks failed on every attempt; all others are done.
        LrhError: A worker hit a mistake that retrying cannot mend.
    """
    workers = _Pool(blocks, task, resolve_pool(pool, cluster), pool.attempts)
    receipts = []
    try:
        workers.start()
        while workers.busy:
            receipt = workers.wait()
            if receipt is not None:
                receipts.append(receipt)
                on_receipt(receipt)
    finally:
        workers.stop()
    if workers.poisoned:
        raise BlockFailed(_describe_poison(workers.poisoned, task, pool.attempts))
    return tuple(receipts)


def _describe_poison(poisoned: dict[int, BaseException], task: BlockTask, attempts: int) -> str:
    block, cause = next(iter(poisoned.items()))
    more = f" (and {len(poisoned) - 1} more)" if len(poisoned) > 1 else ""
    reason = next(reversed(str(cause).strip().splitlines()), "no message")
    return (
        f"{task.describe(block)}{more} failed {attempts} times; the last cause was {type(cause).__name__}: "
        f"{reason}. The other blocks are committed; "
        f"mend the cause and repeat the same command."
    )
