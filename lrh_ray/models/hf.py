"""The transformers backend: hooks on a truncated model, padded batches, rows straight to the sink.

Only the blocks below the deepest requested site are loaded and run: a probe at mid-depth costs half a forward, and
no logits are ever computed. Hooks read the residual stream where it enters a block (`resid.k`, k < depth), where it
enters the final norm (`resid.depth`: what enters it is the output of the last block that is left) and where it
leaves the norm (`final_norm`).

    backend = TransformersBackend(checkpoint, ModelConfig(name="smollm2", threads=2), sites)
    backend.forward(block, sink)

Batches are padded on the right under a causal mask, so padding is never seen by a real token, and positions are
passed explicitly; documents cannot see one another because each has a batch row of its own. Rows leave the model
without a number being converted: bfloat16 stays bfloat16, and on a CPU the sink sees the model's own memory.

What can go wrong: a checkpoint that lacks weights of its architecture is `CheckpointBroken` (transformers would fill
them with random numbers and a warning). On a GPU the copy to host memory waits for the forward pass. The number of
threads belongs to the process; `close` restores it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast, final

import ml_dtypes
import numpy as np
import torch
import transformers
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from lrh_ray.errors import CheckpointBroken, ConfigError, SiteError
from lrh_ray.models.backend import Backend, BackendFacts
from lrh_ray.models.batches import plan_batches
from lrh_ray.models.checkpoints import Checkpoint
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.facts import DtypeName, read_architecture, resolved_dtype
from lrh_ray.models.families import Family, family_of
from lrh_ray.models.quiet import quiet_transformers
from lrh_ray.models.sink import RowSink
from lrh_ray.models.sites import FINAL_NORM, num_blocks_needed
from lrh_ray.records import SiteSpec, TokenBatch

PADDING_ID = 0
"""Any valid token: the causal mask hides what stands right of a sequence, and its rows are not read."""


@final
class TransformersBackend(Backend):
    """One model on one device, loaded up to the deepest of its sites."""

    def __init__(self, checkpoint: Checkpoint, config: ModelConfig, sites: Sequence[SiteSpec]) -> None:
        architecture = read_architecture(checkpoint)
        self._family = family_of(architecture.model_type)
        self._dtype: DtypeName = resolved_dtype(architecture, config)
        self._device = _device(config)
        self._batch_tokens = config.batch_tokens
        self._threads_before = torch.get_num_threads()
        depth = num_blocks_needed(sites, int(architecture.num_hidden_layers))
        self._model = _load_truncated(checkpoint, architecture, depth, self._dtype)
        self._model.to(torch.device(self._device))  # type: ignore[arg-type]  # transformers wraps `to` without its types
        self._taps = _taps(self._model, self._family, sites, depth)
        if config.threads is not None:
            torch.set_num_threads(config.threads)

    def describe(self) -> BackendFacts:
        return BackendFacts(
            engine="transformers",
            version=transformers.__version__,
            dtype=self._dtype,
            device=self._device,
            repeatable="bytes" if self._device == "cpu" else "values",
            attention=str(self._model.config._attn_implementation),
        )

    def forward(self, block: TokenBatch, sink: RowSink) -> int:
        written: Counter[str] = Counter()
        with torch.inference_mode():
            for members in plan_batches(block.lengths, self._batch_tokens):
                delivery = _Delivery(block=block, members=members, sink=sink, written=written)
                with _listening(self._taps, self._family.stream, delivery.write):
                    self._model(**_padded(block, members, self._device), use_cache=False)
        for tap in self._taps:
            if written[tap.site] != block.num_tokens:
                raise SiteError(
                    f"Site {tap.site!r} gave {written[tap.site]} of {block.num_tokens} rows; the family file of "
                    f"{self._model.config.model_type!r} points at a module that the forward pass does not use."
                )
        return block.num_tokens

    def close(self) -> None:
        del self._model, self._taps
        torch.set_num_threads(self._threads_before)
        if self._device == "cuda":
            torch.cuda.empty_cache()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tap:
    """A module whose input or output is the residual stream at a site."""

    site: str
    module: torch.nn.Module
    side: Literal["input", "output"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Delivery:
    """Where the rows of one batch go."""

    block: TokenBatch
    members: np.ndarray
    sink: RowSink
    written: Counter[str]

    def write(self, site: str, stream: torch.Tensor) -> None:
        """Hand over the rows of each sequence of a [sequence, position, feature] tensor, without padding."""
        host = as_numpy(stream)
        for row, sequence in enumerate(self.members):
            offset, stop = int(self.block.starts[sequence]), int(self.block.starts[sequence + 1])
            self.sink.write(site, offset, host[row, : stop - offset])
            self.written[site] += stop - offset


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The same numbers in host memory as NumPy; bfloat16 becomes `ml_dtypes.bfloat16` without conversion."""
    host = tensor.detach().to("cpu")
    if host.dtype == torch.bfloat16:
        return host.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return host.numpy()


