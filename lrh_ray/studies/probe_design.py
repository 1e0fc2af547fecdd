"""Which rows carry which labels, for which purpose: the design of a probing study.

Documents, never tokens, are dealt into training, validation (choice of penalty) and held-out parts, evenly within each
combination of document labels. Every concept becomes label columns: a token-level concept one, a document-level
concept one per value (one in all when there are two). Each column has a shuffled twin, permuted at the level at which
its concept varies, inside each part, and on request a control task, whose labels a probe can only remember. A design is
small and picklable; workers build the labels of a block from it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from lrh_ray.analyses.controls import shuffle_labels
from lrh_ray.analyses.selectivity import control_labels
from lrh_ray.errors import NotEnoughData, UnknownName
from lrh_ray.records import Concept
from lrh_ray.store.documents import Labels
from lrh_ray.store.reader import Store
from lrh_ray.studies.probe_config import ProbeConfig

Part: TypeAlias = Literal[0, 1, 2]
TRAIN: Part = 0
VALIDATION: Part = 1
HELD_OUT: Part = 2
PARTS: tuple[Part, ...] = (TRAIN, VALIDATION, HELD_OUT)
GOLDEN = 0.6180339887498949


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One label column: rows where `concept` has `value`, within the rows of its population."""

    name: str
    concept: str
    value: str
    level: Literal["token", "document"]
    population: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Omitted:
    """A concept, or a value of one, that is not probed, and why."""

    concept: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ProbeDesign:
    """Columns and parts of a study. Arrays are indexed by stored sequence.

    Population 0 holds every row that stands for text; population p > 0 the rows of documents that carry the p-th
    document-level concept. `codes[p - 1]` is the value index per sequence, -1 where the concept is absent;
    `shuffled_codes` is its permutation among the documents of each part.
    """

    columns: tuple[Column, ...]
    omitted: tuple[Omitted, ...]
    document_concepts: tuple[str, ...]
    parts: np.ndarray
    document: np.ndarray
    codes: np.ndarray
    shuffled_codes: np.ndarray
    values: tuple[tuple[str, ...], ...]
    sinks: Literal["drop", "keep"]
    seed: int
    rates: np.ndarray | None = None
    """Share of positive rows of each column [C], at which control tasks are drawn; None: there are none."""

    @property
    def num_populations(self) -> int:
        return 1 + len(self.document_concepts)

    @property
    def families(self) -> tuple[str, ...]:
        """What label columns there are, each family with one column for each of `columns`."""
        return ("true", "shuffled") if self.rates is None else ("true", "shuffled", "control task")

    def task_seed(self, column: int) -> int:
        """Names the random classes of a column's control task."""
        return self.seed + column

    @property
    def populations(self) -> np.ndarray:
        """Population of each label column, family after family [F C]."""
        own = np.array([column.population for column in self.columns], dtype=np.int64)
        return np.tile(own, len(self.families))

    @property
    def levels(self) -> list[Literal["token", "document"]]:
        return [column.level for column in self.columns] * len(self.families)

    @property
    def names(self) -> tuple[str, ...]:
        true = tuple(column.name for column in self.columns)
        return true + tuple(f"{name} ({family})" for family in self.families[1:] for name in true)


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockLabels:
    """Labels of one block's valid rows: [N, F C] uint8 0/1, members [N, P], and the part of every row."""

    labels: np.ndarray
    members: np.ndarray
    parts: np.ndarray
    sequence: np.ndarray
    index: np.ndarray
    token_id: np.ndarray
    position: np.ndarray


