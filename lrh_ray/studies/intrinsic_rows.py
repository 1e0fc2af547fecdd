"""The rows that intrinsic probing reads: for each concept a sample of whole documents, with the class of every row.

Parts are those of the probing study: training rows fit a probe, validation rows rank dimensions, held-out rows give the
numbers. Of each part as many documents are read as its number of rows allows, drawn so that every class keeps its share
of them; the others belong to no part. Labels are shuffled at the level at which the concept varies, inside each part.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lrh_ray.analyses.controls import shuffle_labels
from lrh_ray.layouts import Rows64
from lrh_ray.store.documents import Labels
from lrh_ray.store.reader import Store
from lrh_ray.studies.probe_design import PARTS, VALIDATION, Omitted, Part, ProbeDesign
from lrh_ray.studies.probe_judgement import gather
from lrh_ray.studies.probe_passes import Rowset

NO_PART = len(PARTS)
"""Of documents that are not read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Variable:
    """A concept with its classes: all values of a document-level one, whether a token has the value of another."""

    name: str
    level: Literal["token", "document"]
    column: int
    """Label column of a token-level concept; any of a document-level one's."""
    values: tuple[str, ...]
    codes: tuple[int, ...]
    """Number of each value among those of its concept; of 0/1 labels, the label."""


@dataclass(frozen=True, kw_only=True)
class ConceptRows:
    """Rows [N, D] that carry a concept, the class and the document of each [N]."""

    rows: Rows64
    classes: np.ndarray
    documents: np.ndarray
    level: Literal["token", "document"]

    @property
    def num_documents(self) -> int:
        return int(self.documents.max(initial=-1)) + 1

    @property
    def units(self) -> np.ndarray:
        """What labels are permuted among: rows of a token-level concept, documents of the other."""
        return self.documents if self.level == "document" else np.arange(len(self.documents))

    def shuffled(self, rng: np.random.Generator) -> "ConceptRows":
        """The same rows with the labels of others."""
        every, own = np.ones(len(self.classes), dtype=bool), self.classes[:, None].astype(np.float64)
        permuted = shuffle_labels(own, every, self.documents, self.level, rng)
        return replace(self, classes=permuted[:, 0].astype(np.int64))


def variables(design: ProbeDesign) -> Iterator[Variable]:
    """The concepts of a design, a document-level one once and not by value."""
    told = set[str]()
    for number, column in enumerate(design.columns):
        if column.level == "token":
            yield Variable(name=column.name, level="token", column=number, values=("no", "yes"), codes=(0, 1))
        elif column.concept not in told:
            told.add(column.concept)
            codes = design.codes[column.population - 1]
            kept = tuple(np.unique(codes[codes >= 0]).tolist())
            values = tuple(design.values[column.population - 1][code] for code in kept)
            yield Variable(name=column.concept, level="document", column=number, values=values, codes=kept)


def sampled(
    rowset: Rowset, labels: Labels, store: Store, *, num_rows: Mapping[Part, int], least: int
) -> tuple[Mapping[str, tuple[Variable, Rowset]], tuple[Omitted, ...]]:
    """Each concept of the design with its own sample of at most `num_rows`, and those of which it is too small."""
    design, found, omitted = rowset.design, dict[str, tuple[Variable, Rowset]](), list[Omitted]()
    for variable in variables(design):
        strata = _strata(design, labels, store, variable)
        parts = _sample(design, strata, store.plan.lengths, num_rows)
        needed = variable.codes if variable.level == "document" else variable.codes[1:]
        counts = {
            part: min(len(np.unique(design.document[(parts == part) & (strata == code)])) for code in needed)
            for part in PARTS
        }
        scarce = min(PARTS, key=lambda part: counts[part])
        if counts[scarce] < least:
            setting = "ranking_rows" if scarce == VALIDATION else "max_rows"
            reason = f"{num_rows[scarce]} rows hold {counts[scarce]} documents of a class; raise intrinsic.{setting}"
            omitted.append(Omitted(concept=variable.name, reason=reason))
            continue
        own = replace(rowset, design=replace(design, parts=parts), digest=f"{rowset.digest}-{variable.name}")
        found[variable.name] = variable, own
    return found, tuple(omitted)


def _strata(design: ProbeDesign, labels: Labels, store: Store, variable: Variable) -> np.ndarray:
    """Of every sequence its class, or whether its document shows the concept; -1 where the concept is absent."""
    column = design.columns[variable.column]
    if variable.level == "document":
        return np.asarray(design.codes[column.population - 1])
    shown = labels.documents_with(column.concept, column.value)
    return np.array([name in shown for name in store.document_ids], dtype=np.int64)


def _sample(design: ProbeDesign, strata: np.ndarray, lengths: np.ndarray, num_rows: Mapping[Part, int]) -> np.ndarray:
    """Part of every sequence if its document is read; a document's rank is its place in the order of its class."""
    _, first = np.unique(design.document, return_index=True)
    part_of, stratum_of = design.parts[first], strata[first]
    rows_of = np.bincount(design.document, weights=lengths)
    rng, kept = np.random.default_rng([design.seed, 5]), np.zeros(len(first), dtype=bool)
    for part in PARTS:
        rank = np.full(len(first), np.inf)
        for code in np.unique(stratum_of[stratum_of >= 0]):
            members = rng.permutation(np.flatnonzero((part_of == part) & (stratum_of == code)))
            rank[members] = (np.arange(len(members)) + 0.5) / len(members)
        order = np.argsort(rank, kind="stable")[: np.isfinite(rank).sum()]
        kept[order[np.cumsum(rows_of[order]) <= num_rows[part]]] = True
    return np.where(kept[design.document], design.parts, NO_PART).astype(np.int8)


def concept_rows(rowset: Rowset, site: str, part: Part, variable: Variable) -> ConceptRows:
    """All rows of one part that carry the concept, at one site."""
    design = rowset.design
    found = gather(rowset, site, part, max_rows=int(rowset.store.plan.lengths.sum()))
    column = design.columns[variable.column]
    inside = found.members[:, column.population]
    sequence = found.sequence[inside]
    if variable.level == "document":
        codes = design.codes[column.population - 1][sequence]
    else:
        codes = found.labels[inside, variable.column].astype(np.int64)
    _, documents = np.unique(design.document[sequence], return_inverse=True)
    return ConceptRows(
        rows=found.rows[inside].astype(np.float64),
        classes=np.searchsorted(np.array(variable.codes), codes),
        documents=documents,
        level=variable.level,
    )
