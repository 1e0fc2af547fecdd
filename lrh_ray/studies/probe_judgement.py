"""Judge the fitted probes of one site on documents they have not seen.

Penalties are chosen on the validation documents; every number comes from the held-out documents, at most
`max_held_out_rows` rows of whole documents. Shuffled twins go through the same choice and are judged against shuffled
held-out labels, permuted afresh over all held-out rows, which is what makes the permutation band exact.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from lrh_ray.analyses.calibration import fit_platt, recalibrated
from lrh_ray.analyses.controls import Level, NullBand, permutation_band, shuffle_labels
from lrh_ray.analyses.held_out import HeldOut
from lrh_ray.analyses.intervals import DocumentBootstrap, Sample
from lrh_ray.analyses.metrics import accuracy, auc, base_rate_log_loss, log_loss, majority_accuracy
from lrh_ray.analyses.readout import Readout
from lrh_ray.analyses.reliability import brier_parts, calibration_error, calibration_null
from lrh_ray.analyses.token_counts import TokenCounts
from lrh_ray.errors import NotEnoughData
from lrh_ray.layouts import Rows
from lrh_ray.studies.probe_classes import ClassJudgement, ClassProbes, ClassRows, judge_classes
from lrh_ray.studies.probe_config import ProbeConfig
from lrh_ray.studies.probe_design import HELD_OUT, VALIDATION, Part, ProbeDesign
from lrh_ray.studies.probe_passes import Rowset

EXAMPLES = 6
PROBABILISTIC = ("logistic", "lda", "mlp")
FLIPPED_DOCUMENTS = 50
"""From so many documents on, the null of a calibration error keeps the errors that rows of a document share."""


@dataclass(frozen=True, kw_only=True)
class SiteProbes:
    """Every fitted probe of one site: probe kind -> readout over columns x penalties."""

    site: str
    readouts: Mapping[str, Readout]
    classes: tuple[ClassProbes, ...]
    rates: np.ndarray
    """[F C] share of positive training rows of each label column."""


@dataclass(frozen=True, kw_only=True)
class CalibrationJudgement:
    """Whether the probabilities of the true columns [C] mean what they say: expected calibration error beside what a
    calibrated probe would have on these rows [B, C], and what is left after Platt scaling on the validation rows.
    """

    error: np.ndarray
    null: np.ndarray
    after_platt: np.ndarray
    reliability: np.ndarray
    resolution: np.ndarray


@dataclass(frozen=True, kw_only=True)
class KindJudgement:
    """One probe kind at one site: chosen probes [F C], metrics of the true columns, and the twins' numbers [C]."""

    chosen: np.ndarray
    metrics: Mapping[str, Sample]
    shuffled: Mapping[str, np.ndarray]
    band: NullBand
    control_task: Mapping[str, Sample]
    """Metrics of the control tasks, of the same draws of documents; empty where there are none."""
    calibration: CalibrationJudgement | None
    """None for scores that are no log-odds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A held-out row that scores high for a column."""

    column: int
    index: int
    score: float
    positive: bool


@dataclass(frozen=True, kw_only=True)
class SiteJudgement:
    """Everything known about one site."""

    site: str
    kinds: Mapping[str, KindJudgement]
    classes: tuple[ClassJudgement, ...]
    majority: np.ndarray
    base_rate_log_loss: np.ndarray
    baselines: Mapping[str, np.ndarray]
    """AUC [C] without reading a direction: `token_only`, `norm_only`; and of the logistic probe `without_first`."""
    rows: int
    documents: int
    examples: tuple[Example, ...]


@dataclass(frozen=True, kw_only=True)
class PartRows:
    """All rows of one part at one site, in memory."""

    rows: Rows
    labels: np.ndarray
    members: np.ndarray
    sequence: np.ndarray
    index: np.ndarray
    token_id: np.ndarray
    position: np.ndarray

    def select(self, mask: np.ndarray) -> "PartRows":
        return PartRows(**{item.name: getattr(self, item.name)[mask] for item in fields(self)})

    def scored(self, design: ProbeDesign, readout: Readout, probes: np.ndarray) -> HeldOut:
        """Scores of some probes beside the labels they are judged by."""
        chosen = readout.of_probes(probes)
        return self.beside(design, chosen.scores(self.rows), chosen.columns)

    def beside(self, design: ProbeDesign, scores: np.ndarray, columns: np.ndarray) -> HeldOut:
        """Any scores [N, K] for label columns [K] beside the labels they are judged by."""
        _, documents = np.unique(design.document[self.sequence], return_inverse=True)
        return HeldOut(
            scores=scores,
            columns=columns,
            labels=self.labels,
            populations=design.populations,
            members=self.members,
            documents=documents,
            num_documents=int(documents.max()) + 1,
        )

    def of_concept(self, design: ProbeDesign, concept: str) -> ClassRows:
        """The rows that carry a document-level concept."""
        inside = self.members[:, 1 + design.document_concepts.index(concept)]
        _, documents = np.unique(design.document[self.sequence[inside]], return_inverse=True)
        return ClassRows(
            rows=self.rows[inside],
            labels=self.labels[inside],
            documents=documents,
            num_documents=int(documents.max(initial=-1)) + 1,
        )


