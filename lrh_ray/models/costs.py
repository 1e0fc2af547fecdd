"""Costs: how fast a model delivers rows, what limits it, and what it needs on each device. Pure functions of records.

Three things limit an extraction: the model (floating-point operations), the link from device to host, the sink that
takes the bytes. Each is a rate in tokens per second; the run goes at the smallest. The best ratio to a forward pass
that writes nothing is therefore r_max = min(1, link, sink over model), known before anything runs.

    flops = flops_per_token(tree, depth=80, attended=2048, logits=False)
    speed = gpu_speed(tree, work, fleet)
    speed.bottleneck, speed.r_max              # "sink", 0.27

Operations of one token (multiplication and addition count as two): 2 for every weight that it meets, plus causal
attention, 2 * blocks * width * attended, where `attended` is the length of the document that the token stands in (it
sees half of it, for scores and for values). A table look-up costs nothing. Extraction needs no logits, so the
unembedding is counted only for a bare forward pass (`logits=True`).

Device memory of one rank: its share of the weights, what one batch makes inside a block, the captured rows on their
way out, and for an engine the KV cache of the tokens in flight, with the hidden states that it keeps at full width.

What can go wrong: utilisation of a GPU is an assumption (half of the peak for dense models, a quarter for experts, from
published prefill figures), so times are good to a factor of about 1.5 until it is measured; pass the measured one.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from lrh_ray.models.meta_tree import ModelTree, Weight
from lrh_ray.models.pinned import SLOTS

UTILISATION = {"transformers": {False: 0.4, True: 0.2}, "vllm": {False: 0.5, True: 0.25}}
"""Share of a GPU's peak that a forward pass reaches, by engine and by whether the model has experts; an assumption."""

Engine: TypeAlias = Literal["transformers", "vllm"]
Limit: TypeAlias = Literal["model", "link", "sink"]
ENGINE_COPIES = 2
CACHED_DTYPE_BYTES = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """A type of GPU: dense bfloat16 operations per second, bytes of memory, bytes per second to the host."""

    name: str
    flops: float
    memory: float
    link: float


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu(name="l4", flops=121e12, memory=24e9, link=25e9),
        Gpu(name="a100-80", flops=312e12, memory=80e9, link=25e9),
        Gpu(name="h100", flops=989e12, memory=80e9, link=50e9),
        Gpu(name="h200", flops=989e12, memory=141e9, link=50e9),
    )
}
"""Data sheets: dense bfloat16, no sparsity; the link is PCIe x16, generation 4 or 5, as it is reached in practice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What is asked of a model."""

    tokens: int
    depth: int
    """Blocks that are loaded and run: up to the deepest site with transformers, all of them with vLLM."""
    row_bytes: int
    """Bytes of one token at all sites, as the model makes them."""
    widest_bytes: int
    """Bytes of one token at the widest site."""
    batch_tokens: int
    attended: float
    """Mean over tokens of the length of their document."""
    longest: int
    """Tokens of the longest document; it is a batch of its own if it exceeds `batch_tokens`."""
    logits: bool = False
    """Whether the unembedding runs too."""
    padding: float = 1.0
    """Tokens that the model computes for each row that is kept: padding, and context of which no row is kept."""

    @property
    def tokens_at_once(self) -> int:
        return max(self.batch_tokens, self.longest)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fleet:
    """Which GPUs, and how they share the work: `gpus // tensor_parallel` replicas of the model."""

    gpu: Gpu
    gpus: int
    tensor_parallel: int
    engine: Engine
    utilisation: float
    """Share of the peak operations that a forward pass reaches."""
    sink: float
    """Bytes per second that the sink takes from all replicas together."""

    @property
    def replicas(self) -> int:
        return self.gpus // self.tensor_parallel


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Tokens per second that each of the three could do alone, all replicas together."""

    model: float
    link: float
    sink: float

    @property
    def bottleneck(self) -> Limit:
        rates: dict[Limit, float] = {"model": self.model, "link": self.link, "sink": self.sink}
        return min(rates, key=rates.__getitem__)

    @property
    def tokens_per_second(self) -> float:
        return min(self.model, self.link, self.sink)

    @property
    def r_max(self) -> float:
        """The best possible ratio to the same forward pass with nothing taken out."""
        return self.tokens_per_second / self.model


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceMemory:
    """Bytes on one rank."""

    weights: int
    activations: int
    capture: int
    kv_cache: int

    @property
    def total(self) -> int:
        return self.weights + self.activations + self.capture + self.kv_cache


def active_weights(tree: ModelTree, depth: int, *, logits: bool) -> float:
    """Weights that one token is multiplied with, up to `depth` blocks."""
    blocks = sum(
        weight.num * weight.active for weight in tree.weights if weight.part == "block" and weight.layer <= depth
    )
    return blocks + (tree.unembedding if logits else 0)


def flops_per_token(tree: ModelTree, *, depth: int, attended: float, logits: bool) -> float:
    """Floating-point operations of one token's forward pass to `depth` blocks."""
    return 2 * active_weights(tree, depth, logits=logits) + 2 * depth * tree.attention_width * attended


