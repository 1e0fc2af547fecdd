"""Programs against a store that stop before every operation, without threads.

The problem: to try every interleaving of two writers, each must be stopped between any two of its operations, and
copied there. Threads cannot be copied and are slow; the protocol is ordinary synchronous code.

The idea: such code is a function of the answers it gets. It is run again from its start with the answers so far, until
it asks for one more operation; that request is what it would do next. Requests are kept in a tree by the answers that
led to them, so each is computed once, and a program in the middle of its work is one node of that tree.

    machine = Machine([lambda objects, _: commit_block(objects, commit, files)], stages=True)
    node = machine.start                         # node.request == ("put", "commits/00000/00000000.json", ...)
    node = machine.advance(node, answer)         # ... until node.outcome says how it ended

A long program is a list of phases, each a function of the objects and of what the phase before returned. What a phase
has been told is forgotten at its end, so that two pasts with the same future become one node.

What can go wrong: a program that depends on anything but its answers (time, randomness) is refused as
`NondeterministicError` when a repeated run asks for something else.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from unittest.mock import patch

from lrh_ray.errors import PathUnusable
from lrh_ray.store.objects import Blob, Entry, Tag
from lrh_ray.testing.memory import MemoryObjects

Request: TypeAlias = tuple[Any, ...]
Phase: TypeAlias = Callable[[Any, Any], Any]
LOST = "the answer is lost"
CHECK_EVERY = 16
DUELS = 3


class NondeterministicError(AssertionError):
    """A program asked for something else when it got the same answers again."""


class Suspended(BaseException):  # no error: it stops a run that needs an answer nobody has yet
    """A program asked for an operation that has no answer yet."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An answer: the operation raised. As `OSError`, because that is what both kinds of stores raise."""

    message: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended: what it returned, or the exception that left it."""

    value: Hashable = None
    error: type[BaseException] | None = None
    message: str = ""


class Node:
    """A program after some answers: its next request, or its outcome."""

    __slots__ = ("answers", "carried", "children", "number", "outcome", "phase", "request")

    def __init__(self, phase: int, carried: Hashable, answers: tuple[Hashable, ...], number: int) -> None:
        self.phase, self.carried, self.answers, self.number = phase, carried, answers, number
        self.children: dict[Hashable, Node] = {}
        self.request: Request | None = None
        self.outcome: Outcome | None = None


class RecordedObjects:
    """`Objects` that answers from a list, and stops the program where the list ends."""

    def __init__(self, stages: bool, scratch: Mapping[str, bytes], answers: tuple[Hashable, ...]) -> None:
        self._stages, self._scratch, self._answers = stages, scratch, answers
        self._asked = 0
        self.request: Request | None = None

    @property
    def location(self) -> str:
        return "recorded"

    @property
    def stages(self) -> bool:
        return self._stages

    def local_path(self, key: str) -> Path | None:
        del key
        return None

    def ask(self, *request: Hashable) -> Any:
        """One operation: its recorded answer, or the end of this run."""
        if self.request is not None or self._asked == len(self._answers):
            self.request = self.request or request
            raise Suspended
        answer = self._answers[self._asked]
        self._asked += 1
        if isinstance(answer, Failure):
            raise PathUnusable(answer.message)
        return answer

    def get(self, key: str, start: int = 0, length: int | None = None) -> Blob | None:
        found: Blob | None = self.ask("get", key, start, length)
        return found

    def put(self, key: str, data: bytes | Path, *, over: Tag | None = None) -> Tag | None:
        if isinstance(data, Path) and self._stages:
            moved: Tag | None = self.ask("move", key, data.as_posix())
            return moved
        content = self._scratch[str(data)] if isinstance(data, Path) else data
        written: Tag | None = self.ask("put", key, content, over)
        return written

    def list(self, prefix: str) -> Iterator[Entry]:
        entries: tuple[Entry, ...] = self.ask("list", prefix)
        return iter(entries)

    def delete(self, key: str, *, unless: Callable[[], bool] = lambda: False) -> bool:
        held: Tag | None = self.ask("hold", key) if self._stages else Tag("")
        if held is None or (not self._stages and unless()):
            return False
        if self._stages and unless():
            self.ask("let_go", held)
            return False
        return bool(self.ask("remove", key, held))


class Machine:
    """A program, and the tree of what it does for every sequence of answers met so far."""

    def __init__(self, phases: Sequence[Phase], *, stages: bool, scratch: Mapping[str, bytes] | None = None) -> None:
        self._phases, self._stages, self._scratch = tuple(phases), stages, dict(scratch or {})
        self._starts: dict[Hashable, Node] = {}
        self.num_nodes = 0
        self.start = self._begin(0, None)

    def advance(self, node: Node, answer: Hashable) -> Node:
        """The program after one more answer."""
        child = node.children.get(answer)
        if child is None:
            child = node.children[answer] = self._expand(node.phase, node.carried, (*node.answers, answer))
        return child

    def _begin(self, phase: int, carried: Hashable) -> Node:
        if (phase, carried) not in self._starts:
            self._starts[phase, carried] = self._expand(phase, carried, ())
        return self._starts[phase, carried]

    def _expand(self, phase: int, carried: Hashable, answers: tuple[Hashable, ...]) -> Node:
        node = Node(phase, carried, answers, self.num_nodes)
        self.num_nodes += 1
        node.request, node.outcome = self._run(node)
        if node.number % CHECK_EVERY == 0 and (node.request, node.outcome) != self._run(node):
            raise NondeterministicError(f"Phase {phase} asked for something else when it was run again.")
        ended = node.outcome
        if ended is not None and ended.error is None and phase + 1 < len(self._phases):
            return self._begin(phase + 1, ended.value)
        return node

    def _run(self, node: Node) -> tuple[Request | None, Outcome | None]:
        objects = RecordedObjects(self._stages, self._scratch, node.answers)
        try:
            with one_reader():
                return None, Outcome(value=self._phases[node.phase](objects, node.carried))
        except Suspended:
            return objects.request, None
        except Exception as error:  # noqa: BLE001  # every way a program ends is an outcome to be judged
            return None, Outcome(error=type(error), message=str(error))


class _InlineReaders:
    """Stands for a pool of reader threads: the order of reads must be the same in every run."""

    def __init__(self, size: int) -> None:
        del size

    def __enter__(self) -> "_InlineReaders":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def map(self, function: Callable[[Any], Any], items: Any) -> Iterator[Any]:
        return map(function, items)


@contextmanager
def one_reader() -> Iterator[None]:
    """Let the protocol read commits one after the other instead of in threads, and end duels after `DUELS` rounds."""
    with patch("lrh_ray.store.commits.ThreadPoolExecutor", _InlineReaders), patch("lrh_ray.store.commits.TRIES", DUELS):
        yield


def asked(node: Node) -> Request:
    """What a program that has not ended asks for."""
    if node.request is None:
        raise AssertionError(f"a program that ended ({node.outcome}) cannot go on")
    return node.request


def perform(objects: MemoryObjects, request: Request, actor: str) -> Hashable:
    """Do one requested operation on a store; its answer."""
    kind, key = request[0], request[1]
    match kind:
        case "get":
            return objects.get(key, request[2], request[3])
        case "put":
            return objects.put(key, request[2], over=request[3])
        case "move":
            return objects.put(key, Path(request[2]))
        case "list":
            return tuple(objects.list(key))
        case "hold":
            return objects.hold(key, f"{actor} sweeps")
        case "let_go":
            objects.let_go(key)
        case "remove":
            if request[2] is not None:
                objects.let_go(request[2])
            existed = key in objects.cells
            objects.remove(key)
            return existed
        case "stage":
            objects.stage(key, request[2], actor)
        case "linked":
            return all(name in objects.cells for name in request[1:])
        case "release":
            objects.release(actor)
        case _:
            raise AssertionError(f"{kind!r} is no request")
    return None
