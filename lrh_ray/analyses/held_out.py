"""Held-out scores with everything that judging them needs: labels, populations and the documents of the rows.

Rows of one document are not independent, so every uncertainty is computed over documents: metrics take weights per
document (`[draws, documents]`), and the data as they are is the draw of ones.
"""

from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.layouts import ColumnInts, Documents, DocumentWeights, Members, ProbeInts, ProbeScores
from lrh_ray.layouts import Labels64


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HeldOut:
    """Scores [N, K] of probes for label columns `columns` [K], beside labels [N, C] and members [N, P].

    `documents` [N] counts the held-out documents from 0 to `num_documents` - 1; use one numbering at all sites, so that
    draws with one seed mean the same documents everywhere.
    """

    scores: ProbeScores
    columns: ProbeInts
    labels: Labels64
    populations: ColumnInts
    members: Members
    documents: Documents
    num_documents: int

    @property
    def ones(self) -> DocumentWeights:
        """The draw that is the data as they are [1, S]."""
        return np.ones((1, self.num_documents))

    @property
    def probe_labels(self) -> np.ndarray:
        """Labels of each probe's column [N, K]."""
        return self.labels[:, self.columns]

    @property
    def probe_members(self) -> np.ndarray:
        """Which rows count for each probe [N, K]."""
        return self.members[:, self.populations[self.columns]]
