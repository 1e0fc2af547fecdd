"""Training of sparse autoencoders: all kinds of all sites on the same batches, from one reading of the store.

    checkpoint = train_autoencoders(task, folder=run.folder / "training", progress=progress)
    tensors = load_training(checkpoint, "resid.15", "topk", config.latents)

A step takes one shuffled batch, which holds the same rows at every site, and makes one step of every autoencoder,
transcoder and crosscoder (`sae_map_config`). What is saved is all that the next step depends on: weights, moments,
counters of the dead, annealing, and the place in the data; a run that is killed goes on from its last checkpoint as if
it had not been.

Several workers share latents and rows out (`analyses.sae.sharding`, `sae_sharing`); each holds and updates its own
latents. A checkpoint of theirs is what each holds side by side, from which any number of workers goes on, with GPUs or
without. It says how many they were, and so do the names of their files: what others left there, who were killed while
they wrote it, is never read with it.

Where codes are preselected, the recall of the exact choice is measured on the last batch before each checkpoint.

What can go wrong: the mistakes of `runtime.train`; rows that are not finite end the run with `NotEnoughData`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lrh_ray.analyses.sae.facts import StepFacts
from lrh_ray.analyses.sae.mesh import Mesh, make_mesh
from lrh_ray.analyses.sae.tile_memory import TileMemory
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
FORMAT = 2
"""Of checkpoints and of the rows trained on; one of another number is not gone on from."""
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
        threads, self.tiles = ThreadPoolExecutor(torch.get_num_threads()), TileMemory()
        self._trainings: dict[tuple[SiteMap, str], Training] = {
            (one, name): _training(kind, task, one, threads, self._mesh, device, self.tiles)
            for one in task.maps
            for name, kind in zip(kind_names(task.config.settled), task.config.settled, strict=True)
        }
        self._kinds = task.config.settled * len(task.maps)
        points = -(-task.config.steps // task.every)
        self._curves = np.full((len(self._trainings), points, len(FACTS)), np.nan)
        self._recalled = task.recalled
        self._recall = np.full((len(self._trainings), len(self._recalled)), np.nan)
        self._loader = training_loader(task, self._mesh.rows)
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
            save_file(tensors, folder / _share_file(one.name, name, self._mesh.everyone))

    def save(self, folder: Path) -> None:
        """What all workers have: curves, how many shares there are, and the place in the data."""
        told = {"curves": torch.from_numpy(self._curves), "recall": torch.from_numpy(self._recall)}
        save_file(told, folder / CURVES_FILE)
        place = {"shares": self._mesh.everyone.world, "data": self._loader.state_dict()}
        (folder / PLACE_FILE).write_text(json.dumps(place), encoding="ascii")

    def load(self, folder: Path) -> None:
        """As `save` wrote it.

        Raises:
            StateConflict: The checkpoint is of other autoencoders; nothing was changed.
        """
        loaded: dict[tuple[SiteMap, str], dict[str, Tensor]] = {}
        for kind, (of, training) in zip(self._kinds, self._trainings.items(), strict=True):
            latents = self._task.config.latents_of(kind)
            loaded[of] = load_training(folder, of[0].name, of[1], latents)
            _require_same(training, loaded[of], latents, folder)
        for of, training in self._trainings.items():
            training.load(loaded[of])
        self._curves, self._recall = load_curves(folder), load_recall(folder)
        self._loader.load_state_dict(_place(folder)["data"])
        self._batches = self._endless()


def training_loader(task: SaeTask, share: Share) -> Loader:
    """Shuffled training rows, the same whose sums, thresholds and evaluation `SaeRows` takes."""
    store = open_store(task.location)
    return Loader(
        store,
        list(task.units),
        batch_size=task.config.batch_rows,
        seed=task.config.seed,
        rank=share.rank,
        world=share.world,
        dtype="float32",
        documents=task.documents,
        sinks=task.config.sinks,
        sink_sites=store.model_sites,
        without_text="drop",
        drop_last=True,
    )


def _training(
    kind: Kind,
    task: SaeTask,
    one: SiteMap,
    threads: Executor,
    mesh: Mesh,
    device: torch.device,
    tiles: TileMemory,
) -> Training:
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
        tiles=tiles,
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


def load_training(checkpoint: Path, site: str, name: str, latents: int) -> dict[str, Tensor]:
    """What `Training.tensors` gave at a site, or of a map by its name; all `latents`, whoever held them.

    Raises:
        StateConflict: The checkpoint has no such autoencoder, not all of it, or another number of latents.
    """
    world = int(_place(checkpoint)["shares"])
    files = [checkpoint / _share_file(site, name, Share(rank=rank, world=world)) for rank in range(world)]
    missing = [rank for rank, file in enumerate(files) if not file.is_file()]
    if missing:
        what = f"{name} of {site}" + (f": share {missing[0]} of {world} is missing" if len(missing) < world else "")
        raise StateConflict(f"The checkpoint {str(checkpoint)!r} has no {what}. {ELSEWHERE}")
    tensors = joined([load_file(file) for file in files])
    encoder = tensors["parameter.encoder"]
    _require_shape("parameter.encoder", encoder, (latents, encoder.shape[1]), checkpoint)
    return tensors


def _place(checkpoint: Path) -> Mapping[str, Any]:
    """How many shares a checkpoint has, and where its run stood in the data."""
    try:
        found: dict[str, Any] = json.loads((checkpoint / PLACE_FILE).read_text(encoding="ascii"))
        return {"shares": found["shares"], "data": found["data"]}
    except (OSError, ValueError, KeyError) as error:
        raise StateConflict(f"{str(checkpoint)!r} is no checkpoint of autoencoders ({error!r}). {ELSEWHERE}") from error


def _require_same(training: Training, tensors: Mapping[str, Tensor], latents: int, checkpoint: Path) -> None:
    """Refuse tensors of other names or sizes than this training has."""
    own = {f"parameter.{name}": tensor for name, tensor in training.parameters.items()}
    for name, tensor in own.items():
        whole = tensor.shape if belongs_to_all(name) else (latents, *tensor.shape[1:])
        _require_shape(name, tensors.get(name), tuple(whole), checkpoint)


def _require_shape(name: str, tensor: Tensor | None, shape: tuple[int, ...], checkpoint: Path) -> None:
    found = "absent" if tensor is None else tuple(tensor.shape)
    if found != shape:
        raise StateConflict(
            f"The checkpoint {str(checkpoint)!r} is of another configuration: {name} is {found}, and would be "
            f"{shape}. {ELSEWHERE}"
        )


def load_curves(checkpoint: Path) -> np.ndarray:
    """Facts of steps [autoencoders, points, facts], NaN where a step has not been made."""
    return load_file(checkpoint / CURVES_FILE)["curves"].numpy()


def load_recall(checkpoint: Path) -> np.ndarray:
    """Recall of the exact choice before the steps `SaeTask.recalled` [autoencoders, steps]; NaN of dense kinds."""
    return load_file(checkpoint / CURVES_FILE)["recall"].numpy()


def _digest(task: SaeTask) -> str:
    """What the run is named by: rows and recipe; who trains, and what is shown afterwards, does not matter."""
    config = {name: value for name, value in as_plain(task.config).items() if name not in OF_NO_STEP}
    documents = digest_json({"ids": list(task.documents)})
    return digest_json({**config, "root": task.root, "documents": documents, "format": FORMAT})


def _share_file(site: str, name: str, share: Share) -> str:
    """Name of the file of one worker's latents; workers of other numbers write others."""
    return f"{_stem(site, name)}.{share.rank}-of-{share.world}.safetensors"


def _stem(site: str, name: str) -> str:
    """What the names of an autoencoder's files begin with, in letters that every disk takes; a digest tells 1e-16 from
    1e+16."""
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', f'{site}--{name}')[:120]}-{digest_json([site, name])[:8]}"
