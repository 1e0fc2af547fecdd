"""Interrupting the block in hand: in whichever thread it is, once, and nowhere else."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lrh_ray.runtime.drain import Drain

LEAVING = """
import os, signal, sys, threading, time
from lrh_ray.runtime.drain import Drain

drain, said = Drain(grace_seconds=2), []

def work():
    os.kill(os.getpid(), signal.SIGTERM)
    try:
        while True:
            time.sleep(0.05)
    finally:
        said.append("cleaned up")

def hold():
    said.append(drain.run(work))

if sys.argv[1] == "main":
    hold()
else:
    (thread := threading.Thread(target=hold)).start()
    thread.join()
print(said, drain.asked, drain.run(lambda: 1))
"""


@pytest.fixture
def drain():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)}
    yield Drain(grace_seconds=60)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("thread", ["main", "other"])
def test_after_sigterm_the_block_in_hand_unwinds_and_no_other_is_begun(thread):
    """Ray works in another thread than the main one, which alone hears signals."""
    done = subprocess.run([sys.executable, "-c", LEAVING, thread], capture_output=True, text=True, timeout=60)
    assert done.stdout == "['cleaned up', None] True None\n", done.stderr


def test_without_an_interruption_a_block_is_worked_on_as_if_nobody_watched(drain):
    assert drain.run(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        drain.run(lambda: 1 / 0)


def test_an_interruption_arrives_in_the_work_or_never(drain):
    """At random moments around the end of the work: it is interrupted or done, and nothing is left over."""
    moments = np.random.default_rng(0).uniform(0.0, 2e-3, 300)

    def work():
        until = time.perf_counter() + 1e-3
        while time.perf_counter() < until:
            time.sleep(1e-5)  # lets the main thread send
        return 1

    def one(begun: threading.Event):
        begun.set()
        result = drain.run(work)
        for _ in range(100):
            time.perf_counter()  # an exception that came late would be raised here
        return result

    with ThreadPoolExecutor(1) as pool:
        ends = []
        for moment in moments:
            ending = pool.submit(one, begun := threading.Event())
            begun.wait()
            time.sleep(moment)
            os.kill(os.getpid(), signal.SIGALRM)
            ends.append(ending.result())
    assert set(ends) == {None, 1}