def gather(rowset: Rowset, site: str, part: Part, max_rows: int) -> PartRows:
    """Rows of one part of the design: whole documents, in the order of their ids, up to `max_rows`."""
    design, store = rowset.design, rowset.store
    lengths = np.where(design.parts == part, store.plan.lengths, 0)
    per_document = np.bincount(design.document, weights=lengths)
    kept = np.cumsum(per_document) <= max(max_rows, per_document.max())
    wanted = (design.parts == part) & kept[design.document]
    blocks = np.unique(store.plan.block_of_sequence[wanted])
    found = [(rowset.block(int(block)), int(block)) for block in blocks]
    masks = [wanted[here.sequence] for here, _ in found]
    pairs = list(zip(found, masks, strict=True))
    return PartRows(
        rows=np.concatenate([store.block_rows(site, block)[mask] for (_, block), mask in pairs]),
        labels=np.concatenate([here.labels[mask] for (here, _), mask in pairs]).astype(np.float64),
        members=np.concatenate([here.members[mask] for (here, _), mask in pairs]),
        sequence=np.concatenate([here.sequence[mask] for (here, _), mask in pairs]),
        index=np.concatenate([here.index[mask] for (here, _), mask in pairs]),
        token_id=np.concatenate([here.token_id[mask] for (here, _), mask in pairs]),
        position=np.concatenate([here.position[mask] for (here, _), mask in pairs]),
    )


def reshuffle_tokens(design: ProbeDesign, rows: PartRows) -> PartRows:
    """Token-level twins permuted over all rows at once; the same permutation at every site."""
    num_columns, labels = len(design.columns), rows.labels.copy()
    token = np.array([c for c, column in enumerate(design.columns) if column.level == "token"], dtype=np.int64)
    rng = np.random.default_rng([design.seed, 4])
    labels[:, num_columns + token] = shuffle_labels(
        labels[:, token], rows.members[:, 0], design.document[rows.sequence], "token", rng
    )
    return replace(rows, labels=labels)


