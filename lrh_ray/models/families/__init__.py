"""Families: where the named points of a model are, one small file per architecture.

This folder is the registry: the file `llama.py` describes every checkpoint whose config.json says
`"model_type": "llama"`, in one constant, `FAMILY`. It holds module paths and nothing else; what hangs on them is the
backend's business. A model type without a file is refused, because guessing its layout would bind a site to the
wrong tensor and every number after that would be wrong without a sign.

    family_of("qwen2").layers        # "layers"
    register("my_llama", family_of("llama"))

What can go wrong: an unknown model type, or a family file that does not import; both are `UnsupportedFamily`, and the
message says which of the two.
"""

import importlib
import pkgutil
from dataclasses import dataclass

from lrh_ray.errors import UnsupportedFamily


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Where the named points are, as module paths below the base model (the one without a language-model head)."""

    layers: str
    """The list of decoder blocks, in order of depth."""

    final_norm: str
    """The norm after the last block; its input is `resid.L`, its output is `final_norm`."""

    embed: str = "embed_tokens"
    """The token table. Its rows are `embed`; what block 1 receives is `resid.0`, with scales and learned positions."""

    attn_out: str = "self_attn"
    """Below a block: the module whose output is what attention adds to the stream (a norm after it, where one is)."""

    mlp_out: str = "mlp"
    """Below a block: the module whose output is what the MLP adds to the stream (a norm after it, where one is)."""

    heads: str = "self_attn.o_proj"
    """Below a block: the output projection of attention, whose input is all heads side by side."""

    mlp_act: str | None = "mlp.down_proj"
    """Below a block: the projection that leaves the MLP, whose input is its activations; not of experts."""

    router: str | None = None
    """Below a block: the module that returns (router logits, weights, expert ids), one row per token."""

    stream: str = "hidden_states"
    """The argument through which a block and the final norm receive the residual stream, first or by this name."""

    tuple_blocks: bool = False
    """Blocks return a tuple that begins with the stream."""


_registered: dict[str, Family] = {}


def register(model_type: str, family: Family) -> None:
    """Describe a further model type in this process; every worker that loads the model must do the same."""
    _registered[model_type] = family


def known_families() -> tuple[str, ...]:
    """Model types with a family file or a registration, sorted."""
    return tuple(sorted({module.name for module in pkgutil.iter_modules(__path__)} | set(_registered)))


def family_of(model_type: str) -> Family:
    """The family of a config.json's `model_type`; raises `UnsupportedFamily`."""
    if model_type in _registered:
        return _registered[model_type]
    if model_type not in known_families():
        raise UnsupportedFamily(
            f"Model type {model_type!r} has no family file, and guessing its layout would bind sites to the wrong "
            f"tensors. Known: {', '.join(known_families())}. To add it, put a file {model_type}.py with a constant "
            "FAMILY into lrh_ray/models/families, or call lrh_ray.models.families.register(model_type, family)."
        )
    try:
        family = importlib.import_module(f"{__name__}.{model_type}").FAMILY
    except (ImportError, AttributeError, SyntaxError) as error:
        raise UnsupportedFamily(
            f"The family file {model_type}.py exists but does not give a FAMILY ({type(error).__name__}: {error}); "
            "repair the file."
        ) from error
    if not isinstance(family, Family):
        raise UnsupportedFamily(f"FAMILY in {model_type}.py is {type(family).__name__!r}; it must be a Family.")
    return family
