"""MLP probes of all concepts at all sites: trained by the verb `train`, on shuffled rows of the store.

    readouts = fit_mlp(rowset, moments, config.probe.mlp, folder=run.folder / "training", progress=progress)

One learner serves every site: a batch holds the same rows at each of them, so the store is read once. The place in the
data is the loader's, saved with the weights; a run that is killed goes on from its last checkpoint, with any number of
workers. Every checkpoint is a candidate, and the validation documents choose one for each concept, as they choose the
penalty of a linear probe: stopping early is the penalty of a network.

What can go wrong: the mistakes of `runtime.train`; rows that are not finite are named by the moments, before training.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lrh_ray.analyses.mlp_probe import MlpProbes, MlpReadout, MlpShape, joined, mlp_losses
from lrh_ray.analyses.moments import Moments
from lrh_ray.collective import Share, sum_over_workers
from lrh_ray.config import as_plain
from lrh_ray.digests import digest_json
from lrh_ray.optimisers import restore_state, state_tensors, warm_cosine
from lrh_ray.records import Plain
from lrh_ray.runtime.train import train
from lrh_ray.store.batches import Batch
from lrh_ray.store.loader import Loader
from lrh_ray.studies.mlp_config import MlpConfig
from lrh_ray.studies.probe_design import TRAIN
from lrh_ray.studies.probe_passes import Rowset
from lrh_ray.studies.progress import Progress

WEIGHTS_FILE, OPTIMISER_FILE, PLACE_FILE = "probes.safetensors", "optimiser.safetensors", "place.json"
WARMUP = 20
LEAST_SCALE = 1e-3
"""Of the root mean square deviation of all features: one that hardly varies is not blown up to the size of others."""


@dataclass(frozen=True, kw_only=True)
class SiteScale:
    """How a site's rows are centred and scaled, and the share of training rows in each column's population."""

    mean: np.ndarray
    scale: np.ndarray
    share: np.ndarray

    @classmethod
    def of(cls, moments: Moments) -> "SiteScale":
        variance = np.diagonal(moments.covariance[0])
        floor = (LEAST_SCALE**2) * variance.mean()
        return cls(
            mean=moments.mean[0],
            scale=np.sqrt(np.maximum(variance, floor)),
            share=moments.count[moments.populations] / moments.count[0],
        )


@dataclass(frozen=True, kw_only=True)
class MlpTask:
    """Opens a learner on a worker."""

    rowset: Rowset
    config: MlpConfig
    scales: Mapping[str, SiteScale]

    def open(self, share: Share, device: str | torch.device = "cpu") -> "MlpLearner":
        return MlpLearner(self, share, torch.device(device))

    def networks(self) -> nn.ModuleDict:
        """The networks of every site with their first weights, under names that torch allows."""
        made = {
            _key(site): MlpProbes(
                MlpShape(width=len(scale.mean), hidden=self.config.hidden, probes=len(scale.share)),
                scale.mean,
                scale.scale,
                seed=self.rowset.design.seed,
            )
            for site, scale in self.scales.items()
        }
        return nn.ModuleDict(made)

    @cached_property
    def moments(self) -> tuple[int, ...]:
        """Steps at which the networks are kept: each twice the one before, up to the last."""
        steps = self.config.steps
        return tuple(sorted({max(1, steps >> halving) for halving in range(self.config.candidates)}))


class MlpLearner:
    """One worker's share of every batch, at all sites."""

    def __init__(self, task: MlpTask, share: Share, device: torch.device) -> None:
        self._task, self._share, self._device = task, share, device
        self._networks = task.networks().to(device)
        self._parameters = list(self._networks.parameters())
        config = task.config
        self._optimiser = torch.optim.AdamW(self._parameters, lr=config.rate, weight_decay=config.weight_decay)
        self._loader = _loader(task, share)
        self._batches: Iterator[Batch] = self._endless()

    def _endless(self) -> Iterator[Batch]:
        while True:
            yield from self._loader

    def step(self, step: int) -> Mapping[str, float]:
        """One step of all networks; `loss` is their mean, in nats."""
        config, batch = self._task.config, next(self._batches)
        labels, members = (one.to(self._device) for one in labels_of(self._task.rowset, batch.index))
        total = torch.zeros(1, device=self._device)
        self._optimiser.zero_grad()
        for site, scale in self._task.scales.items():
            rows = torch.from_numpy(batch.rows[site]).to(self._device)
            expected = torch.from_numpy(scale.share * config.batch_rows).float().to(self._device)
            loss = mlp_losses(self._networks[_key(site)](rows), labels, members, expected).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        sum_over_workers([total, *(one.grad for one in self._parameters if one.grad is not None)], self._share)
        for group in self._optimiser.param_groups:
            group["lr"] = warm_cosine(step, steps=config.steps, warmup=WARMUP, rate=config.rate)
        self._optimiser.step()
        return {"loss": total.item() / sum(len(scale.share) for scale in self._task.scales.values())}

    def save(self, folder: Path) -> None:
        """Weights, moments of the optimiser, and the place in the data."""
        save_file({name: one.detach().cpu() for name, one in self._networks.named_parameters()}, folder / WEIGHTS_FILE)
        save_file(state_tensors(self._optimiser), folder / OPTIMISER_FILE)
        (folder / PLACE_FILE).write_text(json.dumps(self._loader.state_dict()), encoding="ascii")

    def load(self, folder: Path) -> None:
        """As `save` wrote them."""
        self._networks.load_state_dict(load_file(folder / WEIGHTS_FILE), strict=False)
        restore_state(self._optimiser, load_file(folder / OPTIMISER_FILE))
        self._loader.load_state_dict(json.loads((folder / PLACE_FILE).read_text(encoding="ascii")))
        self._batches = self._endless()


