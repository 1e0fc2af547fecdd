"""Absorption as findings: how often a letter's latents are silent on its words and another latent takes over.

Words are dealt into those that fit probes and choose main latents, those that choose a penalty, and those that are
judged. All of it is done again with the letters of all words shuffled, and with an autoencoder of random directions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.special import logit

from lrh_ray.analyses.readout import LinearReadout
from lrh_ray.analyses.sae.absorption import absorption, main_latents
from lrh_ray.analyses.sae.reading import sparse_codes
from lrh_ray.analyses.sae.sparse_probing import LabelledFeatures, dense_probes
from lrh_ray.store.objects import Location
from lrh_ray.store.reader import open_store
from lrh_ray.studies.first_letters import Words
from lrh_ray.studies.sae_saved import Saved
from lrh_ray.studies.stored_rows import rows_at

FIT, CHOOSE, JUDGE = 0, 1, 2
SHARES = (0.5, 0.2, 0.3)
"""Of the words, for each of these."""
PENALTIES = (1e-2, 1e-1, 1.0)
LEAST_WORDS = 8
"""Of a letter, in each part; letters with fewer are left out."""


@dataclass(frozen=True, kw_only=True)
class Spelling:
    """The task: words, the part of each [W], and the letters that have enough of them."""

    words: Words
    part: np.ndarray
    letters: tuple[str, ...]

    @classmethod
    def of(cls, words: Words, seed: int) -> "Spelling":
        """Deal words at random."""
        ends = np.cumsum(SHARES)[:-1] * len(words.words)
        place = np.random.default_rng([seed, 11]).permutation(len(words.words))
        part, letters = np.searchsorted(ends, place, side="right"), words.letters
        enough = [
            letter
            for letter in np.unique(letters).tolist()
            if all((part[letters == letter] == one).sum() >= LEAST_WORDS for one in (FIT, CHOOSE, JUDGE))
        ]
        return cls(words=words, part=part, letters=tuple(enough))

    def labels(self, rng: np.random.Generator | None = None) -> np.ndarray:
        """0/1 of every letter [W, L]; shuffled among the words of each part, if with a generator."""
        own = self.words.letters
        if rng is not None:
            for part in (FIT, CHOOSE, JUDGE):
                inside = np.flatnonzero(self.part == part)
                own[inside] = rng.permutation(own[inside])
        return np.asarray(own[:, None] == np.array(self.letters), dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class LetterCounts:
    """Of every letter [L]: words judged that its probe is right about, those without a main latent, those absorbed."""

    main: np.ndarray
    """How many main latents it has."""
    right: np.ndarray
    missed: np.ndarray
    absorbed: np.ndarray


@dataclass(frozen=True, kw_only=True)
class AbsorptionFinding:
    """One autoencoder, the same with shuffled letters, and one of random directions."""

    saved: Saved
    own: LetterCounts
    shuffled: LetterCounts
    random: LetterCounts


@dataclass(frozen=True, kw_only=True)
class AbsorptionTask:
    """An autoencoder and its mean number of codes -> its absorption."""

    location: Location
    spelling: Spelling
    seed: int

    def __call__(self, asked: tuple[Saved, float]) -> AbsorptionFinding:
        saved, mean = asked
        rows = rows_at(open_store(self.location), saved.site, self.spelling.words.index).astype(np.float32)
        untrained = saved.untrained(mean, self.seed)
        codes, random = sparse_codes(saved.reader(), rows), sparse_codes(untrained.reader, rows)
        labels = self.spelling.labels()
        shuffled = self.spelling.labels(np.random.default_rng([self.seed, 12]))
        probes, blind = self._probes(rows, labels), self._probes(rows, shuffled)
        decoder, directions = saved.decoder, untrained.decoder
        return AbsorptionFinding(
            saved=saved,
            own=self._counts(rows - saved.offset, codes, labels, probes, decoder, saved.offset),
            shuffled=self._counts(rows - saved.offset, codes, shuffled, blind, decoder, saved.offset),
            random=self._counts(rows - saved.offset, random, labels, probes, directions, saved.offset),
        )

    def _probes(self, rows: np.ndarray, labels: np.ndarray) -> LinearReadout:
        fit, choose = (self._part(rows, labels, part) for part in (FIT, CHOOSE))
        return dense_probes(fit, choose, PENALTIES)

    def _part(self, rows: np.ndarray, labels: np.ndarray, part: int) -> LabelledFeatures:
        """Words of one part; each stands for itself."""
        own = np.flatnonzero(self.spelling.part == part)
        return LabelledFeatures(features=rows[own], labels=labels[own], documents=own)

    def _counts(
        self,
        centred: np.ndarray,
        codes: csr_array,
        labels: np.ndarray,
        probes: LinearReadout,
        decoder: np.ndarray,
        offset: np.ndarray,
    ) -> LetterCounts:
        fit, judged = (np.flatnonzero(self.spelling.part == part) for part in (FIT, JUDGE))
        scores = centred[judged].astype(np.float64) @ probes.weights + probes.intercepts + offset @ probes.weights
        called, fitted = scores > logit(labels[fit].mean(axis=0)), codes[fit]
        found = []
        for number in range(labels.shape[1]):
            main = main_latents(fitted, labels[fit, number])
            right = judged[(labels[judged, number] > 0.5) & called[:, number]] if len(main) else judged[:0]
            weights = probes.weights[:, number]
            direction = weights / np.linalg.norm(weights)
            own = absorption(codes[right], centred[right].astype(np.float64) @ direction, main, decoder, direction)
            found.append((len(main), len(right), int(own.missed.sum()), int(own.absorbed.sum())))
        return _counted(found)


def _counted(found: Sequence[tuple[int, int, int, int]]) -> LetterCounts:
    main, right, missed, absorbed = np.array(found, dtype=np.int64).reshape(-1, 4).T
    return LetterCounts(main=main, right=right, missed=missed, absorbed=absorbed)
