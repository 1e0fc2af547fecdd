"""The verb `train`: gradient steps in lockstep on several workers, with checkpoints from which any failure resumes.

    checkpoints = train(task, TrainConfig(workers=2), steps=1000, save_at=(0, 250, 1000), folder=run, name="sae")
    checkpoints[250]                    # folder that the task's learner wrote after 250 steps

A task opens one *learner* per worker, on the device that the worker was given; a learner makes a step and writes and
reads all that a run needs to go on: weights, optimiser, schedule, place in the data, random states. Ray Train places
the workers, joins them into one process group, keeps the checkpoints, and starts all workers anew from the last one
when any of them dies. Repeating the same command does the same after the driver died.

What can go wrong: a learner whose step depends on anything it does not save resumes to another result. A worker that
dies is replaced `retries` times; then the run ends with `ClusterError`, and the checkpoints stand. A mistake of the
user's that a worker meets (`LrhError`) is raised as it is.
"""

import json
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import ray
import torch
from ray.util.queue import Empty, Queue

from lrh_ray.collective import Share
from lrh_ray.durable import write_durably
from lrh_ray.errors import ClusterError, ConfigError, DependencyMissing, LrhError
from lrh_ray.runtime.cluster import living_nodes
from lrh_ray.runtime.config import TrainConfig
from lrh_ray.runtime.sizing import require_room

try:
    import ray.train
    import ray.train.torch
except ImportError as error:
    raise DependencyMissing(
        "Training needs Ray Train's own dependencies and torch. Install them with: pip install 'lrh-ray[models,train]'"
    ) from error

STEP_FILE = "step.json"
FINISHED_FILE = "finished.json"
TELL_SECONDS = 0.5
OnStep = Callable[[int, Mapping[str, float]], None]


@runtime_checkable
class Learner(Protocol):
    """One worker's side of a training run."""

    def step(self, step: int) -> Mapping[str, float]:
        """Make gradient step number `step` (from 0) together with the other workers; returns numbers worth watching."""

    def save(self, folder: Path) -> None:
        """Write all that is needed to go on into an empty folder; called on rank 0 only."""

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote, perhaps in a run of another number of workers."""


@runtime_checkable
class SharedLearner(Protocol):
    """A learner that holds what no other worker does, a part of the weights say."""

    def save_share(self, folder: Path) -> None:
        """Write what this worker alone holds; called on every rank. All ends in one folder: names tell ranks apart."""


@runtime_checkable
class LearnTask(Protocol):
    """Picklable: how a worker gets its learner."""

    def open(self, share: Share, device: torch.device) -> Learner:
        """A learner that computes on `device`: this worker's GPU where workers have one, else the CPU.

        Workers with GPUs are joined by NCCL, which sums and gathers tensors of that device and no others.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class _Orders:
    """What every worker is told."""

    task: LearnTask
    steps: int
    save_at: frozenset[int]
    news: Queue


