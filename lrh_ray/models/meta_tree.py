"""The meta tree: every weight of a model, with its size and how it is shared out, without one of them in memory.

Memory, floating-point operations and the share of each rank all follow from the list of weights. The list comes from
the architecture itself, built on torch's meta device from config.json: a 671 B-parameter model takes a fraction of a
second. Nothing is typed in twice, and what a new family adds is counted without being asked for.

    tree = model_tree(read_architecture(checkpoint), "bfloat16")
    tree.num_parameters                                # 70_553_706_496
    sum(weight.num_bytes for weight in tree.below(40)) # what a run to `resid.40` reads

A weight knows two ways to be split over tensor-parallel ranks: `split` is how a serving engine cuts it, `planned` says
whether transformers' own plan cuts it (DeepSeek's plan leaves attention whole on every rank). Block-fp8 checkpoints
keep the matrices of their blocks in one byte a number, with one float32 scale per tile; embeddings, norms, router and
unembedding stay in the model's number format.

What can go wrong: an architecture whose blocks are not where its family file says is `UnsupportedFamily`.
"""

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig

from lrh_ray.errors import UnsupportedFamily
from lrh_ray.models.families import Family, family_of
from lrh_ray.models.fp8 import block_of
from lrh_ray.models.skeleton import skeleton

Part: TypeAlias = Literal["embed", "block", "norm", "head"]
Split: TypeAlias = Literal["whole", "wide", "kv_heads", "experts", "vocabulary"]
ITEMSIZE = {"bfloat16": 2, "float16": 2, "float32": 4}
FP8_SCALE_BYTES = 4
SPLIT_STYLES = ("colwise", "rowwise", "packed_colwise", "embedding_rowwise")


@dataclass(frozen=True, kw_only=True, slots=True)
class Weight:
    """One parameter tensor. `active` is the share of it that one token multiplies with: 0 for a look-up table."""

    name: str
    part: Part
    layer: int
    """Number of its block, from 1; 0 outside the blocks."""
    num: int
    num_bytes: int
    active: float
    split: Split
    planned: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelTree:
    """A model's weights and the few widths that its costs depend on."""

    model_type: str
    num_layers: int
    hidden_size: int
    itemsize: int
    weights: tuple[Weight, ...]
    unembedding: int
    """Multiplications per token of the unembedding, which may share its matrix with the embedding."""
    attention_width: int
    """Mean of the widths of queries and of values, over all heads: what attention multiplies per pair of tokens."""
    kv_values: int
    """Numbers per token and block that an engine's KV cache holds."""
    kv_heads: int
    """Ranks over which that cache can be split; 1 for latent attention, which every rank keeps whole."""
    num_heads: int

    @property
    def num_parameters(self) -> int:
        return sum(weight.num for weight in self.weights)

    @property
    def has_experts(self) -> bool:
        return any(weight.split == "experts" for weight in self.weights)

    def below(self, depth: int) -> Iterator[Weight]:
        """What a run that stops after `depth` blocks needs: embeddings, blocks, the final norm; no unembedding."""
        return (weight for weight in self.weights if weight.part != "head" and weight.layer <= depth)


