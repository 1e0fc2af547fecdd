"""How many replicas a cluster holds, and what each takes: arithmetic on what the nodes have.

    resolve_pool(PoolConfig(), cluster)      # -> PoolSize(replicas=16, cpus=1.0, gpus=1.0)
    require_room(TrainConfig(), nodes)       # training workers that would wait for ever are refused

What can go wrong: the resources of a replica stand on one node (a group of several bundles is asked for by its task),
so a replica larger than every node is refused, whatever the cluster has in all. The same is true of a training worker.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lrh_ray.errors import ClusterError
from lrh_ray.runtime.cluster import Cluster, Node
from lrh_ray.runtime.config import PoolConfig, TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolSize:
    """A pool that fits the cluster."""

    replicas: int
    cpus: float
    gpus: float


def resolve_pool(config: PoolConfig, cluster: Cluster) -> PoolSize:
    """Fill in what the configuration leaves open, and refuse what the cluster cannot hold.

    Raises:
        ClusterError: The replicas asked for need more than the cluster has, and the run shall not wait for nodes.
    """
    nodes = cluster.nodes or (Node(name="", cpus=cluster.cpus, gpus=cluster.gpus),)
    gpus = config.gpus if config.gpus is not None else float(cluster.gpus >= 1)
    cpus = config.cpus or (1.0 if gpus else _equal_share(nodes, config.replicas))
    holds = sum(_fits(node, cpus, gpus) for node in nodes)
    replicas = config.replicas or max(1, holds)
    if replicas > holds and config.when_short == "refuse":
        raise ClusterError(
            f"{replicas} replicas {_too_large(nodes, cpus, gpus, holds)} Lower pool.replicas, pool.cpus or pool.gpus, "
            "or let the run wait for nodes (pool.when_short: wait)."
        )
    return PoolSize(replicas=replicas, cpus=cpus, gpus=gpus)


def require_room(config: TrainConfig, nodes: Sequence[Node]) -> None:
    """Refuse training workers that the nodes cannot hold all at once, unless they shall wait for nodes.

    Raises:
        ClusterError: The workers need more than the nodes have.
    """
    holds = sum(_fits(node, config.cpus, config.gpus) for node in nodes)
    if config.workers > holds and config.when_short == "refuse":
        raise ClusterError(
            f"{config.workers} training workers {_too_large(nodes, config.cpus, config.gpus, holds)} Lower workers, "
            "cpus or gpus of the training workers, or let the run wait for nodes (when_short: wait)."
        )


def _too_large(nodes: Sequence[Node], cpus: float, gpus: float, holds: int) -> str:
    has = f"{sum(node.cpus for node in nodes):g} CPUs, {sum(node.gpus for node in nodes):g} GPUs on {len(nodes)} nodes"
    return f"of {cpus:g} CPUs and {gpus:g} GPUs need more than the cluster has ({has}, which hold {holds} of them)."


def _equal_share(nodes: tuple[Node, ...], replicas: int | None) -> float:
    """CPUs of a replica such that `replicas` of them, by default one per node, share the nodes that have CPUs."""
    able = [node.cpus for node in nodes if node.cpus >= 1] or [1.0]
    per_node = -(-(replicas or 1) // len(able))
    return max(1.0, min(able) // per_node)


def _fits(node: Node, cpus: float, gpus: float) -> int:
    limits = [node.cpus // cpus] + ([node.gpus // gpus] if gpus else [])
    return int(min(limits))
