"""Nodes that join, leave and see another disk, under a pool that works: facts as JSON.

    python -m lrh_ray.testing.cluster_lab FOLDER

A process of its own, because it starts a simulated cluster and changes its own view of the disk (root only).

    late_start     seconds from a node's registration to the first block that begins there
    after_drain    blocks that began on a node more than a moment after it was asked to leave (`ray drain-node`)
    begun_twice    blocks that began more than once in those two runs
    shared         None, or why a folder that all nodes see was refused
    local          why a folder that one node does not see was refused (None where only root could make such a node)
    late           why a run ended whose store was not seen by a node that joined it (None likewise)
"""

import argparse
import ctypes
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import _raylet
from ray.core.generated import autoscaler_pb2

from lrh_ray.errors import ClusterError
from lrh_ray.models.backend import Backend
from lrh_ray.models.checkpoints import Checkpoint
from lrh_ray.models.config import ModelConfig
from lrh_ray.records import Receipt
from lrh_ray.runtime.cluster import connected
from lrh_ray.runtime.config import PoolConfig
from lrh_ray.runtime.map import map_blocks
from lrh_ray.runtime.nonce import require_shared
from lrh_ray.store.plan import Plan
from lrh_ray.studies.replicas import ReplicaTask
from lrh_ray.testing.simulated import SimulatedCluster, simulated_cluster
from lrh_ray.testing.stores import make_store

NODE = {"cpus": 2, "gpus": 1}
BLOCKS = 60
SECONDS = 0.4
MOMENT = 4.0  # until the driver has looked at its nodes, and the block in hand has ended
NEW_NAMESPACE, PRIVATE, RECURSIVE = 0x00020000, 1 << 18, 1 << 14  # unshare(2), mount(2)


@dataclass(frozen=True, kw_only=True)
class TraceTask:
    """Leaves an empty file per attempt, named for the block, the node and the moment it began."""

    folder: Path

    def open(self) -> "TraceTask":
        return self

    def describe(self, block: int) -> str:
        return f"block {block}"

    def process(self, block: int, attempt: str) -> Receipt:
        node = ray.get_runtime_context().get_node_id()
        (self.folder / f"{block}.{node}.{time.time_ns()}").touch()
        time.sleep(SECONDS)
        return Receipt(block=block, attempt=attempt, rows=1, num_bytes=1, seconds=0.0, worker=node, committed=True)


def trace(folder: Path) -> list[tuple[int, str, float]]:
    """Block, node and moment of every attempt."""
    parts = [path.name.split(".") for path in folder.iterdir()]
    return sorted((int(block), node, int(moment) / 1e9) for block, node, moment in parts)


@contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Do it in a thread while the body runs."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def wait_for(folder: Path, count: int) -> None:
    while len(list(folder.iterdir())) < count:
        time.sleep(0.05)


def joining(cluster: SimulatedCluster, folder: Path) -> float:
    """Seconds until a node that joins a run in progress has its first block."""
    joined: list[tuple[str, float]] = []

    def join() -> None:
        wait_for(folder, 4)
        joined.append((cluster.join(**NODE).node_id, time.time()))

    with meanwhile(join), connected(cluster.address) as found:
        map_blocks(range(BLOCKS), TraceTask(folder=folder), PoolConfig(cpus=1), found)
    node, moment = joined[0]
    return round(min(began for _, where, began in trace(folder) if where == node) - moment, 1)


def draining(cluster: SimulatedCluster, folder: Path) -> int:
    """Blocks that began on a node although it was about to leave."""
    asked: list[tuple[str, float]] = []

    def drain() -> None:
        wait_for(folder, 8)
        node = cluster.workers[0].node_id
        compiled: Any = _raylet  # compiled modules without types
        records: Any = autoscaler_pb2
        reason = records.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        deadline = int((time.time() + 120) * 1000)
        compiled.GcsClient(address=cluster.address).drain_node(node, reason, "a test takes it away", deadline)
        asked.append((node, time.time()))

    with meanwhile(drain), connected(cluster.address) as found:
        map_blocks(range(BLOCKS), TraceTask(folder=folder), PoolConfig(cpus=1, gpus=1), found)
    node, moment = asked[0]
    return sum(where == node and began > moment + MOMENT for _, where, began in trace(folder))


def refusal(cluster: SimulatedCluster, folder: Path) -> str | None:
    """What `require_shared` says about a folder."""
    with connected(cluster.address) as found:
        try:
            require_shared(folder, found)
        except ClusterError as error:
            return str(error)
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class LookTask(ReplicaTask):
    """A replica that would open a model; here it only looks for the plan."""

    def open(self) -> Any:
        self.plan()
        return TraceTask(folder=Path(str(self.location)) / "seen")

    def worker(self, plan: Plan, backend: Backend) -> Any:
        raise NotImplementedError


def stop_at_blind_node(cluster: SimulatedCluster, store: Path) -> str | None:
    """What a run says that was started without asking the nodes, one of which does not see its store."""
    (store / "seen").mkdir()
    nowhere = Checkpoint(name="none", path=store)
    task = LookTask(location=store, checkpoint=nowhere, model=ModelConfig(name="none"))
    with connected(cluster.address) as found:
        try:
            map_blocks(range(BLOCKS), task, PoolConfig(cpus=1, gpus=1), found)
        except ClusterError as error:
            return str(error)
    return None


def join_blind(cluster: SimulatedCluster, folder: Path) -> None:
    """A node that sees an empty disk at `folder`: its processes inherit the view of the thread that starts them."""

    def join() -> None:
        libc: Any = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(NEW_NAMESPACE) or libc.mount(b"none", b"/", None, PRIVATE | RECURSIVE, None):
            raise OSError(ctypes.get_errno(), "no mount namespace of one's own")
        if libc.mount(b"none", os.fsencode(folder), b"tmpfs", 0, None):
            raise OSError(ctypes.get_errno(), "no mount")
        cluster.join(**NODE)

    with meanwhile(join):
        pass


def run(folder: Path) -> dict[str, Any]:
    """Every experiment, one after the other, on one cluster."""
    folders = {name: folder / name for name in ("joining", "draining", "place")}
    for place in folders.values():
        place.mkdir()
    make_store(folders["place"] / "store", [16] * 8)
    with simulated_cluster(nodes=1, **NODE) as cluster:
        late_start = joining(cluster, folders["joining"])
        shared = refusal(cluster, folders["place"])
        after_drain = draining(cluster, folders["draining"])
        local = late = None
        if os.geteuid() == 0:
            join_blind(cluster, folders["place"])
            local = refusal(cluster, folders["place"])
            late = stop_at_blind_node(cluster, folders["place"] / "store")
    begun = [Counter(block for block, _, _ in trace(folders[name])) for name in ("joining", "draining")]
    return {
        "late_start": late_start,
        "after_drain": after_drain,
        "begun_twice": sum(count > 1 for counts in begun for count in counts.values()),
        "blocks": [len(counts) for counts in begun],
        "shared": shared,
        "local": local,
        "late": late,
        "litter": [str(path) for path in (folders["place"] / "staging").rglob("*") if path.is_file()],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    sys.stdout.write(json.dumps(run(parser.parse_args().folder), indent=1) + "\n")


if __name__ == "__main__":
    main()
