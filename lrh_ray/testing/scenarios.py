"""The scenarios of the crash laboratory, by name: `twins-posix`, `zombie-repair-remote` and so on.

    twins           two writers of one block
    twins-recovery  the same, while a second driver starts and sweeps
    triplets        three writers of one block
    neighbours      writers of two blocks, while a second driver starts
    zombie-driver   a writer that may wake at any time, while a driver finishes and seals; if it dies, another one
    zombie-drop     the same, while a driver drops the block as it finds it, computes it again and seals
    zombie-repair   the same, while the driver seals, drops the block, computes it again and seals again
    two-sealers     two drivers that finish and seal at once
    late            writers whose requests arrive after they gave up waiting (object stores)
    equal-tags      as triplets, on a store whose tags name contents; two of the writers compute the same bytes

Not here: two drivers that seal and repair at once, which the protocol leaves to whoever starts them.
"""

from collections.abc import Mapping
from dataclasses import replace

from lrh_ray.testing.actors import finish, recovery, repair, seal_records, write
from lrh_ray.testing.schedules import Actor, Scenario

ATTEMPTS = ("a1", "b2", "c3", "d4", "e1")


def _writer(block: int, attempt: str) -> Actor:
    return Actor(program=write(block, attempt), writes=(block, attempt))


def _driver(attempt: str, after: tuple[str, ...] = ()) -> Actor:
    return Actor(program=(*finish(1, attempt), *seal_records(1)), after=after)


def _dropper() -> Actor:
    return Actor(program=(*repair(0), *finish(1, "b2"), *seal_records(1)), drops=True)


def _repairer() -> Actor:
    life = (*finish(1, "b2"), *seal_records(1), *repair(0), *finish(1, "c3"), *seal_records(1))
    return Actor(program=life, drops=True)


def _scenarios(stages: bool) -> list[Scenario]:
    a, b, c = _writer(0, "a1"), _writer(0, "b2"), _writer(0, "c3")
    base = Scenario(name="", stages=stages, num_blocks=1, actors={}, attempts=ATTEMPTS)
    then = _driver("d4", after=("D",))
    return [
        replace(base, name="twins", actors={"A": a, "B": b}, crashes=2, faults=1),
        replace(base, name="twins-recovery", actors={"A": a, "B": b, "R": Actor(program=recovery(1))}),
        replace(base, name="triplets", actors={"A": a, "B": b, "C": c}),
        replace(
            base,
            name="neighbours",
            num_blocks=2,
            actors={"A": a, "B": _writer(1, "b2"), "R": Actor(program=recovery(2))},
        ),
        replace(base, name="zombie-driver", actors={"Z": a, "D": _driver("b2"), "E": then}),
        replace(base, name="zombie-drop", actors={"Z": a, "D": _dropper(), "E": then}),
        replace(base, name="zombie-repair", actors={"Z": a, "D": _repairer(), "E": then}),
        replace(base, name="two-sealers", actors={"D": _driver("b2"), "E": _driver("c3")}),
    ]


def all_scenarios() -> Mapping[str, Scenario]:
    """Every scenario, on both kinds of stores where both apply."""
    found = [
        replace(scenario, name=f"{scenario.name}-{'posix' if stages else 'remote'}")
        for stages in (True, False)
        for scenario in _scenarios(stages)
    ]
    writers = {"A": _writer(0, "a1"), "B": _writer(0, "b2")}
    base = Scenario(name="", stages=False, num_blocks=1, actors=writers, attempts=ATTEMPTS)
    late = {**writers, "D": _driver("c3", after=("A", "B"))}
    found.append(replace(base, name="late-remote", actors=late, crashes=0, faults=2, kinds=("late",)))
    equal = {**writers, "C": _writer(0, "e1")}
    found.append(replace(base, name="equal-tags-remote", actors=equal, tags="content"))
    return {scenario.name: scenario for scenario in found}
