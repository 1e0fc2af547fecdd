"""Thousands of corruptions, one after the other: each must be found at level 2, located exactly, and taken back.

    python -m lrh_ray.testing.corruption_campaign STORE --count 10000 --older OTHER_STORE

prints one JSON object: how many corruptions of each kind were done, and the seeds of those that were missed. The store
is changed in place and put back after every one, so work on a copy.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from lrh_ray.records import Plain
from lrh_ray.store.findings import Verdict
from lrh_ray.store.objects import Location
from lrh_ray.store.verify import verify
from lrh_ray.testing.corruption import Corruption, CorruptionLab

PAIR = {"commits/packed.jsonl", "manifest.json"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Campaign:
    """What a run of corruptions gave."""

    done: dict[str, int]
    """Corruptions by kind of object and by what was done to it, as "kind/how"."""
    missed: tuple[str, ...]
    """Corruptions that were not found, or found at other rows; with their seeds."""

    def as_plain(self) -> dict[str, Plain]:
        return {"count": sum(self.done.values()), "done": dict(sorted(self.done.items())), "missed": list(self.missed)}


def run_campaign(location: Location, seeds: Iterable[int], count: int, *, older: Sequence[Location] = ()) -> Campaign:
    """Do and undo `count` corruptions from the given seeds; those that would change nothing do not count."""
    lab = CorruptionLab(location, older=older)
    done: Counter[str] = Counter()
    missed = []
    damages = ((seed, damage) for seed in seeds if (damage := lab.corrupt(seed)) is not None)
    for seed, damage in islice(damages, count):
        wrong = mistake(verify(location, 2), damage, lab.num_rows)
        damage.undo()
        if wrong is not None:
            missed.append(f"seed {seed}: {damage.how} of {', '.join(damage.keys)}: {wrong}")
        done[f"{damage.kind}/{damage.how}"] += 1
    return Campaign(done=dict(done), missed=tuple(missed))


def mistake(verdict: Verdict, damage: Corruption, num_rows: int) -> str | None:
    """None if the verdict names exactly the objects and rows that were harmed; else what is wrong with it."""
    if damage.how == "stale" and set(damage.keys) <= PAIR:
        return _of_a_pair(verdict)
    named = {(one.key, one.block, one.site, one.rows or (0, num_rows - 1)) for one in verdict.findings}
    harmed = {(harm.key, harm.block, harm.site, harm.rows) for harm in damage.harms}
    if named == harmed:
        return None
    return f"not named: {sorted(map(str, harmed - named))}; named and whole: {sorted(map(str, named - harmed))}"


def _of_a_pair(verdict: Verdict) -> str | None:
    """Pack and manifest of two times contradict one another and, where rows changed, the blocks that a pack denies."""
    names = {one.key for one in verdict.findings}
    strange = [one.key for one in verdict.findings if one.key not in PAIR and one.part != "block"]
    return None if names & PAIR and not strange else f"named {sorted(names)}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Corrupt a copy of a store again and again.")
    parser.add_argument("store")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--older", action="append", default=[])
    asked = parser.parse_args(arguments)
    seeds = range(asked.first_seed, asked.first_seed + 10 * asked.count)
    campaign = run_campaign(asked.store, seeds, asked.count, older=asked.older)
    sys.stdout.write(json.dumps(campaign.as_plain()) + "\n")
    return 1 if campaign.missed else 0


if __name__ == "__main__":
    sys.exit(main())
