"""Which numbers come first: the primary metric, the best measure of a concept, and whether it clears its null.

A run of 7 sites, 12 concepts and 3 probes makes hundreds of measures; a reader needs the dozen that answer the
question. The choice uses names and controls only: `auc`, else `accuracy`, else the first metric; a loss or an error is
better when it is lower.

    metric = primary_metric(result.measures)
    for measure in best_per_concept([m for m in result.measures if m.name == metric]): ...

What can go wrong: the best of many is biased upwards. Every view that shows a best one says out of how many, and
shows its null band beside it.
"""

import math
from collections.abc import Iterable, Sequence

from lrh_ray.records import Measure

PREFERRED_METRICS = ("auc", "accuracy")
SUBJECTS = ("concept", "model")
"""Keys that say what a measure is about, the first that it has."""

_LOWER_IS_BETTER = ("loss", "error", "perplexity", "residual", "distance")


def metric_names(measures: Iterable[Measure]) -> tuple[str, ...]:
    """Names of metrics, the primary one first, the others in order of appearance."""
    names = list(dict.fromkeys(measure.name for measure in measures))
    preferred = [name for name in PREFERRED_METRICS if name in names][:1]
    return tuple(dict.fromkeys(preferred + names))


def primary_metric(measures: Iterable[Measure]) -> str | None:
    """The metric that figures show, or None without measures."""
    return next(iter(metric_names(measures)), None)


def lower_is_better(metric: str) -> bool:
    return any(word in metric.lower() for word in _LOWER_IS_BETTER)


def subject(measure: Measure) -> str:
    """What the measure is about: its concept, or its model where it has none, or nothing."""
    return next((str(measure.keys[key]) for key in SUBJECTS if key in measure.keys), "")


def subject_word(measures: Iterable[Measure]) -> str:
    """What the subjects of a result are: concepts, or models where no measure names a concept."""
    found = {key for measure in measures for key in measure.keys}
    return next((key for key in SUBJECTS if key in found), SUBJECTS[0])


def rank(measure: Measure) -> tuple[bool, float]:
    """Sort key, best first; a number that is not finite comes last."""
    if not math.isfinite(measure.value):
        return True, 0.0
    return False, measure.value if lower_is_better(measure.name) else -measure.value


def best_per_concept(measures: Sequence[Measure]) -> tuple[Measure, ...]:
    """The best measure of each concept, best concept first. The measures are of one metric."""
    best: dict[str, Measure] = {}
    for measure in measures:
        standing = best.setdefault(subject(measure), measure)
        if rank(measure) < rank(standing):
            best[subject(measure)] = measure
    return tuple(sorted(best.values(), key=rank))


def clears_null(measure: Measure) -> bool | None:
    """Whether the interval (or the value, without one) lies on the good side of the null band; None without a band."""
    if lower_is_better(measure.name):
        edge = measure.controls.get("null_low")
        pessimistic = measure.value if measure.high is None else measure.high
        return None if edge is None else pessimistic < edge
    edge = measure.controls.get("null_high")
    pessimistic = measure.value if measure.low is None else measure.low
    return None if edge is None else pessimistic > edge
