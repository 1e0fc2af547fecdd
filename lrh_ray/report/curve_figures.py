"""Curves of training as panels: one for each thing found, at each place.

    figure = curve_figure(table, result, limit=36)      # loss at resid.15, dead at resid.15, ...

What can go wrong: more than eight lines share colours; their names stand at their ends.
"""

from collections.abc import Sequence

from lrh_ray.records import Result, Table
from lrh_ray.report.axes import axis_over, counted_axis
from lrh_ray.report.curves import STEP, Curve, table_curves
from lrh_ray.report.numbers import label
from lrh_ray.report.plot import Figure, Plot, Trace, colours_of
from lrh_ray.report.series import drawable


def curve_figure(table: Table, result: Result, *, limit: int) -> Figure | None:
    """Panels of the curves of a table, one for each place and fact, the facts of a place side by side."""
    curves = [
        curve
        for curve in table_curves(table, result)
        if len(curve.values) and all(map(drawable, curve.values.tolist()))
    ]
    if not curves:
        return None
    places = dict.fromkeys((curve.place, curve.fact) for curve in curves)
    plots = [
        _plot([c for c in curves if (c.place, c.fact) == place], [c for c in curves if c.fact == place[1]], curves)
        for place in list(places)[:limit]
    ]
    return Figure(
        title=f"{label(table.name)} curves",
        caption="Panels of the same number share their axes; those that span much are logarithmic.",
        keys=(),
        plots=tuple(plots),
        omitted=len(places) - len(plots),
    )


def _plot(own: Sequence[Curve], same_fact: Sequence[Curve], curves: Sequence[Curve]) -> Plot:
    """One panel: axes hold all curves of its fact, colours are those of the lines of the whole figure."""
    colours = colours_of([curve.line for curve in curves])
    fact = label(own[0].fact)
    return Plot(
        heading=f"{fact} at {own[0].place}" if own[0].place else fact,
        x=counted_axis(max(float(curve.steps[-1]) for curve in same_fact), STEP),
        y=axis_over([float(value) for curve in same_fact for value in curve.values], fact),
        traces=tuple(
            Trace(
                style="line",
                label=curve.line,
                colour=colours[curve.line],
                points=tuple(zip(curve.steps.tolist(), curve.values.tolist(), strict=True)),
            )
            for curve in own
        ),
    )
