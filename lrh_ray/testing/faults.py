"""A whole small run (plan, blocks, seal) with one fault at any of its operations.

    operations, root = count_operations(folder / "undisturbed")
    after = try_fault(folder / "7", Fault(at=7, kind="full"))    # the error a user saw, and what a rerun made of it
    python -m lrh_ray.testing.faults FOLDER --runs 44

Faults act on every `Objects` that the run opens, through `Crashing`.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from lrh_ray.errors import LrhError
from lrh_ray.store.commits import pending_blocks
from lrh_ray.store.objects import Location, Objects, open_objects
from lrh_ray.store.seal import seal
from lrh_ray.testing.crashes import KINDS, Clock, Crash, Crashing, Fault
from lrh_ray.testing.stores import make_store, write_block

LENGTHS = [5, 7, 6, 8]
OPENERS = ("lrh_ray.store.seal.open_objects", "lrh_ray.store.writer.open_objects", "lrh_ray.testing.faults.opened")


@dataclass(frozen=True, kw_only=True, slots=True)
class Aftermath:
    """What one fault led to: the error that left the run, and what an undisturbed rerun made of it."""

    error: BaseException | None
    operation: str
    root: str
    litter: tuple[str, ...]


def opened(location: Location) -> Objects:
    return open_objects(location)


def extract_small(root: Path, attempt: str) -> str:
    """Plan, write every pending block, seal; the root digest."""
    fake = make_store(root, LENGTHS, rows_per_block=8)
    for block in pending_blocks(opened(root), fake.plan):
        write_block(fake, block, attempt=attempt)
    return str(seal(root, fake.plan, parity={})["root"])


@contextmanager
def faulty(clock: Clock) -> Iterator[None]:
    """Every store opened meanwhile counts its operations on `clock` and meets its fault."""
    opener = open_objects

    def open_faulty(location: Location) -> Objects:
        return Crashing(opener(location), clock)

    first, second, third = (patch(name, open_faulty) for name in OPENERS)
    with first, second, third:
        yield


def count_operations(root: Path) -> tuple[int, str]:
    """Operations of an undisturbed run, and its root digest."""
    clock = Clock()
    with faulty(clock):
        digest = extract_small(root, "a0")
    return clock.operations, digest


def try_fault(root: Path, fault: Fault) -> Aftermath:
    """Run with a fault, then run again without."""
    clock, seen = Clock(fault=fault), None
    try:
        with faulty(clock):
            extract_small(root, "a1")
    except (Exception, Crash) as error:  # noqa: BLE001  # whatever a user would see is judged by the caller
        seen = error
    digest = extract_small(root, "a2")
    left = [entry.key for entry in open_objects(root).list("staging")]
    name = clock.names[fault.at] if fault.at < len(clock.names) else "never reached"
    return Aftermath(error=seen, operation=name, root=digest, litter=tuple(left))


@dataclass(frozen=True, kw_only=True, slots=True)
class FaultReport:
    """What a series of runs with one fault each showed."""

    operations: int
    runs: int
    errors: dict[str, int]
    reached: dict[str, int]
    broken: tuple[str, ...]


def try_faults(folder: Path, runs: int) -> FaultReport:
    """Spread `runs` faults evenly over the operations of a run, every kind in turn."""
    operations, root = count_operations(folder / "undisturbed")
    errors, reached, broken = Counter[str](), Counter[str](), []
    for number in range(runs):
        kind = KINDS[number % len(KINDS)]
        fault = Fault(at=number * operations // runs, kind=kind)
        after = try_fault(folder / f"run-{number}", fault)
        errors[type(after.error).__name__ if after.error else "none"] += 1
        reached[after.operation.split()[0]] += 1
        typed = after.error is None or isinstance(after.error, LrhError | OSError | Crash)
        if not typed or after.root != root or after.litter:
            broken.append(f"{fault} at {after.operation!r}: {after.error!r}, root {after.root}, litter {after.litter}")
    return FaultReport(
        operations=operations, runs=runs, errors=dict(errors), reached=dict(reached), broken=tuple(broken)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=44)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lrh-faults-") as folder:
        report = try_faults(Path(folder), options.runs)
    sys.stdout.write(json.dumps({name: getattr(report, name) for name in FaultReport.__slots__}) + "\n")


if __name__ == "__main__":
    main()