def labels_of(rowset: Rowset, index: np.ndarray) -> tuple[Tensor, Tensor]:
    """Labels and membership [N, F C] of any rows of the store, as float32."""
    block, offset = np.divmod(index, rowset.store.plan.rows_per_block)
    labels = np.empty((len(index), len(rowset.design.populations)), dtype=np.float32)
    members = np.empty_like(labels)
    for number in np.unique(block):
        here, inside = rowset.block(int(number)), block == number
        labels[inside] = here.labels[offset[inside]]
        members[inside] = here.members[offset[inside]][:, rowset.design.populations]
    return torch.from_numpy(labels), torch.from_numpy(members)


def fit_mlp(
    rowset: Rowset, moments: Mapping[str, Moments], config: MlpConfig, *, folder: Path, progress: Progress
) -> Mapping[str, MlpReadout]:
    """Train the networks of all sites; every candidate of each comes back, for the validation documents to choose."""
    task = MlpTask(
        rowset=rowset, config=config, scales={site: SiteScale.of(of_site) for site, of_site in moments.items()}
    )
    progress.begin("training MLP probes", config.steps, "steps")
    done = 0

    def tell(step: int, _metrics: Mapping[str, float]) -> None:
        nonlocal done
        progress.advance(step - done)
        done = step

    checkpoints = train(
        task,
        config.workers,
        steps=config.steps,
        save_at=task.moments,
        folder=folder,
        name=f"mlp-{_digest(task)[:16]}",
        on_step=tell,
    )
    columns = np.arange(len(rowset.design.populations))
    found: dict[str, list[MlpReadout]] = {site: [] for site in moments}
    for step in task.moments:
        networks = task.networks()
        networks.load_state_dict(load_file(checkpoints[step] / WEIGHTS_FILE), strict=False)
        for site in moments:
            probes = networks[_key(site)]
            if isinstance(probes, MlpProbes):
                found[site].append(MlpReadout.of(probes, columns, step=step))
    return {site: joined(candidates) for site, candidates in found.items()}


def _digest(task: MlpTask) -> str:
    """What the training run is named by: rows, labels, networks, recipe; how many workers share it does not matter."""
    asked: dict[str, Plain] = {**as_plain(task.config), "rowset": task.rowset.digest, "sites": list(task.scales)}
    del asked["workers"]
    return digest_json(asked)


def _loader(task: MlpTask, share: Share) -> Loader:
    """Shuffled rows of the training documents."""
    design, store = task.rowset.design, task.rowset.store
    training = np.flatnonzero(design.parts == TRAIN)
    documents = sorted({store.document_ids[sequence] for sequence in training.tolist()})
    return Loader(
        store,
        list(task.scales),
        batch_size=task.config.batch_rows,
        seed=design.seed,
        rank=share.rank,
        world=share.world,
        dtype="float32",
        documents=documents,
        drop_last=True,
    )


def _key(site: str) -> str:
    return site.replace(".", "/")
