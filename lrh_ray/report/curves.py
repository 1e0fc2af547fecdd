"""Curves of training: what a run was like at each step, from the tables that have a column `step`.

The convention, for whoever makes the table: the columns before `step` say whose curve it is (a site, an autoencoder),
those after it are what was found. Where the table has only some of the points, an array of its name, [curves, points,
columns after `step`], has all of them, evenly spaced from step 0 to the last step of the table; NaN are left out.

    for curve in curves_of(result):
        curve.of, curve.fact, curve.steps, curve.values    # ("resid.15", "topk"), "loss", [0, 5, ...], [.93, .61, ...]

Figures (`curve_figures`) and trackers get the same curves.

What can go wrong: an array of another shape is not used, and the curve has the points of the table.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lrh_ray.records import Result, Scalar, Table

STEP = "step"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Curve:
    """One thing found of one run, at steps in ascending order; only what is a number."""

    table: str
    of: tuple[str, ...]
    fact: str
    steps: np.ndarray
    values: np.ndarray

    @property
    def place(self) -> str:
        """Whose it is, but for the name of its line."""
        return " ".join(self.of[:-1])

    @property
    def line(self) -> str:
        return self.of[-1] if self.of else ""


def has_curves(table: Table) -> bool:
    return STEP in table.columns[:-1] and len(table.rows) > 1


def curves_of(result: Result) -> tuple[Curve, ...]:
    """All curves of a result, in the order of their tables."""
    return tuple(curve for table in result.tables if has_curves(table) for curve in table_curves(table, result))


def table_curves(table: Table, result: Result) -> Iterator[Curve]:
    """The curves of one table of a result."""
    cut = table.columns.index(STEP)
    facts = table.columns[cut + 1 :]
    grouped: dict[tuple[str, ...], list[tuple[Scalar, ...]]] = {}
    for row in table.rows:
        if len(row) == len(table.columns):
            grouped.setdefault(tuple(map(str, row[:cut])), []).append(row)
    whole = result.arrays.get(table.name)
    for number, (name, rows) in enumerate(grouped.items()):
        steps, values = _told(rows, cut)
        if whole is not None and whole.ndim == 3 and whole.shape[::2] == (len(grouped), len(facts)):
            steps, values = np.linspace(0, steps[-1], whole.shape[1]), whole[number].astype(np.float64)
        for column, fact in enumerate(facts):
            known = np.isfinite(values[:, column]) & np.isfinite(steps)
            yield Curve(table=table.name, of=name, fact=fact, steps=steps[known], values=values[known, column])


def _told(rows: Sequence[tuple[Scalar, ...]], cut: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps [points] and values [points, facts] of the rows of a table; NaN for what is no number."""
    numbers = np.array(
        [[float(cell) if isinstance(cell, int | float) else np.nan for cell in row[cut:]] for row in rows]
    )
    return numbers[:, 0], numbers[:, 1:]
