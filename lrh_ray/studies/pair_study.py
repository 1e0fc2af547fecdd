"""The pair test over a store of words: every site, metric and penalty, beside noise and an untrained model.

    lrh extract CONFIG        # text.sources of kind `word-pairs`, or `pairs` with `carriers: none`
    lrh extract CONFIG --twin # the same words through random weights; optional, and then a control
    lrh pairs CONFIG

A word's row is that of its last token. Words whose partner is not in the store are left out and counted. The replica on
Gaussian rows with the model's own mean and covariance stands beside every number: what the published figure would show
for a representation without concepts.

What can go wrong: a store without word pairs, or with concepts of fewer than `MIN_GROUPS` groups of words only, is
`NotEnoughData`; a site that the store does not have is `SiteError`.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from lrh_ray.analyses.pair_metrics import covariance_of, gram_of, matched_noise, whitened_gram
from lrh_ray.analyses.pair_test import PairTable, replica, split_half_cosines, split_half_test
from lrh_ray.artifacts import result_digest, save_result
from lrh_ray.config import as_plain
from lrh_ray.errors import NotEnoughData, SiteError, StoreIncomplete, StoreMissing
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.sites import FINAL_NORM
from lrh_ray.records import Plain, Result
from lrh_ray.runtime.cluster import EMBEDDED, connected
from lrh_ray.runtime.reduce import sample
from lrh_ray.store.objects import Location, absolute
from lrh_ray.store.reader import Store, open_store
from lrh_ray.studies.pair_config import Metric, PairTestConfig
from lrh_ray.studies.pair_result import PairAnswer, PairSetting, make_pair_result
from lrh_ray.studies.progress import Progress, Silent
from lrh_ray.studies.run import RunConfig
from lrh_ray.studies.twins import twin_config
from lrh_ray.studies.weights import find_checkpoint
from lrh_ray.text.word_pairs import SIDES, pair_member

Source: TypeAlias = Literal["model", "noise", "untrained"]


@dataclass(frozen=True, kw_only=True, slots=True)
class WordPairs:
    """The pairs of a store: concept and words of each, and the sequences of both words [P, 2]."""

    concepts: tuple[str, ...]
    words: tuple[tuple[str, str], ...]
    sequences: np.ndarray
    widowed: int

    @property
    def table(self) -> PairTable:
        return PairTable.of(self.concepts, self.words)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """One task: rows of a site, from one source, in one metric."""

    site: str
    metric: Metric
    source: Source


@dataclass(frozen=True, kw_only=True)
class PairTask:
    """Reads the rows of a place and tests them at every penalty."""

    location: Location
    twin: Location | None
    pairs: WordPairs
    config: PairTestConfig
    model: ModelConfig

    def __call__(self, place: Place) -> list[PairAnswer]:
        location = self.twin if place.source == "untrained" and self.twin is not None else self.location
        rows = word_rows(open_store(location), place.site, self.pairs)
        if place.source == "noise":
            rows = matched_noise(rows, np.random.default_rng([self.config.seed, 1]))
        gram, table = self._gram(rows, place.metric), self.pairs.table
        return [self._answer(gram, table, place, inverse_penalty) for inverse_penalty in self.config.inverse_penalties]

    def _gram(self, rows: np.ndarray, metric: Metric) -> np.ndarray:
        if metric == "whitened":
            return whitened_gram(rows)
        return gram_of(rows, unembedding_covariance(self.model) if metric == "causal" else None)

    def _answer(self, gram: np.ndarray, table: PairTable, place: Place, inverse_penalty: float) -> PairAnswer:
        repeats, draws, seed = self.config.repeats, self.config.draws, self.config.seed
        how = {"inverse_penalty": inverse_penalty}
        test = None
        if place.source == "model":
            test = split_half_test(gram, table, **how, repeats=repeats, draws=draws, seed=seed)
        return PairAnswer(
            setting=PairSetting(site=place.site, metric=place.metric, inverse_penalty=inverse_penalty),
            source=place.source,
            published=replica(gram, table, **how),
            honest=test.cosines if test else split_half_cosines(gram, table, **how, repeats=repeats, seed=seed),
            test=test,
        )


@cache
def unembedding_covariance(model: ModelConfig) -> np.ndarray:
    """Cov(g) over the vocabulary [D, D], of the weights that the configuration names."""
    from lrh_ray.models.matrices import unembedding

    return covariance_of(unembedding(find_checkpoint(model)).weight.double().numpy())


def pair_test(config: RunConfig, *, address: str = EMBEDDED, progress: Progress | None = None) -> Path:
    """Test the run's store and save the result; returns its folder, at once if the question was answered before.

    Raises:
        StoreIncomplete: The store is not sealed.
        NotEnoughData: The store holds no word pairs that can be judged.
        SiteError: A site that the store does not have.
    """
    progress, started = progress or Silent(), time.monotonic()
    store = open_store(config.store_location)
    if not store.sealed:
        raise StoreIncomplete(f"The store {store.location!r} is not sealed. Finish it with `lrh extract CONFIG`.")
    twin = _twin(config, store)
    question = _question(config, store, twin)
    standing = config.results_path / result_digest(question)
    if (standing / "result.json").exists():
        return standing
    pairs = word_pairs(store)
    task = PairTask(
        location=absolute(config.store_location),
        twin=None if twin is None else absolute(twin_config(config).store_location),
        pairs=pairs,
        config=config.pairs,
        model=config.model,
    )
    places = list(_places(config.pairs, _sites(config.pairs, store), with_twin=twin is not None))
    progress.begin(f"pair test of {len(pairs.words)} pairs: {len(places)} rows of words, each in its metric")
    with connected(address):
        answers = [answer for found in sample(places, task) for answer in found]
    seconds = round(time.monotonic() - started, 1)
    result = make_pair_result(question, store, pairs.table, answers, pairs.widowed, seconds)
    return save_result(result, config.results_path)


def word_pairs(store: Store) -> WordPairs:
    """The pairs whose two words are documents of the store, by concept and number.

    Raises:
        NotEnoughData: There are none.
    """
    found: dict[tuple[str, str], dict[str, int]] = {}
    for sequence, name in enumerate(store.document_ids):
        if (member := pair_member(name)) is not None:
            found.setdefault((member.concept, member.pair), {})[member.side] = sequence
    whole = {key: sides for key, sides in sorted(found.items()) if len(sides) == len(SIDES)}
    if not whole:
        raise NotEnoughData(
            f"The store {store.location!r} holds no word pairs. Extract documents of `kind: word-pairs` (or `kind: "
            f"pairs` with `carriers: none`) and repeat the command."
        )
    sequences = np.array([[sides[side] for side in SIDES] for sides in whole.values()])
    texts = store.texts
    return WordPairs(
        concepts=tuple(concept for concept, _ in whole),
        words=tuple((texts[first], texts[second]) for first, second in sequences.tolist()),
        sequences=sequences,
        widowed=len(found) - len(whole),
    )


def word_rows(store: Store, site: str, pairs: WordPairs) -> np.ndarray:
    """[2 P, D] float64: the last row of every first word, then of every second."""
    last = np.full(len(store.document_ids), -1, np.int64)
    for block in range(store.plan.num_blocks):
        keys = store.keys(block)
        np.maximum.at(last, keys.doc, keys.index)  # rows of a sequence stand in the order of its tokens
    wanted = last[pairs.sequences.T.reshape(-1)]
    rows = np.empty((len(wanted), store.plan.site(site).width))
    for block in range(store.plan.num_blocks):
        index = store.keys(block).index
        here = np.flatnonzero(np.isin(wanted, index))
        rows[here] = store.block_rows(site, block)[np.searchsorted(index, wanted[here])]
    return rows


def _twin(config: RunConfig, store: Store) -> Store | None:
    """The run's control store, if there is one with the same words."""
    if config.model.weights == config.twin.weights or config.store.base is not None:
        return None
    try:
        twin = open_store(twin_config(config).store_location)
    except StoreMissing:
        return None
    return twin if twin.sealed and twin.document_ids == store.document_ids else None


def _question(config: RunConfig, store: Store, twin: Store | None) -> Result:
    resolved: dict[str, Plain] = {
        **as_plain(config.pairs),
        "sites": list(_sites(config.pairs, store)),
        "interval": "95 %, bootstrap over groups of words",
    }
    return Result(
        kind="pairs",
        title=f"Pair test of {config.name}",
        summary=(),
        asked=as_plain(config),
        resolved=resolved,
        inputs={"store": store.root} | ({} if twin is None else {"untrained": twin.root}),
        measures=(),
    )


def _sites(config: PairTestConfig, store: Store) -> Sequence[str]:
    for site in config.sites:
        if site not in store.sites:
            raise SiteError(f"pairs.sites names {site!r}; the store has {', '.join(store.sites)}.")
    return config.sites or store.sites


def _places(config: PairTestConfig, sites: Sequence[str], *, with_twin: bool) -> Iterator[Place]:
    sources: Mapping[Source, bool] = {"model": True, "noise": True, "untrained": with_twin}
    for site in sites:
        for metric in config.metrics:
            for source, present in sources.items():
                if present and not (metric == "causal" and (site != FINAL_NORM or source == "untrained")):
                    yield Place(site=site, metric=metric, source=source)
