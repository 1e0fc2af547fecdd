"""Transforms: the same documents with their order destroyed, as a control.

What a model represents of a sentence it may represent of its words alone. `shuffle_ngrams(n, seed)` cuts the words of
each document into runs of n and shuffles the runs within the document: n = 1 leaves a bag of words, a larger n keeps
what is local. Words are what white space separates. The white space between two runs stays where it is and that inside
a run goes with it, so every character is kept.

    transform = parse_transform("shuffle_ngrams(2, 0)")
    transformed(Document(id="a", text="one two three four"), transform).text     # "three four one two"

The order depends on seed and document id alone, by digests instead of a random generator: the same on every machine,
whatever else the corpus holds.

Labels of the document stay. Spans of the source are dropped, because the words they mark are torn apart; concepts
computed from the text are computed on the shuffled one, which is what the model reads.

What can go wrong: a transform of another form is a `ConfigError`. Token counts may change a little, because a word can
be tokenised differently after another one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from lrh_ray.digests import digest_json
from lrh_ray.errors import ConfigError
from lrh_ray.records import Document

NONE = "none"
_SHUFFLE = re.compile(r"shuffle_ngrams\(\s*([1-9][0-9]{0,5})\s*,\s*(0|[1-9][0-9]{0,8})\s*\)")
_WORD = re.compile(r"\S+")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShuffleNgrams:
    """Runs of `n` words in an order that `seed` and the document's id decide."""

    n: int
    seed: int


def parse_transform(word: str) -> ShuffleNgrams | None:
    """What `text.transform` says; None for `none`."""
    if word == NONE:
        return None
    found = _SHUFFLE.fullmatch(word)
    if found is None:
        raise ConfigError(
            f"transform is {word!r}; write none, or shuffle_ngrams(N, SEED) with N of at least 1, for example "
            "shuffle_ngrams(1, 0)."
        )
    return ShuffleNgrams(n=int(found[1]), seed=int(found[2]))


def transformed(document: Document, transform: ShuffleNgrams | None) -> Document:
    """The document with its runs of words shuffled and without spans; unchanged where `transform` is None."""
    if transform is None:
        return document
    return replace(document, text=_shuffled(document, transform), spans=())


def ngrams(text: str, n: int) -> list[tuple[int, int]]:
    """Character ranges of the runs of `n` words, from the first word on; the last run may be shorter."""
    words = [match.span() for match in _WORD.finditer(text)]
    runs = [words[first : first + n] for first in range(0, len(words), n)]
    return [(run[0][0], run[-1][1]) for run in runs]


def _shuffled(document: Document, transform: ShuffleNgrams) -> str:
    text, ranges = document.text, ngrams(document.text, transform.n)
    if len(ranges) < 2:
        return text
    gaps = [text[end:start] for (_, end), (start, _) in pairwise(ranges)]
    runs = [text[start:end] for start, end in _ordered(ranges, document.id, transform.seed)]
    middle = "".join(part for pair in zip(runs, [*gaps, ""], strict=True) for part in pair)
    return text[: ranges[0][0]] + middle + text[ranges[-1][1] :]


def _ordered(ranges: Sequence[tuple[int, int]], document_id: str, seed: int) -> list[tuple[int, int]]:
    order = sorted(range(len(ranges)), key=lambda index: digest_json([seed, document_id, index]))
    return [ranges[index] for index in order]
