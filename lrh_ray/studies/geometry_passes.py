"""What workers compute for the geometry study: sums of one block, and what tokens add in a few documents."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.geometry import UnitGrams, select_context, token_gains
from lrh_ray.layouts import Rows
from lrh_ray.studies.geometry_config import GeometryConfig
from lrh_ray.studies.geometry_records import CONTEXTS, SiteGains, SiteScale
from lrh_ray.studies.places import Place


@dataclass(frozen=True, kw_only=True)
class GeometryRows:
    """Which rows of a store belong to which group of documents, and to which value of a concept."""

    place: Place
    sinks: Place
    """The store whose attention sinks are left out: that of the trained model for its untrained twin too, so that both
    are measured on the same tokens."""
    config: GeometryConfig
    groups: np.ndarray
    """[sequences] group of the jackknife."""
    codes: np.ndarray
    """[sequences] value of the concept `by`, the last number where a document has none."""
    num_codes: int

    @property
    def num_groups(self) -> int:
        return self.config.groups * self.num_codes

    def kept(self, block: int) -> np.ndarray:
        """Which rows of a block stand for text, without sinks if they are to be left out."""
        keys = self.place.open().keys(block)
        kept = keys.char_end > keys.char_start
        return kept & ~self.sinks.open().sink_mask(block) if self.config.sinks == "drop" else kept

    def block(self, site: str, block: int) -> tuple[Rows, np.ndarray]:
        """Those rows, and the number of group and value of each."""
        store, kept = self.place.open(), self.kept(block)
        sequence = store.keys(block).doc[kept].astype(np.int64)
        return store.block_rows(site, block)[kept], self.groups[sequence] * self.num_codes + self.codes[sequence]


@dataclass(frozen=True, kw_only=True, slots=True)
class RowSums:
    """Sum of rows, of their squared lengths, and how many."""

    total: np.ndarray
    squares: float
    rows: int

    def merge(self, other: "RowSums") -> "RowSums":
        return RowSums(
            total=self.total + other.total, squares=self.squares + other.squares, rows=self.rows + other.rows
        )

    @property
    def mean(self) -> np.ndarray:
        return np.asarray(self.total / max(1, self.rows))

    @property
    def mean_square(self) -> float:
        """Mean squared length of the centred rows."""
        return float(self.squares / max(1, self.rows) - self.mean @ self.mean)


@dataclass(frozen=True, kw_only=True)
class SumPass:
    """block -> sums of the rows of one site."""

    rows: GeometryRows
    site: str

    def __call__(self, block: int) -> RowSums:
        rows, _ = self.rows.block(self.site, block)
        x = rows.astype(np.float64)
        return RowSums(total=x.sum(axis=0), squares=float(np.einsum("nd,nd->", x, x)), rows=len(x))


@dataclass(frozen=True, kw_only=True)
class GramPass:
    """block -> inner products of the directions of one site's rows, by group."""

    rows: GeometryRows
    site: str
    mean: np.ndarray

    def __call__(self, block: int) -> UnitGrams:
        rows, groups = self.rows.block(self.site, block)
        return UnitGrams.of(rows, self.mean, groups=groups, num_groups=self.rows.num_groups)


@dataclass(frozen=True, kw_only=True)
class GainTask:
    """Measures at one site what each token adds to those before it, in some documents."""

    rows: GeometryRows
    sequences: Sequence[int]

    def __call__(self, scale: SiteScale) -> SiteGains:
        config = self.rows.config
        texts = [self._document(scale, sequence) for sequence in self.sequences]
        shape = (2, len(texts), len(CONTEXTS))
        information, ridge = np.full(shape, np.nan), np.full(shape, np.nan)
        lasso = np.full((2, len(texts), config.selected), np.nan)
        for number, own in enumerate(texts):
            other = texts[(number + 1) % len(texts)]
            for source, context in enumerate((own, other)):
                length = min(len(own), len(context))
                found = token_gains(own[:length], config.penalty, context)
                for column, (first, stop) in enumerate(CONTEXTS):
                    if length > first:
                        information[source, number, column] = found.information[first:stop].mean()
                        ridge[source, number, column] = found.unexplained[first:stop].mean()
                if length > config.selected:
                    chosen = select_context(context[: length - 1], own[length - 1], config.selected)
                    lasso[source, number, : len(chosen.unexplained)] = chosen.unexplained
        groups = self.rows.groups[np.asarray(self.sequences)]
        return SiteGains(information=information, ridge=ridge, lasso=lasso, groups=groups)

    def _document(self, scale: SiteScale, sequence: int) -> np.ndarray:
        """The first rows of a document, centred, of mean squared length 1 over the corpus."""
        store = self.rows.place.open()
        block = int(store.plan.block_of_sequence[sequence])
        inside = self.rows.kept(block) & (store.keys(block).doc == sequence)
        rows = store.block_rows(scale.site, block)[inside][: self.rows.config.gain_tokens]
        return np.asarray((rows.astype(np.float64) - scale.mean) / np.sqrt(scale.mean_square))
