"""The failure policy as a table, and pools as arithmetic."""

from contextlib import nullcontext

import pytest

from lrh_ray.errors import ClusterError
from lrh_ray.runtime.cluster import Cluster, Node
from lrh_ray.runtime.config import PoolConfig, TrainConfig
from lrh_ray.runtime.policy import Decision, Failure, decide, decide_opening
from lrh_ray.runtime.reduce import group_size
from lrh_ray.runtime.sizing import require_room, resolve_pool


@pytest.mark.parametrize(
    ("failure", "first", "last"),
    [
        (Failure.WORKER_DIED, Decision.RETRY, Decision.QUARANTINE),
        (Failure.HUNG, Decision.RETRY, Decision.QUARANTINE),
        (Failure.DRAINED, Decision.REQUEUE, Decision.REQUEUE),
        (Failure.USER_ERROR, Decision.STOP, Decision.STOP),
        (Failure.OTHER_ERROR, Decision.RETRY, Decision.QUARANTINE),
    ],
)
def test_policy_of_blocks(failure, first, last):
    assert [decide(failure, attempt=attempt, attempts=3) for attempt in (1, 2, 3)] == [first, first, last]


@pytest.mark.parametrize(
    ("failure", "first", "last"),
    [
        (Failure.WORKER_DIED, Decision.RETRY, Decision.STOP),
        (Failure.HUNG, Decision.RETRY, Decision.STOP),
        (Failure.DRAINED, Decision.REQUEUE, Decision.REQUEUE),
        (Failure.USER_ERROR, Decision.STOP, Decision.STOP),
        (Failure.OTHER_ERROR, Decision.RETRY, Decision.STOP),
    ],
)
def test_policy_of_openings(failure, first, last):
    assert [decide_opening(failure, in_a_row=number, allowed=3) for number in (1, 2, 3)] == [first, first, last]


def test_every_failure_has_a_decision():
    for failure in Failure:
        assert isinstance(decide(failure, attempt=1, attempts=1), Decision)
        assert isinstance(decide_opening(failure, in_a_row=1, allowed=1), Decision)


@pytest.mark.parametrize(
    ("config", "cpus", "gpus", "expected"),
    [
        (PoolConfig(), 2, 0, (1, 2, 0)),
        (PoolConfig(replicas=2), 8, 0, (2, 4, 0)),
        (PoolConfig(), 64, 8, (8, 1, 1)),
        (PoolConfig(gpus=2), 64, 8, (4, 1, 2)),
        (PoolConfig(replicas=3, cpus=1.5, gpus=0), 8, 4, (3, 1.5, 0)),
    ],
)
def test_a_pool_is_sized_to_the_cluster(config, cpus, gpus, expected):
    size = resolve_pool(config, Cluster(address="x", cpus=cpus, gpus=gpus))
    assert (size.replicas, size.cpus, size.gpus) == expected


def nodes(*each):
    held = tuple(Node(name=f"n{i}", cpus=cpus, gpus=gpus) for i, (cpus, gpus) in enumerate(each))
    return Cluster(address="x", cpus=sum(n.cpus for n in held), gpus=sum(n.gpus for n in held), nodes=held)


@pytest.mark.parametrize(
    ("config", "cluster", "expected"),
    [
        (PoolConfig(), nodes((0, 0), (8, 0), (8, 0)), (2, 8, 0)),
        (PoolConfig(replicas=4), nodes((8, 0), (8, 0)), (4, 4, 0)),
        (PoolConfig(), nodes((4, 0), (64, 8), (64, 8)), (16, 1, 1)),
        (PoolConfig(gpus=4), nodes((64, 8), (64, 6)), (3, 1, 4)),
        (PoolConfig(replicas=9, gpus=1, when_short="wait"), nodes((64, 8)), (9, 1, 1)),
    ],
)
def test_a_replica_stands_on_one_node(config, cluster, expected):
    size = resolve_pool(config, cluster)
    assert (size.replicas, size.cpus, size.gpus) == expected


def test_a_replica_larger_than_any_node_is_refused_though_the_cluster_has_enough_in_all():
    with pytest.raises(ClusterError, match="hold 0 of them"):
        resolve_pool(PoolConfig(replicas=1, gpus=8), nodes((64, 4), (64, 4)))


def test_a_pool_that_cannot_fit_is_refused_with_the_settings_to_lower():
    with pytest.raises(ClusterError, match=r"pool\.replicas"):
        resolve_pool(PoolConfig(replicas=4, cpus=1), Cluster(address="x", cpus=2, gpus=0))


@pytest.mark.parametrize(
    ("config", "held"),
    [
        (TrainConfig(workers=4, gpus=4), True),
        (TrainConfig(workers=5, gpus=4), False),
        (TrainConfig(workers=1, gpus=9), False),
        (TrainConfig(workers=128, cpus=1), True),
        (TrainConfig(workers=129, cpus=1), False),
        (TrainConfig(workers=129, cpus=1, when_short="wait"), True),
    ],
)
def test_training_workers_that_would_wait_for_ever_are_refused(config, held):
    with nullcontext() if held else pytest.raises(ClusterError, match=r"Lower workers.*or let the run wait"):
        require_room(config, nodes((64, 8), (64, 8)).nodes)


@pytest.mark.parametrize("num_blocks", [1, 2, 7, 16, 1000, 20_000])
@pytest.mark.parametrize("num_cpus", [1, 2, 64, 4096])
def test_groups_are_powers_of_two_and_keep_every_cpu_busy(num_blocks, num_cpus):
    size = group_size(num_blocks, num_cpus)
    assert size & (size - 1) == 0
    assert num_blocks / size >= min(num_blocks, num_cpus)