def _device(config: ModelConfig) -> str:
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise ConfigError("device is 'cuda', but this machine offers torch no GPU; use device: auto or device: cpu.")
    return "cuda" if available and config.device != "cpu" else "cpu"


def _load_truncated(
    checkpoint: Checkpoint, architecture: PreTrainedConfig, depth: int, dtype: DtypeName
) -> PreTrainedModel:
    """The base model with its first `depth` blocks; the rest of the checkpoint is not read."""
    architecture.num_hidden_layers = depth
    if getattr(architecture, "layer_types", None) is not None:
        architecture.layer_types = architecture.layer_types[:depth]
    with quiet_transformers():
        model, report = AutoModel.from_pretrained(
            checkpoint.path,
            config=architecture,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    wrong = sorted(map(str, (*report["missing_keys"], *report["mismatched_keys"])))
    if wrong:
        raise CheckpointBroken(
            f"The checkpoint {str(checkpoint.path)!r} lacks {len(wrong)} weights of its architecture, or has them in "
            f"another shape: {', '.join(wrong[:3])} ... Download or convert it again."
        )
    return cast(PreTrainedModel, model.eval())


def _padded(block: TokenBatch, members: np.ndarray, device: str) -> dict[str, torch.Tensor]:
    """Right-padded token ids, positions and attention mask of one batch, each [sequence, position]."""
    lengths = block.lengths[members]
    shape = (len(members), int(lengths.max()))
    token_ids = np.full(shape, PADDING_ID, dtype=np.int64)
    positions = np.broadcast_to(np.arange(shape[1], dtype=np.int64), shape).copy()
    for row, sequence in enumerate(members):
        tokens = slice(int(block.starts[sequence]), int(block.starts[sequence + 1]))
        token_ids[row, : lengths[row]] = block.token_ids[tokens]
        positions[row, : lengths[row]] = block.positions[tokens]
    real = np.arange(shape[1]) < lengths[:, None]
    arrays = {"input_ids": token_ids, "position_ids": positions, "attention_mask": real.astype(np.int64)}
    return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}


def _taps(model: PreTrainedModel, family: Family, sites: Sequence[SiteSpec], depth: int) -> tuple[_Tap, ...]:
    """Which module shows which site, in a model truncated to `depth` blocks."""
    layers, norm = model.get_submodule(family.layers), model.get_submodule(family.final_norm)
    taps = []
    for site in sites:
        if site.name == FINAL_NORM:
            taps.append(_Tap(site=site.name, module=norm, side="output"))
        else:
            module = norm if site.layer == depth else layers.get_submodule(str(site.layer))
            taps.append(_Tap(site=site.name, module=module, side="input"))
    return tuple(taps)


@contextmanager
def _listening(taps: Sequence[_Tap], stream: str, deliver: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
    """Inside the block, `deliver(site, tensor)` is called for every tap of every forward pass."""
    handles = []
    for tap in taps:
        if tap.side == "output":
            handles.append(tap.module.register_forward_hook(partial(_on_output, tap.site, deliver)))
        else:
            on_input = partial(_on_input, tap.site, stream, deliver)
            handles.append(tap.module.register_forward_pre_hook(on_input, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _on_input(site: str, stream: str, deliver: Any, _module: object, args: tuple[Any, ...], named: Any) -> None:
    deliver(site, args[0] if args else named[stream])


def _on_output(site: str, deliver: Any, _module: object, _args: object, output: torch.Tensor) -> None:
    deliver(site, output)
