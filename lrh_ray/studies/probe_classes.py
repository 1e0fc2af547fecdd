"""Concepts of several classes: linear discriminants and multinomial logistic regression over all values at once.

The one-vs-rest columns of a document-level concept already give its classes, for training (their class sums are in the
moments) and for judgement. Shuffled twins are fitted and judged in the same way; baselines are the largest training
class and the training rates.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.intervals import DocumentBootstrap, Sample
from lrh_ray.analyses.lda import fit_multiclass_lda
from lrh_ray.analyses.metrics import multiclass_accuracy, multiclass_log_loss
from lrh_ray.analyses.moments import Moments
from lrh_ray.analyses.multinomial import MultinomialFit
from lrh_ray.analyses.readout import MulticlassReadout
from lrh_ray.layouts import Rows
from lrh_ray.studies.probe_config import ProbeConfig
from lrh_ray.studies.probe_design import ProbeDesign

CLASS_METRICS = {"accuracy": multiclass_accuracy, "log_loss": multiclass_log_loss}


@dataclass(frozen=True, slots=True)
class ClassColumns:
    """The label columns that are the classes of a concept: the true ones, or the shuffled."""

    concept: str
    shuffled: bool
    columns: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.concept} (shuffled)" if self.shuffled else self.concept


@dataclass(frozen=True, kw_only=True)
class ClassProbes:
    """One kind of probe of one concept at one site, for every regularisation: on its labels, and on the shuffled."""

    concept: str
    kind: str
    columns: np.ndarray
    true: tuple[MulticlassReadout, ...]
    twins: tuple[MulticlassReadout, ...]
    rates: np.ndarray


@dataclass(frozen=True, kw_only=True)
class ClassJudgement:
    """Held-out accuracy and log-loss of one concept with their bootstrap draws, twins and baselines."""

    concept: str
    kind: str
    metrics: Mapping[str, Sample]
    shuffled: Mapping[str, float]
    majority: float
    base_rate_log_loss: float


@dataclass(frozen=True, kw_only=True)
class ClassRows:
    """Rows of one part that carry the concept, with their class by label column."""

    rows: Rows
    labels: np.ndarray
    documents: np.ndarray
    num_documents: int

    def classes(self, columns: np.ndarray) -> np.ndarray:
        return np.asarray(self.labels[:, columns].argmax(axis=1), dtype=np.int64)

    def evaluate(self, name: str, readout: MulticlassReadout, columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
        log_posteriors = readout.log_posteriors(self.rows)
        return CLASS_METRICS[name](log_posteriors, self.classes(columns), self.documents, weights)


def class_places(design: ProbeDesign) -> Iterator[ClassColumns]:
    """The true and the shuffled classes of every document-level concept of at least three."""
    for concept in design.document_concepts:
        columns = tuple(c for c, column in enumerate(design.columns) if column.concept == concept)
        if len(columns) >= 3:
            yield ClassColumns(concept, False, columns)
            yield ClassColumns(concept, True, tuple(c + len(design.columns) for c in columns))


def fit_classes(
    moments: Moments,
    design: ProbeDesign,
    shrinkages: Sequence[float],
    multinomial: Mapping[ClassColumns, MultinomialFit],
) -> Iterator[ClassProbes]:
    """Every kind of probe of every concept of several classes; the multinomial ones as far as they were fitted."""
    readouts = {}
    for place in class_places(design):
        lda = tuple(fit_multiclass_lda(moments, list(place.columns), shrinkage) for shrinkage in shrinkages)
        exact = {"multinomial": multinomial[place].readouts} if place in multinomial else {}
        readouts[place] = {"lda, all classes": lda, **exact}
    twins = {place.concept: of_place for place, of_place in readouts.items() if place.shuffled}
    for place, of_place in readouts.items():
        if not place.shuffled:
            columns = np.array(place.columns, dtype=np.int64)
            for kind, true in of_place.items():
                yield ClassProbes(
                    concept=place.concept,
                    kind=kind,
                    columns=columns,
                    true=true,
                    twins=twins[place.concept][kind],
                    rates=moments.rate[columns],
                )


def judge_classes(
    probes: ClassProbes, validation: ClassRows, rows: ClassRows, num_columns: int, config: ProbeConfig
) -> ClassJudgement:
    """Choose the regularisation by validation log-loss, then judge on held-out rows."""
    twin_columns = probes.columns + num_columns
    true = _best(probes.true, validation, probes.columns)
    twin = _best(probes.twins, validation, twin_columns)
    ones = np.ones((1, rows.num_documents))
    bootstrap = DocumentBootstrap(draws=config.draws, seed=config.seed)

    def sampled(name: str) -> Sample:
        return bootstrap.apply(lambda weights: rows.evaluate(name, true, probes.columns, weights), rows.num_documents)

    classes = rows.classes(probes.columns)
    return ClassJudgement(
        concept=probes.concept,
        kind=probes.kind,
        metrics={name: sampled(name) for name in CLASS_METRICS},
        shuffled={name: float(rows.evaluate(name, twin, twin_columns, ones)[0, 0]) for name in CLASS_METRICS},
        majority=float((classes == probes.rates.argmax()).mean()),
        base_rate_log_loss=float(-np.log(probes.rates[classes]).mean()),
    )


def _best(readouts: Sequence[MulticlassReadout], rows: ClassRows, columns: np.ndarray) -> MulticlassReadout:
    ones = np.ones((1, rows.num_documents))
    losses = [float(rows.evaluate("log_loss", readout, columns, ones)[0, 0]) for readout in readouts]
    return readouts[int(np.argmin(losses))]
