"""The transformers backend: hooks on a truncated model, padded batches, rows straight to the sink.

Only the blocks below the deepest requested site are loaded and run: a probe at mid-depth costs half a forward, and
no logits are ever computed. Where each site is read is the business of `taps`; here is how its rows leave.

    backend = TransformersBackend(checkpoint, ModelConfig(name="smollm2", threads=2), sites)
    backend.forward(block, sink)

Batches are padded on the right under a causal mask, so padding is never seen by a real token, and positions are
passed explicitly; documents cannot see one another because each has a batch row of its own. Rows leave the model as it
made them: bfloat16 stays bfloat16, and on a CPU the sink sees the model's own memory; only where the model runs in a
wider format than its rows have (`compute`) are they rounded. On a GPU padding is left out on the device and rows cross
to a ring of pinned memory on a stream of their own, while the next layers run.

What can go wrong: a checkpoint that lacks weights of its architecture is `CheckpointBroken` (transformers would fill
them with random numbers and a warning). The number of threads belongs to the process; `close` restores it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast, final

import ml_dtypes
import numpy as np
import torch
import transformers
from torch.distributed.tensor import DTensor
from transformers import MODEL_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.distributed.configuration_utils import DistributedConfig

from lrh_ray.errors import ConfigError, SiteError
from lrh_ray.models.backend import Backend, BackendFacts
from lrh_ray.models.batches import plan_batches
from lrh_ray.models.checkpoints import Checkpoint
from lrh_ray.models.compute import compute_dtype
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.facts import DtypeName, read_architecture, resolved_dtype
from lrh_ray.models.families import family_of
from lrh_ray.models.fp8 import plain_weights, take_fp8
from lrh_ray.models.loading import refuse_incomplete
from lrh_ray.models.pinned import PinnedRing
from lrh_ray.models.quiet import quiet_transformers
from lrh_ray.models.random_weights import random_model, truncate
from lrh_ray.models.ranks import Rank, joined
from lrh_ray.models.sink import RowSink
from lrh_ray.models.sites import EMBED, kind_of, num_blocks_needed
from lrh_ray.models.taps import find_taps, listening
from lrh_ray.models.wanted import Run, Wanted, count, runs_of
from lrh_ray.records import SiteSpec, TokenBatch
from lrh_ray.vector_math import settle_vector_math

PADDING_ID = 0
"""Any valid token: the causal mask hides what stands right of a sequence, and its rows are not read."""


@final
class TransformersBackend(Backend):
    """One model on one device, loaded up to the deepest of its sites."""

    def __init__(
        self, checkpoint: Checkpoint, config: ModelConfig, sites: Sequence[SiteSpec], rank: Rank | None = None
    ) -> None:
        """Load the model, or with `rank` this process's share of it; only rank 0 hands rows on."""
        settle_vector_math()
        architecture = read_architecture(checkpoint)
        family = family_of(architecture.model_type)
        self._silent = rank is not None and rank.index > 0
        self._group = ExitStack()
        self._no_gradients = torch.inference_mode if rank is None else torch.no_grad  # sharded experts count versions
        if rank is not None:
            _refuse_cut_sites(sites)
            self._group.enter_context(joined(rank))
        self._sites = tuple(site.name for site in sites)
        self._dtype: DtypeName = resolved_dtype(architecture, config)
        self._device = chosen_device(config)
        self._batch_tokens = config.batch_tokens
        self._threads_before = torch.get_num_threads()
        depth = num_blocks_needed(sites, int(architecture.num_hidden_layers))
        sharing = None if rank is None else sharing_of(rank, config)
        self._compute = compute_dtype(self._dtype, config, self._device)
        self._model = _load_truncated(checkpoint, architecture, depth, self._compute, self._device, sharing)
        self._taps = find_taps(self._model, family, sites, depth)
        table = self._model.get_submodule(family.embed).weight if EMBED in self._sites else None
        self._table = cast(torch.Tensor | None, table)
        self._ring = PinnedRing() if self._device == "cuda" else None
        if config.threads is not None:
            torch.set_num_threads(config.threads)

    def describe(self) -> BackendFacts:
        return BackendFacts(
            engine="transformers",
            version=transformers.__version__,
            dtype=self._dtype,
            compute=self._compute,
            device=self._device,
            repeatable="bytes" if self._device == "cpu" else "values",
            attention=str(self._model.config._attn_implementation),
        )

    def forward(self, block: TokenBatch, sink: RowSink, wanted: Wanted | None = None) -> int:
        written: Counter[str] = Counter()
        runs, num_rows = runs_of(block, wanted), count(block, wanted)
        with self._no_gradients():
            for members, batch in self._batches(block):
                receiver = None if self._silent else sink
                pieces = _pieces(block, members, runs)
                dtype: torch.dtype = getattr(torch, self._dtype)
                delivery = _Delivery(pieces=pieces, sink=receiver, written=written, ring=self._ring, dtype=dtype)
                if self._table is not None:
                    delivery.write(EMBED, whole(self._table)[batch["input_ids"]])
                with listening(self._taps, delivery.write):
                    self._model(**batch, use_cache=False)
            if self._ring is not None:
                self._ring.drain()
        for site in self._sites:
            if written[site] != num_rows:
                raise SiteError(
                    f"Site {site!r} gave {written[site]} of {num_rows} rows; the family file of "
                    f"{self._model.config.model_type!r} points at a module that the forward pass does not use."
                )
        return num_rows

    def forward_bare(self, block: TokenBatch) -> None:
        """The same passes with nobody listening: what the speed of `forward` is measured against."""
        with self._no_gradients():
            for _, batch in self._batches(block):
                self._model(**batch, use_cache=False)
            if self._device == "cuda":
                torch.cuda.synchronize()

    def _batches(self, block: TokenBatch) -> Iterator[tuple[np.ndarray, dict[str, torch.Tensor]]]:
        for members in plan_batches(block.lengths, self._batch_tokens):
            yield members, _padded(block, members, self._device)

    def close(self) -> None:
        del self._model, self._taps, self._table
        self._group.close()
        torch.set_num_threads(self._threads_before)
        if self._device == "cuda":
            torch.cuda.empty_cache()


