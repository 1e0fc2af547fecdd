"""Skeletons: a model's modules without its weights, from its config.json alone.

Torch's meta device builds a model of any size in a second and in no memory. It answers what a config.json says only
between the lines: which blocks have experts, how wide the input of an output projection is.

    inner_widths(architecture)       # {"heads.1": 576, "mlp_act.1": 1536, ...}

What can go wrong: a family file that points at modules which the architecture does not have gives no width, and the
site is then refused as one that this model lacks.
"""

from typing import Any

import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from lrh_ray.models.families import Family, family_of
from lrh_ray.models.quiet import quiet_transformers


def skeleton(architecture: PreTrainedConfig, kind: Any = AutoModel, **options: Any) -> PreTrainedModel:
    """The model on the meta device, in evaluation mode; `kind` is AutoModel, or AutoModelForCausalLM with the head."""
    with torch.device("meta"), quiet_transformers():
        model: PreTrainedModel = kind.from_config(architecture, **options)
    return model.eval()  # type: ignore[no-untyped-call, no-any-return]


def inner_widths(architecture: PreTrainedConfig) -> dict[str, int]:
    """Widths of the sites `heads`, `router`, `experts` and `mlp_act` of every block that has them, by name."""
    family = family_of(architecture.model_type)
    blocks = skeleton(architecture).get_submodule(family.layers)
    widths: dict[str, int] = {}
    for number, block in enumerate(blocks.children(), start=1):
        for kind, width in _widths_of_block(block, family, architecture):
            widths[f"{kind}.{number}"] = width
    return widths


def submodule(module: nn.Module, path: str | None) -> nn.Module | None:
    """The module at `path`, or None where there is none."""
    try:
        return module.get_submodule(path) if path else None
    except AttributeError:
        return None


def _widths_of_block(block: nn.Module, family: Family, architecture: PreTrainedConfig) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    router = submodule(block, family.router)
    if router is not None:
        found.append(("router", len(router.weight)))  # type: ignore[arg-type]
        found.append(("experts", int(architecture.num_experts_per_tok)))
    for kind, path in (("heads", family.heads), ("mlp_act", family.mlp_act)):
        projection = submodule(block, path)
        if projection is not None:
            found.append((kind, _num_inputs(projection)))
    return found


def _num_inputs(projection: nn.Module) -> int:
    """Of a Linear ([outputs, inputs]), or of GPT-2's Conv1D ([inputs, outputs])."""
    shape = projection.weight.shape
    return int(shape[1] if isinstance(projection, nn.Linear) else shape[0])  # type: ignore[index]
