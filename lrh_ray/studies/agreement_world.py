"""Two training runs of one world as a study: do they find the same features, up to a linear map?

    lrh world CONFIG        # world: {kind: agreement, noises: [0.3, 0.03], seeds: 3}

For every noise and seed two models of one world are trained from different seeds, and compared where next tokens depend
on them (`analyses.worlds.agreement`). Theorem 3.1 makes either a linear map of the log-posterior, so that R^2 and
canonical correlations of perfect models are 1; correlations of single coordinates (MCC) need not be. Controls:
untrained weights, a model of another world, shuffled rows.

What can go wrong: ICA that has not converged is one of several answers; such numbers are flagged.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from lrh_ray.analyses.worlds.agreement import Agreement, AgreementTrial
from lrh_ray.analyses.worlds.learning import Recipe
from lrh_ray.records import Measure, Scalar, Table
from lrh_ray.studies.result_parts import with_interval
from lrh_ray.studies.seeded_world import Answer, SeededWorld
from lrh_ray.studies.world_kinds import NoisyWorldConfig
from lrh_ray.studies.worlds import agreement_test, at_noise
from lrh_ray.studies.worlds.readings import LEAD, Reading, above, at, lead, measured, pick, positive, shown

RUNS = "two runs"
READ: Mapping[str, Callable[[Agreement], float]] = {
    "R^2": lambda found: found.r_squared,
    "CCA": lambda found: found.canonical,
    "MCC after ICA": lambda found: found.unmixed,
    "MCC": lambda found: found.matched,
}
"""Measures of agreement, from the one that ignores most; 1 is the same, up to what each ignores."""
PERFECT = ("R^2", "CCA")
"""Those that are 1 for two perfect models."""


def comparisons(trial: AgreementTrial) -> dict[str, Agreement]:
    """The two runs, and the controls."""
    return {RUNS: trial.trained, **trial.controls}


def _trials(world: NoisyWorldConfig, address: str) -> list[AgreementTrial]:
    recipe = Recipe(steps=world.steps, test_rows=world.contexts)
    return agreement_test(world.noises, seeds=world.seeds, recipe=recipe, address=address)


def _answer(_: NoisyWorldConfig, trials: Sequence[AgreementTrial]) -> Answer:
    measures = measured(trials, at_noise, _readings(list(comparisons(trials[0]))))
    return Answer(summary=tuple(_summary(measures)), measures=measures, tables=(_runs_table(trials),))


def _readings(compared: Sequence[str]) -> Iterator[Reading[AgreementTrial]]:
    """The two runs come first, then the controls."""

    def of(name: str, read: Callable[[Agreement], float]) -> Callable[[AgreementTrial], float]:
        return lambda trial: read(comparisons(trial)[name])

    def not_converged(name: str) -> Callable[[Sequence[AgreementTrial]], tuple[str, ...]]:
        def flags(trials: Sequence[AgreementTrial]) -> tuple[str, ...]:
            missed = sum(not comparisons(trial)[name].converged for trial in trials)
            return (f"ICA did not converge in {missed} of {len(trials)} seeds",) if missed else ()

        return flags

    for measure, read in READ.items():
        own, *controls = (
            Reading(
                name="agreement",
                value=of(name, read),
                keys={"measure": measure, "reader" if name == RUNS else "control": name},
                beside={"ceiling": lambda _: 1.0} if name == RUNS and measure in PERFECT else {},
                flags=not_converged(name) if measure == "MCC after ICA" else lambda _: (),
            )
            for name in compared
        )
        yield from (own, *controls, lead(own, controls))


def _summary(measures: Sequence[Measure]) -> Iterator[str]:
    found = sorted(pick(measures, "agreement", reader=RUNS), key=lambda one: at(one, "noise"))
    for noise in dict.fromkeys(at(one, "noise") for one in found):
        own = [one for one in found if at(one, "noise") == noise]
        words = ", ".join(f"{one.keys['measure']} {with_interval(one)}" for one in own)
        yield (
            f"Where the next token tells the concepts but for {noise:g} of the time, two runs of one world agree with "
            f"{words}."
        )
        yield shown(
            f"two runs agree more than untrained weights, another world and shuffled rows at noise {noise:g}",
            {
                f"{one.keys['measure']}, by {with_interval(one)}": positive(one)
                for one in pick(measures, LEAD, noise=noise)
            },
        )
    (linear,) = pick(found, "agreement", measure="R^2", noise=at(found[0], "noise"))
    (single,) = pick(found, "agreement", measure="MCC", noise=at(found[0], "noise"))
    if above(linear, single):
        yield "Coordinate by coordinate (MCC) they are less alike: the two agree up to a linear map, not more."


def _runs_table(trials: Sequence[AgreementTrial]) -> Table:
    rows: list[tuple[Scalar, ...]] = [
        (trial.noise, trial.seed, name, *(read(found) for read in READ.values()), found.converged)
        for trial in trials
        for name, found in comparisons(trial).items()
    ]
    return Table(
        name="runs",
        description="Every pair of models that was compared: R^2 of a linear map, mean canonical correlation, mean "
        "correlation of matched coordinates after ICA and as they are, and whether ICA converged.",
        columns=("noise", "seed", "compared", *READ, "ICA converged"),
        rows=tuple(rows),
    )


agreement_world = SeededWorld(
    kind="agreement",
    settings=NoisyWorldConfig,
    question="Do two runs find the same features?",
    work=lambda world: f"training {3 * len(world.noises) * world.seeds} models of worlds of known concepts",
    trials=_trials,
    answer=_answer,
)
