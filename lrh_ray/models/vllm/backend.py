"""The vLLM backend: a block's documents through a tensor-parallel engine, rows from shared memory to the sink.

    config = ModelConfig(name="meta-llama/Llama-3.1-70B", engine="vllm", tensor_parallel=8, batch_tokens=16384)
    with closing(open_backend(checkpoint, config, sites)) as backend:
        backend.forward(block, sink)

The engine packs documents itself, never lets one see another, and runs long ones in pieces. Rows reach the sink from
the ring's own memory, in windows, as soon as a document is done. The route, vLLM's own capture or hooks, follows from
the sites (`routes`).

What can go wrong: a window that failed (a copy, values that are not finite) is `EngineFailed` after the block's other
documents have come; the engine is sound and the block can be tried again. An engine that died is `EngineFailed` too,
and so is every later call: open a new backend. Which documents share a step depends on timing, so the same block need
not give the same bytes (`repeatable: values`). Unlike the transformers backend it cannot stop at the deepest site.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import final

import numpy as np

from lrh_ray.errors import ConfigError, EngineFailed
from lrh_ray.models.backend import Backend, BackendFacts
from lrh_ray.models.checkpoints import Checkpoint
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.facts import DtypeName, read_architecture, resolved_dtype
from lrh_ray.models.sink import RowSink
from lrh_ray.models.vllm.engine import Engine, Prompt, shared_memory_folder, vllm_device, vllm_version
from lrh_ray.models.vllm.options import LATENT_ATTENTION, EngineTask
from lrh_ray.models.vllm.replica import Window
from lrh_ray.models.vllm.ring import fit_ring, tokens_crc32c
from lrh_ray.models.vllm.routes import auxiliary_layers, route_of
from lrh_ray.models.vllm.share import ShareOptions
from lrh_ray.models.wanted import Wanted, count, neighbours
from lrh_ray.records import SiteSpec, TokenBatch

CONNECTOR = "lrh_ray.models.vllm.connector:RowsConnector"
MIB = 1 << 20


@final
class VllmBackend(Backend):
    """One vLLM engine for a fixed set of sites."""

    def __init__(
        self, checkpoint: Checkpoint, config: ModelConfig, sites: Sequence[SiteSpec], *, connector: str = CONNECTOR
    ) -> None:
        architecture = read_architecture(checkpoint)
        self._dtype: DtypeName = resolved_dtype(architecture, config)
        self._version, self._device = vllm_version(), vllm_device()
        family = str(architecture.model_type)
        _refuse_scaled_stream(family, self._dtype)
        names = [site.name for site in sites]
        route = route_of(family, names)
        _refuse_plain_rotary(family, getattr(architecture, "rope_parameters", None) or {}, self._device)
        order = [f"resid.{k}" for k in auxiliary_layers(names)] if route == "connector" else names
        self._order = tuple(order)
        longest = config.vllm.longest or int(architecture.max_position_embeddings)
        width, ranks = int(architecture.hidden_size), config.tensor_parallel
        shape = fit_ring(
            num_bytes=config.vllm.ring_mib * MIB // ranks,
            sites=len(names),
            width=-(-width // ranks),
            itemsize=4 if self._dtype == "float32" else 2,
            longest=longest,
        )
        task = EngineTask(
            path=str(checkpoint.path),
            dtype=self._dtype,
            family=family,
            sites=self._order,
            route=route,
            longest=longest,
            share=ShareOptions(
                folder=str(shared_memory_folder()), width=width, ranks=ranks, dtype=self._dtype, shape=shape
            ),
            connector=connector,
        )
        self._longest, self._route = longest, route
        self._engine = Engine(task, config)

    def describe(self) -> BackendFacts:
        return BackendFacts(
            engine="vllm",
            version=self._version,
            dtype=self._dtype,
            compute=self._dtype,
            device=self._device,
            repeatable="values",
            attention=f"{self._engine.attention} ({self._route})",
        )

    def forward(self, block: TokenBatch, sink: RowSink, wanted: Wanted | None = None) -> int:
        self._refuse_long(block)
        delivery = _Delivery(block, sink, self._order, wanted)
        failures = []
        for event in self._engine.run(delivery.prompts()):
            if isinstance(event, Window):
                delivery.take(event)
            elif event.failure is not None:
                failures.append(f"document {block.document_ids[event.request]!r}: {event.failure}")
        delivery.raise_sink_error()
        if failures:
            raise EngineFailed(
                f"{len(failures)} of {len(block.document_ids)} documents of the block lack rows, the first: "
                f"{failures[0]}. The engine goes on; try the block again."
            )
        return delivery.complete()

    def close(self) -> None:
        self._engine.close()

    def _refuse_long(self, block: TokenBatch) -> None:
        longest = int(block.lengths.max(initial=0))
        if longest > self._longest:
            raise ConfigError(
                f"A document has {longest} tokens, and the vLLM engine was started for {self._longest}; raise "
                "vllm.longest, or leave it out for the model's whole window."
            )


@final
class _Delivery:
    """Rows of one block on their way to the sink. An error of the sink is kept until the engine is drained."""

    def __init__(self, block: TokenBatch, sink: RowSink, order: Sequence[str], wanted: Wanted | None) -> None:
        self._block, self._sink, self._order, self._wanted = block, sink, order, wanted
        tokens = np.arange(block.num_tokens)
        chosen = tokens if wanted is None else tokens[wanted]
        self._chosen = np.split(chosen, np.searchsorted(chosen, block.starts[1:-1]))
        self._written: Counter[str] = Counter()
        self._error: BaseException | None = None

    def prompts(self) -> list[Prompt]:
        """The block's sequences, and the tokens of each whose rows are wanted."""
        starts = self._block.starts
        pieces = np.split(self._block.token_ids, starts[1:-1])
        if self._wanted is None:
            return [Prompt(token_ids=piece.tolist()) for piece in pieces]
        positions = [chosen - start for chosen, start in zip(self._chosen, starts[:-1], strict=True)]
        return [
            Prompt(token_ids=piece.tolist(), positions=where.tolist())
            for piece, where in zip(pieces, positions, strict=True)
        ]

    def take(self, window: Window) -> None:
        if self._error is not None:
            return
        offsets = self._chosen[window.request][window.first :][: window.rows.shape[1]]
        if window.tokens_crc32c != tokens_crc32c(self._block.token_ids[offsets]):
            raise EngineFailed(f"Rows {offsets[0]} to {offsets[-1]} of the block belong to other tokens.")
        try:
            for site, rows in zip(self._order, window.rows, strict=True):
                for part in neighbours(offsets):
                    self._sink.write(site, int(offsets[part.start]), rows[part])
                self._written[site] += len(offsets)
        except BaseException as error:  # noqa: BLE001  # kept, and raised unchanged when the rings are empty
            self._error = error

    def raise_sink_error(self) -> None:
        if self._error is not None:
            raise self._error

    def complete(self) -> int:
        """Rows of each site, when all have come."""
        expected = count(self._block, self._wanted)
        for site in self._order:
            if self._written[site] != expected:
                raise EngineFailed(f"Site {site!r} gave {self._written[site]} of {expected} rows; the block is void.")
        return expected


def _refuse_plain_rotary(family: str, positions: Mapping[str, object], device: str) -> None:
    """Plain rotary positions of latent attention come out wrong from vLLM's kernel on a CPU; scaled ones do not."""
    if device == "cpu" and family in LATENT_ATTENTION and positions.get("rope_type") == "default":
        raise ConfigError(
            f"On a CPU vLLM's rows of {family!r} with plain rotary positions are not the model's; use engine: "
            "transformers, or a GPU."
        )


def _refuse_scaled_stream(family: str, dtype: str) -> None:
    if family in LATENT_ATTENTION and dtype == "float16":
        raise ConfigError(
            "In float16 vLLM keeps DeepSeek's residual stream divided by a constant, so its rows are not the model's; "
            "use dtype: bfloat16 or float32, or engine: transformers."
        )
