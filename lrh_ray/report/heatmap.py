"""Concepts by sites as a table of shaded numbers: the whole result at a glance.

Each cell is the best measure at that site over the other keys (probes, penalties ...), with its interval below it and
its null band in the last column of the row, because a shade alone says nothing about chance. A cell whose interval
does not leave its null band is marked by a hollow ring; a flagged one by a dagger.

    heat = heat_of([m for m in result.measures if m.name == "auc"], low=0.4, high=1.0)

It is an HTML table, not a drawing: numbers can be read aloud, selected and copied, and it scrolls on a phone.

What can go wrong: shades compare only within one table, whose ends are the ends of the figure's y-axis.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lrh_ray.records import Measure
from lrh_ray.report.numbers import NO_VALUE, interval, label, number, readable
from lrh_ray.report.ranking import best_per_concept, clears_null, lower_is_better, rank, subject
from lrh_ray.report.series import drawable, place_index, places_of

INVERTED_FROM = 0.605
"""Shade from which dark text on it is harder to read than light text (in the dark scheme the other way round)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatCell:
    """One number; `shade` in [0, 1], None for an empty cell."""

    text: str
    interval: str
    shade: float | None = None
    inverted: bool = False
    best: bool = False
    weak: bool = False
    flags: tuple[str, ...] = ()
    hint: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatRow:
    """One concept, and the null band of its best measure."""

    subject: str
    cells: tuple[HeatCell, ...]
    null: str


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatMap:
    """`choices` is how many measures a cell is the best of, at most."""

    sites: tuple[str, ...]
    rows: tuple[HeatRow, ...]
    choices: int
    omitted: int

    @property
    def has_null(self) -> bool:
        return any(row.null != NO_VALUE for row in self.rows)

    @property
    def has_weak(self) -> bool:
        return any(cell.weak for row in self.rows for cell in row.cells)

    @property
    def flags(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(flag for row in self.rows for cell in row.cells for flag in cell.flags))


def heat_of(measures: Sequence[Measure], *, low: float, high: float, limit: int) -> HeatMap:
    """The table of measures of one metric; the best concept comes first, `limit` rows at most."""
    places = places_of(measures)
    grouped: dict[str, list[list[Measure]]] = {}
    for measure in measures:
        index = place_index(measure, places)
        if index is not None:
            grouped.setdefault(subject(measure), [[] for _ in places])[index].append(measure)
    ordered = [(best, grouped[subject(best)]) for best in best_per_concept(measures) if subject(best) in grouped]
    return HeatMap(
        sites=tuple(readable(place.label, 40) for place in places),
        rows=tuple(_row(best, cells, low, high) for best, cells in ordered[:limit]),
        choices=max((len(cell) for cells in grouped.values() for cell in cells), default=0),
        omitted=max(0, len(ordered) - limit),
    )


def _row(best: Measure, cells: Sequence[Sequence[Measure]], low: float, high: float) -> HeatRow:
    chosen = [min(cell, key=rank) if cell else None for cell in cells]
    return HeatRow(
        subject=readable(subject(best), 60) or label(best.name),
        cells=tuple(_cell(measure, best, low, high) for measure in chosen),
        null=interval(best.controls.get("null_low"), best.controls.get("null_high")),
    )


def _cell(measure: Measure | None, best: Measure, low: float, high: float) -> HeatCell:
    if measure is None or not drawable(measure.value):
        return HeatCell(text=NO_VALUE, interval="" if measure is None else number(measure.value))
    share = (measure.value - low) / (high - low) if high > low else 0.5
    shade = min(1.0, max(0.0, 1.0 - share if lower_is_better(measure.name) else share))
    said = ", ".join(f"{key} {value}" for key, value in measure.keys.items())
    controls = ", ".join(f"{name} {number(value)}" for name, value in measure.controls.items())
    return HeatCell(
        text=number(measure.value),
        interval=_ends(measure),
        shade=round(shade, 3),
        inverted=shade >= INVERTED_FROM,
        best=measure is best,
        weak=clears_null(measure) is False,
        flags=tuple(readable(flag, 120) for flag in measure.flags),
        hint=readable("; ".join(part for part in (said, controls) if part), 300),
    )


def _ends(measure: Measure) -> str:
    if measure.low is None and measure.high is None:
        return ""
    return f"{number(measure.low)}–{number(measure.high)}"
