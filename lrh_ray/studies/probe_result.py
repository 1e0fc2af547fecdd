"""From judgements to a `Result`: numbers with intervals and controls, tables for people, weights as arrays."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np

from lrh_ray.analyses.controls import critical_value
from lrh_ray.analyses.intervals import Interval, Sample, percentile_interval, simultaneous_interval
from lrh_ray.analyses.logistic import LogisticFit
from lrh_ray.records import Measure, Result, Scalar, Table
from lrh_ray.store.reader import Store
from lrh_ray.studies.probe_design import HELD_OUT, TRAIN, VALIDATION, ProbeDesign
from lrh_ray.studies.probe_judgement import SiteJudgement, SiteProbes
from lrh_ray.studies.result_parts import parity_table, provenance, site_keys, store_table

UNITS = {"auc": "fraction", "accuracy": "fraction", "log_loss": "nats"}
SCALES: Mapping[str, Literal["unit", "real"]] = {"auc": "unit", "accuracy": "unit", "log_loss": "real"}
NETWORK = "mlp"
GAP = "mlp - logistic"
CONTEXT = 70
EXAMPLE_CONCEPTS = 40


@dataclass(frozen=True, kw_only=True)
class _Study:
    """What every part of the result is made from."""

    store: Store
    design: ProbeDesign
    judgements: Sequence[SiteJudgement]
    critical: float

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self.judgements[0].kinds)

    @property
    def has_control_tasks(self) -> bool:
        return self.design.rates is not None


def make_result(
    question: Result,
    store: Store,
    design: ProbeDesign,
    probes: Sequence[SiteProbes],
    fits: Mapping[str, LogisticFit],
    judgements: Sequence[SiteJudgement],
    seconds: float,
) -> Result:
    """Assemble the answer to `question`."""
    bands = [judgement.kinds[kind].band for judgement in judgements for kind in judgement.kinds]
    study = _Study(store=store, design=design, judgements=judgements, critical=critical_value(bands))
    measures = (*_measures(study), *_gaps(study), *_selectivity(study), *_class_measures(study), *_null_measures(study))
    return replace(
        question,
        summary=tuple(_summary(study, measures)),
        measures=measures,
        tables=(
            store_table(store),
            _sites_table(store, fits),
            parity_table(store),
            _parts_table(study),
            _omitted_table(design),
            _examples_table(study),
        ),
        arrays=_arrays(study, probes),
        provenance=provenance(store, seconds),
    )


def _measures(study: _Study) -> Iterator[Measure]:
    for kind in study.kinds:
        for name in study.judgements[0].kinds[kind].metrics:
            yield from _measures_of(study, kind, name)


def _measures_of(study: _Study, kind: str, name: str) -> Iterator[Measure]:
    """One metric of one probe kind."""
    samples = [judgement.kinds[kind].metrics[name] for judgement in study.judgements]
    for number, measure in enumerate(_over_all(study, samples, name, kind, SCALES[name])):
        site, column = divmod(number, len(study.design.columns))
        controls = _controls(study, study.judgements[site], kind, name, column)
        yield replace(measure, controls={**controls, **measure.controls})


def _gaps(study: _Study) -> Iterator[Measure]:
    """What networks read beyond the logistic probe: the same documents are drawn for both, so the gap has an interval.

    Its controls are the gap of the shuffled twins, what a network gains where there is nothing, and that of the control
    tasks, what it gains by remembering tokens.
    """
    if NETWORK not in study.kinds:
        return
    for name in ("auc", "accuracy"):
        pairs = [(judgement.kinds[NETWORK], judgement.kinds["logistic"]) for judgement in study.judgements]
        samples = [_difference(network.metrics[name], linear.metrics[name]) for network, linear in pairs]
        null = {"shuffled": [network.shuffled[name] - linear.shuffled[name] for network, linear in pairs]}
        if study.has_control_tasks:
            null["control_task"] = [
                network.control_task[name].estimates - linear.control_task[name].estimates for network, linear in pairs
            ]
        controls = {control: np.concatenate(found) for control, found in null.items()}
        for number, measure in enumerate(_over_all(study, samples, name, GAP, "real")):
            own = {control: float(found[number]) for control, found in controls.items() if np.isfinite(found[number])}
            yield replace(measure, name=f"{name}_gain", controls={**own, **measure.controls})


def _selectivity(study: _Study) -> Iterator[Measure]:
    """Accuracy less that on the control task, from the same draws of documents (Hewitt and Liang 2019)."""
    if not study.has_control_tasks:
        return
    for kind in study.kinds:
        judged = [judgement.kinds[kind] for judgement in study.judgements]
        samples = [_difference(one.metrics["accuracy"], one.control_task["accuracy"]) for one in judged]
        control = np.concatenate([one.control_task["accuracy"].estimates for one in judged])
        for number, measure in enumerate(_over_all(study, samples, "accuracy", kind, "real")):
            told = {"control_accuracy": float(control[number])} if np.isfinite(control[number]) else {}
            yield replace(measure, name="selectivity", controls={**told, **measure.controls})


def _difference(one: Sample, other: Sample) -> Sample:
    return Sample(estimates=one.estimates - other.estimates, draws=one.draws - other.draws)


def _over_all(
    study: _Study, samples: Sequence[Sample], name: str, kind: str, scale: Literal["unit", "real"]
) -> Iterator[Measure]:
    """A metric over sites x columns, in this order; the simultaneous interval spans all of them."""
    estimates = np.concatenate([sample.estimates for sample in samples])
    draws = np.concatenate([sample.draws for sample in samples], axis=1)
    pointwise = percentile_interval(draws)
    joint = simultaneous_interval(estimates, draws, scale=scale)
    num_columns = len(study.design.columns)
    for s, judgement in enumerate(study.judgements):
        for c in range(num_columns):
            k = s * num_columns + c
            yield Measure(
                name=name,
                value=float(estimates[k]),
                unit=UNITS[name],
                keys=_keys(study, judgement.site, c, kind),
                low=_end(pointwise.low[k]),
                high=_end(pointwise.high[k]),
                controls=_joint(joint, k),
                flags=_flags(pointwise, k),
            )


def _class_measures(study: _Study) -> Iterator[Measure]:
    """Multi-class LDA: one model per document-level concept of at least three classes."""
    for judgement in study.judgements:
        for judged in judgement.classes:
            for name, found in judged.metrics.items():
                interval = percentile_interval(found.draws)
                baseline = (
                    {"majority": judged.majority} if name == "accuracy" else {"base_rate": judged.base_rate_log_loss}
                )
                yield Measure(
                    name=name,
                    value=float(found.estimates[0]),
                    unit=UNITS[name],
                    keys=site_keys(study.store, judgement.site)
                    | {"concept": judged.concept, "probe": "lda, all classes"},
                    low=_end(interval.low[0]),
                    high=_end(interval.high[0]),
                    controls={"shuffled": judged.shuffled[name]} | baseline,
                    flags=_flags(interval, 0),
                )


def _keys(study: _Study, site: str, column: int, kind: str) -> dict[str, str | int | float]:
    return site_keys(study.store, site) | {"concept": study.design.columns[column].name, "probe": kind}


def _controls(study: _Study, judgement: SiteJudgement, kind: str, name: str, column: int) -> dict[str, float]:
    judged = judgement.kinds[kind]
    controls = {"shuffled": float(judged.shuffled[name][column])}
    if name == "auc":
        reach = study.critical * judged.band.sd[column]
        controls |= {
            "null_low": float(np.maximum(judged.band.mean[column] - reach, 0.0)),  # no AUC lies outside [0, 1]
            "null_high": float(np.minimum(judged.band.mean[column] + reach, 1.0)),
            "chance": 0.5,
        }
        controls |= {
            control: float(found[column])
            for control, found in judgement.baselines.items()
            if control != "without_first" or kind == "logistic"
        }
    elif name == "accuracy":
        controls["majority"] = float(judgement.majority[column])
    else:
        controls["base_rate"] = float(judgement.base_rate_log_loss[column])
    return {key: value for key, value in controls.items() if np.isfinite(value)}


def _joint(interval: Interval, k: int) -> dict[str, float]:
    if interval.degenerate[k]:
        return {}
    return {"simultaneous_low": float(interval.low[k]), "simultaneous_high": float(interval.high[k])}


def _end(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _flags(interval: Interval, k: int) -> tuple[str, ...]:
    flags = ["no spread over documents: interval undefined"] if interval.degenerate[k] else []
    if interval.undefined[k] > 0.05:
        flags.append(f"{interval.undefined[k]:.0%} of the bootstrap draws lack a class")
    return tuple(flags)


def _null_measures(study: _Study) -> Iterator[Measure]:
    """The family-wise test of the shuffled controls: all sites x concepts x probes at once."""
    outside = largest = 0.0
    for judgement in study.judgements:
        for judged in judgement.kinds.values():
            deviation = np.abs(np.nan_to_num(judged.band.studentise(judged.shuffled["auc"])))
            outside += float((deviation > study.critical).sum())
            largest = max(largest, float(deviation.max()))
    keys: dict[str, str | int | float] = {"control": "shuffled labels, max-T over sites x concepts x probes"}
    yield Measure(
        name="largest_null_deviation", value=largest, unit="sd", keys=keys, controls={"critical": study.critical}
    )
    yield Measure(name="shuffled_outside_band", value=outside, unit="controls", keys=keys)


def _summary(study: _Study, measures: Sequence[Measure]) -> Iterator[str]:
    design, first = study.design, study.judgements[0]
    sites, columns = len(study.judgements), len(design.columns)
    yield (
        f"{columns} concepts were probed at {sites} sites with {len(study.kinds)} kinds of linear probe, and judged on "
        f"{first.rows:,} tokens of {first.documents} documents that no probe had seen."
    )
    best: dict[str, Measure] = {}
    for measure in measures:
        if measure.name == "auc" and np.isfinite(measure.value):
            concept = str(measure.keys["concept"])
            best[concept] = max(best.get(concept, measure), measure, key=lambda found: found.value)
    ranked = sorted(best.values(), key=lambda measure: -measure.value)
    readable = [measure for measure in ranked if measure.value > measure.controls.get("null_high", 1.0)]
    yield f"{len(readable)} of {len(ranked)} concepts stand above the simultaneous 95 % band of the shuffled controls."
    if ranked:
        yield f"Most readable: {_words(ranked[0])}. Least: {_words(ranked[-1])}."
        yield from _gain(measures)
        yield from _beyond_linear(measures)
    largest, outside = measures[-2], measures[-1]
    verdict = (
        "all shuffled controls stay within" if not outside.value else f"{outside.value:.0f} shuffled controls leave"
    )
    yield (
        f"Controls: {verdict} the simultaneous 95 % band (largest deviation {largest.value:.2f} sd, critical "
        f"{study.critical:.2f}); one such family in twenty leaves it by chance."
    )
    if design.sinks == "drop":
        yield "Attention sinks (rows with over 10 times the median norm at any site) were left out."


def _gain(measures: Sequence[Measure]) -> Iterator[str]:
    """The concept that gains most between the first site and its best one: what the layers add."""
    curves: dict[tuple[str, str], list[Measure]] = {}
    for measure in measures:
        if measure.name == "auc" and np.isfinite(measure.value) and measure.keys.get("layer") is not None:
            curves.setdefault((str(measure.keys["concept"]), str(measure.keys["probe"])), []).append(measure)
    clear = {
        key: (curve[0], max(curve, key=lambda found: found.value))
        for key, curve in curves.items()
        if any(found.value > found.controls.get("null_high", 1.0) for found in curve)
    }
    if clear:
        first, best = max(clear.values(), key=lambda pair: pair[1].value - pair[0].value)
        yield (f"Gains most over the layers: {_words(best)}, from {first.value:.3f} at {first.keys['site']}.")


def _beyond_linear(measures: Sequence[Measure]) -> Iterator[str]:
    """Linearly or not: what networks with hidden layers gain, beside what they gain on shuffled labels."""
    gains = [measure for measure in measures if measure.name == "auc_gain" and np.isfinite(measure.value)]
    if not gains:
        return
    clear = {str(found.keys["concept"]) for found in gains if found.controls.get("simultaneous_low", 0.0) > 0}
    most = max(gains, key=lambda found: found.value)
    concepts = len({found.keys["concept"] for found in gains})
    twins = max(abs(found.controls.get("shuffled", 0.0)) for found in gains)
    yield (
        f"Linearly or not: networks with hidden layers beat the logistic probe at {len(clear)} of {concepts} concepts "
        f"(simultaneous 95 % interval of the gain in AUC above 0 at some site). Largest gain {most.value:.3f}, "
        f"{most.keys['concept']} at {most.keys['site']}; on shuffled labels gains reach {twins:.3f}."
    )


def _words(measure: Measure) -> str:
    low, high = measure.low, measure.high
    interval = f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
    keys = measure.keys
    return f"{keys['concept']} at {keys['site']} ({keys['probe']}, AUC {measure.value:.3f}{interval})"


def _sites_table(store: Store, fits: Mapping[str, LogisticFit]) -> Table:
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


def _parts_table(study: _Study) -> Table:
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


def _omitted_table(design: ProbeDesign) -> Table:
    return Table(
        name="omitted",
        description="Concepts that were not probed.",
        columns=("concept", "reason"),
        rows=tuple((entry.concept, entry.reason) for entry in design.omitted),
    )


def _examples_table(study: _Study) -> Table:
    """Held-out tokens that score highest with the logistic probe, at each concept's best site; strongest first."""
    rows: list[tuple[Scalar, ...]] = []
    best_sites = [
        max(study.judgements, key=lambda judgement: _auc_of(judgement, column))
        for column in range(len(study.design.columns))
    ]
    ranked = sorted(range(len(best_sites)), key=lambda column: -_auc_of(best_sites[column], column))
    for column in ranked[:EXAMPLE_CONCEPTS]:
        best = best_sites[column]
        for example in best.examples:
            if example.column == column:
                before, token, after = _context(study.store, example.index)
                label = "yes" if example.positive else "no"
                name = study.design.columns[column].name
                rows.append((name, best.site, example.score, label, before, token, after))
    return Table(
        name="examples",
        description="Held-out tokens with the highest scores (log-odds, nats), one a document; the label says whether "
        "they have the concept.",
        columns=("concept", "site", "score", "label", "before", "token", "after"),
        rows=tuple(rows),
    )


def _auc_of(judgement: SiteJudgement, column: int) -> float:
    return float(np.nan_to_num(judgement.kinds["logistic"].metrics["auc"].estimates[column]))


def _context(store: Store, index: int) -> tuple[str, str, str]:
    doc, start, end = (
        int(column[0]) for column in store.row_arrays(("doc", "char_start", "char_end"), np.array([index]))
    )
    text = store.texts[doc]
    return text[max(0, start - CONTEXT) : start], text[start:end], text[end : end + CONTEXT]


def _arrays(study: _Study, probes: Sequence[SiteProbes]) -> dict[str, np.ndarray]:
    """What defines the chosen probes of every concept, for rows as they stand in the store."""
    arrays: dict[str, np.ndarray] = {}
    num_columns = len(study.design.columns)
    for judgement, fitted in zip(study.judgements, probes, strict=True):
        for kind, readout in fitted.readouts.items():
            chosen = judgement.kinds[kind].chosen[:num_columns]
            of_chosen = readout.of_probes(chosen).arrays()
            arrays |= {f"{judgement.site}/{kind}/{name}": array for name, array in of_chosen.items()}
    return arrays
