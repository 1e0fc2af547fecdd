"""A cluster of several raylets on one machine, whose GPUs are only numbers: what a test of the pool runs on.

    with simulated_cluster(nodes=2, cpus=4, gpus=4) as cluster:
        with connected(cluster.address): ...
        cluster.kill(cluster.workers[0])      # SIGKILL of its raylet; what ran there dies with it
        cluster.join(cpus=4, gpus=4)

The head has CPUs for no replica, so that every replica stands on a node that may be killed. The token of the cluster
stands in the environment of this process and its children while the cluster lives.

What can go wrong: raylets start a few helper processes of about 100 MB each; two or three nodes are enough for a test.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator
from typing import Any

import psutil
import ray
from ray.cluster_utils import Cluster

from lrh_ray.runtime.cluster import TOKEN_BYTES, require_token_mode

STORE_BYTES = 80 * 1024 * 1024
TRIES = 4
# A raylet that was killed is missed after some seconds instead of half a minute.
HEALTH = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000, "health_check_failure_threshold": 5}
SETTINGS = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", "RAY_memory_monitor_refresh_ms": "0"}


class SimulatedCluster:
    """Raylets of this machine; the head stays, the others come and go."""

    def __init__(self) -> None:
        head = {"num_cpus": 0, "object_store_memory": STORE_BYTES, "include_dashboard": False}
        self._cluster: Any = Cluster(
            initialize_head=True, shutdown_at_exit=False, head_node_args={**head, "_system_config": HEALTH}
        )

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    @property
    def workers(self) -> tuple[Any, ...]:
        """The nodes that hold replicas; Ray's own objects."""
        return tuple(sorted(self._cluster.worker_nodes, key=lambda node: str(node.node_id)))

    def join(self, *, cpus: int, gpus: int) -> Any:
        """A new node; on a machine under load one may not come up in the time that Ray allows, so it is tried again."""
        for _ in range(TRIES - 1):
            with contextlib.suppress(Exception):
                return self._add(cpus, gpus)
        return self._add(cpus, gpus)

    def _add(self, cpus: int, gpus: int) -> Any:
        return self._cluster.add_node(num_cpus=cpus, num_gpus=gpus, object_store_memory=STORE_BYTES)

    def kill(self, node: Any) -> None:
        """SIGKILL the node's raylet, then clear away its helpers."""
        node.kill_raylet(check_alive=False)
        self._cluster.remove_node(node, allow_graceful=False)

    def stop(self) -> None:
        """End every process of the cluster, also those of nodes that never came up."""
        session = self._cluster.head_node.get_session_dir_path()
        self._cluster.shutdown()
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if session in " ".join(child.cmdline()):
                    child.kill()


@contextlib.contextmanager
def simulated_cluster(*, nodes: int, cpus: int, gpus: int) -> Iterator[SimulatedCluster]:
    """A head and `nodes` nodes with that many CPUs and GPUs each; everything ends with the context."""
    names = (*SETTINGS, "RAY_AUTH_TOKEN")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(SETTINGS, RAY_AUTH_TOKEN=secrets.token_hex(TOKEN_BYTES))
    require_token_mode()
    cluster = None
    try:
        cluster = SimulatedCluster()
        for _ in range(nodes):
            cluster.join(cpus=cpus, gpus=gpus)
        yield cluster
    finally:
        ray.shutdown()
        if cluster is not None:
            cluster.stop()
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
