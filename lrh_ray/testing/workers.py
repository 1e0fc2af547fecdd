"""Small real tasks for the runtime's verbs: sums with rounding, and workers that die, hang, break, refuse or leave."""

import ctypes
import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import psutil

from lrh_ray.errors import NotEnoughData, StoreFull
from lrh_ray.records import Receipt
from lrh_ray.runtime.sizing import PoolSize
from lrh_ray.runtime.tasks import Seat, Shape

BAD_BLOCK = 3
FOREVER = 3600
MEETING_SECONDS = 60.0
MOMENT = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Total:
    """A state whose merges round, so that another tree gives other bits."""

    value: float

    def merge(self, other: "Total") -> "Total":
        return Total(value=self.value + other.value)


def state_of(block: int) -> Total:
    """A number that depends on the block alone, over seven orders of magnitude."""
    return Total(value=float(np.random.default_rng(block).normal() * 10.0 ** (block % 7)))


def refuse(block: int) -> Total:
    """A mistake of the user, found on a worker."""
    raise NotEnoughData(f"block {block} is empty")


def square(item: int) -> int:
    return item * item


Kind: TypeAlias = Literal[
    "good", "dies", "poison", "user", "gil", "stop", "sleep", "term", "term-slow", "term-stuck", "broken"
]
FIRST_ONLY = ("dies", "gil", "stop", "sleep", "term", "term-slow", "term-stuck")


@dataclass(frozen=True, kw_only=True)
class MisbehavingTask:
    """Leaves a file per attempt in `folder`, with its process id, and one more when the attempt is done.

    At `BAD_BLOCK`: `poison` raises, `user` refuses, and in the first `deaths` attempts `dies` kills itself, `gil`,
    `stop` and `sleep` hang (holding Python's lock; frozen; merely for ever), and `term` gets a SIGTERM and goes on as
    usual, as slowly as it can, or stuck in native code. `broken` cannot be opened.
    """

    folder: Path
    kind: Kind = "good"
    deaths: int = 1
    seconds: float = 0.0

    def open(self) -> "MisbehavingTask":
        if self.kind == "broken":
            raise ZeroDivisionError("no such engine")
        return self

    def describe(self, block: int) -> str:
        return f"block {block} (rows {block * 10}..{block * 10 + 9})"

    def process(self, block: int, attempt: str) -> Receipt:
        (self.folder / f"{block}.{attempt}").write_text(str(os.getpid()))
        if block == BAD_BLOCK:
            self._misbehave()
        time.sleep(self.seconds)
        (self.folder / f"done-{block}.{attempt}").write_text(str(os.getpid()))
        return Receipt(block=block, attempt=attempt, rows=1, num_bytes=1, seconds=0.0, worker="w", committed=True)

    def _misbehave(self) -> None:
        if self.kind == "poison":
            raise ZeroDivisionError("cannot divide")
        if self.kind == "user":
            raise StoreFull("No space left")
        if self.kind in FIRST_ONLY and len(list(self.folder.glob(f"{BAD_BLOCK}.*"))) <= self.deaths:
            misbehave(self.kind)


def misbehave(kind: Kind) -> None:
    """Die, hang, or get a SIGTERM."""
    if kind == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if kind.startswith("term"):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(MOMENT)  # any thread may get the signal; the main thread hears of it a moment later
    if kind in ("gil", "term-stuck"):
        ctypes.PyDLL(None).sleep(FOREVER)  # a native call that keeps Python's lock
    if kind == "sleep":
        time.sleep(FOREVER)
    while kind == "term-slow":
        time.sleep(MOMENT)


@dataclass(frozen=True, kw_only=True)
class ThreadsTask:
    """Writes the OMP_NUM_THREADS that the worker's process was started with."""

    folder: Path

    def open(self) -> "ThreadsTask":
        (self.folder / "threads").write_text(psutil.Process().environ().get("OMP_NUM_THREADS", "unset"))
        return self

    def describe(self, block: int) -> str:
        return f"block {block}"

    def process(self, block: int, attempt: str) -> Receipt:
        return Receipt(block=block, attempt=attempt, rows=1, num_bytes=1, seconds=0.0, worker="w", committed=True)


@dataclass(frozen=True, kw_only=True)
class PairTask:
    """A replica of two processes that agree on every block over a socket; rank 1 dies once, at `BAD_BLOCK`."""

    folder: Path
    dies: bool = False

    def shape(self, size: PoolSize) -> Shape:
        return Shape(bundles=({"CPU": size.cpus / 2},) * 2, strategy="PACK")

    def open_member(self, seat: Seat) -> "PairWorker":
        return PairWorker(self, seat)

    def describe(self, block: int) -> str:
        return f"block {block}"


class PairWorker:
    """One of two members."""

    def __init__(self, task: PairTask, seat: Seat) -> None:
        self._task, self._seat = task, seat
        self._link = meet(seat)

    def process(self, block: int, attempt: str) -> Receipt:
        rank, folder = self._seat.rank, self._task.folder
        name = f"{block}.{attempt}.{rank}"
        (folder / name).write_text(str(os.getpid()))
        if self._task.dies and rank == 1 and block == BAD_BLOCK and len(list(folder.glob(f"{block}.*.1"))) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        self._link.sendall(block.to_bytes(4, "big"))
        theirs = int.from_bytes(self._link.recv(4, socket.MSG_WAITALL), "big")
        if theirs != block:
            raise RuntimeError(f"the members of a replica work on blocks {block} and {theirs}")
        return Receipt(block=block, attempt=attempt, rows=1, num_bytes=1, seconds=0.0, worker=str(rank), committed=True)


def meet(seat: Seat) -> socket.socket:
    """Connect the two members at the place the seat names."""
    host, _, port = seat.rendezvous.rpartition(":")
    if seat.rank == 0:
        with socket.create_server((host, int(port))) as server:
            return server.accept()[0]
    deadline = time.monotonic() + MEETING_SECONDS
    while True:
        try:
            return socket.create_connection((host, int(port)))
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
