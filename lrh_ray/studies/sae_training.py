"""Training of sparse autoencoders: all kinds of all sites on the same batches, from one reading of the store.

    checkpoint = train_autoencoders(task, folder=run.folder / "training", progress=progress)
    tensors = load_training(checkpoint, "resid.15", "topk")

A step takes one shuffled batch, which holds the same rows at every site, and makes one step of every autoencoder,
transcoder and crosscoder (`sae_map_config`). What is saved is all that the next step depends on: weights, moments,
counters of the dead, annealing, and the place in the data; a run that is killed goes on from its last checkpoint as if
it had not been.

Several workers share latents and rows out (`analyses.sae.sharding`, `sae_sharing`); each holds and updates its own
latents. A checkpoint of theirs is what each holds side by side, from which any number of workers goes on, with GPUs or
without.

Where codes are preselected, the recall of the exact choice is measured on the last batch before each checkpoint.

What can go wrong: the mistakes of `runtime.train`; rows that are not finite end the run with `NotEnoughData`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lrh_ray.analyses.sae.facts import StepFacts
from lrh_ray.analyses.sae.mesh import Mesh, make_mesh
from lrh_ray.analyses.sae.training import Choosing, Training, belongs_to_all, joined
from lrh_ray.collective import Share
from lrh_ray.config import as_plain
from lrh_ray.digests import digest_json
from lrh_ray.errors import NotEnoughData, StateConflict
from lrh_ray.optimisers import warm_cosine
from lrh_ray.runtime.train import train
from lrh_ray.store.batches import Batch
from lrh_ray.store.loader import Loader
from lrh_ray.store.objects import Location
from lrh_ray.store.reader import open_store
from lrh_ray.studies.progress import Progress
from lrh_ray.studies.sae_config import SaeConfig
from lrh_ray.studies.sae_kind_config import Kind
from lrh_ray.studies.sae_kinds import kind_names, make_training, warmup_steps
from lrh_ray.studies.sae_map_config import SiteMap, site_maps
from lrh_ray.studies.sae_maps import MapUnit, SiteUnit, side_by_side

PLACE_FILE, CURVES_FILE = "place.json", "curves.safetensors"
CURVE_POINTS = 200
"""Steps whose facts are kept, at most."""
FACTS = ("loss", "penalty", "l0", "dead")
OF_NO_STEP = ("workers", "latent_parts", "groups", "splice_documents", "shown_latents")
"""Settings that no step depends on: who trains, and what is measured afterwards."""
ELSEWHERE = "Restore the settings it was made with, or move the folder away and train anew."
BASE_RATE, BASE_LATENTS = 2e-4, 16_384


@dataclass(frozen=True, kw_only=True)
class SaeTask:
    """Opens the learner on a worker."""

    location: Location
    root: str
    """Digest of the store."""
    config: SaeConfig
    units: Mapping[str, SiteUnit]
    documents: tuple[str, ...]
    """Ids of the documents to train on."""
    parts: int = 1
    """Into which the latents are cut."""

    def open(self, share: Share, device: str | torch.device = "cpu") -> "SaeLearner":
        return SaeLearner(self, share, torch.device(device))

    @property
    def maps(self) -> tuple[SiteMap, ...]:
        """What every kind is trained on."""
        return site_maps(self.config.sites, self.config.maps, tuple(self.units))

    def rate_of(self, kind: Kind) -> float:
        """Highest learning rate."""
        default = BASE_RATE * (BASE_LATENTS / self.config.latents_of(kind)) ** 0.5
        return default if self.config.rate is None else self.config.rate

    @property
    def every(self) -> int:
        """Steps from one point of the curves to the next."""
        return -(-self.config.steps // CURVE_POINTS)

    @property
    def save_at(self) -> tuple[int, ...]:
        """Numbers of steps after which there is a checkpoint; 0 is the beginning."""
        steps, parts = self.config.steps, self.config.checkpoints
        return tuple(sorted({steps * part // parts for part in range(parts + 1)}))

    @property
    def recalled(self) -> tuple[int, ...]:
        """Steps before which the recall of a preselection is measured, the last before each checkpoint; else none."""
        return () if self.config.preselect is None else tuple(step - 1 for step in self.save_at if step)


class SaeLearner:
    """All autoencoders in training."""

    def __init__(self, task: SaeTask, share: Share, device: torch.device) -> None:
        self._task, self._mesh = task, make_mesh(share, parts=task.parts)
        threads = ThreadPoolExecutor(torch.get_num_threads())
        self._trainings: dict[tuple[SiteMap, str], Training] = {
            (one, name): _training(kind, task, one, threads, self._mesh, device)
            for one in task.maps
            for name, kind in zip(kind_names(task.config.settled), task.config.settled, strict=True)
        }
        self._kinds = task.config.settled * len(task.maps)
        points = -(-task.config.steps // task.every)
        self._curves = np.full((len(self._trainings), points, len(FACTS)), np.nan)
        self._recalled = task.recalled
        self._recall = np.full((len(self._trainings), len(self._recalled)), np.nan)
        self._loader = Loader(
            open_store(task.location),
            list(task.units),
            batch_size=task.config.batch_rows,
            seed=task.config.seed,
            rank=self._mesh.rows.rank,
            world=self._mesh.rows.world,
            dtype="float32",
            documents=task.documents,
            sinks=task.config.sinks,
            drop_last=True,
        )
        self._batches = self._endless()

    def _endless(self) -> Iterator[Batch]:
        while True:
            yield from self._loader

    def step(self, step: int) -> Mapping[str, float]:
        """One step of every autoencoder."""
        config, batch = self._task.config, next(self._batches)
        told: dict[str, float] = {}
        scaled = {site: batch.rows[site] / np.float32(unit.scale) for site, unit in self._task.units.items()}
        ends = {end for one, _ in self._trainings for end in (one.reads, one.writes)}
        rows = {end: side_by_side([scaled[site] for site in end]) for end in ends}
        for number, ((one, name), training) in enumerate(self._trainings.items()):
            target = rows[one.writes] if one.transcodes else None
            if step in self._recalled and isinstance(training, Choosing):
                self._recall[number, self._recalled.index(step)] = training.recall(rows[one.reads])
            highest = self._task.rate_of(self._kinds[number])
            rate = warm_cosine(step, steps=config.steps, warmup=warmup_steps(config), rate=highest)
            found = self._made(training, rows[one.reads], target, rate, f"{name} at {one.name}")
            if step % self._task.every == 0:
                self._curves[number, step // self._task.every] = [getattr(found, fact) for fact in FACTS]
            told[f"{one.name} {name}"] = found.loss
        return told

    @staticmethod
    def _made(training: Training, rows: np.ndarray, target: np.ndarray | None, rate: float, what: str) -> StepFacts:
        try:
            return training.step(rows, rate=rate, target=target)
        except NotEnoughData as error:
            raise NotEnoughData(f"Training {what}: {error}") from error

    def save_share(self, folder: Path) -> None:
        """This worker's latents of every autoencoder, a file for each."""
        for (one, name), training in self._trainings.items():
            tensors = {key: value.contiguous() for key, value in training.tensors().items()}
            save_file(tensors, folder / f"{_stem(one.name, name)}.{self._mesh.everyone.rank}.safetensors")

    def save(self, folder: Path) -> None:
        """What all workers have: curves, and the place in the data."""
        told = {"curves": torch.from_numpy(self._curves), "recall": torch.from_numpy(self._recall)}
        save_file(told, folder / CURVES_FILE)
        (folder / PLACE_FILE).write_text(json.dumps(self._loader.state_dict()), encoding="ascii")

    def load(self, folder: Path) -> None:
        """As `save` wrote it.

        Raises:
            StateConflict: The checkpoint is of other autoencoders; nothing was changed.
        """
        loaded = {(one, name): load_training(folder, one.name, name) for one, name in self._trainings}
        for kind, (of, training) in zip(self._kinds, self._trainings.items(), strict=True):
            _require_same(training, loaded[of], self._task.config.latents_of(kind), folder)
        for of, training in self._trainings.items():
            training.load(loaded[of])
        self._curves, self._recall = load_curves(folder), load_recall(folder)
        self._loader.load_state_dict(json.loads((folder / PLACE_FILE).read_text(encoding="ascii")))
        self._batches = self._endless()


