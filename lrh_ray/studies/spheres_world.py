"""World (d) as a study: do encoders that tell clusters on a sphere apart hold where a point lies, linearly?

    lrh world CONFIG        # world: {kind: spheres, concentrations: [10, 50], labels: [class, permuted], seeds: 3}

For every concentration, kind of label and seed: an encoder is trained on what an invertible network shows of the points
(2410.21869), and a linear map from its features to the points is fitted and scored on fresh ones. A perfect classifier
would give them back exactly. Beside it stand the same from the input, from untrained weights, and from an encoder that
learnt the labels of other points.

What can go wrong: where clusters are islands R^2 shows how long was trained; `divergence`, the distance from the exact
posterior of the labels, tells.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias, cast

from lrh_ray.analyses.worlds.sphere_learning import SphereReading, SphereRecipe, SphereTrial
from lrh_ray.records import Measure, Table
from lrh_ray.runtime.cluster import connected
from lrh_ray.studies.result_parts import with_interval
from lrh_ray.studies.seeded_world import Answer, SeededWorld
from lrh_ray.studies.world_kinds import SpheresWorldConfig
from lrh_ray.studies.worlds import sphere_test
from lrh_ray.studies.worlds.readings import Reading, above, at, is_control, measured, pick, shown

UNIT = "share of variance"
POINTS, DIVERGENCE, ROTATION = "points_from_the_features", "divergence", "rotation_error"
READ: Mapping[str, tuple[Callable[[SphereReading], float | None], str]] = {
    POINTS: (lambda read: read.points, UNIT),
    DIVERGENCE: (lambda read: read.divergence, "nats"),
    "directions_from_the_label_vectors": (lambda read: read.centres, UNIT),
    ROTATION: (lambda read: read.rotation_error, ""),
}
"""What is read of an encoder, with its unit; the rotation only where label vectors have length 1."""
NAMES = {"class": "classes", "instance": "instances", "permuted": "permuted classes"}

Round: TypeAlias = Mapping[str, SphereTrial]
"""The trials of one world, by what the encoder was trained to tell."""


def _trials(world: SpheresWorldConfig, address: str) -> list[Round]:
    recipe = SphereRecipe(steps=world.steps, label_vectors=world.label_vectors)
    with connected(address):
        found = [
            sphere_test(
                world.concentrations,
                seeds=world.seeds,
                labels=labels,
                dim=world.dim,
                num_classes=world.classes,
                recipe=recipe,
                address=address,
            )
            for labels in world.labels
        ]
    return [{trial.labels: trial for trial in together} for together in zip(*found, strict=True)]


def _answer(world: SpheresWorldConfig, rounds: Sequence[Round]) -> Answer:
    measures = measured(
        rounds, lambda one: {"concentration": _any(one).concentration}, _readings(world, list(_any(rounds[0]).controls))
    )
    return Answer(summary=tuple(_summary(measures)), measures=measures, tables=(_worlds_table(rounds),))


def _any(one: Round) -> SphereTrial:
    return next(iter(one.values()))


def _readings(world: SpheresWorldConfig, controls: Sequence[str]) -> Iterator[Reading[Round]]:
    def of(labels: str, read: Callable[[SphereReading], float | None]) -> Callable[[Round], float]:
        return lambda one: cast(float, read(one[labels].trained))

    def without_labels(control: str) -> Callable[[Round], float]:
        return lambda one: _any(one).controls[control]

    for name, (read, unit) in READ.items():
        for labels in world.labels if name != ROTATION or world.label_vectors == "unit" else ():
            keys = {"control" if labels == "permuted" else "reader": NAMES[labels]}
            yield Reading(name=name, value=of(labels, read), unit=unit, keys=keys)
        for control in controls if name == POINTS else ():
            yield Reading(name=name, value=without_labels(control), unit=unit, keys={"control": control})


def _summary(measures: Sequence[Measure]) -> Iterator[str]:
    found = [one for one in pick(measures, POINTS) if not is_control(one)]
    for reader in dict.fromkeys(one.keys["reader"] for one in found):
        words = [_words(one, measures) for one in found if one.keys["reader"] == reader]
        yield (
            f"Features of encoders that tell {reader} apart give the points back with R^2 {'; '.join(words)}. Those of "
            f"a perfect classifier would with R^2 1."
        )
    for concentration in dict.fromkeys(at(one, "concentration") for one in found):
        here = pick(measures, POINTS, concentration=concentration)
        rivals = [one for one in here if is_control(one)]
        own = {str(one.keys["reader"]): above(one, *rivals) for one in here if not is_control(one)}
        against = ", ".join(f"{one.keys['control']} {with_interval(one)}" for one in rivals)
        where = f"at concentration {concentration:g}"
        yield shown(f"{where} they tell more than every control ({against}), with intervals apart", own)


def _words(found: Measure, measures: Sequence[Measure]) -> str:
    (far,) = pick(measures, DIVERGENCE, **found.keys)
    place = f"concentration {at(found, 'concentration'):g}"
    return f"{with_interval(found)} at {place}, {with_interval(far)} nats from the exact posterior"


def _worlds_table(rounds: Sequence[Round]) -> Table:
    return Table(
        name="worlds",
        description="Every world and encoder: R^2 of a linear map from features to points and from label vectors to "
        "directions, the error of the rotation where label vectors have length 1, and the divergence in nats; and R^2 "
        "of the points from untrained weights and from the input.",
        columns=("concentration", "seed", "labels", *READ, *_any(rounds[0]).controls),
        rows=tuple(
            (
                trial.concentration,
                trial.seed,
                NAMES[trial.labels],
                *(read(trial.trained) for read, _ in READ.values()),
                *trial.controls.values(),
            )
            for one in rounds
            for trial in one.values()
        ),
    )


spheres_world = SeededWorld(
    settings=SpheresWorldConfig,
    question="Do classifiers recover where points lie?",
    work=lambda world: (
        f"training {len(world.labels) * len(world.concentrations) * world.seeds} encoders of clusters on spheres"
    ),
    trials=_trials,
    answer=_answer,
)
