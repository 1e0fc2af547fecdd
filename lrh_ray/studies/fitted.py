"""What a result keeps that turns rows of a site into numbers: autoencoders and linear probes.

    fitted = open_fitted("runs/demo/results/1f3a", site="resid.15", name="topk")
    fitted.reads, fitted.width                 # rows it reads, of several sites side by side
    fitted.reader                              # of an autoencoder
    fitted.lineage                             # digests: of the result, and of the weights themselves

A folder of another tool's autoencoder is read as well (`docs/autoencoders-formats.md`). The digest of a result is that
of its question; weights trained twice may differ in their last bits, so they have a digest of their own.

What can go wrong: a result of a study that keeps no weights, or not those of this kind of probe (networks), is a
`ConfigError`; a site or name that it does not have is `UnknownName`, which lists those it has.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lrh_ray.analyses.readout import LinearReadout
from lrh_ray.analyses.sae.reader import Reader
from lrh_ray.artifacts import RESULT_FILE, load_result, result_digest
from lrh_ray.digests import digest_bytes, digest_json
from lrh_ray.errors import ConfigError, UnknownName
from lrh_ray.exchange.folders import import_folder
from lrh_ray.exchange.kinds import ends_of, names_of, readable_places
from lrh_ray.exchange.record import Exchanged
from lrh_ray.records import Plain, Result

AUC = "auc"
"""Measure that every concept of a probing result has, in the order of its probes."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FittedAutoencoder:
    """An autoencoder of a site, or one that stands between the two ends of a map."""

    reads: tuple[str, ...]
    """Sites whose rows it reads, side by side."""
    map_name: str
    """Under which the result has it: of an autoencoder the site, of all others the map."""
    name: str
    exchanged: Exchanged
    lineage: Mapping[str, Plain]

    @property
    def site(self) -> str:
        """The site that is read, or all of them in a word."""
        return "+".join(self.reads)

    @property
    def width(self) -> int:
        """Features of a row."""
        return self.exchanged.width

    @property
    def reader(self) -> Reader:
        return self.exchanged.reader()

    @property
    def num_latents(self) -> int:
        return self.exchanged.num_latents

    @property
    def label(self) -> str:
        """What sites of its codes begin with."""
        return safe_name(self.map_name, self.name)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FittedProbes:
    """Linear probes of one kind at a site, one for every concept."""

    site: str
    name: str
    readout: LinearReadout
    concepts: tuple[str, ...]
    lineage: Mapping[str, Plain]

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.site,)

    @property
    def width(self) -> int:
        """Features of a row."""
        return len(self.readout.weights)

    @property
    def label(self) -> str:
        """What sites of its scores begin with."""
        return safe_name(self.site, self.name)


def open_fitted(folder: Path, *, site: str | None = None, name: str | None = None) -> FittedAutoencoder | FittedProbes:
    """What the result or the other tool's folder at `folder` keeps under a site and a name.

    Args:
        folder: Of a result of `lrh sae` or `lrh fit`, or of an autoencoder in the files of another tool.
        site: Whose rows it reads, or the map of a transcoder or crosscoder; may be left out where there is only one.
        name: The autoencoder's, or the kind of probe; may be left out where there is only one.

    Raises:
        UnknownName: No such site or name, or several and none was given.
        ConfigError: A result that keeps no weights, or not of this.
        CheckpointMissing: The folder holds neither.
    """
    if folder.name != RESULT_FILE and not (folder / RESULT_FILE).exists():
        return _foreign(folder, site)
    result = load_result(folder)
    if result.kind == "sae":
        return _autoencoder(result, site, name)
    if result.kind == "probe":
        return _probes(result, site, name)
    raise ConfigError(
        f"{result.title!r} is of kind {result.kind!r}, which keeps nothing that can be applied to rows. Give a result "
        f"of `lrh sae` or `lrh fit`."
    )


def open_autoencoder(folder: Path, *, site: str | None = None, name: str | None = None) -> FittedAutoencoder:
    """As `open_fitted`, of a result of `lrh sae`.

    Raises:
        ConfigError: A result of another study.
        Everything that `open_fitted` raises.
    """
    result = load_result(folder)
    if result.kind != "sae":
        raise ConfigError(f"{result.title!r} is of kind {result.kind!r}; features are those of a result of `lrh sae`.")
    return _autoencoder(result, site, name)


