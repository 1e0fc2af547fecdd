"""Numbers of trials over seeds: means, with intervals.

    rows = summarise(direct_test((0.3, 0.01), seeds=5))
    rows = tabulate(sphere_test((10.0, 50.0), seeds=3), lambda trial: {"concentration": trial.concentration},
                    lambda trial: {"R^2": trial.trained.points, **trial.controls})

What can go wrong: an interval over fewer than three seeds says nothing; one seed has none.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from scipy.stats import t

from lrh_ray.analyses.worlds.direct import DirectTrial
from lrh_ray.records import Plain, Scalar

LEVEL = 0.95
Trial = TypeVar("Trial")


def tabulate(
    trials: Sequence[Trial],
    place: Callable[[Trial], Mapping[str, Scalar]],
    numbers: Callable[[Trial], Mapping[str, float]],
) -> list[dict[str, Plain]]:
    """A row for every place, in the order of the trials: each number's mean over seeds, with its 95 % interval."""
    rows: list[dict[str, Plain]] = []
    for here in dict.fromkeys(tuple(place(trial).items()) for trial in trials):
        own = [numbers(trial) for trial in trials if tuple(place(trial).items()) == here]
        means = {name: over_seeds([each[name] for each in own]) for name in own[0]}
        rows.append({**dict(here), "seeds": len(own), **means})
    return rows


def summarise(trials: Sequence[DirectTrial]) -> list[dict[str, Plain]]:
    """Per noise level, in the order of the trials: each number of A1, and its controls apart."""

    def place(trial: DirectTrial) -> dict[str, Scalar]:
        return {"noise": trial.noise}

    rows = tabulate(trials, place, _numbers)
    controls = tabulate(trials, place, lambda trial: trial.controls)
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
    reach = float(t.ppf((1 + LEVEL) / 2, num - 1) * np.std(values, ddof=1) / np.sqrt(num))
    return {"mean": mean, "low": mean - reach, "high": mean + reach}