def _training(kind: Kind, task: SaeTask, one: SiteMap, threads: Executor, mesh: Mesh, device: torch.device) -> Training:
    unit = MapUnit.of(one, task.units)
    return make_training(
        kind,
        task.config,
        unit.centre,
        seed=task.config.seed_of(kind),
        read_centre=unit.read_centre,
        skip=one.skip,
        widths=unit.widths,
        threads=threads,
        mesh=mesh,
        device=device,
    )


def train_autoencoders(task: SaeTask, *, folder: Path, progress: Progress) -> Mapping[int, Path]:
    """Train; the folders of the checkpoints by their number of steps."""
    progress.begin(f"training {len(task.maps) * len(task.config.kinds)} autoencoders", task.config.steps, "steps")
    done = 0

    def tell(step: int, _metrics: Mapping[str, float]) -> None:
        nonlocal done
        progress.advance(step - done)
        done = step

    return train(
        task,
        task.config.workers,
        steps=task.config.steps,
        save_at=task.save_at,
        folder=folder,
        name=f"sae-{_digest(task)[:16]}",
        on_step=tell,
    )


def load_training(checkpoint: Path, site: str, name: str) -> dict[str, Tensor]:
    """What `Training.tensors` gave at a site, or of a map by its name; all latents, whoever held them.

    Raises:
        StateConflict: The checkpoint has no such autoencoder.
    """
    files = sorted(checkpoint.glob(f"{_stem(site, name)}.*.safetensors"), key=lambda path: int(path.suffixes[-2][1:]))
    if not files:
        raise StateConflict(f"The checkpoint {str(checkpoint)!r} has no {name} of {site}. {ELSEWHERE}")
    return joined([load_file(file) for file in files])


