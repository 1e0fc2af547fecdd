"""Sentences with gaps: filling words into a carrier and knowing where they stand.

    fill("The capital of {country} is {capital}.", country="France", capital="Paris").places["capital"]   # (25, 30)

Built-in concept material puts the members of a contrast into the same carriers, so that nothing but the words tells
them apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Filled:
    """A carrier with its gaps filled: gap -> characters `start:end` of `text`."""

    text: str
    places: Mapping[str, tuple[int, int]]


def fill(carrier: str, **words: str) -> Filled:
    """`carrier` with each `{gap}` replaced by the word of that name."""
    text, places = "", {}
    for literal, gap, _, _ in Formatter().parse(carrier):
        text += literal
        if gap is not None:
            places[gap] = (len(text), len(text) + len(words[gap]))
            text += words[gap]
    return Filled(text=text, places=places)


def numbered_carriers(carriers: Sequence[str], index: int, which: Literal["one", "all"]) -> list[tuple[int, str]]:
    """Carriers with their numbers for item `index`: one of them in turn, or all."""
    numbers = [index % len(carriers)] if which == "one" else range(len(carriers))
    return [(number, carriers[number]) for number in numbers]
