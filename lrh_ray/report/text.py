"""A result on a terminal: what it says, the best of each concept beside its controls, and the facts of the store.

    print_result(result, rich.console.Console())

The order and the words follow the page; sites, probes and other keys stand in one column to fit 80 characters, and
example texts are lines around their tokens.

What can go wrong: a terminal that obeys control characters would be at the mercy of the corpus, so text is made visible
first and is never read as markup.
"""

from collections.abc import Sequence
from itertools import accumulate

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from lrh_ray.artifacts import result_digest
from lrh_ray.records import Measure, Result, Table
from lrh_ray.report.examples import example_groups, is_examples
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
from lrh_ray.report.reading import reading_lines
from lrh_ray.report.series import NULL_CONTROLS
from lrh_ray.report.tables import STORE_TABLES, TableView, table_view

MAX_ROWS = 60
MAX_TEXT = 600
MIN_SUBJECT, MIN_WHERE, GAP = 14, 9, 3
"""Characters of the first and the last column of the table, and between columns."""


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
        console.print(_best_table(best, num_measures=len(primary), width=console.width))
        for flag in dict.fromkeys(flag for measure in best for flag in measure.flags):
            console.print(Text(f"† {readable(flag, MAX_TEXT)}", style="yellow"))
        others = [name for name in metric_names(result.measures) if name != primary[0].name]
        if others:
            console.print(Text(f"Also measured: {', '.join(map(label, others))}", style="dim"))
    print_tables(result, console, STORE_TABLES)


def print_tables(result: Result, console: Console, names: Sequence[str]) -> None:
    """Print the tables that have one of these names, in the order of the names."""
    for name in names:
        for table in result.tables:
            if table.name == name:
                console.print()
                if is_examples(table):
                    _print_examples(table, console)
                else:
                    console.print(_plain_table(table_view(table, rows=MAX_ROWS)))


def _best_table(best: tuple[Measure, ...], *, num_measures: int, width: int) -> RichTable:
    """The first column says what, the last says where; of the numbers between as many as fit."""
    controls = list(dict.fromkeys(name for measure in best for name in measure.controls if name not in NULL_CONTROLS))
    headings = (label(best[0].name) + unit_suffix(best[0].unit), "95 % interval", "null band", *controls)
    subjects, *numbers, places = zip(*(_best_row(measure, controls) for measure in best), strict=True)
    filled = [pair for pair in zip(headings, numbers, strict=True) if set(pair[1]) != {NO_VALUE}]
    widths = [max(len(word) for word in (*heading.split(), *cells)) for heading, cells in filled]
    room = width - GAP
    used = [total for total in accumulate(column + GAP for column in widths) if room - total >= MIN_SUBJECT + MIN_WHERE]
    shown, spare = filled[: len(used)], room - max(used, default=0)
    longest = max(MIN_WHERE, *(len(place) for place in places))
    name = max(MIN_SUBJECT, min(max(len(one) for one in subjects), spare - longest))
    omitted = f"; columns left to the report: {len(filled) - len(shown)}" if len(shown) < len(filled) else ""
    table = RichTable(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        caption=Text(f"best of {num_measures} measures; ○ does not leave its null band{omitted}", style="dim"),
        caption_justify="left",
    )
    table.add_column(subject_word(best), overflow="fold", width=name)
    for (heading, _), column in zip(shown, widths, strict=False):
        table.add_column(Text(readable(heading, 60)), justify="right", width=column)
    table.add_column("where", overflow="fold", width=min(longest, max(MIN_WHERE, spare - name)))
    for row in zip(subjects, *(cells for _, cells in shown), places, strict=True):
        table.add_row(*map(Text, row))
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


def _print_examples(table: Table, console: Console) -> None:
    """Lines around tokens; in columns side by side nothing would be left of the texts."""
    console.print(Text(label(table.name), style="bold"))
    if table.description:
        console.print(Text(readable(table.description, MAX_TEXT), style="dim"))
    for line in reading_lines(example_groups(table, limit=MAX_ROWS), width=console.width):
        console.print(line, no_wrap=True)
    if len(table.rows) > MAX_ROWS:
        console.print(Text(_omitted(len(table.rows) - MAX_ROWS), style="dim"))


def _omitted(number_of_rows: int) -> str:
    return f"{number_of_rows} more rows in result.json"


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
        table.caption = Text(_omitted(view.omitted), style="dim")
    return table
