"""Numbers of trials over seeds: means, with intervals.

    rows = summarise(direct_test((0.3, 0.01), seeds=5))
    rows = tabulate(sphere_test((10.0, 50.0), seeds=3), lambda trial: {"concentration": trial.concentration},
                    lambda trial: {"R^2": trial.trained.points, **trial.controls})

What can go wrong: an interval over fewer than three seeds says nothing; one seed has none.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from scipy.special import stdtrit

from lrh_ray.analyses.worlds.direct import DirectTrial
from lrh_ray.records import Plain

LEVEL = 0.95
Trial = TypeVar("Trial")
Key: TypeAlias = str | int | float


def tabulate(
    trials: Sequence[Trial],
    place: Callable[[Trial], Mapping[str, Key]],
    numbers: Callable[[Trial], Mapping[str, float]],
) -> list[dict[str, Plain]]:
    """A row for every place, in the order of the trials: each number's mean over seeds, with its 95 % interval."""
    rows: list[dict[str, Plain]] = []
    for here, own in by_place(trials, place):
        found = [numbers(trial) for trial in own]
        means = {name: over_seeds([each[name] for each in found]) for name in found[0]}
        rows.append({**here, "seeds": len(own), **means})
    return rows


def by_place(
    trials: Sequence[Trial], place: Callable[[Trial], Mapping[str, Key]]
) -> list[tuple[dict[str, Key], list[Trial]]]:
    """Every place with its own trials, in the order in which places appear."""
    found: dict[tuple[tuple[str, Key], ...], list[Trial]] = {}
    for trial in trials:
        found.setdefault(tuple(place(trial).items()), []).append(trial)
    return [(dict(here), own) for here, own in found.items()]


@runtime_checkable
class Noisy(Protocol):
    """A trial in a world whose next token tells nothing for some of the time."""

    @property
    def noise(self) -> float: ...


def at_noise(trial: Noisy) -> dict[str, float]:
    """The place of a trial in a world of A1 (`analyses.worlds.direct`)."""
    return {"noise": trial.noise}


def summarise(trials: Sequence[DirectTrial]) -> list[dict[str, Plain]]:
    """Per noise level, in the order of the trials: each number of A1, and its controls apart."""

    rows = tabulate(trials, at_noise, _numbers)
    controls = tabulate(trials, at_noise, lambda trial: trial.controls)
    apart = [{name: row[name] for name in trials[0].controls} for row in controls]
    return [{**row, "controls": own} for row, own in zip(rows, apart, strict=True)]


def _numbers(trial: DirectTrial) -> dict[str, float]:
    return {
        "error": trial.error,
        "population": trial.population,
        "logits": trial.trained.logits,
        "features": trial.trained.features,
        "divergence": trial.trained.divergence,
    }


def over_seeds(values: Sequence[float]) -> dict[str, Plain]:
    """Mean, and the interval of Student's t over independent seeds."""
    mean, num = float(np.mean(values)), len(values)
    if num < 2:
        return {"mean": mean, "low": None, "high": None}
    reach = float(stdtrit(num - 1, (1 + LEVEL) / 2) * np.std(values, ddof=1) / np.sqrt(num))
    return {"mean": mean, "low": mean - reach, "high": mean + reach}
