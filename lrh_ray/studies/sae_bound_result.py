"""From bounds to a `Result`: how well latents match probes, in both modes, beside what was never trained."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from lrh_ray.analyses.multiplicity import permutation_p_values
from lrh_ray.analyses.sae.probe_logits import WordProbes
from lrh_ray.records import Measure, Result, Scalar, Table
from lrh_ray.store.reader import Store
from lrh_ray.studies.labelled_rows import LabelledRows
from lrh_ray.studies.result_parts import parity_table, provenance, site_keys, store_table, with_interval
from lrh_ray.studies.sae_bound_task import BoundAnswer
from lrh_ray.studies.sae_saved import SavedResult

Probes = Mapping[str, Sequence[WordProbes]]
LEVEL = 0.05


def make_bound_result(
    question: Result,
    store: Store,
    saved: SavedResult,
    concepts: Sequence[LabelledRows],
    omitted: Sequence[str],
    probes: Probes,
    answers: Sequence[BoundAnswer],
    seconds: float,
) -> Result:
    """Assemble the answer to `question`."""
    names = [one.name for one in concepts]
    measures = [measure for answer in answers for measure in _measures(store, answer, names, probes)]
    return replace(
        question,
        summary=(*_summary(answers, probes), *_left_out(saved, omitted)),
        measures=tuple(sorted(measures, key=lambda one: one.name != "mean_correlation")),
        tables=(
            _comparison(answers, probes),
            _concepts_table(concepts, probes),
            _latents_table(answers, names),
            store_table(store),
            parity_table(store),
        ),
        arrays=dict(_arrays(answers)),
        provenance=provenance(store, seconds),
    )


def _ceiling(probes: Sequence[WordProbes]) -> float:
    return float(np.mean([one.ceiling for one in probes]))


def _measures(store: Store, answer: BoundAnswer, names: Sequence[str], probes: Probes) -> Iterator[Measure]:
    """Over concepts, and of each; all numbers are of words that chose no latent."""
    test, own = answer.test, probes[answer.site]
    keys = {**site_keys(store, answer.site), "autoencoder": answer.name, "codes": answer.codes}
    means = test.null.mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    yield Measure(
        name="mean_correlation",
        value=test.mean.value,
        unit="r",
        keys=keys,
        low=test.mean.low,
        high=test.mean.high,
        controls={
            **{name: float(found.held_out.mean()) for name, found in answer.controls.items()},
            "null_low": float(low),
            "null_high": float(high),
            "p": float(permutation_p_values(np.array([test.mean.value]), means[:, None])[0]),
            "ceiling": _ceiling(own),
            "as_published": answer.published.mean,
            "chance_as_published": test.chance.mean,
        },
    )
    yield Measure(
        name="coverage",
        value=test.coverage.value,
        unit="of concepts",
        keys=keys,
        low=test.coverage.low,
        high=test.coverage.high,
        controls={
            **{name: found.coverage for name, found in answer.controls.items()},
            "as_published": answer.published.coverage,
            "chance_as_published": test.chance.coverage,
        },
    )
    for number, concept in enumerate(names):
        low, high = np.quantile(test.null[:, number], [0.025, 0.975])
        yield Measure(
            name="correlation",
            value=float(test.correlations[number]),
            unit="r",
            keys={**keys, "concept": concept},
            low=float(test.low[number]),
            high=float(test.high[number]),
            controls={
                **{name: float(found.held_out[number]) for name, found in answer.controls.items()},
                "null_low": float(low),
                "null_high": float(high),
                "p": float(test.p_values[number]),
                "ceiling": own[number].ceiling,
                "as_published": float(answer.published.correlations[number]),
            },
        )


def _summary(answers: Sequence[BoundAnswer], probes: Probes) -> Iterator[str]:
    """The best of each site and way of reading, by words that chose nothing; then those that chance explains."""
    for site, codes in dict.fromkeys((answer.site, answer.codes) for answer in answers):
        own = [answer for answer in answers if (answer.site, answer.codes) == (site, codes)]
        best = max(own, key=lambda answer: answer.test.mean.value)
        beside = ", ".join(
            f"{name.replace('_', ' ')} {found.held_out.mean():.3f}" for name, found in best.controls.items()
        )
        among = f" (the best of {len(own)})" if len(own) > 1 else ""
        yield (
            f"At {site}, with codes read as {codes}, latents of {best.name}{among} match probes with a mean "
            f"correlation of {with_interval(best.test.mean)} on words that chose none of them; {beside}; a supervised "
            f"direction of the same words {_ceiling(probes[site]):.3f}. As published it would be "
            f"{best.published.mean:.3f}, of which {best.test.chance.mean:.3f} is what turned signs give."
        )
        behind = [answer.name for answer in own if not answer.test.mean.low > _best_control(answer)]
        if behind:
            yield (
                f"At {site}, with codes read as {codes}, not shown to be above random latents and the site's own "
                f"dimensions: {', '.join(behind)}."
            )


def _best_control(answer: BoundAnswer) -> float:
    return max(float(found.held_out.mean()) for found in answer.controls.values())


def _left_out(saved: SavedResult, omitted: Sequence[str]) -> Iterator[str]:
    if omitted:
        yield f"Concepts left out because too few groups of their words share none: {', '.join(omitted)}."
    yield from (f"Left out: {name}. {reason}" for name, reason in saved.omitted)


def _comparison(answers: Sequence[BoundAnswer], probes: Probes) -> Table:
    rows: list[tuple[Scalar, ...]] = []
    for answer in answers:
        test, controls = answer.test, answer.controls.values()
        numbers = (
            answer.codes_a_row,
            answer.published.mean,
            test.chance.mean,
            *(found.published for found in controls),
            test.mean.value,
            test.mean.low,
            test.mean.high,
            *(float(found.held_out.mean()) for found in controls),
            _ceiling(probes[answer.site]),
            answer.published.coverage,
            test.coverage.value,
        )
        rows.append((answer.site, answer.name, answer.codes, *(round(number, 4) for number in numbers)))
    others = tuple(name.replace("_", " ") for name in answers[0].controls)
    return Table(
        name="comparison",
        description="Mean correlation of the latents that match probes best. Published: chosen and scored on the same "
        "words, beside the same with turned signs (chance) and of what was never trained. Held out: on words that "
        "fitted no probe and chose no latent. Ceiling: a supervised direction from the words that choose. Coverage: "
        "concepts above .5.",
        columns=(
            "site",
            "autoencoder",
            "codes",
            "codes a row",
            "published",
            "published, chance",
            *(f"published, {name}" for name in others),
            "held out",
            "low",
            "high",
            *(f"held out, {name}" for name in others),
            "ceiling",
            "coverage, published",
            "coverage, held out",
        ),
        rows=tuple(rows),
    )


def _concepts_table(concepts: Sequence[LabelledRows], probes: Probes) -> Table:
    return Table(
        name="concepts",
        description="Words (or rows) of each concept and how many groups they make; accuracy of probes on words that "
        "did not fit them; and how well probes of half of the words agree with these on the others.",
        columns=("concept", "words", "groups", "site", "accuracy", "ceiling"),
        rows=tuple(
            (one.name, len(one.index), len(np.unique(one.groups)), site, probe.accuracy, probe.ceiling)
            for site, own in probes.items()
            for one, probe in zip(concepts, own, strict=True)
        ),
    )


def _latents_table(answers: Sequence[BoundAnswer], names: Sequence[str]) -> Table:
    """The latents of the published assignment, which a reader may want to look at."""
    rows: list[tuple[Scalar, ...]] = []
    for answer in answers:
        for number, name in enumerate(names):
            test = answer.test
            held = float(test.correlations[number])
            numbers = (float(answer.published.correlations[number]), held, float(test.p_values[number]))
            latent = int(answer.published.latents[number])
            rows.append((name, answer.site, answer.name, answer.codes, latent, *(round(one, 4) for one in numbers)))
    return Table(
        name="latents",
        description="The latent that matches each concept on all of its words, its correlation there, that of latents "
        f"chosen and scored on different words, and the chance of as much, corrected for all concepts (p <= {LEVEL} is "
        "a match).",
        columns=("concept", "site", "autoencoder", "codes", "latent", "published", "held out", "p"),
        rows=tuple(rows),
    )


def _arrays(answers: Sequence[BoundAnswer]) -> Iterator[tuple[str, np.ndarray]]:
    for answer in answers:
        where = f"{answer.site}/{answer.name}/{answer.codes}"
        yield f"{where}/latents", answer.published.latents
        yield f"{where}/published", answer.published.correlations
        yield f"{where}/held_out", answer.test.correlations
