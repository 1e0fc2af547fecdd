"""A result as trackers want it: series by step, final numbers, settings; flat, with names that all of them take.

    log = log_of(result)
    log.series[0].name      # "training/loss/resid.15/topk"
    log.finals              # {"fvu/resid.15/topk": .31, "fvu/resid.15/topk/low": .29, ...}

A measure's interval and controls go with it, under its name: a number without them is not tracked.

What can go wrong: numbers that are not finite have no place in a tracker, and are left out.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lrh_ray.artifacts import result_digest
from lrh_ray.errors import PathUnusable
from lrh_ray.records import Measure, Result
from lrh_ray.report.curves import curves_of
from lrh_ray.report.outline import facts

FORBIDDEN = re.compile(r"[^\w.\-/]")
"""What the name of a number may not have; TensorBoard and MLflow are the strictest."""

PROJECT = "lrh_ray"
"""What runs are filed under."""

MOST_SETTINGS = 1000
PLACED = ("layer",)
"""Keys that say nothing beside the others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """A number by step."""

    name: str
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLog:
    """What a tracker gets of one result; `digest` is that of its question."""

    kind: str
    title: str
    digest: str
    summary: tuple[str, ...]
    settings: Mapping[str, str]
    series: tuple[Series, ...]
    finals: Mapping[str, float]

    @property
    def name(self) -> str:
        """Of the run: the same for the same question."""
        return f"{self.kind}-{self.digest[:12]}"

    @property
    def last_step(self) -> int:
        return max((step for series in self.series for step, _ in series.points), default=0)

    def by_step(self) -> Iterator[tuple[int, dict[str, float]]]:
        """All series side by side, in the order of steps."""
        found: dict[int, dict[str, float]] = {}
        for series in self.series:
            for step, value in series.points:
                found.setdefault(step, {})[series.name] = value
        yield from sorted(found.items())


def log_of(result: Result) -> RunLog:
    """Everything of a result that a tracker has a place for."""
    return RunLog(
        kind=allowed(result.kind),
        title=result.title,
        digest=result_digest(result),
        summary=result.summary,
        settings={fact.name: fact.value for fact in facts(result.resolved, limit=MOST_SETTINGS)},
        series=tuple(_series(result)),
        finals=dict(_finals(result)),
    )


def new_place(place: Path) -> Path:
    """The folder of a new run.

    Raises:
        PathUnusable: There is something already.
    """
    if place.exists() and any(place.iterdir()):
        raise PathUnusable(f"{place} has the run already. Delete it, or give another folder.")
    place.mkdir(parents=True, exist_ok=True)
    return place


def allowed(name: str) -> str:
    """A name with underscores for what a tracker would refuse."""
    return FORBIDDEN.sub("_", name)


def _series(result: Result) -> Iterator[Series]:
    for curve in curves_of(result):
        steps, values = curve.steps.round().astype(int).tolist(), curve.values.tolist()
        points = tuple(dict(zip(steps, values, strict=True)).items())
        if points:
            yield Series(name=allowed("/".join([curve.table, curve.fact, *curve.of])), points=points)


def _finals(result: Result) -> Iterator[tuple[str, float]]:
    for measure in result.measures:
        name = allowed("/".join([measure.name, *(str(v) for key, v in measure.keys.items() if key not in PLACED)]))
        for suffix, value in _numbers(measure):
            if value is not None and math.isfinite(value):
                yield f"{name}{suffix}", float(value)


def _numbers(measure: Measure) -> Iterator[tuple[str, float | None]]:
    yield from (("", measure.value), ("/low", measure.low), ("/high", measure.high))
    yield from ((f"/{allowed(name)}", value) for name, value in measure.controls.items())
