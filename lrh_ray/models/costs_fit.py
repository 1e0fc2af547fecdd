"""Fitting: over how many GPUs one replica of a model must be spread, decided before a weight is read.

A replica takes the fewest ranks that hold it, because each further rank costs communication and a replica less.
Candidates are the powers of two that divide the number of GPUs and the number of attention heads.

    choose_tensor_parallel(tree, work, gpu=GPUS["h200"], gpus=8, engine="vllm")     # 2 for a 70 B model

What can go wrong: a model that fits nowhere is `TooLarge`; the message says by how much, and which of more GPUs, a
smaller batch or fewer and shallower sites would mend it.
"""

from lrh_ray.errors import ConfigError, TooLarge
from lrh_ray.models.costs import DeviceMemory, Engine, Gpu, Work, device_memory
from lrh_ray.models.meta_tree import ModelTree

USABLE = 0.9
"""Share of a GPU's memory for us: the rest holds the driver, communication buffers and what the allocator loses."""

MAX_RANKS = 64


def choose_tensor_parallel(tree: ModelTree, work: Work, *, gpu: Gpu, gpus: int, engine: Engine) -> int:
    """The fewest ranks that hold one replica; raises `TooLarge`."""
    for ranks in _candidates(tree, gpus):
        if gpus % ranks == 0 and _fits(tree, work, ranks, gpu, engine):
            return ranks
    raise TooLarge(_refusal(tree, work, gpu=gpu, gpus=gpus, ranks=max(_candidates(tree, gpus)), engine=engine))


def check_tensor_parallel(tree: ModelTree, work: Work, *, ranks: int, gpu: Gpu, gpus: int, engine: Engine) -> int:
    """`ranks` as asked for, if one replica fits; raises `TooLarge`, or `ConfigError` for a number that cannot be."""
    if ranks < 1 or gpus % ranks or tree.num_heads % ranks:
        raise ConfigError(
            f"tensor_parallel is {ranks!r}; it must divide the {gpus} GPUs and the {tree.num_heads} attention heads of "
            f"this model, for example {max(_candidates(tree, gpus))}."
        )
    if not _fits(tree, work, ranks, gpu, engine):
        raise TooLarge(_refusal(tree, work, gpu=gpu, gpus=gpus, ranks=ranks, engine=engine))
    return ranks


def _candidates(tree: ModelTree, gpus: int) -> list[int]:
    powers = [1 << exponent for exponent in range(MAX_RANKS.bit_length())]
    return [ranks for ranks in powers if ranks <= min(gpus, MAX_RANKS) and tree.num_heads % ranks == 0]


def _fits(tree: ModelTree, work: Work, ranks: int, gpu: Gpu, engine: Engine) -> bool:
    return device_memory(tree, work, tensor_parallel=ranks, engine=engine).total <= USABLE * gpu.memory


def _refusal(tree: ModelTree, work: Work, *, gpu: Gpu, gpus: int, ranks: int, engine: Engine) -> str:
    need = device_memory(tree, work, tensor_parallel=ranks, engine=engine)
    enough = [n for n in _candidates(tree, MAX_RANKS) if n > ranks and _fits(tree, work, n, gpu, engine)]
    more = f"use {enough[0]} GPUs with tensor_parallel {enough[0]}" if enough else "use GPUs with more memory"
    return (
        f"One replica over {ranks} of {gpus} x {gpu.name} needs {need.total / 1e9:.1f} GB on each and "
        f"{USABLE * gpu.memory / 1e9:.1f} GB of {gpu.memory / 1e9:.0f} can be used ({_parts(need)}). To make it fit, "
        f"{more}, lower model.batch_tokens ({work.batch_tokens}), or ask for fewer or shallower sites (the deepest is "
        f"at block {work.depth} of {tree.num_layers})."
    )


def _parts(need: DeviceMemory) -> str:
    parts = {
        "weights": need.weights,
        "activations": need.activations,
        "capture": need.capture,
        "KV cache": need.kv_cache,
    }
    return ", ".join(f"{name} {size / 1e9:.1f}" for name, size in parts.items() if size)
