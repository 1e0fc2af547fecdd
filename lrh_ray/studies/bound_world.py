"""The upper bound as a study in worlds: how near are probe log-odds, by which latents are judged, to the exact ones?

    lrh world CONFIG        # world: {kind: bound, noises: [0.3, 0.03], seeds: 3}

For every noise and seed a model is trained, probed for each of its concepts, and an autoencoder trained on its features
(`analyses.worlds.bound`). `probe_and_truth` is what the bound of `lrh sae-bound` is worth: the correlation of the
probe's log-odds with those of the world. `latent_and_probe` is what such a study would report, `latent_and_truth` what
it would like to know.

What can go wrong: one seed has no interval.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from lrh_ray.analyses.worlds.bound import AUTOENCODER, RANDOM, BoundTrial, Latents
from lrh_ray.analyses.worlds.learning import Recipe
from lrh_ray.records import Measure, Scalar, Table
from lrh_ray.studies.result_parts import with_interval
from lrh_ray.studies.seeded_world import Answer, SeededWorld
from lrh_ray.studies.world_kinds import NoisyWorldConfig
from lrh_ray.studies.worlds import at_noise, bound_test
from lrh_ray.studies.worlds.readings import LEAD, Reading, at, lead, measured, pick, positive, shown

PROBE, LATENT_PROBE, LATENT_TRUTH, ACCURACY = (
    "probe_and_truth",
    "latent_and_probe",
    "latent_and_truth",
    "probe_accuracy",
)
READ: Mapping[str, Callable[[Latents], float]] = {
    LATENT_PROBE: lambda found: found.probe,
    LATENT_TRUTH: lambda found: found.truth,
}
"""What the latents that match the probe best are correlated with."""
TRAINED = {"reader": "trained model"}
ALL = "all concepts"


def _trials(world: NoisyWorldConfig, address: str) -> list[BoundTrial]:
    recipe = Recipe(steps=world.steps, test_rows=world.contexts)
    return bound_test(world.noises, seeds=world.seeds, recipe=recipe, address=address)


def _answer(_: NoisyWorldConfig, trials: Sequence[BoundTrial]) -> Answer:
    found = measured(trials, at_noise, [*_of_probes(trials[0]), *_of_latents(), _accuracy()])
    measures = sorted(found, key=lambda one: one.name == LEAD)
    return Answer(summary=tuple(_summary(measures)), measures=measures, tables=(_worlds_table(trials),))


def _of_probes(first: BoundTrial) -> Iterator[Reading[BoundTrial]]:
    """Of every concept and of all: the trained model, the controls, and its lead over them."""

    def value(read: Callable[[BoundTrial], tuple[float, ...]], concept: int | None) -> Callable[[BoundTrial], float]:
        return lambda trial: float(np.mean(read(trial)) if concept is None else read(trial)[concept])

    def of_control(name: str) -> Callable[[BoundTrial], tuple[float, ...]]:
        return lambda trial: trial.controls[name]

    for concept in (None, *range(len(first.probe))):
        keys = {"concept": ALL if concept is None else f"concept {concept + 1}"}
        perfect = value(lambda trial: trial.perfect, concept)
        own = Reading(
            name=PROBE,
            value=value(lambda trial: trial.probe, concept),
            unit="r",
            keys={**keys, **TRAINED},
            beside={"ceiling": perfect},
        )
        rivals = [
            Reading(name=PROBE, value=value(of_control(name), concept), unit="r", keys={**keys, "control": name})
            for name in first.controls
        ]
        yield from (own, *rivals, lead(own, rivals))


def _of_latents() -> Iterator[Reading[BoundTrial]]:
    def of(who: str, read: Callable[[Latents], float]) -> Callable[[BoundTrial], float]:
        return lambda trial: read(trial.latents[who])

    for name, read in READ.items():
        for who, role in ((AUTOENCODER, "reader"), (RANDOM, "control")):
            yield Reading(name=name, value=of(who, read), unit="r", keys={"concept": ALL, role: who})


def _accuracy() -> Reading[BoundTrial]:
    return Reading(
        name=ACCURACY,
        value=lambda trial: trial.accuracy,
        keys={"concept": ALL, **TRAINED},
        beside={"ceiling": lambda trial: trial.bayes},
    )


def _summary(measures: Sequence[Measure]) -> Iterator[str]:
    probes = sorted(pick(measures, PROBE, concept=ALL, **TRAINED), key=lambda one: at(one, "noise"))
    for probe in probes:
        here = {"noise": at(probe, "noise")}
        ((with_probe,), (with_truth,)) = (pick(measures, name, reader=AUTOENCODER, **here) for name in READ)
        yield (
            f"Where the next token tells the concepts but for {here['noise']:g} of the time, the log-odds of a probe "
            f"correlate with the exact ones at {with_interval(probe)} (of a perfect model "
            f"{probe.controls['ceiling']:.3f}). The latents of an autoencoder that match the probe at "
            f"{with_interval(with_probe)} match the truth at {with_interval(with_truth)}; random directions "
            f"{with_probe.controls[RANDOM]:.3f} and {with_truth.controls[RANDOM]:.3f}."
        )
    yield shown(
        "a probe of the trained model is nearer to the truth than one of untrained weights, of the input bits and of "
        "shuffled labels",
        {
            f"noise {at(one, 'noise'):g}, by {with_interval(one)}": positive(one)
            for one in pick(measures, LEAD, concept=ALL)
        },
    )


def _worlds_table(trials: Sequence[BoundTrial]) -> Table:
    rows: list[tuple[Scalar, ...]] = [
        (
            trial.noise,
            trial.seed,
            float(np.mean(trial.probe)),
            float(np.mean(trial.perfect)),
            *(read(trial.latents[who]) for who in (AUTOENCODER, RANDOM) for read in READ.values()),
            trial.accuracy,
            trial.bayes,
        )
        for trial in trials
    ]
    latents = tuple(f"{who} and {what}" for who in (AUTOENCODER, RANDOM) for what in ("probe", "truth"))
    return Table(
        name="worlds",
        description="Every world, mean over its concepts: r of the probe's log-odds with the exact ones, of a trained "
        "and of a perfect model; r of latents that match the probe with it and with the truth; accuracy of the probe "
        "and of the exact log-odds.",
        columns=("noise", "seed", "probe", "perfect", *latents, "accuracy", "at most"),
        rows=tuple(rows),
    )


bound_world = SeededWorld(
    kind="bound",
    settings=NoisyWorldConfig,
    question="How near are probe log-odds to the truth?",
    work=lambda world: f"training and probing {len(world.noises) * world.seeds} models of worlds of known concepts",
    trials=_trials,
    answer=_answer,
)
