"""Settings of sparse autoencoders: which kinds, of which sites, and how they are trained.

    sae:
      kinds: [{kind: topk, k: 32}, {kind: gated}]      # sae_kind_config
      maps: [{reads: resid.15, writes: mlp_out.16}]    # sae_map_config

What can go wrong: what no run could train is a `ValueError` that names the setting and the way out, before any row is
read.
"""

from dataclasses import field, replace
from math import inf
from typing import Literal

from lrh_ray.config import settings
from lrh_ray.runtime.config import TrainConfig
from lrh_ray.studies.sae_kind_config import CONCA_GROUPS, Chosen, ConCAKind, Kind, StructuredKind, TopKKind
from lrh_ray.studies.sae_map_config import MapConfig, SiteMap


@settings
class SaeConfig:
    """Sparse autoencoders of every site, all from one reading of the store (`lrh sae CONFIG`)."""

    sites: tuple[str, ...] = ()
    """Sites of the store; empty for all, or for none where `maps` are named."""

    maps: tuple[MapConfig, ...] = ()
    """Transcoders and crosscoders beside the autoencoders of `sites`."""

    kinds: tuple[Kind, ...] = (TopKKind(),)
    """Autoencoders of each site and map."""

    latents: int = 4096
    """Latents of every kind that names no number of its own."""

    steps: int = 2000
    """Steps of Adam."""

    batch_rows: int = 2048
    """Rows of a step."""

    rate: float | None = None
    """Highest learning rate; a warm-up leads to it, half a cosine away from it. None: 2e-4 sqrt(16384 / latents) of
    each."""

    warmup: int = 200
    """Steps of the warm-up, of the rate and of penalties; no more than a tenth of all steps."""

    dead_after: int = 1_000_000
    """A latent that has not fired for so many rows is dead, and TopK kinds try to revive it."""

    preselect: int | None = None
    """Candidates of a row, in multiples of k, that `topk`, `batchtopk` and `matryoshka` take from a product in bfloat16
    before they choose exactly among them; None: the product is exact."""

    checkpoints: int = 4
    """Checkpoints of a run, evenly spread; a killed run goes on from the last one."""

    held_out: float = 0.1
    """Fraction of documents held out for the numbers reported."""

    groups: int = 20
    """Groups of held-out documents for the jackknife."""

    shown_latents: int = 20
    """Latents of each autoencoder whose passages the result keeps for its page, spread over how often they fire; 0:
    none."""

    splice_documents: int = 0
    """Held-out documents that the model reads with reconstructions in place of its rows; 0: none, and no checkpoint is
    needed."""

    sinks: Literal["drop", "keep"] = "drop"
    """Attention sinks (rows whose norm exceeds 10 times the median of any site) are left out, or kept."""

    seed: int = 0
    """Seed of the split, the order of rows, and the first weights of every kind that names no seed of its own."""

    workers: TrainConfig = field(default_factory=lambda: TrainConfig(workers=1, cpus=2.0))
    """Who trains; with `gpus: 1` each worker on a GPU."""

    latent_parts: int | None = None
    """Into how many parts several workers cut the latents; those of one part share the rows of a batch. As many as
    workers: all read every row; 1: each reads its own. None: whatever moves the fewest numbers."""

    def latents_of(self, kind: Kind) -> int:
        """Of one of the kinds: its own number, or that of all."""
        return self.latents if kind.latents is None else kind.latents

    def seed_of(self, kind: Kind) -> int:
        """Of a kind's first weights."""
        return self.seed if kind.seed is None else kind.seed

    @property
    def settled(self) -> tuple[Kind, ...]:
        """The kinds with their numbers of latents and seeds written out, by which they are told apart."""
        return tuple(replace(kind, latents=self.latents_of(kind), seed=self.seed_of(kind)) for kind in self.kinds)

    def __post_init__(self) -> None:
        if not self.kinds:
            raise ValueError("kinds must name at least one, for example [{kind: topk, k: 32}]")
        if min(self.latents, self.steps, self.batch_rows, self.checkpoints) < 1 or self.seed < 0:
            raise ValueError("latents, steps, batch_rows and checkpoints must be 1 or more, seed 0 or more")
        if self.warmup < 0:
            raise ValueError(f"warmup is {self.warmup}: it must be 0, for none, or more, for example 200")
        if self.dead_after < 1:
            raise ValueError(
                f"dead_after is {self.dead_after}: it must be 1 row or more, for example 1000000; a number beyond all "
                f"rows of the run leaves dead latents alone"
            )
        if self.shown_latents < 0:
            raise ValueError("shown_latents must be 0 or more, for example 20")
        if self.splice_documents < 0 or self.splice_documents == 1:
            raise ValueError("splice_documents must be 0, or 2 and more for an interval")
        if not 0 < self.held_out < 1 or self.groups < 2:
            raise ValueError("held_out must lie in (0, 1), for example 0.1; groups must be 2 or more")
        if self.rate is not None and not 0 < self.rate < inf:
            raise ValueError(f"rate is {self.rate:g}: it must be above 0, for example 0.0002; null chooses one")
        self._require_different()
        for kind in self.settled:
            self._require_latents(kind)
        if self.preselect is not None and (self.preselect < 1 or not any(isinstance(k, Chosen) for k in self.kinds)):
            raise ValueError(
                f"preselect is {self.preselect}: it must be 1 or more, and one of kinds topk, batchtopk or matryoshka, "
                f"whose codes are chosen; null leaves it out"
            )
        if self.workers.gpus not in (0, 1):
            raise ValueError(
                f"workers.gpus is {self.workers.gpus:g}: a worker trains on one whole GPU (1) or on CPUs (0); for "
                f"more GPUs take more workers"
            )
        self._require_parts()
        if self.workers.workers > 1 and any(isinstance(one, StructuredKind) and one.rank for one in self.kinds):
            raise ValueError("a structured kind needs one worker: its nuclear norm is one of all latents")

    def _require_different(self) -> None:
        names = [one.name for one in map(SiteMap.of, self.maps)]
        for what, each in (("sites", self.sites), ("maps", names), ("kinds", self.settled)):
            if twice := [one for number, one in enumerate(each) if one in each[:number]]:
                raise ValueError(f"{what} are the same: name each once ({twice[0]})")

    def _require_latents(self, kind: Kind) -> None:
        latents, workers = self.latents_of(kind), self.workers.workers
        if latents < 1 or self.seed_of(kind) < 0:
            raise ValueError(f"latents of {kind.kind} must be 1 or more, its seed 0 or more; null: those of all")
        if isinstance(kind, Chosen) and kind.k > latents:
            raise ValueError(f"k is {kind.k}: of {latents} latents 1 to {latents} can be chosen")
        if latents % workers:
            raise ValueError(f"latents is {latents}: {workers} workers can share out only a multiple equally")
        if isinstance(kind, ConCAKind) and kind.norm == "group":
            self._require_groups(latents)

    def _require_parts(self) -> None:
        if (parts := self.latent_parts) is None:
            return
        world = self.workers.workers
        if parts < 1 or world % parts:
            raise ValueError(f"latent_parts is {parts}: it must divide workers.workers, {world}")
        if self.batch_rows % (world // parts):
            raise ValueError(
                f"batch_rows is {self.batch_rows}: {world // parts} workers of each part share only a multiple equally"
            )

    def _require_groups(self, latents: int) -> None:
        if latents % CONCA_GROUPS:
            raise ValueError(
                f"latents is {latents}: conca with norm group has {CONCA_GROUPS} equal groups, which takes a multiple "
                f"of {CONCA_GROUPS}; norm layer takes any number"
            )
        if CONCA_GROUPS % (parts := self.latent_parts or self.workers.workers):
            raise ValueError(
                f"{parts} parts of the latents would cut the {CONCA_GROUPS} groups of conca with norm group: set "
                f"latent_parts to a divisor of {CONCA_GROUPS} and of workers.workers, 1 say"
            )
