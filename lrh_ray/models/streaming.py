"""Streaming: a model of which only one decoder layer is ever in memory.

A reference forward in float32 must fit beside a model that fills the machine. So the model is built without memory
(torch's meta device), and the float32 weights of a layer are read from the safetensors files just before it runs and
dropped after it. Checkpoints do not store what modules hold (DeepSeek's experts are separate tensors on disk and one
fused tensor in memory); transformers' own conversion is applied to each part, so the names and fusions are exactly
those of an ordinary load.

    model = StreamedModel(checkpoint)
    calls = [model.enter(token_ids) for token_ids in documents]      # embeddings, masks, rotary tables
    with model.layer(0) as layer: ...

Memory: the embedding table, plus one layer in float32. A layer of experts is read whole; one expert at a time would
need a forward of our own per family.

What can go wrong: `CheckpointBroken` for a checkpoint that lacks weights, or holds those of a quantiser other than
block-wise fp8 (`fp8`): what they stand for in float32 is not known.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    convert_and_load_state_dict_in_model,
    rename_source_key,
)
from transformers.modeling_utils import LoadStateDictConfig

from lrh_ray.errors import CheckpointBroken
from lrh_ray.models.checkpoints import Checkpoint
from lrh_ray.models.facts import read_architecture
from lrh_ray.models.families import family_of
from lrh_ray.models.fp8 import SCALE, block_of, from_blocks
from lrh_ray.models.quiet import quiet_transformers
from lrh_ray.models.random_weights import declared_dtype, draw, modules_of_part
from lrh_ray.models.skeleton import skeleton
from lrh_ray.models.taps import first_of
from lrh_ray.vector_math import settle_vector_math


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerCalls:
    """What the model's own forward hands to its blocks for one sequence: the stream into the first, and the rest.

    `stream` is [1, position, feature] float32; `arguments[k]` are the further arguments of block k, positional and
    named (mask, rotary tables, positions).
    """

    stream: Tensor
    arguments: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]


class _Recorder(nn.Module):
    """Stands where a block stands, keeps what it is called with, and passes the stream on unchanged."""

    def __init__(self, tuple_blocks: bool) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, tuple[tuple[Any, ...], dict[str, Any]]]] = []
        self._tuple_blocks = tuple_blocks

    def forward(self, stream: Tensor, *further: Any, **named: Any) -> Tensor | tuple[Tensor, None]:
        self.calls.append((stream, (further, named)))
        return (stream, None) if self._tuple_blocks else stream


class StreamedModel:
    """A checkpoint's base model in float32 on the CPU, with plain (eager) attention, one layer at a time."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        settle_vector_math()
        architecture = read_architecture(checkpoint)
        self._random_seed, self._declared = checkpoint.random_seed, declared_dtype(architecture)
        self._fp8_block = _take_quantization(architecture, checkpoint)
        self.family = family = family_of(architecture.model_type)
        self._path = checkpoint.path
        self._model = _empty_model(architecture)
        self._blocks, self._prefix = self._model.get_submodule(family.layers), family.layers
        self._norm = self._model.get_submodule(family.final_norm)
        self._parts = self._checkpoint_parts() if self._random_seed is None else {}
        with quiet_transformers():
            self._materialise(None)

    @property
    def num_layers(self) -> int:
        return len(list(self._blocks.children()))

    def enter(self, token_ids: Tensor) -> LayerCalls:
        """What the blocks receive for one sequence [position], made by the model's own forward."""
        blocks = list(self._blocks.named_children())
        recorders = [_Recorder(self.family.tuple_blocks) for _ in blocks]
        try:
            for (name, _), recorder in zip(blocks, recorders, strict=True):
                setattr(self._blocks, name, recorder)
            self._model(input_ids=token_ids[None], use_cache=False)
        finally:
            for name, block in blocks:
                setattr(self._blocks, name, block)
        calls = [recorder.calls[0] for recorder in recorders]
        return LayerCalls(stream=calls[0][0], arguments=tuple(arguments for _, arguments in calls))

    def advance(self, layer: nn.Module, stream: Tensor, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> Tensor:
        """The stream after `layer`, which `self.layer` gave."""
        further, named = arguments
        return first_of(layer(stream, *further, **named))

    def embed(self, token_ids: Tensor) -> Tensor:
        """Rows of the token table, [1, position, feature]."""
        table: Tensor = self._model.get_submodule(self.family.embed).weight  # type: ignore[assignment]
        return table[token_ids][None]

    @contextmanager
    def layer(self, index: int) -> Iterator[nn.Module]:
        """Block `index` with its float32 weights, released afterwards."""
        with quiet_transformers():
            self._materialise(index)
        block = self._blocks.get_submodule(str(index))
        try:
            yield block
        finally:
            block.to("meta")

    def final_norm(self, stream: Tensor) -> Tensor:
        normed: Tensor = self._norm(stream)
        return normed

    def _checkpoint_parts(self) -> dict[int | None, dict[str, Path]]:
        """Checkpoint keys of each block, and under None of everything else the base model holds."""
        transforms = self._transforms()
        renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
        converters = [one for one in transforms if isinstance(one, WeightConverter)]
        wanted = self._model.state_dict()
        parts: dict[int | None, dict[str, Path]] = defaultdict(dict)
        self._scales: dict[str, Path] = {}
        for path in sorted(self._path.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 (a safetensors file is not iterable)
                    if key.endswith(SCALE):
                        self._scales[key] = path
                        continue
                    name, _ = rename_source_key(key, renamings, converters, self._model.base_model_prefix, wanted)
                    if name in wanted:
                        parts[self._block_of(name)][key] = path
        return parts

    def _plain(self, key: str, tensor: Tensor) -> Tensor:
        """A stored tensor, or the float32 weights that its fp8 blocks stand for."""
        if tensor.dtype != torch.float8_e4m3fn:
            return tensor
        scale = key + SCALE
        if self._fp8_block is None or scale not in self._scales:
            raise CheckpointBroken(f"The checkpoint {str(self._path)!r} has fp8 weights {key!r} without their scales.")
        with safe_open(self._scales[scale], framework="pt") as file:
            return from_blocks(tensor, file.get_tensor(scale), self._fp8_block)

    def _transforms(self) -> list[WeightConverter | WeightRenaming]:
        """Transformers' conversions of checkpoint keys for this model; fresh ones, because they collect tensors."""
        transforms = get_model_conversion_mapping(self._model)
        return [one for one in transforms if isinstance(one, WeightConverter | WeightRenaming)]

    def _block_of(self, name: str) -> int | None:
        prefix = f"{self._prefix}."
        return int(name.removeprefix(prefix).partition(".")[0]) if name.startswith(prefix) else None

    def _materialise(self, part: int | None) -> None:
        """Read one part's tensors, converted by transformers, as float32; draw them where weights are random."""
        if self._random_seed is not None:
            modules = modules_of_part(self._model, self._prefix, part)
            draw(self._model, modules, seed=self._random_seed, declared=self._declared)
            return
        tensors: dict[str, Tensor] = {}
        by_file: dict[Path, list[str]] = defaultdict(list)
        for key, path in self._parts[part].items():
            by_file[path].append(key)
        for path, keys in by_file.items():
            with safe_open(path, framework="pt") as file:
                tensors.update({key: self._plain(key, file.get_tensor(key)) for key in keys})
        loading = LoadStateDictConfig(dtype=torch.float32, weight_mapping=self._transforms())
        convert_and_load_state_dict_in_model(self._model, tensors, loading)
        missing = [
            name
            for name, tensor in (*self._model.named_parameters(), *self._model.named_buffers())
            if tensor.is_meta and self._block_of(name) == part
        ]
        if missing:
            raise CheckpointBroken(f"The checkpoint {str(self._path)!r} lacks weights, first {missing[0]!r}.")


def _take_quantization(architecture: Any, checkpoint: Checkpoint) -> int | None:
    """Side of the fp8 blocks of a checkpoint, None for plain weights; the architecture is then a plain one."""
    quantization = getattr(architecture, "quantization_config", None)
    if quantization is None:
        return None
    block = block_of(quantization)
    if block is None and checkpoint.random_seed is None:
        raise CheckpointBroken(
            f"The checkpoint {checkpoint.name!r} holds weights of a quantiser whose float32 values are not known; use "
            "its unquantised version. (Block-wise fp8, as DeepSeek's, is known.)"
        )
    del architecture.quantization_config
    return block


def _empty_model(architecture: Any) -> PreTrainedModel:
    """The base model without memory, except for tables that no checkpoint holds (rotary frequencies)."""
    architecture._experts_implementation = "eager"
    model = skeleton(architecture, dtype=torch.float32, attn_implementation="eager")
    for module in model.modules():
        if module._non_persistent_buffers_set:
            module.to_empty(device="cpu", recurse=False)
            model._init_weights(module)  # type: ignore[no-untyped-call]
    return model