def train(
    task: LearnTask,
    config: TrainConfig,
    *,
    steps: int,
    save_at: Sequence[int],
    folder: Path,
    name: str,
    on_step: OnStep = lambda _step, _metrics: None,
) -> Mapping[int, Path]:
    """Make `steps` steps; returns the folder of every checkpoint asked for, by its number of steps.

    Args:
        task: Opens the learners.
        config: How many workers, and what each takes.
        steps: Steps in all.
        save_at: Numbers of steps after which a checkpoint is written; 0 is the state before the first.
        folder: Where checkpoints are kept; on several nodes a path that all of them share.
        name: Name of the run in `folder`; a run of the same name goes on from its last checkpoint.
        on_step: Told the number of steps done and rank 0's metrics, about twice a second.

    Raises:
        ConfigError: A checkpoint is asked for that the run does not reach.
        ClusterError: The cluster cannot hold the workers and they shall not wait, or workers died too often.
        LrhError: A worker hit a mistake that repeating cannot mend.
    """
    wanted = sorted(set(save_at) | {steps})
    if steps < 1 or wanted[0] < 0 or wanted[-1] > steps:
        raise ConfigError(f"save_at is {list(save_at)!r} of {steps} steps; each lies between 0 and the last step.")
    place = folder.resolve() / name
    checkpoints = {step: place / _folder_name(step) for step in wanted}
    if _finished(place, wanted):
        return checkpoints
    require_room(config, living_nodes())
    news = Queue(actor_options={"num_cpus": 0})
    orders = _Orders(task=task, steps=steps, save_at=frozenset(wanted), news=news)
    trainer = ray.train.torch.TorchTrainer(
        _work,
        train_loop_config={"orders": orders},
        scaling_config=_scaling(config),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # mypy sees the class of the older version
            name=name,
            storage_path=str(folder.resolve()),
            failure_config=ray.train.FailureConfig(max_failures=config.retries),
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        _fit(trainer, news, on_step)
    finally:
        news.shutdown(force=True)
    write_durably(place / FINISHED_FILE, json.dumps(wanted).encode("ascii"))
    return checkpoints


def _finished(place: Path, wanted: Sequence[int]) -> bool:
    """Whether a run has ended with these checkpoints; a folder alone may be one that was being copied."""
    file = place / FINISHED_FILE
    return file.is_file() and set(wanted) <= set(json.loads(file.read_text(encoding="ascii")))


def _scaling(config: TrainConfig) -> Any:
    resources = {"CPU": config.cpus} | ({"GPU": config.gpus} if config.gpus else {})
    return ray.train.ScalingConfig(num_workers=config.workers, use_gpu=config.gpus > 0, resources_per_worker=resources)


def _fit(trainer: Any, news: Queue, on_step: OnStep) -> None:
    """Run the trainer beside a loop that passes its news on, so that whoever waits sees the run move.

    Nobody waits for the trainer's thread: Ctrl-C ends the loop at once, and the workers end with their driver, or when
    they find that nobody takes their news.
    """
    finished: Future[None] = Future()
    threading.Thread(target=_keep, args=(trainer, finished), name="ray-train", daemon=True).start()
    while not finished.done():
        _pass_on(news, on_step)
    try:
        finished.result()
    except ray.train.TrainingFailedError as error:
        _raise_cause(error)


def _keep(trainer: Any, finished: "Future[None]") -> None:
    """Run the trainer; how it ends is in `finished`."""
    try:
        trainer.fit()
    except BaseException as error:  # noqa: BLE001  # whatever it is, the caller raises it
        finished.set_exception(error)
    else:
        finished.set_result(None)


def _pass_on(news: Queue, on_step: OnStep) -> None:
    try:
        step, metrics = news.get(timeout=TELL_SECONDS)
    except (Empty, ray.exceptions.RayError):
        return
    on_step(step, metrics)


def _raise_cause(error: Any) -> None:
    """The user's mistake itself if a worker met one; else what the cluster did."""
    failures = getattr(error, "worker_failures", {})
    for failure in failures.values():
        cause = failure.cause if isinstance(failure, ray.exceptions.RayTaskError) else failure
        if isinstance(cause, LrhError):
            raise cause from error
    first = next(iter(failures.values()), error)
    raise ClusterError(
        f"Training workers failed and were restarted as often as allowed; the last cause: {type(first).__name__}: "
        f"{str(first).strip().splitlines()[-1]}. Checkpoints stand: repeat the same command to go on from the last one."
    ) from error


def _work(settings: Mapping[str, Any]) -> None:
    """What every worker runs: open the learner, go on from the last checkpoint, step, save."""
    orders: _Orders = settings["orders"]
    context = ray.train.get_context()
    share = Share(rank=context.get_world_rank(), world=context.get_world_size())
    learner = orders.task.open(share, ray.train.torch.get_device())
    begin = _resume(learner)
    if begin is None:
        begin = 0
        _checkpoint(learner, 0, {}, orders, share)
    told = 0.0
    for step in range(begin, orders.steps):
        metrics = dict(learner.step(step))
        _checkpoint(learner, step + 1, metrics, orders, share)
        if share.rank == 0 and time.monotonic() - told > TELL_SECONDS:
            told = time.monotonic()
            orders.news.put((step + 1, metrics))


def _resume(learner: Learner) -> int | None:
    """Load the run's last checkpoint; the steps it stands for, None where there is none."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        learner.load(Path(folder))
        return int(json.loads((Path(folder) / STEP_FILE).read_text(encoding="ascii")))


def _checkpoint(learner: Learner, step: int, metrics: Mapping[str, float], orders: _Orders, share: Share) -> None:
    """Publish a checkpoint if one is due; all workers come here together, with what each of them has to bring."""
    if step not in orders.save_at:
        return
    told: dict[str, Any] = {"step": step, **metrics}
    if share.rank > 0 and not isinstance(learner, SharedLearner):
        ray.train.report(told)
        return
    with tempfile.TemporaryDirectory(prefix="lrh-checkpoint-") as folder:
        if share.rank == 0:
            learner.save(Path(folder))
            (Path(folder) / STEP_FILE).write_text(json.dumps(step), encoding="ascii")
        if isinstance(learner, SharedLearner):
            learner.save_share(Path(folder))
        checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report(told, checkpoint=checkpoint, checkpoint_dir_name=_folder_name(step))


def _folder_name(step: int) -> str:
    return f"step-{step:08d}"
