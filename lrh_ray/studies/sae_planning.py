"""What training autoencoders takes, from sizes alone: who holds what, memory, steps and time, before a row is read.

    plan = plan_training(config)
    plan.parts, plan.memory.total, plan.flops_per_step

Parts of the latents are those that `sae_sharing` chooses. Bytes of a worker are counted, operations too: a step of a
TopK kind makes the encoder's product and little else, one of a dense kind the products of both matrices, forwards and
backwards.

What can go wrong: `TooLarge` where this machine's memory cannot hold its workers. Seconds are those of products that
were timed here, times the operations: `lrh sae` also reads the store and measures what it has trained.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from lrh_ray.analyses.sae.preselection import ROUGH, ROUGH_TILE_BYTES
from lrh_ray.analyses.sae.tile_memory import tile_rows
from lrh_ray.errors import TooLarge
from lrh_ray.store.order import WINDOW_ROWS
from lrh_ray.store.plan_shape import DTYPES
from lrh_ray.store.reader import Store, open_store
from lrh_ray.studies.planning_machine import own_memory, total_memory
from lrh_ray.studies.run import RunConfig
from lrh_ray.studies.sae_config import SaeConfig
from lrh_ray.studies.sae_kind_config import Chosen, GatedKind, Kind, StructuredKind
from lrh_ray.studies.sae_sharing import MapWidths, latent_parts, numbers_moved, possible_parts
from lrh_ray.studies.sae_study import dealt_groups, store_maps

FLOAT = 4
"""Bytes of a number in training."""
SPARSE_STEP = 1.3
"""A step of a TopK kind in products of its encoder (`benchmarks/sae.py`)."""
TIMED_SECONDS, TIMED_ROWS, TIMED_LATENTS = 0.5, 1024, 4096
PREFETCHED = 2
"""Windows that the loader holds: one being read, one handed out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingMemory:
    """Bytes of one worker."""

    process: int
    """Python, torch and Ray."""
    weights: int
    """Parameters of its part of the latents; of dense kinds their gradients, of preselected ones a copy in 16 bits."""
    moments: int
    codes: int
    """Pre-activations and codes of the largest dense kind, with their gradients; sparse codes are few."""
    tiles: int
    """Pre-activations of TopK kinds that are held together, in memory that all trainings of a CPU share."""
    windows: int
    """Rows that are shuffled together."""

    @property
    def total(self) -> int:
        return self.process + self.weights + self.moments + self.codes + self.tiles + self.windows


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingPlan:
    """How long, how much memory, who shares what."""

    autoencoders: int
    steps: int
    rows: int
    """Rows of training documents, sinks and rows without text among them, which only reading tells."""
    epochs: float
    workers: int
    parts: int
    """Into which the latents are cut."""
    bytes_moved: Mapping[int, float]
    """Sent by a worker in a step, for every number of parts that is possible."""
    flops_per_step: float
    """Of all workers together."""
    checkpoint_bytes: int
    memory: TrainingMemory
    flops_per_second: float | None
    """Of products of such sizes on this machine; None: not timed."""

    @property
    def seconds(self) -> float | None:
        """Of all steps, on this machine."""
        return None if self.flops_per_second is None else self.steps * self.flops_per_step / self.flops_per_second

    def as_plain(self) -> Mapping[str, Any]:
        """JSON; what follows from the rest is written out."""
        plain = asdict(self)
        plain["bytes_moved"] = {str(parts): moved for parts, moved in self.bytes_moved.items()}
        plain["memory"]["total"], plain["seconds"] = self.memory.total, self.seconds
        return plain


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sizes:
    """Of one kind on one map."""

    kind: Kind
    ends: MapWidths
    latents: int

    @property
    def sparse(self) -> bool:
        return isinstance(self.kind, Chosen)

    @property
    def encoders(self) -> int:
        return 2 if isinstance(self.kind, StructuredKind) and self.kind.rank is not None else 1

    def numbers(self, latents: int) -> int:
        """Parameters of so many latents."""
        own = self.encoders * (self.ends.reads + 1) + self.ends.writes
        return latents * own + self.ends.writes + self.ends.skip

    def flops(self, rows: int) -> float:
        """Of a step: a dense kind's products forwards and backwards; a gate's reconstruction takes two more."""
        product, reads, writes = 2.0 * rows * self.latents, self.ends.reads, self.ends.writes
        if self.sparse:
            return SPARSE_STEP * product * reads
        return product * (2 * self.encoders * reads + (5 if isinstance(self.kind, GatedKind) else 3) * writes)


