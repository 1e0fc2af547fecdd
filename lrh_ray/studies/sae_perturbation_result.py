"""What targeted perturbation found: how much more a concept's own probe loses than the others do."""

from collections.abc import Iterator, Sequence

import numpy as np

from lrh_ray.analyses.intervals import percentile_interval
from lrh_ray.analyses.sae.perturbation import selectivity
from lrh_ray.records import Measure, Scalar, Table
from lrh_ray.studies.result_parts import with_interval
from lrh_ray.studies.sae_concept_task import ConceptFinding
from lrh_ray.studies.sae_evaluation_parts import Evaluation, Findings
from lrh_ray.studies.sae_perturbation import CHOSEN, DIRECTION, RANDOM_AUTOENCODER, RANDOM_LATENTS, Perturbation
from lrh_ray.studies.sae_sparse_result import NO_SPREAD


def perturbation_findings(asked: Evaluation, found: Sequence[ConceptFinding], names: Sequence[str]) -> Findings:
    """How selectively probes lose what the latents of their concept add, in every autoencoder."""
    if len(names) < 2:
        return Findings(summary=("Targeted perturbation takes two concepts or more; there is one.",))
    measures = tuple(_selectivities(asked, found))
    return Findings(
        summary=tuple(_summary(asked, measures)),
        measures=measures,
        tables=(_table(found),),
        arrays={
            f"{one.saved.site}/{one.saved.name}/drops_of_{base}": own.drops[CHOSEN][0]
            for one in found
            for base, own in one.perturbations.items()
        },
    )


def _selectivities(asked: Evaluation, found: Sequence[ConceptFinding]) -> Iterator[Measure]:
    for one in found:
        for base, own in one.perturbations.items():
            scores = {what: selectivity(drops) for what, drops in own.drops.items()}
            interval = percentile_interval(scores[CHOSEN][1:, None])
            controls = {what: float(scores[what][0]) for what in (RANDOM_LATENTS, RANDOM_AUTOENCODER)}
            ceiling = {"ceiling": float(scores[DIRECTION][0])} if DIRECTION in scores else {}
            known = not interval.degenerate[0]
            yield Measure(
                name="selective_drop",
                value=float(scores[CHOSEN][0]),
                unit="of accuracy",
                keys={**asked.keys(one.saved), "of": base},
                low=float(interval.low[0]) if known else None,
                high=float(interval.high[0]) if known else None,
                controls={**controls, **ceiling},
                flags=() if known else (NO_SPREAD,),
            )


def _summary(asked: Evaluation, measures: Sequence[Measure]) -> Iterator[str]:
    for site in asked.saved.sites:
        own = [one for one in measures if one.keys["site"] == site and one.keys["of"] == "rows"]
        best = max(own, key=lambda one: one.value)
        yield (
            f"At {site}, with the {asked.config.sizes[-1]} latents of a concept taken out of the rows, its probe loses "
            f"{with_interval(best)} of accuracy more than the others do ({best.keys['autoencoder']}"
            f"{f', the best of {len(own)}' if len(own) > 1 else ''}); random latents "
            f"{best.controls[RANDOM_LATENTS]:.3f}, the probe's own direction {best.controls['ceiling']:.3f}."
        )


def _table(found: Sequence[ConceptFinding]) -> Table:
    rows: list[tuple[Scalar, ...]] = []
    for one in found:
        for base, own in one.perturbations.items():
            numbers: list[float | None] = [round(float(own.before.mean()), 4), *_own_and_others(own, CHOSEN)]
            for what in (RANDOM_LATENTS, RANDOM_AUTOENCODER, DIRECTION):
                numbers += _own_and_others(own, what)
            rows.append((one.saved.site, one.saved.name, base, *numbers))
    kinds = ("", ", random latents", ", random autoencoder", ", probe direction")
    return Table(
        name="perturbation",
        description="Accuracy of dense probes before, and by how much it drops when the latents of a concept are "
        "taken out: of its own probe, and of the others (mean). Of rows as they are, and of reconstructions. Beside "
        "it: random latents, those chosen from random directions, and the probe's own direction out of the row.",
        columns=(
            "site",
            "autoencoder",
            "of",
            "before",
            *(f"{who}{kind}" for kind in kinds for who in ("own", "others")),
        ),
        rows=tuple(rows),
    )


def _own_and_others(found: Perturbation, what: str) -> list[float | None]:
    """Mean drop of the own probe, and of the others."""
    if what not in found.drops:
        return [None, None]
    drops, num = found.drops[what][0], len(found.before)
    own = float(np.trace(drops) / num)
    return [round(own, 4), round(float((drops.sum() - own * num) / (num * (num - 1))), 4)]
