"""From bounds to a `Result`: how well latents match probes, in both modes, beside what was never trained."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from lrh_ray.analyses.sae.probe_logits import WordProbes
from lrh_ray.records import Result, Scalar, Table
from lrh_ray.store.reader import Store
from lrh_ray.studies.labelled_rows import LabelledRows
from lrh_ray.studies.result_parts import parity_table, provenance, store_table, with_interval
from lrh_ray.studies.sae_bound_measures import bound_measures, mean_ceiling
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
    measures = [measure for answer in answers for measure in bound_measures(store, answer, names, probes[answer.site])]
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
            f"direction of the same words {mean_ceiling(probes[site]):.3f}. As published it would be "
            f"{best.published.bound.mean:.3f}, of which {best.published.chance:.3f} is what turned signs give: "
            f"{with_interval(best.published.corrected)} of the way from there to 1."
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
        test, published, controls = answer.test, answer.published, answer.controls.values()
        numbers = (
            answer.codes_a_row,
            published.bound.mean,
            published.chance,
            published.corrected.value,
            *(found.published for found in controls),
            test.mean.value,
            test.mean.low,
            test.mean.high,
            test.corrected.value,
            *(float(found.held_out.mean()) for found in controls),
            mean_ceiling(probes[answer.site]),
            published.bound.coverage,
            test.coverage.value,
        )
        rows.append((answer.site, answer.name, answer.codes, *(round(number, 4) for number in numbers)))
    others = tuple(name.replace("_", " ") for name in answers[0].controls)
    return Table(
        name="comparison",
        description="Mean correlation of the latents that match probes best. Published: chosen and scored on the same "
        "words, beside the same with turned signs (chance) and of what was never trained. Held out: on words that "
        "fitted no probe and chose no latent. Corrected: how far above turned signs, of the way from there to 1. "
        "Ceiling: a supervised direction from the words that choose. Coverage: concepts above .5.",
        columns=(
            "site",
            "autoencoder",
            "codes",
            "codes a row",
            "published",
            "published, chance",
            "published, corrected",
            *(f"published, {name}" for name in others),
            "held out",
            "low",
            "high",
            "held out, corrected",
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
            numbers = (float(answer.published.bound.correlations[number]), held, float(test.p_values[number]))
            latent = int(answer.published.bound.latents[number])
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
        yield f"{where}/latents", answer.published.bound.latents
        yield f"{where}/published", answer.published.bound.correlations
        yield f"{where}/held_out", answer.test.correlations
