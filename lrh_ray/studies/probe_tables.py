"""The tables of a probing result, and the arrays that define its probes."""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from lrh_ray.analyses.logistic import LogisticFit
from lrh_ray.records import Scalar, Table
from lrh_ray.store.reader import Store
from lrh_ray.studies.contexts import contexts
from lrh_ray.studies.probe_design import HELD_OUT, TRAIN, VALIDATION, ProbeDesign
from lrh_ray.studies.probe_judgement import SiteJudgement, SiteProbes
from lrh_ray.studies.probe_measures import ProbeStudy

EXAMPLE_CONCEPTS = 40


def sites_table(store: Store, fits: Mapping[str, LogisticFit]) -> Table:
    sites = cast(Mapping[str, Mapping[str, Scalar]], (store.manifest or {})["sites"])
    rows = tuple(
        (
            site,
            sites[site]["median_norm"],
            sites[site]["sinks"],
            sites[site]["absmax"],
            float(fits[site].condition.max()),
            float(fits[site].certificate.max()),
            fits[site].passes,
        )
        for site in store.sites
    )
    return Table(
        name="sites",
        description="Norms, attention sinks, and how hard the logistic problem was: condition number of its Hessian, "
        "largest gradient component left (whitened coordinates), passes over the store.",
        columns=("site", "median norm", "sinks", "largest value", "condition", "gradient left", "passes"),
        rows=rows,
    )


def parts_table(study: ProbeStudy) -> Table:
    design, lengths = study.design, study.store.plan.lengths
    rows = tuple(
        (name, len(np.unique(design.document[design.parts == part])), int(lengths[design.parts == part].sum()))
        for name, part in (("training", TRAIN), ("validation", VALIDATION), ("held out", HELD_OUT))
    )
    return Table(
        name="parts",
        description="Documents are dealt into parts as a whole; penalties are chosen on the validation part.",
        columns=("part", "documents", "tokens"),
        rows=rows,
    )


def omitted_table(design: ProbeDesign) -> Table:
    return Table(
        name="omitted",
        description="Concepts that were not probed.",
        columns=("concept", "reason"),
        rows=tuple((entry.concept, entry.reason) for entry in design.omitted),
    )


def examples_table(study: ProbeStudy) -> Table:
    """Held-out tokens that score highest with the logistic probe, at each concept's best site; strongest first."""
    rows: list[tuple[Scalar, ...]] = []
    best_sites = [
        max(study.judgements, key=lambda judgement: _auc_of(judgement, column))
        for column in range(len(study.design.columns))
    ]
    ranked = sorted(range(len(best_sites)), key=lambda column: -_auc_of(best_sites[column], column))
    chosen = [
        (best_sites[column].site, example)
        for column in ranked[:EXAMPLE_CONCEPTS]
        for example in best_sites[column].examples
        if example.column == column
    ]
    found = contexts(study.store, np.array([example.index for _, example in chosen], dtype=np.int64))
    for (site, example), (before, token, after) in zip(chosen, found, strict=True):
        label = "yes" if example.positive else "no"
        rows.append((study.design.columns[example.column].name, site, example.score, label, before, token, after))
    return Table(
        name="examples",
        description="Held-out tokens with the highest scores (log-odds, nats), one a document; the label says whether "
        "they have the concept.",
        columns=("concept", "site", "score", "label", "before", "token", "after"),
        rows=tuple(rows),
    )


def _auc_of(judgement: SiteJudgement, column: int) -> float:
    return float(np.nan_to_num(judgement.kinds["logistic"].metrics["auc"].estimates[column]))


def probe_arrays(study: ProbeStudy, probes: Sequence[SiteProbes]) -> dict[str, np.ndarray]:
    """What defines the chosen probes of every concept, for rows as they stand in the store."""
    arrays: dict[str, np.ndarray] = {}
    num_columns = len(study.design.columns)
    for judgement, fitted in zip(study.judgements, probes, strict=True):
        for kind, readout in fitted.readouts.items():
            chosen = judgement.kinds[kind].chosen[:num_columns]
            of_chosen = readout.of_probes(chosen).arrays()
            arrays |= {f"{judgement.site}/{kind}/{name}": array for name, array in of_chosen.items()}
    return arrays
