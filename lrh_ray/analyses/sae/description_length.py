"""How many bits a row takes when it is sent as its codes: a minimum description length (Ayonrinde et al. 2410.11179).

Codes a row say little of what a row costs: to say which of a million latents fire takes more than of a thousand, and a
latent that fires half of the time costs a bit a row even where it does not fire. Sent as quantised codes, a row takes

    bits = sum over latents of -log2 P(fires or not)  +  sum over those that fire of -log2 P_d(q),   q = round(z / step)

and is worth the variance that the *quantised* codes explain: a point of rate and distortion for every step.

    counts = merge_tree(CodeCounts.of(symbols(codes, steps)) for ... in training blocks)
    book = CodeBook.of(counts)                                       # the code that both sides agree on
    sums = merge_tree(DescriptionLength.of(rows, QuantisedReader(...), book, ...) for ... in held-out blocks)
    sums.bits(), sums.fvu(), sums.against(gaussian)

The code is made from training rows and its length measured on held-out ones, so that nothing is sent for free; an
entropy of the same rows, as published, is too low by what a table of every latent costs. P(fires) is that of
Krichevsky and Trofimov, (f + 1/2) / (n + 1). P_d(q) are counts of the latent with `BACK_OFF` rows of the counts of all
latents behind them, and behind these 1 / (s (s + 1)) for a symbol never seen. All sum to 1, so a row can really be
sent in these bits, plus 2 at most. The decoder is not counted: it is sent once for all rows.

The step is the same for all latents, in the unit of the rows along their decoder directions: Delta_d = step /
|decoder_d|. Beside it stands what Gaussian rows of the same covariance take at the same distortion, at best:

    R(D) = sum over i of max(0, 1/2 log2(l_i / theta)),    sum over i of min(l_i, theta) = fvu sum l_i

(reverse water-filling; Cover and Thomas, 10.3.3). No linear code beats it on Gaussian rows; codes that do have found
what covariance does not say.

What can go wrong: with fewer training rows than latents most of a table is the back-off, and lengths are too long.

Legend: N rows, M latents, E distinct symbols, G groups of documents.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from lrh_ray.analyses.jackknife import Estimate, jackknife_interval
from lrh_ray.analyses.layouts import GroupIndex
from lrh_ray.analyses.sae.evaluation import ROWS, Reconstruction, fvu_of
from lrh_ray.analyses.sae.reader import Reader
from lrh_ray.analyses.sae.reading import sparse_codes
from lrh_ray.errors import NotEnoughData
from lrh_ray.layouts import Feature64, Rows

SHIFT = 32
"""Bits of a key that hold its symbol."""
BACK_OFF = 4.0
"""Rows that the counts of all latents are worth beside those of one."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class QuantisedReader:
    """An autoencoder whose codes are multiples of a step for each latent [M]."""

    reader: Reader
    steps: Tensor

    def codes(self, rows: Tensor) -> Tensor:
        """Codes [N, M] of rows [N, D]."""
        return torch.round(self.reader.codes(rows) / self.steps) * self.steps

    def decode(self, codes: Tensor, rows: Tensor | None = None) -> Tensor:
        """Rows [N, D] that codes [N, M] stand for."""
        return self.reader.decode(codes, rows)


def steps_of(decoder: np.ndarray, step: float) -> np.ndarray:
    """The step of each latent [M] that moves a reconstruction by `step`, float32."""
    return np.asarray(step / np.maximum(np.linalg.norm(decoder, axis=1), np.finfo(np.float32).tiny), np.float32)


def symbols(codes: csr_array, steps: np.ndarray) -> csr_array:
    """Whole numbers of steps [N, M], as symbols from 1 on: 1, 3, 5 ... for +1, +2, +3, and 2, 4 ... for -1, -2."""
    whole = np.rint(codes.data / steps[codes.indices]).astype(np.int64)
    data = 2 * np.abs(whole) - (whole > 0)
    found = csr_array((data, codes.indices, codes.indptr), shape=codes.shape, copy=True)
    found.eliminate_zeros()  # in place, and so of a copy
    return found


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CodeCounts:
    """Mergeable: how often each latent had each symbol, as sorted keys [E] and counts [E], in how many rows."""

    keys: np.ndarray
    counts: np.ndarray
    rows: int
    latents: int

    @classmethod
    def of(cls, found: csr_array) -> "CodeCounts":
        """Count the symbols [N, M] of one block."""
        keys, counts = np.unique(_keys(found), return_counts=True)
        return cls(keys=keys, counts=counts, rows=found.shape[0], latents=found.shape[1])

    def merge(self, other: "CodeCounts") -> "CodeCounts":
        keys, place = np.unique(np.concatenate([self.keys, other.keys]), return_inverse=True)
        counts = np.bincount(place, np.concatenate([self.counts, other.counts]), minlength=len(keys))
        return CodeCounts(keys=keys, counts=counts.astype(np.int64), rows=self.rows + other.rows, latents=self.latents)

    def of_keys(self, wanted: np.ndarray) -> np.ndarray:
        """How often each of some keys was counted."""
        if not len(self.keys):
            return np.zeros(len(wanted), np.int64)
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.asarray(np.where(self.keys[place] == wanted, self.counts[place], 0))


