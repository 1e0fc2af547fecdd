"""Small multiples as SVG: one panel per concept over shared axes.

A panel shows each number with what it must be judged against: the line of a probe with its 95 % interval as a band,
the null band in grey, a majority baseline dashed; what shuffled labels give, and lines that are controls, as hollow
marks. Layers are joined by lines; a site without a layer stands apart at the right, with its interval as a whisker.
Lines are labelled where they end, and every mark has a tooltip with its numbers.

    draw_panel(panel, chart, anchor="r1-p1")

Colours come from CSS classes (`c0` ... `c7`), so that one drawing serves light, dark and print.

What can go wrong: more lines than eight share colours; their labels and tooltips still tell them apart.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from lrh_ray.records import Measure
from lrh_ray.report.drawing import element, polyline
from lrh_ray.report.frame import HEIGHT, LEFT, WIDTH, Frame, x_ticks, y_labels
from lrh_ray.report.margins import end_names, margin, rules
from lrh_ray.report.numbers import interval, label, number, readable
from lrh_ray.report.series import REFERENCES, SHUFFLED, Chart, Line, Panel, drawable

PALETTE = 8
HALF_CATEGORY = 9.0

Point = tuple[int, Measure]
Choice = Callable[[float, float], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stroke:
    """A line with its colour and its place among the lines of a category."""

    line: Line
    colour: int
    shift: float


def draw_panel(panel: Panel, chart: Chart, *, anchor: str) -> Markup:
    """One panel as an SVG element with a title and a description for those who do not see it."""
    right = WIDTH - margin(chart.line_labels)
    frame = Frame(places=chart.places, right=right, low=chart.ticks[0], high=chart.ticks[-1])
    strokes = _strokes(panel, chart)
    heading = f"{label(chart.metric)} of {panel.subject}" if panel.subject else label(chart.metric)
    return element(
        "svg",
        element("title", readable(heading, 120), id=f"{anchor}-t"),
        element("desc", _description(panel, chart), id=f"{anchor}-d"),
        *_axes(frame, chart),
        *_null_band(frame, panel),
        *_references(frame, panel),
        *(shape for stroke in strokes for shape in _shuffled(frame, stroke)),
        *(shape for stroke in strokes for shape in _line(frame, stroke)),
        *_names(frame, strokes),
        viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
        role="img",
        aria_labelledby=f"{anchor}-t {anchor}-d",
        class_="panel",
    )


def _strokes(panel: Panel, chart: Chart) -> list[Stroke]:
    count = len(chart.line_labels)
    pitch = min(5.0, 2 * HALF_CATEGORY / max(1, count))
    indices = [chart.line_labels.index(line.label) for line in panel.lines]
    return [
        Stroke(line=line, colour=index % PALETTE, shift=pitch * (index - (count - 1) / 2))
        for line, index in zip(panel.lines, indices, strict=True)
    ]


def _description(panel: Panel, chart: Chart) -> str:
    parts = []
    for line in panel.lines:
        values = [(index, measure.value) for index, measure in line.points if drawable(measure.value)]
        told = ", ".join(f"{number(value)} at {chart.places[index].label}" for index, value in values[:40])
        parts.append(f"{line.label or label(chart.metric)}: {told or 'no finite value'}.")
    return readable(" ".join(parts), 2000)


def _axes(frame: Frame, chart: Chart) -> Iterator[Markup]:
    heights = [frame.y(tick) for tick in chart.ticks]
    yield from rules(frame.right, list(zip(heights, y_labels(chart.ticks), strict=True)))
    baseline = HEIGHT - 7
    if frame.num_layered and not frame.places[0].counted:
        yield element("text", "layer", x=LEFT - 5, y=baseline, text_anchor="end", class_="tick")
    for index, text in x_ticks(frame):
        yield element("text", text, x=frame.x(index), y=baseline, text_anchor="middle", class_="tick")


def _null_band(frame: Frame, panel: Panel) -> Iterator[Markup]:
    """The widest null band over the lines of the panel."""
    low, high = _envelope(panel, "null_low", min), _envelope(panel, "null_high", max)
    for run in _runs(frame, [index for index in low if index in high]):
        corners = _widened(frame, run)
        yield _band(frame, [(x, low[index], high[index]) for x, index in corners], "null")


def _references(frame: Frame, panel: Panel) -> Iterator[Markup]:
    for name in REFERENCES:
        heights = _envelope(panel, name, max)
        for run in _runs(frame, list(heights)):
            corners = [(x, frame.y(heights[index])) for x, index in _widened(frame, run)]
            yield element("path", d=polyline(corners), class_=f"reference {name}")


def _envelope(panel: Panel, control: str, choose: Choice) -> dict[int, float]:
    """One value of a control per place over the lines of a panel, in axis order."""
    heights: dict[int, float] = {}
    for line in panel.lines:
        for index, measure in line.points:
            value = measure.controls.get(control)
            if drawable(value):
                heights[index] = choose(heights.get(index, value), value)
    return dict(sorted(heights.items()))


def _runs(frame: Frame, indices: Sequence[int]) -> Iterator[list[int]]:
    """Places to join: layers together, each category alone."""
    for _, run in groupby(indices, key=lambda index: -1 if index < frame.num_layered else index):
        yield list(run)


def _widened(frame: Frame, run: Sequence[int]) -> list[tuple[float, int]]:
    """Places of a run with their x; a lone place gets a left and a right end, or nothing would be seen."""
    if len(run) > 1:
        return [(frame.x(index), index) for index in run]
    return [(frame.x(run[0]) + side, run[0]) for side in (-HALF_CATEGORY, HALF_CATEGORY)]


def _shuffled(frame: Frame, stroke: Stroke) -> Iterator[Markup]:
    for index, measure in stroke.line.points:
        control = measure.controls.get(SHUFFLED)
        if drawable(control):
            hint = element("title", f"{readable(stroke.line.label, 60)} with shuffled labels: {number(control)}")
            x = frame.x(index, stroke.shift)
            yield element("circle", hint, cx=x, cy=frame.y(control), r=2, class_=f"shuffled c{stroke.colour}")


def _line(frame: Frame, stroke: Stroke) -> Iterator[Markup]:
    points = [(index, measure) for index, measure in stroke.line.points if drawable(measure.value)]
    for run in _joined(frame, stroke.line):
        bounds = [
            (frame.x(index), measure.low, measure.high)
            for index, measure in run
            if drawable(measure.low) and drawable(measure.high)
        ]
        if len(bounds) == len(run):
            yield _band(frame, bounds, f"band c{stroke.colour}")
        corners = [(frame.x(index), frame.y(measure.value)) for index, measure in run]
        yield element("path", d=polyline(corners), class_=f"line c{stroke.colour}")
    joined = {index for run in _joined(frame, stroke.line) for index, _ in run}
    for index, measure in points:
        if index not in joined and drawable(measure.low) and drawable(measure.high):
            x = frame.x(index, stroke.shift)
            ends = {"x1": x, "x2": x, "y1": frame.y(measure.low), "y2": frame.y(measure.high)}
            yield element("line", **ends, class_=f"whisker c{stroke.colour}")
        yield _mark(frame, stroke, index, measure)


def _joined(frame: Frame, line: Line) -> Iterator[list[Point]]:
    """Stretches of two or more layers that a line joins; a value that cannot be drawn interrupts it."""
    layered = [(index, measure) for index, measure in line.points if index < frame.num_layered]
    for whole, stretch in groupby(layered, key=lambda point: drawable(point[1].value)):
        points = list(stretch)
        if whole and len(points) > 1:
            yield points


def _band(frame: Frame, bounds: Sequence[tuple[float, float, float]], kind: str) -> Markup:
    """The area between (x, low, high) triples."""
    upper = [(x, frame.y(high)) for x, _, high in bounds]
    lower = [(x, frame.y(low)) for x, low, _ in bounds]
    return element("path", d=polyline([*upper, *reversed(lower)]) + "Z", class_=kind)


def _mark(frame: Frame, stroke: Stroke, index: int, measure: Measure) -> Markup:
    where = " at ".join(part for part in (stroke.line.label, frame.places[index].label) if part)
    told = f"{where}: {number(measure.value)} {interval(measure.low, measure.high)}"
    hint = element("title", readable("; ".join([told, *measure.flags]), 240))
    x, y = frame.x(index, stroke.shift), frame.y(measure.value)
    flagged = " flagged" if measure.flags else ""
    control = " control" if stroke.line.is_control else ""
    return element("circle", hint, cx=x, cy=y, r=2.2, class_=f"mark c{stroke.colour}{flagged}{control}")


def _names(frame: Frame, strokes: Sequence[Stroke]) -> Iterator[Markup]:
    ends = []
    for stroke in strokes:
        visible = [measure.value for _, measure in stroke.line.points if drawable(measure.value)]
        if visible and stroke.line.label:
            ends.append((frame.y(visible[-1]), stroke.colour, stroke.line.label))
    yield from end_names(frame.right, ends)
