"""The verbs on a real cluster: any assignment gives one answer, a dying worker costs its block, poison is named."""

import os
import subprocess
import sys

import pytest
import ray

from lrh_ray.analyses.state import merge_tree
from lrh_ray.errors import BlockFailed, NotEnoughData, StoreFull
from lrh_ray.runtime.config import PoolConfig
from lrh_ray.runtime.map import map_blocks
from lrh_ray.runtime.reduce import reduce_blocks, sample
from lrh_ray.testing.workers import MisbehavingTask, refuse, square, state_of

POOL = PoolConfig(replicas=2, cpus=1)


@pytest.mark.parametrize("num_blocks", [1, 5, 16])
def test_reduce_equals_the_tree_bit_for_bit(cluster, num_blocks):
    expected = merge_tree([state_of(block) for block in range(num_blocks)])
    assert reduce_blocks(range(num_blocks), state_of).value == expected.value


def test_an_error_of_a_worker_arrives_as_itself(cluster):
    with pytest.raises(NotEnoughData, match=r"block \d is empty"):
        reduce_blocks([0, 1], refuse)


def test_sample_keeps_the_order_of_items(cluster):
    assert sample([3, 1, 2], square) == [9, 1, 4]


def test_map_processes_every_block_once(cluster, tmp_path):
    seen = []
    receipts = map_blocks(
        range(9), MisbehavingTask(folder=tmp_path), POOL, cluster, on_receipt=lambda done: seen.append(done.block)
    )
    assert sorted(done.block for done in receipts) == list(range(9)) == sorted(seen)
    assert len(list(tmp_path.glob("[0-9]*"))) == len(list(tmp_path.glob("done-*"))) == 9


def test_a_killed_worker_costs_its_block_and_nothing_else(cluster, tmp_path):
    receipts = map_blocks(range(6), MisbehavingTask(folder=tmp_path, kind="dies"), POOL, cluster)
    assert sorted(done.block for done in receipts) == list(range(6))
    tries = {block: len(list(tmp_path.glob(f"{block}.*"))) for block in range(6)}
    assert tries == {0: 1, 1: 1, 2: 1, 3: 2, 4: 1, 5: 1}


@pytest.mark.parametrize("task", [{"kind": "poison"}, {"kind": "dies", "deaths": 99}])
def test_a_poison_block_is_named_after_the_others_are_done(cluster, tmp_path, task):
    seen = []
    with pytest.raises(BlockFailed, match=r"block 3 \(rows 30\.\.39\) failed 3 times"):
        map_blocks(
            range(6),
            MisbehavingTask(folder=tmp_path, **task),
            POOL,
            cluster,
            on_receipt=lambda done: seen.append(done.block),
        )
    assert sorted(seen) == [0, 1, 2, 4, 5]
    assert len(list(tmp_path.glob("3.*"))) == 3


def test_a_mistake_of_the_user_stops_the_run_at_once(cluster, tmp_path):
    with pytest.raises(StoreFull, match="No space left"):
        map_blocks(
            [3, *range(4, 40)], MisbehavingTask(folder=tmp_path, kind="user"), PoolConfig(replicas=1, cpus=1), cluster
        )
    assert len(list(tmp_path.glob("3.*"))) == 1


JOIN = """
import logging, sys
import ray
try:
    ray.init(address=sys.argv[1], logging_level=logging.CRITICAL, log_to_driver=False)
except BaseException as error:
    print("refused", type(error).__name__)
else:
    print("joined", len(ray.nodes()))
"""


def test_the_cluster_answers_the_network_only_with_its_token(cluster):
    """Ray listens on the machine's outer address whatever it is told; only the token keeps strangers out."""
    address = ray.get_runtime_context().gcs_address
    assert not address.startswith("127.")
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    right = os.environ["RAY_AUTH_TOKEN"]
    environments = {
        "right": plain | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": right},
        "none": plain,
        "wrong": plain | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * len(right)},
    }
    strangers = {
        name: subprocess.Popen([sys.executable, "-c", JOIN, address], env=env, stdout=subprocess.PIPE, text=True)
        for name, env in environments.items()
    }
    answers = {name: stranger.communicate(timeout=120)[0].split()[0] for name, stranger in strangers.items()}
    assert answers == {"right": "joined", "none": "refused", "wrong": "refused"}
