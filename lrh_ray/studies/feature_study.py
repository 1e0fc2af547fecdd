"""Features of an autoencoder by number, by token or by text: questions to a result of `lrh sae`.

    lrh features RESULT --latent 17            # how often it fires, and the rows with its largest codes
    lrh features RESULT --token " king"        # latents that fire on this token more than elsewhere
    lrh features RESULT --text "the old king"  # latents of each token of a text

One pass over the store makes a catalogue of all latents, which is a result of its own and is made once. A token takes
one more pass. Every answer is a result beside the autoencoder's, and the same question finds it again.

Read are all rows of the store that stand for text, also those of documents that training saw; attention sinks are left
out where training left them out. Latents of a transcoder are shown at the rows that it reads.

What can go wrong: a text of several tokens where one is asked for is a `ConfigError` that lists them; a token that no
row has is `NotEnoughData`.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from lrh_ray.analyses.sae.contrast import TokenContrast
from lrh_ray.analyses.sae.reader import Reader
from lrh_ray.artifacts import RESULT_FILE, load_result, save_result, standing_result
from lrh_ray.config import parse_config
from lrh_ray.errors import ConfigError, NotEnoughData, SiteError, UnknownName
from lrh_ray.records import Plain, Result
from lrh_ray.runtime.cluster import EMBEDDED, connected
from lrh_ray.runtime.reduce import reduce_blocks, sample
from lrh_ray.store.objects import Location, absolute
from lrh_ray.store.reader import Store, open_sealed
from lrh_ray.studies.feature_passes import Catalogue, CataloguePass, TokenPass
from lrh_ray.studies.feature_result import (
    Found,
    catalogue_of,
    make_catalogue_result,
    make_latent_result,
    make_text_result,
    make_token_result,
)
from lrh_ray.studies.feature_text import TextTask, read_text, token_of
from lrh_ray.studies.fitted import FittedAutoencoder, open_autoencoder
from lrh_ray.studies.progress import Progress, Silent
from lrh_ray.studies.run import RunConfig
from lrh_ray.studies.sae_passes import SaeRows
from lrh_ray.studies.weights import find_checkpoint

GROUPS, EXAMPLES, DRAWS, SEED = 20, 10, 100, 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What is asked about features; of the last four at most one, and none asks for the catalogue."""

    site: str | None = None
    name: str | None = None
    num: int = 10
    """Latents listed: in all for a token, of each token for a text."""
    latent: int | None = None
    token: str | None = None
    token_id: int | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        given = [one for one in (self.latent, self.token, self.token_id, self.text) if one is not None]
        if len(given) > 1:
            raise ConfigError("Ask for one of --latent, --token, --token-id and --text at a time.")
        if self.num < 1:
            raise ConfigError(f"{self.num} latents cannot be listed; ask for 1 or more.")


def features(
    source: Path,
    question: Question,
    *,
    location: Location | None = None,
    address: str = EMBEDDED,
    progress: Progress | None = None,
) -> Path:
    """Answer a question about the features of the autoencoder in the result `source`; returns the answer's folder.

    Args:
        source: Folder of a result of `lrh sae`; answers stand beside it.
        question: Which autoencoder, and what about it.
        location: Store to read; None: the one that the autoencoder was trained on.
        address: Ray cluster.
        progress: Told about passes.

    Raises:
        UnknownName: No such site, autoencoder or latent.
        StoreMissing, StoreIncomplete: The store is not where the run's configuration says, or not sealed.
        NotEnoughData: The token is in no row.
    """
    found = _Features.opened(source, question, location, address, progress or Silent())
    if question.text is not None:
        return found.of_text(question.text)
    if question.token is not None or question.token_id is not None:
        return found.of_token()
    if question.latent is not None:
        return found.of_latent(question.latent)
    return found.catalogue()