def make_design(store: Store, labels: Labels, config: ProbeConfig) -> ProbeDesign:
    """Choose columns and parts.

    Raises:
        UnknownName: A concept asked for does not exist in the store's labels.
        NotEnoughData: No concept can be probed.
    """
    wanted = _wanted(labels, config.concepts)
    ids, document = np.unique(np.asarray(store.document_ids), return_inverse=True)
    codes = {name: labels.document_codes(name) for name in wanted if labels.concepts[name].level == "document"}
    parts = _deal(document, list(codes.values()), config)
    if len(np.unique(parts)) < len(PARTS):
        raise NotEnoughData(f"{len(ids)} documents cannot be dealt into {len(PARTS)} parts; add documents to the text.")
    dealt = _Dealt(parts=parts, document=document, ids=ids, least=config.min_documents)
    omitted: list[Omitted] = []
    probed: dict[str, np.ndarray] = {}
    for name, own in codes.items():
        kept, scarce = dealt.without_scarce(own, labels.concepts[name])
        omitted.extend(scarce)
        if len(np.unique(kept[kept >= 0])) >= 2:
            probed[name] = kept
    token_level = [labels.concepts[name] for name in wanted if name not in codes]
    tokens = {concept.name: list(dealt.plentiful(labels, concept, omitted)) for concept in token_level}
    columns = tuple(_columns(wanted, labels, probed, tokens))
    if not columns:
        reasons = "; ".join(f"{entry.concept}: {entry.reason}" for entry in omitted) or "the store has no labels"
        raise NotEnoughData(f"No concept can be probed ({reasons}). Add documents, or concepts to text.concepts.")
    stacked = np.array(list(probed.values()), dtype=np.int64).reshape(len(probed), len(parts))
    return ProbeDesign(
        columns=columns,
        omitted=tuple(omitted),
        document_concepts=tuple(probed),
        parts=parts,
        document=document,
        codes=stacked,
        shuffled_codes=_shuffle_codes(stacked, parts, document, config.seed),
        values=tuple(labels.concepts[name].values for name in probed),
        sinks=config.sinks,
        seed=config.seed,
    )


def _wanted(labels: Labels, asked: Sequence[str]) -> list[str]:
    names = sorted(labels.concepts)
    for name in asked:
        if name != "all" and name not in labels.concepts:
            raise UnknownName(f"No concept {name!r} in this store. Known: {', '.join(names) or 'none'}.")
    return names if "all" in asked else [name for name in names if name in asked]


def _deal(document: np.ndarray, codes: Sequence[np.ndarray], config: ProbeConfig) -> np.ndarray:
    """Part of every sequence: a low-discrepancy sequence over documents sorted by their labels, shuffled within."""
    first = np.unique(document, return_index=True)[1]
    order = np.random.default_rng([config.seed, 1]).permutation(len(first))
    ranked = order[np.lexsort([own[first][order] for own in codes])] if codes else order
    position = np.empty(len(first), dtype=np.int64)
    position[ranked] = np.arange(len(first))
    share = ((position + 0.5) * GOLDEN) % 1
    part = np.where(share < config.held_out, HELD_OUT, np.where(share < 1.5 * config.held_out, VALIDATION, TRAIN))
    return np.asarray(part[document], dtype=np.int8)


@dataclass(frozen=True, kw_only=True)
class _Dealt:
    """Documents in their parts, and how many of them a class needs in each."""

    parts: np.ndarray
    document: np.ndarray
    ids: np.ndarray
    least: int

    def scarce(self, sequences: np.ndarray) -> str | None:
        """Why a class carried by these sequences cannot be probed; None if it can."""
        counts = [len(np.unique(self.document[sequences & (self.parts == part)])) for part in PARTS]
        if min(counts) >= self.least:
            return None
        return (
            f"{counts[0]} training, {counts[1]} validation, {counts[2]} held-out documents; {self.least} needed in each"
        )

    def without_scarce(self, codes: np.ndarray, concept: Concept) -> tuple[np.ndarray, list[Omitted]]:
        """Codes with -1 for values that too few documents carry, and a note for each of them."""
        kept, omitted = codes.copy(), []
        for code, value in enumerate(concept.values):
            reason = self.scarce(codes == code)
            if reason is not None:
                kept[codes == code] = -1
                omitted.append(Omitted(concept=f"{concept.name}={value}", reason=reason))
        return kept, omitted

    def plentiful(self, labels: Labels, concept: Concept, omitted: list[Omitted]) -> Iterator[str]:
        """Values of a token-level concept that enough documents show; the others are noted."""
        for value in concept.values:
            shown = np.isin(self.ids[self.document], sorted(labels.documents_with(concept.name, value)))
            reason = self.scarce(shown)
            if reason is None:
                yield value
            else:
                omitted.append(Omitted(concept=concept.name, reason=reason))


