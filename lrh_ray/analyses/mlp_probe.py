"""Probes with one or two hidden layers: many small networks side by side, each with its own label column.

    probes = MlpProbes(MlpShape(width=576, hidden=(64,), probes=40), mean, scale, seed=0)
    loss = mlp_losses(probes(rows), labels, members, expected).sum()
    readout = MlpReadout.of(probes, columns, step=1000)         # NumPy in float64, for rows as they stand in the store
    readout.scores(held_out_rows)                               # [N, K] log-odds in nats

Network k of K sees all features and no other network: with a = relu,

    t_k = v_k . a(W2_k a(W1_k (x - mean) / scale + b1_k) + b2_k) + c_k         (one hidden layer: without W2)

Its loss is the mean log-loss over the rows of its population. An optimiser that scales every coordinate by itself, such
as Adam, then trains all of them as if each were alone, and the first layers of all are one product of 2 D K H FLOP a
row. Centring and scaling by the features' deviations makes one learning rate serve all sites; a readout keeps both.

What can go wrong: unlike the linear probes there is no certificate. A network that is better than a linear probe says
that more is there; one that is not may only be badly trained. Labels that are noise are learnt by heart, so held-out
rows alone count, and the gap to the linear probe is told beside the same gap on shuffled and on control labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lrh_ray.analyses.layouts import ProbeFloats, ProbeInts, ProbeScores
from lrh_ray.analyses.tiles import tile_slices
from lrh_ray.layouts import Feature64, Rows

MOST_LAYERS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class MlpShape:
    """Features, units of each hidden layer (one layer or two), and how many networks."""

    width: int
    hidden: tuple[int, ...]
    probes: int

    def __post_init__(self) -> None:
        if not 1 <= len(self.hidden) <= MOST_LAYERS or min(self.hidden) < 1:
            raise ValueError(f"hidden is {self.hidden!r}; give one or two layers of at least 1 unit, for example (64,)")


class MlpProbes(nn.Module):
    """K networks [.., D] -> [.., K], float32."""

    mean: Tensor
    scale: Tensor

    def __init__(self, shape: MlpShape, mean: Feature64, scale: Feature64, *, seed: int) -> None:
        """Weights uniform in +- 1 / sqrt(inputs), the same for every machine and number of workers."""
        super().__init__()
        self.shape = shape
        noise = torch.Generator().manual_seed(seed)
        sizes = (shape.width, *shape.hidden, 1)

        def drawn(inputs: int, *size: int) -> nn.Parameter:
            return nn.Parameter((2 * torch.rand(shape.probes, *size, generator=noise) - 1) / inputs**0.5)

        self.weights = nn.ParameterList([drawn(inputs, inputs, outputs) for inputs, outputs in pairwise(sizes)])
        self.biases = nn.ParameterList([drawn(inputs, outputs) for inputs, outputs in pairwise(sizes)])
        self.register_buffer("mean", torch.from_numpy(mean).float())
        self.register_buffer("scale", torch.from_numpy(scale).float())

    def forward(self, rows: Tensor) -> Tensor:
        """Rows [N, D] to log-odds [N, K]."""
        first, bias = self.weights[0], self.biases[0]
        x = (rows - self.mean) / self.scale
        wide = first.permute(1, 0, 2).reshape(self.shape.width, -1)  # all first layers side by side: one product
        hidden = torch.addmm(bias.reshape(-1), x, wide).view(len(rows), *bias.shape).relu().transpose(0, 1)  # [K, N, H]
        for weight, bias in list(zip(self.weights, self.biases, strict=True))[1:-1]:
            hidden = torch.baddbmm(bias[:, None, :], hidden, weight).relu()
        return torch.baddbmm(self.biases[-1][:, None, :], hidden, self.weights[-1])[..., 0].T


def mlp_losses(scores: Tensor, labels: Tensor, members: Tensor, expected: Tensor) -> Tensor:
    """Each network's log-loss in nats [K], summed over its members and divided by how many a batch has on average.

    Args:
        scores: Log-odds [N, K].
        labels: 0 or 1 [N, K].
        members: 1 where a row belongs to the network's population [N, K].
        expected: Members of a whole batch on average [K], which does not depend on how workers share it.
    """
    found = functional.binary_cross_entropy_with_logits(scores, labels, weight=members, reduction="none")
    return found.sum(dim=0) / expected


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MlpReadout:
    """K trained networks, as numbers. A row is called positive where its log-odds exceed 0.

    `columns` is the label column of each network, `regularisation` the number of steps it was trained for.
    """

    mean: Feature64
    scale: Feature64
    weights: tuple[np.ndarray, ...]
    """[K, inputs, outputs] of each layer, float32."""
    biases: tuple[np.ndarray, ...]
    columns: ProbeInts
    regularisation: ProbeFloats
    threshold: float = 0.0

    @classmethod
    def of(cls, probes: MlpProbes, columns: ProbeInts, *, step: int) -> "MlpReadout":
        """The networks as they are now."""

        def arrays(parameters: nn.ParameterList) -> tuple[np.ndarray, ...]:
            return tuple(parameter.detach().cpu().numpy().copy() for parameter in parameters)

        return cls(
            mean=probes.mean.double().cpu().numpy(),
            scale=probes.scale.double().cpu().numpy(),
            weights=arrays(probes.weights),
            biases=arrays(probes.biases),
            columns=columns,
            regularisation=np.full(len(columns), float(step)),
        )

    def scores(self, rows: Rows) -> ProbeScores:
        """Rows of any float type to log-odds [N, K]; each network is evaluated in float64."""
        found = np.empty((len(rows), len(self.columns)))
        for tile in tile_slices(len(rows)):
            x = (rows[tile].astype(np.float64) - self.mean) / self.scale
            for k in range(len(self.columns)):
                found[tile, k] = self._network(k, x)
        return found

    def _network(self, k: int, x: np.ndarray) -> np.ndarray:
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = np.maximum(x @ weight[k].astype(np.float64) + bias[k], 0.0)
        return np.asarray((x @ self.weights[-1][k].astype(np.float64) + self.biases[-1][k])[:, 0])

    def of_probes(self, probes: np.ndarray) -> "MlpReadout":
        """Some of the networks."""
        return MlpReadout(
            mean=self.mean,
            scale=self.scale,
            weights=tuple(weight[probes] for weight in self.weights),
            biases=tuple(bias[probes] for bias in self.biases),
            columns=self.columns[probes],
            regularisation=self.regularisation[probes],
            threshold=self.threshold,
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """By name, for files."""
        layers = {f"weights.{layer}": weight for layer, weight in enumerate(self.weights)}
        offsets = {f"biases.{layer}": bias for layer, bias in enumerate(self.biases)}
        return {
            **layers,
            **offsets,
            "mean": self.mean,
            "scale": self.scale,
            "regularisation": self.regularisation,
        }


def joined(readouts: Sequence[MlpReadout]) -> MlpReadout:
    """The networks of several readouts of one site, one after the other."""
    first = readouts[0]
    return MlpReadout(
        mean=first.mean,
        scale=first.scale,
        weights=tuple(np.concatenate(layer) for layer in zip(*(one.weights for one in readouts), strict=True)),
        biases=tuple(np.concatenate(layer) for layer in zip(*(one.biases for one in readouts), strict=True)),
        columns=np.concatenate([one.columns for one in readouts]),
        regularisation=np.concatenate([one.regularisation for one in readouts]),
        threshold=first.threshold,
    )
