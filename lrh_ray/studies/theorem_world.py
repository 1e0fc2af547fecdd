"""A1 as a study: small models in worlds of known concepts, and how linearly their features hold the posterior.

    lrh world CONFIG        # world: {kind: theorem, noises: [0.3, 0.03], seeds: 3}

For every noise of the next token and every seed: a world is drawn, a model trained on its tokens, and read beside what
a perfect model would show in that very world (the ceiling) and beside what costs nothing. The identity behind Theorem
3.1 is checked on every world as well, where it is exact.

What can go wrong: one seed has no interval; two have a wide one.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from lrh_ray.analyses.worlds.direct import DirectTrial, direct_world
from lrh_ray.analyses.worlds.learning import Recipe
from lrh_ray.analyses.worlds.theorem import diversity, identity_error
from lrh_ray.artifacts import save_result, standing_result
from lrh_ray.records import Measure, Plain, Scalar, Table
from lrh_ray.runtime.cluster import EMBEDDED
from lrh_ray.studies.progress import Progress, Silent
from lrh_ray.studies.result_parts import software
from lrh_ray.studies.world_config import WorldConfig, world_question
from lrh_ray.studies.worlds import direct_test, over_seeds

UNIT = "share of variance"
LOGITS, FEATURES = "logits, from the posterior", "posterior, from the features"


def theorem_world(config: WorldConfig, *, address: str = EMBEDDED, progress: Progress | None = None) -> Path:
    """Train and read all models; returns the folder of the result, at once if the question was answered before."""
    progress, started, world = progress or Silent(), time.monotonic(), config.theorem
    question = world_question(config, f"Are features log-posteriors? {config.name}")
    if standing := standing_result(question, config.results_path):
        return standing
    progress.begin(f"training {len(world.noises) * world.seeds} pairs of models in worlds of known concepts")
    trials = direct_test(world.noises, seeds=world.seeds, recipe=Recipe(steps=world.steps), address=address)
    answers = [_Answer.of([trial for trial in trials if trial.noise == noise]) for noise in world.noises]
    result = replace(
        question,
        summary=tuple(_summary(answers)),
        measures=tuple(measure for answer in answers for measure in answer.measures()),
        tables=(_worlds_table(answers),),
        provenance=software(round(time.monotonic() - started, 1)),
    )
    return save_result(result, config.results_path)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    """All trials of one noise, with means and intervals over seeds by the name of what was read."""

    trials: Sequence[DirectTrial]
    found: Mapping[str, Mapping[str, Plain]]

    @classmethod
    def of(cls, trials: Sequence[DirectTrial]) -> "_Answer":
        of: dict[str, Callable[[DirectTrial], float]] = {
            LOGITS: lambda trial: trial.trained.logits,
            FEATURES: lambda trial: trial.trained.features,
        }
        found = {name: over_seeds([value(trial) for trial in trials]) for name, value in of.items()}
        controls = {name: over_seeds([trial.controls[name] for trial in trials]) for name in trials[0].controls}
        return cls(trials=trials, found={**found, **controls})

    @property
    def noise(self) -> float:
        return self.trials[0].noise

    @property
    def ceiling(self) -> float:
        """Mean over seeds of what a perfect model would show."""
        return sum(trial.population for trial in self.trials) / len(self.trials)

    def mean(self, name: str) -> float:
        return cast(float, self.found[name]["mean"])

    def measures(self) -> Iterator[Measure]:
        """What the model and every control hold, the ceiling and the best control beside it."""
        best = max(self.mean(name) for name in self.trials[0].controls)
        for name, numbers in self.found.items():
            yield Measure(
                name="linear",
                value=self.mean(name),
                unit=UNIT,
                keys={"model": f"noise {self.noise:g}", "site": name},
                low=cast(float | None, numbers["low"]),
                high=cast(float | None, numbers["high"]),
                controls={"ceiling": self.ceiling} if name == LOGITS else {"best control": best},
                flags=() if len(self.trials) > 1 else ("one seed: no interval",),
            )


def _summary(answers: Sequence[_Answer]) -> Iterator[str]:
    last = min(answers, key=lambda answer: answer.noise)
    controls = list(last.trials[0].controls)
    best = max(controls, key=last.mean)
    yield (
        f"Where the next token tells the concepts but for {last.noise:g} of the time, the exact log-posterior explains "
        f"{last.mean(LOGITS):.3f} of a trained model's logits; of a perfect model's it would explain "
        f"{last.ceiling:.3f}."
    )
    yield (
        f"Its features give the log-posterior back with R^2 {last.mean(FEATURES):.3f}; the best control ({best}) "
        f"{last.mean(best):.3f}."
    )
    if len(answers) > 1:
        first = max(answers, key=lambda answer: answer.noise)
        yield (
            f"The theorem is a limit: at noise {first.noise:g} the same numbers are {first.mean(LOGITS):.3f} and "
            f"{first.ceiling:.3f}."
        )


def _worlds_table(answers: Sequence[_Answer]) -> Table:
    rows: list[tuple[Scalar, ...]] = []
    for trial in (trial for answer in answers for trial in answer.trials):
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
