"""The lease controller under simulated replicas: its laws hold whatever befalls them, and it is quick."""

import dataclasses
import json
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrh_ray.errors import StoreFull
from lrh_ray.runtime.leases import Assign, Leases, Limits, Retire, Stop
from lrh_ray.runtime.policy import Failure
from lrh_ray.testing.lease_lab import LIMITS, Chances, simulate


def pool(blocks, replicas=1, **limits):
    """A controller whose replicas are ready at time 0."""
    leases = Leases(range(blocks), dataclasses.replace(LIMITS, **limits))
    actions = []
    for replica in range(replicas):
        leases.placed(replica, 0.0)
        actions += leases.ready(replica, 0.0)
    return leases, actions


def kinds(actions):
    return [type(action).__name__ for action in actions]


@given(
    blocks=st.integers(0, 60),
    replicas=st.integers(1, 12),
    dies=st.floats(0, 0.3),
    hangs=st.floats(0, 0.2),
    stalls=st.floats(0, 0.2),
    drains=st.floats(0, 0.3),
    poison=st.frozensets(st.integers(0, 59), max_size=4),
    seed=st.integers(0, 1000),
)
def test_every_block_is_done_once_or_set_aside_whatever_befalls_replicas(
    blocks, replicas, dies, hangs, stalls, drains, poison, seed
):
    """The simulation itself checks that no block is in two hands and that nobody who left gets work."""
    chances = Chances(dies=dies, hangs=hangs, stalls=stalls, drains=drains, poison=poison)
    world = simulate(replicas=replicas, blocks=blocks, chances=chances, seed=seed)
    poisoned = set(world.leases.poisoned)
    assert set(world.done) | poisoned == set(range(blocks))
    assert not set(world.done) & poisoned
    assert set(world.done.values()) <= {1}
    assert poison & set(range(blocks)) <= poisoned
    assert not world.stopped
    lost_with_a_block = world.begun.total() - len(world.done)
    assert lost_with_a_block <= world.retired.total()


def test_without_accidents_nothing_is_given_up_or_begun_twice():
    world = simulate(replicas=7, blocks=100)
    assert set(world.begun.values()) == {1}
    assert not world.retired


def test_blocks_are_leased_in_order_and_failed_ones_come_last():
    leases, actions = pool(3)
    assert actions == [Assign(replica=0, block=0, attempt=1)]
    (retire,) = leases.lost(0, Failure.OTHER_ERROR, ValueError("x"), 1.0)
    assert (retire.replica, retire.failure, retire.block) == (0, Failure.OTHER_ERROR, 0)
    leases.placed(1, 1.0)
    order = [leases.ready(1, 1.0), leases.done(1, 2.0), leases.done(1, 3.0)]
    assert [(a.block, a.attempt) for (a,) in order] == [(1, 1), (2, 1), (0, 2)]
    assert leases.done(1, 4.0) == ()
    assert leases.finished


def test_a_silent_replica_is_hung_and_its_block_goes_to_another():
    leases, _ = pool(2, replicas=2, silence=60.0)
    leases.heard(1, 50.0)
    assert leases.tick(60.0) == ()
    (retire,) = leases.tick(60.1)
    assert (retire.replica, retire.failure, retire.block) == (0, Failure.HUNG, 0)
    assert leases.done(1, 61.0) == (Assign(replica=1, block=0, attempt=2),)


def test_the_deadline_follows_the_durations_seen():
    leases, _ = pool(40, replicas=2, silence=1e9, first_deadline=5000.0, shortest_deadline=30.0, deadline_factor=10.0)
    assert leases.deadline == 5000.0
    for number in range(1, 4):
        leases.done(0, number * 8.0)
    assert leases.deadline == 80.0
    assert leases.tick(80.0) == ()
    (retire, assign) = (*leases.tick(80.1), None)
    assert (retire.replica, retire.failure, retire.block, assign) == (1, Failure.HUNG, 1, None)
    for number in range(200):
        leases.done(0, 24.0 + number * 0.1)
    assert leases.deadline == 30.0  # never below the shortest


