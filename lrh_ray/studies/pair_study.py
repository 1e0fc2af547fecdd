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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lrh_ray.analyses.pair_test import PairTable, replica, split_half_cosines, split_half_test
from lrh_ray.artifacts import save_result, standing_result
from lrh_ray.config import as_plain
from lrh_ray.errors import SiteError
from lrh_ray.records import Plain, Result
from lrh_ray.runtime.cluster import EMBEDDED, connected
from lrh_ray.runtime.reduce import sample
from lrh_ray.store.objects import absolute
from lrh_ray.store.reader import Store, open_sealed
from lrh_ray.studies.direction_result import with_directions
from lrh_ray.studies.direction_study import direction_tests
from lrh_ray.studies.pair_config import PairTestConfig
from lrh_ray.studies.pair_grams import Place, WordGrams, places
from lrh_ray.studies.pair_result import PairAnswer, PairSetting, make_pair_result
from lrh_ray.studies.pair_words import word_pairs
from lrh_ray.studies.progress import Progress, Silent
from lrh_ray.studies.run import RunConfig
from lrh_ray.studies.twins import standing_twin, twin_config


@dataclass(frozen=True, kw_only=True)
class PairTask:
    """Tests the words at a place at every penalty."""

    grams: WordGrams
    config: PairTestConfig

    def __call__(self, place: Place) -> list[PairAnswer]:
        gram, table = self.grams(place), self.grams.pairs.table
        return [self._answer(gram, table, place, inverse_penalty) for inverse_penalty in self.config.inverse_penalties]

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


def pair_test(config: RunConfig, *, address: str = EMBEDDED, progress: Progress | None = None) -> Path:
    """Test the run's store and save the result; returns its folder, at once if the question was answered before.

    Raises:
        StoreIncomplete: The store is not sealed.
        NotEnoughData: The store holds no word pairs that can be judged.
        SiteError: A site that the store does not have.
    """
    progress, started = progress or Silent(), time.monotonic()
    store = open_sealed(config.store_location)
    twin = standing_twin(config, store)
    question = _question(config, store, twin)
    if standing := standing_result(question, config.results_path):
        return standing
    pairs, with_twin = word_pairs(store), twin is not None
    grams = WordGrams(
        location=absolute(config.store_location),
        twin=absolute(twin_config(config).store_location) if with_twin else None,
        pairs=pairs,
        seed=config.pairs.seed,
        model=config.model,
    )
    sites = _sites(config.pairs, store)
    wanted = list(places(config.pairs, sites, sources=("model", "noise", "untrained"), with_twin=with_twin))
    progress.begin(f"pair test of {len(pairs.words)} pairs: {len(wanted)} rows of words, each in its metric")
    with connected(address):
        answers = [answer for found in sample(wanted, PairTask(grams=grams, config=config.pairs)) for answer in found]
        directions = direction_tests(grams, config.pairs, sites, progress) if config.pairs.random_pairs else None
    seconds = round(time.monotonic() - started, 1)
    result = make_pair_result(question, store, pairs.table, answers, pairs.widowed, seconds)
    if directions is not None:
        result = with_directions(result, directions, store, pairs.table)
    return save_result(result, config.results_path)


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
