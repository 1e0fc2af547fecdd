"""How much of the exact belief every site of every checkpoint holds, beside what tokens alone and a perfect model hold.

One Ray task for each site of each moment of training reads its rows once and returns a few numbers. The same documents,
groups and positions serve all of them, so that intervals compare.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from lrh_ray.analyses.worlds.hidden_markov import HiddenMarkovWorld
from lrh_ray.analyses.worlds.tokens import centred
from lrh_ray.analyses.worlds.tracking import Tracking, track
from lrh_ray.models.checkpoints import checkpoint_in
from lrh_ray.models.sites import FINAL_NORM
from lrh_ray.runtime.reduce import sample
from lrh_ray.store.objects import Location, absolute
from lrh_ray.store.reader import Store, open_store
from lrh_ray.studies.world_config import LanguageWorldConfig

NUM_GROUPS, NUM_STRETCHES = 16, 4
WINDOW = 4
"""Latest tokens, one-hot, of the stronger control."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """A model at one moment of its training, and the store of its rows."""

    step: int
    location: Location
    checkpoint: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteReading:
    """What one site of one model holds: of the joint posterior, of the marginal ones, and of the joint one of others.

    `divergence` is E KL(p(x_t+1 | x_<=t) || model) in nats, at the final norm only.
    """

    step: int
    site: str
    joint: Tracking
    marginal: Tracking
    shuffled: Tracking
    divergence: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageReading:
    """All sites and moments, and the controls that need no model. `stretches` are first and last positions."""

    sites: tuple[SiteReading, ...]
    controls: Mapping[str, Tracking]
    ideal: Tracking
    entropy: float
    """E of -log p(x_t+1 | x_<=t) in nats: the least loss there is."""
    stretches: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """Exact beliefs on the test documents: all arrays [documents, length, ...]."""

    tokens: np.ndarray
    joint: np.ndarray
    marginal: np.ndarray
    predictive: np.ndarray

    @classmethod
    def of(cls, world: HiddenMarkovWorld, tokens: np.ndarray) -> "Truth":
        beliefs = world.filtered(tokens)
        marginal = [centred_logs(world.marginals(beliefs, k)) for k in range(world.configurations.shape[1])]
        return cls(
            tokens=tokens,
            joint=centred_logs(beliefs),
            marginal=np.concatenate(marginal, axis=-1),
            predictive=world.log_predictive(beliefs),
        )

    def track(self, rows: np.ndarray, targets: np.ndarray, document: np.ndarray, place: np.ndarray) -> Tracking:
        """R^2 of rows [N, D] for targets [documents, length, Q], row n being token `place[n]` of `document[n]`."""
        length = self.tokens.shape[1]
        return track(
            rows,
            targets[document, place],
            groups=document % NUM_GROUPS,
            stretches=place * NUM_STRETCHES // length,
            num_groups=NUM_GROUPS,
            num_stretches=NUM_STRETCHES,
        )

    def track_own(self, rows: np.ndarray) -> Tracking:
        """R^2 of rows [documents, length, D] that need no model for the joint posterior."""
        document, place = (index.reshape(-1) for index in np.indices(self.tokens.shape))
        return self.track(rows.reshape(len(document), -1), self.joint, document, place)


@dataclass(frozen=True, kw_only=True)
class ReadTask:
    """(moment, site) -> reading, on a worker."""

    truth: Truth
    seed: int

    def __call__(self, place: tuple[Moment, str]) -> SiteReading:
        moment, site = place
        rows, document, position = site_rows(open_store(moment.location), site)
        truth = self.truth
        strangers = np.random.default_rng([self.seed, 3]).permutation(len(rows))
        return SiteReading(
            step=moment.step,
            site=site,
            joint=truth.track(rows, truth.joint, document, position),
            marginal=truth.track(rows, truth.marginal, document, position),
            shuffled=truth.track(rows[strangers], truth.joint, document, position),
            divergence=self._divergence(moment, rows, document, position) if site == FINAL_NORM else None,
        )

    def _divergence(self, moment: Moment, rows: np.ndarray, document: np.ndarray, position: np.ndarray) -> float:
        from lrh_ray.models.matrices import logits

        found = logits(checkpoint_in(moment.checkpoint, "world"), rows.astype(np.float32), FINAL_NORM).double()
        log_p = self.truth.predictive[document, position]
        log_q = found.log_softmax(dim=1).numpy()[:, : log_p.shape[1]]
        return float((np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean())


def read_language(
    config: LanguageWorldConfig, world: HiddenMarkovWorld, tokens: np.ndarray, moments: Sequence[Moment]
) -> LanguageReading:
    """Read every site of every moment; inside a connection to the cluster."""
    truth = Truth.of(world, tokens)
    here = [Moment(step=m.step, location=absolute(m.location), checkpoint=m.checkpoint) for m in moments]
    places = [(moment, site) for moment in here for site in open_store(moment.location).sites]
    length = tokens.shape[1]
    edges = [-(-length * stretch // NUM_STRETCHES) for stretch in range(NUM_STRETCHES + 1)]
    p = np.exp(truth.predictive)
    return LanguageReading(
        sites=tuple(sample(places, ReadTask(truth=truth, seed=config.seed))),
        controls={
            "last token": truth.track_own(latest_tokens(tokens, world.vocabulary, 1)),
            f"last {WINDOW} tokens": truth.track_own(latest_tokens(tokens, world.vocabulary, WINDOW)),
        },
        ideal=truth.track_own(centred_logs(truth.predictive)),
        entropy=float(-(p * truth.predictive).sum(axis=-1).mean()),
        stretches=tuple((first + 1, last) for first, last in pairwise(edges)),
    )


def site_rows(store: Store, site: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows [N, D] float64 of all tokens but `<s>`, with the number of the document and of the token in it."""
    parts, documents, places = [], [], []
    number = np.array([int(name.removeprefix("t")) for name in store.document_ids])
    for block in range(store.plan.num_blocks):
        keys = store.keys(block)
        inside = keys.position > 0
        parts.append(store.block_rows(site, block)[inside].astype(np.float64))
        documents.append(number[keys.doc[inside]])
        places.append(keys.position[inside].astype(np.int64) - 1)
    return np.concatenate(parts), np.concatenate(documents), np.concatenate(places)


def latest_tokens(tokens: np.ndarray, vocabulary: int, window: int) -> np.ndarray:
    """[documents, length, window * vocabulary] one-hot: the token itself, the one before, and so on."""
    length = tokens.shape[1]
    rows = np.zeros((*tokens.shape, window, vocabulary))
    for back in range(min(window, length)):
        document, place = np.indices((len(tokens), length - back))
        rows[document, place + back, back, tokens[:, : length - back]] = 1
    return rows.reshape(*tokens.shape, -1)


def centred_logs(logs: np.ndarray) -> np.ndarray:
    """Logarithms [..., Q] less their mean over the last axis."""
    return centred(logs.reshape(-1, logs.shape[-1])).reshape(logs.shape)
