"""Objects that crash, fail or lose an answer at a chosen operation.

    objects = Crashing(LocalObjects(folder), Fault(at=7, kind="lost"))
    with pytest.raises(Crash): ...                       # kinds "crash-before" and "crash-after"

For trying a program against any implementation of `Objects`, at each of its operations in turn: `operations` tells how
many a run made. Orders of several processes are the business of `lrh_ray.testing.schedules`.

After a crash every further operation is a crash too: the process is dead. `Crash` is no `Exception`, so that no handler
of the product can catch it.
"""

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar, get_args

from lrh_ray.errors import PathUnusable, StoreFull
from lrh_ray.store.objects import Blob, Entry, Objects, Tag

Kind = Literal["crash-before", "crash-after", "lost", "retried", "timeout", "full", "io", "unavailable"]
Answer = TypeVar("Answer")
KINDS: tuple[Kind, ...] = get_args(Kind)


class Crash(BaseException):  # no error: it stands for the death of the process
    """The process died here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """What happens at which operation (counted from 0).

    "crash-before" and "crash-after": the process dies without, or with, the operation's effect. "lost": the effect, and
    an error. "retried": the client repeats the request by itself, so the answer is the second one's. The others are
    errors without effect: "timeout", "full" (ENOSPC), "io" (EIO), "unavailable" (503).
    """

    at: int
    kind: Kind


def error_of(kind: Kind) -> OSError:
    """The error that `Objects` raise for it; EIO comes as it is, because nothing is known about the disk then."""
    if kind == "full":
        return StoreFull("No space left (injected). Free some space, then repeat the same command; it resumes.")
    if kind == "io":
        return OSError(errno.EIO, os.strerror(errno.EIO))
    if kind == "unavailable":
        return PathUnusable("The object store did not answer: 503 Slow Down (injected). Repeat the same command.")
    if kind == "timeout":
        return TimeoutError("injected: the request took too long")
    return PathUnusable("The object store did not answer in time (injected). Repeat the same command.")


@dataclass(kw_only=True, slots=True)
class Clock:
    """Counts operations; shared by all wrappers of one process."""

    fault: Fault | None = None
    operations: int = 0
    dead: bool = False
    names: list[str] = field(default_factory=list)


class Crashing:
    """Any `Objects`, with one fault."""

    def __init__(self, objects: Objects, clock: Clock) -> None:
        self._objects, self._clock = objects, clock

    @property
    def location(self) -> str:
        return self._objects.location

    @property
    def stages(self) -> bool:
        return self._objects.stages

    def local_path(self, key: str) -> Path | None:
        return self._objects.local_path(key)

    def get(self, key: str, start: int = 0, length: int | None = None) -> Blob | None:
        return self._act(f"get {key}", lambda: self._objects.get(key, start, length))

    def put(self, key: str, data: bytes | Path, *, over: Tag | None = None) -> Tag | None:
        return self._act(f"put {key}", lambda: self._objects.put(key, data, over=over))

    def list(self, prefix: str) -> Iterator[Entry]:
        return iter(self._act(f"list {prefix}", lambda: list(self._objects.list(prefix))))

    def delete(self, key: str, *, unless: Callable[[], bool] = lambda: False) -> bool:
        return self._act(f"delete {key}", lambda: self._objects.delete(key, unless=unless))

    def _act(self, name: str, operation: Callable[[], Answer]) -> Answer:
        clock = self._clock
        number, clock.operations = clock.operations, clock.operations + 1
        clock.names.append(name)
        if clock.dead:
            raise Crash(name)
        if clock.fault is None or clock.fault.at != number:
            return operation()
        return self._fail(clock.fault.kind, name, operation)

    def _fail(self, kind: Kind, name: str, operation: Callable[[], Answer]) -> Answer:
        if kind in ("crash-after", "lost", "retried"):
            answer = operation()
            if kind == "retried":
                return operation() if not name.startswith("delete") else answer
        if kind.startswith("crash"):
            self._clock.dead = True
            raise Crash(name)
        raise error_of(kind)
