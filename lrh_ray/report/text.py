"""A result on a terminal: what it says, the best of each concept beside its controls, and the facts of the store.

    print_result(result, rich.console.Console())

The order and the words follow the page; sites, probes and other keys stand in one column to fit 80 characters.

What can go wrong: a terminal that obeys control characters would be at the mercy of the corpus, so text is made visible
first and is never read as markup.
"""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from lrh_ray.artifacts import result_digest
from lrh_ray.records import Measure, Result
from lrh_ray.report.numbers import NO_VALUE, interval, label, number, readable, unit_suffix
from lrh_ray.report.ranking import (
    best_per_concept,
    clears_null,
    metric_names,
    primary_metric,
    subject,
    subject_word,
    where,
)
from lrh_ray.report.series import NULL_CONTROLS
from lrh_ray.report.tables import STORE_TABLES, TableView, table_view

MAX_ROWS = 60
MAX_TEXT = 600


def print_result(result: Result, console: Console) -> None:
    """Print title, digest, summary, best measures and store tables."""
    console.print(Text(readable(result.title, MAX_TEXT), style="bold"))
    console.print(Text(f"{readable(result.kind, 80)} · {result_digest(result)}", style="dim"))
    for line in result.summary:
        console.print(Text(readable(line, MAX_TEXT)))
    primary = [m for m in result.measures if m.name == primary_metric(result.measures)]
    if primary:
        console.print()
        best = best_per_concept(primary)[:MAX_ROWS]
        console.print(_best_table(best, num_measures=len(primary)))
        for flag in dict.fromkeys(flag for measure in best for flag in measure.flags):
            console.print(Text(f"† {readable(flag, MAX_TEXT)}", style="yellow"))
        others = [name for name in metric_names(result.measures) if name != primary[0].name]
        if others:
            console.print(Text(f"Also measured: {', '.join(map(label, others))}", style="dim"))
    for name in STORE_TABLES:
        for table in result.tables:
            if table.name == name:
                console.print()
                console.print(_plain_table(table_view(table, rows=MAX_ROWS)))


def _best_table(best: tuple[Measure, ...], *, num_measures: int) -> RichTable:
    controls = list(dict.fromkeys(name for measure in best for name in measure.controls if name not in NULL_CONTROLS))
    caption = f"best of {num_measures} measures; ○ does not leave its null band"
    table = RichTable(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        caption=Text(caption, style="dim"),
        caption_justify="left",
    )
    table.add_column(subject_word(best), overflow="fold", min_width=14)
    for heading in (label(best[0].name) + unit_suffix(best[0].unit), "95 % interval", "null band", *controls):
        table.add_column(Text(readable(heading, 40)), justify="right", no_wrap=True)
    table.add_column("where", overflow="fold", min_width=9)
    for measure in best:
        table.add_row(*map(Text, _best_row(measure, controls)))
    return table


def _best_row(measure: Measure, controls: Sequence[str]) -> tuple[str, ...]:
    return (
        readable(subject(measure), 60) or NO_VALUE,
        number(measure.value) + (" ○" if clears_null(measure) is False else "") + (" †" if measure.flags else ""),
        interval(measure.low, measure.high),
        interval(*(measure.controls.get(name) for name in NULL_CONTROLS)),
        *(number(measure.controls.get(name)) for name in controls),
        readable(" ".join(where(measure)), 80) or NO_VALUE,
    )


def _plain_table(view: TableView) -> RichTable:
    table = RichTable(
        title=Text(view.name, style="bold"),
        title_justify="left",
        box=None if view.is_facts else box.SIMPLE_HEAD,
        show_edge=False,
        show_header=not view.is_facts,
        pad_edge=False,
    )
    for column in view.columns:
        table.add_column(Text(column.label), justify="right" if column.numeric else "left", overflow="fold")
    for row in view.rows:
        table.add_row(*(Text(cell.text) for cell in row))
    if view.omitted:
        table.caption = Text(f"{view.omitted} more rows in result.json", style="dim")
    return table
