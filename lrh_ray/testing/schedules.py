"""Every order in which writers, drivers and crashes can meet, and what must hold in all of them.

The problem: a commit protocol is wrong in the one interleaving that nobody tried. The idea: the programs of
`lrh_ray.testing.actors` run as machines (`lrh_ray.testing.machines`) on a store in memory; at every operation any of
them may go on, die, or lose an answer. States that nothing can tell apart are visited once, so small scenarios are
explored whole; the number of schedules is the number of paths through the states, and each ending is followed by a
recovery, by a recovery that dies at each of its operations, and by an undisturbed rerun.

    report = Explorer(all_scenarios()["twins-posix"]).explore()
    report.schedules, report.states

Laws, checked after every operation:
    * A committed block keeps its attempt, unless it is dropped.
    * Its objects are that attempt's bytes: at their keys (or, staged in the store and not acknowledged, still there).
    * A writer that is told "committed" is; one that is told "not" lost to another.
After the rerun: every block is committed and readable, and nothing else is in the store.

A broken law is a `LawBroken` whose message ends with one line that `replay` runs again.
"""

import json
from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from lrh_ray.errors import AttemptSuperseded, LrhError, StoreCorrupt
from lrh_ray.store.commit_records import object_key, record_key, staged_key
from lrh_ray.store.commits import PACK
from lrh_ray.testing.actors import NAMES, finish, payload, recovery, scratch
from lrh_ray.testing.machines import Failure, Machine, Node, Outcome, Phase, Request, asked, perform
from lrh_ray.testing.memory import MemoryObjects

LAST = "f9"
READS = ("get", "list", "linked")
Fault = Literal["error", "lost", "retried", "late"]
LOST = Failure("injected: the request failed or its answer was lost")


class LawBroken(AssertionError):
    """A schedule after which the store, or what a writer was told, is wrong."""


