"""A1 as a study: small models in worlds of known concepts, and how linearly their features hold the posterior.

    lrh world CONFIG        # world: {kind: theorem, noises: [0.3, 0.03], seeds: 3}

For every noise of the next token and every seed: a world is drawn, a model trained on its tokens, and read beside what
a perfect model would show in that very world (the ceiling) and beside what costs nothing. The identity behind Theorem
3.1 is checked on every world as well, where it is exact.

What can go wrong: one seed has no interval; two have a wide one.
"""

from collections.abc import Callable, Iterator, Sequence

from lrh_ray.analyses.worlds.direct import DirectTrial, direct_world
from lrh_ray.analyses.worlds.learning import Recipe
from lrh_ray.analyses.worlds.theorem import diversity, identity_error
from lrh_ray.records import Measure, Scalar, Table
from lrh_ray.studies.seeded_world import Answer, SeededWorld
from lrh_ray.studies.world_kinds import NoisyWorldConfig
from lrh_ray.studies.worlds import at_noise, direct_test
from lrh_ray.studies.worlds.readings import Reading, at, measured, pick

UNIT = "share of variance"
LOGITS, FEATURES = "logits_from_the_posterior", "posterior_from_the_features"
TRAINED = {"reader": "trained model"}


def _trials(world: NoisyWorldConfig, address: str) -> list[DirectTrial]:
    recipe = Recipe(steps=world.steps, test_rows=world.contexts)
    return direct_test(world.noises, seeds=world.seeds, recipe=recipe, address=address)


def _answer(_: NoisyWorldConfig, trials: Sequence[DirectTrial]) -> Answer:
    measures = measured(trials, at_noise, _readings(list(trials[0].controls)))
    return Answer(summary=tuple(_summary(measures)), measures=measures, tables=(_worlds_table(trials),))


def _readings(controls: Sequence[str]) -> Iterator[Reading[DirectTrial]]:
    def of_control(name: str) -> Callable[[DirectTrial], float]:
        return lambda trial: trial.controls[name]

    yield Reading(
        name=LOGITS,
        value=lambda trial: trial.trained.logits,
        unit=UNIT,
        keys=TRAINED,
        beside={"ceiling": lambda trial: trial.population},
    )
    yield Reading(name=FEATURES, value=lambda trial: trial.trained.features, unit=UNIT, keys=TRAINED)
    for name in controls:
        yield Reading(name=FEATURES, value=of_control(name), unit=UNIT, keys={"control": name})


def _summary(measures: Sequence[Measure]) -> Iterator[str]:
    logits = sorted(pick(measures, LOGITS), key=lambda found: at(found, "noise"))
    last, first = logits[0], logits[-1]
    (features,) = pick(measures, FEATURES, noise=at(last, "noise"), **TRAINED)
    best = max(features.controls, key=lambda name: features.controls[name])
    yield (
        f"Where the next token tells the concepts but for {at(last, 'noise'):g} of the time, the exact log-posterior "
        f"explains {last.value:.3f} of a trained model's logits; of a perfect model's it would explain "
        f"{last.controls['ceiling']:.3f}."
    )
    yield (
        f"Its features give the log-posterior back with R^2 {features.value:.3f}; the best control ({best}) "
        f"{features.controls[best]:.3f}."
    )
    if first is not last:
        yield (
            f"The theorem is a limit: at noise {at(first, 'noise'):g} the same numbers are {first.value:.3f} and "
            f"{first.controls['ceiling']:.3f}."
        )


def _worlds_table(trials: Sequence[DirectTrial]) -> Table:
    rows: list[tuple[Scalar, ...]] = []
    for trial in trials:
        world = direct_world(trial.noise, trial.seed)
        told = diversity(world)
        rows.append(
            (
                trial.noise,
                trial.seed,
                trial.error,
                identity_error(world),
                told.rank,
                world.next_posterior.shape[1] - 1,
                trial.population,
                trial.trained.logits,
                trial.trained.divergence,
            )
        )
    return Table(
        name="worlds",
        description="Every world: epsilon; the error (nats) of the identity behind the theorem, which is exact; "
        "the rank of the diversity matrix, never full; R^2 of a perfect model and of the trained one; and how far the "
        "trained one is from perfect (nats).",
        columns=("noise", "seed", "epsilon", "identity error", "rank", "most", "ceiling", "trained", "divergence"),
        rows=tuple(rows),
    )


theorem_world = SeededWorld(
    kind="theorem",
    settings=NoisyWorldConfig,
    question="Are features log-posteriors?",
    work=lambda world: f"training {len(world.noises) * world.seeds} pairs of models in worlds of known concepts",
    trials=_trials,
    answer=_answer,
)
