"""The crash laboratory as a command and as one function: many schedules, counted.

    python -m lrh_ray.testing.crash_lab --size ci
    python -m lrh_ray.testing.crash_lab --replay "zombie-driver-posix Z Z D D Z:crash D"

Two ways of covering schedules, reported apart. `walked`: every schedule with a bounded number of switches is run by
itself to its end, recovery and rerun. `explored`: all interleavings, without a bound; states that nothing can tell
apart are visited once, and the schedules are the paths through them.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from typing import Literal

from lrh_ray.testing.scenarios import all_scenarios
from lrh_ray.testing.schedules import Explorer

sys.setrecursionlimit(20_000)


@dataclass(frozen=True, kw_only=True, slots=True)
class Walk:
    """A scenario with bounds, each schedule of which is run by itself."""

    scenario: str
    switches: int
    crashes: int
    faults: int


WALKS = (
    Walk(scenario="twins-posix", switches=2, crashes=1, faults=0),
    Walk(scenario="twins-posix", switches=1, crashes=1, faults=1),
    Walk(scenario="twins-remote", switches=2, crashes=1, faults=1),
    Walk(scenario="twins-recovery-posix", switches=2, crashes=0, faults=0),
    Walk(scenario="zombie-repair-posix", switches=2, crashes=0, faults=0),
    Walk(scenario="zombie-repair-remote", switches=1, crashes=1, faults=0),
)
QUICK = (
    "twins-posix",
    "triplets-posix",
    "zombie-driver-posix",
    "zombie-drop-posix",
    "two-sealers-posix",
    "twins-remote",
    "neighbours-remote",
    "zombie-driver-remote",
    "zombie-drop-remote",
    "two-sealers-remote",
    "late-remote",
)
KNOWN_BROKEN = ("equal-tags-remote",)


def run(size: Literal["ci", "all"]) -> dict[str, object]:
    """Walk and explore; counts and seconds.

    Raises:
        LawBroken: A schedule broke a law; the message ends with the line that replays it.
    """
    scenarios = all_scenarios()
    started = time.monotonic()
    walked = {}
    for walk in WALKS:
        bounds = {"switches": walk.switches, "crashes": walk.crashes, "faults": walk.faults}
        report = Explorer(replace(scenarios[walk.scenario], **bounds), merge=False).explore()  # type: ignore[arg-type]
        walked[f"{walk.scenario} {json.dumps(bounds)}"] = report.schedules
    walking = time.monotonic() - started
    explored = {}
    for name in QUICK if size == "ci" else [name for name in scenarios if name not in KNOWN_BROKEN]:
        report = Explorer(scenarios[name]).explore()
        explored[name] = {
            "schedules": report.schedules,
            "states": report.states,
            "stores": report.stores,
            "operations": report.operations,
            "endings": report.endings,
        }
    return {
        "schedules_walked": sum(walked.values()),
        "seconds_walking": round(walking, 1),
        "seconds": round(time.monotonic() - started, 1),
        "walked": walked,
        "explored": explored,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=("ci", "all"), default="ci")
    parser.add_argument("--replay", help="a line that a broken law printed")
    options = parser.parse_args()
    if options.replay:
        name, _, line = options.replay.partition(" ")
        Explorer(all_scenarios()[name]).replay(line)
        sys.stdout.write("every law holds\n")
        return
    sys.stdout.write(json.dumps(run(options.size), indent=1) + "\n")


if __name__ == "__main__":
    main()
