"""Numbers against numbers as SVG: lines, areas and marks with their intervals over two axes.

    plot = Plot(heading="loss", x=counted_axis(500, "step"), y=axis_over(losses, "loss"), traces=(trace,), marks=())
    draw_plot(plot, anchor="r1-training-1")

`panels` draws measures by site, whose axis has places; this draws what has a number along both axes. Colours come from
the same CSS classes.

What can go wrong: a value beyond an axis is drawn at its end, which the caption of a figure has to say.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from markupsafe import Markup

from lrh_ray.records import Measure
from lrh_ray.report.axes import Axis
from lrh_ray.report.drawing import element, polyline
from lrh_ray.report.frame import HEIGHT, LEFT, TOP, WIDTH
from lrh_ray.report.margins import MAX_LABEL, beside, end_names, margin, rules
from lrh_ray.report.numbers import interval, number, readable
from lrh_ray.report.panels import PALETTE
from lrh_ray.report.series import drawable

FOOT = 34.0
"""Room below the plotting area, for ticks and the name of the axis."""

LARGE = 1.55
"""How much wider and higher a large plot is, in units of its letters."""

TICK_LETTER = 5.2

Style = Literal["line", "area", "reference", "frontier", "null"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """Points (x, y) joined in their order; an area, and a null, reach down to the foot. A gap is a point that is NaN.

    A `label` is written at the end of a line.
    """

    style: Style
    points: tuple[tuple[float, float], ...]
    label: str = ""
    colour: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A point with its intervals along both axes, and its name beside it."""

    label: str
    colour: int
    x: Measure
    y: Measure


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """One panel of a figure; `note` stands below its heading."""

    heading: str
    x: Axis
    y: Axis
    traces: tuple[Trace, ...] = ()
    marks: tuple[Mark, ...] = ()
    note: str = ""
    large: bool = False

    @property
    def width(self) -> float:
        return WIDTH * LARGE if self.large else WIDTH

    @property
    def height(self) -> float:
        return (HEIGHT + FOOT / 2) * (LARGE if self.large else 1)

    @property
    def right(self) -> float:
        """End of the x-axis: names of lines stand behind it."""
        return self.width - margin([trace.label for trace in self.traces])

    @property
    def foot(self) -> float:
        return self.height - FOOT

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies in the drawing."""
        return LEFT + (self.right - LEFT) * self.x.share(x), TOP + (self.foot - TOP) * (1 - self.y.share(y))


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """What a kind of mark means."""

    kind: str
    words: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """Plots of one kind with what must be said of them; `omitted` counts plots left out."""

    title: str
    caption: str
    keys: tuple[Key, ...]
    plots: tuple[Plot, ...]
    omitted: int = 0


def draw_plot(plot: Plot, *, anchor: str) -> Markup:
    """One plot as an SVG element with a title and a description for those who do not see it."""
    return element(
        "svg",
        element("title", readable(f"{plot.heading}: {plot.y.name} against {plot.x.name}", 160), id=f"{anchor}-t"),
        element("desc", readable(_description(plot), 2000), id=f"{anchor}-d"),
        *rules(plot.right, [(plot.at(plot.x.low, tick)[1], text) for tick, text in plot.y.ticks]),
        *_x_axis(plot),
        *(shape for trace in plot.traces for shape in _trace(plot, trace)),
        *_names(plot),
        *_marks(plot),
        viewBox=f"0 0 {plot.width:g} {plot.height:g}",
        role="img",
        aria_labelledby=f"{anchor}-t {anchor}-d",
        class_="panel",
    )


def colours_of(names: Sequence[str]) -> dict[str, int]:
    """A colour for each distinct name, in order of appearance; the same in every figure that names them in order."""
    return {name: index % PALETTE for index, name in enumerate(dict.fromkeys(names))}


def _description(plot: Plot) -> str:
    lines = [
        f"{trace.label or trace.style}: {number(last[1])} at {plot.x.name} {number(last[0])}."
        for trace in plot.traces
        if (last := next((point for point in reversed(trace.points) if drawable(point[1])), None))
    ]
    marks = [f"{mark.label}: {number(mark.y.value)} at {number(mark.x.value)}." for mark in plot.marks]
    return " ".join([*lines, *marks])


def _x_axis(plot: Plot) -> Iterator[Markup]:
    """Ticks that fit, from the left; the name of the axis below them."""
    reached = 0.0
    for value, text in plot.x.ticks:
        x, half = plot.at(value, plot.y.low)[0], TICK_LETTER * len(text) / 2
        if x - half >= reached:
            reached = x + half + TICK_LETTER
            yield element("line", x1=x, x2=x, y1=plot.foot, y2=plot.foot + 3, class_="grid")
            yield element("text", text, x=x, y=plot.foot + 13, text_anchor="middle", class_="tick")
    middle = (LEFT + plot.right) / 2
    yield element("text", readable(plot.x.name, 60), x=middle, y=plot.height - 7, text_anchor="middle", class_="tick")


def _trace(plot: Plot, trace: Trace) -> Iterator[Markup]:
    for whole, stretch in groupby(trace.points, key=lambda point: drawable(point[0]) and drawable(point[1])):
        points = [plot.at(x, y) for x, y in stretch] if whole else []
        if points and trace.style in ("area", "null"):
            closed = [(points[0][0], plot.foot), *points, (points[-1][0], plot.foot)]
            colour = f" c{trace.colour}" if trace.style == "area" else ""
            yield element("path", d=polyline(closed) + "Z", class_=f"{trace.style}{colour}")
        elif len(points) > 1:
            yield element("path", d=polyline(points), class_=f"{trace.style} c{trace.colour}")
        elif points:
            yield element("circle", cx=points[0][0], cy=points[0][1], r=1.6, class_=f"mark c{trace.colour}")


def _names(plot: Plot) -> Iterator[Markup]:
    ends = [
        (plot.at(*last)[1], trace.colour, trace.label)
        for trace in plot.traces
        if trace.label and (last := next((point for point in reversed(trace.points) if drawable(point[1])), None))
    ]
    yield from end_names(plot.right, ends, foot=plot.foot)


def _marks(plot: Plot) -> Iterator[Markup]:
    points = [(*plot.at(mark.x.value, mark.y.value), mark.label) for mark in plot.marks]
    for mark, (x, y, _), place in zip(plot.marks, points, beside(points, plot.width), strict=True):
        yield from _whiskers(plot, mark)
        told = [f"{m.name} {number(m.value)} {interval(m.low, m.high)}" for m in (mark.y, mark.x)]
        hint = element("title", readable(f"{mark.label}: {'; '.join(told)}", 240))
        flagged = " flagged" if mark.y.flags else ""
        yield element("circle", hint, cx=x, cy=y, r=3, class_=f"mark c{mark.colour}{flagged}")
        name = readable(mark.label, MAX_LABEL)
        yield element("text", name, x=place[0], y=place[1], text_anchor=place[2], class_=f"name c{mark.colour}")


def _whiskers(plot: Plot, mark: Mark) -> Iterator[Markup]:
    """The interval along y, and that along x."""
    crosses = [
        ((mark.x.value, mark.y.low), (mark.x.value, mark.y.high)),
        ((mark.x.low, mark.y.value), (mark.x.high, mark.y.value)),
    ]
    for (x1, y1), (x2, y2) in crosses:
        if drawable(x1) and drawable(y1) and drawable(x2) and drawable(y2):
            one, two = plot.at(x1, y1), plot.at(x2, y2)
            yield element("line", x1=one[0], y1=one[1], x2=two[0], y2=two[1], class_=f"whisker c{mark.colour}")