def _require_same(training: Training, tensors: Mapping[str, Tensor], latents: int, checkpoint: Path) -> None:
    """Refuse tensors of other names or sizes than this training has."""
    own = {f"parameter.{name}": tensor for name, tensor in training.parameters.items()}
    for name, tensor in own.items():
        whole = tensor.shape if belongs_to_all(name) else (latents, *tensor.shape[1:])
        found = tuple(tensors[name].shape) if name in tensors else "absent"
        if found != tuple(whole):
            raise StateConflict(
                f"The checkpoint {str(checkpoint)!r} is of another configuration: {name} is {found}, and would be "
                f"{tuple(whole)}. {ELSEWHERE}"
            )


def load_curves(checkpoint: Path) -> np.ndarray:
    """Facts of steps [autoencoders, points, facts], NaN where a step has not been made."""
    return load_file(checkpoint / CURVES_FILE)["curves"].numpy()


def load_recall(checkpoint: Path) -> np.ndarray:
    """Recall of the exact choice before the steps `SaeTask.recalled` [autoencoders, steps]; NaN of dense kinds."""
    return load_file(checkpoint / CURVES_FILE)["recall"].numpy()


def _digest(task: SaeTask) -> str:
    """What the run is named by: rows and recipe; who trains, and what is shown afterwards, does not matter."""
    asked = {**as_plain(task.config), "root": task.root, "documents": digest_json({"ids": list(task.documents)})}
    return digest_json({name: value for name, value in asked.items() if name not in OF_NO_STEP})


def _stem(site: str, name: str) -> str:
    """Name of an autoencoder's files, without what a pattern would read as its own; a digest tells 1e-16 from 1e+16."""
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', f'{site}--{name}')[:120]}-{digest_json([site, name])[:8]}"