def _columns(
    wanted: Sequence[str], labels: Labels, probed: Mapping[str, np.ndarray], tokens: Mapping[str, Sequence[str]]
) -> Iterator[Column]:
    """One column per value, without the second of two values of a document-level concept: it is the first reversed."""
    populations = {name: number for number, name in enumerate(probed, start=1)}
    for name in wanted:
        values = labels.concepts[name].values
        for value in tokens.get(name, ()):
            label = name if len(values) == 1 else f"{name}={value}"
            yield Column(name=label, concept=name, value=value, level="token", population=0)
        if name in probed:
            shown = [values[code] for code in np.unique(probed[name][probed[name] >= 0])]
            for value in shown[:1] if len(shown) == 2 else shown:
                yield Column(
                    name=f"{name}={value}", concept=name, value=value, level="document", population=populations[name]
                )


def _shuffle_codes(codes: np.ndarray, parts: np.ndarray, document: np.ndarray, seed: int) -> np.ndarray:
    """Permute each document-level concept among the documents that carry it, inside each part."""
    shuffled = codes.copy()
    for concept, own in enumerate(codes):
        for part in PARTS:
            rng = np.random.default_rng([seed, 2, concept, part])
            members = (parts == part) & (own >= 0)
            column = own[:, None].astype(np.float64)
            shuffled[concept] = np.where(
                members, shuffle_labels(column, members, document, "document", rng)[:, 0], shuffled[concept]
            )
    return shuffled


def block_labels(design: ProbeDesign, store: Store, labels: Labels, block: int) -> BlockLabels:
    """Labels of one block; a pure function of its arguments."""
    keys = store.keys(block)
    sequence = keys.doc.astype(np.int64)
    text = keys.char_end > keys.char_start
    if design.sinks == "drop":
        text &= ~store.sink_mask(block)
    members = np.column_stack([text, *((codes[sequence] >= 0) & text for codes in design.codes)])
    true = np.empty((len(sequence), len(design.columns)))
    twin = np.empty_like(true)
    for c, column in enumerate(design.columns):
        if column.level == "token":
            true[:, c] = labels.token_mask(column.concept, keys.doc, keys.char_start, keys.char_end, column.value)
            continue
        code = design.values[column.population - 1].index(column.value)
        true[:, c] = design.codes[column.population - 1][sequence] == code
        twin[:, c] = design.shuffled_codes[column.population - 1][sequence] == code
    parts = design.parts[sequence]
    _shuffle_tokens(design, true, twin, members[:, 0], parts, sequence, block)
    families = [true, twin] if design.rates is None else [true, twin, _control_tasks(design, members, keys.token_id)]
    return BlockLabels(
        labels=np.hstack(families).astype(np.uint8),
        members=members,
        parts=parts,
        sequence=sequence,
        index=keys.index,
        token_id=keys.token_id,
        position=keys.position,
    )


def _control_tasks(design: ProbeDesign, members: np.ndarray, token_ids: np.ndarray) -> np.ndarray:
    """A random class for each token type [N, C], at each column's rate; every column draws its own."""
    tasks = np.zeros((len(token_ids), len(design.columns)))
    for c, column in enumerate(design.columns):
        own, rate = members[:, column.population], np.asarray(design.rates)[c : c + 1]
        tasks[:, c] = control_labels(tasks[:, c : c + 1], own, token_ids, rate, design.task_seed(c))[:, 0]
    return tasks


def _shuffle_tokens(
    design: ProbeDesign,
    true: np.ndarray,
    twin: np.ndarray,
    text: np.ndarray,
    parts: np.ndarray,
    sequence: np.ndarray,
    block: int,
) -> None:
    """Permute all token-level columns together among the text rows of each part of the block."""
    token = [c for c, column in enumerate(design.columns) if column.level == "token"]
    twin[:, token] = true[:, token]
    for part in PARTS:
        rng = np.random.default_rng([design.seed, 3, block, part])
        members = text & (parts == part)
        twin[:, token] = shuffle_labels(twin[:, token], members, sequence, "token", rng)
