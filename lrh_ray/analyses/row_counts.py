"""How many rows there are of what sort, in each group: a mergeable count.

RowCounts.of({"sinks": mask}, groups, num_groups=2).merge(other).counts["sinks"]      # [2]
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.layouts import GroupIndex
from lrh_ray.layouts import RowMask


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RowCounts:
    """By sort, rows of each group [G], int64."""

    counts: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, sorts: Mapping[str, RowMask], groups: GroupIndex, *, num_groups: int) -> "RowCounts":
        """Count the rows of one block: which are of each sort [N], and the group of each [N]."""
        return cls(counts={name: np.bincount(groups[own], minlength=num_groups) for name, own in sorts.items()})

    def merge(self, other: "RowCounts") -> "RowCounts":
        return RowCounts(counts={name: own + other.counts[name] for name, own in self.counts.items()})
