"""The numbers of a probing result: each with its interval, its nulls, its baselines, and what to read it against."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np

from lrh_ray.analyses.intervals import Interval, Sample, percentile_interval, simultaneous_interval
from lrh_ray.analyses.logistic import LogisticFit
from lrh_ray.analyses.multiplicity import benjamini_hochberg, equivalent, permutation_p_values
from lrh_ray.records import Measure
from lrh_ray.store.reader import Store
from lrh_ray.studies.probe_code import SiteCode
from lrh_ray.studies.probe_design import ProbeDesign
from lrh_ray.studies.probe_judgement import SiteJudgement, SiteProbes
from lrh_ray.studies.result_parts import site_keys

Scale: TypeAlias = Literal["unit", "real"]
UNITS = {"auc": "fraction", "accuracy": "fraction", "log_loss": "nats"}
SCALES: Mapping[str, Scale] = {"auc": "unit", "accuracy": "unit", "log_loss": "real"}
NETWORK = "mlp"
GAP = "mlp - logistic"
MARGIN = 0.02
"""A gain in AUC within it counts as none."""
AS_LINEAR = f"no more than {MARGIN} either way (90 % interval)"


@dataclass(frozen=True, kw_only=True)
class ProbeAnswer:
    """Everything fitted and judged on the rows of one model; `codes` by site, empty unless asked for."""

    probes: Sequence[SiteProbes]
    fits: Mapping[str, LogisticFit]
    judgements: Sequence[SiteJudgement]
    codes: Mapping[str, SiteCode]


@dataclass(frozen=True, kw_only=True)
class ProbeStudy:
    """What every part of the result is made from; `untrained` is the twin's answer, where there is one."""

    store: Store
    design: ProbeDesign
    trained: ProbeAnswer
    untrained: ProbeAnswer | None
    critical: float

    @property
    def judgements(self) -> Sequence[SiteJudgement]:
        return self.trained.judgements

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self.judgements[0].kinds)

    @property
    def has_control_tasks(self) -> bool:
        return self.design.rates is not None

    @cached_property
    def discovery_rates(self) -> Mapping[str, np.ndarray]:
        """Kind -> the least false discovery rate [sites, C] at which an AUC counts as above its null."""
        p = [
            permutation_p_values(judgement.kinds[kind].metrics["auc"].estimates, judgement.kinds[kind].band.draws)
            for kind in self.kinds
            for judgement in self.judgements
        ]
        shape = len(self.kinds), len(self.judgements), len(self.design.columns)
        return dict(zip(self.kinds, benjamini_hochberg(np.concatenate(p)).reshape(shape), strict=True))


def probe_measures(study: ProbeStudy) -> Iterator[Measure]:
    """All numbers; the family-wise test of the shuffled controls comes last."""
    for kind in study.kinds:
        for name in study.judgements[0].kinds[kind].metrics:
            yield from _measures_of(study, kind, name)
    yield from _beyond_untrained(study)
    yield from _gaps(study)
    yield from _selectivity(study)
    yield from _calibration(study)
    yield from _codelengths(study)
    yield from _class_measures(study)
    yield from _null_measures(study)


def _measures_of(study: ProbeStudy, kind: str, name: str) -> Iterator[Measure]:
    """One metric of one probe kind."""
    samples = [judgement.kinds[kind].metrics[name] for judgement in study.judgements]
    for number, measure in enumerate(_over_all(study, samples, name, kind, SCALES[name])):
        controls = _controls(study, *divmod(number, len(study.design.columns)), kind, name)
        yield replace(measure, controls={**controls, **measure.controls})


def _beyond_untrained(study: ProbeStudy) -> Iterator[Measure]:
    """AUC less that of the same probe on the untrained twin's rows: what training put there."""
    if study.untrained is None:
        return
    for kind in study.untrained.judgements[0].kinds:
        pairs = list(zip(study.judgements, study.untrained.judgements, strict=True))
        samples = [
            _difference(ours.kinds[kind].metrics["auc"], twin.kinds[kind].metrics["auc"]) for ours, twin in pairs
        ]
        control = np.concatenate([twin.kinds[kind].metrics["auc"].estimates for _, twin in pairs])
        for number, measure in enumerate(_over_all(study, samples, "auc", kind, "real")):
            told = _finite({"untrained": control[number]})
            yield replace(measure, name="auc_over_untrained", controls={**told, **measure.controls})


def _gaps(study: ProbeStudy) -> Iterator[Measure]:
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
        narrow = percentile_interval(np.concatenate([sample.draws for sample in samples], axis=1), level=0.9)
        as_linear = equivalent(narrow.low, narrow.high, 0.0, MARGIN)
        for number, measure in enumerate(_over_all(study, samples, name, GAP, "real")):
            own = _finite({control: found[number] for control, found in controls.items()})
            flags = (*measure.flags, AS_LINEAR) if as_linear[number] else measure.flags
            yield replace(measure, name=f"{name}_gain", controls={**own, **measure.controls}, flags=flags)


