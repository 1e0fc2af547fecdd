"""The word pairs of a store, and the contexts that go on with one of their words: which documents, and their rows.

    pairs = word_pairs(store)
    rows = word_rows(store, "final_norm", pairs)        # [2P, D]: all first words, then all second words
    for contexts in paired_contexts(store): last_rows(store, "final_norm", contexts.first)

The row of a word or context is that of its last token. Pairs of which one word is not in the store are left out and
counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.pair_test import PairTable
from lrh_ray.errors import NotEnoughData
from lrh_ray.store.reader import Store
from lrh_ray.studies.stored_rows import last_index, rows_at
from lrh_ray.text.paired_contexts import context_member
from lrh_ray.text.word_pairs import SIDES, pair_member


@dataclass(frozen=True, kw_only=True, slots=True)
class WordPairs:
    """The pairs of a store: concept and words of each, and the sequences of both words [P, 2]."""

    concepts: tuple[str, ...]
    words: tuple[tuple[str, str], ...]
    sequences: np.ndarray
    widowed: int

    @property
    def table(self) -> PairTable:
        return PairTable.of(self.concepts, self.words)


def word_pairs(store: Store) -> WordPairs:
    """The pairs whose two words are documents of the store, by concept and number.

    Raises:
        NotEnoughData: There are none.
    """
    found: dict[tuple[str, str], dict[str, int]] = {}
    for sequence, name in enumerate(store.document_ids):
        if (member := pair_member(name)) is not None:
            found.setdefault((member.concept, member.pair), {})[member.side] = sequence
    whole = {key: sides for key, sides in sorted(found.items()) if len(sides) == len(SIDES)}
    if not whole:
        raise NotEnoughData(
            f"The store {store.location!r} holds no word pairs. Extract documents of `kind: word-pairs` (or `kind: "
            f"pairs` with `carriers: none`) and repeat the command."
        )
    sequences = np.array([[sides[side] for side in SIDES] for sides in whole.values()])
    texts = store.texts
    return WordPairs(
        concepts=tuple(concept for concept, _ in whole),
        words=tuple((texts[first], texts[second]) for first, second in sequences.tolist()),
        sequences=sequences,
        widowed=len(found) - len(whole),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedContexts:
    """A set of contexts: sequences that go on with first and with second words, and the line of each."""

    name: str
    first: np.ndarray
    second: np.ndarray
    lines: tuple[np.ndarray, np.ndarray]


def paired_contexts(store: Store) -> tuple[PairedContexts, ...]:
    """The sets of contexts of a store that have both sides, by name."""
    found: dict[str, dict[str, dict[tuple[str, str], int]]] = {}
    for sequence, name in enumerate(store.document_ids):  # of a text in several sequences the last one counts
        if (member := context_member(name)) is not None:
            sides = found.setdefault(member.contexts, {side: {} for side in SIDES})
            sides[member.side][member.pair, name] = sequence
    return tuple(
        PairedContexts(
            name=name,
            first=np.array(list(sides["first"].values())),
            second=np.array(list(sides["second"].values())),
            lines=(_lines(sides["first"]), _lines(sides["second"])),
        )
        for name, sides in sorted(found.items())
        if all(sides.values())
    )


def _lines(contexts: Mapping[tuple[str, str], int]) -> np.ndarray:
    return np.array([int(line) for line, _ in contexts])


def word_rows(store: Store, site: str, pairs: WordPairs) -> np.ndarray:
    """[2 P, D] float64: the last row of every first word, then of every second."""
    return last_rows(store, site, pairs.sequences.T.reshape(-1))


def last_rows(store: Store, site: str, sequences: np.ndarray) -> np.ndarray:
    """[N, D] float64: the last row of each of these sequences."""
    return rows_at(store, site, last_index(store, sequences))