def safe_name(*words: str) -> str:
    """Words joined to what can stand in the name of a site or of a folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", ".".join(words))[:80]


def _autoencoder(result: Result, site: str | None, name: str | None) -> FittedAutoencoder:
    place = _chosen("site", site, readable_places(result), result.title)
    chosen = _chosen("autoencoder", name, names_of(result.resolved["kinds"]), result.title)  # type: ignore[arg-type]
    exchanged, (reads, _) = Exchanged.of_result(result, place, chosen), ends_of(result, place)
    weights = _weights_digest(exchanged.tensors, [exchanged.kind, exchanged.k, exchanged.threshold, exchanged.norm])
    read = "+".join(reads)
    lineage = _lineage("sae", read, chosen, weights, result) | ({} if place == read else {"map": place})
    return FittedAutoencoder(reads=reads, map_name=place, name=chosen, exchanged=exchanged, lineage=lineage)


def _foreign(folder: Path, site: str | None) -> FittedAutoencoder:
    exchanged = import_folder(folder)
    chosen = site or exchanged.site
    if chosen is None:
        raise UnknownName(f"{str(folder)!r} does not say which site its autoencoder reads; name it (--site resid.15).")
    name = exchanged.trained_as or exchanged.kind
    weights = _weights_digest(exchanged.tensors, [exchanged.kind, exchanged.k, exchanged.threshold, exchanged.norm])
    lineage = _lineage("sae", chosen, name, weights, None)
    return FittedAutoencoder(reads=(chosen,), map_name=chosen, name=name, exchanged=exchanged, lineage=lineage)


def _probes(result: Result, site: str | None, name: str | None) -> FittedProbes:
    kept = {key.removesuffix("/weights") for key in result.arrays if key.endswith("/weights")}
    linear = sorted(key.rpartition("/") for key in kept if f"{key}/intercepts" in result.arrays)
    chosen_site = _chosen("site", site, tuple(dict.fromkeys(of for of, _, _ in linear)), result.title)
    names = tuple(kind for of, _, kind in linear if of == chosen_site)
    chosen = _chosen("linear probe", name, names, result.title)
    arrays = {
        key: result.arrays[f"{chosen_site}/{chosen}/{key}"] for key in ("weights", "intercepts", "regularisation")
    }
    keys = [measure.keys for measure in result.measures if measure.name == AUC]
    concepts = [str(one["concept"]) for one in keys if (one["site"], one["probe"]) == (chosen_site, chosen)]
    if len(concepts) != len(arrays["intercepts"]):
        raise ConfigError(f"{result.title!r} names {len(concepts)} concepts for {len(arrays['intercepts'])} probes.")
    readout = LinearReadout(
        weights=np.ascontiguousarray(arrays["weights"].T),
        intercepts=arrays["intercepts"],
        columns=np.arange(len(concepts)),
        regularisation=arrays["regularisation"],
        threshold=0.5 if chosen == "ridge" else 0.0,
    )
    return FittedProbes(
        site=chosen_site,
        name=chosen,
        readout=readout,
        concepts=tuple(concepts),
        lineage=_lineage("probe", chosen_site, chosen, _weights_digest(arrays, []), result)
        | {"concepts": list(concepts)},
    )


def _chosen(what: str, given: str | None, known: Sequence[str], title: str) -> str:
    if given is None and len(known) == 1:
        return known[0]
    if given in known:
        return str(given)
    asked = f"has no {what} {given!r}" if given is not None else f"has {len(known)} {what}s"
    raise UnknownName(f"{title!r} {asked}. Name one of {', '.join(map(repr, known)) or 'none'}.")


def _lineage(kind: str, site: str, name: str, weights: str, result: Result | None) -> dict[str, Plain]:
    digest = None if result is None else result_digest(result)
    return {"kind": kind, "site": site, "name": name, "weights": weights, "result": digest}


def _weights_digest(arrays: Mapping[str, np.ndarray], settings: list[Plain]) -> str:
    """Digest of everything that decides what becomes of a row."""
    found = {name: digest_bytes(np.ascontiguousarray(array).tobytes()) for name, array in arrays.items()}
    return digest_json({"arrays": found, "settings": settings})
