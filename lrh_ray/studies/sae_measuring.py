"""Autoencoders of one map, trained and as they began, on held-out rows.

    measured = MapMeasurement(config=config.sae, rows=rows, found=found).measured(checkpoints)

BatchTopK kinds first get the threshold that is exact for the training rows, and what was normalised over batches the
moments of all of them; then one pass over the store measures all kinds and their first weights, and a second one with
sinks among the rows.

What can go wrong: a checkpoint of another configuration is `StateConflict`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from lrh_ray.analyses.sae.architectures.conca import ConCA
from lrh_ray.analyses.sae.evaluation import Reconstruction
from lrh_ray.analyses.sae.firing_prior import expected_dead, firing_prior, pre_activation_spread
from lrh_ray.analyses.sae.reader import Reader, fold
from lrh_ray.analyses.sae.site_norms import site_norms
from lrh_ray.runtime.reduce import reduce_blocks
from lrh_ray.studies.sae_config import SaeConfig
from lrh_ray.studies.sae_kind_config import BatchTopKKind, Chosen, ConCAKind, Kind, MatryoshkaKind
from lrh_ray.studies.sae_kinds import kind_names, make_reader
from lrh_ray.studies.sae_passes import (
    CodesPass,
    EvaluationPass,
    SaeRows,
    ThresholdPass,
)
from lrh_ray.studies.sae_records import MapRows, Measured
from lrh_ray.studies.sae_training import load_training


@dataclass(frozen=True, kw_only=True)
class MapMeasurement:
    """Measures the autoencoders of one map."""

    config: SaeConfig
    rows: SaeRows
    found: MapRows

    def measured(self, checkpoints: Mapping[int, Path]) -> list[Measured]:
        """All kinds, trained and as they began."""
        first, last = checkpoints[0], checkpoints[self.config.steps]
        names, kinds = kind_names(self.config.settled), self.config.settled
        tensors, begun = (self._loaded(checkpoint, names) for checkpoint in (last, first))
        thresholds = [self._threshold(kind, own) for kind, own in zip(kinds, tensors, strict=True)]
        first_thresholds = [self._threshold(kind, own) for kind, own in zip(kinds, begun, strict=True)]
        readers = tuple(map(self._reader, kinds, tensors, thresholds))
        untrained = tuple(map(self._reader, kinds, begun, first_thresholds))
        num = len(kinds)
        both = self._evaluated((*readers, *untrained))
        unfiltered = self._evaluated(readers, sinks="keep") if self.config.sinks == "drop" else both[:num]
        dead = self._expected_dead(begun, both[0].rows)
        return [
            Measured(
                site=self.found.name,
                name=name,
                kind=kind,
                held_out=both[number],
                untrained=both[num + number],
                unfiltered=unfiltered[number],
                threshold=thresholds[number],
                reader=readers[number],
                untrained_reader=untrained[number],
                expected_dead=dead[number],
                norms=self._norms(tensors[number]),
                untrained_norms=self._norms(begun[number]),
            )
            for number, (name, kind) in enumerate(zip(names, kinds, strict=True))
        ]

    def _loaded(self, checkpoint: Path, names: Sequence[str]) -> list[dict[str, Tensor]]:
        latents = map(self.config.latents_of, self.config.kinds)
        own = zip(names, latents, strict=True)
        return [load_training(checkpoint, self.found.name, name, num) for name, num in own]

    def _reader(self, kind: Kind, tensors: Mapping[str, Tensor], threshold: float) -> Reader:
        reader = make_reader(kind, self.config, tensors, self.found.unit.scales, threshold)
        if not (isinstance(kind, ConCAKind) and kind.norm == "batch" and isinstance(reader, ConCA)):
            return reader
        task = CodesPass(rows=self.rows, sites=self.found.ends.reads, reader=reader)
        return reader.read_with(reduce_blocks(range(self.rows.store().plan.num_blocks), task))

    def _expected_dead(self, begun: Sequence[Mapping[str, Tensor]], rows: int) -> list[float | None]:
        """Of each kind that chooses codes, by its first weights and k."""
        spreads: dict[tuple[int | None, int | None], np.ndarray] = {}
        expected: list[float | None] = []
        for kind, own in zip(self.config.settled, begun, strict=True):
            if not isinstance(kind, Chosen):
                expected.append(None)
                continue
            first = (kind.latents, kind.seed)
            if first not in spreads:
                spreads[first] = pre_activation_spread(own["parameter.encoder"], self.found.covariance)
            expected.append(expected_dead(firing_prior(spreads[first], kind.k), rows))
        return expected

    def _norms(self, tensors: Mapping[str, Tensor]) -> np.ndarray | None:
        """Lengths of decoder rows at several sites [M, S], in the unit of training; of one site nothing."""
        widths = self.found.unit.widths
        return site_norms(tensors["parameter.decoder"], widths).numpy() if widths else None

    def _threshold(self, kind: Kind, tensors: Mapping[str, Tensor]) -> float:
        """That of a BatchTopK kind, over all training rows; two passes."""
        if not isinstance(kind, BatchTopKKind | MatryoshkaKind):
            return 0.0
        own = {name.removeprefix("parameter."): tensor for name, tensor in tensors.items() if "parameter." in name}
        parameters, reads = fold(own, self.found.unit.scales), self.found.ends.reads
        blocks = range(self.rows.store().plan.num_blocks)
        coarse = reduce_blocks(blocks, ThresholdPass(rows=self.rows, sites=reads, parameters=parameters))
        prefix = coarse.place(kind.k)
        if prefix is None:
            return 0.0
        fine = ThresholdPass(rows=self.rows, sites=reads, parameters=parameters, prefix=prefix)
        return reduce_blocks(blocks, fine).threshold(coarse, kind.k)

    def _evaluated(self, readers: tuple[Reader, ...], *, sinks: str | None = None) -> tuple[Reconstruction, ...]:
        task = EvaluationPass(
            rows=self.rows,
            ends=self.found.ends,
            unit=self.found.unit,
            readers=readers,
            num_groups=self.config.groups,
            sinks=sinks,
        )
        return reduce_blocks(range(self.rows.store().plan.num_blocks), task).of
