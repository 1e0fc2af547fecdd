"""Corollary 4.2 as a study: does a concept's direction, added to features, edit that concept's posterior?

    lrh world CONFIG        # world: {kind: steering, noises: [0.3, 0.03], seeds: 3}

For every noise and seed a model is trained, and each of the three concepts steered along its direction at several doses
(`analyses.worlds.steering`). What happens to the next token is held against the world in which the posterior was edited
exactly. `slope` is 1 where the model's log-odds move by as much as asked. Beside it stand a perfect model of the same
world, and random directions of the same length, which have a slope too.

What can go wrong: leakage into other concepts is not told by the slope; it has its own number.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np

from lrh_ray.analyses.worlds.learning import Recipe
from lrh_ray.analyses.worlds.steering import DOSES, Dose, Steering, SteeringTrial
from lrh_ray.records import Measure, Table
from lrh_ray.studies.result_parts import with_interval
from lrh_ray.studies.seeded_world import Answer, SeededWorld
from lrh_ray.studies.world_kinds import NoisyWorldConfig
from lrh_ray.studies.worlds import at_noise, steering_test
from lrh_ray.studies.worlds.readings import LEAD, Reading, above, at, lead, measured, pick, positive, shown

Model: TypeAlias = Literal["trained", "perfect"]
MODELS: tuple[Model, ...] = ("trained", "perfect")
TRAINED, PERFECT, CHANCE = {"reader": "trained model"}, {"control": "perfect model"}, {"control": "chance, 95 % point"}
SLOPE, EXPLAINED, LEAKAGE = "slope", "change_explained", "leakage"
ALL = "all concepts"
EFFECTS: Mapping[str, Callable[[Steering], float]] = {
    EXPLAINED: lambda found: found.explained,
    LEAKAGE: lambda found: found.leakage,
}
"""How much of the asked change of next tokens is made; how much other concepts move, as a share of what is asked."""
CURVES: Sequence[tuple[Mapping[str, str], Model, Callable[[Dose], float]]] = (
    (TRAINED, "trained", lambda dose: dose.found),
    (PERFECT, "perfect", lambda dose: dose.found),
    ({"control": "edited world"}, "trained", lambda dose: dose.asked),
    (CHANCE, "trained", lambda dose: math.copysign(dose.null, dose.asked)),
)
"""Dose-responses: whose, read in which model, and what."""


def over_concepts(trial: SteeringTrial, model: Model, read: Callable[[Steering], float]) -> float:
    """Mean over the concepts of a world."""
    return float(np.mean([read(found) for found in getattr(trial, model)]))


def _trials(world: NoisyWorldConfig, address: str) -> list[SteeringTrial]:
    recipe = Recipe(steps=world.steps, test_rows=world.contexts)
    return steering_test(world.noises, seeds=world.seeds, recipe=recipe, address=address)


def _answer(_: NoisyWorldConfig, trials: Sequence[SteeringTrial]) -> Answer:
    slopes, doses = _slopes(len(trials[0].trained)), _doses()
    measures = (
        *measured(trials, at_noise, slopes),
        *measured(trials, lambda trial: {"model": f"noise {trial.noise:g}"}, doses),
        *measured(trials, at_noise, _effects()),
    )
    curves_first = sorted(measures, key=lambda one: one.name == LEAD)
    return Answer(summary=tuple(_summary(measures)), measures=curves_first, tables=(_concepts_table(trials),))


def _of(
    model: Model, read: Callable[[Steering], float], concept: int | None = None
) -> Callable[[SteeringTrial], float]:
    """A number of one concept, or its mean over all."""
    if concept is None:
        return lambda trial: over_concepts(trial, model, read)
    return lambda trial: read(getattr(trial, model)[concept])


def _slopes(num_concepts: int) -> Iterator[Reading[SteeringTrial]]:
    """The null band is that of |slope|: from 0 to the 95 % point of random directions."""
    for concept in (None, *range(num_concepts)):
        keys = {"concept": ALL if concept is None else f"concept {concept + 1}"}
        trained, perfect = (_of(model, lambda found: found.slope, concept) for model in MODELS)
        chance = _of("trained", lambda found: found.null, concept)
        band = {"null_low": lambda _: 0.0, "null_high": chance}
        own = Reading(name=SLOPE, value=trained, keys={**keys, **TRAINED}, beside=band)
        by_chance = Reading(name=SLOPE, value=chance, keys={**keys, **CHANCE})
        yield from (own, Reading(name=SLOPE, value=perfect, keys={**keys, **PERFECT}), by_chance)
        yield lead(own, [by_chance])


def _doses() -> Iterator[Reading[SteeringTrial]]:
    """Change of the log-odds of the steered concept at each dose, over all concepts."""

    def at_dose(k: int, read: Callable[[Dose], float]) -> Callable[[Steering], float]:
        return lambda found: read(found.doses[k])

    for keys, model, read in CURVES:
        for k, dose in enumerate(DOSES.tolist()):
            value = _of(model, at_dose(k, read))
            yield Reading(name="change_of_log_odds", value=value, unit="nats", keys={"dose": dose, **keys})


def _effects() -> Iterator[Reading[SteeringTrial]]:
    for name, read in EFFECTS.items():
        yield Reading(name=name, value=_of("trained", read), keys=TRAINED)
        yield Reading(name=name, value=_of("perfect", read), keys=PERFECT)


def _summary(measures: Sequence[Measure]) -> Iterator[str]:
    slopes = sorted(pick(measures, SLOPE, concept=ALL, **TRAINED), key=lambda one: at(one, "noise"))
    for slope in slopes[:1] + slopes[1:][-1:]:
        here = {"noise": at(slope, "noise")}
        perfect, chance = (pick(measures, SLOPE, concept=ALL, **here, **who)[0] for who in (PERFECT, CHANCE))
        explained, leakage = (pick(measures, name, **here, **TRAINED)[0] for name in (EXPLAINED, LEAKAGE))
        yield (
            f"Where the next token tells the concepts but for {here['noise']:g} of the time, log-odds of a steered "
            f"concept move by {with_interval(slope)} of what the edit asks; in a perfect model by "
            f"{with_interval(perfect)}, along 95 of 100 random directions by less than {with_interval(chance)}. "
            f"{with_interval(explained)} of the change of next tokens is the one asked; other concepts move by "
            f"{with_interval(leakage)} of what the steered one should."
        )
    yield shown(
        "concepts are steered further than along 95 of 100 random directions",
        {
            f"noise {at(one, 'noise'):g}, by {with_interval(one)}": positive(one)
            for one in pick(measures, LEAD, concept=ALL)
        },
    )
    if len(slopes) > 1:
        best, worst = (
            pick(measures, EXPLAINED, noise=at(one, "noise"), **TRAINED)[0] for one in (slopes[0], slopes[-1])
        )
        claim = "more of the change of next tokens is the one asked where the next token tells more"
        places = f"noise {at(best, 'noise'):g} against {at(worst, 'noise'):g}"
        yield shown(claim, {f"{places}, {with_interval(best)} against {with_interval(worst)}": above(best, worst)})


def _concepts_table(trials: Sequence[SteeringTrial]) -> Table:
    read = ("slope", "low", "high", "null", "explained", "leakage")
    return Table(
        name="concepts",
        description="Every concept of every world, in the trained model and in a perfect one: the slope with its "
        "95 % interval over contexts, the 95 % point of |slope| over random directions, the share of the change of "
        "next tokens that is the one asked, and how much other concepts move.",
        columns=("noise", "seed", "concept", "model", *read),
        rows=tuple(
            (trial.noise, trial.seed, number, model, *(float(getattr(found, name)) for name in read))
            for trial in trials
            for model in MODELS
            for number, found in enumerate(getattr(trial, model), start=1)
        ),
    )


steering_world = SeededWorld(
    kind="steering",
    settings=NoisyWorldConfig,
    question="Does adding a concept's direction change that concept?",
    work=lambda world: f"training and steering {len(world.noises) * world.seeds} models of worlds of known concepts",
    trials=_trials,
    answer=_answer,
)