def gpu_speed(tree: ModelTree, work: Work, fleet: Fleet) -> Speed:
    """What model, link and sink can do. An engine's ranks each copy their share of a row, so links add up there."""
    flops = flops_per_token(tree, depth=work.depth, attended=work.attended, logits=work.logits)
    links = fleet.gpus if fleet.engine == "vllm" else fleet.replicas
    return Speed(
        model=fleet.gpus * fleet.gpu.flops * fleet.utilisation / (flops * work.padding) if flops else float("inf"),
        link=links * fleet.gpu.link / work.row_bytes,
        sink=fleet.sink / work.row_bytes,
    )


def device_memory(tree: ModelTree, work: Work, *, tensor_parallel: int, engine: Engine) -> DeviceMemory:
    """What one rank of a replica needs."""
    ranks = tensor_parallel
    kept = CACHED_DTYPE_BYTES * tree.kv_values * work.depth // min(ranks, tree.kv_heads)
    return DeviceMemory(
        weights=sum(_rank_bytes(weight, tree, ranks, engine) for weight in loaded(tree, work.depth, engine)),
        activations=work.tokens_at_once * activation_bytes(tree, work.depth, tensor_parallel=ranks),
        capture=work.tokens_at_once * _captured(work, engine),
        kv_cache=work.tokens_at_once * kept if engine == "vllm" else 0,
    )


def loaded(tree: ModelTree, depth: int, engine: Engine) -> tuple[Weight, ...]:
    """What is read: up to `depth` blocks and no unembedding, or everything, which an engine insists on."""
    return tree.weights if engine == "vllm" else tuple(tree.below(depth))


def activation_bytes(tree: ModelTree, depth: int, *, tensor_parallel: int = 1) -> int:
    """Bytes per token that live at once inside the widest block: the stream and its norm, and every matrix's output."""
    inner = [0.0] * (depth + 1)
    for weight in tree.weights:
        if weight.part == "block" and weight.layer <= depth:
            inner[weight.layer] += weight.num * weight.active / tree.hidden_size
    return int((2 * tree.hidden_size + max(inner) / tensor_parallel) * tree.itemsize)


def _captured(work: Work, engine: Engine) -> int:
    """Bytes per token of a batch that wait on the device: an engine's own pages of all sites and their staging copy, or
    the copies under way of some sites."""
    return ENGINE_COPIES * work.row_bytes if engine == "vllm" else min(SLOTS * work.widest_bytes, work.row_bytes)


def _rank_bytes(weight: Weight, tree: ModelTree, ranks: int, engine: Engine) -> int:
    if engine == "transformers":
        return -(-weight.num_bytes // ranks) if weight.planned else weight.num_bytes
    if weight.split == "whole":
        return weight.num_bytes
    return -(-weight.num_bytes // (min(ranks, tree.kv_heads) if weight.split == "kv_heads" else ranks))
