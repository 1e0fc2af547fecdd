"""What a store knows about its own numbers: column moments, norms, non-finite counts, and the sink threshold.

Each block brings one object with, per site: rows, mean, sum of squared deviations (m2), largest magnitude, and the
norm of every row. The seal merges them in block order (Chan's formula, float64), so a store has one answer however
many workers wrote it.

Attention sinks (a few rows, mostly position 0, whose norm exceeds the rest a hundredfold) dominate every second
moment. A row is a sink of a site when its norm exceeds `SINK_FACTOR` times the site's median norm; the count stands
in the manifest and readers can leave such rows out by name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from safetensors.numpy import load, save

SINK_FACTOR = 10.0
PARTS = ("count", "mean", "m2", "absmax", "norms", "nonfinite")


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnMoments:
    """Mergeable column moments of rows of one site, float64."""

    count: int
    mean: np.ndarray
    m2: np.ndarray
    absmax: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> "ColumnMoments":
        """Of [rows, feature] float64."""
        mean = rows.mean(axis=0)
        deviation = rows - mean
        m2 = np.einsum("nd,nd->d", deviation, deviation)
        return cls(count=len(rows), mean=mean, m2=m2, absmax=np.abs(rows).max(axis=0))

    def merge(self, other: "ColumnMoments") -> "ColumnMoments":
        count = self.count + other.count
        delta = other.mean - self.mean
        return ColumnMoments(
            count=count,
            mean=self.mean + delta * (other.count / count),
            m2=self.m2 + other.m2 + delta * delta * (self.count * other.count / count),
            absmax=np.maximum(self.absmax, other.absmax),
        )


def merge_all(states: Iterable[ColumnMoments]) -> ColumnMoments:
    """Left to right; the order is the caller's promise that the answer is reproducible."""
    total = None
    for state in states:
        total = state if total is None else total.merge(state)
    if total is None:
        raise ValueError("no rows to summarise")
    return total


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteStatistics:
    """Everything one block knows about one site."""

    moments: ColumnMoments
    norms: np.ndarray
    nonfinite: int


def encode(sites: Mapping[str, SiteStatistics]) -> bytes:
    """As safetensors, with deterministic bytes."""
    arrays: dict[str, np.ndarray] = {}
    for name, site in sites.items():
        arrays[f"{name}/count"] = np.array([site.moments.count], dtype=np.int64)
        arrays[f"{name}/mean"] = site.moments.mean
        arrays[f"{name}/m2"] = site.moments.m2
        arrays[f"{name}/absmax"] = site.moments.absmax
        arrays[f"{name}/norms"] = site.norms
        arrays[f"{name}/nonfinite"] = np.array([site.nonfinite], dtype=np.int64)
    return save(arrays)


def decode(data: bytes, names: Sequence[str]) -> dict[str, SiteStatistics]:
    arrays = load(data)
    return {
        name: SiteStatistics(
            moments=ColumnMoments(
                count=int(arrays[f"{name}/count"][0]),
                mean=arrays[f"{name}/mean"],
                m2=arrays[f"{name}/m2"],
                absmax=arrays[f"{name}/absmax"],
            ),
            norms=arrays[f"{name}/norms"],
            nonfinite=int(arrays[f"{name}/nonfinite"][0]),
        )
        for name in names
    }


def median_norm(norms: Sequence[np.ndarray]) -> float:
    """Exact lower median of non-negative float32 norms, in memory for two histograms.

    The bit patterns of non-negative floats are ordered like the floats themselves: one pass counts the upper 16 bits
    and finds the bin of the median, a second pass counts the lower 16 bits inside that bin. NaN sorts last.
    """
    total = sum(map(len, norms))
    target = (total - 1) // 2
    upper = _histogram(bits >> 16 for bits in map(_bits, norms))
    high, below = _find(upper, target)
    lower = _histogram(bits[bits >> 16 == high] & 0xFFFF for bits in map(_bits, norms))
    low, _ = _find(lower, target - below)
    return float(np.array([(high << 16) | low], dtype=np.uint32).view(np.float32)[0])


def _bits(norms: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(norms, dtype=np.float32).view(np.uint32)


def _histogram(parts: Iterable[np.ndarray]) -> np.ndarray:
    counts = np.zeros(1 << 16, dtype=np.int64)
    for part in parts:
        counts += np.bincount(part, minlength=1 << 16)
    return counts


def _find(counts: np.ndarray, rank: int) -> tuple[int, int]:
    """The bin that holds the element of this rank, and how many elements lie below the bin."""
    cumulative = np.cumsum(counts)
    found = int(np.searchsorted(cumulative, rank, side="right"))
    return found, int(cumulative[found] - counts[found])
