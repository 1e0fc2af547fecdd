"""What the geometry study finds at a site, before it becomes measures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lrh_ray.analyses.geometry import UnitSpectrum

CONTEXTS = ((1, 4), (4, 16), (16, 64), (64, 256))
"""Numbers of tokens before a token, from and below, over which its gain is averaged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteScale:
    """How the rows of a site are centred and scaled before gains are measured."""

    site: str
    mean: np.ndarray
    mean_square: float


@dataclass(frozen=True, kw_only=True)
class Spectra:
    """Of the rows of some documents: the spectrum, and that without each group of documents."""

    documents: str
    whole: UnitSpectrum
    without: Sequence[UnitSpectrum]


@dataclass(frozen=True, kw_only=True)
class SiteGeometry:
    """One site of one model."""

    model: str
    site: str
    spectra: Sequence[Spectra]
    scale: SiteScale
    without_direction: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteGains:
    """What tokens add in each document; NaN where a document is too short.

    The first axis is the context: the document's own, and that of another document.
    """

    information: np.ndarray
    """[2, documents, contexts] nats a token."""
    ridge: np.ndarray
    """[2, documents, contexts] share of a token that is left unexplained."""
    lasso: np.ndarray
    """[2, documents, tokens chosen] the same of the last token, after the Lasso has chosen so many."""
    groups: np.ndarray
    """[documents] group of the jackknife."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FamilyMember:
    """One model of a family, and the folder of its result."""

    name: str
    parameters: int
    result: Path
