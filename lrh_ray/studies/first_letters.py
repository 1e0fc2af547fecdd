"""Different words of a store that are one token each, with the row of one occurrence: the material of a spelling task.

    words = single_words(store, most=4000, seed=0)
    words.words[0], words.index[0]                 # "short", its row

A word is what a token stands for, when that is three letters or more of a to z in any case, with no letter, digit or
underscore on either side. It counts once, however often it occurs and however it is capitalised. Blocks are read in a
random order until there are enough words; attention sinks and first tokens without text are passed over.

What can go wrong: a tokenizer that cuts most words in pieces leaves few of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lrh_ray.store.reader import Store

LEAST_LETTERS = 3


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Words:
    """Words in lower case [W], and the row of each [W]."""

    words: tuple[str, ...]
    index: np.ndarray

    @property
    def letters(self) -> np.ndarray:
        """First letter of each [W]."""
        return np.array([word[0] for word in self.words])


def single_words(store: Store, *, most: int, seed: int) -> Words:
    """At most `most` words."""
    found: dict[str, int] = {}
    texts = store.texts
    for block in np.random.default_rng([seed, 10]).permutation(store.plan.num_blocks).tolist():
        for word, row in _of_block(store, block, texts):
            found.setdefault(word, row)
        if len(found) >= most:
            break
    kept = dict(list(found.items())[:most])
    return Words(words=tuple(kept), index=np.array(list(kept.values()), dtype=np.int64))


def _of_block(store: Store, block: int, texts: list[str]) -> Iterator[tuple[str, int]]:
    keys, sinks = store.keys(block), store.sink_mask(block)
    columns = (keys.doc, keys.char_start, keys.char_end, keys.index, sinks)
    for sequence, start, end, row, sink in zip(*(column.tolist() for column in columns), strict=True):
        if not sink and (word := whole_word(texts[sequence], start, end)):
            yield word, row


def whole_word(text: str, start: int, end: int) -> str:
    """The word that a token at these characters is; empty if it is none, or only part of one."""
    piece = text[start:end]
    word = piece.strip()
    begin = start + len(piece) - len(piece.lstrip())
    around = text[max(0, begin - 1) : begin] + text[begin + len(word) : begin + len(word) + 1]
    alone = not any(letter.isalnum() or letter == "_" for letter in around)
    return word.lower() if alone and len(word) >= LEAST_LETTERS and word.isascii() and word.isalpha() else ""
