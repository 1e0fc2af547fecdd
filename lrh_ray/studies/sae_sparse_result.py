"""What sparse probing found: accuracies of few latents beside random ones and a dense probe."""

from collections.abc import Iterator, Sequence

import numpy as np

from lrh_ray.analyses.intervals import percentile_interval
from lrh_ray.records import Measure, Scalar, Table
from lrh_ray.studies.sae_concept_task import ConceptFinding
from lrh_ray.studies.sae_evaluation_parts import Evaluation, Findings

CHANCE = 0.5
NO_SPREAD = "no spread over documents: interval undefined"


def sparse_findings(asked: Evaluation, found: Sequence[ConceptFinding], names: Sequence[str]) -> Findings:
    """What sparse probes of every autoencoder say of the concepts."""
    measures = tuple(_accuracies(asked, found, names))
    return Findings(
        summary=tuple(_summary(asked, found)),
        measures=measures,
        tables=(_table(asked, found),),
        arrays={
            f"{one.saved.site}/{one.saved.name}/{name}/latents": finding.latents
            for one in found
            for name, finding in zip(names, one.sparse, strict=True)
        },
    )


def _accuracies(asked: Evaluation, found: Sequence[ConceptFinding], names: Sequence[str]) -> Iterator[Measure]:
    for one in found:
        for name, finding in zip(names, one.sparse, strict=True):
            interval = percentile_interval(finding.accuracy.draws)
            for k, size in enumerate(asked.config.sizes):
                known = not interval.degenerate[k]
                yield Measure(
                    name="accuracy",
                    value=float(finding.accuracy.estimates[k]),
                    unit="of rows",
                    keys={**asked.keys(one.saved), "concept": name, "latents": size},
                    low=float(interval.low[k]) if known else None,
                    high=float(interval.high[k]) if known else None,
                    controls={
                        "random_latents": float(finding.random_latents[k]),
                        "random_autoencoder": float(finding.random_autoencoder[k]),
                        "ceiling": float(finding.accuracy.estimates[-1]),
                        "chance": CHANCE,
                    },
                    flags=() if known else (NO_SPREAD,),
                )


def _means(one: ConceptFinding) -> dict[str, np.ndarray]:
    """Accuracies meaned over concepts, each of the sizes [K]; of the dense probe, the same each time."""
    chosen = np.mean([finding.accuracy.estimates for finding in one.sparse], axis=0)
    return {
        "chosen": chosen[:-1],
        "random latents": np.mean([finding.random_latents for finding in one.sparse], axis=0),
        "random autoencoder": np.mean([finding.random_autoencoder for finding in one.sparse], axis=0),
        "dense probe": np.repeat(chosen[-1], len(chosen) - 1),
    }


def _summary(asked: Evaluation, found: Sequence[ConceptFinding]) -> Iterator[str]:
    """The autoencoder whose single latents say most, at each site; and how many it takes for all that is there."""
    first = asked.config.sizes[0]
    for site in asked.saved.sites:
        means = {one.saved.name: _means(one) for one in found if one.saved.site == site}
        name = max(means, key=lambda own: float(means[own]["chosen"][0]))
        best, number = means[name], len(means)
        among = f" (the best of {number})" if number > 1 else ""
        yield (
            f"At {site}, probes of {first} latent{'s' if first > 1 else ''} of {name}{among} are right on "
            f"{best['chosen'][0]:.3f} of held-out rows, mean over concepts; of random latents "
            f"{best['random latents'][0]:.3f}, of the best of an autoencoder of random directions "
            f"{best['random autoencoder'][0]:.3f}; a dense probe {best['dense probe'][0]:.3f}."
        )


def _table(asked: Evaluation, found: Sequence[ConceptFinding]) -> Table:
    rows: list[tuple[Scalar, ...]] = []
    for one in found:
        means = _means(one)
        for k, size in enumerate(asked.config.sizes):
            rows.append((one.saved.site, one.saved.name, size, *(round(float(own[k]), 4) for own in means.values())))
    return Table(
        name="sparse probes",
        description="Accuracy on held-out rows, as many of each class, mean over concepts: of a logistic probe of so "
        "many latents, chosen by the difference of their means; of as many random ones that fire; of as many chosen in "
        "the same way from random directions; and of a dense probe of the row.",
        columns=("site", "autoencoder", "latents", "chosen", "random latents", "random autoencoder", "dense probe"),
        rows=tuple(rows),
    )
