"""What workers compute of concepts: the dense probes of a site; few latents of an autoencoder, read and taken out.

Training rows choose latents and fit probes, validation rows choose the penalty of the dense probes, and every number is
of held-out rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.intervals import DocumentBootstrap, Sample
from lrh_ray.analyses.metrics import accuracy
from lrh_ray.analyses.readout import LinearReadout
from lrh_ray.analyses.sae.sparse_probing import (
    LabelledFeatures,
    beside,
    best_latents,
    dense_probes,
    random_latents,
)
from lrh_ray.errors import LrhError
from lrh_ray.studies.sae_concept_codes import ConceptCodes, Material, SiteProbes
from lrh_ray.studies.sae_evaluation_config import SaeEvaluationConfig
from lrh_ray.studies.sae_perturbation import Perturbation, Perturbed
from lrh_ray.studies.sae_saved import Saved

PENALTIES = (1e-2, 1e-1, 1.0)
RANDOM_DRAWS = 5
"""Draws of random latents whose numbers are averaged."""


@dataclass(frozen=True, kw_only=True)
class SparseFinding:
    """One concept: accuracy of probes of the best latents, each of K sizes, and last of the dense probe."""

    latents: np.ndarray
    accuracy: Sample
    random_latents: np.ndarray
    """[K] means over draws."""
    random_autoencoder: np.ndarray


@dataclass(frozen=True, kw_only=True)
class ConceptFinding:
    """Everything about one autoencoder: of each concept, and with latents taken out of rows and reconstructions."""

    saved: Saved
    sparse: Sequence[SparseFinding]
    perturbations: Mapping[str, Perturbation]


@dataclass(frozen=True, kw_only=True)
class DenseTask:
    """site -> dense probes of all concepts."""

    material: Material

    def __call__(self, site: str) -> SiteProbes:
        train, validation = (self.material.read(site, own) for own in (self.material.train, self.material.validation))
        names = [one.name for one in self.material.train]
        probes = [self._probe(*both) for both in zip(names, train, validation, strict=True)]
        return SiteProbes(
            weights=np.concatenate([one.weights for one in probes], axis=1),
            intercepts=np.concatenate([one.intercepts for one in probes]),
            means=np.stack([own.features.mean(axis=0) for own in train]).astype(np.float64),
        )

    @staticmethod
    def _probe(name: str, train: LabelledFeatures, validation: LabelledFeatures) -> LinearReadout:
        try:
            return dense_probes(train, validation, PENALTIES)
        except LrhError as error:
            raise type(error)(f"Concept {name!r}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class ConceptTask:
    """An autoencoder and its mean number of codes -> what its latents do for concepts."""

    material: Material
    probes: Mapping[str, SiteProbes]
    config: SaeEvaluationConfig

    def __call__(self, asked: tuple[Saved, float]) -> ConceptFinding:
        (saved, codes), material = asked, self.material
        train, held_out = material.read(saved.site, material.train), material.read(saved.site, material.held_out)
        untrained = saved.untrained(codes, self.config.seed)
        own = ConceptCodes.of(saved.reader(), train, held_out, decoder=saved.decoder, offset=saved.offset)
        random = ConceptCodes.of(untrained.reader, train, held_out, decoder=untrained.decoder, offset=saved.offset)
        sparse, perturbations = list[SparseFinding](), dict[str, Perturbation]()
        if "sparse_probing" in self.config.tests:
            sparse = [self._sparse(saved.site, number, rows, own, random) for number, rows in enumerate(held_out)]
        if "perturbation" in self.config.tests and len(train) > 1:
            perturbations = Perturbed(probes=self.probes[saved.site], rows=held_out, config=self.config).found(
                own, random
            )
        return ConceptFinding(saved=saved, sparse=sparse, perturbations=perturbations)

    def _sparse(
        self, site: str, number: int, rows: LabelledFeatures, own: ConceptCodes, random: ConceptCodes
    ) -> SparseFinding:
        sizes, most, probes = self.config.sizes, self.config.sizes[-1], self.probes[site]
        order, others = best_latents(own.differences[number], most), best_latents(random.differences[number], most)
        rng = np.random.default_rng([self.config.seed, 8, number])
        by_chance = [random_latents(own.train[number], most, rng) for _ in range(RANDOM_DRAWS)]
        scores = [
            *(own.scores(number, order[:size]) for size in sizes),
            rows.features.astype(np.float64) @ probes.weights[:, number] + probes.intercepts[number],
            *(random.scores(number, others[:size]) for size in sizes),
            *(own.scores(number, latents[:size]) for latents in by_chance for size in sizes),
        ]
        held_out = beside(np.stack(scores, axis=1), np.zeros(len(scores), np.int64), rows)
        bootstrap = DocumentBootstrap(draws=self.config.draws, seed=self.config.seed)
        found = bootstrap.apply(lambda weights: accuracy(held_out, 0.0, weights), held_out.num_documents)
        num, rest = len(sizes), found.estimates[len(sizes) + 1 :]
        return SparseFinding(
            latents=order,
            accuracy=Sample(estimates=found.estimates[: num + 1], draws=found.draws[:, : num + 1]),
            random_latents=rest[num:].reshape(RANDOM_DRAWS, num).mean(axis=0),
            random_autoencoder=rest[:num],
        )
