"""From findings to a `Result`: what subsets say, with intervals, nulls and ceilings, and which dimensions they are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lrh_ray.analyses.intrinsic import Information
from lrh_ray.analyses.multiplicity import benjamini_hochberg
from lrh_ray.records import Measure, Result
from lrh_ray.store.reader import Store
from lrh_ray.studies.intrinsic_records import Finding, ProbeFinding, Subset
from lrh_ray.studies.intrinsic_summary import summary
from lrh_ray.studies.intrinsic_tables import chosen_table, omitted_table, overlap_table, rows_table
from lrh_ray.studies.probe_design import Omitted
from lrh_ray.studies.result_parts import parity_table, provenance, site_keys, store_table

LINEAR = "logistic"

Keys = dict[str, str | int | float]


@dataclass(frozen=True, kw_only=True)
class _Test:
    """One subset, the same of shuffled labels, and the p value of each adjusted for all of its kind."""

    finding: Finding
    probe: ProbeFinding
    true: Subset
    shuffled: Subset
    q_value: float
    shuffled_q_value: float


def make_intrinsic_result(
    question: Result, store: Store, findings: Sequence[Finding], omitted: Sequence[Omitted], seconds: float
) -> Result:
    """Assemble the answer to `question`."""
    tests = _tests(findings)
    q_values, of_shuffled = [test.q_value for test in tests], [test.shuffled_q_value for test in tests]
    return replace(
        question,
        summary=tuple(
            summary(findings, q_values, of_shuffled, omitted=len(omitted), sinks=str(question.resolved["sinks"]))
        ),
        measures=(*_shares(store, tests), *_bits(store, tests), *_wholes(store, findings), *_halves(store, findings)),
        tables=(
            store_table(store),
            parity_table(store),
            chosen_table(findings),
            overlap_table(store, findings),
            rows_table(findings),
            omitted_table(omitted),
        ),
        arrays={
            f"{finding.site}/{finding.concept}/{probe.kind}/dimensions": probe.true.order
            for finding in findings
            for probe in finding.probes
        },
        provenance=provenance(store, seconds),
    )


def _tests(findings: Sequence[Finding]) -> Sequence[_Test]:
    """All subsets; p values are adjusted over concepts x sites x probes x sizes."""
    found = [
        (finding, probe, true, shuffled)
        for finding in findings
        for probe in finding.probes
        for true, shuffled in zip(probe.true.subsets, probe.shuffled.subsets, strict=True)
    ]
    q_values = benjamini_hochberg(np.array([true.p_value for _, _, true, _ in found]))
    of_shuffled = benjamini_hochberg(np.array([shuffled.p_value for _, _, _, shuffled in found]))
    return [
        _Test(finding=finding, probe=probe, true=true, shuffled=shuffled, q_value=q, shuffled_q_value=other)
        for (finding, probe, true, shuffled), q, other in zip(
            found, q_values.tolist(), of_shuffled.tolist(), strict=True
        )
    ]


def _shares(store: Store, tests: Sequence[_Test]) -> Iterator[Measure]:
    for test in tests:
        low, high = np.quantile(test.true.random.draws, [0.025, 0.975]) / test.true.found.entropy
        measure = _share("share", test.true.found, _keys(store, test.finding, test.probe.kind))
        yield replace(
            measure,
            keys={**measure.keys, "dimensions": test.true.size},
            controls={
                "null_low": float(low),
                "null_high": float(high),
                "shuffled": test.shuffled.found.share,
                "ceiling": test.finding.ceiling.share,
                "p_value": test.true.p_value,
                "q_value": test.q_value,
            },
        )


def _bits(store: Store, tests: Sequence[_Test]) -> Iterator[Measure]:
    for test in tests:
        found = test.true.found
        yield Measure(
            name="mutual_information",
            value=found.bits,
            unit="bits",
            keys={**_keys(store, test.finding, test.probe.kind), "dimensions": test.true.size},
            low=_end(found.low),
            high=_end(found.high),
            controls={"entropy": found.entropy, "shuffled": test.shuffled.found.bits},
        )


def _wholes(store: Store, findings: Sequence[Finding]) -> Iterator[Measure]:
    for finding in findings:
        for probe in finding.probes:
            yield _share("share_of_all_dimensions", probe.whole, _keys(store, finding, probe.kind))
        yield _share("share_of_all_dimensions", finding.linear, _keys(store, finding, LINEAR))


def _halves(store: Store, findings: Sequence[Finding]) -> Iterator[Measure]:
    for finding in findings:
        for probe in finding.probes:
            half = finding.half(probe)
            if half is not None:
                yield Measure(
                    name="dimensions_for_half",
                    value=float(half.size),
                    unit="dimensions",
                    keys=_keys(store, finding, probe.kind),
                    controls={"all": float(finding.width), "ceiling": finding.ceiling.share},
                )


def _share(name: str, found: Information, keys: Keys) -> Measure:
    low, high = _end(found.share_low), _end(found.share_high)
    flags = () if low is not None else ("no spread over documents: interval undefined",)
    return Measure(name=name, value=found.share, unit="of H(Y)", keys=keys, low=low, high=high, flags=flags)


def _keys(store: Store, finding: Finding, probe: str) -> Keys:
    return {**site_keys(store, finding.site), "concept": finding.concept, "probe": probe}


def _end(value: float) -> float | None:
    return value if np.isfinite(value) else None