def _selectivity(study: ProbeStudy) -> Iterator[Measure]:
    """Accuracy less that on the control task, from the same draws of documents (Hewitt and Liang 2019)."""
    if not study.has_control_tasks:
        return
    for kind in study.kinds:
        judged = [judgement.kinds[kind] for judgement in study.judgements]
        samples = [_difference(one.metrics["accuracy"], one.control_task["accuracy"]) for one in judged]
        control = np.concatenate([one.control_task["accuracy"].estimates for one in judged])
        for number, measure in enumerate(_over_all(study, samples, "accuracy", kind, "real")):
            told = _finite({"control_accuracy": control[number]})
            yield replace(measure, name="selectivity", controls={**told, **measure.controls})


def _calibration(study: ProbeStudy) -> Iterator[Measure]:
    """Expected calibration error, beside that of a probe whose probabilities are right, and after Platt scaling.

    It has no interval: a bootstrap of a mean of absolute values lies too high. The null says how large it would be.
    """
    judged = [
        (judgement, kind, found.calibration)
        for kind in study.kinds
        for judgement in study.judgements
        for found in [judgement.kinds[kind]]
        if found.calibration is not None
    ]
    p = [permutation_p_values(calibration.error, calibration.null) for _, _, calibration in judged]
    rates = benjamini_hochberg(np.concatenate(p)).reshape(len(judged), -1)
    for (judgement, kind, calibration), rate in zip(judged, rates, strict=True):
        for c in range(len(study.design.columns)):
            controls = {
                "calibrated": calibration.null[:, c].mean(),
                "calibrated_95": np.quantile(calibration.null[:, c], 0.95),
                "after_platt": calibration.after_platt[c],
                "reliability": calibration.reliability[c],
                "resolution": calibration.resolution[c],
                "fdr": rate[c],
            }
            yield Measure(
                name="calibration_error",
                value=float(calibration.error[c]),
                unit="fraction",
                keys=_keys(study, judgement.site, c, kind),
                controls=_finite(controls),
            )


def _codelengths(study: ProbeStudy) -> Iterator[Measure]:
    """How many times shorter the labels of the training documents become, given the rows (1: not at all)."""
    num = len(study.design.columns)
    for site, code in study.trained.codes.items():
        for c, found in enumerate(code.compression[:num]):
            twins = dict(zip(study.design.families[1:], code.compression[num + c :: num], strict=True))
            controls = {"base_rate": float(code.base_rate[c])}
            controls |= {family.replace(" ", "_"): twin.value for family, twin in twins.items()}
            yield Measure(
                name="compression",
                value=found.value,
                unit="times",
                keys=_keys(study, site, c, "lda, online code"),
                low=found.low,
                high=found.high,
                controls=_finite(controls),
            )


def _finite(controls: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in controls.items() if np.isfinite(value)}


def _difference(one: Sample, other: Sample) -> Sample:
    return Sample(estimates=one.estimates - other.estimates, draws=one.draws - other.draws)


def _over_all(study: ProbeStudy, samples: Sequence[Sample], name: str, kind: str, scale: Scale) -> Iterator[Measure]:
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


def _class_measures(study: ProbeStudy) -> Iterator[Measure]:
    """Concepts of several classes: one model of each kind for every document-level concept of at least three."""
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
                    keys=site_keys(study.store, judgement.site) | {"concept": judged.concept, "probe": judged.kind},
                    low=_end(interval.low[0]),
                    high=_end(interval.high[0]),
                    controls={"shuffled": judged.shuffled[name]} | baseline,
                    flags=_flags(interval, 0),
                )


def _keys(study: ProbeStudy, site: str, column: int, kind: str) -> dict[str, str | int | float]:
    return site_keys(study.store, site) | {"concept": study.design.columns[column].name, "probe": kind}


def _controls(study: ProbeStudy, site: int, column: int, kind: str, name: str) -> dict[str, float]:
    judgement = study.judgements[site]
    judged = judgement.kinds[kind]
    controls = {"shuffled": judged.shuffled[name][column]}
    if study.untrained is not None and kind in study.untrained.judgements[site].kinds:
        controls["untrained"] = study.untrained.judgements[site].kinds[kind].metrics[name].estimates[column]
    if name == "auc":
        reach = study.critical * judged.band.sd[column]
        controls |= {
            "null_low": np.maximum(judged.band.mean[column] - reach, 0.0),  # no AUC lies outside [0, 1]
            "null_high": np.minimum(judged.band.mean[column] + reach, 1.0),
            "chance": 0.5,
            "fdr": study.discovery_rates[kind][site, column],
        }
        controls |= {
            control: found[column]
            for control, found in judgement.baselines.items()
            if control != "without_first" or kind == "logistic"
        }
    elif name == "accuracy":
        controls["majority"] = judgement.majority[column]
    else:
        controls["base_rate"] = judgement.base_rate_log_loss[column]
    return _finite(controls)


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


def _null_measures(study: ProbeStudy) -> Iterator[Measure]:
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
