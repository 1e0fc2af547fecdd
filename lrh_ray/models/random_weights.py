"""Random weights: an architecture's own initialisation, the same on every worker and at every depth.

Transformers initialises a model with one stream of random numbers, so the weights of a block depend on all blocks
before it and on how many were built. Here each module draws from a generator of its own, seeded by the run's seed and
the module's name in the base model. So block 3 of a model truncated to 5 blocks is block 3 of the whole one, and a
float32 reference that holds one block at a time draws the same numbers.

    model = random_model(architecture, seed=7, depth=5, dtype=torch.bfloat16, device="cpu")

Weights are drawn on the CPU in float32, and rounded to the number format that config.json declares: random weights are
a checkpoint like the trained one, that nobody has written down. One block at a time is held in float32.

What can go wrong: a module that the architecture does not initialise would keep whatever was in memory; such tensors
begin as NaN, and one that is left is `UnsupportedFamily`. Torch's normal numbers may differ in the last bit between
releases and between kinds of CPU; the parity certificate is made on one machine and does not see that.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from lrh_ray.digests import digest_json
from lrh_ray.errors import UnsupportedFamily
from lrh_ray.models.families import family_of
from lrh_ray.models.skeleton import skeleton
from lrh_ray.vector_math import settle_vector_math

Named = tuple[str, nn.Module]


def random_model(
    architecture: PreTrainedConfig, *, seed: int, depth: int, dtype: torch.dtype, device: str, kind: Any = AutoModel
) -> PreTrainedModel:
    """The model with its first `depth` blocks, all weights drawn; `kind` is AutoModel or AutoModelForCausalLM.

    `architecture` is changed to say `depth`. Cost: about a second for 100 M parameters, on one core.
    """
    whole, declared = int(architecture.num_hidden_layers), declared_dtype(architecture)  # building it changes both
    truncate(architecture, depth)
    model = skeleton(architecture, kind, dtype=dtype)
    layers = family_of(architecture.model_type).layers
    with _declared_depth(model, whole):
        for part in (None, *range(depth)):
            draw(model, modules_of_part(model, layers, part), seed=seed, declared=declared, device=device)
    model.tie_weights()
    return model


def truncate(architecture: PreTrainedConfig, depth: int) -> None:
    """Make a description say `depth` blocks."""
    architecture.num_hidden_layers = depth
    if getattr(architecture, "layer_types", None) is not None:
        architecture.layer_types = architecture.layer_types[:depth]


def declared_dtype(architecture: PreTrainedConfig) -> torch.dtype:
    """The number format of the checkpoint's own weights; float32 where config.json does not say."""
    return architecture.dtype if isinstance(architecture.dtype, torch.dtype) else torch.float32


def modules_of_part(model: PreTrainedModel, layers: str, part: int | None) -> list[Named]:
    """Modules of block `part`, or under None all others, by name in the base model."""
    within = f"{layers}."
    named = [(base_name(model, name), module) for name, module in model.named_modules()]
    if part is None:
        return [(name, module) for name, module in named if not name.startswith(within)]
    block = f"{layers}.{part}"
    return [(name, module) for name, module in named if name == block or name.startswith(f"{block}.")]


def base_name(model: PreTrainedModel, name: str) -> str:
    """A module's name below the base model, whether or not `model` has a head around it."""
    return name.removeprefix(f"{model.base_model_prefix}.")


def draw(
    model: PreTrainedModel, modules: Sequence[Named], *, seed: int, declared: torch.dtype, device: str = "cpu"
) -> None:
    """Give `modules`, parents before children, the weights of `seed` in the number format they have now.

    `model` knows how its architecture initialises; `declared` is the number format of the checkpoint, to which weights
    are rounded first. The global random state is left as it was.
    """
    settle_vector_math()
    formats = {id(module): _materialise(module) for _, module in modules}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for name, module in reversed(modules):
            torch.default_generator.manual_seed(int(digest_json([seed, name])[:15], 16))
            model._init_weights(module)  # type: ignore[no-untyped-call]
    for name, module in modules:
        _refuse_unset(name, module)
        _round(module, formats[id(module)], declared, device)


def _materialise(module: nn.Module) -> dict[str, torch.dtype]:
    """Put NaN in memory where a module has tensors without: float32 for weights; returns the formats they had."""
    formats = {name: one.dtype for name, one in module._parameters.items() if one is not None}
    for name, one in module._parameters.items():
        if one is not None:
            empty = torch.full(one.shape, torch.nan, dtype=torch.float32)
            module._parameters[name] = nn.Parameter(empty, requires_grad=False)
    for name, buffer in module._buffers.items():
        if buffer is not None and buffer.is_meta:
            module._buffers[name] = _nothing(buffer)
    return formats


def _nothing(like: torch.Tensor) -> torch.Tensor:
    if like.is_floating_point():
        return torch.full(like.shape, torch.nan, dtype=like.dtype)
    return torch.zeros(like.shape, dtype=like.dtype)


def _refuse_unset(name: str, module: nn.Module) -> None:
    tensors = {**module._parameters, **module._buffers}
    unset = [own for own, one in tensors.items() if one is not None and bool(torch.isnan(one).any())]
    if unset:
        raise UnsupportedFamily(
            f"The architecture does not say how {unset[0]!r} of the module {name!r} ({type(module).__name__}) begins, "
            "so random weights cannot be drawn for it; use weights: trained."
        )


def _round(module: nn.Module, formats: dict[str, torch.dtype], declared: torch.dtype, device: str) -> None:
    for name, dtype in formats.items():
        drawn = module._parameters[name]
        if drawn is not None:
            rounded = drawn.data.to(declared).to(device=device, dtype=dtype)
            module._parameters[name] = nn.Parameter(rounded, requires_grad=False)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = buffer.to(device)


@contextmanager
def _declared_depth(model: PreTrainedModel, depth: int) -> Iterator[None]:
    """GPT-2 begins with smaller weights the deeper it is: initialisation must see the depth of the whole model."""
    built = model.config.num_hidden_layers
    model.config.num_hidden_layers = depth
    try:
        yield
    finally:
        model.config.num_hidden_layers = built
