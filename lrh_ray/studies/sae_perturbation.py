"""Latents of one concept taken out of the rows of all: what a worker computes of targeted probe perturbation.

`rows` keeps the error of the autoencoder, as published: what latents add is taken from the rows as they are.
`reconstructions` reads what the codes alone stand for. Beside the latents chosen stand random ones, those chosen from
an autoencoder of random directions, and (of rows) the probe's own direction, which is the most that can be taken out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.intervals import DocumentBootstrap
from lrh_ray.analyses.sae.perturbation import accuracies, effects, erased_parts, parts, reconstructed, strongest
from lrh_ray.analyses.sae.sparse_probing import LabelledFeatures, random_latents
from lrh_ray.studies.sae_concept_codes import ConceptCodes, SiteProbes
from lrh_ray.studies.sae_evaluation_config import SaeEvaluationConfig

CHOSEN, RANDOM_LATENTS, RANDOM_AUTOENCODER, DIRECTION = (
    "chosen",
    "random_latents",
    "random_autoencoder",
    "probe_direction",
)

PerConcept = Sequence[np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """Accuracies before [C] and drops [B + 1, C, C], the first from the data as they are; by what was taken out.

    Row i of a drop is the concept whose latents are out, column j the probe.
    """

    before: np.ndarray
    drops: Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Perturbed:
    """Takes latents out of the held-out rows of one site."""

    probes: SiteProbes
    rows: Sequence[LabelledFeatures]
    config: SaeEvaluationConfig

    def found(self, own: ConceptCodes, random: ConceptCodes) -> dict[str, Perturbation]:
        """From rows as they are, and from reconstructions."""
        rng = np.random.default_rng([self.config.seed, 9])
        by_chance = [random_latents(codes, self.config.sizes[-1], rng) for codes in own.train]
        lost = {
            CHOSEN: self._parts(own, self._strongest(own)),
            RANDOM_LATENTS: self._parts(own, by_chance),
            RANDOM_AUTOENCODER: self._parts(random, self._strongest(random)),
        }
        rows, rebuilt, other = self._scores(), self._rebuilt(own), self._rebuilt(random)
        return {
            "rows": self._perturbation(
                dict.fromkeys(lost, rows) | {DIRECTION: rows}, lost | {DIRECTION: self._erased()}
            ),
            "reconstructions": self._perturbation(dict.fromkeys(lost, rebuilt) | {RANDOM_AUTOENCODER: other}, lost),
        }

    def _scores(self) -> PerConcept:
        """Of every concept the scores of its own probe on its rows [N]."""
        weights, intercepts = self.probes.weights, self.probes.intercepts
        return [one.features.astype(np.float64) @ weights[:, j] + intercepts[j] for j, one in enumerate(self.rows)]

    def _rebuilt(self, codes: ConceptCodes) -> PerConcept:
        """The same on reconstructions."""
        weights, intercepts = self.probes.weights, self.probes.intercepts
        return [
            reconstructed(own, codes.decoder, codes.offset, weights[:, [j]])[:, 0] + intercepts[j]
            for j, own in enumerate(codes.held_out)
        ]

    def _strongest(self, codes: ConceptCodes) -> PerConcept:
        """The latents of every concept."""
        return [
            strongest(effects(differences, codes.decoder, self.probes.weights[:, i]), self.config.sizes[-1])
            for i, differences in enumerate(codes.differences)
        ]

    def _parts(self, codes: ConceptCodes, latents: PerConcept) -> PerConcept:
        """Of every concept j [N, C]: what the latents of each concept i add to the score of probe j on its rows."""
        weights = self.probes.weights
        return [
            np.concatenate([parts(own, chosen, codes.decoder, weights[:, [j]]) for chosen in latents], axis=1)
            for j, own in enumerate(codes.held_out)
        ]

    def _erased(self) -> PerConcept:
        """The same of the directions of the probes, from the means of their training rows."""
        weights, num = self.probes.weights, len(self.rows)
        at_means = np.einsum("cd,dc->c", self.probes.means, weights)
        found = []
        for j, one in enumerate(self.rows):
            centred = one.features.astype(np.float64) @ weights - at_means
            found.append(np.stack([erased_parts(centred[:, i], i, weights)[:, j] for i in range(num)], axis=1))
        return found

    def _perturbation(self, base: Mapping[str, PerConcept], lost: Mapping[str, PerConcept]) -> Perturbation:
        found = {what: self._drops(base[what], out) for what, out in lost.items()}
        return Perturbation(before=found[CHOSEN][0], drops={what: drops for what, (_, drops) in found.items()})

    def _drops(self, base: PerConcept, lost: PerConcept) -> tuple[np.ndarray, np.ndarray]:
        """Accuracies before [C], and drops [B + 1, C, C]; the same draws of documents for all concepts."""
        names, every = np.unique(np.concatenate([one.documents for one in self.rows]), return_inverse=True)
        documents = np.split(every, np.cumsum([len(one.documents) for one in self.rows])[:-1])
        bootstrap = DocumentBootstrap(draws=self.config.draws, seed=self.config.seed)
        weights = np.concatenate([np.ones((1, len(names))), bootstrap.weights(len(names))])
        before, drops = [], []
        for one, own, intact, out in zip(self.rows, documents, base, lost, strict=True):
            scores = np.column_stack([intact, intact[:, None] - out])
            found = accuracies(scores, one.labels[:, 0], own, weights)
            before.append(found[0, 0])
            drops.append(found[:, :1] - found[:, 1:])
        return np.array(before), np.stack(drops, axis=2)
