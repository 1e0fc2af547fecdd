"""Sites: names of points in a model, resolved for one model before it is loaded.

A name is a kind, and for most kinds a block number after a dot. The convention of numbers is fixed and written into
every store: `resid.k` is the residual stream **after k blocks**. `resid.0` is the input of the first block, `resid.L`
is after the last of L blocks and before the final norm, `final_norm` is after it. (Transformers' `hidden_states[k]`
is `resid.k` for k < L, and its last entry is `final_norm`.)

Two short forms expand: `resid.*` is every layer, and `resid.a:b:step` is Python's `range(a, b, step)`: `b` is left
out, and an absent `a`, `b` or `step` means 0, L + 1 and 1.

    resolve_sites(["resid.0:31:15", "final_norm"], num_layers=30, hidden_size=576)
    # resid.0, resid.15, resid.30, final_norm

What can go wrong: every mistake is a `SiteError` that says what this model has. Slices are not clipped: `resid.0:99`
of a model with 30 blocks is refused, because a shorter answer than the one asked for looks like an answer.
"""

import difflib
import re
from collections import Counter
from collections.abc import Sequence

from lrh_ray.errors import SiteError
from lrh_ray.records import SiteSpec

FINAL_NORM = "final_norm"

VOCABULARY = {
    "embed": "embed",
    "resid": "resid.0 … resid.L",
    "attn_out": "attn_out.1 … attn_out.L",
    "mlp_out": "mlp_out.1 … mlp_out.L",
    "mlp_act": "mlp_act.1 … mlp_act.L",
    "heads": "heads.1 … heads.L",
    "router": "router.1 … router.L",
    "experts": "experts.1 … experts.L",
    FINAL_NORM: FINAL_NORM,
}
"""Every kind of site this package has a word for, with its range."""

SUPPORTED = ("resid", FINAL_NORM)
"""The kinds the backends deliver today."""

_NUMBER = re.compile(r"0|[1-9][0-9]*")
_SLICE = re.compile(r"(?P<start>[0-9]*):(?P<stop>[0-9]*)(?::(?P<step>[0-9]*))?")


def resolve_sites(names: Sequence[str], *, num_layers: int, hidden_size: int) -> tuple[SiteSpec, ...]:
    """The sites `names` mean in a model of `num_layers` blocks, ordered by depth.

    Raises `SiteError` for an unknown name, a layer out of range, a site named twice, or no site at all.
    """
    expanded = [site for name in names for site in _expand(name, num_layers)]
    repeated = [site for site, count in Counter(expanded).items() if count > 1]
    if repeated:
        raise SiteError(f"Site {repeated[0]!r} is asked for more than once in {list(names)!r}; name each site once.")
    if not expanded:
        raise SiteError(f"No site is asked for; name at least one of {_supported(num_layers)}.")
    specs = [SiteSpec(name=site, width=hidden_size, layer=_layer(site)) for site in expanded]
    return tuple(sorted(specs, key=lambda spec: num_layers + 1 if spec.layer is None else spec.layer))


def num_blocks_needed(sites: Sequence[SiteSpec], num_layers: int) -> int:
    """How many of the model's blocks must run so that every one of `sites` exists."""
    return max((num_layers if site.layer is None else site.layer for site in sites), default=0)


def _layer(site: str) -> int | None:
    return None if site == FINAL_NORM else int(site.removeprefix("resid."))


def _expand(name: str, num_layers: int) -> list[str]:
    """Canonical names of the sites that one asked-for name means."""
    kind, dot, index = name.partition(".")
    if kind not in VOCABULARY or (kind in ("embed", FINAL_NORM)) == bool(dot):
        raise SiteError(f"Unknown site {name!r}. {_nearest(name, num_layers)}")
    if kind not in SUPPORTED:
        raise SiteError(
            f"Site {name!r} is known, but not supported by this backend yet; supported: {_supported(num_layers)}."
        )
    if kind == FINAL_NORM:
        return [name]
    return [f"resid.{layer}" for layer in _layers(name, index, num_layers)]


def _layers(name: str, index: str, num_layers: int) -> range:
    if index == "*":
        return range(num_layers + 1)
    if _NUMBER.fullmatch(index):
        _check_range(name, int(index), num_layers)
        return range(int(index), int(index) + 1)
    parts = _SLICE.fullmatch(index)
    if parts is None:
        raise SiteError(f"Unknown site {name!r}. {_nearest(name, num_layers)}")
    start, stop, step = int(parts["start"] or 0), int(parts["stop"] or num_layers + 1), int(parts["step"] or 1)
    if step == 0 or start >= stop:
        raise SiteError(f"Site {name!r} names no layer: resid.a:b:step is Python's range(a, b, step), b left out.")
    _check_range(name, stop - 1, num_layers)
    return range(start, stop, step)


def _check_range(name: str, layer: int, num_layers: int) -> None:
    if layer > num_layers:
        raise SiteError(
            f"Site {name!r} asks for layer {layer}; this model has {num_layers} blocks, so resid.k takes k from 0 "
            f"(the input of the first block) to {num_layers} (after the last)."
        )


def _nearest(name: str, num_layers: int) -> str:
    valid = [FINAL_NORM, "resid.*", *(f"resid.{layer}" for layer in range(num_layers + 1))]
    close = difflib.get_close_matches(name, valid, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Valid sites of this model: {_supported(num_layers)}."


def _supported(num_layers: int) -> str:
    return f"resid.0 … resid.{num_layers} (also resid.* and resid.a:b:step), {FINAL_NORM}"
