"""Everything the page shows of a result, prepared: the template only places it.

Tables are recognised by name: `store`, `sites` and `parity` describe the store; `strongest` and `examples` the
strongest concepts; all others stand under their own name, below the figures that tell the same (`figures`). Measures
are split by metric; the primary one is drawn, and so are those that have a setting of a world as their axis, and those
that are traded for one another.

    view = result_view(result, anchor="r1", budget=Budget())

What can go wrong: a result can hold more than a page should. A `Budget` bounds each part, and every part that was cut
says how much is missing; the whole is always in `result.json`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from lrh_ray.artifacts import result_digest
from lrh_ray.records import Measure, Result, Table
from lrh_ray.report.examples import ExampleGroup, example_groups, is_examples
from lrh_ray.report.figures import FigureView, LatentPart, TablePart, draw_figures, latent_part, table_part
from lrh_ray.report.heatmap import HeatMap, heat_of
from lrh_ray.report.numbers import interval, label, number, readable, unit_suffix
from lrh_ray.report.outline import Fact, facts, outline
from lrh_ray.report.panels import PALETTE, draw_panel
from lrh_ray.report.passages import is_passages
from lrh_ray.report.ranking import (
    CONTROL,
    COUNT,
    SETTINGS,
    axis_of,
    axis_word,
    best_per_concept,
    lower_is_better,
    metric_names,
    primary_metric,
    subject_word,
    where,
)
from lrh_ray.report.series import NULL_CONTROLS, REFERENCES, SHUFFLED, Chart, Panel, chart_of, places_of
from lrh_ray.report.tables import STORE_TABLES, TableView, measure_view, table_view
from lrh_ray.report.trade_offs import LEFT_OVER, trade_off_figure

STRONGEST_TABLE = "strongest"
OPEN_ROWS = 40
"""A table of measures longer than this starts folded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """How much of a result the page may carry: rows of measures, rows of each table, panels of each figure, passages,
    characters of text.
    """

    measure_rows: int = 4000
    table_rows: int = 400
    panels: int = 36
    passages: int = 3000
    characters: int = 40_000

    def halved(self) -> "Budget":
        return Budget(
            measure_rows=self.measure_rows // 2,
            table_rows=self.table_rows // 2,
            panels=self.panels // 2,
            passages=self.passages // 2,
            characters=self.characters // 2,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PanelView:
    """A panel with its heading: the best value, where it was found, and what it must be read against."""

    subject: str
    value: str
    interval: str
    where: str
    controls: str
    flags: tuple[str, ...]
    svg: Markup


@dataclass(frozen=True, kw_only=True, slots=True)
class ChartView:
    """The figures of a metric; `legend` names the marks that occur, `lines` the lines with their CSS classes."""

    metric: str
    subject: str
    """What stands in a panel or a row: concept, model or measure, and site where dimensions are counted."""
    axis: str
    """What lies along x: layer, site, number of dimensions, or a setting of a world."""
    place: str
    """What a column of the table is: a site, or what lies along x."""
    unit: str
    lower_is_better: bool
    panels: tuple[PanelView, ...]
    omitted: int
    lines: tuple[tuple[str, str], ...]
    legend: frozenset[str]
    has_categories: bool
    cut: str
    """Below what number values are drawn at the foot of the figure; empty where none are."""
    heat: HeatMap | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultView:
    """One result, section by section, in the order of the page."""

    anchor: str
    digest: str
    kind: str
    title: str
    summary: tuple[str, ...]
    asked: tuple[Fact, ...]
    store: tuple[TableView, ...]
    figures: tuple[FigureView, ...]
    charts: tuple[ChartView, ...]
    best: TableView | None
    subject: str
    strongest: tuple[TableView, ...]
    examples: tuple[ExampleGroup, ...]
    measures: tuple[TableView, ...]
    others: tuple[TablePart, ...]
    latents: tuple[LatentPart, ...]
    inputs: tuple[Fact, ...]
    provenance: tuple[Fact, ...]
    asked_text: str
    resolved_text: str


def result_view(result: Result, *, anchor: str, budget: Budget) -> ResultView:
    """Prepare one result; `anchor` makes the identifiers of its parts unique on the page."""
    by_metric = {name: [m for m in result.measures if m.name == name] for name in metric_names(result.measures)}
    primary = by_metric.get(primary_metric(result.measures) or "", [])
    told = [table for table in result.tables if is_examples(table)]
    passages = [table for table in result.tables if is_passages(table)]
    trade_offs = draw_figures([trade_off_figure(result, limit=budget.panels)], f"{anchor}-o")
    named = {*STORE_TABLES, STRONGEST_TABLE}
    share = max(1, len(by_metric))
    return ResultView(
        anchor=anchor,
        digest=result_digest(result),
        kind=readable(result.kind, 80),
        title=readable(result.title, 200),
        summary=tuple(readable(line, 1200) for line in result.summary[:24]),
        asked=facts(result.resolved or result.asked, limit=40),
        store=_tables(result.tables, STORE_TABLES, budget),
        figures=trade_offs,
        charts=_charts(by_metric, anchor, budget, elsewhere=LEFT_OVER if trade_offs else ""),
        best=measure_view(best_per_concept(primary), rows=budget.table_rows) if primary else None,
        subject=subject_word(primary),
        strongest=_tables(result.tables, (STRONGEST_TABLE,), budget),
        examples=tuple(group for table in told for group in example_groups(table, limit=budget.table_rows)),
        measures=tuple(measure_view(found, rows=budget.measure_rows // share) for found in by_metric.values()),
        others=tuple(
            table_part(table, result, f"{anchor}-t{index}", panels=budget.panels, rows=budget.table_rows)
            for index, table in enumerate(result.tables)
            if table.name not in named and table not in told and table not in passages
        ),
        latents=tuple(latent_part(table, result, passages=budget.passages) for table in passages),
        inputs=facts(result.inputs, limit=40),
        provenance=facts(result.provenance, limit=40),
        asked_text=outline(result.asked, limit=budget.characters),
        resolved_text=outline(result.resolved, limit=budget.characters),
    )


def _tables(tables: Iterable[Table], names: Sequence[str], budget: Budget) -> tuple[TableView, ...]:
    wanted = [table for name in names for table in tables if table.name == name]
    return tuple(table_view(table, rows=budget.table_rows) for table in wanted)


def _charts(
    by_metric: Mapping[str, Sequence[Measure]], anchor: str, budget: Budget, *, elsewhere: str
) -> tuple[ChartView, ...]:
    """The primary metric comes first, and has a table of shades besides its panels.

    What is drawn `elsewhere` is not drawn here at one place alone.
    """
    drawn = [own for i, own in enumerate(by_metric.values()) if i == 0 or any(axis_of(m) in SETTINGS for m in own)]
    names = [anchor if i == 0 else f"{anchor}-m{i}" for i in range(len(drawn))]
    charts = [
        None if own[0].name == elsewhere and len(places_of(own)) < 2 else _chart_view(own, name, budget)
        for own, name in zip(drawn, names, strict=True)
    ]
    return tuple(chart if i == 0 else replace(chart, heat=None) for i, chart in enumerate(charts) if chart is not None)


def _chart_view(measures: Sequence[Measure], anchor: str, budget: Budget) -> ChartView | None:
    chart = chart_of(measures)
    if chart is None:
        return None
    shown = chart.panels[: budget.panels]
    asked = [measure for measure in measures if CONTROL not in measure.keys]
    heat = heat_of(asked, low=chart.ticks[0], high=chart.ticks[-1], limit=budget.table_rows)
    axis = next((found for measure in measures if (found := axis_of(measure))), None)
    place = axis_word(axis) if axis else "site"
    has_layers = any(place.layer is not None for place in chart.places)
    return ChartView(
        metric=label(chart.metric),
        subject=subject_word(measures) + (" and site" if axis == COUNT else ""),
        axis="layer" if has_layers and not axis else place,
        place=place,
        unit=unit_suffix(chart.unit),
        lower_is_better=lower_is_better(chart.metric),
        panels=tuple(_panel_view(panel, chart, f"{anchor}-p{index}") for index, panel in enumerate(shown, start=1)),
        omitted=len(chart.panels) - len(shown),
        lines=_lines(chart),
        legend=_legend(measures),
        has_categories=any(place.layer is None for place in chart.places),
        cut=number(chart.ticks[0]) if chart.cut else "",
        heat=heat if len(heat.rows) > 1 and len(heat.sites) > 1 else None,
    )


def _lines(chart: Chart) -> tuple[tuple[str, str], ...]:
    controls = {line.label for panel in chart.panels for line in panel.lines if line.is_control}
    return tuple(
        (readable(name, 60), f"c{index % PALETTE}{' control' if name in controls else ''}")
        for index, name in enumerate(chart.line_labels)
        if name
    )


def _panel_view(panel: Panel, chart: Chart, anchor: str) -> PanelView:
    best = panel.best
    bounds = [best.controls.get(name) for name in NULL_CONTROLS]
    controls = [f"null\u00a0{interval(*bounds)}"] if any(bound is not None for bound in bounds) else []
    controls += [
        f"{label(name)}\u00a0{number(best.controls[name])}" for name in (SHUFFLED, *REFERENCES) if name in best.controls
    ]
    return PanelView(
        subject=readable(panel.subject, 80) or label(chart.metric),
        value=number(best.value),
        interval=interval(best.low, best.high),
        where=readable(", ".join(where(best)), 120),
        controls=readable(" · ".join(controls), 240),
        flags=tuple(readable(flag, 160) for flag in best.flags),
        svg=draw_panel(panel, chart, anchor=anchor),
    )


def _legend(measures: Sequence[Measure]) -> frozenset[str]:
    """Which kinds of marks occur in the figure."""
    marks = {name for measure in measures for name in measure.controls if name in (SHUFFLED, *REFERENCES)}
    marks |= {"null" for measure in measures if set(NULL_CONTROLS) <= measure.controls.keys()}
    marks |= {"interval" for measure in measures if measure.low is not None and measure.high is not None}
    marks |= {"flag" for measure in measures if measure.flags}
    return frozenset(marks)
