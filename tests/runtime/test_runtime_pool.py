"""The pool on a real cluster: what hangs is replaced, who is asked to leave does so in order, no group stays behind."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from ray.util import placement_group_table, remove_placement_group

from lrh_ray.errors import ClusterError
from lrh_ray.runtime.config import LeaseConfig, PoolConfig
from lrh_ray.runtime.map import map_blocks
from lrh_ray.store.reader import open_store
from lrh_ray.testing.chaos import calm_root, read_diary
from lrh_ray.testing.stores import make_store
from lrh_ray.testing.workers import BAD_BLOCK, MisbehavingTask, PairTask, ThreadsTask

QUICK = LeaseConfig(silence_seconds=3, shortest_deadline_seconds=4, first_deadline_seconds=4, grace_seconds=4)
POOL = PoolConfig(replicas=2, cpus=1, leases=QUICK)


def tries(folder: Path) -> dict[int, int]:
    names = [path.name for path in folder.glob("[0-9]*")]
    return {block: sum(name.startswith(f"{block}.") for name in names) for block in range(8)}


def groups_left() -> list[str]:
    return [group["state"] for group in placement_group_table().values() if group["state"] != "REMOVED"]


def pid_of(path: Path) -> int:
    return int(path.read_text())


def gone(pid: int) -> bool:
    """Whether the process has ended; workers take a moment."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("kind", ["gil", "stop", "sleep"])
def test_an_engine_that_hangs_is_replaced_with_its_group_while_the_other_goes_on(cluster, tmp_path, kind):
    said = []
    receipts = map_blocks(range(8), MisbehavingTask(folder=tmp_path, kind=kind), POOL, cluster, on_loss=said.append)
    assert sorted(done.block for done in receipts) == list(range(8))
    assert tries(tmp_path) == {block: 1 + (block == BAD_BLOCK) for block in range(8)}
    assert len(said) == 1
    assert f"block {BAD_BLOCK} (rows 30..39): hung" in said[0]
    first, second = sorted(tmp_path.glob(f"{BAD_BLOCK}.*"))
    assert gone(pid_of(first))
    others_while_it_hung = [p for p in tmp_path.glob("done-*") if p.stat().st_mtime < second.stat().st_mtime]
    assert len(others_while_it_hung) >= 6
    assert not groups_left()