@dataclass(frozen=True, kw_only=True)
class _Features:
    """One autoencoder, the store it reads, and where answers go."""

    fitted: FittedAutoencoder
    result: Result
    config: RunConfig
    store: Store
    rows: SaeRows
    question: Question
    folder: Path
    address: str
    progress: Progress
    reader: Reader

    @classmethod
    def opened(
        cls, source: Path, question: Question, location: Location | None, address: str, progress: Progress
    ) -> "_Features":
        result = load_result(source)
        fitted = open_autoencoder(source, site=question.site, name=question.name)
        config = parse_config(json.dumps(result.asked), RunConfig, source=f"the configuration in {str(source)!r}")
        store = open_sealed(config.store_location if location is None else location)
        known = set(fitted.reads) <= set(store.sites)
        if not known or sum(store.plan.site(site).width for site in fitted.reads) != fitted.width:
            raise SiteError(
                f"{store.location!r} has no rows of {fitted.width} features at {fitted.site!r}, which this autoencoder "
                f"reads. Name another store (--store)."
            )
        return cls(
            fitted=fitted,
            result=result,
            config=config,
            store=store,
            rows=_all_rows(store, sinks=str(result.resolved["sinks"])),
            question=question,
            folder=(source.parent if source.name == RESULT_FILE else source).parent,
            address=address,
            progress=progress,
            reader=fitted.reader,
        )

    def catalogue(self) -> Path:
        """Of all latents; computed once."""
        asked = self._asked("sae_features", "Features", groups=GROUPS, examples=EXAMPLES)
        if standing := standing_result(asked, self.folder):
            return standing
        started = time.monotonic()
        task = CataloguePass(
            rows=self.rows,
            sites=self.fitted.reads,
            reader=self.reader,
            num_latents=self.fitted.num_latents,
            num_groups=GROUPS,
            num_examples=EXAMPLES,
        )
        with connected(self.address):
            self.progress.begin("catalogue of latents")
            state: Catalogue = reduce_blocks(range(self.store.plan.num_blocks), task)
        return save_result(make_catalogue_result(asked, self._found(state), time.monotonic() - started), self.folder)

    def of_latent(self, latent: int) -> Path:
        """How often it fires and where most."""
        if not 0 <= latent < self.fitted.num_latents:
            raise UnknownName(f"No latent {latent}: {self.fitted.name!r} has {self.fitted.num_latents}, from 0 on.")
        asked = self._asked("sae_latent", f"Latent {latent}", latent=latent)
        if standing := standing_result(asked, self.folder):
            return standing
        return save_result(make_latent_result(asked, self._catalogued(), latent), self.folder)

    def of_token(self) -> Path:
        """Latents that fire on a token more than elsewhere."""
        token = self._token_id()
        shown = self.question.token if self.question.token is not None else f"#{token}"
        title = f"Features of the token {shown!r}"
        asked = self._asked(
            "sae_token", title, token=token, num=self.question.num, groups=GROUPS, draws=DRAWS, seed=SEED
        )
        if standing := standing_result(asked, self.folder):
            return standing
        catalogued, started = self._catalogued(), time.monotonic()
        task = TokenPass(
            rows=self.rows,
            sites=self.fitted.reads,
            reader=self.reader,
            token_id=token,
            num_groups=GROUPS,
            draws=DRAWS,
            seed=SEED,
        )
        with connected(self.address):
            self.progress.begin("codes on the token and elsewhere")
            contrast: TokenContrast = reduce_blocks(range(self.store.plan.num_blocks), task)
        if not contrast.rows[0].sum():
            raise NotEnoughData(f"No row of {self.store.location!r} has the token {shown!r}.")
        result = make_token_result(asked, catalogued, contrast, token, self.question.num, time.monotonic() - started)
        return save_result(result, self.folder)

    def of_text(self, text: str) -> Path:
        """Latents of each token of a text."""
        asked = self._asked("sae_text", "Features of a text", text=text, num=self.question.num)
        if standing := standing_result(asked, self.folder):
            return standing
        checkpoint = find_checkpoint(self.config.model, self.progress)
        tokens, words = read_text(text, self.config, checkpoint)
        task = TextTask(
            checkpoint=checkpoint,
            model=self.config.model,
            digest=str(cast(dict[str, Plain], self.store.plan.identity["model"])["digest"]),
            sites=tuple(self.store.plan.site(site) for site in self.fitted.reads),
            reader=self.reader,
            tokens=tokens,
        )
        catalogued = self._catalogued()
        with connected(self.address):
            self.progress.begin("reading the text")
            (codes,) = sample([None], task)
        return save_result(make_text_result(asked, catalogued, codes, words, self.question.num), self.folder)

    def _token_id(self) -> int:
        if self.question.token is None:
            return int(self.question.token_id or 0)
        return token_of(self.question.token, find_checkpoint(self.config.model, self.progress))

    def _catalogued(self) -> Found:
        return self._found(catalogue_of(load_result(self.catalogue())))

    def _found(self, catalogue: Catalogue) -> Found:
        return Found(store=self.store, site=self.fitted.map_name, name=self.fitted.name, catalogue=catalogue)

    def _asked(self, kind: str, title: str, **resolved: Plain) -> Result:
        return Result(
            kind=kind,
            title=f"{title}, {self.fitted.name} at {self.fitted.map_name} of {self.config.name}",
            summary=(),
            asked=self.result.asked,
            resolved={**resolved, "site": self.fitted.map_name, "name": self.fitted.name, "sinks": self.rows.sinks},
            inputs={
                "store": self.store.root,
                "result": str(self.fitted.lineage["result"]),
                "weights": str(self.fitted.lineage["weights"]),
            },
            measures=(),
        )


def _all_rows(store: Store, *, sinks: str) -> SaeRows:
    """Every row, its document dealt to a group of the jackknife in a random order."""
    ids, document = np.unique(np.array(store.document_ids), return_inverse=True)
    group = np.random.default_rng([SEED, 2]).permutation(len(ids)) % GROUPS
    return SaeRows(location=absolute(store.location), root=store.root, group=group[document], sinks=sinks)
