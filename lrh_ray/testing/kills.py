"""SIGKILL of real writer processes on a real store, and the proof that nothing was lost, doubled, mixed or torn.

    python -m lrh_ray.testing.kills FOLDER --kills 1000           # on POSIX, writers forked from a warm parent
    python -m lrh_ray.testing.kills s3://bucket/store --kills 30   # object store, writers are fresh processes

Writers take blocks at random, so most blocks are written by several of them at once, and every row carries its attempt
and its place. Each round starts a few writers and kills them all at a random moment; every few rounds, a recovery runs
while writers live. At the end the pending blocks are computed undisturbed and every row is read.

What can go wrong: forking needs a parent without threads, so this module is run as a command of its own, and the store
is planned in a child.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from lrh_ray.errors import AttemptSuperseded
from lrh_ray.store.commit_records import object_key, record_key
from lrh_ray.store.commits import pending_blocks, read_commits, recover
from lrh_ray.store.garbage import collect_garbage
from lrh_ray.store.objects import TEMPORARY, Location, open_objects
from lrh_ray.store.plan import Plan, read_plan
from lrh_ray.store.reader import open_store
from lrh_ray.store.shard_statistics import warm_up
from lrh_ray.store.writer import BlockWriter
from lrh_ray.testing.stores import make_store

ROWS = 8
WRITERS = 4
LONGEST = 0.06
FRESH_LONGEST = 1.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the kills left."""

    kills: int
    rounds: int
    blocks: int
    committed_while_killing: int
    attempts_started: int
    wrong_rows: int
    missing_blocks: int
    litter: tuple[str, ...]
    temporaries_swept: int
    seconds: float

    @property
    def clean(self) -> bool:
        return not (self.wrong_rows or self.missing_blocks or self.litter)


def plan_store(location: Location, blocks: int) -> None:
    """A store of that many blocks of a few rows."""
    make_store(location, [ROWS] * blocks, rows_per_block=ROWS, dtype="float32")


def stamped_rows(plan: Plan, site: str, block: int, attempt: str) -> np.ndarray:
    """[valid rows, width] float32: attempt, block, row and site in every row; exact below 2^24."""
    spec = plan.site(site)
    rows = np.zeros((int(plan.valid_rows[block]), spec.width), dtype=np.float32)
    rows[:, 0] = int(attempt, 16)
    rows[:, 1] = block
    rows[:, 2] = np.arange(len(rows))
    rows[:, 3:] = float(len(site))
    return rows


def write_stamped(location: Location, plan: Plan, block: int, attempt: str) -> bool:
    """One attempt at one block; True if it is the committed one."""
    with BlockWriter(location, plan, block=block, attempt=attempt, worker="kills") as writer:
        for site in plan.sites:
            rows = stamped_rows(plan, site.name, block, attempt)
            writer.write(site.name, 0, rows)
        return writer.commit().committed


def work(location: Location, plan: Plan, seed: int) -> None:
    """Write blocks at random until killed, half of the time blocks that somebody may have written."""
    rng = random.Random(seed)  # noqa: S311  # repeatable, not secret
    pending = list(pending_blocks(open_objects(location), plan))
    for number in range(1, 1000):
        block = rng.choice(pending) if pending and rng.random() < 0.5 else rng.randrange(plan.num_blocks)
        with suppress(AttemptSuperseded):
            write_stamped(location, plan, block, f"{seed * 1000 + number:x}")


def _fork(task: Callable[[], object]) -> int:
    """A child that does the task and leaves; its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        task()
        code = 0
    finally:
        os._exit(code)


def _spawn(location: Location, seed: int) -> tuple[int, int]:
    """A fresh process that works, and where it says that it begins; obstore's threads do not survive a fork."""
    command = [sys.executable, "-m", "lrh_ray.testing.kills", str(location), "--work", str(seed)]
    reader, writer = os.pipe()
    child = subprocess.Popen(command, stdout=writer, stderr=subprocess.DEVNULL)  # noqa: S603  # ourselves
    os.close(writer)
    child.returncode = 0  # its end is awaited by process id
    return child.pid, reader


def _start_writers(location: Location, plan: Plan, seeds: range, fork: bool) -> list[int]:
    """Process ids of writers that have begun."""
    if fork:
        return [_fork(partial(work, location, plan, seed)) for seed in seeds]
    started = [_spawn(location, seed) for seed in seeds]
    for _, reader in started:
        os.read(reader, 1)
        os.close(reader)
    return [child for child, _ in started]


