"""How workers share the training of autoencoders: latents, rows, or both, by the numbers that a step moves.

    parts = latent_parts(config, maps, widths={"resid.15": 4096})         # of 8 workers: 8, 4, 2 or 1

With W workers, L parts of the latents and R = W / L workers that share the rows of each, a worker sends in a step, of N
rows, D features that are read, D' that are explained, M latents, k codes a row and G nested groups (rings, as NCCL and
gloo make them):

| | between parts | between those that share rows |
|---|---|---|
| TopK kinds | 2 G (N / R) D' (L - 1) / L + 2 k (N / R) (L - 1) | (N (D + G D' + 3 k) + (M / L) (D + D')) (R - 1) / R |
| dense kinds | 2 (N / R) D' (L - 1) / L | 2 ((M / L) (D + D') + S) (R - 1) / R |

An autoencoder has D' = D. S is D D' with a skip connection, of which TopK kinds move nothing: every worker makes its
whole gradient from the rows and errors of all. Of BatchTopK kinds some multiples of k travel as candidates, which are
counted as k.

What can go wrong: links within a node are faster than between nodes, which the count does not see; `sae.latent_parts`
says it by hand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lrh_ray.studies.sae_config import SaeConfig
from lrh_ray.studies.sae_kind_config import Chosen, Kind, MatryoshkaKind
from lrh_ray.studies.sae_map_config import SiteMap


@dataclass(frozen=True, kw_only=True, slots=True)
class MapWidths:
    """Features of a map's two ends."""

    reads: int
    writes: int
    skip: int
    """Numbers of a skip connection, 0 without one."""

    @classmethod
    def of(cls, one: SiteMap, widths: Mapping[str, int]) -> "MapWidths":
        reads, writes = (sum(widths[site] for site in end) for end in (one.reads, one.writes))
        return cls(reads=reads, writes=writes, skip=reads * writes if one.skip else 0)


def latent_parts(config: SaeConfig, maps: Sequence[SiteMap], widths: Mapping[str, int]) -> int:
    """Parts into which the latents are cut: as set, or those that move the fewest numbers; the most parts of equals.

    Args:
        config: Kinds, sizes and number of workers.
        maps: What every kind is trained on.
        widths: Features of each site.
    """
    if config.latent_parts is not None:
        return config.latent_parts
    return min(possible_parts(config), key=lambda parts: (numbers_moved(config, maps, widths, parts), -parts))


def possible_parts(config: SaeConfig) -> tuple[int, ...]:
    """Divisors of the workers that deal out the rows of a batch equally."""
    world = config.workers.workers
    return tuple(
        parts for parts in range(1, world + 1) if world % parts == 0 and config.batch_rows % (world // parts) == 0
    )


def numbers_moved(config: SaeConfig, maps: Sequence[SiteMap], widths: Mapping[str, int], parts: int) -> float:
    """Sent by one worker in one step of every kind on every map."""
    ends = [MapWidths.of(one, widths) for one in maps]
    return sum(_moved(kind, config, one, parts) for kind in config.kinds for one in ends)


def _moved(kind: Kind, config: SaeConfig, of: MapWidths, parts: int) -> float:
    columns = config.workers.workers // parts
    own_rows, weights = config.batch_rows / columns, config.latents_of(kind) * (of.reads + of.writes) / parts
    across, along = (parts - 1) / parts, (columns - 1) / columns
    if not isinstance(kind, Chosen):
        return 2 * own_rows * of.writes * across + 2 * (weights + of.skip) * along
    groups = len(kind.groups) if isinstance(kind, MatryoshkaKind) else 1
    between_parts = 2 * groups * own_rows * of.writes * across + 2 * kind.k * own_rows * (parts - 1)
    between_rows = config.batch_rows * (of.reads + groups * of.writes + 3 * kind.k) + weights
    return between_parts + between_rows * along
