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
SUBJECTS = ("concept", "autoencoder", "model", "measure", "graph")
"""Keys that say what a measure is about, the first that it has."""

COUNT = "dimensions"
"""The key of a measure that is about so many of what a site has; it is the x-axis, and the site belongs to the subject.
"""

SETTINGS = ("bits", "concentration", "noise", "dose")
"""Keys that say how a known world was set, or what was done in it; the one that a measure has is its x-axis."""

COUNTED = (COUNT, *SETTINGS)
CONTROL = "control"
"""The key of a measure that is itself a control: a line among the others, and never the best of them."""

_LOWER_IS_BETTER = (
    "loss",
    "error",
    "perplexity",
    "residual",
    "distance",
    "divergence",
    "leakage",
    "fvu",
    "dead",
    "absorption",
    "description_length",
    "length_over",
)


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
    """What the measure is about: its concept, or its model where it has none, or nothing; at its site if it counts."""
    name = next((str(measure.keys[key]) for key in SUBJECTS if key in measure.keys), "")
    return f"{name} at {measure.keys['site']}" if {COUNT, "site"} <= measure.keys.keys() else name


def subject_word(measures: Iterable[Measure]) -> str:
    """What the subjects of a result are: concepts, or models where no measure names a concept."""
    found = {key for measure in measures for key in measure.keys}
    return next((key for key in SUBJECTS if key in found), SUBJECTS[0])


def axis_of(measure: Measure) -> str | None:
    """The key whose number is its x, where that is neither a layer nor a site."""
    return next((key for key in COUNTED if key in measure.keys), None)


def axis_word(axis: str) -> str:
    """How such an axis is called."""
    return f"number of {axis}" if axis in (COUNT, "bits") else axis


def where(measure: Measure) -> list[str]:
    """At what site and with what else it was found."""
    others = {key: value for key, value in measure.keys.items() if key not in (*SUBJECTS, "layer")}
    return [_placed(key, value) for key, value in others.items()]


def _placed(key: str, value: str | int | float) -> str:
    if key in COUNTED:
        number = value if isinstance(value, str) else f"{value:g}"
        return f"{key} {number}" if axis_word(key) == key else f"{number} {key}"
    return str(value)


def rank(measure: Measure) -> tuple[bool, bool, float]:
    """Sort key, best first; controls come after all others, and a number that is not finite after those that are."""
    control = CONTROL in measure.keys
    if not math.isfinite(measure.value):
        return control, True, 0.0
    return control, False, measure.value if lower_is_better(measure.name) else -measure.value


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