def test_a_worker_has_as_many_threads_as_cpus_from_its_first_moment(cluster, tmp_path, monkeypatch):
    """Ray's own setting lasts for one call, and the end of a heartbeat takes it from the call beside it."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    map_blocks([0], ThreadsTask(folder=tmp_path), PoolConfig(replicas=1, cpus=2), cluster)
    assert (tmp_path / "threads").read_text() == "2"


@pytest.mark.parametrize(("kind", "attempts"), [("term", 1), ("term-slow", 2), ("term-stuck", 2)])
def test_at_sigterm_a_worker_commits_or_releases_and_takes_no_more(cluster, tmp_path, kind, attempts):
    """`term` has time to end its block; the others are interrupted, one in Python, one where no Python can run."""
    said = []
    pool = PoolConfig(replicas=2, cpus=1, leases=LeaseConfig(grace_seconds=5))
    receipts = map_blocks(range(8), MisbehavingTask(folder=tmp_path, kind=kind), pool, cluster, on_loss=said.append)
    assert sorted(done.block for done in receipts) == list(range(8))
    assert tries(tmp_path) == {block: attempts if block == BAD_BLOCK else 1 for block in range(8)}
    assert len(list(tmp_path.glob("done-*"))) == 8
    first = min(tmp_path.glob(f"{BAD_BLOCK}.*"))
    later = [p for p in tmp_path.glob("[0-9]*") if p.stat().st_mtime > first.stat().st_mtime]
    assert pid_of(first) not in [pid_of(path) for path in later]
    assert gone(pid_of(first))
    ways = ["drained", "worker died"] if kind == "term-stuck" else ["drained: the block was given back"]
    assert [words for words in said if not any(way in words for way in ways)] == []
    assert not groups_left()


def test_a_block_given_back_again_and_again_is_not_poison(cluster, tmp_path):
    """Three attempts that count would be too many; these do not count."""
    quick = PoolConfig(replicas=1, cpus=1, leases=LeaseConfig(grace_seconds=3))
    task = MisbehavingTask(folder=tmp_path, kind="term-slow", deaths=3)
    receipts = map_blocks([BAD_BLOCK], task, quick, cluster)
    assert [done.block for done in receipts] == [BAD_BLOCK]
    assert tries(tmp_path)[BAD_BLOCK] == 4


@pytest.mark.parametrize("dies", [False, True])
def test_a_replica_of_two_processes_works_dies_and_comes_back_as_one(cluster, tmp_path, dies):
    pool = PoolConfig(replicas=1, cpus=1, leases=QUICK)
    receipts = map_blocks(range(6), PairTask(folder=tmp_path, dies=dies), pool, cluster)
    assert sorted(done.block for done in receipts) == list(range(6))
    assert {done.worker for done in receipts} == {"0"}
    by_rank = [{pid_of(path) for path in tmp_path.glob(f"*.{rank}")} for rank in (0, 1)]
    assert [len(pids) for pids in by_rank] == [1 + dies, 1 + dies]
    assert len(list(tmp_path.glob("*.0"))) == len(list(tmp_path.glob("*.1"))) == 6 + dies
    assert not groups_left()


def test_an_engine_that_cannot_open_stops_the_run_after_some_attempts(cluster, tmp_path):
    with pytest.raises(ClusterError, match="ZeroDivisionError: no such engine"):
        map_blocks(range(3), MisbehavingTask(folder=tmp_path, kind="broken"), POOL, cluster)
    assert not groups_left()


def test_replicas_that_have_no_place_yet_do_not_hold_the_others_up(cluster, tmp_path):
    pool = PoolConfig(replicas=6, cpus=1, when_short="wait", leases=QUICK)
    receipts = map_blocks(range(8), MisbehavingTask(folder=tmp_path), pool, cluster)
    assert len(receipts) == 8
    assert not groups_left()


def test_the_last_places_are_freed_when_nobody_waits_for_them(cluster, tmp_path, monkeypatch):
    """Ray loses a place that it prepares for a group in the moment in which the group is removed."""
    waiting_at_removal: dict[str, int] = {}

    def remove(group):
        states = {name: entry["state"] for name, entry in placement_group_table().items()}
        if states[group.id.hex()] == "CREATED":
            waiting_at_removal[group.id.hex()] = sum(state == "PENDING" for state in states.values())
        remove_placement_group(group)

    monkeypatch.setattr("lrh_ray.runtime.replicas.remove_placement_group", remove)
    pool = PoolConfig(replicas=6, cpus=1, when_short="wait", leases=QUICK)
    map_blocks(range(8), MisbehavingTask(folder=tmp_path), pool, cluster)
    assert set(waiting_at_removal.values()) == {0}


def test_a_run_that_no_node_can_hold_gives_up(cluster, tmp_path):
    pool = PoolConfig(replicas=1, cpus=999, when_short="wait", leases=LeaseConfig(waiting_seconds=1))
    with pytest.raises(ClusterError, match="No replica got a place"):
        map_blocks(range(2), MisbehavingTask(folder=tmp_path), pool, cluster)
    assert not groups_left()


def test_sigterm_to_the_driver_ends_in_order_and_the_same_command_resumes(tmp_path):
    expected = calm_root(tmp_path, 24)
    make_store(tmp_path / "store", [24] * 24, rows_per_block=24)
    command = [sys.executable, "-m", "lrh_ray.testing.chaos_task", str(tmp_path), "--replicas", "2", "--gpus", "0"]
    driver = subprocess.Popen(
        [*command, "--seconds", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while sum(event["what"] == "done" for event in read_diary(tmp_path)) < 3:
        assert driver.poll() is None, driver.communicate()[1]
        time.sleep(0.05)
    driver.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    message = driver.communicate(timeout=60)[1]
    assert time.monotonic() - asked < 30
    assert driver.returncode not in (0, -signal.SIGTERM)
    assert "RunStopped" in message
    assert "the same command resumes" in message
    diary = read_diary(tmp_path)
    begun = [event["block"] for event in diary if event["what"] == "begin"]
    done = [event["block"] for event in diary if event["what"] == "done"]
    assert sorted(begun) == sorted(done)  # blocks of one second end within the grace
    assert 3 <= len(done) < 24
    again = subprocess.run([*command, "--seconds", "0"], capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    diary = read_diary(tmp_path)
    assert sorted(event["block"] for event in diary if event["what"] == "begin") == list(range(24))
    assert open_store(tmp_path / "store").root == expected
    assert json.dumps(diary[-1]["what"]) == '"sealed"'
