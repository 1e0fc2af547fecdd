"""Measures as panels of lines: what a figure shows, before anything is drawn.

The rule is generic. A measure's place on the x-axis is its `site`, ordered by its numeric `layer`; sites without a
layer (such as a final norm) are categories at the right. Its panel is its `concept`. Every other key that varies
(`probe`, a penalty, a seed ...) makes a line; where several sites share a layer, the stem of the site's name
(`resid`, `attn_out`) does too. Measures that count `dimensions` have that number as x, and a panel for each concept at
each site. So have measures of a known world, where x is how it was set (its `noise`, say).

    chart = chart_of([m for m in result.measures if m.name == "auc"])
    [panel.subject for panel in chart.panels]   # best concept first

What can go wrong: measures without a `site` or a `layer` have no axis; `chart_of` returns None and the tables speak.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

from lrh_ray.records import Measure
from lrh_ray.report.ranking import CONTROL, COUNTED, axis_of, best_per_concept, subject, subject_word

AXIS_KEYS = ("site", "layer", *COUNTED)
SIGNED = ("dose",)
"""Axes of numbers that may be negative; the others are logarithmic."""
NULL_CONTROLS = ("null_low", "null_high")
SHUFFLED = "shuffled"
REFERENCES = ("majority", "chance", "ceiling", "token_only", "isotropic", "principal_components", "linear_components")
"""Controls drawn as a dashed line at their own height."""

FLOORS = {"share": -0.25}
"""Metrics that fall without bound where a probe is wrong and sure of it: figures end there, and draw the rest there."""

MAX_TICKS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """One position on the x-axis. `layer` is None for a category, which stands to the right of all layers.

    A number of dimensions, or a setting of a world, stands where a layer does, as a rule at its logarithm, and is
    `counted`.
    """

    label: str
    layer: float | None
    counted: bool = False

    @property
    def tick(self) -> str:
        """What the axis says there; of a category its label is shortened."""
        return self.label if self.counted or self.layer is None else f"{self.layer:g}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """Measures that differ by place only, as (index of the place, measure) in axis order."""

    label: str
    points: tuple[tuple[int, Measure], ...]

    @property
    def is_control(self) -> bool:
        return all(CONTROL in measure.keys for _, measure in self.points)


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One concept: its best measure and all its lines."""

    subject: str
    best: Measure
    lines: tuple[Line, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """Panels of one metric over shared axes; `ticks` of the y-axis span it."""

    metric: str
    unit: str
    places: tuple[Place, ...]
    line_labels: tuple[str, ...]
    panels: tuple[Panel, ...]
    ticks: tuple[float, ...]
    cut: bool
    """Whether values lie below the first tick, where they are drawn."""


def chart_of(measures: Sequence[Measure]) -> Chart | None:
    """Panels of the measures of one metric; None when there is nothing to put on an x-axis or no finite value."""
    placed = [measure for measure in measures if _place(measure) is not None]
    values = [value for measure in placed for value in _heights(measure)]
    if not values:
        return None
    places = places_of(placed)
    labels = _line_labels(placed)
    low, high = min(values), max(values)
    floor = min(FLOORS.get(placed[0].name, low), high)
    ticks = nice_ticks(max(low, floor), high)
    return Chart(
        metric=placed[0].name,
        unit=placed[0].unit,
        places=places,
        line_labels=tuple(dict.fromkeys(labels)),
        panels=_panels(placed, labels, places),
        ticks=ticks,
        cut=floor > low and ticks[0] > low,
    )


def places_of(measures: Sequence[Measure]) -> tuple[Place, ...]:
    """The distinct places in axis order: by layer, then those without one, each in order of appearance."""
    found = dict.fromkeys(place for measure in measures if (place := _place(measure)) is not None)
    return tuple(sorted(found, key=lambda place: (place.layer is None, place.layer or 0.0)))


def place_index(measure: Measure, places: Sequence[Place]) -> int | None:
    place = _place(measure)
    return None if place is None else places.index(place)


def drawable(value: float | None) -> TypeGuard[float]:
    """Whether a value has a place in a figure: it exists, is finite, and leaves room for arithmetic on axes."""
    return value is not None and abs(value) < 1e100


def nice_ticks(low: float, high: float) -> tuple[float, ...]:
    """At most MAX_TICKS + 1 round numbers that enclose [low, high]; two or more."""
    span = high - low
    if span < 1e-9 * max(abs(low), abs(high), 1e-9):  # one number, or rounding noise around it
        span = abs(high) if abs(high) > 1e-9 else 1.0
    decade = 10.0 ** math.floor(math.log10(span / MAX_TICKS))
    step = next(factor * decade for factor in (1, 2, 2.5, 5, 10) if factor * decade * MAX_TICKS >= span * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(index * step for index in range(first, max(last, first + 1) + 1))


def _place(measure: Measure) -> Place | None:
    axis = axis_of(measure)
    layer, site, count = (measure.keys.get(key) for key in ("layer", "site", axis or ""))
    if isinstance(count, int | float) and (axis in SIGNED or count > 0):
        return Place(
            label=f"{count:g}".replace("-", "−"), layer=count if axis in SIGNED else math.log(count), counted=True
        )
    number = None if layer is None or isinstance(layer, str) or not math.isfinite(layer) else float(layer)
    if site is not None:
        return Place(label=str(site), layer=number)
    return None if layer is None else Place(label=f"{layer:g}" if number is not None else str(layer), layer=number)


def _heights(measure: Measure) -> list[float]:
    """Every finite value of a measure that a panel draws."""
    drawn = [measure.value, measure.low, measure.high]
    drawn += [measure.controls.get(name) for name in (*NULL_CONTROLS, SHUFFLED, *REFERENCES)]
    return [value for value in drawn if drawable(value)]


def _line_labels(measures: Sequence[Measure]) -> list[str]:
    """The line of each measure: its other keys where they vary, and the stem of its site where layers are shared."""
    axes = (*AXIS_KEYS, subject_word(measures))
    names = list(dict.fromkeys(key for measure in measures for key in measure.keys if key not in axes))
    varying = [name for name in names if len({str(measure.keys.get(name)) for measure in measures}) > 1]
    shown = varying or names[:1]
    stems = {_stem(measure) for measure in measures} - {None}
    labels = []
    for measure in measures:
        parts = [str(measure.keys[name]) for name in shown if name in measure.keys]
        stem = _stem(measure) if len(stems) > 1 else None
        labels.append(" ".join(parts if stem is None else [*parts, stem]))
    return labels


def _stem(measure: Measure) -> str | None:
    place = _place(measure)
    return None if place is None or place.layer is None or place.counted else place.label.rpartition(".")[0]


def _panels(measures: Sequence[Measure], labels: Sequence[str], places: Sequence[Place]) -> tuple[Panel, ...]:
    index_of = {place: index for index, place in enumerate(places)}
    grouped: dict[str, dict[str, dict[int, Measure]]] = {}
    for measure, label in zip(measures, labels, strict=True):
        place = _place(measure)
        if place is not None:
            points = grouped.setdefault(subject(measure), {}).setdefault(label, {})
            points.setdefault(index_of[place], measure)
    return tuple(
        Panel(
            subject=subject(best),
            best=best,
            lines=tuple(
                Line(label=label, points=tuple(sorted(points.items(), key=lambda point: point[0])))
                for label, points in grouped[subject(best)].items()
            ),
        )
        for best in best_per_concept(measures)
    )
