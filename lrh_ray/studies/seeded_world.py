"""The common course of every world that is asked over seeds: question, standing answer, trials, numbers, result.

    phase_world = SeededWorld(kind="phase", settings=PhaseWorldConfig, question="Where the theorem holds:", ...)
    folder = phase_world(config)

A kind of world says what is asked, which trials answer it, and what they say; nothing else differs between kinds.

What can go wrong: trials are not kept. A run that died starts its trials anew; one that ended is found again.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic

from lrh_ray.artifacts import save_result, standing_result
from lrh_ray.config import as_plain
from lrh_ray.errors import ConfigError
from lrh_ray.records import Measure, Result, Table
from lrh_ray.runtime.cluster import EMBEDDED
from lrh_ray.studies.progress import Progress, Silent
from lrh_ray.studies.result_parts import software
from lrh_ray.studies.world_config import WorldConfig
from lrh_ray.studies.world_kinds import Seeded
from lrh_ray.studies.worlds.summary import Trial


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What trials say: sentences, numbers, tables."""

    summary: Sequence[str]
    measures: Sequence[Measure]
    tables: Sequence[Table]


@dataclass(frozen=True, kw_only=True)
class SeededWorld(Generic[Seeded, Trial]):
    """One kind of world as a study."""

    kind: str
    settings: type[Seeded]
    """The settings that ask for it, where their kind is this."""
    question: str
    """The title of the result, before the name of the run."""
    work: Callable[[Seeded], str]
    """What is done while somebody waits."""
    trials: Callable[[Seeded, str], Sequence[Trial]]
    """Every trial, on the cluster at an address."""
    answer: Callable[[Seeded, Sequence[Trial]], Answer]
    """What the trials say."""

    def __call__(self, config: WorldConfig, *, address: str = EMBEDDED, progress: Progress | None = None) -> Path:
        """Ask; returns the folder of the result, at once if the question was answered before."""
        progress, started, world = progress or Silent(), time.monotonic(), self._world(config)
        question = Result(
            kind="world",
            title=f"{self.question} {config.name}",
            summary=(),
            asked=as_plain(config),
            resolved={**as_plain(world), "interval": "95 %, Student's t over seeds"},
            inputs={},
            measures=(),
        )
        if standing := standing_result(question, config.results_path):
            return standing
        progress.begin(self.work(world))
        found = self.answer(world, self.trials(world, address))
        result = replace(
            question,
            summary=tuple(found.summary),
            measures=tuple(found.measures),
            tables=tuple(found.tables),
            provenance=software(round(time.monotonic() - started, 1)),
        )
        return save_result(result, config.results_path)

    def _world(self, config: WorldConfig) -> Seeded:
        if isinstance(config.world, self.settings) and config.world.kind == self.kind:
            return config.world
        raise ConfigError(f"world.kind is {config.world.kind!r}; this study wants {self.kind!r}.")
