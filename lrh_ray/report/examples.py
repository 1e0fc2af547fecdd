"""Example texts as reading lines: the token in the middle, what stands before and after it, its score.

The convention, for whoever makes the table: it is named `examples` and has the columns `concept`, `site`, `score`,
`label`, `before`, `token`, `after`. Only `token` is required; the others are shown when they are there. Rows keep
their order and are grouped by concept. This is the concordance layout of linguistics: tokens lie below one another,
so that what they share is seen at a glance.

    groups = example_groups(table, limit=400)

What can go wrong: long contexts are cut at the side that is far from the token; a score without a range has no bar.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lrh_ray.records import Scalar, Table
from lrh_ray.report.numbers import number, readable
from lrh_ray.report.series import drawable

TABLE = "examples"
CONTEXT_LIMIT = 160
TOKEN_LIMIT = 80


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One reading line; `share` in [0, 1] is the score between the lowest and the highest of its group."""

    before: str
    token: str
    after: str
    score: str
    share: float | None
    label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ExampleGroup:
    """The reading lines of one concept, and the sites they were read at."""

    concept: str
    site: str
    examples: tuple[Example, ...]


def is_examples(table: Table) -> bool:
    return table.name == TABLE and "token" in table.columns


def example_groups(table: Table, *, limit: int) -> tuple[ExampleGroup, ...]:
    """Reading lines by concept, in order of appearance; `limit` lines in all."""
    grouped: dict[str, list[Mapping[str, Scalar]]] = {}
    for row in table.rows[:limit]:
        named = dict(zip(table.columns, row, strict=False))
        grouped.setdefault(_text(named, "concept"), []).append(named)
    return tuple(_group(concept, rows) for concept, rows in grouped.items())


def _group(concept: str, rows: Sequence[Mapping[str, Scalar]]) -> ExampleGroup:
    scores = [score for row in rows if drawable(score := _score(row))]
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    low = min(low, 0.0)  # a bar starts at zero unless scores go below it
    sites = dict.fromkeys(_text(row, "site") for row in rows)
    return ExampleGroup(
        concept=readable(concept, 80),
        site=readable(", ".join(site for site in sites if site), 120),
        examples=tuple(_example(row, low, high) for row in rows),
    )


def _example(row: Mapping[str, Scalar], low: float, high: float) -> Example:
    score = _score(row)
    share = (score - low) / (high - low) if drawable(score) and high > low else None
    label = row.get("label")
    return Example(
        before=readable(_text(row, "before"), CONTEXT_LIMIT, keep="end"),
        token=readable(_text(row, "token"), TOKEN_LIMIT),
        after=readable(_text(row, "after"), CONTEXT_LIMIT),
        score="" if score is None else number(score),
        share=None if share is None else round(share, 3),
        label="" if label is None else readable(label if isinstance(label, str) else number(label), 40),
    )


def _score(row: Mapping[str, Scalar]) -> float | None:
    score = row.get("score")
    return None if score is None or isinstance(score, str | bool) else float(score)


def _text(row: Mapping[str, Scalar], column: str) -> str:
    value = row.get(column)
    return "" if value is None else str(value)