def kill_writers(location: Location, plan: Plan, *, kills: int, seed: int, fork: bool) -> tuple[int, int]:
    """Start and kill writers until `kills` of them died by SIGKILL; kills and rounds."""
    rng, killed, rounds = random.Random(seed), 0, 0  # noqa: S311  # repeatable, not secret
    while killed < kills:
        rounds += 1
        seeds = range(rounds * WRITERS, rounds * WRITERS + min(WRITERS, kills - killed))
        writers = _start_writers(location, plan, seeds, fork)
        sweepers = []
        if fork and rounds % 3 == 0:
            sweepers.append(_fork(partial(recover, open_objects(location), plan.num_blocks)))
        time.sleep(rng.uniform(0, LONGEST if fork else FRESH_LONGEST))
        for child in writers + sweepers:
            os.kill(child, signal.SIGKILL)
        ends = {child: os.waitpid(child, 0)[1] for child in writers + sweepers}
        killed += sum(os.WIFSIGNALED(ends[child]) and os.WTERMSIG(ends[child]) == signal.SIGKILL for child in writers)
    return killed, rounds


def prove(location: Location, *, kills: int, blocks: int, seed: int) -> Verdict:
    """Kill writers, finish the store undisturbed, and check every row of it."""
    started = time.monotonic()
    fork = isinstance(location, Path)
    if fork:
        os.waitpid(_fork(lambda: plan_store(location, blocks)), 0)
    else:
        plan_store(location, blocks)
    objects = open_objects(location)
    plan = read_plan(objects)
    warm_up(plan.dtype)  # writers are forked with it, or they would be killed while they load it
    killed, rounds = kill_writers(location, plan, kills=kills, seed=seed, fork=fork)
    survived = plan.num_blocks - len(pending_blocks(objects, plan))
    recover(objects, plan.num_blocks)
    for block in pending_blocks(objects, plan):
        write_stamped(location, plan, block, f"{(rounds + 2) * WRITERS * 1000 + block:x}")
    temporaries = [entry.key for entry in objects.list("") if TEMPORARY.fullmatch(entry.key.rpartition("/")[2])]
    collect_garbage(location, delete=True, grace_seconds=0)
    return Verdict(
        kills=killed,
        rounds=rounds,
        blocks=plan.num_blocks,
        committed_while_killing=survived,
        attempts_started=rounds * WRITERS,
        wrong_rows=wrong_rows(location),
        missing_blocks=len(pending_blocks(objects, plan)),
        litter=litter(location, plan),
        temporaries_swept=len(temporaries),
        seconds=round(time.monotonic() - started, 1),
    )


def wrong_rows(location: Location) -> int:
    """Rows that are not those of their block's committed attempt."""
    store = open_store(location)
    commits = read_commits(open_objects(location), store.plan.num_blocks)
    wrong = 0
    for block, commit in commits.items():
        for site in store.plan.sites:
            wanted = stamped_rows(store.plan, site.name, block, commit.attempt)
            found = np.asarray(store.block_rows(site.name, block))
            wrong += len(wanted) if found.shape != wanted.shape else int((found != wanted).any(axis=1).sum())
    return wrong


def litter(location: Location, plan: Plan) -> tuple[str, ...]:
    """Keys that neither the plan nor a commit names."""
    objects = open_objects(location)
    commits = read_commits(objects, plan.num_blocks)
    named = {object_key(name, block) for block, commit in commits.items() for name in commit.objects}
    named |= {record_key(block) for block in commits}
    grown = ("staging/", "commits/", "statistics/", "data.zarr/acts/")
    keys = [entry.key for entry in objects.list("")]
    strange = [key for key in keys if key.startswith(grown) and key not in named and not key.endswith("zarr.json")]
    return tuple(strange + [key for key in keys if TEMPORARY.fullmatch(key.rpartition("/")[2])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("location")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--blocks", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=int, help="be one of the writers, with this seed, until killed")
    options = parser.parse_args()
    location: Location = options.location if "://" in options.location else Path(options.location)
    if options.work is not None:
        sys.stdout.write("begins\n")
        sys.stdout.flush()
        work(location, read_plan(open_objects(location)), options.work)
        return
    verdict = prove(location, kills=options.kills, blocks=options.blocks, seed=options.seed)
    sys.stdout.write(json.dumps(asdict(verdict), indent=1) + "\n")
    if not verdict.clean:
        sys.exit("rows were lost, mixed or torn, or something was left behind")


if __name__ == "__main__":
    main()
