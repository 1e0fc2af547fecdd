"""Places in a model under the names that other tools have for them.

Ours counts blocks from 1 (`resid.k` is the stream after k blocks), theirs from 0: `resid.13` is TransformerLens'
`blocks.12.hook_resid_post` and `model.layers.12.output` of Gemma Scope 2. A place without a name on the other side
keeps the one it has.
"""

import re

_LENS = {"resid": "hook_resid_post", "attn_out": "hook_attn_out", "mlp_out": "hook_mlp_out"}
_OURS = {hook: kind for kind, hook in _LENS.items()}
_WHOLE = {"embed": "hook_embed", "resid.0": "blocks.0.hook_resid_pre", "final_norm": "ln_final.hook_normalized"}


def lens_name(site: str | None) -> str | None:
    """TransformerLens' name of a site; what is no site of ours stays."""
    if site in _WHOLE:
        return _WHOLE[site]
    found = re.fullmatch(r"(resid|attn_out|mlp_out)\.(\d+)", site or "")
    return f"blocks.{int(found[2]) - 1}.{_LENS[found[1]]}" if found and int(found[2]) else site


def from_lens_name(hook: object) -> str | None:
    """Our site for TransformerLens' name; another name stays, and what is no name is None."""
    if not isinstance(hook, str):
        return None
    whole = {name: site for site, name in _WHOLE.items()}
    if hook in whole:
        return whole[hook]
    found = re.fullmatch(r"blocks\.(\d+)\.(hook_resid_post|hook_attn_out|hook_mlp_out)", hook)
    return f"{_OURS[found[2]]}.{int(found[1]) + 1}" if found else hook


def layer_name(site: str | None) -> str | None:
    """Gemma Scope 2's name of a site of the stream."""
    found = re.fullmatch(r"resid\.(\d+)", site or "")
    return f"model.layers.{int(found[1]) - 1}.output" if found and int(found[1]) else site


def from_layer_name(place: object) -> str | None:
    """Our site for Gemma Scope 2's name."""
    if not isinstance(place, str):
        return None
    found = re.fullmatch(r"model\.layers\.(\d+)\.output", place)
    return f"resid.{int(found[1]) + 1}" if found else place


def block_of(site: str | None) -> int | None:
    """The block whose output a site is, counted from 0 as others do; None for a site without a number."""
    found = re.fullmatch(r"(?:resid|attn_out|mlp_out)\.(\d+)", site or "")
    return int(found[1]) - 1 if found and int(found[1]) else None
