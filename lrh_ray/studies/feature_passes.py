"""What workers compute to find features: sums over the text of a store, read through one autoencoder."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.sae.codes import Codes
from lrh_ray.analyses.sae.contrast import TokenContrast
from lrh_ray.analyses.sae.examples import TopExamples
from lrh_ray.analyses.sae.firing import Firing
from lrh_ray.analyses.sae.reader import Reader, codes_by_tile
from lrh_ray.analyses.state import merge_tree
from lrh_ray.layouts import Rows
from lrh_ray.studies.sae_passes import SaeRows

ROWS_AT_ONCE = 8192
"""Rows whose codes are in memory together; a kind without a bound on them may have thousands in each."""


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Of every latent how often it fires, and the rows with its largest codes."""

    firing: Firing
    examples: TopExamples

    def merge(self, other: "Catalogue") -> "Catalogue":
        return Catalogue(firing=self.firing.merge(other.firing), examples=self.examples.merge(other.examples))


@dataclass(frozen=True, kw_only=True)
class CataloguePass:
    """block -> the catalogue of its rows."""

    rows: SaeRows
    sites: tuple[str, ...]
    reader: Reader
    num_latents: int
    num_groups: int
    num_examples: int

    def __call__(self, block: int) -> Catalogue:
        rows, keys = self.rows.keyed(self.sites, block)
        sequences = keys.doc.astype(np.int64)
        return merge_tree(
            Catalogue(
                firing=Firing.of(
                    codes,
                    self.rows.group[sequences[some]],
                    num_latents=self.num_latents,
                    num_groups=self.num_groups,
                ),
                examples=TopExamples.of(
                    codes, keys.index[some], sequences[some], num_latents=self.num_latents, num=self.num_examples
                ),
            )
            for some, codes in _sparse(self.reader, rows)
        )


def _sparse(reader: Reader, rows: Rows) -> Iterator[tuple[slice, Codes]]:
    for first in range(0, max(len(rows), 1), ROWS_AT_ONCE):
        some = slice(first, first + ROWS_AT_ONCE)
        yield some, Codes.joined([Codes.of(dense) for _, dense in codes_by_tile(reader, rows[some])])


@dataclass(frozen=True, kw_only=True)
class TokenPass:
    """block -> codes on the rows of a token, beside shuffled rows of the same texts."""

    rows: SaeRows
    sites: tuple[str, ...]
    reader: Reader
    token_id: int
    num_groups: int
    draws: int
    seed: int

    def __call__(self, block: int) -> TokenContrast:
        rows, keys = self.rows.keyed(self.sites, block)
        sequences = keys.doc.astype(np.int64)
        return TokenContrast.of(
            rows,
            self.reader,
            keys.token_id == self.token_id,
            sequences,
            self.rows.group[sequences],
            num_groups=self.num_groups,
            draws=self.draws,
            rng=np.random.default_rng([self.seed, block]),
        )
