"""SIGKILL for a command under test: for its own process, or for one of the workers that it has started.

    run = subprocess.Popen(["lrh", "extract", ...])
    kill(run, "worker", "_Host", rng)          # False where no such worker lives

Workers are known by the class of their actor, which Ray writes on their command line.
"""

import os
import random
import signal
import subprocess
from contextlib import suppress
from typing import Any

import psutil


def kill(run: subprocess.Popen[Any], victim: str, actor: str, rng: random.Random) -> bool:
    """Kill any worker of `run` that is such an actor, if the victim is `worker`, else `run`; whether one was killed."""
    if victim != "worker":
        run.kill()
        return True
    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(run.pid).children(recursive=True)
        workers = [one for one in family if actor in " ".join(one.cmdline())]
        if workers:
            os.kill(rng.choice(workers).pid, signal.SIGKILL)
            return True
    return False