def test_an_opening_that_takes_too_long_is_given_up():
    leases = Leases(range(2), dataclasses.replace(LIMITS, opening=100.0, silence=1e9))
    leases.placed(0, 0.0)
    assert leases.tick(100.0) == ()
    assert kinds(leases.tick(100.1)) == ["Retire"]


def test_draining_lets_the_block_end_and_leases_nothing_more():
    leases, _ = pool(3)
    assert leases.drain(0, 1.0) == ()
    (retire,) = leases.done(0, 2.0)
    assert (retire.failure, retire.block) == (Failure.DRAINED, None)
    assert leases.outstanding == 2


def test_a_block_given_back_is_no_attempt_but_has_a_new_name():
    leases, _ = pool(1, attempts=1)
    names = []
    for replica in range(1, 6):
        leases.lost(replica - 1, Failure.DRAINED, InterruptedError(), 0.0)
        leases.placed(replica, 0.0)
        (assign,) = leases.ready(replica, 0.0)
        names.append(assign.attempt)
    assert names == [2, 3, 4, 5, 6]
    assert not leases.poisoned
    leases.lost(5, Failure.WORKER_DIED, RuntimeError("died"), 0.0)
    assert set(leases.poisoned) == {0}


@pytest.mark.parametrize("opening", [True, False])
def test_a_mistake_of_the_user_stops_the_run(opening):
    leases, _ = pool(3, replicas=0 if opening else 1)
    if opening:
        leases.placed(0, 0.0)
    mistake = StoreFull("full")
    _, stop = leases.lost(0, Failure.USER_ERROR, mistake, 1.0)
    assert stop == Stop(cause=mistake, opening=opening)
    assert leases.finished
    leases.placed(1, 2.0)
    assert leases.ready(1, 2.0) == ()


def test_openings_that_fail_in_a_row_stop_the_run_and_a_success_forgives():
    leases = Leases(range(9), dataclasses.replace(LIMITS, openings=3))
    for replica in (0, 1):
        assert kinds(leases.never_placed(replica, Failure.WORKER_DIED, RuntimeError("x"), 0.0)) == ["Retire"]
    leases.placed(2, 0.0)
    leases.ready(2, 0.0)
    for replica in (3, 4):
        assert kinds(leases.never_placed(replica, Failure.OTHER_ERROR, RuntimeError("x"), 0.0)) == ["Retire"]
    assert kinds(leases.never_placed(5, Failure.OTHER_ERROR, RuntimeError("x"), 0.0)) == ["Retire", "Stop"]


def test_news_of_a_replica_that_left_changes_nothing():
    leases, _ = pool(2)
    leases.lost(0, Failure.WORKER_DIED, RuntimeError("died"), 0.0)
    assert leases.done(0, 1.0) == leases.heard(0, 1.0) == leases.ready(0, 1.0) == ()
    assert leases.lost(0, Failure.WORKER_DIED, RuntimeError("died"), 1.0) == ()
    assert leases.outstanding == 2


def test_a_stopped_controller_leases_nothing_and_waits_for_what_is_in_hand():
    leases, _ = pool(5)
    leases.stop()
    assert not leases.finished
    assert leases.done(0, 1.0) == ()
    assert leases.finished
    assert leases.outstanding == 4


def test_actions_travel():
    assert pickle.loads(pickle.dumps(Assign(replica=1, block=2, attempt=3))) == Assign(replica=1, block=2, attempt=3)
    assert isinstance(LIMITS, Limits)
    assert Retire.__dataclass_params__.frozen


def test_a_thousand_replicas_and_twenty_thousand_blocks():
    """At least 500 leases a second in less than 1 GB; in a process of its own, which tells its memory."""
    command = [sys.executable, "-m", "lrh_ray.testing.lease_lab", "--replicas", "1000", "--blocks", "20000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    figures = json.loads(done.stdout)
    assert figures["done"] + figures["poisoned"] == 20_000
    assert figures["leases_per_second"] >= 500
    assert figures["peak_bytes"] < 1e9
