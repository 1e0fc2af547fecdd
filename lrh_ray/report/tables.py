"""Tables as cells ready to show: aligned by what a column holds, shortened to what a page can carry.

Two sources, one shape. A `Table` of a result is shown as it is, by its column names. Measures become one table per
metric, so that the unit can stand in the header: their keys, the value, its interval, its null band, every other
control, its flags.

    shown = table_view(table, rows=400)
    shown = measure_view(measures_of_one_metric, rows=4000)
    shown.omitted   # rows that were left out; the page says so

What can go wrong: `sort` is the exact value behind a rounded one and drives sorting by header; text sorts as text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lrh_ray.records import Measure, Scalar, Table
from lrh_ray.report.numbers import NO_VALUE, interval, label, number, quantity, readable, unit_suffix
from lrh_ray.report.series import NULL_CONTROLS

STORE_TABLES = ("store", "sites", "parity")
"""Names of the tables that describe a store, in the order in which they are shown."""

CELL_LIMIT = 240


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """`text` to read, `sort` the exact number behind it (None for text), `warns` for flags."""

    text: str
    sort: float | None = None
    warns: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A heading; numeric columns are aligned at the right and sort by number."""

    label: str
    numeric: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class TableView:
    """A table ready to show; `omitted` counts rows left out at its end."""

    name: str
    description: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    omitted: int = 0

    @property
    def is_facts(self) -> bool:
        """A table of names and values, which reads better as a list of facts."""
        return len(self.columns) == 2 and not self.columns[0].numeric and len(self.rows) <= 24


def table_view(table: Table, *, rows: int) -> TableView:
    """A table of a result. A column is numeric when it holds numbers and nothing else."""
    values = [[row[index] for row in table.rows if index < len(row)] for index in range(len(table.columns))]
    facts = len(table.columns) == 2 and any(isinstance(value, str) for value in values[0])
    return TableView(
        name=label(table.name),
        description=readable(table.description, 600),
        columns=tuple(
            Column(label=label(name), numeric=not (facts and index == 1) and _all_numbers(values[index]))
            for index, name in enumerate(table.columns)
        ),
        rows=tuple(_row(table.columns, row, facts=facts) for row in table.rows[:rows]),
        omitted=max(0, len(table.rows) - rows),
    )


def measure_view(measures: Sequence[Measure], *, rows: int) -> TableView:
    """Measures of one metric, in the order given, with interval, controls and flags beside each value."""
    first = measures[0]
    keys = list(dict.fromkeys(key for measure in measures for key in measure.keys))
    controls = list(dict.fromkeys(name for measure in measures for name in measure.controls))
    others = [name for name in controls if name not in NULL_CONTROLS]
    banded, flagged = len(others) < len(controls), any(measure.flags for measure in measures)
    numeric_keys = {key: all(not isinstance(m.keys.get(key, 0), str) for m in measures) for key in keys}
    columns = [
        *(Column(label=label(key), numeric=numeric_keys[key]) for key in keys),
        Column(label=label(first.name) + unit_suffix(first.unit), numeric=True),
        *([Column(label="flags", numeric=False)] if flagged else []),
        Column(label="95 % interval", numeric=True),
        *([Column(label="null band", numeric=True)] if banded else []),
        *(Column(label=label(name), numeric=True) for name in others),
    ]
    return TableView(
        name=label(first.name),
        description="",
        columns=tuple(columns),
        rows=tuple(_measure_row(m, keys, others, banded=banded, flagged=flagged) for m in measures[:rows]),
        omitted=max(0, len(measures) - rows),
    )


def _measure_row(
    measure: Measure, keys: Sequence[str], others: Sequence[str], *, banded: bool, flagged: bool
) -> tuple[Cell, ...]:
    null_low, null_high = (measure.controls.get(name) for name in NULL_CONTROLS)
    return (
        *(_cell(key, measure.keys.get(key)) for key in keys),
        Cell(text=number(measure.value), sort=measure.value),
        *([Cell(text=_flags(measure), warns=bool(measure.flags))] if flagged else []),
        Cell(text=interval(measure.low, measure.high), sort=measure.low),
        *([Cell(text=interval(null_low, null_high), sort=null_high)] if banded else []),
        *(Cell(text=number(measure.controls.get(name)), sort=measure.controls.get(name)) for name in others),
    )


def _row(columns: Sequence[str], row: Sequence[Scalar], *, facts: bool) -> tuple[Cell, ...]:
    """Cells in the order of the columns; a short row is filled up. In a list of facts, the name names the quantity."""
    filled = [*row, *([None] * (len(columns) - len(row)))][: len(columns)]
    names = [columns[0], str(filled[0])] if facts else columns
    return tuple(_cell(name, value) for name, value in zip(names, filled, strict=True))


def _cell(name: str, value: Scalar) -> Cell:
    if isinstance(value, str):
        return Cell(text=readable(value, CELL_LIMIT))
    if value is None:
        return Cell(text=NO_VALUE)
    return Cell(text=quantity(name, value), sort=float(value))


def _flags(measure: Measure) -> str:
    return readable("; ".join(measure.flags), CELL_LIMIT)


def _all_numbers(values: Sequence[Scalar]) -> bool:
    present = [value for value in values if value is not None]
    return bool(present) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in present)
