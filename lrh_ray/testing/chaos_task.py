"""The work that chaos disturbs: a task that fills a store with known rows, keeps a diary, and hangs when it is told to.

    python -m lrh_ray.testing.chaos_task FOLDER --address ADDRESS --replicas 4     # one run; repeat it to resume

FOLDER holds `store`, planned; `diary.jsonl`, a line per event of every process, in one write each; and orders: a file
`order-gil`, `order-stop`, `order-sleep` or `order-zombie` is claimed by the next block that begins.

    gil      a native call that keeps Python's lock: no heartbeat comes
    stop     SIGSTOP: no heartbeat comes
    sleep    heartbeats come, the block never ends: the deadline is what notices
    zombie   the process dies, but a detached child of it lives on, waits until another attempt has committed the block,
             and then writes other rows and tries to commit them

What can go wrong: a zombie whose block is never done gives up after `ZOMBIE_SECONDS`.
"""

import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lrh_ray.errors import AttemptSuperseded, LrhError
from lrh_ray.records import Receipt
from lrh_ray.runtime.cluster import EMBEDDED, connected
from lrh_ray.runtime.config import LeaseConfig, PoolConfig
from lrh_ray.runtime.map import map_blocks
from lrh_ray.store.commits import pending_blocks, read_commit, recover
from lrh_ray.store.objects import open_objects
from lrh_ray.store.plan import Plan, read_plan
from lrh_ray.store.seal import describe_rows, seal
from lrh_ray.store.writer import BlockWriter
from lrh_ray.testing.stores import truth

ORDERS = ("gil", "stop", "sleep", "zombie")
FOREVER = 3600
ZOMBIE_SECONDS = 90.0
LEASES = LeaseConfig(
    silence_seconds=8, shortest_deadline_seconds=8, first_deadline_seconds=20, opening_seconds=60, waiting_seconds=120
)


def write_diary(folder: Path, **event: str | int | bool | float) -> None:
    """One line, in one write, so that lines of many processes do not mix, and on a line of its own, because a process
    that is killed while it writes leaves half a line."""
    line = "\n" + json.dumps({**event, "pid": os.getpid(), "at": round(time.time(), 2)}) + "\n"
    descriptor = os.open(folder / "diary.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


@dataclass(frozen=True, kw_only=True)
class ChaosTask:
    """Writes blocks of the store in `folder`, each in about `seconds`."""

    folder: Path
    run: str
    seconds: float

    def open(self) -> "ChaosWorker":
        write_diary(self.folder, what="open", run=self.run)
        return ChaosWorker(self, read_plan(open_objects(self.folder / "store")))

    def describe(self, block: int) -> str:
        return describe_rows(read_plan(open_objects(self.folder / "store")), [block])


class ChaosWorker:
    """One replica."""

    def __init__(self, task: ChaosTask, plan: Plan) -> None:
        self._task, self._plan = task, plan

    def process(self, block: int, attempt: str) -> Receipt:
        task = self._task
        write_diary(task.folder, what="begin", run=task.run, block=block, attempt=attempt)
        receipt = write_rows(
            task.folder, self._plan, block, attempt, between=lambda: self._suffer(block, attempt, task.seconds / 6)
        )
        write_diary(task.folder, what="done", run=task.run, block=block, committed=receipt.committed)
        return receipt

    def _suffer(self, block: int, attempt: str, seconds: float) -> None:
        time.sleep(seconds)
        for order in ORDERS:
            if claim(self._task.folder, order):
                write_diary(self._task.folder, what="order", order=order, run=self._task.run, block=block)
                obey(order, self._task.folder, block, attempt)


def claim(folder: Path, order: str) -> bool:
    """Take an order, if it stands and nobody else took it."""
    try:
        (folder / f"order-{order}").rename(folder / f"taken-{order}-{os.getpid()}")
    except FileNotFoundError:
        return False
    return True


def obey(order: str, folder: Path, block: int, attempt: str) -> None:
    """Hang, or die and leave a zombie; does not return by itself."""
    if order == "gil":
        ctypes.PyDLL(None).sleep(FOREVER)
    elif order == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif order == "zombie":
        command = [sys.executable, "-m", "lrh_ray.testing.chaos_task", str(folder), "--zombie", f"{block}:{attempt}"]
        # Started through a shell that ends: no process of Ray is its parent, none will end it.
        subprocess.run(  # noqa: S603  # ourselves
            ["/bin/sh", "-c", '"$@" >/dev/null 2>&1 &', "sh", *command], start_new_session=True, check=True
        )
        os.kill(os.getpid(), signal.SIGKILL)
    while True:
        time.sleep(1)


def write_rows(
    folder: Path, plan: Plan, block: int, attempt: str, *, shift: float = 0.0, between: Callable[[], None]
) -> Receipt:
    """Write and commit one block in three pieces per site, with something happening after each."""
    with BlockWriter(folder / "store", plan, block=block, attempt=attempt, worker="chaos") as writer:
        for site in plan.sites:
            rows = truth(plan, site.name, block) + np.float32(shift).astype(truth(plan, site.name, block).dtype)
            for piece in np.array_split(np.arange(len(rows)), 3):
                if len(piece):
                    writer.write(site.name, int(piece[0]), rows[piece])
                between()
        return writer.commit()


def haunt(folder: Path, block: int, attempt: str) -> None:
    """Wait until another attempt has committed the block, then try to commit other rows."""
    objects = open_objects(folder / "store")
    plan, deadline = read_plan(objects), time.monotonic() + ZOMBIE_SECONDS
    write_diary(folder, what="zombie rises", block=block)
    while read_commit(objects, block) is None and time.monotonic() < deadline:
        time.sleep(0.2)
    committed, late = False, read_commit(objects, block) is not None
    if late:
        try:
            committed = write_rows(folder, plan, block, f"{attempt}f", shift=1.0, between=lambda: None).committed
        except AttemptSuperseded:
            committed = False
    write_diary(folder, what="zombie ends", block=block, late=late, committed=committed)


def run_once(folder: Path, *, address: str, replicas: int, gpus: float, seconds: float) -> None:
    """What a user's command does: resume, work, seal."""
    name = f"{os.getpid()}"
    write_diary(folder, what="run", run=name)
    objects = open_objects(folder / "store")
    plan = read_plan(objects)
    recover(objects, plan.num_blocks)
    pending = pending_blocks(objects, plan)
    pool = PoolConfig(replicas=replicas, cpus=0.5, gpus=gpus, when_short="wait", leases=LEASES)
    with connected(address) as cluster:
        map_blocks(
            pending,
            ChaosTask(folder=folder, run=name, seconds=seconds),
            pool,
            cluster,
            on_loss=lambda words: write_diary(folder, what="lost", run=name, words=words),
        )
    seal(folder / "store", plan, parity={"passed": True})
    write_diary(folder, what="sealed", run=name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--address", default=EMBEDDED)
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--gpus", type=float, default=2)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--zombie", help="block:attempt; be a zombie of that attempt")
    options = parser.parse_args()
    if options.zombie:
        block, _, attempt = options.zombie.partition(":")
        haunt(options.folder, int(block), attempt)
        return
    try:
        run_once(
            options.folder,
            address=options.address,
            replicas=options.replicas,
            gpus=options.gpus,
            seconds=options.seconds,
        )
    except LrhError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
