"""Routes: how vLLM gives the asked sites of a model, or why it does not.

vLLM can hand out the residual stream itself (`extract_hidden_states`), compiled and with CUDA graphs, for the model
classes that support it: the route `connector`. Everything else needs forward hooks, which fire in eager mode only: the
route `hooks`. One engine uses one route for all its sites.

    route_of("llama", ["resid.4", "resid.8"])        # "connector"
    route_of("llama", ["resid.4", "attn_out.4"])     # "hooks"

What can go wrong: a site or a family neither route gives is a `SiteError` that names the way out, the transformers
engine. vLLM's auxiliary layer id k is `resid.k`: the stream after k blocks, before the final norm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from lrh_ray.errors import SiteError

Route: TypeAlias = Literal["connector", "hooks"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Where vLLM's model of a family has its named points, below its base model."""

    connector_from: int | None
    """The lowest k of `resid.k` that `extract_hidden_states` gives; None where the class does not support it."""

    attn_out: str = "self_attn"
    """Below a block: the module whose output attention adds to the stream."""

    mlp_out: str = "mlp"
    """Below a block: the module whose output the MLP or the experts add to the stream."""


LAYOUTS: Mapping[str, Layout] = {
    "llama": Layout(connector_from=0),
    "qwen2": Layout(connector_from=0),
    "qwen3": Layout(connector_from=0),
    "mixtral": Layout(connector_from=None, mlp_out="block_sparse_moe"),
    # vLLM adds a residual that does not exist yet before block 1, so resid.0 of these two needs hooks.
    "deepseek_v2": Layout(connector_from=1),
    "deepseek_v3": Layout(connector_from=1),
    "gemma": Layout(connector_from=None),
    "gemma2": Layout(connector_from=None, attn_out="post_attention_layernorm", mlp_out="post_feedforward_layernorm"),
    "gemma3_text": Layout(
        connector_from=None, attn_out="post_attention_layernorm", mlp_out="post_feedforward_layernorm"
    ),
}
"""Families whose rows are compared with transformers' in the conformance suite."""

HOOK_KINDS = ("embed", "resid", "attn_out", "mlp_out", "final_norm")


def layout_of(family: str) -> Layout:
    if family not in LAYOUTS:
        raise SiteError(
            f"The rows of vLLM's {family!r} are not compared with transformers', so it is refused; families: "
            f"{', '.join(sorted(LAYOUTS))}. Use engine: transformers."
        )
    return LAYOUTS[family]


def route_of(family: str, sites: Sequence[str]) -> Route:
    """The route that gives all of `sites`; raises `SiteError`."""
    lowest = layout_of(family).connector_from
    if lowest is not None and all(_kind(site) == "resid" and int(site.partition(".")[2]) >= lowest for site in sites):
        return "connector"
    for site in sites:
        if _kind(site) not in HOOK_KINDS:
            raise SiteError(
                f"vLLM does not give site {site!r}: its attention and experts are fused or sharded. It gives "
                f"{', '.join(HOOK_KINDS)}. Use engine: transformers."
            )
    return "hooks"


def auxiliary_layers(sites: Sequence[str]) -> tuple[int, ...]:
    """VLLM's layer ids of the sites, in the order in which it returns them: ascending, each once."""
    return tuple(sorted({int(site.removeprefix("resid.")) for site in sites}))


def _kind(site: str) -> str:
    return site.partition(".")[0]
