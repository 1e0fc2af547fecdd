"""Words by their letters and their place: sentence starts, capitals, identifiers.

Each is one pass over the text from left to right, so its cost is linear whatever the text holds.
"""

import re
from collections.abc import Callable, Iterator

from lrh_ray.text.regions import PARAGRAPH_END

Ranges = Iterator[tuple[int, int]]

ANY_WORD = re.compile(r"\w+(?:['’]\w+)*")
LETTERS = re.compile(r"(?<![\w.])[^\W\d_]++(?![\w])(?!\.\w)")
"""A run of letters that is no part of an identifier, a number or a dotted name."""

NAME = re.compile(r"(?<!\w)[^\W\d]\w*+(?:\.[^\W\d]\w*+)*+")
HUMP = re.compile(r"[a-z][A-Z]")
PARAGRAPH_BREAK = re.compile(PARAGRAPH_END)
FULL_STOP = re.compile(r"""[.!?]["'’”)\]]*\s""")
TITLES = frozenset({"mr", "mrs", "dr", "prof", "vs", "cf", "no", "fig", "sec"})


def sentence_starts(text: str) -> Ranges:
    """The first word of each paragraph, and each capitalised word after a full stop, `!` or `?`.

    A full stop after a single letter (e.g., i.e., initials) or a title ends no sentence.
    """
    end, before = 0, ""
    for match in ANY_WORD.finditer(text):
        gap = text[end : match.start()]
        after_stop = match.group()[0].isupper() and not _abbreviates(before, gap) and FULL_STOP.search(gap)
        if not before or after_stop or PARAGRAPH_BREAK.search(gap):
            yield match.span()
        end, before = match.end(), match.group()


def capitalised_words(text: str) -> Ranges:
    """Words of two letters or more, a capital and then small letters, that start no sentence."""
    starts = {start for start, _ in sentence_starts(text)}
    for start, end in _spans(LETTERS, text, lambda word: len(word) > 1 and word.istitle()):
        if start not in starts:
            yield start, end


def uppercase_words(text: str) -> Ranges:
    """Words of two letters or more, all of them capital."""
    return _spans(LETTERS, text, lambda word: len(word) > 1 and word.isupper())


def identifiers(text: str) -> Ranges:
    """Names that only code has: dotted, with an underscore, or with a capital inside."""
    return _spans(NAME, text, _is_identifier)


def _spans(pattern: re.Pattern[str], text: str, accept: Callable[[str], bool]) -> Ranges:
    return (match.span() for match in pattern.finditer(text) if accept(match.group()))


def _is_identifier(name: str) -> bool:
    if "." in name and max(map(len, name.split("."))) > 1:  # not "e.g"
        return True
    return ("_" in name and name.strip("_") != "") or HUMP.search(name) is not None


def _abbreviates(word: str, gap: str) -> bool:
    return gap.startswith(".") and (len(word) == 1 or word.lower() in TITLES)
