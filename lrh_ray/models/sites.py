"""Sites: names of points in a model, resolved for one model before it is loaded.

A name is a kind, and for most kinds a block number after a dot. The convention of numbers is fixed and written into
every store: `resid.k` is the residual stream **after k blocks**. `resid.0` is the input of the first block, `resid.L`
is after the last of L blocks and before the final norm, `final_norm` is after it. (Transformers' `hidden_states[k]`
is `resid.k` for k < L, and its last entry is `final_norm`.) Everything inside a block carries that block's number, from
1: `resid.k = resid.(k-1) + attn_out.k + mlp_out.k`.

Two short forms expand: `resid.*` is every layer, and `resid.a:b:step` is Python's `range(a, b, step)`: `b` is left
out, and an absent `a`, `b` or `step` means the first number, the last plus 1, and 1.

    resolve_sites(["resid.0:31:15", "attn_out.3", "final_norm"], num_layers=30, hidden_size=576)
    # resid.0, attn_out.3, resid.15, resid.30, final_norm

`experts.k` are whole numbers, kept in the store's floating-point type, which holds them exactly.

What can go wrong: every mistake is a `SiteError` that says what this model has. Slices are not clipped: `resid.0:99`
of a model with 30 blocks is refused, because a shorter answer than the one asked for looks like an answer.
"""

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lrh_ray.errors import SiteError
from lrh_ray.records import SiteSpec

EMBED, FINAL_NORM = "embed", "final_norm"

VOCABULARY = {
    EMBED: EMBED,
    "resid": "resid.0 … resid.L",
    "heads": "heads.1 … heads.L",
    "attn_out": "attn_out.1 … attn_out.L",
    "router": "router.1 … router.L",
    "experts": "experts.1 … experts.L",
    "mlp_act": "mlp_act.1 … mlp_act.L",
    "mlp_out": "mlp_out.1 … mlp_out.L",
    FINAL_NORM: FINAL_NORM,
}
"""Every kind of site this package has a word for, with its range; kinds inside a block in the order of its forward."""

INNER = ("heads", "router", "experts", "mlp_act")
"""Kinds whose width is not the model's, and that some blocks do not have."""

