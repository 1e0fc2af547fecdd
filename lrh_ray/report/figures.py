"""Figures that belong to a table, and pages of latents, prepared for the template.

    part = table_part(table, result, "r1-t3", panels=36, rows=400)   # curves or histograms above their table
    part = latent_part(table, result, passages=3000)                 # a table of passages

What can go wrong: what is more than a page should carry is left out, and counted in `omitted`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from lrh_ray.records import Result, Table
from lrh_ray.report.curve_figures import curve_figure
from lrh_ray.report.curves import has_curves
from lrh_ray.report.densities import density_figure
from lrh_ray.report.numbers import label, readable
from lrh_ray.report.passages import LatentGroup, latent_groups
from lrh_ray.report.plot import Figure, Key, draw_plot
from lrh_ray.report.tables import TableView, table_view


@dataclass(frozen=True, kw_only=True, slots=True)
class PlotView:
    """A plot with its heading."""

    heading: str
    note: str
    svg: Markup


@dataclass(frozen=True, kw_only=True, slots=True)
class FigureView:
    """Plots of one kind."""

    title: str
    caption: str
    keys: tuple[Key, ...]
    plots: tuple[PlotView, ...]
    large: bool
    omitted: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TablePart:
    """A table under its own name, and the figures that tell the same."""

    table: TableView
    figures: tuple[FigureView, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentPart:
    """Pages of latents, under the name of their table, and by what rule they were chosen."""

    name: str
    description: str
    groups: tuple[LatentGroup, ...]


def table_part(table: Table, result: Result, anchor: str, *, panels: int, rows: int) -> TablePart:
    figures = [
        curve_figure(table, result, limit=panels) if has_curves(table) else None,
        density_figure(table, result.arrays, limit=panels),
    ]
    return TablePart(table=table_view(table, rows=rows), figures=draw_figures(figures, anchor))


def latent_part(table: Table, result: Result, *, passages: int) -> LatentPart:
    return LatentPart(
        name=label(table.name),
        description=readable(table.description, 600),
        groups=latent_groups(table, result.arrays, limit=passages),
    )


def draw_figures(figures: Iterable[Figure | None], anchor: str) -> tuple[FigureView, ...]:
    """The figures that there are, drawn."""
    return tuple(_drawn(one, f"{anchor}-{index}") for index, one in enumerate(figures, start=1) if one is not None)


def _drawn(figure: Figure, anchor: str) -> FigureView:
    plots = tuple(
        PlotView(
            heading=readable(plot.heading, 80),
            note=readable(plot.note, 160),
            svg=draw_plot(plot, anchor=f"{anchor}-{index}"),
        )
        for index, plot in enumerate(figure.plots, start=1)
    )
    return FigureView(
        title=figure.title,
        caption=readable(figure.caption, 1200),
        keys=figure.keys,
        plots=plots,
        large=any(plot.large for plot in figure.plots),
        omitted=figure.omitted,
    )
