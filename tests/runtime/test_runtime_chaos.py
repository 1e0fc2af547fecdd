"""Nodes that join, leave and die under a pool: on simulated clusters in processes of their own."""

import json
import os
import subprocess
import sys

import pytest

from lrh_ray.testing.chaos import read_diary, replicas_died
from lrh_ray.testing.chaos_task import write_diary


def laboratory(module: str, *arguments: str, seconds: int = 240) -> dict:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-m", f"lrh_ray.testing.{module}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=plain)
    assert done.stdout, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    return laboratory("cluster_lab", str(tmp_path_factory.mktemp("lab")))


def test_a_node_that_joins_takes_blocks_within_thirty_seconds(facts):
    assert facts["late_start"] < 30
    assert facts["blocks"] == [60, 60]


def test_a_node_about_to_leave_ends_its_block_and_gets_no_more(facts):
    assert facts["after_drain"] == 0
    assert facts["begun_twice"] == 0


def test_a_folder_that_all_nodes_see_is_accepted_and_left_clean(facts):
    assert facts["shared"] is None
    assert facts["litter"] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a node another view of the disk")
def test_a_folder_of_one_node_is_refused_with_the_remedy(facts):
    assert "1 of 3 nodes do not see" in facts["local"]
    assert "s3://" in facts["local"]
    assert "every node mounts" in facts["local"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a node another view of the disk")
def test_a_run_ends_with_the_remedy_when_a_replica_opens_where_its_store_is_not_seen(facts):
    assert "does not see the store" in facts["late"]
    assert "every node mounts" in facts["late"]


def test_waiting_replicas_bring_nodes_and_idle_nodes_go(tmp_path):
    """Ray's own autoscaler, from no node at all to two and back."""
    found = laboratory("autoscaler_lab", str(tmp_path))
    assert found["cpus_at_start"] == 0
    assert found["nodes"] == 2
    assert found["begun"] == found["done"] == 24
    assert found["idle"] is not None


def test_a_diary_is_read_while_it_is_written_and_after_a_writer_was_killed(tmp_path):
    write_diary(tmp_path, what="run")
    with (tmp_path / "diary.jsonl").open("a") as diary:
        diary.write('\n{"what": "beg')
    assert [event["what"] for event in read_diary(tmp_path)] == ["run"]
    write_diary(tmp_path, what="begin")
    assert [event["what"] for event in read_diary(tmp_path)] == ["run", "begin"]


def test_replicas_that_died_are_counted_from_the_diary():
    diary = [{"what": "run", "run": "a", "pid": 1}, {"what": "run", "run": "b", "pid": 2}]
    diary += [{"what": "open", "run": run, "pid": pid} for run, pid in [("a", 3), ("a", 4), ("b", 5), ("b", 6)]]
    diary += [{"what": "lost", "run": "b", "words": "replica 1 with block 4: hung: it was silent", "pid": 2}]
    diary += [{"what": "lost", "run": "b", "words": "replica 2: worker died: with its node", "pid": 2}]
    assert replicas_died(diary, ["a"]) == 2 + 1


def test_chaos_leaves_the_undisturbed_store(tmp_path):
    """Eight SIGKILLs of workers, raylets and the driver, hanging engines and zombies; sixty in `make prove-03-pool`."""
    verdict = laboratory("chaos", str(tmp_path), "--kills", "8", "--blocks", "40", "--seconds", "0.4", "--seed", "3")
    assert sum(verdict["kills"].values()) == 8
    assert verdict["roots_equal"]
    assert verdict["findings"] == 0
    assert verdict["redone"] <= verdict["replicas_died"]
    assert verdict["zombies_that_committed"] == 0
    assert verdict["processes_left"] == 0
