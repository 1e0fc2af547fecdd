"""Cutting a long text into passages of bearable length, at the most natural place there is.

    parts = list(passages(text, at_least=200, at_most=3000))

A cut is made at the last blank line that keeps both sides within the bounds, else at the last line end, else at the
last space, else anywhere. Nothing but white space at the cuts is lost.
"""

from collections.abc import Iterator

BORDERS = ("\n\n", "\n", " ")


def passages(text: str, *, at_least: int, at_most: int) -> Iterator[str]:
    """Consecutive parts of `text` of at most `at_most` characters; needs `at_most >= 2 * at_least > 0`.

    Parts have `at_least` characters too, unless the text itself has fewer or white space at a cut counted among them.
    """
    rest = text.strip()
    while len(rest) > at_most:
        cut = _cut(rest, at_least, min(at_most, len(rest) - at_least))
        yield rest[:cut].rstrip()
        rest = rest[cut:].strip()
    if rest:
        yield rest


def _cut(text: str, low: int, high: int) -> int:
    for border in BORDERS:
        place = text.rfind(border, low, high)
        if place > 0:
            return place
    return high
