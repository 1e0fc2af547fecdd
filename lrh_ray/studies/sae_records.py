"""What the study of autoencoders knows of a site or map before training, and of an autoencoder afterwards."""

from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.sae.evaluation import Reconstruction
from lrh_ray.analyses.sae.reader import Reader
from lrh_ray.studies.sae_kind_config import ConCAKind, Kind
from lrh_ray.studies.sae_map_config import SiteMap
from lrh_ray.studies.sae_maps import MapUnit, SiteUnit


@dataclass(frozen=True, kw_only=True, slots=True)
class Yardstick:
    """A linear map that has as many components as an autoencoder has codes a row."""

    control: str
    """Its name among the controls of a measure."""
    leaves: str
    """What is said before a number."""
    words: str


COMPONENTS = Yardstick(
    control="principal_components",
    leaves="as many principal components leave",
    words="principal components, as many as codes a row",
)
REDUCED_RANK = Yardstick(
    control="linear_components",
    leaves="a linear map of as many components leaves",
    words="a linear map of as many components as codes a row",
)


@dataclass(frozen=True, kw_only=True)
class SiteRows:
    """A site before training: its unit, its rows, and what principal components leave of the held-out variance."""

    unit: SiteUnit
    training_rows: int
    held_out_rows: int
    explained: np.ndarray
    """[D + 1] share left by the first k components of the training rows, k from 0."""
    covariance: np.ndarray
    """[D, D] of the training rows, in the unit of training."""


@dataclass(frozen=True, kw_only=True)
class MapRows:
    """What an autoencoder, a transcoder or a crosscoder stands between, before training."""

    ends: SiteMap
    unit: MapUnit
    explained: np.ndarray
    """[D' + 1] share of the held-out variance of what is explained that the first k principal components leave; of a
    transcoder, that a linear map of rank k leaves."""
    covariance: np.ndarray
    """[D, D] of the training rows that are read, in the unit of training."""

    @property
    def name(self) -> str:
        return self.ends.name

    @property
    def yardstick(self) -> Yardstick:
        return REDUCED_RANK if self.ends.transcodes else COMPONENTS

    def left_by_components(self, num: float) -> float:
        """What a linear map of `num` components leaves; between two numbers, on the line between."""
        return float(np.interp(num, np.arange(len(self.explained)), self.explained))


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An autoencoder on held-out rows: trained, as it began, and trained with sinks among the rows."""

    site: str
    """Or the name of a map."""
    name: str
    kind: Kind
    held_out: Reconstruction
    untrained: Reconstruction
    unfiltered: Reconstruction
    threshold: float
    reader: Reader
    untrained_reader: Reader
    expected_dead: float | None = None
    """Share of latents that with the first weights would fire in none of as many rows as are held out, were these
    Gaussian; of kinds that choose a number of codes."""
    norms: np.ndarray | None = None
    """Of several sites: lengths [M, S] of decoder rows at each."""
    untrained_norms: np.ndarray | None = None

    @property
    def sparse(self) -> bool:
        return not isinstance(self.kind, ConCAKind)