def _keys(found: csr_array) -> np.ndarray:
    return np.asarray((found.indices.astype(np.int64) << SHIFT) + found.data)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CodeBook:
    """Lengths in bits of silence [M] and of firing [M], and the counts that give those of symbols."""

    silent: np.ndarray
    fires: np.ndarray
    firings: np.ndarray
    """Rows in which each latent fires [M]."""
    counts: CodeCounts
    pooled: CodeCounts
    """The same of all latents together, as if they were one."""

    @classmethod
    def of(cls, counts: CodeCounts) -> "CodeBook":
        """The code of some counts.

        Raises:
            NotEnoughData: They are of no rows.
        """
        if not counts.rows:
            raise NotEnoughData("There are no training rows to make a code from; add documents.")
        firings = np.bincount(counts.keys >> SHIFT, counts.counts, minlength=counts.latents)
        chance = (firings + 0.5) / (counts.rows + 1)
        alone = replace(counts, keys=counts.keys & ((1 << SHIFT) - 1))
        nothing = replace(counts, keys=counts.keys[:0], counts=counts.counts[:0])
        return cls(
            silent=-np.log2(1 - chance),
            fires=-np.log2(chance),
            firings=firings,
            counts=counts,
            pooled=alone.merge(nothing),
        )

    def bits(self, found: csr_array) -> np.ndarray:
        """Length of every row's symbols [N]."""
        each = csr_array((self._of_entries(found), found.indices, found.indptr), shape=found.shape)
        return np.asarray(self.silent.sum() + each.sum(axis=1)).reshape(-1)

    def _of_entries(self, found: csr_array) -> np.ndarray:
        """What every symbol that is not 0 adds to the length of a row of silence."""
        latent, symbol = found.indices, found.data.astype(np.float64)
        unseen = 1 / (symbol * (symbol + 1))
        shared = (self.pooled.of_keys(found.data) + unseen) / (self.firings.sum() + 1)
        chance = (self.counts.of_keys(_keys(found)) + BACK_OFF * shared) / (self.firings[latent] + BACK_OFF)
        return np.asarray(self.fires[latent] - self.silent[latent] - np.log2(chance))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DescriptionLength:
    """Mergeable: bits of every group of documents [G], and what the quantised codes leave unexplained."""

    sums: np.ndarray
    left: Reconstruction

    @classmethod
    def of(
        cls,
        rows: Rows,
        reader: QuantisedReader,
        book: CodeBook,
        centre: Feature64,
        groups: GroupIndex,
        *,
        num_groups: int,
    ) -> "DescriptionLength":
        """Summarise one block: rows [N, D], groups [N]; centre [D] is any, best near the mean."""
        found = symbols(sparse_codes(reader, rows), reader.steps.numpy())
        return cls(
            sums=np.bincount(groups, book.bits(found), minlength=num_groups),
            left=Reconstruction.of(rows, reader, centre, groups, num_groups=num_groups),
        )

    def merge(self, other: "DescriptionLength") -> "DescriptionLength":
        return DescriptionLength(sums=self.sums + other.sums, left=self.left.merge(other.left))

    def bits(self) -> Estimate:
        """Mean length of a row."""
        return self._estimate(lambda bits, _: bits)

    def fvu(self) -> Estimate:
        """Fraction of variance that the quantised codes leave unexplained."""
        return self.left.fvu()

    def against(self, eigenvalues: np.ndarray) -> Estimate:
        """Length of a row, as a multiple of what Gaussian rows with these eigenvalues take at the same FVU."""
        return self._estimate(lambda bits, fvu: over_gaussian(bits, fvu, eigenvalues))

    def _estimate(self, statistic: Callable[[float, float], float]) -> Estimate:
        """A number made of bits a row and FVU, of all rows, jackknifed over the groups that have any."""
        left, bits = self.left, float(self.sums.sum())
        sums, offset = left.sums.sum(axis=0), left.offset.sum(axis=0)

        def stated(own_bits: float, own_sums: np.ndarray, own_offset: np.ndarray) -> float:
            return statistic(own_bits / float(own_sums[ROWS]), fvu_of(own_sums, own_offset))

        without = [
            stated(bits - float(self.sums[g]), sums - left.sums[g], offset - left.offset[g]) for g in left.used.tolist()
        ]
        return jackknife_interval(stated(bits, sums, offset), without)


def over_gaussian(bits: float, fvu: float, eigenvalues: np.ndarray) -> float:
    """Bits of a row over what Gaussian rows take at the same FVU; infinite where nothing is explained."""
    least = gaussian_bits(eigenvalues, fvu)
    return bits / least if least > 0 else float("inf")


def gaussian_bits(eigenvalues: np.ndarray, fvu: float) -> float:
    """The least bits that Gaussian rows with a covariance of these eigenvalues [D] take at a mean error of `fvu`."""
    values = np.sort(np.maximum(eigenvalues, 0.0))
    left = np.cumsum(values) + values * np.arange(len(values) - 1, -1, -1)  # sum of min(l, theta) at theta = l_i
    theta = np.interp(fvu * values.sum(), np.concatenate([[0.0], left]), np.concatenate([[0.0], values]))
    return float(np.log2(values[values > theta] / theta).sum() / 2) if theta > 0 else float("inf")
