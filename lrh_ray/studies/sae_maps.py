"""The rows of a map's two ends as training has them: each site divided by its own scale, sites side by side.

    unit = MapUnit.of(one, {"resid.5": SiteUnit(...), "resid.15": SiteUnit(...)})
    rows = side_by_side([batch.rows[site] / units[site].scale for site in one.reads])

So every site has a variance of 1 and counts the same. `unit.scales` brings what was trained back to rows as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lrh_ray.analyses.sae.reader import Scales
from lrh_ray.studies.sae_map_config import SiteMap


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteUnit:
    """What training makes of the rows of a site: x / scale, whose mean is `centre` [D]."""

    centre: np.ndarray
    scale: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MapUnit:
    """The same of the two ends of a map, whose sites lie side by side."""

    read_centre: np.ndarray | None
    """Mean of what a transcoder reads [D]."""
    centre: np.ndarray
    """Mean of what is explained [D']."""
    widths: tuple[int, ...]
    """Of several sites that are written; none of one."""
    scales: Scales

    @classmethod
    def of(cls, one: SiteMap, units: Mapping[str, SiteUnit]) -> "MapUnit":
        widths = tuple(len(units[site].centre) for site in one.writes)
        alone = len(one.writes) == 1
        return cls(
            read_centre=_centre(one.reads, units) if one.transcodes else None,
            centre=_centre(one.writes, units),
            widths=() if alone else widths,
            scales=Scales(
                read=_scale(one.reads, units),
                written=_scale(one.writes, units),
                codes=units[one.writes[0]].scale if alone else 1.0,
            ),
        )

    @property
    def written_centre(self) -> np.ndarray:
        """Mean of what is explained, as it stands in the store [D']."""
        return np.asarray(self.centre * self.scales.written.numpy())

    @property
    def starts(self) -> tuple[int, ...]:
        """First features of several sites that are written; none of one."""
        return (0, *np.cumsum(self.widths[:-1]).tolist()) if self.widths else ()


def _centre(sites: Sequence[str], units: Mapping[str, SiteUnit]) -> np.ndarray:
    return np.concatenate([units[site].centre for site in sites])


def _scale(sites: Sequence[str], units: Mapping[str, SiteUnit]) -> torch.Tensor:
    """One number of one site, one for every feature of several."""
    if len(sites) == 1:
        return torch.tensor([units[sites[0]].scale], dtype=torch.float64)
    return torch.from_numpy(np.concatenate([np.full(len(units[site].centre), units[site].scale) for site in sites]))


def side_by_side(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of several sites as one; of one site, the same array."""
    return rows[0] if len(rows) == 1 else np.concatenate(rows, axis=1)
