"""What a worker computes for intrinsic probing: one concept at one site, with every kind of probe.

A probe is fitted to training rows, ranks dimensions by the likelihood of the validation labels, and is measured on the
held-out rows, each subset beside random ones of its size. All of it is done again with shuffled labels. A logistic
probe on all dimensions, whose penalty the validation rows choose, says how much there is to find.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from lrh_ray.analyses.intervals import DocumentBootstrap
from lrh_ray.analyses.intrinsic import (
    GaussianProbe,
    Information,
    LatentProbe,
    LatentRecipe,
    bits,
    fit_gaussian_probe,
    fit_latent_probe,
    information,
    label_p_value,
    random_subsets,
)
from lrh_ray.analyses.moments import LabelledMoments, absolute_penalties
from lrh_ray.analyses.multinomial import MultinomialProblem, run_in_memory
from lrh_ray.errors import ConfigError, NotEnoughData
from lrh_ray.studies.intrinsic_config import IntrinsicConfig, ProbeKind
from lrh_ray.studies.intrinsic_records import Asked, Finding, ProbeFinding, Ranking, Subset
from lrh_ray.studies.intrinsic_rows import ConceptRows, Variable, concept_rows
from lrh_ray.studies.probe_design import HELD_OUT, PARTS, TRAIN, VALIDATION, Part
from lrh_ray.studies.probe_passes import Rowset

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
TOLERANCE = 1e-4
"""Of the logistic probe, whose loss then exceeds its minimum by far less than an interval is wide."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """The rows of a concept: to fit a probe, to rank dimensions, and to measure."""

    train: ConceptRows
    ranking: ConceptRows
    held_out: ConceptRows

    @property
    def parts(self) -> tuple[ConceptRows, ConceptRows, ConceptRows]:
        return self.train, self.ranking, self.held_out

    def each(self, change: Callable[[Part, ConceptRows], ConceptRows]) -> "Split":
        """Every part changed in the same way."""
        train, ranking, held_out = (change(part, rows) for part, rows in zip(PARTS, self.parts, strict=True))
        return Split(train=train, ranking=ranking, held_out=held_out)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Measures a concept at a site; runs on a worker."""

    concepts: Mapping[str, tuple[Variable, Rowset]]
    config: IntrinsicConfig

    def __call__(self, asked: Asked) -> Finding:
        try:
            return self._measured(asked)
        except NotEnoughData as error:
            raise NotEnoughData(
                f"Concept {asked.concept!r} at site {asked.site!r}: {error} Raise intrinsic.max_rows, or name other "
                f"concepts in intrinsic.concepts."
            ) from error

    def _measured(self, asked: Asked) -> Finding:
        everything = self._split(asked)
        kept = _varying(everything.train)
        if len(kept) < self.config.sizes[0]:
            raise ConfigError(
                f"At site {asked.site!r} {len(kept)} dimensions vary, and intrinsic.sizes begins at "
                f"{self.config.sizes[0]}. Begin lower, or leave the site out of intrinsic.sites."
            )
        split = everything.each(lambda _, part: replace(part, rows=part.rows[:, kept]))
        twin = split.each(lambda part, rows: rows.shuffled(np.random.default_rng([self.config.seed, 6, part])))
        return Finding(
            site=asked.site,
            concept=asked.concept,
            width=len(kept),
            rows=[len(part.rows) for part in split.parts],
            documents=[part.num_documents for part in split.parts],
            scarcest=int(np.bincount(split.train.classes).min()),
            probes=[self._probe(kind, split, twin, kept) for kind in self.config.probes],
            linear=self._logistic(split),
        )

    def _split(self, asked: Asked) -> Split:
        variable, rowset = self.concepts[asked.concept]
        train, ranking, held_out = (
            concept_rows(rowset, asked.site, part, variable) for part in (TRAIN, VALIDATION, HELD_OUT)
        )
        split = Split(train=train, ranking=ranking, held_out=held_out)
        counts = np.bincount(train.classes, minlength=len(variable.values))
        if not counts.all():
            raise NotEnoughData(f"No training row is of the class {variable.values[int(counts.argmin())]!r}.")
        if not all(np.isfinite(part.rows).all() for part in split.parts):
            raise NotEnoughData("Some rows are not finite, so that no probe can be fitted.")
        return split

    def _probe(self, kind: ProbeKind, split: Split, twin: Split, kept: np.ndarray) -> ProbeFinding:
        probe = self._fitted(kind, split.train)
        everything = probe.log_posteriors(split.held_out.rows, np.arange(len(kept)))
        return ProbeFinding(
            kind=kind,
            true=self._ranked(probe, split, kept),
            shuffled=self._ranked(self._fitted(kind, twin.train), twin, kept),
            whole=self._information(everything, split.held_out),
        )

    def _fitted(self, kind: ProbeKind, train: ConceptRows) -> GaussianProbe | LatentProbe:
        if kind == "gaussian":
            return fit_gaussian_probe(train.rows, train.classes, estimate="mean")
        recipe = LatentRecipe(family=kind, largest=self.config.sizes[-1], steps=self.config.steps)
        return fit_latent_probe(train.rows, train.classes, recipe=recipe, seed=self.config.seed)

    def _ranked(self, probe: GaussianProbe | LatentProbe, split: Split, kept: np.ndarray) -> Ranking:
        sizes = [size for size in self.config.sizes if size <= len(kept)]
        order = probe.greedy(split.ranking.rows, split.ranking.classes, sizes[-1])
        subsets = [self._subset(probe, split.held_out, order[:size]) for size in sizes]
        return Ranking(order=kept[order], subsets=subsets)

    def _subset(self, probe: GaussianProbe | LatentProbe, held_out: ConceptRows, chosen: np.ndarray) -> Subset:
        draws, seed = self.config.null_draws, self.config.seed

        def said(dimensions: np.ndarray) -> float:
            return bits(probe.log_posteriors(held_out.rows, dimensions), held_out.classes)

        random = random_subsets(said, num_features=held_out.rows.shape[1], size=len(chosen), draws=draws, seed=seed)
        log_posteriors = probe.log_posteriors(held_out.rows, chosen)
        found = self._information(log_posteriors, held_out)
        of_labels = label_p_value(log_posteriors, held_out.classes, held_out.units, draws=draws, seed=seed)
        both = max(random.p_value(found.bits), of_labels)
        return Subset(size=len(chosen), found=found, random=random, p_value=both if found.bits > 0 else 1.0)

    def _logistic(self, split: Split) -> Information:
        """What the best linear probe says of all dimensions; validation rows choose its penalty."""
        train, num_classes = split.train, int(split.train.classes.max()) + 1
        members, populations = np.ones((len(train.rows), 1), dtype=bool), np.zeros(num_classes, dtype=np.int64)
        labels = np.eye(num_classes)[train.classes]
        moments = LabelledMoments.of(train.rows, train.rows.mean(axis=0), labels, members, populations).finalize()
        problem = MultinomialProblem(
            moments=moments, columns=np.arange(num_classes), penalties=absolute_penalties(moments, PENALTIES)[0]
        )
        fit = run_in_memory(problem, [(train.rows, members)], tolerance=TOLERANCE)
        ranking = split.ranking
        best = max(fit.readouts, key=lambda readout: bits(readout.log_posteriors(ranking.rows), ranking.classes))
        return self._information(best.log_posteriors(split.held_out.rows), split.held_out)

    def _information(self, log_posteriors: np.ndarray, rows: ConceptRows) -> Information:
        bootstrap = DocumentBootstrap(draws=self.config.draws, seed=self.config.seed)
        return information(log_posteriors, rows.classes, rows.documents, bootstrap)


def _varying(train: ConceptRows) -> np.ndarray:
    """Dimensions that are not constant in any class; a Gaussian of another would have no density."""
    spread = [np.ptp(train.rows[train.classes == m], axis=0) for m in np.unique(train.classes)]
    return np.flatnonzero(np.min(spread, axis=0) > 0)