@dataclass(frozen=True, kw_only=True)
class Actor:
    """One process of a scenario.

    Args:
        program: What it does, phase by phase.
        writes: Block and attempt, for a writer whose return value is checked.
        after: Actors that must have ended before it starts.
        drops: It may take commits back.
    """

    program: tuple[Phase, ...]
    writes: tuple[int, str] | None = None
    after: tuple[str, ...] = ()
    drops: bool = False


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Who meets in which kind of store, and how many things go wrong."""

    name: str
    stages: bool
    num_blocks: int
    actors: dict[str, Actor]
    attempts: tuple[str, ...]
    crashes: int = 1
    faults: int = 0
    kinds: tuple[Fault, ...] = ("error", "lost", "retried")
    tags: Literal["unique", "content"] = "unique"
    switches: int = -1


class Move(NamedTuple):
    """One step of a schedule: an actor goes on, dies, meets a fault, or its late request arrives."""

    actor: int
    how: str


class Moment(NamedTuple):
    """Everything that decides how a schedule can go on."""

    objects: MemoryObjects
    store: int
    nodes: tuple[Node, ...]
    gone: tuple[bool, ...]
    crashes: int
    faults: int
    late: tuple[tuple[str, Request], ...]
    acknowledged: frozenset[tuple[int, str]]
    running: int
    switches: int


@dataclass(kw_only=True)
class Report:
    """What was explored."""

    schedules: int = 0
    states: int = 0
    stores: int = 0
    operations: int = 0
    endings: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)


class Explorer:
    """Explores one scenario.

    Args:
        scenario: Who meets.
        merge: False: every schedule is run by itself, also where it leads to a state already visited.
    """

    def __init__(self, scenario: Scenario, *, merge: bool = True) -> None:
        self.scenario, self.report, self._merge = scenario, Report(), merge
        number = scenario.num_blocks
        self._scratch = scratch(range(number), (*scenario.attempts, LAST))
        self._names = tuple(scenario.actors)
        self._actors = tuple(scenario.actors.values())
        self._after = tuple(tuple(self._names.index(name) for name in actor.after) for actor in self._actors)
        self._machines = tuple(self._machine(actor.program) for actor in self._actors)
        self._recovery = self._machine(recovery(number))
        self._rerun = self._machine(finish(number, LAST))
        self._counts: dict[Hashable, int] = {}
        self._endings: dict[int, int] = {}
        self._stores: dict[Hashable, int] = {}
        self._truths: dict[int, tuple[str | None, ...]] = {}
        self._sound: set[tuple[int, frozenset[tuple[int, str]]]] = set()
        self._path: list[Move] = []

    def _machine(self, program: tuple[Phase, ...]) -> Machine:
        return Machine(program, stages=self.scenario.stages, scratch=self._scratch)

    @property
    def num_nodes(self) -> int:
        return sum(machine.num_nodes for machine in (*self._machines, self._recovery, self._rerun))

    def begin(self) -> Moment:
        objects = MemoryObjects(self.scenario.stages, tags=self.scenario.tags, scratch=self._scratch)
        return Moment(
            objects=objects,
            store=self._number(objects),
            nodes=tuple(machine.start for machine in self._machines),
            gone=tuple(machine.start.outcome is not None for machine in self._machines),
            crashes=self.scenario.crashes,
            faults=self.scenario.faults,
            late=(),
            acknowledged=frozenset(),
            running=-1,
            switches=self.scenario.switches,
        )

    def explore(self) -> Report:
        """Visit every schedule.

        Raises:
            LawBroken: One of them breaks a law.
        """
        self.report.schedules = self._count(self.begin())
        self.report.states, self.report.stores = len(self._counts), len(self._stores)
        return self.report

    def replay(self, line: str) -> Moment:
        """Run one schedule as a broken law printed it, and its endings.

        Raises:
            LawBroken: As it did before.
        """
        moment = self.begin()
        for word in line.split():
            actor, _, how = word.partition(":")
            self._path.append(Move(self._names.index(actor), how or "step"))
            moment = self.apply(moment, self._path[-1])
        if not any(True for _ in self.moves(moment)):
            self._end(moment)
        return moment

    def _count(self, moment: Moment) -> int:
        key = None
        if self._merge:
            nodes = tuple([-1 if gone else node.number for gone, node in zip(moment.gone, moment.nodes, strict=True)])
            key = (moment.store, nodes, *moment[4:])
            if (known := self._counts.get(key)) is not None:
                return known
        total, stuck = 0, True
        for move in self.moves(moment):
            stuck = False
            self._path.append(move)
            total += self._count(self.apply(moment, move))
            self._path.pop()
        if stuck:
            total = self._end(moment)
        if key is not None:
            self._counts[key] = total
        return total

    def _number(self, objects: MemoryObjects) -> int:
        return self._stores.setdefault(objects.state(), len(self._stores))

    def moves(self, moment: Moment) -> Iterator[Move]:
        """What can happen next."""
        gone = moment.gone
        stays = moment.switches == 0 and moment.running >= 0 and not gone[moment.running]
        for actor, node in enumerate(moment.nodes):
            if gone[actor] or not all(gone[other] for other in self._after[actor]):
                continue
            if stays and actor != moment.running:
                continue
            yield Move(actor, "step")
            if moment.crashes and node is not self._machines[actor].start:
                yield Move(actor, "crash")
            if moment.faults and node.request is not None:
                for kind in self.scenario.kinds:
                    if _can_fail(kind, node.request):
                        yield Move(actor, kind)
        for number, (name, _) in enumerate(moment.late):
            yield Move(self._names.index(name), f"arrives{number}")

    def apply(self, moment: Moment, move: Move) -> Moment:
        """The moment after a move; every law is checked there."""
        self.report.operations += 1
        actor, how = move
        name, node = self._names[actor], moment.nodes[actor]
        objects, late, faults, crashes, ended = moment.objects, moment.late, moment.faults, moment.crashes, False
        if how == "crash":
            objects, crashes, ended = _bury(objects, name), crashes - 1, True
        elif how.startswith("arrives"):
            number = int(how.removeprefix("arrives"))
            objects = objects.copy()
            perform(objects, late[number][1], name)
            late = late[:number] + late[number + 1 :]
        else:
            request = asked(node)
            answer: Hashable = LOST
            if how not in ("error", "late"):
                objects = objects if request[0] in READS else objects.copy()
                answer = perform(objects, request, name)
            if how == "retried":
                answer = perform(objects, request, name)
            if how == "late":
                late = (*late, (name, request))
            node = self._machines[actor].advance(node, LOST if how == "lost" else answer)
            faults -= how != "step"
            ended = node.outcome is not None
        switched = moment.running not in (-1, actor) and not moment.gone[moment.running]
        after = Moment(
            objects,
            moment.store if objects is moment.objects else self._number(objects),
            (*moment.nodes[:actor], node, *moment.nodes[actor + 1 :]),
            (*moment.gone[:actor], True, *moment.gone[actor + 1 :]) if ended else moment.gone,
            crashes,
            faults,
            late,
            moment.acknowledged,
            actor if moment.switches >= 0 else -1,
            moment.switches - 1 if switched and moment.switches > 0 else moment.switches,
        )
        return self._judge(moment, after, move)

    def truth(self, moment: Moment) -> tuple[str | None, ...]:
        """Who is committed, block by block; written without the protocol's code."""
        if moment.store not in self._truths:
            self._truths[moment.store] = read_truth(moment.objects, self.scenario.num_blocks)
        return self._truths[moment.store]

    def _judge(self, before: Moment, after: Moment, move: Move) -> Moment:
        truth = self.truth(after)
        if after.store != before.store:
            for block, (old, new) in enumerate(zip(self.truth(before), truth, strict=True)):
                if old is not None and new != old and not (self._actors[move.actor].drops and new is None):
                    self._break(f"block {block} was committed by {old} and is now {new}")
        outcome = after.nodes[move.actor].outcome
        if outcome is not None and move.how != "crash" and not before.gone[move.actor]:
            told = self._judge_outcome(self._names[move.actor], outcome, truth)
            after = after._replace(acknowledged=after.acknowledged | told) if told else after
        if (after.store, after.acknowledged) not in self._sound:
            for block, attempt in enumerate(truth):
                if attempt is not None:
                    self._judge_objects(after.objects, block, attempt, (block, attempt) in after.acknowledged)
            self._sound.add((after.store, after.acknowledged))
        return after

    def _judge_outcome(self, name: str, outcome: Outcome, truth: tuple[str | None, ...]) -> frozenset[tuple[int, str]]:
        actor = self.scenario.actors[name]
        self.report.outcomes[f"{name}: {outcome.error.__name__ if outcome.error else outcome.value}"] += 1
        may_drop = any(other.drops for other in self._actors)
        if outcome.error is not None:
            if not issubclass(outcome.error, (LrhError, OSError)):
                self._break(f"{name} ended with {outcome.error.__name__}: {outcome.message}")
            if issubclass(outcome.error, StoreCorrupt):
                self._break(f"{name} found a sound store corrupt: {outcome.message}")
            if self.scenario.stages and issubclass(outcome.error, AttemptSuperseded) and not may_drop:
                self._break(f"{name} was superseded where nothing can be claimed")
        elif actor.writes is not None:
            block, attempt = actor.writes
            if outcome.value is True and truth[block] != attempt and not may_drop:
                self._break(f"{name} was told it committed block {block}; the truth is {truth[block]}")
            if outcome.value is False and truth[block] in (None, attempt) and not may_drop:
                self._break(f"{name} was told it lost block {block}; the truth is {truth[block]}")
            if outcome.value is True:
                return frozenset([actor.writes])
        return frozenset()

    def _judge_objects(self, objects: MemoryObjects, block: int, attempt: str, acknowledged: bool) -> None:
        for name in NAMES:
            wanted = payload(block, attempt, name)
            places = [object_key(name, block)]
            if self.scenario.stages and not acknowledged:
                places.append(staged_key(block, attempt, name))
            found = [objects.cells[key].data for key in places if key in objects.cells]
            if wanted not in found:
                self._break(f"block {block} is committed by {attempt} and its {name!r} is {found}")

    def _end(self, moment: Moment) -> int:
        """Recover, with and without dying on the way, and rerun; the number of schedules that end here."""
        if moment.store not in self._endings or not self._merge:
            self._endings[moment.store] = self._judge_ending(moment.objects)
        return self._endings[moment.store]

    def _judge_ending(self, ending: MemoryObjects) -> int:
        node, objects, runs = self._recovery.start, ending.copy(), 0
        while True:
            self._judge_rerun(_bury(objects, "recovery"), runs)
            runs += 1
            if node.outcome is not None:
                return runs
            node = self._recovery.advance(node, perform(objects, asked(node), "recovery"))
            self.report.operations += 1

    def _judge_rerun(self, objects: MemoryObjects, died: int) -> None:
        before = read_truth(objects, self.scenario.num_blocks)
        node = self._rerun.start
        while node.outcome is None:
            node = self._rerun.advance(node, perform(objects, asked(node), "rerun"))
            self.report.operations += 1
        self.report.endings += 1
        told = f"after a recovery that died at its operation {died}, the rerun"
        if node.outcome.error is not None:
            self._break(f"{told} raised {node.outcome.error.__name__}: {node.outcome.message}")
        truth = read_truth(objects, self.scenario.num_blocks)
        wanted = tuple(attempt or LAST for attempt in before)
        if truth != wanted:
            self._break(f"{told} left {truth}; before it was {before}")
        for block, attempt in enumerate(wanted):
            self._judge_objects(objects, block, attempt, acknowledged=True)
        named = {PACK, *(record_key(block) for block in range(len(truth)))}
        named |= {object_key(name, block) for block in range(len(truth)) for name in NAMES}
        if litter := sorted(set(objects.cells) - named):
            self._break(f"{told} left litter: {litter}")

    def _break(self, what: str) -> None:
        raise LawBroken(f"{what}\nreplay: {self.scenario.name} {self._line()}")

    def _line(self) -> str:
        words = [(self._names[move.actor], move.how) for move in self._path]
        return " ".join(name if how == "step" else f"{name}:{how}" for name, how in words)


def _bury(objects: MemoryObjects, name: str) -> MemoryObjects:
    """The store without the locks of a dead process."""
    objects = objects.copy()
    objects.release(name)
    objects.release(f"{name} sweeps")
    return objects


def _can_fail(kind: Fault, request: Request) -> bool:
    if request[0] not in ("get", "put", "move", "list", "remove", "hold"):
        return False
    if kind == "error":
        return True
    return request[0] == "put" if kind in ("retried", "late") else request[0] in ("put", "move", "remove")


def read_truth(objects: MemoryObjects, num_blocks: int) -> tuple[str | None, ...]:
    """Who is committed, block by block: the pack first, then the block's own record."""
    pack = objects.cells.get(PACK)
    packed = {line["block"]: line["attempt"] for line in map(json.loads, pack.data.splitlines() if pack else ())}
    own: dict[int, str] = {}
    for block in range(num_blocks):
        cell = objects.cells.get(record_key(block))
        record = json.loads(cell.data) if cell else {}
        if record.get("state") == "committed":
            own[block] = record["attempt"]
    return tuple(packed.get(block, own.get(block)) for block in range(num_blocks))
