"""The phase diagram: in which worlds the theorem's promise holds, exactly and without training a model.

    lrh world CONFIG        # world: {kind: phase, sharpness: [0.5, 1, 2], noises: [0.3, 0.1, 0.01]}

A world is as sharp as its context tells the concepts, and as noisy as its next token fails to. At every point of that
plane stands how much of a perfect model's log-ratios is a linear map of the joint log-posterior (Theorem 3.1 of
2503.08980), and of the marginal ones side by side (ConCA), and how much of either target the log-ratios give back.

What can go wrong: where the context tells next to nothing there is little to explain, and a high R^2 says little; the
table gives H(c|x) beside it.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from lrh_ray.analyses.worlds.phase import PhasePoint
from lrh_ray.artifacts import save_result, standing_result
from lrh_ray.records import Measure, Scalar, Table
from lrh_ray.runtime.cluster import EMBEDDED
from lrh_ray.studies.progress import Progress, Silent
from lrh_ray.studies.result_parts import software
from lrh_ray.studies.world_config import WorldConfig, world_question
from lrh_ray.studies.worlds import over_seeds, phase_places, phase_test

READINGS: Mapping[str, Callable[[PhasePoint], float]] = {
    "linear_in_the_joint_posterior": lambda point: point.regime.r_squared,
    "linear_in_the_marginal_posteriors": lambda point: point.marginal,
    "joint_posterior_given_back": lambda point: point.decoded_joint,
    "marginal_posteriors_given_back": lambda point: point.decoded_marginal,
}
"""What a perfect model's log-ratios are a linear map of, and what is a linear map of them."""


def phase_world(config: WorldConfig, *, address: str = EMBEDDED, progress: Progress | None = None) -> Path:
    """Compute the diagram; returns the folder of the result, at once if the question was answered before."""
    progress, started, world = progress or Silent(), time.monotonic(), config.phase
    question = world_question(config, f"Where the theorem holds: {config.name}")
    if standing := standing_result(question, config.results_path):
        return standing
    places = phase_places(world.worlds, world.sharpness, world.noises, world.values)
    progress.begin(f"{len(places) * world.seeds} worlds, each enumerated")
    points = phase_test(places, seeds=world.seeds, address=address)
    found = [points[first : first + world.seeds] for first in range(0, len(points), world.seeds)]
    measures = tuple(_measure(reading, of_place) for reading in READINGS for of_place in found)
    result = replace(
        question,
        summary=tuple(_summary(measures)),
        measures=measures,
        tables=(_table(points),),
        provenance=software(round(time.monotonic() - started, 1)),
    )
    return save_result(result, config.results_path)


def _measure(reading: str, points: Sequence[PhasePoint]) -> Measure:
    """One place of the diagram, over the seeds."""
    place, numbers = points[0].place, over_seeds([READINGS[reading](point) for point in points])
    return Measure(
        name=reading,
        value=cast(float, numbers["mean"]),
        unit="share of variance",
        keys={"model": f"noise {place.next_sharpness:g}", "site": f"sharpness {place.sharpness:g}"},
        low=cast(float | None, numbers["low"]),
        high=cast(float | None, numbers["high"]),
        flags=() if len(points) > 1 else ("one seed: no interval",),
    )


def _summary(measures: Sequence[Measure]) -> Iterator[str]:
    def words(measure: Measure) -> str:
        return f"{measure.value:.3f} ({measure.keys['model']}, {measure.keys['site']})"

    for reading in list(READINGS)[:2]:
        own = sorted((measure for measure in measures if measure.name == reading), key=lambda found: found.value)
        yield f"Log-ratios {reading.replace('_', ' ')}: R^2 from {words(own[0])} to {words(own[-1])}."


def _table(points: Sequence[PhasePoint]) -> Table:
    rows: list[tuple[Scalar, ...]] = [
        (
            point.place.next_sharpness,
            point.place.sharpness,
            point.seed,
            point.regime.error,
            point.regime.total_variation,
            point.regime.context_entropy,
            point.shared,
        )
        for point in points
    ]
    return Table(
        name="worlds",
        description="Every world in the theorem's terms: epsilon, mean total variation of p(c|y) between next "
        "tokens, H(c|x) in nats, and the share of the marginal posteriors that is linear in the joint one.",
        columns=("noise", "sharpness", "seed", "epsilon", "total variation", "H(c|x)", "shared"),
        rows=tuple(rows),
    )
