"""Reading lines on a terminal: a token in the middle, and as much of its context as the terminal has room for.

    for line in reading_lines(example_groups(table, limit=60), width=console.width):
        console.print(line, no_wrap=True)

In a table of seven columns a context is a few characters wide and many lines high. Here the concept stands above its
lines, score and label take what they need, and the context has the rest, half of it on each side of the token.

What can go wrong: letters of some scripts are two columns wide, so room is counted in columns of the terminal; where it
has fewer than about 40, lines are cut at their ends.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from lrh_ray.report.examples import Example, ExampleGroup
from lrh_ray.report.numbers import readable

GAP = " " * 2
LEAST_SIDE, MOST_TOKEN = 8, 24
"""Columns that each side has at least, and that a token has at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Widths:
    """Columns of each part of a line, the same for all lines, so that tokens lie below one another."""

    score: int
    label: int
    side: int
    token: int

    @classmethod
    def within(cls, examples: Sequence[Example], width: int) -> "_Widths":
        score = max((cell_len(example.score) for example in examples), default=0)
        label = max((cell_len(example.label) for example in examples), default=0)
        token = min(MOST_TOKEN, max((cell_len(example.token) for example in examples), default=0))
        taken = token + 2 * len(GAP) + sum(part + len(GAP) for part in (score, label) if part)
        return cls(score=score, label=label, token=token, side=max(LEAST_SIDE, (width - taken) // 2))


def reading_lines(groups: Sequence[ExampleGroup], *, width: int) -> Iterator[Text]:
    """A heading for each group and a line for each example, `width` columns at most if that leaves each part room."""
    widths = _Widths.within([example for group in groups for example in group.examples], width)
    for group in groups:
        yield Text(" · ".join(filter(None, (group.concept, group.site))), style="dim")
        for example in group.examples:
            yield _line(example, widths)


def _line(example: Example, widths: _Widths) -> Text:
    line = Text()
    if widths.score:
        line.append(_right(example.score, widths.score) + GAP)
    if widths.label:
        line.append(_left(example.label, widths.label) + GAP)
    line.append(_right(_cut(example.before, widths.side, keep="end"), widths.side) + GAP)
    line.append(_left(_cut(example.token, widths.token), widths.token), style="bold")
    line.append(GAP + _cut(example.after, widths.side))
    line.rstrip()
    return line


def _cut(text: str, columns: int, *, keep: str = "start") -> str:
    """`text` shortened to this many columns of a terminal."""
    limit = columns
    while cell_len(shown := readable(text, limit, keep=keep)) > columns:
        limit -= 1
    return shown


def _left(text: str, columns: int) -> str:
    return text + " " * (columns - cell_len(text))


def _right(text: str, columns: int) -> str:
    return " " * (columns - cell_len(text)) + text
