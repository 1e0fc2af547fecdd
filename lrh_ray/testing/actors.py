"""Who takes part in the crash schedules: writers, zombies, recovering drivers, the seal, repair.

Each is a program over `Objects` that calls the protocol itself (`commit_block`, `publish`, `recover`, `drop_block`,
`pack`, `read_commits`); nothing of it is copied here except the life of staged files (`Attempt`), which on a real store
are files and locks of the operating system. Every attempt writes its own bytes, of equal length, so that a file of
another attempt is seen by its content and never by its size.
"""

from pathlib import Path
from typing import Any

from lrh_ray.digests import digest_bytes
from lrh_ray.store.commit_records import STATISTICS, Commit, StoredObject, staged_key
from lrh_ray.store.commits import commit_block, drop_block, is_committed_by, pack, publish, read_commits, recover
from lrh_ray.testing.machines import Outcome, Phase

NAMES = ("s", STATISTICS)


def payload(block: int, attempt: str, name: str) -> bytes:
    """Bytes of one object that tell whose they are, by the attempt's last digit: `a1` and `b1` compute the same."""
    return f"{name} of block {block} by {attempt[-1]}".encode()


def record_of(block: int, attempt: str) -> Commit:
    objects = {}
    for name in NAMES:
        data = payload(block, attempt, name)
        objects[name] = StoredObject(num_bytes=len(data), digest=digest_bytes(data), index_crc32c=None)
    return Commit(
        block=block,
        attempt=attempt,
        valid_rows=1,
        objects=objects,
        nonfinite={},
        overflow={},
        seconds=0.0,
        worker="w",
        software={},
    )


def scratch(blocks: range, attempts: tuple[str, ...]) -> dict[str, bytes]:
    """The writers' own disks, for stores that attempts are uploaded to."""
    keys = [(block, attempt, name) for block in blocks for attempt in attempts for name in NAMES]
    return {staged_key(*key): payload(*key) for key in keys}


def write(block: int, attempt: str) -> tuple[Phase, ...]:
    """One attempt at one block; returns True if it is the committed one."""

    def stage(objects: Any, told: object) -> object:
        for path in _files(block, attempt).values() if objects.stages else ():
            objects.ask("stage", path.as_posix(), payload(*_parse(path)))
        return told

    def commit(objects: Any, told: object) -> object:
        del told
        files = _files(block, attempt)
        try:
            if objects.stages and not objects.ask("linked", *(path.as_posix() for path in files.values())):
                raise AssertionError("staged files were swept while their writer lived")
            return Outcome(value=commit_block(objects, record_of(block, attempt), files))
        except Exception as error:  # noqa: BLE001  # the files are closed first, then it goes on
            return Outcome(error=type(error), message=str(error))

    def close(objects: Any, told: Outcome) -> object:
        if objects.stages:
            objects.ask("release", "")
            if not is_committed_by(objects, block, attempt):
                for path in _files(block, attempt).values():
                    objects.ask("remove", path.as_posix(), None)
        if told.error is not None:
            raise told.error(told.message)
        return told.value

    return stage, commit, close


def _files(block: int, attempt: str) -> dict[str, Path]:
    return {name: Path(staged_key(block, attempt, name)) for name in NAMES}


def _parse(path: Path) -> tuple[int, str, str]:
    block, attempt, name = path.name.split(".", 2)
    return int(block), attempt, name


def recovery(num_blocks: int) -> tuple[Phase, ...]:
    return (lambda objects, _: recover(objects, num_blocks),)


def finish(num_blocks: int, attempt: str) -> tuple[Phase, ...]:
    """A driver's start: recover, then compute what is pending."""

    def look(objects: Any, told: object) -> frozenset[int]:
        del told
        return frozenset(range(num_blocks)) - frozenset(read_commits(objects, num_blocks))

    def compute(block: int, phase: Phase, first: bool) -> Phase:
        def act(objects: Any, told: Any) -> Any:
            pending, inner = (told, None) if first else told
            return (pending, phase(objects, inner)) if block in pending else (pending, None)

        return act

    phases = [*recovery(num_blocks), look]
    for block in range(num_blocks):
        steps = write(block, attempt)
        phases += [compute(block, step, first=index == 0 and block == 0) for index, step in enumerate(steps)]
    return tuple(phases)


def seal_records(num_blocks: int) -> tuple[Phase, ...]:
    """What the seal does to records and files."""

    def act(objects: Any, told: object) -> None:
        del told
        commits = read_commits(objects, num_blocks)
        for commit in commits.values() if objects.stages else ():
            publish(objects, commit)
        if len(commits) == num_blocks:
            pack(objects, commits)

    return *recovery(num_blocks), act


def repair(block: int) -> tuple[Phase, ...]:
    return (lambda objects, _: drop_block(objects, block),)
