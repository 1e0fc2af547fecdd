"""Tables of intrinsic probing: the dimensions that were chosen, what rankings share, and the rows they come from."""

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

import numpy as np
from scipy.stats import hypergeom

from lrh_ray.records import Scalar, Table
from lrh_ray.store.reader import Store
from lrh_ray.studies.intrinsic_records import Finding, Ranking
from lrh_ray.studies.probe_design import Omitted

SHOWN = 12
COUNTS = tuple(f"{part} {unit}" for part in ("training", "validation", "held-out") for unit in ("rows", "documents"))


def chosen_table(findings: Sequence[Finding]) -> Table:
    """The first dimensions of every ranking."""
    rows: list[tuple[Scalar, ...]] = []
    for finding in findings:
        for probe in finding.probes:
            half = finding.half(probe)
            told = ", ".join(str(number) for number in probe.true.order[:SHOWN])
            enough = f"more than {len(probe.true.order)}" if half is None else half.size
            rows.append((finding.concept, finding.site, probe.kind, told, str(enough), finding.width))
    return Table(
        name="dimensions",
        description=f"The first {SHOWN} dimensions of every ranking, counted from 0 (arrays.safetensors has them all); "
        "and the least number, of those asked for, that says half of what all dimensions do.",
        columns=("concept", "site", "probe", "first dimensions", "half is said by", "of"),
        rows=tuple(rows),
    )


def overlap_table(store: Store, findings: Sequence[Finding]) -> Table:
    """How many dimensions two rankings share."""
    return Table(
        name="overlap",
        description="Dimensions that two rankings share among their first: of two probes at a site, of neighbouring "
        "sites of one width. Chance is that of random subsets. Sites share a basis along the residual stream only.",
        columns=("concept", "one", "other", "first", "shared", "by chance", "chance of as many"),
        rows=(*_between_probes(findings), *_between_sites(store, findings)),
    )


def _between_probes(findings: Sequence[Finding]) -> Iterator[tuple[Scalar, ...]]:
    for finding in findings:
        for one, other in combinations(finding.probes, 2):
            names = (f"{finding.site}, {one.kind}", f"{finding.site}, {other.kind}")
            yield (finding.concept, *names, *_shared(one.true, other.true, finding.width))


def _between_sites(store: Store, findings: Sequence[Finding]) -> Iterator[tuple[Scalar, ...]]:
    widths = {finding.site: store.plan.site(finding.site).width for finding in findings}
    for concept in dict.fromkeys(finding.concept for finding in findings):
        for width in dict.fromkeys(widths.values()):
            own = [finding for finding in findings if finding.concept == concept and widths[finding.site] == width]
            for here, there in pairwise(own):
                for one, other in zip(here.probes, there.probes, strict=True):
                    names = (f"{here.site}, {one.kind}", f"{there.site}, {other.kind}")
                    yield (concept, *names, *_shared(one.true, other.true, width))


def _shared(one: Ranking, other: Ranking, width: int) -> tuple[int, int, float, float]:
    first = min(len(one.order), len(other.order))
    shared = len(np.intersect1d(one.order[:first], other.order[:first]))
    return first, shared, first**2 / width, float(hypergeom.sf(shared - 1, width, first, first))


def rows_table(findings: Sequence[Finding]) -> Table:
    """What each concept was measured on; the rows are the same at every site."""
    told = {finding.concept: finding for finding in findings}
    return Table(
        name="rows",
        description="Rows and documents that fitted a probe, ranked dimensions, and were held out for the numbers; and "
        "training rows of the rarest class. A Gaussian of fewer rows than dimensions is much too sure of itself.",
        columns=("concept", "entropy (bits)", "rarest class", *COUNTS),
        rows=tuple(
            (
                name,
                finding.linear.entropy,
                finding.scarcest,
                *(count for pair in zip(finding.rows, finding.documents, strict=True) for count in pair),
            )
            for name, finding in told.items()
        ),
    )


def omitted_table(omitted: Sequence[Omitted]) -> Table:
    """What was asked for and left out."""
    return Table(
        name="omitted",
        description="Concepts and values that were not probed.",
        columns=("concept", "reason"),
        rows=tuple((one.concept, one.reason) for one in omitted),
    )
