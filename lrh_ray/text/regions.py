"""Stretches of text between an opening and a closing sign, found from left to right.

Whether a character is inside is known at that character: a stretch that is never closed ends with its paragraph (at
a blank line), and what closes nothing is ignored. So a smiley or a half-open interval costs one paragraph at most.
"""

import re
from collections.abc import Iterator

PARAGRAPH_END = r"\n[^\S\n]*\n"
BRACKET_OR_END = re.compile(rf"[()]|{PARAGRAPH_END}|\Z")
QUOTATION = re.compile(rf'(?:(?<![\w"])"(?=[^\s"])|“)((?:(?!{PARAGRAPH_END})[^"“”])*)["”]?')
"""An opening mark follows no word and precedes one; the next mark closes."""


def in_parentheses(text: str) -> Iterator[tuple[int, int]]:
    """Insides of the outermost round brackets."""
    depth, start = 0, 0
    for sign in BRACKET_OR_END.finditer(text):
        if sign.group() == "(":
            start = sign.end() if depth == 0 else start
            depth += 1
        elif depth:
            depth = depth - 1 if sign.group() == ")" else 0
            if depth == 0:
                yield from _trimmed(text, start, sign.start())


def in_quotes(text: str) -> Iterator[tuple[int, int]]:
    """Insides of double quotation marks, straight or curly."""
    for match in QUOTATION.finditer(text):
        yield from _trimmed(text, *match.span(1))


def _trimmed(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The range without white space at its ends, if anything remains."""
    inside = text[start:end]
    if inside.strip():
        yield start + len(inside) - len(inside.lstrip()), start + len(inside.rstrip())
