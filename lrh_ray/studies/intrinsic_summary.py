"""What intrinsic probing found, in sentences made from its numbers."""

from collections import Counter
from collections.abc import Iterator, Sequence

from lrh_ray.studies.intrinsic_records import Finding

DISCOVERY_RATE = 0.05
TOLD = 8
"""Concepts that have a sentence of their own."""


def summary(
    findings: Sequence[Finding], q_values: Sequence[float], of_shuffled: Sequence[float], *, omitted: int, sinks: str
) -> Iterator[str]:
    """Sentences; `q_values` of all subsets, and of the same with shuffled labels; how much was left out."""
    concepts, sites = ({getattr(one, name): None for one in findings} for name in ("concept", "site"))
    asked = f"{_counted(len(concepts), 'concept')} at {_counted(len(sites), 'site')}"
    yield (
        f"{asked}. Every number is of documents that neither fitted a probe nor ranked dimensions: at most "
        f"{max(one.rows[-1] for one in findings):,} tokens a concept."
    )
    ranked = sorted((_best(findings, concept) for concept in concepts), key=lambda one: -one.ceiling.share)
    yield from map(_where, ranked[:TOLD])
    if len(ranked) > TOLD:
        yield f"The table of dimensions has {_counted(len(ranked) - TOLD, 'more concept')}."
    yield from _probes(findings)
    yield from _discoveries(findings, q_values)
    yield _twins(findings, of_shuffled)
    if omitted:
        yield f"Left out for want of documents: {_counted(omitted, 'concept or value', 'concepts or values')}."
    if sinks == "drop":
        yield "Attention sinks (rows with over 10 times the median norm at any site) were left out."


def _best(findings: Sequence[Finding], concept: str) -> Finding:
    """The site that says most."""
    return max((one for one in findings if one.concept == concept), key=lambda one: one.ceiling.share)


def _where(finding: Finding) -> str:
    """How many dimensions hold half of what all hold."""
    name, whole = f"{finding.concept} at {finding.site}", finding.ceiling
    if not whole.share_low > 0:
        return f"{name}: nothing was found in any number of dimensions (share {_interval(finding)})."
    told = f"all {finding.width} dimensions hold {whole.share:.2f} {_interval(finding)} of its {whole.entropy:.2f} bits"
    halves = [(half.size, -half.found.share, probe, half) for probe in finding.probes if (half := finding.half(probe))]
    if not halves:
        most = max(len(probe.true.order) for probe in finding.probes)
        return f"{name}: {told}, and more than {most} are needed for half of that."
    size, _, probe, half = min(halves, key=lambda found: found[:2])
    dimensions = ", ".join(str(number) for number in probe.true.order[: min(size, 5)])
    more = ", …" if size > 5 else ""
    few = "one alone holds" if size == 1 else f"{size} of them hold"
    return (
        f"{name}: {told}; {few} {half.found.share:.2f} [{half.found.share_low:.2f}, {half.found.share_high:.2f}] "
        f"({dimensions}{more}; {probe.kind} probe)."
    )


def _counted(number: int, one: str, several: str | None = None) -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"


def _interval(finding: Finding) -> str:
    return f"[{finding.ceiling.share_low:.2f}, {finding.ceiling.share_high:.2f}]"


def _probes(findings: Sequence[Finding]) -> Iterator[str]:
    """Which probe says most of subsets of one size."""
    if len(findings[0].probes) < 2:
        return
    wins = Counter(
        max(finding.probes, key=lambda probe: probe.true.subsets[place].found.share).kind
        for finding in findings
        for place in range(len(finding.probes[0].true.subsets))
    )
    (kind, won), total = wins.most_common(1)[0], sum(wins.values())
    yield f"Of {total} concepts × sites × sizes, the {kind} probe says most of {won}."


def _discoveries(findings: Sequence[Finding], q_values: Sequence[float]) -> Iterator[str]:
    found = sum(q <= DISCOVERY_RATE for q in q_values)
    yield (
        f"{found} of {len(q_values)} subsets (concepts × sites × probes × sizes) say more than random subsets of their "
        f"size and than permuted labels allow, at a false discovery rate of {DISCOVERY_RATE:.0%}."
    )
    draws = len(findings[0].probes[0].true.subsets[0].random.draws)
    least = len(q_values) / (draws + 1) / DISCOVERY_RATE
    if not found and least > 1:
        yield f"With {draws} null draws, no fewer than {least:.0f} discoveries can be seen: raise intrinsic.null_draws."


def _twins(findings: Sequence[Finding], of_shuffled: Sequence[float]) -> str:
    twins = [subset.found for one in findings for probe in one.probes for subset in probe.shuffled.subsets]
    above, found = sum(one.share_low > 0 for one in twins), sum(q <= DISCOVERY_RATE for q in of_shuffled)
    return (
        f"With shuffled labels there are {found} discoveries among {len(twins)}; the largest share is "
        f"{max(one.share for one in twins):.3f}, and {above} of {len(twins)} intervals lie above 0."
    )
