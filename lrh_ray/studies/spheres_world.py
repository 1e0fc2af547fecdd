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
from lrh_ray.studies.worlds.readings import LEAD, Reading, at, is_control, lead, measured, pick, positive, shown

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
    recipe = SphereRecipe(steps=world.steps, instances=world.instances, label_vectors=world.label_vectors)
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

    found: list[Reading[Round]] = []
    for name, (read, unit) in READ.items():
        for labels in world.labels if name != ROTATION or world.label_vectors == "unit" else ():
            keys = {"control" if labels == "permuted" else "reader": NAMES[labels]}
            found.append(Reading(name=name, value=of(labels, read), unit=unit, keys=keys))
        for control in controls if name == POINTS else ():
            found.append(Reading(name=name, value=without_labels(control), unit=unit, keys={"control": control}))
    yield from found
    rivals = [one for one in found if one.name == POINTS and "control" in one.keys]
    yield from (lead(one, rivals) for one in found if one.name == POINTS and one not in rivals)


def _summary(measures: Sequence[Measure]) -> Iterator[str]:
    for reader in dict.fromkeys(str(one.keys["reader"]) for one in measures if not is_control(one)):
        points, far = pick(measures, POINTS, reader=reader), pick(measures, DIVERGENCE, reader=reader)
        yield (
            f"Features of encoders that tell {reader} apart give the points back with R^2 {_words(points)}. They are "
            f"{_words(far)} nats from the exact posterior; where nothing is missing, R^2 is 1."
        )
        leads = {
            f"concentration {at(one, 'concentration'):g}, by {with_interval(one)}": positive(one)
            for one in pick(measures, LEAD, reader=reader)
        }
        yield shown(f"encoders of {reader} tell more than the best control of the same world", leads)


def _words(found: Sequence[Measure]) -> str:
    return "; ".join(f"{with_interval(one)} at concentration {at(one, 'concentration'):g}" for one in found)


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
    kind="spheres",
    settings=SpheresWorldConfig,
    question="Do classifiers recover where points lie?",
    work=lambda world: (
        f"training {len(world.labels) * len(world.concentrations) * world.seeds} encoders of clusters on spheres"
    ),
    trials=_trials,
    answer=_answer,
)
