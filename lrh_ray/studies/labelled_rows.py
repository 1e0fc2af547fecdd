"""Rows with the label of a concept, by their place in a store: the words of pairs, or samples of a labelled corpus.

    concepts, omitted = rows_of_pairs(store, word_pairs(store))          # first words 1, second words 0
    (train, held_out) = sampled_rows(rowset, ((TRAIN,), (HELD_OUT,)), most=2000)
    rows = rows_of(store, "resid.15", train)                             # one array [W, D] for each concept

Samples are uniform over the rows of a class, and of equal size for both classes, so that a share of right answers has a
chance level of one half. Rows that must stay together (words of pairs that share one, rows of a document) are a group.

What can go wrong: a class with fewer rows than asked for makes both classes smaller.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from lrh_ray.analyses.row_sample import RowSample
from lrh_ray.runtime.reduce import reduce_blocks
from lrh_ray.store.reader import Store
from lrh_ray.studies.pair_words import WordPairs
from lrh_ray.studies.probe_design import Part
from lrh_ray.studies.probe_passes import Rowset
from lrh_ray.studies.stored_rows import last_index, rows_at

Parts: TypeAlias = tuple[tuple[Part, ...], ...]
"""Sets of parts of the documents, each sampled by itself."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelledRows:
    """Rows of one concept: place in the store, class 0 or 1, and group of each [W]."""

    name: str
    index: np.ndarray
    labels: np.ndarray
    groups: np.ndarray


def rows_of_pairs(store: Store, pairs: WordPairs) -> tuple[tuple[LabelledRows, ...], tuple[str, ...]]:
    """The words of every concept with enough groups of pairs, and the names of the other concepts."""
    table, (first, second) = pairs.table, last_index(store, pairs.sequences.T)
    found, omitted = list[LabelledRows](), list[str]()
    for concept, (name, judged) in enumerate(zip(table.concepts, table.judged, strict=True)):
        if not judged:
            omitted.append(name)
            continue
        own = table.pairs_of(concept)
        found.append(
            LabelledRows(
                name=name,
                index=np.concatenate([first[own], second[own]]),
                labels=np.repeat([1, 0], len(own)),
                groups=np.tile(table.group[own], 2),
            )
        )
    return tuple(found), tuple(omitted)


@dataclass(frozen=True, kw_only=True)
class SamplePass:
    """block -> a sample of the rows of both classes of every column in every set of parts; no activation is read."""

    rowset: Rowset
    parts: Parts
    most: int

    def __call__(self, block: int) -> RowSample:
        design, here = self.rowset.design, self.rowset.block(block)
        num = len(design.columns)
        members, positive = here.members[:, design.populations[:num]], here.labels[:, :num] == 1
        classes = np.stack([members & ~positive, members & positive], axis=2)  # [N, C, 2]
        inside = np.stack([np.isin(here.parts, own) for own in self.parts], axis=1)  # [N, parts]
        strata = (inside[:, :, None, None] & classes[:, None]).reshape(len(inside), -1)
        priorities = np.random.default_rng([design.seed, 7, block]).random(len(inside))
        return RowSample.of(strata, priorities, here.index, design.document[here.sequence], most=self.most)


def sampled_rows(rowset: Rowset, parts: Parts, *, most: int) -> list[tuple[LabelledRows, ...]]:
    """Of each set of parts a sample for every column of the design, at most `most` rows of either class."""
    blocks = range(rowset.store.plan.num_blocks)
    sample = reduce_blocks(blocks, SamplePass(rowset=rowset, parts=parts, most=most))
    columns = rowset.design.columns
    return [
        tuple(_of_column(sample, 2 * (place * len(columns) + c), column.name) for c, column in enumerate(columns))
        for place in range(len(parts))
    ]


def _of_column(sample: RowSample, stratum: int, name: str) -> LabelledRows:
    """Both classes of a column, which are two strata in a row; as many of each as the smaller one has."""
    both = [sample.of_stratum(stratum + one) for one in (0, 1)]
    num = min(len(own.index) for own in both)
    return LabelledRows(
        name=name,
        index=np.concatenate([own.index[:num] for own in both]),
        labels=np.repeat([0, 1], num),
        groups=np.concatenate([own.document[:num] for own in both]),
    )


def rows_of(store: Store, site: str, concepts: Sequence[LabelledRows]) -> list[np.ndarray]:
    """The rows [W, D] of every concept at one site, float32; a block is read once."""
    rows = rows_at(store, site, np.concatenate([one.index for one in concepts]))
    return np.split(rows.astype(np.float32), np.cumsum([len(one.index) for one in concepts])[:-1])
