"""Ways in which codes are read, and how a result of `lrh sae` names what it trained.

| read as | code of a pre-activation p | trained as |
|---|---|---|
| `topk` | p, where it is positive and among the k largest of the row | `topk` |
| `threshold` | p, where it is at least one threshold of all latents | `batchtopk`, `matryoshka` |
| `relu` | p, where it is positive | `relu`, `p_anneal`, `structured` without a branch |
| `structured` | relu(p) + relu(q), q of a low-rank branch | `structured` |
| `gated` | relu(exp(r) (p - gate bias) + magnitude bias), where p is positive | `gated` |
| `jumprelu` | p, where it is above the latent's own threshold | `jumprelu` |
| `conca` | p, normalised over latents | `conca` |
"""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from lrh_ray.errors import ConfigError, UnknownName
from lrh_ray.records import Plain, Result

ReadAs: TypeAlias = Literal["topk", "threshold", "relu", "structured", "gated", "jumprelu", "conca"]

READ_AS: Mapping[str, ReadAs] = {
    "topk": "topk",
    "batchtopk": "threshold",
    "matryoshka": "threshold",
    "relu": "relu",
    "p_anneal": "relu",
    "structured": "structured",
    "gated": "gated",
    "jumprelu": "jumprelu",
    "conca": "conca",
}


def names_of(kinds: Sequence[Mapping[str, Plain]]) -> tuple[str, ...]:
    """The names under which a result has its autoencoders, from the settings of their kinds in order.

    The kind, with whatever tells it from others of that kind. JSON knows no tuples: lists are named as what they were.
    """
    settings = [{key: tuple(v) if isinstance(v, list) else v for key, v in kind.items()} for kind in kinds]
    return tuple(_name(kind, [other for other in settings if other["kind"] == kind["kind"]]) for kind in settings)


def _name(kind: Mapping[str, Plain], alike: Sequence[Mapping[str, Plain]]) -> str:
    told = {key: value for key, value in kind.items() if len({str(other[key]) for other in alike}) > 1}
    return " ".join([str(kind["kind"]), *(f"{key} {value}" for key, value in told.items())])


def settings_of(result: Result, name: str) -> Mapping[str, Plain]:
    """Settings of the kind that a result of `lrh sae` has under `name`.

    Raises:
        ConfigError: The result is of another study.
        UnknownName: It has no such autoencoder.
    """
    kinds = result.resolved.get("kinds")
    if result.kind != "sae" or not isinstance(kinds, list | tuple):
        raise ConfigError(f"This is a result of kind {result.kind!r}; autoencoders are in those of `lrh sae`.")
    known = dict(zip(names_of(kinds), kinds, strict=True))
    if name not in known:
        raise UnknownName(f"No autoencoder {name!r} in {result.title!r}. It has: {', '.join(map(repr, known))}.")
    found: Mapping[str, Plain] = known[name]
    return found


def readable_places(result: Result) -> tuple[str, ...]:
    """Sites that a result of `lrh sae` has autoencoders of, and its maps."""
    sites, maps = _places(result)
    return (*sites, *maps)


def ends_of(result: Result, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sites that an autoencoder of site `name`, or of the map of that name, reads, and those that it explains.

    Raises:
        UnknownName: A result of `lrh sae` has no such site or map.
    """
    sites, maps = _places(result)
    if name in sites:
        return (name,), (name,)
    if name not in maps:
        raise UnknownName(f"No site {name!r} in {result.title!r}. It has: {', '.join((*sites, *maps))}.")
    reads, writes = (tuple(map(str, _listed(maps[name][end]))) for end in ("reads", "writes"))
    return reads, writes


def _places(result: Result) -> tuple[tuple[str, ...], Mapping[str, Mapping[str, Plain]]]:
    """Its sites, and its maps by name."""
    maps = {str(one["name"]): one for one in _listed(result.resolved.get("maps")) if isinstance(one, Mapping)}
    return tuple(map(str, _listed(result.resolved.get("sites")))), maps


def _listed(value: Plain) -> Sequence[Plain]:
    return value if isinstance(value, list | tuple) else ()
