"""What the tests of an evaluation share: what they are given, and what they hand back."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lrh_ray.records import Measure, Table
from lrh_ray.store.reader import Store
from lrh_ray.studies.progress import Progress
from lrh_ray.studies.result_parts import site_keys
from lrh_ray.studies.sae_evaluation_config import SaeEvaluationConfig
from lrh_ray.studies.sae_saved import Saved, SavedResult


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A store, the autoencoders, and what is asked of them."""

    store: Store
    saved: SavedResult
    config: SaeEvaluationConfig
    digest: str
    """Of the question; workers keep what they opened under it."""
    progress: Progress

    def keys(self, saved: Saved) -> dict[str, str | int | float]:
        """What a number is about."""
        return {**site_keys(self.store, saved.site), "autoencoder": saved.name}


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Sentences, numbers, tables and arrays of one test."""

    summary: tuple[str, ...]
    measures: tuple[Measure, ...] = ()
    tables: tuple[Table, ...] = ()
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


def mean_codes(saved: SavedResult, one: Saved) -> float:
    """Codes a row of an autoencoder on the documents that its own study held out: what a random one is given."""
    if one.dense:
        return one.weights.num_latents / 2
    return float(saved.result.arrays[f"{one.site}/{one.name}/density"].sum())
