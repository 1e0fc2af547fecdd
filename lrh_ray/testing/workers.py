"""Small real tasks for the runtime's verbs: sums with rounding, and workers that die, break or refuse."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from lrh_ray.errors import NotEnoughData, StoreFull
from lrh_ray.records import Receipt

BAD_BLOCK = 3


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


@dataclass(frozen=True, kw_only=True)
class MisbehavingTask:
    """Leaves a file per attempt in `folder`. At `BAD_BLOCK` it dies by SIGKILL `deaths` times, raises, or refuses."""

    folder: Path
    kind: Literal["good", "dies", "poison", "user"] = "good"
    deaths: int = 1

    def open(self) -> "MisbehavingTask":
        return self

    def describe(self, block: int) -> str:
        return f"block {block} (rows {block * 10}..{block * 10 + 9})"

    def process(self, block: int, attempt: str) -> Receipt:
        (self.folder / f"{block}.{attempt}").touch()
        if block == BAD_BLOCK:
            self._misbehave()
        return Receipt(block=block, attempt=attempt, rows=1, num_bytes=1, seconds=0.0, worker="w", committed=True)

    def _misbehave(self) -> None:
        if self.kind == "dies" and len(list(self.folder.glob(f"{BAD_BLOCK}.*"))) <= self.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "poison":
            raise ZeroDivisionError("cannot divide")
        if self.kind == "user":
            raise StoreFull("No space left")