def choose(kind: str, held_out: HeldOut, num_columns: int) -> np.ndarray:
    """Best probe of each column on the validation rows: least log-loss, or largest AUC for scores without odds."""
    quality = -log_loss(held_out, held_out.ones)[0] if kind in PROBABILISTIC else auc(held_out, held_out.ones)[0]
    quality = np.nan_to_num(quality, nan=-np.inf)
    return np.array(
        [np.flatnonzero(held_out.columns == c)[quality[held_out.columns == c].argmax()] for c in range(num_columns)]
    )


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Judges one site; runs on a worker."""

    rowset: Rowset
    config: ProbeConfig
    tokens: TokenCounts

    def __call__(self, probes: SiteProbes) -> SiteJudgement:
        design, limit = self.rowset.design, self.config.max_held_out_rows
        validation = gather(self.rowset, probes.site, VALIDATION, limit)
        rows = reshuffle_tokens(design, gather(self.rowset, probes.site, HELD_OUT, limit))
        kinds = {kind: self._judge(kind, readout, validation, rows) for kind, readout in probes.readouts.items()}
        true = rows.scored(design, probes.readouts["logistic"], kinds["logistic"].chosen[: len(design.columns)])
        return SiteJudgement(
            site=probes.site,
            kinds=kinds,
            classes=tuple(self._classes(of_concept, validation, rows) for of_concept in probes.classes),
            majority=majority_accuracy(probes.rates, true),
            base_rate_log_loss=base_rate_log_loss(probes.rates, true),
            baselines=self._baselines(validation, rows, probes.readouts["logistic"], kinds["logistic"].chosen),
            rows=len(rows.index),
            documents=true.num_documents,
            examples=strongest_rows(true, rows.index),
        )

    def _baselines(
        self, validation: PartRows, rows: PartRows, logistic: Readout, chosen: np.ndarray
    ) -> Mapping[str, np.ndarray]:
        """What stands beside an AUC: the token alone, the length of the row alone, and all rows but the first."""
        design, columns = self.rowset.design, np.arange(len(self.rowset.design.columns))

        def area(part: PartRows, scores: np.ndarray) -> np.ndarray:
            held_out = part.beside(design, scores, columns)
            return np.asarray(auc(held_out, held_out.ones)[0])

        def lengths(part: PartRows) -> np.ndarray:
            norms = np.linalg.norm(part.rows.astype(np.float64), axis=1)
            return np.repeat(norms[:, None], len(columns), axis=1)

        sign = np.where(area(validation, lengths(validation)) < 0.5, -1.0, 1.0)
        later = rows.select(rows.position > 0)
        return {
            "token_only": area(rows, self.tokens.log_odds(rows.token_id)),
            "norm_only": area(rows, sign * lengths(rows)),
            "without_first": area(later, logistic.of_probes(chosen[columns]).scores(later.rows)),
        }

    def _classes(self, probes: ClassProbes, validation: PartRows, rows: PartRows) -> ClassJudgement:
        design = self.rowset.design
        return judge_classes(
            probes,
            validation.of_concept(design, probes.concept),
            rows.of_concept(design, probes.concept),
            len(design.columns),
            self.config,
        )

    def _judge(self, kind: str, readout: Readout, validation: PartRows, rows: PartRows) -> KindJudgement:
        design = self.rowset.design
        everything = np.arange(len(readout.columns))
        chosen = choose(kind, validation.scored(design, readout, everything), len(design.populations))
        true, twin, *control = np.split(chosen, len(design.families))
        metrics = {name: self._sample(name, rows.scored(design, readout, true), readout) for name in metric_names(kind)}
        shuffled = rows.scored(design, readout, twin)
        return KindJudgement(
            chosen=chosen,
            metrics=metrics,
            shuffled={name: evaluate(name, shuffled, readout, shuffled.ones)[0] for name in metric_names(kind)},
            band=permutation_band(shuffled, design.levels, draws=self.config.draws, seed=self.config.seed),
            control_task={
                name: self._sample(name, rows.scored(design, readout, task), readout)
                for task in control
                for name in metric_names(kind)
            },
            calibration=self._calibration(readout, true, validation, rows) if kind in PROBABILISTIC else None,
        )

    def _calibration(
        self, readout: Readout, chosen: np.ndarray, validation: PartRows, rows: PartRows
    ) -> CalibrationJudgement:
        held_out = rows.scored(self.rowset.design, readout, chosen)
        level: Level = "document" if held_out.num_documents >= FLIPPED_DOCUMENTS else "token"
        try:
            mapped = recalibrated(held_out, fit_platt(validation.scored(self.rowset.design, readout, chosen)))
            after = calibration_error(mapped, mapped.ones)[0]
        except NotEnoughData:  # a sample of the validation rows may lack a class
            after = np.full(len(chosen), np.nan)
        parts = brier_parts(held_out)
        return CalibrationJudgement(
            error=calibration_error(held_out, held_out.ones)[0],
            null=calibration_null(held_out, self.config.draws, self.config.seed, level),
            after_platt=after,
            reliability=parts.reliability,
            resolution=parts.resolution,
        )

    def _sample(self, name: str, held_out: HeldOut, readout: Readout) -> Sample:
        bootstrap = DocumentBootstrap(draws=self.config.draws, seed=self.config.seed)
        return bootstrap.apply(lambda weights: evaluate(name, held_out, readout, weights), held_out.num_documents)


def metric_names(kind: str) -> tuple[str, ...]:
    """Ridge scores are no probabilities, so they have no log-loss."""
    return ("auc", "accuracy", "log_loss") if kind in PROBABILISTIC else ("auc", "accuracy")


def evaluate(name: str, held_out: HeldOut, readout: Readout, weights: np.ndarray) -> np.ndarray:
    """A metric [B, K] by name."""
    if name == "auc":
        return auc(held_out, weights)
    if name == "accuracy":
        return accuracy(held_out, readout.threshold, weights)
    return log_loss(held_out, weights)


def strongest_rows(held_out: HeldOut, index: np.ndarray) -> tuple[Example, ...]:
    """The highest-scoring held-out rows of every column, at most one per document."""
    found = []
    for k, column in enumerate(held_out.columns.tolist()):
        inside = np.flatnonzero(held_out.probe_members[:, k])
        ranked = inside[np.argsort(-held_out.scores[inside, k], kind="stable")]
        _, first = np.unique(held_out.documents[ranked], return_index=True)
        for row in ranked[np.sort(first)[:EXAMPLES]]:
            positive = bool(held_out.labels[row, column] > 0.5)
            found.append(
                Example(column=column, index=int(index[row]), score=float(held_out.scores[row, k]), positive=positive)
            )
    return tuple(found)
