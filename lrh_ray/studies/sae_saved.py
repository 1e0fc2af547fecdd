"""The autoencoders that a result of `lrh sae` keeps, for studies that hold them against something.

    saved = saved_autoencoders(config, config.sae_bound.result, store, asked=config.sae_bound.sites)
    saved.autoencoders[0].reader()             # rows to codes and back
    saved.digest                               # names the result among the inputs of another

Rows may come from another store than the one that the autoencoders were trained on: words alone, say. The model must be
the same.

What can go wrong: no such result, several of them, one of another model, sites that only one side has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lrh_ray.analyses.sae.reader import Reader, TopKReader
from lrh_ray.analyses.sae.reading import random_reader
from lrh_ray.artifacts import find_results, load_result, result_digest
from lrh_ray.errors import ConfigError, ResultMissing, SiteError
from lrh_ray.exchange.kinds import names_of
from lrh_ray.exchange.record import Exchanged
from lrh_ray.records import Result
from lrh_ray.store.reader import Store
from lrh_ray.studies.run import RunConfig

RANDOM_SEED = 1_000_003
"""What is added to a seed for random directions, so that they are not those that training began with."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Saved:
    """One autoencoder of a site."""

    site: str
    name: str
    weights: Exchanged

    @property
    def dense(self) -> bool:
        """Whether every latent says something of every row."""
        return self.weights.kind == "conca"

    @property
    def decoder(self) -> np.ndarray:
        """[M, D]."""
        return self.weights.tensors["decoder"]

    @property
    def offset(self) -> np.ndarray:
        """[D]."""
        return self.weights.tensors["decoder_bias"]

    def reader(self) -> Reader:
        return self.weights.reader()

    def directions(self, codes: float, seed: int) -> TopKReader:
        """As many random directions, with `codes` of them a row."""
        return random_reader(self.weights.tensors["encoder"], self.offset, codes=codes, seed=seed + RANDOM_SEED)

    def untrained(self, codes: float, seed: int) -> "Untrained":
        """The same with random directions; a dense one keeps its kind, lengths and biases."""
        random = self.directions(codes, seed)
        own = {name: tensor.numpy() for name, tensor in random.parameters.items()}
        if not self.dense:
            return Untrained(reader=random, decoder=own["decoder"])
        decoder = own["decoder"] / np.linalg.norm(own["decoder"], axis=1, keepdims=True)
        decoder *= np.linalg.norm(self.decoder, axis=1, keepdims=True)
        tensors = {**self.weights.tensors, "encoder": own["encoder"], "decoder": decoder}
        return Untrained(reader=replace(self.weights, tensors=tensors).reader(), decoder=decoder)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Untrained:
    """An autoencoder of random directions: its reader, and its decoder [M, D]."""

    reader: Reader
    decoder: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SavedResult:
    """What a result keeps, at the sites that the store has too; and what cannot be read again, and why."""

    digest: str
    result: Result
    sites: tuple[str, ...]
    autoencoders: tuple[Saved, ...]
    omitted: tuple[tuple[str, str], ...]


def saved_autoencoders(
    config: RunConfig, path: str | None, store: Store, *, asked: Sequence[str], setting: str
) -> SavedResult:
    """All autoencoders of the result at `path`, or of the run's only one; `setting` is where they are asked for.

    Raises:
        ResultMissing: There is none.
        ConfigError: There are several, or it is of another study or another model.
        SiteError: A site that the store or the result does not have.
    """
    result = _result(config, path, setting)
    require_model(result, store)
    sites = _sites(result, store, asked, setting)
    names = names_of(result.resolved["kinds"])  # type: ignore[arg-type]
    found, omitted = list[Saved](), dict[str, str]()
    for site in sites:
        for name in names:
            try:
                found.append(Saved(site=site, name=name, weights=Exchanged.of_result(result, site, name)))
            except ConfigError as error:
                omitted[name] = str(error)
    if not found:
        raise ConfigError(f"Nothing in the result can be read again: {' '.join(omitted.values())}")
    return SavedResult(
        digest=result_digest(result),
        result=result,
        sites=sites,
        autoencoders=tuple(found),
        omitted=tuple(omitted.items()),
    )


def _result(config: RunConfig, path: str | None, setting: str) -> Result:
    if path is not None:
        result = load_result(Path(path))
        if result.kind != "sae":
            raise ConfigError(f"{setting}.result is a result of kind {result.kind!r}; name one of `lrh sae`.")
        return result
    places = find_results(config.results_path)
    own = {str(place): result for place in places if (result := load_result(place)).kind == "sae"}
    if not own:
        raise ResultMissing(
            f"The run {config.name!r} has no autoencoders. Train some with `lrh sae CONFIG`, or name the folder of a "
            f"result in {setting}.result."
        )
    if len(own) > 1:
        raise ConfigError(
            f"The run {config.name!r} has {len(own)} results of `lrh sae`; name one of them in {setting}.result: "
            f"{', '.join(own)}."
        )
    return next(iter(own.values()))


def require_model(result: Result, store: Store) -> None:
    """Refuse codes of rows that another model made."""
    made = result.provenance.get("store")
    other = made.get("model") if isinstance(made, Mapping) else None
    model = store.plan.identity["model"]
    if isinstance(other, Mapping) and isinstance(model, Mapping) and other["digest"] != model["digest"]:
        raise ConfigError(
            f"The autoencoders read rows of {other['name']!r} ({str(other['digest'])[:12]}), this store has those of "
            f"{model['name']!r} ({str(model['digest'])[:12]}). Name a result, or a store, of the same weights."
        )


def _sites(result: Result, store: Store, asked: Sequence[str], setting: str) -> tuple[str, ...]:
    there = tuple(str(site) for site in result.resolved["sites"])  # type: ignore[union-attr]
    both = tuple(site for site in there if site in store.sites)
    for site in asked:
        if site not in both:
            raise SiteError(
                f"{setting}.sites names {site!r}. The store has {', '.join(store.sites)}; the autoencoders are of "
                f"{', '.join(there)}."
            )
    if not both:
        raise SiteError(
            f"The store has {', '.join(store.sites)}; the autoencoders are of {', '.join(there)}. Extract one of these "
            f"sites (store.sites)."
        )
    return tuple(asked) or both
