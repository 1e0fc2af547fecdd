"""Measurement on paired contexts: do the directions of concepts tell what a context goes on with?

A store may hold, beside its words, contexts that go on with the first or with the second word of a pair (a source of
`kind: paired-contexts`). Every concept's direction in the unembedding is then tried on every set of contexts
(`analyses.context_tests`). The direction that belongs to a set should tell its sides; the others should not, and show
what any direction tells by chance, or by what the sides differ in besides.

    found = measure_contexts(store, "final_norm", directions, causal, bootstrap)
    found["en-fr"].measured.auc.estimates          # [K]

What can go wrong: sides of a set are often texts of two kinds (two languages, say), not texts that differ in one word.
An AUC near 1 says that a direction tells the kinds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.causal_directions import InnerProduct
from lrh_ray.analyses.context_tests import Measurement, measurement
from lrh_ray.analyses.intervals import DocumentBootstrap, percentile_interval
from lrh_ray.analyses.pair_test import PairTable
from lrh_ray.analyses.ratio import ratio
from lrh_ray.records import Measure, Scalar, Table
from lrh_ray.store.reader import Store
from lrh_ray.studies.pair_words import last_rows, paired_contexts


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ContextAnswer:
    """One set of contexts: how many, what each direction tells, and its causal cosine with the mean difference [K]."""

    number: int
    measured: Measurement
    cosines: np.ndarray


def measure_contexts(
    store: Store, site: str, words: np.ndarray, inner: InnerProduct, bootstrap: DocumentBootstrap
) -> Mapping[str, ContextAnswer]:
    """Every set of contexts with every direction [K, D]; sets of one line only have no interval, and are left out."""
    found = {}
    for contexts in paired_contexts(store):
        if len(np.unique(np.concatenate(contexts.lines))) < 2:
            continue
        first, second = (last_rows(store, site, sequences) for sequences in (contexts.first, contexts.second))
        difference = inner.dual_coordinates((second.mean(axis=0) - first.mean(axis=0))[None])[0]
        directions = inner.coordinates(words)
        lengths = np.linalg.norm(directions, axis=1) * np.linalg.norm(difference)
        found[contexts.name] = ContextAnswer(
            number=len(first) + len(second),
            measured=measurement(words, first, second, documents=contexts.lines, bootstrap=bootstrap),
            cosines=ratio(directions @ difference, lengths, otherwise=0.0),
        )
    return found


def context_measures(found: Mapping[str, ContextAnswer], table: PairTable) -> Iterator[Measure]:
    """AUC of every direction on every set, with the share of contexts whose score has the sign of their side."""
    for name, answer in found.items():
        interval = percentile_interval(answer.measured.auc.draws)
        for k, concept in enumerate(table.concepts):
            low, high = float(interval.low[k]), float(interval.high[k])
            yield Measure(
                name="measurement",
                value=float(answer.measured.auc.estimates[k]),
                unit="AUC",
                keys={"site": "final_norm", "contexts": name, "concept": concept},
                low=low if np.isfinite(low) else None,
                high=high if np.isfinite(high) else None,
                controls={
                    "chance": 0.5,
                    "sign": float(answer.measured.sign.estimates[k]),
                    "cosine": float(answer.cosines[k]),
                },
            )


def context_tables(found: Mapping[str, ContextAnswer], table: PairTable) -> Iterator[Table]:
    """Directions by sets of contexts."""
    if found:
        rows: list[tuple[Scalar, ...]] = [
            (concept, *(round(float(answer.measured.auc.estimates[k]), 3) for answer in found.values()))
            for k, concept in enumerate(table.concepts)
        ]
        yield Table(
            name="measurement on paired contexts",
            description="How often the score of a context that goes on with a second word exceeds that of one that "
            "goes on with a first word (AUC, chance .5), along the direction of each concept in the unembedding.",
            columns=("direction", *found),
            rows=tuple(rows),
        )


def context_sentences(found: Mapping[str, ContextAnswer], table: PairTable) -> Iterator[str]:
    for name, answer in found.items():
        areas = answer.measured.auc.estimates
        best = int(np.argmax(np.abs(areas - 0.5)))
        others = np.abs(np.delete(areas, best) - 0.5)
        yield (
            f"Of {answer.number} contexts of {name}, the direction of {table.concepts[best]} tells best on which side "
            f"a context is: AUC {areas[best]:.2f}"
            + (f"; the others are {others.mean():.2f} from chance on average." if len(others) else ".")
        )