class _Piece(NamedTuple):
    """Rows that are neighbours both in the batch, padding included, and in the block."""

    in_batch: int
    in_block: int
    num_rows: int


def _pieces(block: TokenBatch, members: np.ndarray, runs: Sequence[Sequence[Run]]) -> list[_Piece]:
    """The wanted rows of a batch: one piece where sequences follow one another without padding between them."""
    width, pieces = int(block.lengths[members].max()), [_Piece(0, 0, 0)]
    for row, sequence in enumerate(members.tolist()):
        for first, stop in runs[sequence]:
            here, last = row * width + first - int(block.starts[sequence]), pieces[-1]
            if here - last.in_batch == first - last.in_block == last.num_rows:
                pieces[-1] = last._replace(num_rows=last.num_rows + stop - first)
            else:
                pieces.append(_Piece(here, first, stop - first))
    return [piece for piece in pieces if piece.num_rows]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Delivery:
    """Where the rows of one batch go."""

    pieces: Sequence[_Piece]
    sink: RowSink | None
    """None on ranks that only compute."""
    written: Counter[str]
    ring: PinnedRing | None
    dtype: torch.dtype
    """Of the rows."""

    def write(self, site: str, value: torch.Tensor) -> None:
        """Hand over the wanted rows of a [..., feature] tensor of padded tokens."""
        padded = whole(value).flatten(0, -2)
        if not padded.is_floating_point():
            padded = padded.float()  # ids of experts
        elif padded.dtype == torch.float32:
            padded = padded.to(self.dtype)
        self.written[site] += sum(piece.num_rows for piece in self.pieces)
        if self.sink is None or not self.pieces:
            return
        if self.ring is None:
            rows = as_numpy(padded)
            self._hand_over(site, [rows[piece.in_batch :][: piece.num_rows] for piece in self.pieces])
        else:
            real = torch.cat([padded.narrow(0, piece.in_batch, piece.num_rows) for piece in self.pieces])
            self.ring.copy(real, partial(self._hand_over_copied, site))

    def _hand_over_copied(self, site: str, host: torch.Tensor) -> None:
        ends = np.cumsum([piece.num_rows for piece in self.pieces])
        self._hand_over(site, np.split(as_numpy(host), ends[:-1]))

    def _hand_over(self, site: str, parts: Sequence[np.ndarray]) -> None:
        sink = cast(RowSink, self.sink)
        for piece, rows in zip(self.pieces, parts, strict=True):
            sink.write(site, piece.in_block, rows)


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The same numbers in host memory as NumPy; bfloat16 becomes `ml_dtypes.bfloat16` without conversion."""
    host = tensor.detach().to("cpu")
    if host.dtype == torch.bfloat16:
        return host.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return host.numpy()


def chosen_device(config: ModelConfig) -> str:
    """`cuda` where this process has a GPU, unless the configuration says otherwise."""
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise ConfigError("device is 'cuda', but this machine offers torch no GPU; use device: auto or device: cpu.")
    return "cuda" if available and config.device != "cpu" else "cpu"


def _load_truncated(
    checkpoint: Checkpoint,
    architecture: PreTrainedConfig,
    depth: int,
    dtype: DtypeName,
    device: str,
    sharing: DistributedConfig | None,
) -> PreTrainedModel:
    """The base model with its first `depth` blocks, read straight to the device; no other weight is read."""
    if checkpoint.random_seed is not None:
        own: torch.dtype = getattr(torch, dtype)
        return random_model(architecture, seed=checkpoint.random_seed, depth=depth, dtype=own, device=device)
    truncate(architecture, depth)
    source: str | None = str(checkpoint.path)
    options: dict[str, Any] = {}
    if sharing is not None:
        options["distributed_config"] = sharing
        if device == "cpu" and (block := take_fp8(architecture)) is not None:  # transformers cuts scales like weights
            source, options["state_dict"] = None, plain_weights(checkpoint.path, block)
    elif device != "cpu":
        options["device_map"] = device
    with quiet_transformers():
        loaded: Any = base_class(architecture).from_pretrained(
            source,
            config=architecture,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
        model, report = loaded
    refuse_incomplete(checkpoint, report)
    return cast(PreTrainedModel, model.eval())


def base_class(architecture: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class of the base model, which loads from a state in memory as well as from a folder."""
    return cast(type[PreTrainedModel], MODEL_MAPPING[type(architecture)])


def sharing_of(rank: Rank, config: ModelConfig) -> DistributedConfig:
    """How transformers cuts a model over the ranks of a replica."""
    return DistributedConfig(tp_size=rank.size, ep_size=rank.size if config.expert_parallel else 1)


def whole(value: torch.Tensor) -> torch.Tensor:
    """A tensor that ranks hold between them, put together; all ranks must ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _refuse_cut_sites(sites: Sequence[SiteSpec]) -> None:
    cut = [site.name for site in sites if kind_of(site.name) in ("heads", "mlp_act", "router", "experts")]
    if cut:
        raise SiteError(
            f"Site {cut[0]!r} lies inside a module that is cut over ranks; set model.tensor_parallel: 1 to read it."
        )


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
