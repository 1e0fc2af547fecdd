"""The numbers of the upper bound, each with its interval and what it must be read against.

Over concepts there are the mean correlation on words that chose no latent, the share of concepts above .5, and how far
the mean lies above turned signs in either mode; of each concept its correlation.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from lrh_ray.analyses.jackknife import Estimate
from lrh_ray.analyses.multiplicity import permutation_p_values
from lrh_ray.analyses.sae.above_chance import share_above
from lrh_ray.analyses.sae.probe_logits import WordProbes
from lrh_ray.records import Measure
from lrh_ray.store.reader import Store
from lrh_ray.studies.result_parts import bounded_measure, site_keys
from lrh_ray.studies.sae_bound_task import BoundAnswer

Keys = Mapping[str, str | int | float]


def bound_measures(
    store: Store, answer: BoundAnswer, names: Sequence[str], probes: Sequence[WordProbes]
) -> Iterator[Measure]:
    """Of one autoencoder; `names` and `probes` are of the concepts."""
    keys = {**site_keys(store, answer.site), "autoencoder": answer.name, "codes": answer.codes}
    yield _mean(answer, probes, keys)
    yield _coverage(answer, probes, keys)
    yield from _corrected(answer, probes, keys)
    yield from _of_concepts(answer, names, probes, keys)


def mean_ceiling(probes: Sequence[WordProbes]) -> float:
    """Correlation of supervised directions with the probes of other words, over concepts."""
    return float(np.mean([one.ceiling for one in probes]))


def _mean(answer: BoundAnswer, probes: Sequence[WordProbes], keys: Keys) -> Measure:
    test, published = answer.test, answer.published
    controls = {
        **{name: float(found.held_out.mean()) for name, found in answer.controls.items()},
        **_band(test.mean.value, test.null.mean(axis=1)),
        "ceiling": mean_ceiling(probes),
        "as_published": published.bound.mean,
        "chance_as_published": published.chance,
    }
    return bounded_measure("mean_correlation", test.mean, "r", keys, controls)


def _coverage(answer: BoundAnswer, probes: Sequence[WordProbes], keys: Keys) -> Measure:
    test, published = answer.test, answer.published
    controls = {
        **{name: found.coverage for name, found in answer.controls.items()},
        **_band(test.coverage.value, test.null_coverage),
        "ceiling": float(np.mean([one.covered for one in probes])),
        "as_published": published.bound.coverage,
        "chance_as_published": float(published.null_coverage.mean()),
    }
    return bounded_measure("coverage", test.coverage, "of concepts", keys, controls)


def _corrected(answer: BoundAnswer, probes: Sequence[WordProbes], keys: Keys) -> Iterator[Measure]:
    """Mean correlations counted from those of turned signs, in both modes; as published no ceiling is known."""
    test, published = answer.test, answer.published
    held_out = test.null.mean(axis=1)
    ceiling = {"ceiling": share_above(mean_ceiling(probes), float(held_out.mean()))}
    for mode, found, before, null, more in (
        ("held out", test.corrected, test.mean, held_out, ceiling),
        ("as published", published.corrected, published.mean, published.null, {}),
    ):
        chance = float(null.mean())
        controls = {
            **_band(found.value, share_above(null, chance)),
            **more,
            "uncorrected": before.value,
            "turned_signs": chance,
        }
        yield bounded_measure("corrected_correlation", found, "of the way to 1", {**keys, "mode": mode}, controls)


def _of_concepts(
    answer: BoundAnswer, names: Sequence[str], probes: Sequence[WordProbes], keys: Keys
) -> Iterator[Measure]:
    """One of each, with p values adjusted for all concepts."""
    test, published = answer.test, answer.published
    for number, concept in enumerate(names):
        value = float(test.correlations[number])
        controls = {
            **{name: float(found.held_out[number]) for name, found in answer.controls.items()},
            **_band(value, test.null[:, number]),
            "p": float(test.p_values[number]),
            "ceiling": probes[number].ceiling,
            "as_published": float(published.bound.correlations[number]),
        }
        found = Estimate(value=value, low=float(test.low[number]), high=float(test.high[number]))
        yield bounded_measure("correlation", found, "r", {**keys, "concept": concept}, controls)


def _band(value: float, null: np.ndarray) -> dict[str, float]:
    """95 % of the draws of a null [B], and the probability of as much by chance."""
    low, high = np.quantile(null, [0.025, 0.975])
    p = permutation_p_values(np.array([value]), null[:, None])
    return {"null_low": float(low), "null_high": float(high), "p": float(p[0])}
