"""The rows of concepts at a site, and what an autoencoder makes of them: what tests of concepts start from.

Every concept has a sample of rows from training, validation and held-out documents, as many of one class as of the
other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from lrh_ray.analyses.sae.reader import Reader
from lrh_ray.analyses.sae.reading import sparse_codes
from lrh_ray.analyses.sae.sparse_probing import LabelledFeatures, latent_scores, mean_differences
from lrh_ray.store.objects import Location
from lrh_ray.store.reader import open_store
from lrh_ray.studies.labelled_rows import LabelledRows, rows_of


@dataclass(frozen=True, kw_only=True)
class Material:
    """The samples of all concepts, of every part of the documents."""

    location: Location
    train: tuple[LabelledRows, ...]
    validation: tuple[LabelledRows, ...]
    held_out: tuple[LabelledRows, ...]

    def read(self, site: str, concepts: Sequence[LabelledRows]) -> list[LabelledFeatures]:
        """The rows of some of them, with one label each."""
        rows = rows_of(open_store(self.location), site, concepts)
        return [
            LabelledFeatures(features=own, labels=one.labels[:, None], documents=one.groups)
            for one, own in zip(concepts, rows, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class SiteProbes:
    """Dense probes of a site, one column a concept: weights [D, C], intercepts [C], training means [C, D]."""

    weights: np.ndarray
    intercepts: np.ndarray
    means: np.ndarray


@dataclass(frozen=True, kw_only=True)
class ConceptCodes:
    """Codes of the training and of the held-out rows of every concept, and what the former say of each latent.

    Rows stand for `codes @ decoder + offset`.
    """

    train: Sequence[csr_array]
    held_out: Sequence[csr_array]
    labels: Sequence[np.ndarray]
    differences: Sequence[np.ndarray]
    decoder: np.ndarray
    offset: np.ndarray

    @classmethod
    def of(
        cls,
        reader: Reader,
        train: Sequence[LabelledFeatures],
        held_out: Sequence[LabelledFeatures],
        *,
        decoder: np.ndarray,
        offset: np.ndarray,
    ) -> "ConceptCodes":
        """Read the rows of all concepts."""
        own = [sparse_codes(reader, one.features) for one in train]
        labels = [one.labels[:, 0] for one in train]
        return cls(
            train=own,
            held_out=[sparse_codes(reader, one.features) for one in held_out],
            labels=labels,
            differences=[mean_differences(codes, of_rows) for codes, of_rows in zip(own, labels, strict=True)],
            decoder=decoder,
            offset=offset,
        )

    def scores(self, number: int, latents: np.ndarray) -> np.ndarray:
        """Held-out log-odds of some latents for a concept."""
        return latent_scores((self.train[number], self.labels[number]), self.held_out[number], latents)
