"""The commit protocol under every crash schedule, and the laboratory's own power to find a broken protocol."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from lrh_ray.store.objects import LocalObjects
from lrh_ray.testing.crash_lab import KNOWN_BROKEN
from lrh_ray.testing.crashes import KINDS, Clock, Crash, Crashing, Fault
from lrh_ray.testing.scenarios import all_scenarios
from lrh_ray.testing.schedules import Explorer, LawBroken

ENOUGH = 250_000
FAULT_RUNS = 24


def command(module, *arguments):
    """In a process of its own: the type checks of the suite's instrumentation would take most of the time."""
    run = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout)


def test_every_law_holds_in_more_schedules_than_asked_for():
    facts = command("lrh_ray.testing.crash_lab", "--size", "ci")
    assert facts["schedules_walked"] >= ENOUGH
    for name, report in facts["explored"].items():
        assert report["schedules"] > report["states"] > 100, name


def broken_by(scenario, **bounds):
    with pytest.raises(LawBroken) as caught:
        Explorer(replace(all_scenarios()[scenario], **bounds)).explore()
    return str(caught.value)


@pytest.mark.parametrize("scenario", ["zombie-driver-posix", "zombie-driver-remote"])
def test_a_zombie_that_does_not_look_into_the_pack_is_caught(scenario, monkeypatch):
    monkeypatch.setattr("lrh_ray.store.commits._read_packed", lambda objects, block: None)
    assert "block 0" in broken_by(scenario, switches=3, crashes=0)


def test_a_dropped_commit_that_leaves_staged_files_is_caught(monkeypatch):
    monkeypatch.setattr("lrh_ray.store.commits._exhaust", lambda objects, block, standing: True)
    assert "block 0 is committed by" in broken_by("zombie-drop-posix", switches=2, crashes=0)


def test_an_unpacking_that_trusts_a_zombies_record_is_caught(monkeypatch):
    def trusting(objects, commit):
        from lrh_ray.store.commit_records import encode_commit, record_key

        objects.put(record_key(commit.block), encode_commit(commit))

    monkeypatch.setattr("lrh_ray.store.commits.restore_record", trusting)
    assert "block 0 was committed by" in broken_by("zombie-repair-posix", switches=3, crashes=0)


def test_a_seal_that_deletes_records_before_the_pack_is_caught(monkeypatch):
    from lrh_ray.store import commits

    honest = commits.pack

    def hasty(objects, packed):
        for block in packed:
            objects.delete(commits.record_key(block))
        honest(objects, packed)

    monkeypatch.setattr("lrh_ray.testing.actors.pack", hasty)
    assert "was committed by" in broken_by("two-sealers-posix")


def test_an_upload_without_a_claim_is_caught(monkeypatch):
    monkeypatch.setattr("lrh_ray.store.commits._require_claim", lambda objects, commit: None)
    assert "block 0 is committed by" in broken_by("twins-remote")


def test_a_publisher_of_uncommitted_files_is_caught(monkeypatch):
    monkeypatch.setattr("lrh_ray.store.commits.is_committed_by", lambda objects, block, attempt: True)
    assert "block 0" in broken_by("twins-posix")


def test_a_sweeper_that_does_not_look_again_is_caught(monkeypatch):
    def blind(objects, key, block, attempt):
        return objects.delete(key)

    monkeypatch.setattr("lrh_ray.store.commits._sweep", blind)
    assert "block 0 is committed by" in broken_by("twins-recovery-posix", switches=2)


def test_equal_tags_for_equal_bytes_let_a_zombie_in():
    """The known limit: where a tag names content (S3), a third attempt with the first one's bytes unfences a zombie."""
    (scenario,) = KNOWN_BROKEN
    message = broken_by(scenario)
    line = message.partition("replay: ")[2].partition(" ")[2]
    with pytest.raises(LawBroken, match="block 0 is committed by e1"):
        Explorer(all_scenarios()[scenario]).replay(line)


def test_walking_and_exploring_count_the_same_schedules():
    scenario = replace(all_scenarios()["twins-remote"], switches=1, crashes=1, faults=0)
    walked, explored = (Explorer(scenario, merge=merge).explore() for merge in (False, True))
    assert walked.schedules == explored.schedules == walked.endings > explored.endings


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_acts_where_it_is_told(kind, tmp_path):
    clock = Clock(fault=Fault(at=1, kind=kind))
    objects = Crashing(LocalObjects(tmp_path), clock)
    objects.put("a", b"1")
    if kind == "retried":
        assert objects.put("b", b"2") is None
    else:
        with pytest.raises((Crash, OSError)):
            objects.put("b", b"2")
    assert (LocalObjects(tmp_path).get("b") is not None) == (kind in ("crash-after", "lost", "retried"))
    if kind.startswith("crash"):
        with pytest.raises(Crash):
            objects.get("a")
    else:
        assert objects.get("a").data == b"1"


def test_a_run_with_a_fault_at_any_call_ends_typed_and_its_rerun_has_the_same_root():
    facts = command("lrh_ray.testing.faults", "--runs", str(FAULT_RUNS))
    assert facts["broken"] == []
    assert {"get", "put"} <= facts["reached"].keys()
    assert {"Crash", "PathUnusable", "StoreFull", "TimeoutError"} <= facts["errors"].keys()
