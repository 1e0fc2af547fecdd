"""From answers to a `Result`: what the numbers say in words, beside the numbers, tables and arrays themselves."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from lrh_ray.analyses.controls import critical_value
from lrh_ray.records import Measure, Result
from lrh_ray.store.reader import Store
from lrh_ray.studies.passes import Ledger
from lrh_ray.studies.probe_design import ProbeDesign
from lrh_ray.studies.probe_measures import AS_LINEAR, ProbeAnswer, ProbeStudy, probe_measures
from lrh_ray.studies.probe_tables import examples_table, omitted_table, parts_table, probe_arrays, sites_table
from lrh_ray.studies.result_parts import parity_table, provenance, store_table

DISCOVERY_RATE = 0.05
RATE = f"{100 * DISCOVERY_RATE:g} %"


def make_result(
    question: Result,
    store: Store,
    design: ProbeDesign,
    trained: ProbeAnswer,
    untrained: ProbeAnswer | None,
    ledger: Ledger,
    seconds: float,
) -> Result:
    """Assemble the answer to `question`."""
    bands = [found.band for judgement in trained.judgements for found in judgement.kinds.values()]
    study = ProbeStudy(store=store, design=design, trained=trained, untrained=untrained, critical=critical_value(bands))
    measures = tuple(probe_measures(study))
    return replace(
        question,
        summary=tuple(_summary(study, measures)),
        measures=measures,
        tables=(
            store_table(store),
            sites_table(store, trained.fits),
            parity_table(store),
            parts_table(study),
            omitted_table(design),
            ledger.table(),
            examples_table(study),
        ),
        arrays=probe_arrays(study, trained.probes),
        provenance=provenance(store, seconds),
    )


def _summary(study: ProbeStudy, measures: Sequence[Measure]) -> Iterator[str]:
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
        yield from _discoveries(study)
        yield from _gain(measures)
        yield from _beyond_untrained(measures)
        yield from _beyond_linear(measures)
        yield from _calibrated(measures)
        yield from _shortest_code(measures)
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


def _discoveries(study: ProbeStudy) -> Iterator[str]:
    found = study.discovery_rates["logistic"]
    yield (
        f"At a false discovery rate of {RATE} the logistic probe reads {(found <= DISCOVERY_RATE).sum()} of "
        f"{found.size} pairs of site and concept."
    )


def _beyond_untrained(measures: Sequence[Measure]) -> Iterator[str]:
    """What training put there: the untrained twin holds whatever the tokens alone tell."""
    gains = [found for found in measures if found.name == "auc_over_untrained" and np.isfinite(found.value)]
    if not gains:
        yield "No untrained twin stands beside the store, so what the tokens alone tell is not taken off."
        return
    clear = {str(found.keys["concept"]) for found in gains if found.controls.get("simultaneous_low", 0.0) > 0}
    most = max(gains, key=lambda found: found.value)
    yield (
        f"What training adds: {len(clear)} of {len({found.keys['concept'] for found in gains})} concepts are read "
        f"better than from the untrained twin (simultaneous 95 % interval of the difference above 0 at some site), "
        f"most of all {most.keys['concept']} at {most.keys['site']} (AUC {most.value:+.3f}, untrained "
        f"{most.controls['untrained']:.3f})."
    )


def _calibrated(measures: Sequence[Measure]) -> Iterator[str]:
    """Whether probabilities may be taken at their word."""
    found = [one for one in measures if one.name == "calibration_error" and one.keys["probe"] == "logistic"]
    scaled = [one.controls["after_platt"] for one in found if "after_platt" in one.controls]
    off = sum(one.controls["fdr"] <= DISCOVERY_RATE for one in found)
    after = f"; Platt scaling on validation documents leaves {np.median(scaled):.3f}" if scaled else ""
    yield (
        f"Probabilities: {off} of {len(found)} logistic probes are off by more than a calibrated one would be "
        f"(false discovery rate {RATE}). Median calibration error "
        f"{np.median([one.value for one in found]):.3f}, of a calibrated probe "
        f"{np.median([one.controls['calibrated'] for one in found]):.3f}{after}."
    )


def _shortest_code(measures: Sequence[Measure]) -> Iterator[str]:
    found = [one for one in measures if one.name == "compression" and np.isfinite(one.value)]
    if not found:
        return
    most = max(found, key=lambda one: one.value / one.controls["base_rate"])
    shorter = {str(one.keys["concept"]) for one in found if one.low is not None and one.low > one.controls["base_rate"]}
    yield (
        f"Codelength: {len(shorter)} of {len({one.keys['concept'] for one in found})} concepts are told in fewer bits "
        f"with the rows than by their base rate. Most is gained for {most.keys['concept']} at {most.keys['site']}: "
        f"{most.value:.2f} times fewer bits than one a label, by the base rate {most.controls['base_rate']:.2f} times."
    )


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
    linear = sum(AS_LINEAR in found.flags for found in gains)
    yield (
        f"Linearly or not: networks with hidden layers beat the logistic probe at {len(clear)} of {concepts} concepts "
        f"(simultaneous 95 % interval of the gain in AUC above 0 at some site). Largest gain {most.value:.3f}, "
        f"{most.keys['concept']} at {most.keys['site']}; on shuffled labels gains reach {twins:.3f}. "
        f"Shown to be as linear: {linear} of {len(gains)} pairs of site and concept ({AS_LINEAR})."
    )


def _words(measure: Measure) -> str:
    low, high = measure.low, measure.high
    interval = f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
    keys = measure.keys
    return f"{keys['concept']} at {keys['site']} ({keys['probe']}, AUC {measure.value:.3f}{interval})"