def plan_training(config: RunConfig, *, timed: bool = True) -> TrainingPlan:
    """Count what `lrh sae` takes on a run's store, which may still be growing.

    Args:
        config: Of the run.
        timed: Whether this machine is the one that trains: products are timed for half a second.

    Raises:
        SiteError: A site that the store does not have.
        NotEnoughData: Too few documents for those that are held out.
        TooLarge: The workers do not fit into this machine's memory (`timed`).
    """
    sae, store = config.sae, open_store(config.store_location)
    maps = store_maps(sae, store)
    dealt_groups(sae, store)
    widths = {site.name: site.width for one in maps for site in store.plan.sites if site.name in one.sites}
    ends = [MapWidths.of(one, widths) for one in maps]
    sizes = [_Sizes(kind=kind, ends=one, latents=sae.latents_of(kind)) for one in ends for kind in sae.kinds]
    parts, rows = latent_parts(sae, maps, widths), round(store.plan.num_valid_rows * (1 - sae.held_out))
    plan = TrainingPlan(
        autoencoders=len(sizes),
        steps=sae.steps,
        rows=rows,
        epochs=sae.steps * sae.batch_rows / rows,
        workers=sae.workers.workers,
        parts=parts,
        bytes_moved={each: FLOAT * numbers_moved(sae, maps, widths, each) for each in possible_parts(sae)},
        flops_per_step=sum(one.flops(sae.batch_rows) for one in sizes),
        checkpoint_bytes=sum(3 * FLOAT * one.numbers(one.latents) for one in sizes),
        memory=_memory(sizes, sae, store, widths, parts),
        flops_per_second=_timed(max(widths.values()), max(one.latents for one in sizes), sae) if timed else None,
    )
    if timed:
        _require_memory(plan)
    return plan


def _memory(
    sizes: list[_Sizes], config: SaeConfig, store: Store, widths: Mapping[str, int], parts: int
) -> TrainingMemory:
    workers = config.workers.workers
    own_rows = config.batch_rows * parts // workers
    dense = [one for one in sizes if not one.sparse]
    sparse = [one for one in sizes if one.sparse]
    sparse_moments = sum(2 * one.numbers(one.latents // workers) for one in sparse)
    copied = sum(one.latents // parts * one.ends.reads for one in sparse if config.preselect is not None)
    rough = 0 if config.workers.gpus else ROUGH.itemsize * copied
    row = sum(width * DTYPES[store.plan.dtype].itemsize for width in widths.values())
    return TrainingMemory(
        process=own_memory(),
        weights=FLOAT * sum(one.numbers(one.latents // parts) * (1 if one.sparse else 2) for one in sizes) + rough,
        moments=FLOAT * (sparse_moments + sum(2 * one.numbers(one.latents // parts) for one in dense)),
        codes=FLOAT * 4 * own_rows * max((one.latents // parts for one in dense), default=0),
        tiles=max((_tiles(own_rows, one.latents // parts, config) for one in sparse), default=0),
        windows=PREFETCHED * min(WINDOW_ROWS, store.plan.num_rows) * row,
    )


def _tiles(rows: int, latents: int, config: SaeConfig) -> int:
    """Of the exact product, and beside it of the rough one that preselects; a GPU has neither."""
    if config.workers.gpus:
        return 0
    exact, rough = tile_rows(rows, latents), tile_rows(rows, latents, limit=ROUGH_TILE_BYTES)
    return latents * (FLOAT * exact + (0 if config.preselect is None else ROUGH.itemsize * rough))


def _timed(width: int, latents: int, config: SaeConfig) -> float:
    """FLOP per second of the encoder's product on a part of its latents."""
    rows = torch.randn(min(config.batch_rows, TIMED_ROWS), width)
    encoder = torch.randn(width, min(latents, TIMED_LATENTS))
    torch.mm(rows, encoder)
    made, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < TIMED_SECONDS:
        torch.mm(rows, encoder)
        made += 1
    return made * 2.0 * rows.numel() * encoder.shape[1] / seconds


def _require_memory(plan: TrainingPlan) -> None:
    needed, there = plan.workers * plan.memory.total, total_memory()
    if needed > there:
        raise TooLarge(
            f"Training {plan.autoencoders} autoencoders takes {needed / 1e9:.1f} GB in {plan.workers} workers; this "
            f"machine has {there / 1e9:.1f} GB. Train fewer kinds or sites at once (sae.kinds, sae.sites), lower "
            f"sae.latents or sae.batch_rows, or add nodes (--address)."
        )
