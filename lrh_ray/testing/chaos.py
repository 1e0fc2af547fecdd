"""SIGKILL of workers, raylets and the driver of a running pool, hanging engines, zombies; then the proof.

    python -m lrh_ray.testing.chaos FOLDER --kills 60 --blocks 300

On a simulated cluster, the command of `lrh_ray.testing.chaos_task` fills a store with known rows while processes die at
random moments; it is repeated until the store is sealed, and further stores are filled until enough processes died.
Every store must have the root digest of one that was filled undisturbed: no row lost, none doubled, none of a zombie.
Work done again is counted in the diary that the workers keep: blocks begun beyond the number of blocks, against the
replicas that died.

What can go wrong: on a machine under load a replica may be given up that only was slow; it counts as one that died.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from lrh_ray.store.reader import open_store
from lrh_ray.store.seal import is_sealed, seal
from lrh_ray.store.verify import verify
from lrh_ray.testing.chaos_task import ORDERS, ZOMBIE_SECONDS, write_diary
from lrh_ray.testing.simulated import SimulatedCluster, simulated_cluster
from lrh_ray.testing.stores import fill, make_store

ROWS = 24
REPLICAS, GPUS_EACH = 4, 2
DECK = ("worker",) * 5 + ("raylet",) * 2 + ("driver",) + ORDERS
"""Kinds of harm, dealt in random order and shuffled again: all kinds come, in these proportions."""
PATIENCE = 240.0

Event = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class ChaosVerdict:
    """What chaos left."""

    kills: dict[str, int]
    """SIGKILLs of workers, raylets and drivers."""
    orders: dict[str, int]
    """Engines that hung, and processes that left a zombie."""
    zombies: int
    zombies_that_wrote_late: int
    zombies_that_committed: int
    stores: int
    blocks: int
    runs: int
    roots_equal: bool
    findings: int
    """Of `verify` at level 2, over all stores."""
    begun: int
    """Attempts at blocks that began, over all stores."""
    redone: int
    replicas_died: int
    processes_left: int
    seconds: float

    @property
    def clean(self) -> bool:
        return (
            self.roots_equal
            and not self.findings
            and self.redone <= self.replicas_died
            and not self.zombies_that_committed
            and not self.processes_left
        )


@dataclass(kw_only=True, slots=True)
class Chaos:
    """One campaign: a cluster, a driver that is started again whenever it ends, and the harm done so far."""

    cluster: SimulatedCluster
    folder: Path
    node: dict[str, int]
    seconds: float
    rng: random.Random
    deck: list[str] = field(default_factory=list)
    killed: Counter[str] = field(default_factory=Counter)
    drivers_killed: list[str] = field(default_factory=list)
    driver: "subprocess.Popen[bytes] | None" = None

    def fill_store(self, folder: Path, *, kills: int) -> None:
        """Repeat the command, disturbed until `kills` processes died in all, until the store is sealed."""
        since = time.monotonic()
        while not (is_sealed(folder / "store") and self._driver_ended()):
            if self._driver_ended():
                self._start_driver(folder)
            if self.killed.total() < kills:
                since = time.monotonic()
                self._disturb(folder)
            else:
                time.sleep(0.2)
            if time.monotonic() - since > PATIENCE:
                raise TimeoutError(f"the store in {folder} is not sealed {PATIENCE:.0f} seconds after the last kill")

    def _driver_ended(self) -> bool:
        return self.driver is None or self.driver.poll() is not None

    def _start_driver(self, folder: Path) -> None:
        arguments = [str(folder), "--address", self.cluster.address, "--replicas", str(REPLICAS)]
        arguments += ["--gpus", str(GPUS_EACH), "--seconds", str(self.seconds)]
        with (folder / "driver.log").open("ab") as log:
            self.driver = subprocess.Popen(  # noqa: S603  # ourselves
                [sys.executable, "-m", "lrh_ray.testing.chaos_task", *arguments], stdout=log, stderr=log
            )

    def _disturb(self, folder: Path) -> None:
        """Wait until work is done, then a random while, then do one kind of harm."""
        self.deck = self.deck or self.rng.sample(DECK, len(DECK))
        target = self.deck.pop()
        before = _count(folder, "begin")
        patient = time.monotonic() + 20
        while _count(folder, "begin") <= before and not self._driver_ended() and time.monotonic() < patient:
            time.sleep(0.05)
        time.sleep(self.rng.uniform(0, 3 * self.seconds))
        if self._driver_ended():
            return
        harm: dict[str, Callable[[Path], bool]] = {
            "worker": self._kill_worker,
            "raylet": self._kill_raylet,
            "driver": self._kill_driver,
        }
        write_diary(folder, what="harm", kind=target)
        if target in ORDERS:
            (folder / f"order-{target}").touch()
        elif harm[target](folder):
            self.killed[target] += 1

    def _kill_worker(self, folder: Path) -> bool:
        alive = living_hosts(folder)
        if not alive:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.rng.choice(alive), signal.SIGKILL)
            return True
        return False

    def _kill_raylet(self, _folder: Path) -> bool:
        self.cluster.kill(self.rng.choice(self.cluster.workers))
        self.cluster.join(**self.node)
        return True

    def _kill_driver(self, _folder: Path) -> bool:
        if self.driver is None or self.driver.poll() is not None:
            return False
        self.drivers_killed.append(str(self.driver.pid))
        self.driver.kill()
        self.driver.wait()
        return True


def read_diary(folder: Path) -> list[Event]:
    """All events that are written whole; one that is being written, or whose writer was killed, is not there."""
    diary = folder / "diary.jsonl"
    events = []
    for line in diary.read_text().splitlines() if diary.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            events.append(json.loads(line))
    return events


def _count(folder: Path, what: str) -> int:
    return sum(event["what"] == what for event in read_diary(folder))


def living_hosts(folder: Path) -> list[int]:
    """Workers that opened, and whose processes are still those."""
    alive = []
    for pid in {event["pid"] for event in read_diary(folder) if event["what"] == "open"}:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE and "_Host" in " ".join(process.cmdline()):
                alive.append(pid)
    return sorted(alive)


def replicas_died(diary: list[Event], killed_drivers: list[str]) -> int:
    """Replicas that died with a block in hand, or with their driver, by what drivers and workers wrote."""
    died = 0
    for run in {event["run"] for event in diary if event["what"] == "run"}:
        theirs = [event for event in diary if event.get("run") == run]
        opened = sum(event["what"] == "open" for event in theirs)
        lost = sum(event["what"] == "lost" and " with " in event["words"].split(":")[0] for event in theirs)
        died += opened if run in killed_drivers else lost
    return died


def calm_root(folder: Path, blocks: int) -> str:
    """The root digest of the same store, filled by one process that nobody disturbs."""
    calm = make_store(folder / "calm", [ROWS] * blocks, rows_per_block=ROWS)
    fill(calm)
    seal(calm.root, calm.plan, parity={"passed": True})
    return open_store(calm.root).root


def _wait_for_end(folders: list[Path]) -> int:
    """Wait for zombies and hosts; how many processes of ours live on after that (and end them)."""
    deadline = time.monotonic() + ZOMBIE_SECONDS
    while time.monotonic() < deadline and any(_living(folder) for folder in folders):
        time.sleep(0.5)
    left = [pid for folder in folders for pid in _living(folder)]
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(left)


def _living(folder: Path) -> list[int]:
    diary = read_diary(folder)
    risen = {event["pid"] for event in diary if event["what"] == "zombie rises"}
    ended = {event["pid"] for event in diary if event["what"] == "zombie ends"}
    return living_hosts(folder) + [pid for pid in risen - ended if psutil.pid_exists(pid)]


def prove(
    folder: Path, *, kills: int, blocks: int, seed: int = 0, nodes: int = 2, seconds: float = 0.5
) -> ChaosVerdict:
    """Fill stores under chaos until `kills` processes died, and judge what stands."""
    started = time.monotonic()
    expected = calm_root(folder, blocks)
    stores: list[Path] = []
    node = {"cpus": 4, "gpus": REPLICAS * GPUS_EACH // nodes}
    with simulated_cluster(nodes=nodes, **node) as cluster:
        chaos = Chaos(
            cluster=cluster,
            folder=folder,
            node=node,
            seconds=seconds,
            rng=random.Random(seed),  # noqa: S311
        )
        try:
            while not stores or chaos.killed.total() < kills:
                stores.append(folder / f"store-{len(stores)}")
                make_store(stores[-1] / "store", [ROWS] * blocks, rows_per_block=ROWS)
                chaos.fill_store(stores[-1], kills=kills)
        finally:
            if chaos.driver is not None and chaos.driver.poll() is None:
                chaos.driver.kill()
                chaos.driver.wait()
    left = _wait_for_end(stores)
    diaries = [read_diary(store) for store in stores]
    events = [event for diary in diaries for event in diary]
    begun = sum(event["what"] == "begin" for event in events)
    ended = [event for event in events if event["what"] == "zombie ends"]
    return ChaosVerdict(
        kills=dict(chaos.killed),
        orders=dict(Counter(event["order"] for event in events if event["what"] == "order")),
        zombies=sum(event["what"] == "zombie rises" for event in events),
        zombies_that_wrote_late=sum(event["late"] for event in ended),
        zombies_that_committed=sum(event["committed"] for event in ended),
        stores=len(stores),
        blocks=blocks,
        runs=sum(event["what"] == "run" for event in events),
        roots_equal=all(open_store(store / "store").root == expected for store in stores),
        findings=sum(len(verify(store / "store", 2).findings) for store in stores),
        begun=begun,
        redone=begun - blocks * len(stores),
        replicas_died=sum(replicas_died(diary, chaos.drivers_killed) for diary in diaries),
        processes_left=left,
        seconds=round(time.monotonic() - started, 1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--blocks", type=int, default=300)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # and the cluster with it
    verdict = prove(
        options.folder,
        kills=options.kills,
        blocks=options.blocks,
        seed=options.seed,
        nodes=options.nodes,
        seconds=options.seconds,
    )
    sys.stdout.write(json.dumps({**asdict(verdict), "clean": verdict.clean}, indent=1) + "\n")
    if not verdict.clean:
        sys.exit("rows were lost or doubled, too much was done again, or a process was left")


if __name__ == "__main__":
    main()
