"""Costs of a CPU, measured: one block of the real architecture, random weights, batches of the real shapes.

A CPU has no data sheet worth believing: number format, thread count, width and length of a batch each change its speed
by a factor. So a block of the very architecture runs, for at most about two seconds, on a few batches of the shapes
that the run will have. No weight of the checkpoint is read. The time of a whole pass is what stands outside the blocks
plus the depth times the time of a block.

    pace = measure_pace(architecture, "bfloat16", depth=30, shapes=[(6, 299), (8, 233)], threads=2)
    pace.seconds_per_token          # of a batch, padding counted

What can go wrong: a block too large for that time is timed on fewer tokens, down to one sequence of 16; on a machine
that does other things at the same moment the figure is of that moment. Routers of random weights spread tokens evenly.
"""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig

from lrh_ray.models.families import family_of
from lrh_ray.models.quiet import quiet_transformers

Shape: TypeAlias = tuple[int, int]
"""Sequences of a batch, and its width in tokens."""

SECONDS = 2.0
FEWEST_TOKENS = 16
LARGEST_BLOCK = 1 << 29
OPERATIONS = 40_000_000_000
VOCABULARY = 64
SIDE = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How long a padded token takes from the embedding to the deepest site, on this machine, now."""

    seconds_per_token: float
    tokens_timed: int
    threads: int


def measure_pace(
    architecture: PreTrainedConfig, dtype: str, *, depth: int, shapes: Sequence[Shape], threads: int
) -> Pace | None:
    """Time `shapes`, most typical first; None where one block alone is too large to try (over 512 Mi numbers)."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            block = _one_block(architecture, dtype)
            return None if block is None else _time(block, architecture, dtype, depth, shapes, threads)
    finally:
        torch.set_num_threads(before)


def measure_products(dtype: str, *, threads: int) -> float:
    """Operations per second of this CPU's matrix products, for models whose blocks are too large to try."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        left, right = (torch.randn(SIDE, SIDE).to(getattr(torch, dtype)) for _ in range(2))
        left @ right
        started, number = time.perf_counter(), 0
        while time.perf_counter() - started < SECONDS / 4:
            left @ right
            number += 1
        return 2 * SIDE**3 * number / (time.perf_counter() - started)
    finally:
        torch.set_num_threads(before)


def _time(
    model: Any, architecture: PreTrainedConfig, dtype: str, depth: int, shapes: Sequence[Shape], threads: int
) -> Pace:
    """Each shape runs twice: the first time prepares kernels, which a run pays once a shape and not once a block."""
    clock = _BlockClock(model.get_submodule(family_of(architecture.model_type).layers)[-1])
    width, weights = int(architecture.hidden_size), sum(weight.numel() for weight in model.parameters())
    allowed = max(FEWEST_TOKENS, OPERATIONS // (2 * weights))
    _seconds(model, clock, width, dtype, (1, FEWEST_TOKENS))
    spent, tokens, started = 0.0, 0, time.perf_counter()
    for shape in shapes:
        rows, length = _cut(shape, allowed)
        first, _ = _seconds(model, clock, width, dtype, (rows, length))
        _, block = _seconds(model, clock, width, dtype, (rows, length))
        spent += first + (depth - 1) * block
        tokens += rows * length
        if time.perf_counter() - started > SECONDS:
            break
    return Pace(seconds_per_token=spent / tokens, tokens_timed=tokens, threads=threads)


def _cut(shape: Shape, allowed: int) -> Shape:
    """The shape with fewer sequences, or a shorter one, if it holds more tokens than can be timed."""
    rows, length = shape
    return (min(rows, allowed // length), length) if length <= allowed else (1, allowed)


def _seconds(model: Any, clock: "_BlockClock", width: int, dtype: str, shape: Shape) -> tuple[float, float]:
    """Seconds of a forward pass of random embeddings, and of its last block."""
    rows, length = shape
    stream = torch.randn(rows, length, width).to(getattr(torch, dtype))
    mask = torch.ones(rows, length, dtype=torch.int64)
    mask[-1, length // 2 + 1 :] = 0  # a padded batch, so that attention takes the path it will take
    positions = torch.arange(length).expand(rows, length)
    started = time.perf_counter()
    model(inputs_embeds=stream, attention_mask=mask, position_ids=positions, use_cache=False)
    return time.perf_counter() - started, clock.seconds


class _BlockClock:
    """Times one module in each forward pass."""

    def __init__(self, block: nn.Module) -> None:
        self.seconds = self._started = 0.0
        block.register_forward_pre_hook(self._start)
        block.register_forward_hook(self._stop)

    def _start(self, *_: object) -> None:
        self._started = time.perf_counter()

    def _stop(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started


def _one_block(architecture: PreTrainedConfig, dtype: str) -> Any:
    """The model with its last kind of block alone and next to no vocabulary, or None if that is too large to try."""
    small: Any = copy.deepcopy(architecture)
    small.num_hidden_layers, small.vocab_size, small.pad_token_id = 1, VOCABULARY, None
    if getattr(small, "first_k_dense_replace", 0):
        small.first_k_dense_replace = 0  # dense blocks are few; the one that is timed stands for the others
    if getattr(small, "layer_types", None) is not None:
        small.layer_types = small.layer_types[-1:]
    with torch.device("meta"), quiet_transformers():
        model: Any = AutoModel.from_config(small, dtype=getattr(torch, dtype))  # type: ignore[no-untyped-call]
    if sum(weight.numel() for weight in model.parameters()) > LARGEST_BLOCK:
        return None
    for module in model.modules():
        if any(tensor.is_meta for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))):
            module.to_empty(device="cpu", recurse=False)
            model._init_weights(module)
    for weight in model.parameters():
        weight.normal_(std=1 / np.sqrt(max(weight.shape[-1], 1)))
    return model.eval()
