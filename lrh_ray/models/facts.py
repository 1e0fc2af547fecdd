"""Facts: what a plan must know about a model, from its config.json alone.

A plan is sealed before any weight is read, so width, depth, window, number format and the list of sites come from
the checkpoint's description. What would fail on a hundred workers fails here, at once: an unknown family, a site
that this model does not have, a number format nobody declared.

    facts = model_facts(resolve_checkpoint("smollm2"), ModelConfig(name="smollm2"), ["resid.*", "final_norm"])
    facts.num_layers, facts.hidden_size, facts.window        # 30, 576, 8192

What can go wrong: `CheckpointBroken`, `UnsupportedFamily`, `SiteError`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, cast, get_args

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig

from lrh_ray.errors import CheckpointBroken, SiteError
from lrh_ray.models.checkpoints import Checkpoint, checkpoint_digest, tokenizer_digest
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.families import family_of
from lrh_ray.models.sites import asks_inside_blocks, kind_of, resolve_sites
from lrh_ray.records import ModelFacts, SiteSpec

DtypeName: TypeAlias = Literal["bfloat16", "float16", "float32"]
EXACT_IDS: Mapping[DtypeName, int] = {"bfloat16": 257, "float16": 2049, "float32": 1 << 24}
"""Whole numbers below this are exact."""


def model_facts(checkpoint: Checkpoint, config: ModelConfig, sites: Sequence[str]) -> ModelFacts:
    """Identity, size and sites of a model; reads config.json, and hashes the checkpoint once per machine."""
    architecture = read_architecture(checkpoint)
    num_layers, hidden_size = int(architecture.num_hidden_layers), int(architecture.hidden_size)
    dtype = resolved_dtype(architecture, config)
    return ModelFacts(
        name=checkpoint.name,
        digest=checkpoint_digest(checkpoint),
        tokenizer_digest=tokenizer_digest(checkpoint),
        family=architecture.model_type,
        num_layers=num_layers,
        hidden_size=hidden_size,
        window=int(architecture.max_position_embeddings),
        dtype=dtype,
        sites=sites_of(architecture, sites, dtype),
    )


def sites_of(architecture: PreTrainedConfig, sites: Sequence[str], dtype: DtypeName) -> tuple[SiteSpec, ...]:
    """The sites that names mean in an architecture whose rows have that number format."""
    return resolve_sites(
        sites,
        num_layers=int(architecture.num_hidden_layers),
        hidden_size=int(architecture.hidden_size),
        inner=_inner_widths(architecture, sites, dtype),
    )


def _inner_widths(architecture: PreTrainedConfig, sites: Sequence[str], dtype: DtypeName) -> dict[str, int]:
    """Widths of sites inside blocks; the model's skeleton is built only if one of them is asked for."""
    if not asks_inside_blocks(sites):
        return {}
    from lrh_ray.models.skeleton import inner_widths

    widths = inner_widths(architecture)
    _refuse_inexact_ids(architecture, sites, widths, dtype)
    return widths


def _refuse_inexact_ids(
    architecture: PreTrainedConfig, sites: Sequence[str], widths: Mapping[str, int], dtype: DtypeName
) -> None:
    """Ids of experts are kept in the floating-point type of the rows, which must hold each of them."""
    num_experts = max((width for site, width in widths.items() if kind_of(site) == "router"), default=0)
    if num_experts > EXACT_IDS[dtype] and any(kind_of(site) == "experts" for site in sites):
        raise SiteError(
            f"{architecture.model_type!r} has {num_experts} experts, and {dtype} is exact only below "
            f"{EXACT_IDS[dtype]}. Set model.dtype: float32 to keep 'experts', or ask for 'router'."
        )


def read_architecture(checkpoint: Checkpoint) -> PreTrainedConfig:
    """The checkpoint's config.json with its architecture's defaults; refused unless a family file describes it."""
    path = checkpoint.path / "config.json"
    try:
        model_type = json.loads(path.read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointBroken(f"{str(path)!r} is not a model description: it does not say its model_type.") from error
    family_of(str(model_type))
    try:
        architecture = cast(PreTrainedConfig, AutoConfig.from_pretrained(checkpoint.path, local_files_only=True))
    except (OSError, ValueError, TypeError, StrictDataclassError) as error:
        raise CheckpointBroken(f"{str(path)!r} is refused by transformers: {error}") from error
    if getattr(architecture, "attn_logit_softcapping", None) is not None:
        architecture._attn_implementation = "eager"  # torch's fused attention leaves the cap of scores out, silently
    return architecture


def resolved_dtype(architecture: PreTrainedConfig, config: ModelConfig) -> DtypeName:
    """The number format of weights and rows: the asked-for one, or the checkpoint's own for `auto`."""
    if config.dtype != "auto":
        return config.dtype
    declared = str(architecture.dtype).removeprefix("torch.")
    if declared not in get_args(DtypeName):
        raise CheckpointBroken(
            f"The checkpoint of {config.name!r} declares the dtype {declared!r}; set the model's dtype to one of "
            f"{', '.join(get_args(DtypeName))}."
        )
    return cast(DtypeName, declared)
