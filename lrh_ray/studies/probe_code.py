"""Codelengths of a probing study: how soon the labels of the training documents can be told from their rows.

The training documents are sent in portions that double (`analyses.portions`), each by the LDA probes of all portions
before it, all shrinkages and the base rate mixed into one code (`analyses.codelength`). Two passes over a site: moments
of every portion, then bits. Both keep apart groups of documents, so that leaving one out gives an interval.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.codelength import Codelength, CodeState, codelength_from
from lrh_ray.analyses.jackknife import Estimate, jackknife_interval
from lrh_ray.analyses.lda import fit_lda
from lrh_ray.analyses.moments import Moments
from lrh_ray.analyses.portions import NUM_PORTIONS, PortionMoments, Portions
from lrh_ray.analyses.readout import LinearReadout, joined
from lrh_ray.errors import NotEnoughData
from lrh_ray.studies.passes import Ledger
from lrh_ray.studies.probe_design import TRAIN, ProbeDesign
from lrh_ray.studies.probe_passes import Rowset

PASSES = ("moments of portions", "bits of portions")
GROUPS = 16
LEAST = 2
"""Documents of every population in the first portion."""


@dataclass(frozen=True, kw_only=True)
class SiteCode:
    """Uniform over online codelength of one site's label columns [F C], and of the base rate alone [F C]."""

    compression: tuple[Estimate, ...]
    base_rate: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearCode:
    """The probes that code: LDA of every column with every shrinkage."""

    shrinkages: Sequence[float]

    def __call__(self, moments: Moments) -> LinearReadout:
        return joined([fit_lda(moments, shrinkage) for shrinkage in self.shrinkages])


@dataclass(frozen=True, kw_only=True)
class Sender:
    """The training rows of a site, with the portion and the group of their documents [S]."""

    rowset: Rowset
    site: str
    portion: np.ndarray
    num_portions: int

    def rows(self, block: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Rows, labels, members, portions and groups of the training documents of one block."""
        here = self.rowset.block(block)
        train = here.parts == TRAIN
        document = self.rowset.design.document[here.sequence[train]]
        rows = self.rowset.store.block_rows(self.site, block)[train]
        labels = here.labels[train].astype(np.float64)
        return rows, labels, here.members[train], self.portion[document], document % GROUPS


@dataclass(frozen=True, kw_only=True)
class PortionPass:
    """block -> moments of every portion."""

    sender: Sender
    shift: np.ndarray

    def __call__(self, block: int) -> PortionMoments:
        rows, labels, members, portions, _ = self.sender.rows(block)
        design, num = self.sender.rowset.design, self.sender.num_portions
        return PortionMoments.of(rows, self.shift, labels, members, design.populations, portions, num)


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupedCode:
    """Mergeable bits of each group [G, P - 1, K], and its rows and positive ones in every portion [2, G, P, F C]."""

    columns: np.ndarray
    bits: np.ndarray
    counts: np.ndarray

    def merge(self, other: "GroupedCode") -> "GroupedCode":
        return GroupedCode(columns=self.columns, bits=self.bits + other.bits, counts=self.counts + other.counts)

    def of(self, groups: np.ndarray) -> Codelength:
        """The code of some groups of documents."""
        number, positive = self.counts[:, groups].sum(axis=1)[:, :, self.columns]
        bits = self.bits[groups].sum(axis=0)
        return codelength_from(CodeState(columns=self.columns, bits=bits), positive=positive, number=number)

    @property
    def answer(self) -> SiteCode:
        whole = self.of(np.arange(GROUPS))
        without = np.array([_compression(self.of(np.delete(np.arange(GROUPS), group))) for group in range(GROUPS)])
        first = np.unique(self.columns, return_index=True)[1]
        return SiteCode(
            compression=tuple(
                jackknife_interval(float(value), replicates.tolist())
                for value, replicates in zip(_compression(whole), without.T, strict=True)
            ),
            base_rate=(whole.uniform / whole.base_rate)[first],
        )


@dataclass(frozen=True, kw_only=True)
class CodePass:
    """block -> bits and counts of every group; `readouts[s - 1]` are the probes that code portion s."""

    sender: Sender
    readouts: Sequence[LinearReadout]

    def __call__(self, block: int) -> GroupedCode:
        rows, labels, members, portions, groups = self.sender.rows(block)
        design, num = self.sender.rowset.design, self.sender.num_portions
        columns, inside = self.readouts[0].columns, members[:, design.populations]
        bits = np.zeros((GROUPS, num - 1, len(columns)))
        counts = np.zeros((2, GROUPS, num, labels.shape[1]))
        for group in np.unique(groups):
            own = groups == group
            coded = CodeState.of(rows[own], labels[own], members[own], design.populations, portions[own], self.readouts)
            bits[group] = coded.bits
        np.add.at(counts[0], (groups, portions), inside)
        np.add.at(counts[1], (groups, portions), inside * labels)
        return GroupedCode(columns=columns, bits=bits, counts=counts)


def send_labels(
    rowset: Rowset, shifts: Mapping[str, np.ndarray], shrinkages: Sequence[float], num_blocks: int, ledger: Ledger
) -> dict[str, SiteCode]:
    """The codelengths of every site.

    Raises:
        NotEnoughData: Too few training documents for two portions.
    """
    design, blocks = rowset.design, range(num_blocks)
    portion, num = portions_of(design)
    codes = {}
    for site, shift in shifts.items():
        sender = Sender(rowset=rowset, site=site, portion=portion, num_portions=num)
        moments = ledger.reduce(PASSES[0], blocks, PortionPass(sender=sender, shift=shift))
        readouts = moments.readouts(LinearCode(shrinkages=shrinkages))
        codes[site] = ledger.reduce(PASSES[1], blocks, CodePass(sender=sender, readouts=readouts)).answer
    return codes


def portions_of(design: ProbeDesign) -> tuple[np.ndarray, int]:
    """Portion of every document [S], 0 for those that are not sent, and the number of portions: as many as can be.

    Raises:
        NotEnoughData: The first of two portions would lack a population.
    """
    training = np.unique(design.document[design.parts == TRAIN])
    carried = [np.intersect1d(training, design.document[codes >= 0]) for codes in design.codes]
    for num in range(min(NUM_PORTIONS, int(np.log2(max(len(training), 1))) + 1), 1, -1):
        portion = np.zeros(int(design.document.max()) + 1, dtype=np.int64)
        portion[training] = Portions.draw(len(training), design.seed, num).of_document
        if all((portion[documents] == 0).sum() >= LEAST for documents in (training, *carried)):
            return portion, num
    raise NotEnoughData(
        f"{len(training)} training documents cannot be sent in portions that double: the first needs {LEAST} of every "
        "concept. Add documents, or set probe.codelength to false."
    )


def _compression(code: Codelength) -> np.ndarray:
    """Bits of the uniform code over those of the mixture of all probes and the base rate, per column."""
    first = np.unique(code.columns, return_index=True)[1]
    return np.asarray(code.uniform[first] / code.mixture)
