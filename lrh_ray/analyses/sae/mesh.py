"""Workers in a grid: those of a row share the latents out, those of a column the rows of every batch.

    mesh = make_mesh(share, parts=2)             # of 6 workers: 2 parts of the latents, each with 3 workers
    mesh.latents, mesh.rows                      # this worker's place in both directions

| parts | who sees which rows | what a step moves |
|---|---|---|
| as many as workers | all see all | parts of reconstructions, N D numbers |
| 1 | each an equal part | rows and errors, N 2 D, and weights, 2 M D |

Ranks that share the latents out stand side by side, and so on one node: theirs is the traffic that waits for an answer.
"""

from dataclasses import dataclass

from torch import distributed

from lrh_ray.collective import Share
from lrh_ray.errors import ConfigError

ONE = Share(rank=0, world=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mesh:
    """A worker's place among those that share its rows' latents, and among those that share its latents' rows."""

    latents: Share = ONE
    rows: Share = ONE

    @property
    def everyone(self) -> Share:
        """This worker among all; latents are held in this order, which is not that of ranks."""
        return Share(
            rank=self.latents.rank * self.rows.world + self.rows.rank, world=self.latents.world * self.rows.world
        )


ALONE = Mesh()


def make_mesh(share: Share, *, parts: int) -> Mesh:
    """Arrange all workers; every one of them must call this, with the same `parts`.

    Args:
        share: This worker among all.
        parts: Into how many the latents are cut.

    Raises:
        ConfigError: The workers cannot be dealt to so many parts equally.
    """
    if parts < 1 or share.world % parts:
        raise ConfigError(
            f"{share.world} workers cannot hold {parts} parts of the latents in equal numbers; sae.latent_parts must "
            f"divide sae.workers.workers."
        )
    columns = share.world // parts
    if parts in (1, share.world):
        return Mesh(latents=share) if columns == 1 else Mesh(rows=share)
    across = [distributed.new_group(list(range(row * parts, (row + 1) * parts))) for row in range(columns)]
    along = [distributed.new_group(list(range(part, share.world, parts))) for part in range(parts)]
    row, part = divmod(share.rank, parts)
    return Mesh(
        latents=Share(rank=part, world=parts, group=across[row]), rows=Share(rank=row, world=columns, group=along[part])
    )
