"""What workers compute for the upper bound: the probes of a site, and one autoencoder held against them.

Beside the autoencoder stand what has as many latents and was never trained: random directions with the k largest of
each row (`random_autoencoder`), all of them (`random_directions`); and the dimensions of the site themselves, either
way round (`dimensions`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lrh_ray.analyses.sae.bound_test import BoundTest, bound_test
from lrh_ray.analyses.sae.probe_logits import WordProbes, word_probes
from lrh_ray.analyses.sae.published_test import PublishedTest, published_test
from lrh_ray.analyses.sae.reader import pre_activations
from lrh_ray.analyses.sae.reading import sparse_codes
from lrh_ray.analyses.sae.upper_bound import held_out_bound, upper_bound
from lrh_ray.errors import LrhError
from lrh_ray.store.objects import Location
from lrh_ray.store.reader import open_store
from lrh_ray.studies.labelled_rows import LabelledRows, rows_of
from lrh_ray.studies.sae_bound_config import CodesAs, SaeBoundConfig
from lrh_ray.studies.sae_saved import Saved


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What stands beside an autoencoder: mean correlations of the concepts in both modes, and coverages."""

    published: float
    held_out: np.ndarray
    coverage: float


@dataclass(frozen=True, kw_only=True)
class BoundAnswer:
    """One autoencoder with its codes read in one way."""

    site: str
    name: str
    codes: CodesAs
    codes_a_row: float
    published: PublishedTest
    test: BoundTest
    controls: Mapping[str, Beside]


@dataclass(frozen=True, kw_only=True)
class ProbeTask:
    """site -> the probes of all concepts there."""

    location: Location
    concepts: tuple[LabelledRows, ...]
    config: SaeBoundConfig

    def __call__(self, site: str) -> tuple[WordProbes, ...]:
        rows = rows_of(open_store(self.location), site, self.concepts)
        return tuple(map(self._probed, self.concepts, rows))

    def _probed(self, concept: LabelledRows, rows: np.ndarray) -> WordProbes:
        config = self.config
        try:
            return word_probes(
                rows,
                concept.labels,
                concept.groups,
                inverse_penalty=config.inverse_penalty,
                repeats=config.repeats,
                seed=config.seed,
            )
        except LrhError as error:
            raise type(error)(f"Concept {concept.name!r}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class BoundTask:
    """An autoencoder -> its bound, with codes read in every way that is asked for."""

    location: Location
    concepts: tuple[LabelledRows, ...]
    probes: Mapping[str, tuple[WordProbes, ...]]
    config: SaeBoundConfig

    def __call__(self, saved: Saved) -> list[BoundAnswer]:
        rows = rows_of(open_store(self.location), saved.site, self.concepts)
        codes = [sparse_codes(saved.reader(), own) for own in rows]
        fired = float(sum((own > 0).sum() for own in codes) / sum(map(len, rows)))
        latents = [own.toarray() for own in codes]
        others = list(self._untrained(saved, fired).items())
        return [self._answer(saved, how, fired, rows, latents, others) for how in self.config.codes]

    def _untrained(self, saved: Saved, codes: float) -> Mapping[str, Callable[[np.ndarray], np.ndarray]]:
        reader = saved.untrained(codes, self.config.seed).reader
        directions = saved.directions(codes, self.config.seed).parameters
        return {
            "random_autoencoder": lambda rows: sparse_codes(reader, rows).toarray(),
            "random_directions": lambda rows: pre_activations(directions, torch.from_numpy(rows)).numpy(),
            "dimensions": lambda rows: np.concatenate([rows, -rows], axis=1),
        }

    def _answer(
        self,
        saved: Saved,
        how: CodesAs,
        codes_a_row: float,
        rows: Sequence[np.ndarray],
        latents: Sequence[np.ndarray],
        others: Sequence[tuple[str, Callable[[np.ndarray], np.ndarray]]],
    ) -> BoundAnswer:
        config, probes = self.config, self.probes[saved.site]
        groups, exponential = [one.groups for one in self.concepts], how == "exp"
        return BoundAnswer(
            site=saved.site,
            name=saved.name,
            codes=how,
            codes_a_row=codes_a_row,
            published=published_test(
                [one.published for one in probes],
                latents,
                groups,
                draws=config.draws,
                seed=config.seed,
                exponential=exponential,
            ),
            test=bound_test(
                [one.held_out for one in probes],
                latents,
                groups,
                repeats=config.repeats,
                draws=config.draws,
                seed=config.seed,
                exponential=exponential,
            ),
            controls={
                name: self._beside(saved.site, [read(own) for own in rows], exponential) for name, read in others
            },
        )

    def _beside(self, site: str, latents: Sequence[np.ndarray], exponential: bool) -> Beside:
        probes, config = self.probes[site], self.config
        held_out = held_out_bound(
            [one.held_out for one in probes],
            latents,
            [one.groups for one in self.concepts],
            splits=config.repeats,
            seed=config.seed,
            exponential=exponential,
        )
        return Beside(
            published=upper_bound([one.published for one in probes], latents, exponential=exponential).mean,
            held_out=np.mean([one.correlations for one in held_out], axis=0),
            coverage=float(np.mean([one.coverage for one in held_out])),
        )
