"""From settings to formulas: the autoencoder in training that a kind names, and how its weights are read afterwards."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor

import numpy as np
import torch
from torch import Tensor

from lrh_ray.analyses.sae.architectures.architecture import Architecture
from lrh_ray.analyses.sae.architectures.conca import ConCA
from lrh_ray.analyses.sae.architectures.gated import Gated
from lrh_ray.analyses.sae.architectures.jumprelu import JumpRelu
from lrh_ray.analyses.sae.architectures.relu import LowRank, Relu
from lrh_ray.analyses.sae.dense import DenseTraining
from lrh_ray.analyses.sae.device_step import DeviceTraining
from lrh_ray.analyses.sae.mesh import ALONE, Mesh
from lrh_ray.analyses.sae.parameters import Weights, first_weights
from lrh_ray.analyses.sae.reader import Reader, Scales, ThresholdReader, TopKReader, fold
from lrh_ray.analyses.sae.selection import BatchTopK, TopK
from lrh_ray.analyses.sae.sparse_step import Auxiliary, SparseTraining
from lrh_ray.analyses.sae.sparsity import PowerPenalty
from lrh_ray.analyses.sae.tile_memory import TileMemory
from lrh_ray.analyses.sae.training import Training
from lrh_ray.config import as_plain
from lrh_ray.exchange.kinds import names_of
from lrh_ray.studies.sae_config import SaeConfig
from lrh_ray.studies.sae_kind_config import (
    CONCA_GROUPS,
    Chosen,
    ConCAKind,
    GatedKind,
    JumpReluKind,
    Kind,
    MatryoshkaKind,
    PAnnealKind,
    ReluKind,
    StructuredKind,
    TopKKind,
)

ANNEAL_FROM, ANNEAL_TO = 0.5, 0.9
LONGEST_WARMUP = 0.1


def kind_names(kinds: Sequence[Kind]) -> tuple[str, ...]:
    """A name for each: those under which a result that keeps these settings is read again.

    Where widths or seeds are swept, these are `SaeConfig.settled`.
    """
    return names_of([as_plain(kind) for kind in kinds])


def warmup_steps(config: SaeConfig) -> int:
    """Steps of the warm-up, of short runs a tenth."""
    return min(config.warmup, int(config.steps * LONGEST_WARMUP))


def make_training(
    kind: Kind,
    config: SaeConfig,
    centre: np.ndarray,
    *,
    seed: int,
    read_centre: np.ndarray | None = None,
    skip: bool = False,
    widths: tuple[int, ...] = (),
    threads: Executor | None = None,
    mesh: Mesh = ALONE,
    device: str | torch.device = "cpu",
    tiles: TileMemory | None = None,
) -> Training:
    """An autoencoder before its first step.

    Args:
        kind: What it is.
        config: How it is trained, and how many latents it has where it does not say so itself.
        centre: Mean of the rows it explains [D'].
        seed: Names the first weights.
        read_centre: Of a transcoder: mean of the rows it reads [D].
        skip: Whether a transcoder has a skip connection.
        widths: Of several sites side by side in what is explained; none of one.
        threads: Where loops of a CPU run.
        mesh: Whose latents and rows.
        device: Where to train; the first weights are the same on any.
        tiles: Memory that it shares with others whose steps are made before and after its own; None: its own.
    """
    weights = first_weights(config.latents_of(kind), centre, seed=seed, read_centre=read_centre, skip=skip)
    place = torch.device(device)
    if isinstance(kind, Chosen):
        return _chosen_training(kind, config, weights, threads, mesh, place, tiles)
    if isinstance(kind, ConCAKind):
        weights.decoder.div_(weights.num_latents**0.5)  # all codes are of size 1, and all of them add up
    architecture = _architecture(kind, config, dict(weights.on(place).named()), seed, mesh, widths)
    return DenseTraining(architecture, dead_after=config.dead_after)


def _chosen_training(
    kind: Chosen,
    config: SaeConfig,
    weights: Weights,
    threads: Executor | None,
    mesh: Mesh,
    device: torch.device,
    tiles: TileMemory | None,
) -> Training:
    """On a CPU with compiled loops, on any other device in torch."""
    selection = TopK(k=kind.k) if isinstance(kind, TopKKind) else BatchTopK(k=kind.k)
    groups, auxiliary = _ends(kind, weights.num_latents), Auxiliary(dead_after=config.dead_after)
    if device.type == "cpu":
        return SparseTraining(
            weights,
            selection,
            groups=groups,
            auxiliary=auxiliary,
            threads=threads,
            mesh=mesh,
            preselect=config.preselect,
            tiles=tiles,
        )
    return DeviceTraining(
        weights,
        selection,
        device=device,
        groups=groups,
        auxiliary=auxiliary,
        mesh=mesh,
        preselect=config.preselect,
    )


def _ends(kind: Chosen, num_latents: int) -> tuple[int, ...]:
    if not isinstance(kind, MatryoshkaKind):
        return ()
    return tuple(sorted({max(1, round(share * num_latents)) for share in kind.groups}))


def _architecture(
    kind: Kind,
    config: SaeConfig,
    parameters: Mapping[str, Tensor],
    seed: int,
    mesh: Mesh = ALONE,
    widths: tuple[int, ...] = (),
) -> Architecture:
    warmup = warmup_steps(config)
    match kind:
        case ReluKind():
            penalty = PowerPenalty(weight=kind.weight, warmup=warmup, mesh=mesh)
            return Relu(parameters, penalty, widths=widths, mesh=mesh)
        case GatedKind():
            penalty = PowerPenalty(weight=kind.weight, warmup=warmup, mesh=mesh)
            return Gated(parameters, penalty, widths=widths, mesh=mesh)
        case PAnnealKind() | StructuredKind():
            annealed = _annealed(kind, config, mesh)
            return Relu(parameters, annealed, _branch(kind), seed=seed, widths=widths, mesh=mesh)
        case JumpReluKind():
            return JumpRelu(
                parameters,
                weight=kind.weight,
                penalty=kind.penalty,
                target=kind.target,
                bandwidth=kind.bandwidth,
                first_threshold=kind.first_threshold,
                warmup=warmup,
                widths=widths,
                mesh=mesh,
            )
        case ConCAKind():
            return ConCA(parameters, weight=kind.weight, norm=kind.norm, groups=CONCA_GROUPS, mesh=mesh)
        case _:
            raise TypeError(f"{kind.kind} has no dense architecture")


def _branch(kind: PAnnealKind | StructuredKind) -> LowRank | None:
    if not isinstance(kind, StructuredKind) or kind.rank is None:
        return None
    return LowRank(gamma=kind.gamma, rank=kind.rank)


def _annealed(kind: PAnnealKind | StructuredKind, config: SaeConfig, mesh: Mesh) -> PowerPenalty:
    return PowerPenalty(
        weight=kind.weight,
        last_p=kind.last_p,
        from_step=int(ANNEAL_FROM * config.steps),
        to_step=int(ANNEAL_TO * config.steps),
        warmup=warmup_steps(config),
        mesh=mesh,
    )


def make_reader(
    kind: Kind, config: SaeConfig, tensors: Mapping[str, Tensor], scale: float | Scales, threshold: float
) -> Reader:
    """Read rows in their own unit with what training has left (`Training.tensors`), or with what it began with.

    A ConCA over batches lacks the moments of its codes yet (`ConCA.read_with`).

    Args:
        kind: Of the autoencoder.
        config: It was trained with.
        tensors: Of the checkpoint.
        scale: Rows were divided by it.
        threshold: Of a BatchTopK kind, in the unit of codes in use.
    """
    parameters = {
        name.removeprefix("parameter."): tensor for name, tensor in tensors.items() if name.startswith("parameter.")
    }
    folded = fold(parameters, scale, normalised=isinstance(kind, ConCAKind))
    if isinstance(kind, TopKKind):
        return TopKReader(parameters=folded, k=kind.k)
    if isinstance(kind, Chosen):
        return ThresholdReader(parameters=folded, threshold=threshold)
    if isinstance(kind, ConCAKind) and kind.norm == "batch":
        return ConCA(folded, norm="none")
    architecture = _architecture(kind, config, folded, config.seed_of(kind))
    architecture.load({n.removeprefix("own."): tensor for n, tensor in tensors.items() if n.startswith("own.")})
    return architecture
