"""The failure policy as a table, and pools as arithmetic."""

import pytest

from lrh_ray.errors import ClusterError
from lrh_ray.runtime.cluster import Cluster
from lrh_ray.runtime.config import PoolConfig
from lrh_ray.runtime.map import resolve_pool
from lrh_ray.runtime.policy import Decision, Failure, decide
from lrh_ray.runtime.reduce import group_size


@pytest.mark.parametrize(
    ("failure", "attempt", "decision"),
    [
        (Failure.WORKER_DIED, 1, Decision.RETRY),
        (Failure.WORKER_DIED, 2, Decision.RETRY),
        (Failure.WORKER_DIED, 3, Decision.QUARANTINE),
        (Failure.OTHER_ERROR, 1, Decision.RETRY),
        (Failure.OTHER_ERROR, 3, Decision.QUARANTINE),
        (Failure.USER_ERROR, 1, Decision.STOP),
        (Failure.USER_ERROR, 3, Decision.STOP),
    ],
)
def test_policy(failure, attempt, decision):
    assert decide(failure, attempt=attempt, attempts=3) is decision


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


def test_a_pool_that_cannot_fit_is_refused_with_the_settings_to_lower():
    with pytest.raises(ClusterError, match=r"pool\.replicas"):
        resolve_pool(PoolConfig(replicas=4, cpus=1), Cluster(address="x", cpus=2, gpus=0))


@pytest.mark.parametrize("num_blocks", [1, 2, 7, 16, 1000, 20_000])
@pytest.mark.parametrize("num_cpus", [1, 2, 64, 4096])
def test_groups_are_powers_of_two_and_keep_every_cpu_busy(num_blocks, num_cpus):
    size = group_size(num_blocks, num_cpus)
    assert size & (size - 1) == 0
    assert num_blocks / size >= min(num_blocks, num_cpus)