def model_tree(architecture: PreTrainedConfig, dtype: str) -> ModelTree:
    """Build the model on the meta device and read its weights off; `dtype` is the number format of unquantised ones."""
    family = family_of(architecture.model_type)
    model = skeleton(architecture, AutoModelForCausalLM)
    reader = _Reader(
        family=family,
        prefix=f"{model.base_model_prefix}.",
        plan=architecture.base_model_tp_plan or {},
        itemsize=ITEMSIZE[dtype],
        tile=block_of(getattr(architecture, "quantization_config", None)),
        expert_share=_expert_share(architecture),
    )
    weights = tuple(reader.weight(name, tensor) for name, tensor in model.named_parameters())
    num_layers = int(architecture.num_hidden_layers)
    if {weight.layer for weight in weights} != set(range(num_layers + 1)):
        raise UnsupportedFamily(
            f"The family file of {architecture.model_type!r} says the blocks are at {family.layers!r}, and there this "
            f"architecture has not {num_layers} of them. Correct the family file."
        )
    queries, values, kv_values, kv_heads = _attention(architecture)
    return ModelTree(
        model_type=architecture.model_type,
        num_layers=num_layers,
        hidden_size=int(architecture.hidden_size),
        itemsize=ITEMSIZE[dtype],
        weights=weights,
        unembedding=int(architecture.vocab_size) * int(architecture.hidden_size),
        attention_width=(queries + values) // 2,
        kv_values=kv_values,
        kv_heads=kv_heads,
        num_heads=int(architecture.num_attention_heads),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reader:
    """What decides how one weight is counted."""

    family: Family
    prefix: str
    plan: Mapping[str, str]
    itemsize: int
    tile: int | None
    expert_share: float

    def weight(self, full_name: str, tensor: nn.Parameter) -> Weight:
        name = full_name.removeprefix(self.prefix)
        part, layer = self._place(name, in_base=full_name.startswith(self.prefix))
        split = self._split(name, part, tensor)
        active = {"embed": 0.0, "norm": 0.0}.get(part, self.expert_share if split == "experts" else 1.0)
        return Weight(
            name=name,
            part=part,
            layer=layer,
            num=tensor.numel(),
            num_bytes=self._bytes(name, part, tensor),
            active=active if tensor.ndim > 1 else 0.0,
            split=split,
            planned=self._planned(name),
        )

    def _place(self, name: str, *, in_base: bool) -> tuple[Part, int]:
        inside = f"{self.family.layers}."
        if not in_base:
            return "head", 0
        if name.startswith(inside):
            return "block", int(name.removeprefix(inside).partition(".")[0]) + 1
        return ("norm" if name.startswith(f"{self.family.final_norm}.") else "embed"), 0

    def _split(self, name: str, part: Part, tensor: nn.Parameter) -> Split:
        if tensor.ndim < 2 or self._is_router(name) or "_a_proj" in name:
            return "whole"
        if part == "head":
            return "vocabulary"
        if part == "embed":
            return "vocabulary" if name.startswith(f"{self.family.embed}.") else "whole"
        if ".experts." in name:
            return "experts"
        return "kv_heads" if ".k_proj." in name or ".v_proj." in name else "wide"

    def _is_router(self, name: str) -> bool:
        return self.family.router is not None and f".{self.family.router}." in name

    def _bytes(self, name: str, part: Part, tensor: nn.Parameter) -> int:
        if self.tile is None or part != "block" or tensor.ndim < 2 or self._is_router(name):
            return tensor.numel() * self.itemsize
        rows, columns = tensor.shape[-2:]
        tiles = -(-rows // self.tile) * -(-columns // self.tile) * (tensor.numel() // (rows * columns))
        return tensor.numel() + tiles * FP8_SCALE_BYTES

    def _planned(self, name: str) -> bool:
        """Whether transformers' tensor-parallel plan splits this weight; it names modules, or parameters of experts."""
        module = name.removesuffix(".weight")
        return any(
            style in SPLIT_STYLES and fnmatch.fnmatchcase(module, pattern) for pattern, style in self.plan.items()
        )


def _expert_share(architecture: PreTrainedConfig) -> float:
    """Routed experts that see a token, of all."""
    numbers: Any = architecture.to_dict()
    experts = numbers.get("n_routed_experts") or numbers.get("num_local_experts") or numbers.get("num_experts")
    return float(numbers["num_experts_per_tok"]) / float(experts) if experts else 1.0


def _attention(architecture: PreTrainedConfig) -> tuple[int, int, int, int]:
    """Widths of all queries and all values, numbers per token in a KV cache, and over how many ranks it splits."""
    numbers: Any = architecture.to_dict()
    heads = int(architecture.num_attention_heads)
    latent = numbers.get("kv_lora_rank")
    if latent:
        rotary, plain = int(numbers["qk_rope_head_dim"]), int(numbers["qk_nope_head_dim"])
        return heads * (rotary + plain), heads * int(numbers["v_head_dim"]), int(latent) + rotary, 1
    head_dim = int(numbers.get("head_dim") or architecture.hidden_size // heads)
    kv_heads = int(numbers.get("num_key_value_heads") or heads)
    return heads * head_dim, heads * head_dim, 2 * kv_heads * head_dim, kv_heads
