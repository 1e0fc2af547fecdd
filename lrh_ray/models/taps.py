"""Taps: which module of a loaded model shows which site, and how to listen there.

    taps = find_taps(model, family, sites, depth)
    with listening(taps, deliver):          # deliver(site, tensor) once per tap and forward pass
        model(input_ids=...)

A tensor is delivered as the module has it, [..., feature], where the leading axes are all tokens of the batch in its
order (routers flatten them). It is the model's own memory, which later layers may change: a listener copies at once.

`embed` is not heard but looked up: the token table's own row, which some models scale before they use it.

What can go wrong: a module that a family file names and the forward pass does not use delivers nothing; callers count
rows.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from lrh_ray.models.families import Family
from lrh_ray.models.sites import EMBED, FINAL_NORM, kind_of
from lrh_ray.records import SiteSpec

Deliver: TypeAlias = Callable[[str, torch.Tensor], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tap:
    """A module whose input or output is the value at a site."""

    site: str
    module: nn.Module
    side: Literal["input", "output"]
    stream: str
    """Name of the argument that is the input."""
    item: int = 0
    """Which part of an output that is a tuple."""


def find_taps(model: nn.Module, family: Family, sites: Sequence[SiteSpec], depth: int) -> tuple[Tap, ...]:
    """Taps of all sites but `embed`, in a model truncated to `depth` blocks."""
    blocks, norm = model.get_submodule(family.layers), model.get_submodule(family.final_norm)
    taps = []
    for site in sites:
        kind, layer = kind_of(site.name), site.layer or 0
        if kind == FINAL_NORM:
            taps.append(Tap(site=site.name, module=norm, side="output", stream=family.stream))
        elif kind == "resid":
            module = norm if layer == depth else blocks.get_submodule(str(layer))
            taps.append(Tap(site=site.name, module=module, side="input", stream=family.stream))
        elif kind != EMBED:
            taps.append(block_tap(site.name, blocks.get_submodule(str(layer - 1)), family))
    return tuple(taps)


def block_tap(site: str, block: nn.Module, family: Family) -> Tap:
    """The tap of a site inside a block."""
    paths: dict[str, tuple[str | None, Literal["input", "output"], int]] = {
        "heads": (family.heads, "input", 0),
        "attn_out": (family.attn_out, "output", 0),
        "router": (family.router, "output", 0),
        "experts": (family.router, "output", 2),
        "mlp_act": (family.mlp_act, "input", 0),
        "mlp_out": (family.mlp_out, "output", 0),
    }
    path, side, item = paths[kind_of(site)]
    return Tap(site=site, module=block.get_submodule(path or ""), side=side, stream=family.stream, item=item)


def first_of(output: Any, item: int = 0) -> torch.Tensor:
    """The tensor that a module returned, alone or in a tuple."""
    tensor: torch.Tensor = output[item] if isinstance(output, tuple) else output
    return tensor


@contextmanager
def listening(taps: Sequence[Tap], deliver: Deliver) -> Iterator[None]:
    """Inside the block, `deliver(site, tensor)` is called for every tap of every forward pass."""
    handles = []
    for tap in taps:
        if tap.side == "output":
            handles.append(tap.module.register_forward_hook(partial(_on_output, tap, deliver)))
        else:
            handles.append(tap.module.register_forward_pre_hook(partial(_on_input, tap, deliver), with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _on_input(tap: Tap, deliver: Deliver, _module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
    deliver(tap.site, args[0] if args else named[tap.stream])


def _on_output(tap: Tap, deliver: Deliver, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
    deliver(tap.site, first_of(output, tap.item))