_IN_BLOCK = ("heads", "attn_out", "router", "experts", "mlp_act", "mlp_out", "resid")
_NUMBER = re.compile(r"0|[1-9][0-9]*")
_SLICE = re.compile(r"(?P<start>[0-9]*):(?P<stop>[0-9]*)(?::(?P<step>[0-9]*))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Model:
    """What names are resolved against."""

    num_layers: int
    hidden_size: int
    inner: Mapping[str, int]


def asks_inside_blocks(names: Sequence[str]) -> bool:
    """Whether some of the names need the widths of `resolve_sites`' argument `inner`."""
    return any(kind_of(name) in INNER for name in names)


def kind_of(site: str) -> str:
    """What stands before the dot."""
    return site.partition(".")[0]


def resolve_sites(
    names: Sequence[str], *, num_layers: int, hidden_size: int, inner: Mapping[str, int] | None = None
) -> tuple[SiteSpec, ...]:
    """The sites `names` mean in a model of `num_layers` blocks, in the order in which a forward pass meets them.

    `inner` holds the widths of the sites of kinds `INNER` that this model has, by name.

    Raises `SiteError` for an unknown name, a layer out of range, a site named twice, or no site at all.
    """
    model = _Model(num_layers=num_layers, hidden_size=hidden_size, inner=inner or {})
    expanded = [site for name in names for site in _expand(name, model)]
    repeated = [site for site, count in Counter(expanded).items() if count > 1]
    if repeated:
        raise SiteError(f"Site {repeated[0]!r} is asked for more than once in {list(names)!r}; name each site once.")
    if not expanded:
        raise SiteError(f"No site is asked for; name at least one of {_valid(model)}.")
    specs = [SiteSpec(name=site, width=model.inner.get(site, hidden_size), layer=_layer(site)) for site in expanded]
    return tuple(sorted(specs, key=_depth))


def num_blocks_needed(sites: Sequence[SiteSpec], num_layers: int) -> int:
    """How many of the model's blocks must run so that every one of `sites` exists."""
    return max((num_layers if site.name == FINAL_NORM else site.layer or 0 for site in sites), default=0)


def _layer(site: str) -> int | None:
    return None if site in (EMBED, FINAL_NORM) else int(site.partition(".")[2])


def _depth(site: SiteSpec) -> tuple[float, int]:
    if site.layer is None:
        return (-1.0 if site.name == EMBED else float("inf")), 0
    return site.layer, _IN_BLOCK.index(kind_of(site.name))


def _expand(name: str, model: _Model) -> list[str]:
    """Canonical names of the sites that one asked-for name means."""
    kind, dot, index = name.partition(".")
    if kind not in VOCABULARY or (kind in (EMBED, FINAL_NORM)) == bool(dot):
        raise SiteError(f"Unknown site {name!r}. {_nearest(name, model)}")
    if not dot:
        return [name]
    sites = [f"{kind}.{layer}" for layer in _layers(name, kind, index, model)]
    if kind not in INNER:
        return sites
    there = [site for site in sites if site in model.inner]
    if not there or (index != "*" and there != sites):
        absent = next(site for site in sites if site not in model.inner)
        having = [int(site.partition(".")[2]) for site in model.inner if kind_of(site) == kind]
        raise SiteError(
            f"This model has no {absent!r}: "
            + (f"its blocks {_ranges(having)} have {kind!r}." if having else f"none of its blocks has {kind!r}.")
        )
    return there


def _layers(name: str, kind: str, index: str, model: _Model) -> range:
    first = 0 if kind == "resid" else 1
    if index == "*":
        return range(first, model.num_layers + 1)
    if _NUMBER.fullmatch(index):
        _check_range(name, kind, int(index), model.num_layers)
        return range(int(index), int(index) + 1)
    parts = _SLICE.fullmatch(index)
    if parts is None:
        raise SiteError(f"Unknown site {name!r}. {_nearest(name, model)}")
    start, stop = int(parts["start"] or first), int(parts["stop"] or model.num_layers + 1)
    step = int(parts["step"] or 1)
    if step == 0 or start >= stop:
        raise SiteError(f"Site {name!r} names no layer: {kind}.a:b:step is Python's range(a, b, step), b left out.")
    _check_range(name, kind, start, model.num_layers)
    _check_range(name, kind, stop - 1, model.num_layers)
    return range(start, stop, step)


def _check_range(name: str, kind: str, layer: int, num_layers: int) -> None:
    if kind == "resid" and layer > num_layers:
        raise SiteError(
            f"Site {name!r} asks for layer {layer}; this model has {num_layers} blocks, so resid.k takes k from 0 "
            f"(the input of the first block) to {num_layers} (after the last)."
        )
    if kind != "resid" and not 1 <= layer <= num_layers:
        raise SiteError(f"Site {name!r} asks for block {layer}; this model has the blocks 1 to {num_layers}.")


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers in short: 2-5, 7."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _nearest(name: str, model: _Model) -> str:
    if name in VOCABULARY:
        return f"Did you mean '{name}.*'?"
    numbered = [kind for kind in VOCABULARY if kind not in (EMBED, FINAL_NORM)]
    valid = [EMBED, FINAL_NORM, "resid.*", *(f"resid.{layer}" for layer in range(model.num_layers + 1))]
    valid += [f"{kind}.{layer}" for kind in numbered[1:] for layer in range(1, model.num_layers + 1)]
    close = difflib.get_close_matches(name, valid, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Valid sites of this model: {_valid(model)}."


def _valid(model: _Model) -> str:
    ranges = ", ".join(text.replace("L", str(model.num_layers)) for text in VOCABULARY.values())
    return f"{ranges} (also resid.* and resid.a:b:step, and so for every kind with a number)"
