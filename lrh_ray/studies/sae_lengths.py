"""Description lengths as passes over the store: codes counted in the training documents, sent in those held out.

Documents are dealt as `lrh sae` dealt them: where the store is the one that the autoencoders were trained on, no row
that is sent has trained them. Every autoencoder and one of random directions, with as many codes a row, are counted at
all steps in one reading of a site, and measured in another.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from lrh_ray.analyses.sae.description_length import (
    CodeBook,
    CodeCounts,
    DescriptionLength,
    QuantisedReader,
    steps_of,
    symbols,
)
from lrh_ray.analyses.sae.reader import Reader
from lrh_ray.analyses.sae.reading import sparse_codes
from lrh_ray.analyses.state import SideBySide
from lrh_ray.errors import NotEnoughData
from lrh_ray.runtime.reduce import reduce_blocks
from lrh_ray.studies.sae_config import SaeConfig
from lrh_ray.studies.sae_evaluation_parts import Evaluation, mean_codes
from lrh_ray.studies.sae_passes import TRAINING, SaeRows, UnitPass
from lrh_ray.studies.sae_saved import Saved
from lrh_ray.studies.sae_study import dealt_rows

STEPS = (0.02, 0.05, 0.1, 0.2)
"""Of quantised codes, in units of the root mean square distance of a site's rows from their mean."""


@dataclass(frozen=True, kw_only=True)
class Sender:
    """One autoencoder at one step: whose, and the reader with its quantised codes."""

    saved: Saved
    random: bool
    step: float
    reader: QuantisedReader


@dataclass(frozen=True, kw_only=True)
class SiteLengths:
    """A site: eigenvalues of the covariance of its held-out rows [D], and what each sender takes."""

    eigenvalues: np.ndarray
    lengths: tuple[tuple[Sender, DescriptionLength], ...]


@dataclass(frozen=True, kw_only=True)
class CountPass:
    """block -> counts of the symbols of every sender in training rows."""

    rows: SaeRows
    site: str
    senders: tuple[Sender, ...]

    def __call__(self, block: int) -> SideBySide[CodeCounts]:
        rows, group = self.rows.block(self.site, block)
        own = rows[group == TRAINING]
        return SideBySide(of=tuple(self._counts(own)))

    def _counts(self, rows: np.ndarray) -> Iterator[CodeCounts]:
        """Codes are computed once for all steps of a reader, which follow one another."""
        reader: Reader | None = None
        for sender in self.senders:
            if sender.reader.reader is not reader:
                reader = sender.reader.reader
                codes = sparse_codes(reader, rows)
            yield CodeCounts.of(symbols(codes, sender.reader.steps.numpy()))


@dataclass(frozen=True, kw_only=True)
class LengthPass:
    """block -> bits and errors of every sender in held-out rows."""

    rows: SaeRows
    site: str
    senders: tuple[Sender, ...]
    books: tuple[CodeBook, ...]
    centre: np.ndarray
    num_groups: int

    def __call__(self, block: int) -> SideBySide[DescriptionLength]:
        rows, group = self.rows.block(self.site, block)
        own, groups = rows[group != TRAINING], group[group != TRAINING]
        return SideBySide(
            of=tuple(
                DescriptionLength.of(own, sender.reader, book, self.centre, groups, num_groups=self.num_groups)
                for sender, book in zip(self.senders, self.books, strict=True)
            )
        )


def site_lengths(asked: Evaluation, site: str) -> SiteLengths:
    """Two passes over a site, after one for its unit.

    Raises:
        NotEnoughData: Too few documents for the groups of the jackknife, or rows that are not finite.
    """
    config = _dealing(asked)
    rows = dealt_rows(config, asked.store)
    blocks = range(asked.store.plan.num_blocks)
    shift = asked.store.block_rows(site, 0).astype(np.float64).mean(axis=0)
    moments = reduce_blocks(blocks, UnitPass(rows=rows, site=site, shift=shift))
    try:
        training, held_out = moments.only(0), moments.only(1)
    except NotEnoughData as error:
        raise NotEnoughData(f"Site {site!r}: {error}") from error
    scale = float(np.sqrt(np.trace(training.xx)))
    senders = tuple(_senders(asked, site, scale))
    counts = reduce_blocks(blocks, CountPass(rows=rows, site=site, senders=senders)).of
    lengths = reduce_blocks(
        blocks,
        LengthPass(
            rows=rows,
            site=site,
            senders=senders,
            books=tuple(map(CodeBook.of, counts)),
            centre=training.mean_x,
            num_groups=config.groups,
        ),
    ).of
    return SiteLengths(eigenvalues=np.linalg.eigvalsh(held_out.xx), lengths=tuple(zip(senders, lengths, strict=True)))


def _dealing(asked: Evaluation) -> SaeConfig:
    """How `lrh sae` dealt documents: held-out fraction, groups, sinks and seed of its result."""
    told = asked.saved.result.resolved
    return replace(SaeConfig(), **{name: told[name] for name in ("held_out", "groups", "sinks", "seed")})  # type: ignore[arg-type]


def _senders(asked: Evaluation, site: str, scale: float) -> Iterator[Sender]:
    for saved in asked.saved.autoencoders:
        if saved.site == site:
            untrained = saved.untrained(mean_codes(asked.saved, saved), asked.config.seed)
            pairs: tuple[tuple[bool, Reader, np.ndarray], ...] = (
                (False, saved.reader(), saved.decoder),
                (True, untrained.reader, untrained.decoder),
            )
            for random, reader, decoder in pairs:
                for step in STEPS:
                    steps = torch.from_numpy(steps_of(decoder, step * scale))
                    quantised = QuantisedReader(reader=reader, steps=steps)
                    yield Sender(saved=saved, random=random, step=step, reader=quantised)
